//go:build !race

package loop

import (
	"unsafe"

	"github.com/cloudwego/netpoll"
)

// operators finds the operator of an event. netpoll stores its address in the event's data; the socket slab and the
// kernel struct keep it alive.
type operators struct{}

func (*operators) add(*netpoll.FDOperator)    {}
func (*operators) remove(*netpoll.FDOperator) {}

func (*operators) of(ev *epollEvent) *netpoll.FDOperator {
	return *(**netpoll.FDOperator)(unsafe.Pointer(&ev.data))
}
