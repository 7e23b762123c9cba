package sim

import (
	"container/heap"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The reconciliations at one instant are bounded: a fixed amount, and more for
// each object that the instant began with. Controllers that feed each other
// without end are slowed down to a second a time, as a real cluster's back-off
// would. A mesh whose workloads all start at once needs about five for each
// object; the allowance is ten times that.
const (
	settleLimit     = 20_000
	settlePerObject = 50
)

// work is one object to be reconciled by one controller.
type work struct {
	controller int
	key        objectKey
}

// scheduler orders reconciliations: a queue for this instant, a heap for later.
type scheduler struct {
	controllers []Controller
	watching    map[schema.GroupResource][]int
	queue       []work
	queued      map[work]bool
	timers      timerHeap
	due         map[work]*timer
	seq         int
	running     bool
}

func (s *scheduler) init(cs []Controller) {
	s.controllers = cs
	s.watching = map[schema.GroupResource][]int{}
	s.queued, s.due = map[work]bool{}, map[work]*timer{}
	for i, ctl := range cs {
		for _, gr := range ctl.Watches() {
			if !slices.Contains(s.watching[gr], i) {
				s.watching[gr] = append(s.watching[gr], i)
			}
		}
	}
}

func (s *scheduler) enqueue(w work) {
	if !s.queued[w] {
		s.queued[w] = true
		s.queue = append(s.queue, w)
	}
}

// changed queues the object and its controller owners, of the old state too,
// for every controller that watches the resource.
func (s *scheduler) changed(c *Cluster, ch change) {
	for _, i := range s.watching[ch.key.gr] {
		s.enqueue(work{i, ch.key})
		for _, e := range []*entry{ch.next, ch.prev} {
			if e == nil {
				continue
			}
			if k, ok := c.ownerKey(e, ch.key.namespace); ok {
				s.enqueue(work{i, k})
			}
		}
	}
}

// later sets the time at which w is due again, replacing an earlier one; a
// delay of zero or less clears it.
func (s *scheduler) later(w work, now time.Time, d time.Duration) {
	if t := s.due[w]; t != nil {
		heap.Remove(&s.timers, t.index)
		delete(s.due, w)
	}
	if d <= 0 {
		return
	}
	s.seq++
	t := &timer{at: now.Add(d), seq: s.seq, work: w}
	s.due[w] = t
	heap.Push(&s.timers, t)
}

func (s *scheduler) next() (time.Time, bool) {
	if len(s.timers) == 0 {
		return time.Time{}, false
	}
	return s.timers[0].at, true
}

// release queues what is due at now.
func (s *scheduler) release(now time.Time) {
	for len(s.timers) > 0 && !s.timers[0].at.After(now) {
		t := heap.Pop(&s.timers).(*timer)
		delete(s.due, t.work)
		s.enqueue(t.work)
	}
}

// settle runs queued reconciliations until none is left.
func (c *Cluster) settle() {
	s := &c.sched
	if s.running {
		return
	}
	s.running = true
	defer func() { s.running = false }()
	limit := settleLimit + settlePerObject*c.st.size()
	for n := 0; len(s.queue) > 0; n++ {
		w := s.queue[0]
		s.queue = s.queue[1:]
		delete(s.queued, w)
		if n > limit {
			s.later(w, c.now, time.Second)
			continue
		}
		ctl := s.controllers[w.controller]
		d := ctl.Sync(&world{c: c, controller: ctl.Name(), manager: managerOf(ctl)}, w.key.gr, w.key.namespace, w.key.name)
		s.later(w, c.now, d)
	}
	s.queue = nil
	c.countQuotas()
}

// resync queues every stored object for the controllers that watch it, as a
// controller manager does when it starts.
func (c *Cluster) resync() {
	for _, k := range c.allKeys() {
		for _, i := range c.sched.watching[k.gr] {
			c.sched.enqueue(work{i, k})
		}
	}
}

type timer struct {
	at    time.Time
	seq   int
	index int
	work  work
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	*h = old[:len(old)-1]
	return t
}
