//go:build linux && (arm64 || loong64)

package loop

// epollEvent mirrors netpoll's unexported epollevent (and the kernel's struct epoll_event, which is not packed here).
type epollEvent struct {
	events uint32
	_      int32
	data   [8]byte
}
