package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/value"
)

// Call implements builtin.Host: the one way into every declared builtin.
func (e *Engine) Call(t *starlark.Thread, name string, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	spec := e.o.Builtins.Lookup(name)
	if spec == nil {
		return nil, fmt.Errorf("%s: no such builtin", name)
	}
	f := frameOf(t)
	if f == nil {
		return nil, &diag.Error{
			Code: diag.Usage, Pos: builtin.CallerPos(t), Problem: name + " was called while the module loads",
			Expect: "calls that touch the cluster inside run(p)", Next: "move the call into a function that run(p) reaches",
		}
	}
	a, err := spec.Unpack(args, kwargs)
	if err != nil {
		return nil, err
	}
	switch spec.Class {
	case builtin.Pure, builtin.Control:
		v, err := spec.Do(e.call(t, f, spec, nil), a)
		return toValue(v, err)
	case builtin.Read:
		return e.read(t, f, spec, a, e.argsDigest(name, args, kwargs))
	}
	return e.write(t, f, spec, a, e.argsDigest(name, args, kwargs))
}

// call is what a builtin may use, with note collecting its facts.
func (e *Engine) call(t *starlark.Thread, f *frame, spec *builtin.Spec, facts *[]effect.Fact) *builtin.Call {
	c := &builtin.Call{
		Ctx: f.asking(f.ctx, spec.Name), Env: e.envOf(f), Reader: e.readerOf(f), Blobs: e.o.Journal,
		Run:     builtin.RunInfo{ID: e.run.ID, From: e.run.From, To: e.run.To, Secrets: e.o.Sealer, Knowledge: e.o.Knowledge, Digest: e.digest},
		Distant: e.distant(), Pos: builtin.CallerPos(t), Thread: t, Host: e, Facts: e.run.Facts,
		Made:     func(like func(*effect.Effect) bool) bool { return e.madeBefore(f, like) },
		Mark:     func(ef *effect.Effect) { ef.Marks = e.marks(f, e.digest(ef), f.equals) },
		Emit:     func(b event.Body) { e.emit(f.path, b) },
		Progress: func(done, total int, msg string) { e.progress(f, done, total, msg) },
		Health:   e.health(f, spec), HealthEvery: e.healthEvery,
	}
	c.Note = func(fact effect.Fact) {
		e.run.Facts.Add(fact)
		if facts != nil {
			*facts = append(*facts, fact)
		}
	}
	return c
}

// distant reports whether a server stands behind the cluster, as it does behind the
// twin of a live one.
func (e *Engine) distant() bool {
	c, ok := e.o.Cluster.(interface{ Distant() bool })
	return ok && c.Distant() || !e.oneByOne()
}

func (e *Engine) progress(f *frame, done, total int, msg string) {
	e.emit(f.path, &event.Progress{Done: done, Total: total, Message: msg})
}

// before is what every call does first: stop when asked to, and when the
// step's time is up.
func (e *Engine) before(f *frame) error {
	if e.doom != nil {
		return e.doom
	}
	if err := e.interrupted(); err != nil {
		return err
	}
	if f.late(e.o.Env.Clock.Now()) {
		return fmt.Errorf("%w before this call", cluster.ErrTimeout)
	}
	return nil
}

// replayed gives the recorded n-th call of an interrupted pass, or nil when
// the call is to be made. A recorded call of another builtin, or with other
// arguments, means that the runbook took another way: going on could make a
// change twice.
func (e *Engine) replayed(t *starlark.Thread, f *frame, n int, name, args string) (*callRecord, error) {
	if f.replay == nil {
		return nil, nil
	}
	rec := f.replay.call(n)
	if rec == nil {
		return nil, nil
	}
	if rec.builtin != name || rec.args != args {
		return nil, e.doomed(&diag.Error{
			Code: diag.InDoubt, Pos: builtin.CallerPos(t),
			Problem: fmt.Sprintf("this call is %s, the journal has %s here (call %d of step %q)", name, rec.builtin, n+1, f.path),
			Expect:  "the same calls in the same order as before the interruption",
			Next:    "rutter show " + e.run.ID, Err: ErrDiverged,
		})
	}
	return rec, nil
}

func (e *Engine) read(t *starlark.Thread, f *frame, spec *builtin.Spec, a any, args string) (starlark.Value, error) {
	if err := e.before(f); err != nil {
		return nil, err
	}
	n := f.calls
	f.calls++
	rec, err := e.replayed(t, f, n, spec.Name, args)
	if err != nil {
		return nil, err
	}
	if rec != nil && rec.done {
		return e.replayCall(rec)
	}
	if e.replay != nil {
		return nil, e.frontier()
	}
	var facts []effect.Fact
	v, err := toValue(spec.Do(e.call(t, f, spec, &facts), a))
	if err != nil {
		return nil, e.failed(f, n, spec.Name, args, err, facts)
	}
	return v, e.record(f, n, spec.Name, args, v, facts)
}

func (e *Engine) replayCall(rec *callRecord) (starlark.Value, error) {
	for _, fact := range rec.facts {
		e.run.Facts.Add(fact)
	}
	if rec.err != "" {
		return nil, errors.New(rec.err)
	}
	v, err := e.o.Codec.Decode(rec.value)
	if err != nil {
		return nil, e.doomed(fmt.Errorf("%s: recorded value: %w: %w", rec.builtin, err, ErrDiverged))
	}
	return v, nil
}

// failed journals the error of a call: a script that handled it takes the same
// way again when the step is taken up (ruling 11).
func (e *Engine) failed(f *frame, n int, name, args string, err error, facts []effect.Fact) error {
	err = e.doomed(e.wrapCancelled(err))
	if fatal(err) {
		return err
	}
	if _, jerr := e.append(&journal.Call{Step: f.path, Seq: n, Builtin: name, Args: args, Error: err.Error(), Facts: facts}); jerr != nil {
		return jerr
	}
	return err
}

// record journals what a call returned. It need not be durable yet: what is
// lost with it is read again.
func (e *Engine) record(f *frame, n int, name, args string, v starlark.Value, facts []effect.Fact) error {
	raw, err := e.o.Codec.Encode(v)
	if err != nil {
		return fmt.Errorf("%s: its value cannot be recorded: %w", name, err)
	}
	val, err := e.storeValue(raw)
	if err != nil {
		return err
	}
	_, err = e.append(&journal.Call{Step: f.path, Seq: n, Builtin: name, Args: args, Value: val, Facts: facts})
	return err
}

// write takes one call of a write builtin along the path of DESIGN §2.
func (e *Engine) write(t *starlark.Thread, f *frame, spec *builtin.Spec, a any, args string) (starlark.Value, error) {
	if f.path == "" {
		return nil, e.doomed(misuse(&diag.Error{
			Pos: builtin.CallerPos(t), Problem: spec.Name + " was called outside of a step",
			Expect: "every change inside a step, so that a resume can find it",
			Next:   fmt.Sprintf("step(\"what it does\", %s, …)", spec.Name),
		}))
	}
	if err := e.before(f); err != nil {
		return nil, err
	}
	n := f.calls
	f.calls++
	rec, err := e.replayed(t, f, n, spec.Name, args)
	if err != nil {
		return nil, err
	}
	if rec != nil && rec.done {
		return e.replayCall(rec)
	}
	if e.replay != nil {
		return nil, e.frontier()
	}
	var facts []effect.Fact
	c := e.call(t, f, spec, &facts)
	var plan *effect.Plan
	if rec != nil {
		plan = rec.plan
	}
	if plan == nil {
		if plan, err = e.plan(c, f, n, spec, a, args); err != nil {
			return nil, e.failed(f, n, spec.Name, args, err, facts)
		}
	}
	sub := &submitter{e: e, f: f, spec: spec, call: plan.Effects}
	v, err := toValue(spec.DriveCall(c, sub, a, plan))
	// A builtin that drops the error of a submission changes nothing about it.
	if err = e.doomed(err); err != nil {
		return nil, e.failed(f, n, spec.Name, args, err, facts)
	}
	return v, e.record(f, n, spec.Name, args, v, facts)
}

// plan forecasts one call, judges all of it, and journals it.
func (e *Engine) plan(c *builtin.Call, f *frame, n int, spec *builtin.Spec, a any, args string) (*effect.Plan, error) {
	plan, err := spec.PlanCall(c, a)
	if err != nil {
		return nil, err
	}
	for _, ef := range plan.Effects {
		e.classify(spec, ef)
	}
	es := allowed(f, plan.Effects)
	e.emit(f.path, &event.PlanMade{Builtin: spec.Name, Effects: len(es), Notes: append(slices.Clone(plan.Notes), forGood(es)...)})
	for _, ef := range es {
		e.emit(f.path, &event.EffectPlanned{Change: event.ChangeOf("", Summary(ef), ef)})
	}
	if err := e.forecast(f, spec, es, plan.Awaits); err != nil {
		return nil, err
	}
	if recordable := !slices.ContainsFunc(plan.Effects, (*effect.Effect).HoldsSecret); !recordable {
		return plan, nil // made anew after an interruption, rather than put Secrets on the disk
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("%s: plan: %w", spec.Name, err)
	}
	val, err := e.storeValue(raw)
	if err != nil {
		return nil, err
	}
	_, err = e.append(&journal.Plan{Step: f.path, Seq: n, Builtin: spec.Name, Args: args, Plan: val})
	return plan, err
}

// forGood names what a rollback will not undo of the effects: it is said before
// they are made.
func forGood(es []*effect.Effect) []string {
	var out []string
	for _, ef := range es {
		if why := effect.Irreversible(ef); why != "" {
			out = append(out, fmt.Sprintf("%s: can't be undone: %s", ef.Ref, why))
		}
	}
	return out
}

func (e *Engine) classify(spec *builtin.Spec, ef *effect.Effect) {
	ef.Builtin = spec.Name
	ef.Class = effect.Classify(ef)
}

// argsDigest identifies a call's arguments, so that a replay can tell that the
// runbook took the same way.
func (e *Engine) argsDigest(name string, args starlark.Tuple, kwargs []starlark.Tuple) string {
	h := sha256.New()
	h.Write([]byte(name))
	put := func(v starlark.Value) {
		// Encryption never gives the same twice, and a digest in the journal would
		// confirm a guess: Secret material does not count.
		plain := value.Codec{Decoders: e.o.Codec.Decoders, Seal: withoutMaterial}
		raw, err := plain.Encode(v)
		if err != nil { // a function, say: its name and type must do
			raw = []byte(v.Type())
			if fn, ok := v.(starlark.Callable); ok {
				raw = []byte(v.Type() + " " + fn.Name())
			}
		}
		fmt.Fprintf(h, "\x00%d\x00", len(raw))
		h.Write(raw)
	}
	for _, a := range args {
		put(a)
	}
	for _, kw := range kwargs {
		put(kw[0])
		put(kw[1])
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

func withoutMaterial([]byte) ([]byte, error) { return []byte("secret"), nil }

// wrapCancelled turns the error of a read or wait that an interrupt, or the
// loss of the lock, cut short into that.
func (e *Engine) wrapCancelled(err error) error {
	if stopped := e.interrupted(); stopped != nil && !fatal(err) {
		return fmt.Errorf("%w (%w)", stopped, err)
	}
	return err
}
