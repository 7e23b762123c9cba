package restart

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
)

// Pace of the loop.
const (
	lookEvery  = 10 * time.Second // at the pods of workloads that are not done
	evictEvery = 2 * time.Second  // at workloads whose pods are evicted one by one
	pause      = time.Second      // at least, between two looks that saw nothing new
	soakEvery  = 30 * time.Second // at the pods of a wave that soaks
)

// limits are the options of one call.
type limits struct {
	perNamespace int
	timeout      time.Duration
	soak         time.Duration
	health       []effect.Health
}

// driver carries out a plan: a single-threaded loop over what may be begun,
// what is in flight and what is done. It keeps nothing between runs: on resume
// it starts at its top, and Submit tells it what was already sent.
type driver struct {
	c    *builtin.Call
	sub  effect.Submitter
	tell func(done, total int, message string)
	p    *effect.Plan
	data *planData
	lim  limits

	wave    portion
	waiting []*item // of this wave, in turn
	flight  []*item
	done    []*item // of all waves
	held    time.Time
	judged  time.Time // when the host last judged the services' health
	report  *Report
}

// item is a target on its way.
type item struct {
	t          *target
	generation int64 // of the workload once it was patched
	now        *cluster.Object
	began      time.Time
	deadline   time.Time
	looked     time.Time
	evicted    int // of t.Old, so far
	seconds    int64
}

func drive(c *builtin.Call, sub effect.Submitter, p *effect.Plan, lim limits) (*Report, error) {
	d := &driver{c: c, sub: sub, tell: sub.Progress, p: p, data: &planData{}, lim: lim}
	if err := json.Unmarshal(p.Data, d.data); err != nil {
		return nil, fmt.Errorf("restart: recorded plan: %w", err)
	}
	d.report = &Report{Restarted: []Restarted{}, Skipped: append([]Skipped{}, d.data.Skipped...), Waves: []Wave{}}
	start := d.now()
	for i, w := range d.data.Waves {
		if err := d.portion(w, i == len(d.data.Waves)-1); err != nil {
			return nil, err
		}
	}
	d.report.Seconds = int64(d.now().Sub(start) / time.Second)
	return d.report, nil
}

func (d *driver) now() time.Time { return d.c.Env.Clock.Now() }

// portion carries out one wave to its last workload, and lets it soak if there
// is another one after it.
func (d *driver) portion(w portion, last bool) error {
	d.wave, d.waiting, d.flight = w, nil, nil
	names := make([]string, len(w.Targets))
	for i, n := range w.Targets {
		t := d.data.Targets[n]
		d.waiting = append(d.waiting, &item{t: t})
		names[i] = t.Ref.String()
	}
	first := len(d.done)
	start := d.now()
	d.judged = start // the wave's first effect is judged by itself
	d.c.Emit(&event.WaveStarted{Name: w.Name, Size: len(w.Targets), Total: len(d.data.Targets), Workloads: names})
	err := d.loop()
	if err == nil && !last && d.lim.soak > 0 {
		err = d.soak(d.done[first:])
	}
	ended := &event.WaveEnded{Name: w.Name, OK: err == nil, Duration: d.now().Sub(start)}
	if err != nil {
		err = d.stopped(err)
		ended.Error = err.Error()
	}
	d.c.Emit(ended)
	d.report.Waves = append(d.report.Waves, Wave{Name: w.Name, Size: len(w.Targets), Seconds: int64(ended.Duration / time.Second)})
	return err
}

func (d *driver) loop() error {
	for {
		if err := d.c.Ctx.Err(); err != nil {
			return err
		}
		if err := d.healthy(false); err != nil {
			return err
		}
		if err := d.begin(); err != nil {
			return err
		}
		if len(d.flight) == 0 {
			if len(d.waiting) == 0 {
				return nil
			}
			if err := d.c.Env.Clock.Sleep(d.c.Ctx, lookEvery); err != nil {
				return err
			}
			continue
		}
		before, inFlight := d.now(), len(d.flight)
		if err := d.await(); err != nil {
			return err
		}
		if err := d.settle(); err != nil {
			return err
		}
		if len(d.flight) == inFlight && d.now().Sub(before) < pause {
			if err := d.c.Env.Clock.Sleep(d.c.Ctx, pause); err != nil {
				return err
			}
		}
	}
}

// begin starts as many workloads as the limits and the budgets bear, in turn,
// past those that have to wait.
func (d *driver) begin() error {
	if len(d.waiting) == 0 || len(d.flight) >= d.wave.Most {
		return nil
	}
	l := d.ledger()
	perNamespace := map[string]int{}
	for _, it := range d.flight {
		perNamespace[it.t.Ref.Namespace]++
	}
	var start, rest []*item
	held := ""
	for i, it := range d.waiting {
		if len(d.flight)+len(start) >= d.wave.Most {
			rest = append(rest, d.waiting[i:]...)
			break
		}
		ns := it.t.Ref.Namespace
		if perNamespace[ns] >= d.lim.perNamespace {
			rest = append(rest, it)
			continue
		}
		by, err := l.blocks(it.t)
		if err != nil {
			return err
		}
		if by != "" {
			if held == "" {
				held = fmt.Sprintf("%s waits for poddisruptionbudget.policy/%s", it.t.Ref, by)
			}
			rest = append(rest, it)
			continue
		}
		perNamespace[ns]++
		l.take(it.t)
		start = append(start, it)
	}
	if len(start) == 0 && len(d.flight) == 0 && d.patience(held) {
		// Nothing of ours uses the budget and it does not recover: RUT013 shall
		// say so, with all that it knows.
		start, rest = rest[:1], rest[1:]
	}
	if len(start) > 0 {
		d.held = time.Time{}
	}
	d.waiting = rest
	start, err := d.present(start)
	if err != nil {
		return err
	}
	return d.start(start)
}

// present leaves out workloads that were deleted since they were planned: there
// is nothing to restart, and no reason to stop.
func (d *driver) present(items []*item) ([]*item, error) {
	var out []*item
	for _, it := range items {
		_, err := d.c.Reader.Get(d.c.Ctx, it.t.Ref)
		switch {
		case isAbsent(err):
			d.report.Skipped = append(d.report.Skipped, skip(it.t.Ref, "it was deleted before its turn came"))
		case err != nil:
			return nil, err
		default:
			out = append(out, it)
		}
	}
	return out, nil
}

// patience reports whether a wait for budgets has lasted for the timeout.
func (d *driver) patience(held string) bool {
	if d.held.IsZero() {
		d.held = d.now()
	}
	d.progress(held)
	return d.now().Sub(d.held) >= d.lim.timeout
}

func (d *driver) start(items []*item) error {
	var rolls []*effect.Effect
	var of []*item
	for _, it := range items {
		it.began = d.now()
		it.deadline, it.looked = it.began.Add(d.lim.timeout), it.began
		d.flight = append(d.flight, it)
		if it.t.How == howRoll {
			rolls = append(rolls, d.p.Effects[it.t.Effects[0]])
			of = append(of, it)
		}
	}
	if len(rolls) == 0 {
		return nil
	}
	results, err := d.sub.SubmitAll(d.c.Ctx, rolls)
	for i, r := range results {
		if r != nil && r.Object != nil {
			of[i].generation = r.Object.GetGeneration()
		}
	}
	if err != nil {
		d.unsent(of, results)
		return err
	}
	d.progress("")
	return nil
}

// unsent puts back what was not begun after all, so that reports are true.
func (d *driver) unsent(of []*item, results []*effect.Result) {
	back := map[*item]bool{}
	for i, it := range of {
		back[it] = i >= len(results) || results[i] == nil
	}
	var flight []*item
	for _, it := range d.flight {
		if back[it] {
			d.waiting = append(d.waiting, it)
		} else {
			flight = append(flight, it)
		}
	}
	d.flight = flight
}

// await returns when a workload in flight may be done or lost, or when it is
// time to look at pods.
func (d *driver) await() error {
	refs := make([]cluster.Ref, len(d.flight))
	timeout := lookEvery
	timeout = min(timeout, d.untilLook(timeout))
	for i, it := range d.flight {
		refs[i] = it.t.Ref
		if it.t.How == howEvict {
			timeout = evictEvery
			if it.evicted == 0 {
				timeout = 0
			}
		}
		timeout = min(timeout, max(0, it.deadline.Sub(d.now())))
	}
	err := d.c.Reader.WaitFor(d.c.Ctx, refs, timeout, func(now []*cluster.Object) (bool, error) {
		news := false
		for i, it := range d.flight {
			it.now = now[i]
			if it.t.How == howRoll {
				rolled, lost := it.rolled()
				news = news || rolled || lost != ""
			}
		}
		return news, nil
	})
	if errors.Is(err, cluster.ErrTimeout) {
		return nil
	}
	return err
}

// settle looks closer at everything in flight that may be done, that is
// evicted pod by pod, or that has been silent for long.
func (d *driver) settle() error {
	var flight []*item
	for i, it := range d.flight {
		done, err := d.settleOne(it)
		if err != nil {
			d.flight = append(flight, d.flight[i:]...)
			return err
		}
		if !done {
			flight = append(flight, it)
			continue
		}
		it.seconds = int64(d.now().Sub(it.began) / time.Second)
		d.done = append(d.done, it)
		d.report.Restarted = append(d.report.Restarted, it.restarted())
	}
	moved := len(flight) != len(d.flight)
	d.flight = flight
	if moved {
		d.progress("")
	}
	return nil
}

func (d *driver) settleOne(it *item) (done bool, err error) {
	if it.now == nil {
		return false, d.lost(it, "it was deleted while it was restarted", nil)
	}
	late := !d.now().Before(it.deadline)
	if it.t.How == howEvict {
		return d.evict(it, late)
	}
	rolled, lost := it.rolled()
	if !rolled && lost == "" && !late && d.now().Sub(it.looked) < lookEvery {
		return false, nil
	}
	it.looked = d.now()
	own, err := it.t.own(d.c)
	if err != nil {
		return false, err
	}
	switch {
	case lost != "":
		return false, d.lost(it, lost, own)
	case rolled && it.allRenewed(own):
		return true, d.verify(it, own)
	}
	for _, p := range own {
		if why := trouble(p); why != "" && it.t.renewed(p) {
			return false, d.lost(it, why, own)
		}
	}
	if late {
		return false, d.lost(it, fmt.Sprintf("not ready after %s: %s", d.lim.timeout, it.state()), own)
	}
	return false, nil
}

func (d *driver) progress(message string) {
	if message == "" {
		message = fmt.Sprintf("%s: %d in flight, %d to go", d.wave.Name, len(d.flight), len(d.waiting))
	}
	d.tell(len(d.done), len(d.data.Targets), message)
}

func (it *item) restarted() Restarted {
	t := it.t
	return Restarted{
		Workload: short(t.Ref), Namespace: t.Ref.Namespace, Name: t.Ref.Name, Kind: t.Ref.Kind,
		Wave: t.Wave, Reason: t.Reason, From: t.From, To: t.To, Pods: t.Pods, Seconds: it.seconds,
	}
}
