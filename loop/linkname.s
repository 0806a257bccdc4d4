// An empty assembly file lets the compiler accept a function without a body (openPoll in epoll.go).
