package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate/crds"
)

var crdSafe = &Gate{
	Code: CRDSafe, Name: "crd-safe",
	Rationale: "The deletion of a CRD deletes every object of its kind, at once and without a word; a version that is dropped while objects are stored in it leaves them unreadable; and a schema that stored objects do not meet refuses the next write to each of them, whoever makes it.",
	Source:    "Kubernetes: CustomResourceDefinition versioning, status.storedVersions, field pruning; GUIDE §4 row 20 (istio#20861)",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if e.Absent || e.OwnersOnly() || e.Ref.Kind != "CustomResourceDefinition" {
			return nil, nil
		}
		if e.Before == nil {
			return nil, fmt.Errorf("what %s is like now is not known", e.Ref)
		}
		old, err := crds.Parse(e.Before)
		if err != nil {
			return nil, err
		}
		if e.Verb == effect.Delete {
			return definitionDeleted(ctx, r, run, old)
		}
		after := e.Intended()
		if after == nil {
			return nil, fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
		}
		next, err := crds.Parse(after)
		if err != nil {
			return nil, err
		}
		return definitionChanged(ctx, r, run, old, next)
	},
}

// definitionDeleted blocks while there are instances that the call does not
// delete itself before.
func definitionDeleted(ctx context.Context, r cluster.Reader, run *Run, old *crds.Definition) ([]Finding, error) {
	gone := map[string]bool{}
	if run.Forecast {
		for _, p := range run.Earlier {
			if p.Verb == effect.Delete && p.Ref.Group == old.Group && p.Ref.Kind == old.Kind {
				gone[p.Ref.ID()] = true
			}
		}
	}
	var left examples
	err := instances(ctx, r, old, old.Reading(), cluster.ListOptions{MetadataOnly: true, MaxItems: len(gone) + exampleCount}, func(o *cluster.Object) error {
		ref := cluster.RefOf(o)
		ref.Group, ref.Kind = old.Group, old.Kind // a list of metadata has its own
		if !gone[ref.ID()] {
			left.add(ref, "")
		}
		return nil
	})
	if err != nil || left.n == 0 {
		return nil, err
	}
	return block("its deletion deletes all objects of its kind, and there are some: "+left.some(), "a kind without objects",
		"back the objects up and delete them first, or leave the CRD where it is"), nil
}

func definitionChanged(ctx context.Context, r cluster.Reader, run *Run, old, next *crds.Definition) ([]Finding, error) {
	var out []Finding
	for _, v := range old.Lost(next) {
		out = append(out, block(fmt.Sprintf("version %s goes away, and status.storedVersions says that objects are stored in it", v), "a CRD that still has every stored version",
			"migrate the storage (write every object anew, then take the version out of status.storedVersions), or keep the version")...)
	}
	for _, v := range old.Unserved(next) {
		if !slices.Contains(old.Stored, v) || next.Version(v) != nil {
			out = append(out, Finding{
				Verdict: Warn, Problem: fmt.Sprintf("version %s is not served any more: clients that ask for it get no answer", v),
				Next: "make sure that no control plane, controller or pipeline reads it",
			})
		}
	}
	read := old.Reading()
	var all []*impact
	for _, c := range old.Changes(next) {
		v := read
		if old.Converts {
			v = c.Version
		}
		all = append(all, &impact{change: c, read: v})
	}
	if err := judgeInstances(ctx, r, run.Schemas, old, all); err != nil {
		return nil, err
	}
	for _, i := range all {
		out = append(out, i.findings()...)
	}
	return out, nil
}

// impact collects what a change of schema does to the stored objects.
type impact struct {
	change         crds.Change
	read           string // version through which the objects are read
	broken, pruned examples
}

// judgeInstances pages once through the instances in each form that they have.
func judgeInstances(ctx context.Context, r cluster.Reader, known *crds.Compiled, d *crds.Definition, all []*impact) error {
	done := map[string]bool{}
	for _, first := range all {
		if done[first.read] {
			continue
		}
		done[first.read] = true
		err := instances(ctx, r, d, first.read, cluster.ListOptions{}, func(o *cluster.Object) error {
			for _, i := range all {
				if i.read != first.read {
					continue
				}
				if err := i.judge(ctx, known, o); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *impact) judge(ctx context.Context, known *crds.Compiled, o *cluster.Object) error {
	broken, pruned, err := i.change.Judge(ctx, known, o)
	if err != nil {
		return err
	}
	if len(broken) > 0 {
		i.broken.add(cluster.RefOf(o), strings.Join(broken, "; "))
	}
	if len(pruned) > 0 {
		i.pruned.add(cluster.RefOf(o), strings.Join(pruned, ", "))
	}
	return nil
}

func (i *impact) findings() []Finding {
	var out []Finding
	if i.broken.n > 0 {
		out = append(out, block(fmt.Sprintf("its new schema of %s refuses objects that are stored: %s", i.change.Version, i.broken.some()), "a schema that every stored object meets",
			"mend the objects first")...)
	}
	if i.pruned.n > 0 {
		out = append(out, Finding{
			Verdict: Warn, Problem: fmt.Sprintf("its new schema of %s does not know fields that stored objects use, which are lost with the next write to each: %s", i.change.Version, i.pruned.some()),
			Expect: "objects that use only fields of the new schema", Next: "look whether they are still needed; a backup holds them",
		})
	}
	return out
}

// instances lists the objects of a kind through one of its versions.
func instances(ctx context.Context, r cluster.Reader, d *crds.Definition, version string, o cluster.ListOptions, each func(*cluster.Object) error) error {
	if version == "" {
		return fmt.Errorf("objects of %s can't be read: no version of it is served", d.Kind)
	}
	gvk := cluster.Ref{Group: d.Group, Version: version, Kind: d.Kind}.GVK()
	res := cluster.Resource{GVK: gvk, GVR: gvk.GroupVersion().WithResource(d.Plural), Namespaced: d.Namespaced}
	if err := r.List(ctx, res, o, each); err != nil {
		return fmt.Errorf("objects of %s: %w", d.Kind, err)
	}
	return nil
}

// exampleCount is how many objects a finding names.
const exampleCount = 3

// examples are the first few of many objects.
type examples struct {
	n     int
	named []string
}

func (x *examples) add(ref cluster.Ref, why string) {
	s := ref.String()
	if why != "" {
		s += " (" + why + ")"
	}
	x.addText(s)
}

func (x *examples) addText(s string) {
	if x.n++; x.n <= exampleCount {
		x.named = append(x.named, s)
	}
}

func (x *examples) some() string {
	s := strings.Join(x.named, ", ")
	if more := x.n - len(x.named); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
