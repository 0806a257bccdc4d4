//go:build race

package loop

import (
	"encoding/binary"

	"github.com/cloudwego/netpoll"
)

// operators finds the operator of an event. In race builds netpoll stores the descriptor in the event's data, not the
// operator's address.
type operators struct{ byFD map[int]*netpoll.FDOperator }

func (o *operators) add(op *netpoll.FDOperator) {
	if o.byFD == nil {
		o.byFD = make(map[int]*netpoll.FDOperator)
	}
	o.byFD[op.FD] = op
}

func (o *operators) remove(op *netpoll.FDOperator) { delete(o.byFD, op.FD) }

func (o *operators) of(ev *epollEvent) *netpoll.FDOperator {
	return o.byFD[int(int32(binary.NativeEndian.Uint32(ev.data[:4])))]
}
