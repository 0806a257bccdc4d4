package doctor

// What connections need. docs/tuning.md says how each was measured.
const (
	// userBytes is the anonymous memory of the process per idle connection [bytes]: the connection, its slot, its timer.
	userBytes = 320

	// kernelBytes is the kernel's memory per idle TCP connection [bytes], where /proc/slabinfo cannot be read: the sum of
	// slabNames on Linux 6, rounded up.
	kernelBytes = 4 << 10

	// baseBytes is what the process and the kernel take besides [bytes].
	baseBytes = 256 << 20

	// busyFraction: one connection in so many has a message waiting in a socket buffer, which takes a page each way.
	busyFraction = 8
	pagesBusy    = 2

	// slackFraction: one socket in so many more than the connections is being set up, refused or closed.
	slackFraction = 10

	// backlog is what the queues of connections not yet accepted must hold: the default of --backlog [connections].
	backlog = 4096

	// maxTimeWait: TIME_WAIT lasts 60 s and a drain closes everybody within 30 s, so all of them may be in it at once.
	// More than this many are not asked for: beyond its limit the kernel forgets the oldest, which rarely matters.
	maxTimeWait = 262_144

	// pingInterval is the default of --ping-interval [s].
	pingInterval = 20
)

// slabNames are the kernel's objects of one connection: socket, inode, file, directory entry, and its place in epoll.
var slabNames = []string{"TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi"}
