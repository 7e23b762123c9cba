package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/policy"
)

const policyUsage = "the organization's policy file (default rutter.yaml of the repository, if it has one)"

// policyFor reads the organization's policy, nil where there is none, and makes
// l (if not nil) refuse its files. It comes before the runbook is loaded.
func (a *app) policyFor(ctx context.Context, h *host.Host, t *target, root string, l *loader.Loader) (*policy.Policy, error) {
	if t.Policy == "" {
		found, err := a.findPolicy(root)
		if err != nil {
			return nil, err
		}
		t.Policy = found
	}
	if t.Policy == "" {
		return nil, nil
	}
	if !filepath.IsAbs(t.Policy) { // a resume finds it from anywhere
		t.Policy = filepath.Join(a.env.Workdir, t.Policy)
	}
	p, err := h.ReadPolicy(ctx, t.Policy)
	if errors.Is(err, fs.ErrNotExist) {
		var d *diag.Error
		if errors.As(err, &d) {
			d.Next = "--policy FILE, where it is now"
		}
	}
	if err != nil {
		return nil, a.nearby(err)
	}
	if l != nil {
		l.Withhold(p.Files)
	}
	return p, nil
}

// nearby shows positions in files below the present folder as a person would
// name them.
func (a *app) nearby(err error) error {
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		j = joined{err}
	}
	var out []error
	for _, e := range j.Unwrap() {
		d, ok := e.(*diag.Error)
		if !ok || d.Pos.File == "" {
			out = append(out, e)
			continue
		}
		cp := *d
		cp.Pos.File = a.shown(d.Pos.File)
		out = append(out, &cp)
	}
	return errors.Join(out...)
}

type joined struct{ error }

// Unwrap gives the one error.
func (j joined) Unwrap() []error { return []error{j.error} }

// shown is a path as a person in the present folder would name it.
func (a *app) shown(path string) string {
	rel, err := filepath.Rel(a.env.Workdir, path)
	if err != nil || !filepath.IsAbs(path) || strings.HasPrefix(rel, "..") {
		return path
	}
	return rel
}

// findPolicy looks for the policy of the repository in which a runbook lies or,
// for one of the catalogue, of the present folder; "" where there is none. Two
// of them in one repository are refused: the nearer one would silently take the
// place of the other.
func (a *app) findPolicy(root string) (string, error) {
	for _, dir := range []string{root, a.env.Workdir} {
		if dir == "" {
			continue
		}
		switch found := policiesAbove(dir); len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return "", &diag.Error{
				Code: diag.Usage, Subject: found[0], Problem: fmt.Sprintf("is a second policy beside %s", found[len(found)-1]),
				Expect: "one policy in a repository", Changed: "nothing", Next: "--policy FILE",
			}
		}
	}
	return "", nil
}

// policiesAbove are the policy files in dir and the folders above it, the
// nearest first: up to the repository's root or, outside of one, the first.
func policiesAbove(dir string) []string {
	var found []string
	for ; ; dir = filepath.Dir(dir) {
		if p := filepath.Join(dir, policy.Name); exists(p) {
			found = append(found, p)
		}
		switch {
		case exists(filepath.Join(dir, ".git")):
			return found
		case dir == filepath.Dir(dir):
			return found[:min(1, len(found))]
		}
	}
}

// inForce is what a run is held to.
func inForce(p *policy.Policy) *gate.Policy {
	if p == nil {
		return nil
	}
	return &p.Policy
}

// tellPolicy says where the policy is not the one with which a run began: what
// holds is the one that there is now.
func (a *app) tellPolicy(begin *journal.Begin, p *policy.Policy) error {
	now := ""
	if p != nil {
		now = p.Digest
	}
	switch {
	case begin.Policy == now:
		return nil
	case now == "":
		return &diag.Error{
			Code: diag.Usage, Subject: "run " + begin.Run, Problem: "it began under a policy, and there is none now",
			Expect: "the organization's policy", Changed: "nothing by this command", Next: "--policy FILE",
		}
	}
	return a.talk("the policy has changed since the run began; what holds is %s as it is now", a.shown(p.Path))
}
