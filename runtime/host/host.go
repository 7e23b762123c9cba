// Package host puts together what a run is made of: a loaded runbook, its
// parameters, a cluster and a journal become one execution of the engine. The
// command line and rutter test both come through here, so that what is tested
// is what runs.
package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/gate/crds"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/value"
)

// Host is what stays the same from run to run.
type Host struct {
	Builtins *builtin.Set
	Decoders map[string]value.Decoder
	Stdlib   fs.FS
	Version  string // of rutter
	Limits   interp.Limits
	Cache    *loader.Cache
	// Schemas remembers what RUT009 compiled; nil compiles each time.
	Schemas *crds.Compiled
}

// Session is what one run is given.
type Session struct {
	Env      *env.Env
	Cluster  cluster.Writer
	Journal  journal.Journal
	Sink     event.Sink
	Approver engine.Approver
	Policy   *gate.Policy
	// Metrics answers RUT014; nil: the policy's Prometheus, and on a virtual
	// clock nobody, which is said.
	Metrics gate.Metrics
	// Knowledge is what is known of Istio's releases; nil is what this rutter was
	// built with.
	Knowledge *knowledge.Base
	Sealer    builtin.Sealer
	// Lock says for whom the mesh is locked while the run lasts; nil where
	// nobody else can reach the cluster.
	Lock *lock.Options
	// Plan is the file of the saved plan that a new run is held to, and Conform
	// reads it; a resume reads the one that is in the journal.
	Plan    []byte
	Conform func(plan []byte) (gate.Conformance, error)
	// Rehearsal: Cluster is a twin, and nothing real is changed.
	Rehearsal bool
	// Invocation is the command line's own, kept in the journal for a resume.
	Invocation json.RawMessage
	// Evidence writes a file into the run's folder and gives its path; nil where
	// there is none.
	Evidence func(name string, content []byte) (path string, err error)
	// Analyze is asked about the mesh's configuration when a step failed; nil is
	// not.
	Analyze func(ctx context.Context, r cluster.Reader) ([]string, error)
}

// Runbook is a loaded runbook, ready to be run once.
type Runbook struct {
	*interp.Runbook
	cluster *clusterValue
}

// Load loads the runbook that l starts with. Nothing touches a cluster.
func (h *Host) Load(ctx context.Context, l *loader.Loader) (*Runbook, error) {
	cv := &clusterValue{}
	names := starlark.StringDict{"cluster": cv}
	for k, v := range h.Builtins.Predeclared() {
		names[k] = v
	}
	rb, err := interp.Load(ctx, l, names, h.Limits)
	if err != nil {
		return nil, err
	}
	if err := deps.Requires(rb.Requires, h.Version); err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: loader.Filename(rb.Entry.Label), Problem: "the runbook " + err.Error(), Changed: "nothing", Next: "use another rutter, or another version of the runbook (rutter runbooks)"}
	}
	return &Runbook{Runbook: rb, cluster: cv}, nil
}

// targetParam is the parameter that holds the version to upgrade to.
const targetParam = "to"

// Run begins a run. soft ends at the operator's first interrupt, hard at the
// second. Nothing is journaled before the pair of versions is known to be one
// that the runbook is for.
func (h *Host) Run(soft, hard context.Context, s Session, rb *Runbook, p *interp.Params) error {
	begin, err := h.begin(soft, s, rb, p)
	if err != nil {
		return err
	}
	o := h.options(s, *begin, rb, p)
	if o.Plan, err = s.inForce(begin.Plan); err != nil {
		return err
	}
	return h.carry(soft, hard, s, o, func(o engine.Options) error { return engine.Run(soft, hard, o) })
}

// inForce is the saved plan that the journal names; nil where it names none.
func (s Session) inForce(digest string) (gate.Conformance, error) {
	if digest == "" {
		return nil, nil
	}
	raw, err := s.Journal.Get(digest)
	if err != nil {
		return nil, fmt.Errorf("run %s: saved plan: %w", s.Journal.Run(), err)
	}
	if s.Conform == nil {
		return nil, fmt.Errorf("run %s: it is held to a saved plan, and nobody is there to read it", s.Journal.Run())
	}
	return s.Conform(raw)
}

func (h *Host) begin(ctx context.Context, s Session, rb *Runbook, p *interp.Params) (*journal.Begin, error) {
	uid, err := s.Cluster.UID(ctx)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: identity: %w", s.Cluster.Context(), err)
	}
	from, err := Installed(ctx, s.Cluster)
	if err != nil {
		return nil, err
	}
	to := ""
	if rb.Upgrades.Text != "" {
		to, _ = p.Map()[targetParam].(string)
		if from == "" {
			return nil, &diag.Error{
				Code: diag.Usage, Subject: "cluster " + s.Cluster.Context(), Problem: "no Istio control plane found",
				Expect: "a mesh to upgrade: " + rb.Upgrades.Text, Next: "rutter run with another --context",
			}
		}
		if err := rb.Upgrades.Allow(from, to); err != nil {
			return nil, fmt.Errorf("runbook %s: %w", rb.Name, err)
		}
	}
	params, err := plain.Encode(p.Map())
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	secrets, err := commitments(p, s.Env.Rand)
	if err != nil {
		return nil, err
	}
	bundle, err := json.Marshal(rb.Bundle)
	if err != nil {
		return nil, fmt.Errorf("source bundle: %w", err)
	}
	digest, err := s.Journal.Put(bundle)
	if err != nil {
		return nil, err
	}
	key := ""
	if k, ok := s.Sealer.(interface{ Recipient() string }); ok {
		key = k.Recipient()
	}
	inForce := ""
	if s.Policy != nil {
		inForce = s.Policy.Digest
	}
	plan := ""
	if len(s.Plan) > 0 {
		if plan, err = s.Journal.Put(s.Plan); err != nil {
			return nil, err
		}
	}
	return &journal.Begin{
		Key: key, Policy: inForce, Plan: plan,
		Run: s.Journal.Run(), Runbook: rb.Name, RunbookVersion: rb.Version, RunbookDigest: rb.Bundle.Digest(), Path: rb.Bundle.Entry,
		Bundle: digest, Params: params, Secrets: secrets, Context: s.Cluster.Context(), ClusterUID: uid, From: from, To: to,
		Rutter: h.Version, Invocation: s.Invocation,
	}, nil
}

// Resume takes a run up where its journal ends. What runs is the source bundle
// in the journal, with the parameters in the journal.
func (h *Host) Resume(soft, hard context.Context, s Session) error {
	return h.ResumeWith(soft, hard, s, ResumeOptions{Recorded: true})
}

// ResumeWith is Resume with a look at what has changed since.
func (h *Host) ResumeWith(soft, hard context.Context, s Session, ro ResumeOptions) error {
	f, err := inForceIn(s.Journal)
	if err != nil {
		return err
	}
	c, err := h.pick(soft, s, f, ro)
	if err != nil {
		return err
	}
	now, err := Installed(soft, s.Cluster)
	if err != nil {
		return err
	}
	o := h.options(s, f.Begin, c.rb, c.p)
	o.Adopted = c.adopted
	if o.Plan, err = s.inForce(f.Begin.Plan); err != nil {
		return err
	}
	return h.carry(soft, hard, s, o, func(o engine.Options) error { return engine.Resume(soft, hard, o, now) })
}

// recorded loads the runbook that is in the journal.
func (h *Host) recorded(ctx context.Context, j journal.Journal, begin *journal.Begin) (*Runbook, error) {
	raw, err := j.Get(begin.Bundle)
	if err != nil {
		return nil, fmt.Errorf("run %s: source bundle: %w", begin.Run, err)
	}
	bundle := &loader.Bundle{}
	if err := json.Unmarshal(raw, bundle); err != nil {
		return nil, fmt.Errorf("run %s: source bundle: %w", begin.Run, err)
	}
	return h.Load(ctx, loader.FromBundle(bundle, h.Cache))
}

// Rollback undoes a run from its journal. A runbook that this rutter can't load
// any more is no hindrance: before-images and builtins do without it.
func (h *Host) Rollback(soft, hard context.Context, s Session, ro engine.RollbackOptions) error {
	f, err := inForceIn(s.Journal)
	if err != nil {
		return err
	}
	begin := &f.Begin
	rb, err := h.recorded(soft, s.Journal, begin)
	if err != nil {
		s.Sink.Emit(event.Event{Time: s.Env.Clock.Now(), Body: &event.Log{
			Level: "warn", Message: fmt.Sprintf("the runbook can't be loaded any more (%v): steps are undone from their before-images", err),
		}})
		rb = nil
	}
	// Nothing of it calls run(p): a rollback asks for no secret.
	return engine.Rollback(soft, hard, h.options(s, *begin, rb, nil), ro)
}

// Begun is the first record of a journal.
func Begun(j journal.Journal) (*journal.Begin, error) {
	for rec, err := range j.Records() {
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", j.Run(), err)
		}
		body, err := rec.Decode()
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", j.Run(), err)
		}
		if b, ok := body.(*journal.Begin); ok {
			return b, nil
		}
		break
	}
	return nil, fmt.Errorf("run %s: %w", j.Run(), journal.ErrNotBegun)
}

func (h *Host) options(s Session, begin journal.Begin, rb *Runbook, p *interp.Params) engine.Options {
	codec := &value.Codec{Decoders: h.Decoders}
	if s.Sealer != nil {
		codec.Seal, codec.Open = s.Sealer.Seal, s.Sealer.Open
	}
	o := engine.Options{
		Env: s.Env, Cluster: s.Cluster, Journal: s.Journal, Sink: s.Sink, Builtins: h.Builtins, Codec: codec,
		Policy: s.Policy, Knowledge: s.Knowledge, Schemas: h.Schemas, Metrics: s.metrics(), Sealer: s.Sealer, Approver: s.Approver, Lock: s.Lock, Rehearsal: s.Rehearsal, Begin: begin, Rutter: h.Version, Evidence: s.Evidence, Analyze: s.Analyze,
	}
	if rb == nil { // only ever for a rollback
		o.Invoke = invokeBare
		return o
	}
	if p != nil {
		for _, secret := range p.Secrets() {
			o.Secrets = append(o.Secrets, secret.Reveal())
		}
	}
	rb.cluster.set(begin.Context, begin.ClusterUID)
	exec := interp.ExecOptions{Limits: h.Limits, Print: func(pos diag.Pos, msg string) {
		s.Sink.Emit(event.Event{Time: s.Env.Clock.Now(), Body: &event.Log{Level: "info", Message: msg}})
	}}
	o.Scope, o.OnFailure = rb.Scope, engine.FailurePolicy(rb.OnFailure)
	o.Exec = func(ctx context.Context, prepare func(*starlark.Thread)) error { return rb.Exec(ctx, p, exec, prepare) }
	o.Invoke = func(ctx context.Context, fn starlark.Callable, prepare func(*starlark.Thread)) error {
		_, err := rb.Call(ctx, fn, nil, exec, prepare)
		return err
	}
	o.Function = func(name string) starlark.Callable {
		fn, _ := rb.Globals[name].(starlark.Callable)
		return fn
	}
	return o
}

// invokeBare calls fn on a thread without a runbook.
func invokeBare(ctx context.Context, fn starlark.Callable, prepare func(*starlark.Thread)) error {
	t := &starlark.Thread{Name: "rollback"}
	t.SetLocal(builtin.ContextKey, ctx)
	prepare(t)
	_, err := starlark.Call(t, fn, nil, nil)
	return err
}

// Installed is the version of the control plane that serves the default
// revision, or of the only one there is; "" where there is none.
func Installed(ctx context.Context, r cluster.Reader) (string, error) {
	planes, err := mesh.ControlPlanes(ctx, r)
	if err != nil {
		return "", fmt.Errorf("cluster %s: control planes: %w", r.Context(), err)
	}
	version := ""
	for _, p := range planes {
		if version == "" || p.Revision == "default" || p.Revision == "" {
			version = p.Version
		}
	}
	return version, nil
}
