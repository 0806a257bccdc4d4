package roomstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/mqgate/mqgate/mq/rooms"
)

// head is the first line of the value of a snapshot, which is JSON. After it comes the snapshot itself, when it fits,
// else it is in the keys TOKEN.SEQ.0, TOKEN.SEQ.1 and so on.
type head struct {
	Seq    uint64 `json:"seq"` // of the log, which it shows
	Size   int    `json:"size"`
	Chunks int    `json:"chunks,omitempty"`
}

func chunkKey(token string, seq uint64, i int) string {
	return token + "." + strconv.FormatUint(seq, 10) + "." + strconv.Itoa(i)
}

// snapshotIfDue writes a snapshot if the log has grown by enough since the last one. That it fails does no harm for a
// while: it is tried again with the next record.
func (a *actor) snapshotIfDue(ctx context.Context) {
	if !a.there() || a.records < min(max(snapshotEvery, a.cost/bytesPerRecord), maxSnapshotEvery) {
		return
	}
	b := a.room.AppendSnapshot(make([]byte, 0, a.cost+a.cost/8))
	if err := a.e.writeSnapshot(ctx, a.token, a.seq, b); err != nil {
		a.e.log.Warn("a snapshot could not be written", "room", a.id, "err", err)
		return
	}
	a.records, a.cost = 0, len(b)
	a.e.stats.snapshots.Add(1)
}

func (e *Engine) writeSnapshot(ctx context.Context, token string, seq uint64, b []byte) error {
	old, _, rev, err := e.snapshotHead(ctx, token)
	if err != nil || rev > 0 && old.Seq >= seq {
		return err // somebody has written a newer one
	}
	h := head{Seq: seq, Size: len(b)}
	if len(b) > chunkBytes {
		h.Chunks = (len(b) + chunkBytes - 1) / chunkBytes
	}
	for i := range h.Chunks {
		if err := e.snapshots.set(ctx, chunkKey(token, seq, i), b[i*chunkBytes:min((i+1)*chunkBytes, len(b))], 0); err != nil {
			return err
		}
	}
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	value = append(value, '\n')
	if h.Chunks == 0 {
		value = append(value, b...)
	}
	_, err = e.snapshots.put(ctx, token, value, rev, 0)
	if errors.Is(err, errConflict) {
		err, old = nil, h // ours is not needed
	}
	if err == nil && old.Chunks > 0 {
		err = e.snapshots.remove(ctx, token+"."+strconv.FormatUint(old.Seq, 10)+".*")
	}
	return err
}

func (e *Engine) snapshotHead(ctx context.Context, token string) (h head, body []byte, rev uint64, err error) {
	value, rev, err := e.snapshots.get(ctx, token)
	if err != nil || value == nil {
		return head{}, nil, rev, err
	}
	line, body, _ := bytes.Cut(value, []byte{'\n'})
	if err := json.Unmarshal(line, &h); err != nil {
		return head{}, nil, rev, fmt.Errorf("roomstore: snapshot %s: %w", token, err)
	}
	return h, body, rev, nil
}

// readSnapshot returns a room as the last snapshot shows it and the sequence of the log then; nil when there is none.
func (e *Engine) readSnapshot(ctx context.Context, token string) (r *rooms.Room, seq uint64, size int, err error) {
	for {
		h, body, rev, err := e.snapshotHead(ctx, token)
		if err != nil || rev == 0 || h.Seq == 0 {
			return nil, 0, 0, err
		}
		gone := false
		for i := 0; i < h.Chunks && !gone; i++ {
			b, _, err := e.snapshots.get(ctx, chunkKey(token, h.Seq, i))
			if err != nil {
				return nil, 0, 0, err
			}
			gone = b == nil // a newer one has taken its place
			body = append(body, b...)
		}
		if gone {
			if ctx.Err() != nil {
				return nil, 0, 0, ctx.Err()
			}
			continue
		}
		if len(body) != h.Size {
			return nil, 0, 0, fmt.Errorf("roomstore: snapshot %s has %d bytes, must have %d", token, len(body), h.Size)
		}
		r, err = rooms.DecodeSnapshot(body, &e.cfg.Limits)
		return r, h.Seq, h.Size, err
	}
}

func (e *Engine) removeSnapshot(ctx context.Context, token string) error {
	if err := e.snapshots.remove(ctx, token); err != nil {
		return err
	}
	return e.snapshots.remove(ctx, token+".>")
}
