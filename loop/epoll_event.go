//go:build linux && !arm64 && !loong64

package loop

// epollEvent mirrors netpoll's unexported epollevent (and the kernel's packed struct epoll_event).
type epollEvent struct {
	events uint32
	data   [8]byte
}
