package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
)

// The format of a saved plan: one JSON object with the format's name and
// version, the digest of the plan's bytes, and the plan in one line.
const (
	formatName    = "rutter-plan"
	formatVersion = 1
	maxFile       = 256 << 20
)

// ErrNotAsPlanned is the error of a saved plan that is not for what there is now.
var ErrNotAsPlanned = errors.New("the saved plan is for something else")

type file struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Digest  string          `json:"digest"`
	Plan    json.RawMessage `json:"plan"`
}

// Save is the sealed form of a plan. One whose rehearsal did not come to a good
// end can't be saved: there is nothing to approve.
func Save(p *Plan) ([]byte, error) {
	if p.Status != string(journal.RunDone) {
		return nil, &diag.Error{
			Code: diag.Code(p.Exit), Subject: "plan of " + p.Runbook.Name, Problem: "ended as " + p.Status + ", so that there is nothing to save", Changed: "nothing",
			Next: "mend what the plan names, and make it again",
		}
	}
	raw, err := cluster.CanonicalJSON(p)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return file{Format: formatName, Version: formatVersion, Digest: digestOf(raw), Plan: raw}.encode()
}

// encode writes the file in the one way in which it is read. The plan's bytes
// are written as they are: HTML is not escaped, or its digest would be of others.
func (f file) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(f); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return b.Bytes(), nil
}

// Read opens a saved plan; name stands for it in errors. The digest is of all
// its bytes, so that a file that was cut off or changed is refused, and what was
// added after the seal as well.
func Read(name string, data []byte) (*Plan, error) {
	bad := func(problem string, err error) (*Plan, error) {
		return nil, &diag.Error{Code: diag.Usage, Subject: name, Problem: problem, Err: err, Changed: "nothing", Next: "rutter plan RUNBOOK --save FILE makes another"}
	}
	if len(data) > maxFile {
		return bad(fmt.Sprintf("is larger than the %d MiB of any plan", maxFile>>20), nil)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&f); err != nil {
		if len(bytes.TrimSpace(data)) == 0 {
			return bad("is empty", nil)
		}
		if strings.Contains(err.Error(), "unexpected EOF") {
			return bad("is cut off", nil)
		}
		return bad("is no saved plan", err)
	}
	switch {
	case f.Format != formatName:
		return bad("is no saved plan", nil)
	case f.Version > formatVersion:
		return nil, &diag.Error{
			Code: diag.Usage, Subject: name, Problem: fmt.Sprintf("is a plan in format %d, made by a newer rutter", f.Version), Expect: fmt.Sprintf("format %d at most", formatVersion),
			Changed: "nothing", Next: "run it with the rutter that made it, or make the plan again",
		}
	case f.Version < 1:
		return bad(fmt.Sprintf("is a plan in format %d, which never was", f.Version), nil)
	case digestOf(f.Plan) != f.Digest:
		return bad("was changed after it was saved: its seal is broken", nil)
	}
	// The seal is over the plan alone: nothing else may differ, not even a space.
	if again, err := f.encode(); err != nil || !bytes.Equal(again, data) {
		return bad("was changed after it was saved: its seal is broken", nil)
	}
	p := &Plan{}
	strict := json.NewDecoder(bytes.NewReader(f.Plan))
	strict.DisallowUnknownFields()
	if err := strict.Decode(p); err != nil {
		return bad("holds what this rutter does not understand", err)
	}
	if p.Status != string(journal.RunDone) || p.Cluster.UID == "" || p.Runbook.Digest == "" {
		return bad("is no plan that can be run", nil)
	}
	return p, nil
}

// Conform reads the plan in a journal, for a resume.
func Conform(data []byte) (gate.Conformance, error) {
	p, err := Read("the saved plan of this run", data)
	if err != nil {
		return nil, err
	}
	return NewInForce(p), nil
}

// World is what a saved plan is about to be run with.
type World struct {
	Runbook *host.Runbook
	Params  *interp.Params
	Policy  *gate.Policy
	Cluster cluster.Reader
	From    string // Istio version that is installed, host.Installed
}

// Differences compares everything that a plan was sealed with: runbook,
// parameters, policy, cluster, Istio version, and the objects that it relies on.
// Nil means that the plan is still for this world.
func (p *Plan) Differences(ctx context.Context, w World) ([]Drift, error) {
	var out []Drift
	say := func(subject, old, now string) {
		if old != now {
			out = append(out, Drift{Subject: subject, Old: orNone(old), New: orNone(now)})
		}
	}
	uid, err := w.Cluster.UID(ctx)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: identity: %w", w.Cluster.Context(), err)
	}
	if uid != p.Cluster.UID { // then nothing else means anything
		return []Drift{{Subject: "cluster", Old: p.Cluster.Context + " (uid " + p.Cluster.UID + ")", New: w.Cluster.Context() + " (uid " + uid + ")"}}, nil
	}
	say("runbook "+p.Runbook.Name, p.Runbook.Digest, w.Runbook.Bundle.Digest())
	if err := p.params(w.Params, say); err != nil {
		return nil, err
	}
	say("policy", p.Policy, policyDigest(w.Policy))
	say("installed Istio", p.From, w.From)
	drifts, err := p.drifts(ctx, w.Cluster)
	return append(out, drifts...), err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (p *Plan) params(now *interp.Params, say func(subject, old, now string)) error {
	raw, err := json.Marshal(now.Map())
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	a, b := map[string]any{}, map[string]any{}
	if err := errors.Join(json.Unmarshal(p.Params, &a), json.Unmarshal(raw, &b)); err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	var fields []Field
	compareMaps("", a, b, &fields)
	for _, f := range fields {
		if !reflect.DeepEqual(f.Old, f.New) {
			say("parameter "+f.Path, brief(f.Old), brief(f.New))
		}
	}
	return nil
}

// Refuse words differences as the error of a run that is not begun; nil for
// none.
func (p *Plan) Refuse(name string, ds []Drift) error {
	if len(ds) == 0 {
		return nil
	}
	return &diag.Error{
		Code: diag.Blocked, Subject: name, Problem: "is not for what there is now", Err: &driftError{ds}, Changed: "nothing",
		Next: "rutter plan " + p.Runbook.Path + " --save FILE makes a new one",
	}
}

// driftError lists what is otherwise.
type driftError struct{ ds []Drift }

// Error has a line for each.
func (e *driftError) Error() string {
	var b strings.Builder
	for i, d := range e.ds {
		if i == maxShown {
			fmt.Fprintf(&b, "\n  and %d more", len(e.ds)-maxShown)
			break
		}
		fmt.Fprintf(&b, "\n  %s: was %s, is %s", d.Subject, d.Old, d.New)
	}
	return b.String()
}

// Is makes it ErrNotAsPlanned.
func (e *driftError) Is(target error) bool { return target == ErrNotAsPlanned }

const maxShown = 20
