package main

import (
	"bufio"
	"fmt"
	"io"
	"net"

	"github.com/gobwas/ws"
	"github.com/valyala/bytebufferpool"
)

// serveGobwas is github.com/gobwas/ws with a goroutine per connection: its upgrade without net/http, a small bufio.Reader
// per connection, so that a message takes one read(2), and a pooled buffer in which the answer is put together for one
// write(2).
func serveGobwas(addr string, ready func(net.Addr)) error {
	ln, err := listen(addr, ready)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if _, err := ws.Upgrade(c); err != nil {
				return // it has answered with the error
			}
			echoGobwas(c)
		}()
	}
}

func echoGobwas(c net.Conn) {
	r := bufio.NewReaderSize(c, readBuffer)
	for {
		h, err := ws.ReadHeader(r)
		if err != nil {
			return
		}
		b := bytebufferpool.Get()
		size, err := appendAnswer(b, h)
		if err == nil {
			if _, err = io.ReadFull(r, b.B[size:]); err == nil {
				ws.Cipher(b.B[size:], h.Mask, 0)
				_, err = c.Write(b.B)
			}
		}
		bytebufferpool.Put(b)
		if err != nil || h.OpCode == ws.OpClose {
			return
		}
	}
}

// appendAnswer appends the header of the frame that answers one with the header h, and room for its payload. It returns
// the size of the header. Every frame is answered with itself, a ping with a pong.
func appendAnswer(b *bytebufferpool.ByteBuffer, h ws.Header) (size int, err error) {
	if !h.Masked || h.Length > maxMessage {
		return 0, fmt.Errorf("a frame of %d bytes, masked: %v", h.Length, h.Masked)
	}
	if h.OpCode == ws.OpPing {
		h.OpCode = ws.OpPong
	}
	h.Masked = false
	if err := ws.WriteHeader(b, h); err != nil {
		return 0, err
	}
	size = b.Len()
	if need := size + int(h.Length); need > cap(b.B) {
		b.B = append(make([]byte, 0, need), b.B...)
	}
	b.B = b.B[:size+int(h.Length)]
	return size, nil
}
