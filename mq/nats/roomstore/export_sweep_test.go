package roomstore

import "context"

// SweepGateway is what SweepGateways does with a gateway that had no lease when it looked.
func (e *Engine) SweepGateway(ctx context.Context, node string) error {
	return e.sweepGateway(ctx, node)
}
