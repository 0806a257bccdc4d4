package loop

import "sync"

// Task is work for a loop's goroutine. A pointer type that is reused makes Post free of allocations.
type Task interface{ Run() }

// Func makes a Task of a function.
type Func func()

// Run calls f.
func (f Func) Run() { f() }

// tasks is a queue with many producers and one consumer. A mutex held for an append is cheaper here than a lock-free
// list: producers are the rare case (frames never come this way) and wake-ups are coalesced.
type tasks struct {
	mu     sync.Mutex
	queue  []Task
	spare  []Task // the consumer's, empty: swapped with queue
	woken  bool   // a wake-up is under way
	closed bool   // written by the loop's goroutine
}

// Post queues t to run on the loop's goroutine, in the order of posting. It returns false when the loop has stopped;
// then t will not run. Safe from any goroutine, also from the loop's own: the task runs in a later step of this turn or
// in the next turn, never inside Post.
func (l *Loop) Post(t Task) bool {
	l.tasks.mu.Lock()
	defer l.tasks.mu.Unlock()
	if l.tasks.closed {
		return false
	}
	l.tasks.queue = append(l.tasks.queue, t)
	if !l.tasks.woken {
		l.tasks.woken = true
		l.kernel.Wake() // under the lock, so that it cannot meet a closed descriptor
	}
	return true
}

// PostFunc posts f. It allocates; see Post.
func (l *Loop) PostFunc(f func()) bool { return l.Post(Func(f)) }

// RunTasks runs what had been posted when it is called; what those tasks post runs at the next call. For kernels.
func (l *Loop) RunTasks() {
	l.owner.check()
	l.tasks.mu.Lock()
	q := l.tasks.queue
	l.tasks.queue, l.tasks.spare = l.tasks.spare, nil
	l.tasks.woken = false
	l.tasks.mu.Unlock()
	for i, t := range q {
		q[i] = nil
		if l.tasks.closed { // by a task before this one; set on this goroutine alone, so read without the lock
			continue // a socket opened now would be nobody's, and the kernel's descriptors are somebody else's
		}
		t.Run()
		l.stats.Tasks++
	}
	if cap(q) <= 4096 { // a burst's queue is left to the collector
		l.tasks.mu.Lock()
		if l.tasks.spare == nil {
			l.tasks.spare = q[:0]
		}
		l.tasks.mu.Unlock()
	}
}

// closeTasks refuses further tasks and drops those that wait, also those of a RunTasks that calls it.
func (l *Loop) closeTasks() {
	l.tasks.mu.Lock()
	defer l.tasks.mu.Unlock()
	if !l.tasks.closed {
		l.tasks.closed, l.tasks.queue = true, nil
		close(l.stopped)
	}
}
