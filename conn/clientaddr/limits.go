package clientaddr

// Limits: value, unit, and what each is against.
const (
	// MaxHeaderV1 is the greatest length of a PROXY header of version 1, with its CRLF [bytes]: the specification's own
	// (section 2.1). Against: a line without an end.
	MaxHeaderV1 = 107

	// MaxHeaderV2 is the greatest length of a PROXY header of version 2, signature included [bytes]. The addresses take
	// 16+216 at most; the rest is for extensions that are skipped: SNI, ALPN, the subject of a client's certificate, a
	// cloud's own. The specification says that all of it is smaller than a TCP segment; nginx takes 4096, too. Against:
	// the length field allows 64 KiB, to be held for each connection that never gets any further.
	MaxHeaderV2 = 4096

	// MaxConnectionsPerAddress and MaxHandshakeRate bound what a LimiterConfig may ask for. The rate's bound keeps the
	// arithmetic of the bucket, in billionths of a handshake, within 64 bits.
	MaxConnectionsPerAddress = 1 << 24
	MaxHandshakeRate         = 1_000_000

	// MaxLimiterAddresses bounds LimiterConfig.MaxAddresses. At bytesPerAddress each that is 2.5 GiB.
	MaxLimiterAddresses = 1 << 24

	// bytesPerAddress is what an address takes in a Limiter at worst [bytes]: an entry of 48 in a slab that may be half
	// empty, and 21 for its place in a map that may be less than half full.
	bytesPerAddress = 160

	// shardCount is the number of separately locked parts of a Limiter. A loop takes a lock for well under a
	// microsecond, once per handshake and once per close; among 64 two loops seldom meet.
	shardCount = 64

	// expiriesPerAdmit is the number of entries that one Admit clears away at most: more than it adds, so that they get
	// fewer, and few enough that nobody waits for it.
	expiriesPerAdmit = 8

	// expiriesPerLock is the number of entries that Sweep clears away before it lets the loops in again.
	expiriesPerLock = 256

	// smallSlab is the number of entries that a shard keeps for good once it had them.
	smallSlab = 64
)
