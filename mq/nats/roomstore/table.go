package roomstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errConflict means that a compare-and-set was lost.
var errConflict = errors.New("roomstore: changed by someone else")

// errShort means that NATS was too slow, or lost something, while keys were listed.
var errShort = errors.New("roomstore: not all keys came within their time")

// table is a key-value bucket. It is an ordinary one for others; here it is read from the leader of its stream, so that a
// read sees every write that was acknowledged, and a key that is deleted leaves nothing behind.
type table struct {
	e      *Engine
	bucket string
	stream string

	mu      sync.Mutex
	counted int       // keys when they were counted
	at      time.Time // when
	since   int       // keys made here since then
}

func (e *Engine) bucket(ctx context.Context, name string, storage jetstream.StorageType, replicas int) (*table, error) {
	_, err := e.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Description: "mqgate", History: 1, Storage: storage,
		Replicas: replicas, LimitMarkerTTL: time.Minute, Compression: storage == jetstream.FileStorage})
	if errors.Is(err, jetstream.ErrBucketExists) {
		_, err = e.js.KeyValue(ctx, name)
	}
	return &table{e: e, bucket: name, stream: "KV_" + name}, err
}

func (t *table) subject(key string) string { return "$KV." + t.bucket + "." + key }

// get returns the value of a key and its revision; nil and 0 when there is none.
func (t *table) get(ctx context.Context, key string) ([]byte, uint64, error) {
	value, rev, _, err := t.look(ctx, key)
	return value, rev, err
}

// look is get, and says whether the key was closed.
func (t *table) look(ctx context.Context, key string) (value []byte, rev uint64, closed bool, err error) {
	m, err := t.e.getMsg(ctx, t.stream, `{"last_by_subj":`+quote(t.subject(key))+`}`)
	if err != nil || m == nil {
		return nil, 0, false, err
	}
	if h := m.header; h != nil && (h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != "") {
		// Closed, deleted by hand, or its time was up: the next put needs the revision.
		return nil, m.seq, h.Get("KV-Operation") == "PURGE" && h.Get("Nats-TTL") != "", nil
	}
	return m.data, m.seq, false, nil
}

// close deletes a key if its revision is rev (0: if there is none) and keeps its place for some time: until then nobody who
// expects no key there, or one at an earlier revision, can make it. To others the key is a deleted one. The server takes
// the mark away when its time is up, and leaves no other behind.
func (t *table) close(ctx context.Context, key string, rev uint64, life time.Duration) error {
	m := nats.NewMsg(t.subject(key))
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(rev))
	m.Header.Set("KV-Operation", "PURGE")
	_, err := t.write(ctx, m, life)
	return err
}

// create writes a key that nobody else knows yet. That it is sent again because its acknowledgement was lost makes no
// second one, even if the first has been deleted by then. errConflict: the key was closed.
func (t *table) create(ctx context.Context, key string, value []byte) error {
	m := nats.NewMsg(t.subject(key))
	m.Data = value
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	m.Header.Set(jetstream.MsgIDHeader, key)
	_, err := t.write(ctx, m, 0)
	return err
}

// put writes a key if its revision is rev (0: if there is none) and returns the new one. ttl 0: for ever. After an error
// other than errConflict it is not known whether it was written.
func (t *table) put(ctx context.Context, key string, value []byte, rev uint64, ttl time.Duration) (uint64, error) {
	m := nats.NewMsg(t.subject(key))
	m.Data = value
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(rev))
	return t.write(ctx, m, ttl)
}

// set writes a key whatever it is.
func (t *table) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	m := nats.NewMsg(t.subject(key))
	m.Data = value
	_, err := t.write(ctx, m, ttl)
	return err
}

func (t *table) write(ctx context.Context, m *nats.Msg, ttl time.Duration) (uint64, error) {
	if ttl > 0 {
		m.Header.Set("Nats-TTL", ttl.String())
	}
	ack, err := t.e.publish(ctx, m)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// remove deletes a key.
func (t *table) remove(ctx context.Context, key string) error {
	return t.e.purge(ctx, t.stream, t.subject(key), 0)
}

// removeAt deletes a key unless it has been written since its revision was rev.
func (t *table) removeAt(ctx context.Context, key string, rev uint64) error {
	return t.e.purge(ctx, t.stream, t.subject(key), rev+1)
}

// some reports whether anything is stored below a prefix that ends with a dot at a sequence or above: closed and deleted
// keys as well, until their marks have gone.
func (t *table) some(ctx context.Context, prefix string, from uint64) (bool, error) {
	m, err := t.e.getMsg(ctx, t.stream, fmt.Sprintf(`{"seq":%d,"next_by_subj":%s}`, from, quote(t.subject(prefix+">"))))
	return m != nil, err
}

// live returns the keys below a prefix that ends with a dot, without it, and without those that are closed or deleted: of
// these there may be many more. upTo is the sequence up to which there are no others. Either it returns all of them or an
// error.
func (t *table) live(ctx context.Context, prefix string) (out []string, upTo uint64, err error) {
	c, err := t.e.js.CreateConsumer(ctx, t.stream, jetstream.ConsumerConfig{FilterSubject: t.subject(prefix + ">"),
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true,
		MemoryStorage: true, InactiveThreshold: time.Minute})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = t.e.js.DeleteConsumer(ctx, t.stream, c.CachedInfo().Name) }() // goes by itself after a while
	var read uint64
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		batch, err := c.FetchNoWait(readBatch) // ends without an error as well when nothing comes for a second
		if err != nil {
			return nil, 0, err
		}
		before, pending := read, uint64(0)
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return nil, 0, err
			}
			if read++; meta.Sequence.Consumer != read {
				return nil, 0, errShort
			}
			upTo, pending = meta.Sequence.Stream, meta.NumPending
			if h := m.Headers(); h.Get("KV-Operation") == "" && h.Get("Nats-Marker-Reason") == "" {
				out = append(out, strings.TrimPrefix(m.Subject(), t.subject(prefix)))
			}
		}
		if err := batch.Error(); err != nil {
			return nil, 0, err
		}
		switch {
		case read > before && pending > 0:
			continue
		case read > before:
			return out, upTo, nil
		}
		// Nothing came: because there is nothing more, or because the server is slow.
		info, err := c.Info(ctx)
		if err == nil && (info.NumPending > 0 || info.Delivered.Consumer != read) {
			err = errShort
		}
		if err != nil {
			return nil, 0, err
		}
		return out, upTo, nil
	}
}

// keys returns the keys below a prefix that ends with a dot, or all; without it.
func (t *table) keys(ctx context.Context, prefix string) ([]string, error) {
	var out []string
	for {
		var r struct {
			apiError
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
			Total int `json:"total"`
		}
		q := fmt.Sprintf(`{"subjects_filter":%s,"offset":%d}`, quote(t.subject(prefix+">")), len(out))
		if err := t.e.api(ctx, "STREAM.INFO."+t.stream, q, &r, &r.apiError); err != nil {
			return nil, err
		}
		for s := range r.State.Subjects {
			out = append(out, strings.TrimPrefix(s, t.subject(prefix)))
		}
		if len(r.State.Subjects) == 0 || len(out) >= r.Total {
			return out, nil
		}
	}
}

// count returns the number of keys.
func (t *table) count() (int, error) {
	ctx, cancel := context.WithTimeout(t.e.ctx, opTimeout)
	defer cancel()
	return t.countNow(ctx)
}

func (t *table) countNow(ctx context.Context) (int, error) {
	var r struct {
		apiError
		State struct {
			Messages int `json:"messages"`
		} `json:"state"`
	}
	if err := t.e.api(ctx, "STREAM.INFO."+t.stream, "", &r, &r.apiError); err != nil {
		return 0, err
	}
	t.mu.Lock()
	t.counted, t.at, t.since = r.State.Messages, time.Now(), 0
	t.mu.Unlock()
	return r.State.Messages, nil
}

// over reports whether there are more than limit keys, after one was added. Far from the limit it does not count each
// time: an eighth of the limit may come from other workers unnoticed for countAge.
func (t *table) over(ctx context.Context, limit int) (bool, error) {
	t.mu.Lock()
	t.since++
	sure := time.Since(t.at) < countAge && t.counted+t.since < limit-limit/8-1
	t.mu.Unlock()
	if sure {
		return false, nil
	}
	n, err := t.countNow(ctx)
	return n > limit, err
}

// quote returns s as JSON.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string never fails
	return string(b)
}
