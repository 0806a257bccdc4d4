package subjects

// Limits of names: value, unit, and what each is against.
const (
	// MaxPrefix bounds the prefix [bytes]: it is in every subject, and file names are made of it.
	MaxPrefix = 64

	// MaxType bounds the type of a request that may become a subject [bytes], against subjects as long as a client likes.
	MaxType = 128

	// MaxRoomToken bounds what stands for a room in a subject [bytes]. It holds room ids of up to 96 bytes as they are;
	// longer ones, which only foreign workers make, are hashed.
	MaxRoomToken = 128
)
