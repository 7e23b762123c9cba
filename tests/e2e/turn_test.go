//go:build e2e

package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// together is how many tests, and so planes, there are at once. It is more than
// there are processors, since tests wait for what takes its time.
const together = 3

// turns lets tests run beside each other, those that take longest first: the
// one that began last would else run on alone.
type turns struct {
	mu      sync.Mutex
	changed sync.Cond
	running int
	waiting []time.Duration // how long those take that have not begun
}

func newTurns() *turns {
	q := &turns{}
	q.changed.L = &q.mu
	return q
}

var queue = newTurns()

// parallel is t.Parallel for a test that takes so long on two quiet processors.
// It returns when it is the test's turn.
func parallel(t *testing.T, takes time.Duration) {
	t.Helper()
	queue.mu.Lock()
	queue.waiting = append(queue.waiting, takes)
	queue.mu.Unlock()
	t.Cleanup(queue.end)
	t.Parallel() // goes on when all have said how long they take
	waited := queue.begin(takes)
	t.Logf("began after %s", waited.Round(time.Second))
}

func (q *turns) begin(takes time.Duration) time.Duration {
	since := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.running == together || slices.Max(q.waiting) > takes {
		q.changed.Wait()
	}
	at := slices.Index(q.waiting, takes)
	q.waiting = slices.Delete(q.waiting, at, at+1)
	q.running++
	q.changed.Broadcast()
	return time.Since(since)
}

func (q *turns) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.changed.Broadcast()
}
