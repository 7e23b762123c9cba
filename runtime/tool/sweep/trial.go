package sweep

import (
	"math/rand/v2"
	"time"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/journal"
)

// struck is a case in which a request goes wrong.
func (ref *reference) struck(s *Subject, c Case, seed uint64) Result {
	began := time.Now()
	w, p, err := ref.disturb(s, c, seed)
	r := Result{Case: c, What: p.struck, Exit: int(diag.ExitCode(err)), Stopped: err != nil}
	if err != nil && !stops(diag.ExitCode(err)) {
		w.breaks("it stopped with exit code %d: %v", r.Exit, err)
	}
	if rerr := w.reopened(); rerr != nil {
		w.breaks("the journal after the stop: %v", rerr)
	} else {
		ref.then(w, c, err == nil, seed)
	}
	w.served()
	ref.budgets(w)
	ref.limited(w)
	ref.secrets(w)
	r.Broken, r.Back, r.Took = w.broken, w.isBack, time.Since(began)
	return r
}

// disturb runs the case up to where the disturbed process ends.
func (ref *reference) disturb(s *Subject, c Case, seed uint64) (*world, *process, error) {
	if c.Watch > 0 {
		w := newWorld(s)
		p, err := w.start(plan{cutAt: c.Watch, watchFault: watchFaults[c.Fault], watching: true})
		return w, p, err
	}
	pl := plan{failAt: c.Request, fault: faultOf(c.Fault)}
	if w, at := ref.shortcut(c, seed); w != nil {
		p, err := ref.toTheEnd(w, c, seed, plan{strike: at, fault: pl.fault}, w.resume)
		if p.over() {
			return w, p, err
		}
	}
	w := newWorld(s)
	p, err := ref.toTheEnd(w, c, seed, pl, w.start)
	return w, p, err
}

// died is a case in which the host dies; w is how it was at that moment.
func (ref *reference) died(w *world, kind string, c Case, seed uint64) Result {
	began := time.Now()
	r := Result{Case: c, What: kind, Exit: -1, Stopped: true}
	if c.Fault != "kill" {
		// Of what was not synced, nothing survives, or some, or nearly all.
		n := rand.New(rand.NewPCG(seed, uint64(c.Disk))) // #nosec G115 G404 -- the same every time is the point
		keep := map[string]int{"power1": 0, "power2": 1 + n.IntN(64), "power3": 64 + n.IntN(4096)}[c.Fault]
		w.disk = w.disk.Crash(keep)
	}
	if err := w.reopened(); err != nil {
		w.breaks("the journal after the host died: %v", err)
	} else {
		ref.then(w, c, false, seed)
	}
	w.served()
	ref.budgets(w)
	ref.limited(w)
	ref.secrets(w)
	r.Broken, r.Back, r.Took = w.broken, w.isBack, time.Since(began)
	return r
}

// then brings the run to an end, and looks at that.
func (ref *reference) then(w *world, c Case, done bool, seed uint64) {
	switch {
	case done && w.isBack:
	case done:
		ref.finished(w, c)
	case !w.begun:
		ref.neverBegan(w, c)
	case c.Then == "rollback":
		ref.rolledBack(w, c, seed)
	case c.Then == "again":
		n := rand.New(rand.NewPCG(seed, uint64(c.Disk)<<8)) // #nosec G115 G404 -- the same every time is the point
		p, err := ref.toTheEnd(w, c, seed, plan{killAt: 1 + n.IntN(max(4, ref.Disk-c.Disk))}, w.resume)
		if p.left != nil {
			*w = *p.left
			if err = w.reopened(); err == nil {
				_, err = ref.toTheEnd(w, c, seed, plan{}, w.resume)
			}
		}
		ref.resumed(w, c, err)
	default:
		ref.takenUp(w, c, seed)
	}
}

// takenUp resumes the run, unless a resume from the same was seen to its end.
func (ref *reference) takenUp(w *world, c Case, seed uint64) {
	from := w.resumable()
	if ref.mayStop(c, seed) && ref.resumes.known(from) {
		w.isBack = true
		return
	}
	_, err := ref.toTheEnd(w, c, seed, plan{}, w.resume)
	ref.resumed(w, c, err)
	if len(w.broken) == 0 && !ref.believed(c) {
		ref.resumes.learn(from)
	}
}

// rolledBack rolls the run back, unless a rollback from the same was seen to its
// end.
func (ref *reference) rolledBack(w *world, c Case, seed uint64) {
	from := w.standing()
	if ref.mayStop(c, seed) && ref.ways.known(from) {
		w.isBack = true
		return
	}
	if _, err := w.rollback(plan{}); err != nil {
		w.breaks("the rollback: %v", err)
		return
	}
	w.settledAs(ref.before, "before")
	if len(w.broken) == 0 {
		ref.ways.learn(from)
	}
}

func (ref *reference) resumed(w *world, c Case, err error) {
	if err != nil {
		w.breaks("the resume: %v", err)
		return
	}
	if !w.isBack {
		ref.finished(w, c)
	}
}

// neverBegan: nothing was changed, and the run can be begun anew.
func (ref *reference) neverBegan(w *world, c Case) {
	if n := len(took(w.sent)); n > 0 {
		w.breaks("%d objects were changed by a run that never began", n)
	}
	w.disk = journal.NewMemFS() // the same id, for the same marks on objects
	if _, err := w.start(plan{}); err != nil {
		w.breaks("begun anew: %v", err)
		return
	}
	ref.finished(w, c)
}

// believed reports whether the fault is an answer that the run may rightly
// believe: that what it reads is not there. It may then end otherwise than the
// undisturbed run.
func (ref *reference) believed(c Case) bool {
	return c.Request > 0 && c.Fault == "404" && !ref.points[c.Request-1].writes
}

// finished: the cluster is as after the undisturbed run, by the same requests.
func (ref *reference) finished(w *world, c Case) {
	if ref.believed(c) {
		return
	}
	for _, d := range differences(took(w.sent), ref.sent) {
		w.breaks("%s", d)
	}
	w.settledAs(ref.after, "after the undisturbed run")
}

func (w *world) settledAs(want map[string]string, when string) {
	w.sim.Advance(settle)
	for _, d := range compare(w.state(), want) {
		w.breaks("not as %s: %s", when, d)
	}
}
