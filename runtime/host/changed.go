package host

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
)

// ResumeOptions say what is there now of what a run began with. What the
// journal has is what runs, unless Adopt is set.
type ResumeOptions struct {
	// Source is the runbook as it is now; nil where it can't be found.
	Source *loader.Loader
	// Given are parameters as they are given now; none means those of the journal.
	// Secret ones are not in there: they have to be given again, whatever is
	// adopted or recorded.
	Given interp.Given
	// Adopt goes on with what is there now, if it replays cleanly; Recorded with
	// what the journal has, whatever changed. With neither a difference is refused.
	Adopt, Recorded bool
}

// inForce is what a run goes by: as it began, or as it was adopted since.
type inForce struct {
	journal.Begin
	rutter string // that wrote last
}

func inForceIn(j journal.Journal) (*inForce, error) {
	begin, err := Begun(j)
	if err != nil {
		return nil, err
	}
	f := &inForce{*begin, begin.Rutter}
	for rec, err := range j.Records() {
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", j.Run(), err)
		}
		if rec.Type != journal.TypeResume {
			continue
		}
		body, err := rec.Decode()
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", j.Run(), err)
		}
		b, ok := body.(*journal.Resume)
		if !ok || b.Rollback {
			continue
		}
		if b.Rutter != "" {
			f.rutter = b.Rutter
		}
		if b.Bundle != "" {
			f.Bundle, f.RunbookDigest, f.Params, f.Secrets = b.Bundle, b.RunbookDigest, b.Params, b.Secrets
		}
	}
	return f, nil
}

// current is the runbook with which a resume goes on.
type current struct {
	rb      *Runbook
	p       *interp.Params
	adopted *engine.Adopted
}

// pick decides between what the journal has and what is there now.
func (h *Host) pick(ctx context.Context, s Session, f *inForce, o ResumeOptions) (*current, error) {
	rb, err := h.recorded(ctx, s.Journal, &f.Begin)
	if err != nil {
		return nil, err
	}
	given := onlySecrets(rb, o.Given)
	given.File, err = recordedParams(&f.Begin, given.File)
	if err != nil {
		return nil, err
	}
	p, err := rb.BindAll(given)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", f.Run, err)
	}
	recorded := &current{rb: rb, p: p}
	others, err := otherSecrets(p, f.Secrets)
	switch {
	case err != nil:
		return nil, fmt.Errorf("run %s: %w", f.Run, err)
	case len(others) > 0 && !o.Adopt:
		return nil, notTheSame(f.Run, others[0], p)
	case o.Recorded:
		return recorded, nil
	}
	now, differences, err := h.now(ctx, f, recorded, o)
	for _, name := range others {
		differences = append(differences, "parameter "+name+": is not what it was")
	}
	switch {
	case err != nil:
		return nil, err
	case len(differences) == 0:
		return recorded, nil
	case !o.Adopt:
		return nil, &diag.Error{
			Code: diag.Usage, Subject: "run " + f.Run, Problem: "what it began with has changed since:\n" + strings.Join(differences, "\n"),
			Changed: "nothing by this command",
			Next:    fmt.Sprintf("rutter resume %s --recorded goes on as it was recorded; --adopt goes on with what is there now, if that replays", f.Run),
		}
	}
	params, err := json.Marshal(now.p.Map())
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	begin := f.Begin
	begin.Params = params
	if err := engine.Replays(ctx, h.options(s, begin, now.rb, now.p)); err != nil {
		return nil, err
	}
	bundle, err := json.Marshal(now.rb.Bundle)
	if err != nil {
		return nil, fmt.Errorf("source bundle: %w", err)
	}
	secrets, err := commitments(now.p, s.Env.Rand)
	if err != nil {
		return nil, err
	}
	now.adopted = &engine.Adopted{Digest: now.rb.Bundle.Digest(), Params: params, Secrets: secrets}
	now.adopted.Bundle, err = s.Journal.Put(bundle)
	return now, err
}

// now is the runbook as it is now, with what differs from the recorded one.
func (h *Host) now(ctx context.Context, f *inForce, was *current, o ResumeOptions) (*current, []string, error) {
	var differences []string
	if f.rutter != h.Version {
		differences = append(differences, fmt.Sprintf("rutter: was %s, is %s", orNone(f.rutter), orNone(h.Version)))
	}
	is := &current{rb: was.rb, p: was.p}
	if o.Source != nil {
		rb, err := h.Load(ctx, o.Source)
		if err != nil {
			return nil, nil, fmt.Errorf("run %s: the runbook as it is now: %w", f.Run, err)
		}
		if rb.Bundle.Digest() != f.RunbookDigest {
			is.rb = rb
			differences = append(differences, bundleDiff(was.rb.Bundle, rb.Bundle)...)
		}
	}
	given := map[string]any{}
	for k, v := range was.p.Map() {
		if slices.ContainsFunc(is.rb.Params, func(p *interp.Param) bool { return p.Name == k }) {
			given[k] = v // one that the runbook no longer has shows as a difference
		}
	}
	maps.Copy(given, o.Given.File)
	all := o.Given
	all.File, all.Read = given, withSecrets(is.rb, was.p, o.Given)
	p, err := is.rb.BindAll(all)
	if err != nil {
		return nil, nil, err
	}
	is.p = p
	before, after := was.p.Map(), p.Map()
	names := maps.Clone(after)
	maps.Copy(names, before)
	for _, k := range slices.Sorted(maps.Keys(names)) {
		if !reflect.DeepEqual(before[k], after[k]) {
			differences = append(differences, fmt.Sprintf("parameter %s: was %v, is %v", k, orNone(before[k]), orNone(after[k])))
		}
	}
	return is, differences, nil
}

func orNone(v any) any {
	if v == nil || v == "" {
		return "not there"
	}
	return v
}

// bundleDiff is a unified diff of the sources that differ.
func bundleDiff(was, is *loader.Bundle) []string {
	labels := maps.Clone(is.Files)
	maps.Copy(labels, was.Files)
	var out []string
	for _, l := range slices.Sorted(maps.Keys(labels)) {
		if was.Files[l] == is.Files[l] {
			continue
		}
		text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
			A: difflib.SplitLines(was.Files[l]), B: difflib.SplitLines(is.Files[l]),
			FromFile: loader.Filename(l) + " (recorded)", ToFile: loader.Filename(l) + " (now)", Context: 2,
		})
		if err != nil {
			text = loader.Filename(l) + " differs"
		}
		out = append(out, strings.TrimRight(text, "\n"))
	}
	return out
}
