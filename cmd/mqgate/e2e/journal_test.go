package e2e

import (
	"context"
	"slices"
	"sync"
)

// A journal holds what a process has told and no test has asked for yet. Safe for use by several goroutines.
type journal[T any] struct {
	mu     sync.Mutex
	items  []T
	ended  bool
	change chan struct{} // closed and replaced at every change
}

func newJournal[T any]() *journal[T] { return &journal[T]{change: make(chan struct{})} }

func (j *journal[T]) add(item T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.items = append(j.items, item)
	j.changed()
}

// end tells that nothing more will come.
func (j *journal[T]) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	j.changed()
}

func (j *journal[T]) changed() {
	close(j.change)
	j.change = make(chan struct{})
}

// take removes the first item that matches and returns it; it waits for one until ctx is done or the journal has ended.
func (j *journal[T]) take(ctx context.Context, match func(T) bool) (T, bool) {
	for {
		j.mu.Lock()
		if i := slices.IndexFunc(j.items, match); i >= 0 {
			item := j.items[i]
			j.items = slices.Delete(j.items, i, i+1)
			j.mu.Unlock()
			return item, true
		}
		ended, change := j.ended, j.change
		j.mu.Unlock()
		if !ended {
			select {
			case <-change:
				continue
			case <-ctx.Done():
			}
		}
		var none T
		return none, false
	}
}

// rest returns what nobody has taken.
func (j *journal[T]) rest() []T {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.items)
}
