package kube

import (
	"fmt"
	"maps"
	"slices"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/mesh"
)

type labelArgs struct {
	Ref       starlark.Value `star:"ref,positional" doc:"object to label, or list of objects"`
	Set       map[string]any `star:"set,required" doc:"labels to set; None takes one away"`
	Namespace string         `star:"namespace" doc:"namespace of a namespaced object"`
}

func labelSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[labelArgs]{
		Name: "kube.label",
		Doc: `Sets and removes labels of one object, or of several.
Injection labels of a namespace are a relabelling, which a person must approve:
kube.diff_label shows it, approve() binds it. istio-injection wins over
istio.io/rev, so take it away where you set the other.`,
		Example: `step("mark", kube.label, "namespace/shop", set = {"team": "shop"})`,
		Returns: "bool: whether anything was changed",
		Effects: effect.ClassesOf(effect.Patch),
		Plan:    func(c *builtin.Call, a *labelArgs) (*effect.Plan, error) { return planLabels(c, "kube.label", a) },
		Drive:   driveOne[labelArgs],
	})
}

func diffLabelSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[labelArgs]{
		Name: "kube.diff_label",
		Doc: `Shows what kube.label with the same arguments would change, for an approval.
Of a relabelling of namespaces it says what rolls at once (gateways of the
Gateway API that go by their namespace's label) and which workloads get another
proxy when they are restarted.`,
		Example: `step("review", kube.diff_label, "namespace/shop", set = {"istio-injection": None, "istio.io/rev": "stable"}).outdated`,
		Returns: "change",
		Do: func(c *builtin.Call, a *labelArgs) (any, error) {
			p, err := planLabels(c, "kube.diff_label", a)
			if err != nil {
				return nil, err
			}
			im, err := relabelled(c, p)
			if err != nil {
				return nil, err
			}
			p.Notes = append(p.Notes, im.Words()...)
			return manifest.Show(c, "labels of "+subjects(p), p, *im)
		},
	})
}

func planLabels(c *builtin.Call, name string, a *labelArgs) (*effect.Plan, error) {
	for k, v := range a.Set {
		if _, ok := v.(string); v != nil && !ok {
			return nil, diag.Usagef(name, "label %q: got %v, want a string, or None to take it away", k, v)
		}
	}
	refs, err := resolveAll(c, a.Ref, a.Namespace)
	if err != nil {
		return nil, err
	}
	all := &effect.Plan{}
	for _, ref := range refs {
		p, err := planPatch(c, ref, types.MergePatchType, map[string]any{"metadata": map[string]any{"labels": a.Set}}, "")
		if err != nil {
			return nil, err
		}
		all.Effects, all.Notes = append(all.Effects, p.Effects...), append(all.Notes, p.Notes...)
	}
	return all, nil
}

// subjects names what a plan changes, or how many that are.
func subjects(p *effect.Plan) string {
	switch n := len(p.Effects); n {
	case 0:
		return "nothing"
	case 1:
		return p.Effects[0].Ref.String()
	default:
		return fmt.Sprintf("%d objects", n)
	}
}

// relabelled is what the relabelling of namespaces in a plan does besides.
func relabelled(c *builtin.Call, p *effect.Plan) (*manifest.Impact, error) {
	spaces := map[string]map[string]string{}
	for _, e := range p.Effects {
		if e.Ref.Kind == "Namespace" && e.After != nil {
			spaces[e.Ref.Name] = e.After.GetLabels()
		}
	}
	im := &manifest.Impact{Restarts: []string{}, Outdated: []manifest.Outdated{}}
	if len(spaces) == 0 {
		return im, nil
	}
	now, err := mesh.Outdated(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	then, err := mesh.OutdatedRelabelled(c.Ctx, c.Reader, spaces)
	if err != nil {
		return nil, err
	}
	for _, w := range then {
		if !slices.Contains(now, w) {
			im.Outdated = append(im.Outdated, manifest.OutdatedOf(w))
		}
	}
	im.Restarts, err = rolling(c, p)
	return im, err
}

// rolling names the workloads of the gateways whose revision follows a
// namespace label that the plan changes.
func rolling(c *builtin.Call, p *effect.Plan) ([]string, error) {
	moved := map[string]bool{}
	for _, e := range p.Effects {
		if e.Ref.Kind == "Namespace" && e.After != nil && e.Before.GetLabels()[mesh.LabelRev] != e.After.GetLabels()[mesh.LabelRev] {
			moved[e.Ref.Name] = true
		}
	}
	uses, err := mesh.UsesByName(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		for _, g := range uses[name].Gateways {
			if !moved[g.Ref.Namespace] || g.Workload.Name == "" {
				continue
			}
			o, err := c.Reader.Get(c.Ctx, g.Ref)
			if err != nil {
				return nil, err
			}
			if o.GetLabels()[mesh.LabelRev] == "" {
				out = append(out, g.Workload.String())
			}
		}
	}
	return out, nil
}
