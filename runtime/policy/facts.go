package policy

import (
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/value"
)

// effectValue is an effect as a rule sees it, frozen. Its objects are those of
// the run itself, seen without a copy; what a Secret holds is not shown.
func effectValue(run *gate.Run, e *effect.Effect) starlark.Value {
	after := e.Intended()
	labels := after
	if labels == nil {
		labels = e.Before
	}
	return frozen(starlark.StringDict{
		"verb":         starlark.String(e.Verb),
		"group":        starlark.String(e.Ref.Group),
		"version":      starlark.String(e.Ref.Version),
		"kind":         starlark.String(e.Ref.Kind),
		"namespace":    starlark.String(e.Ref.Namespace),
		"name":         starlark.String(e.Ref.Name),
		"change_class": starlark.String(e.Class), // class is a word that Starlark keeps to itself
		"before":       objectValue(e.Before),
		"after":        objectValue(after),
		"labels":       labelsValue(labels),
		"step":         starlark.String(run.Step),
		"wave":         starlark.String(e.Wave),
		"builtin":      starlark.String(e.Builtin),
		"why":          starlark.String(e.Why),
	})
}

// factsValue is what a rule knows beside the effect, frozen.
func factsValue(run *gate.Run, e *effect.Effect) starlark.Value {
	var approvers []starlark.Value
	if run.Facts != nil {
		for _, a := range run.Facts.Approvals {
			for name := range strings.SplitSeq(a.By, ", ") { // several people have one approval in common
				if by := starlark.String(name); !slices.Contains(approvers, starlark.Value(by)) {
					approvers = append(approvers, by)
				}
			}
		}
	}
	now := run.Now.UTC()
	return frozen(starlark.StringDict{
		"cluster":      starlark.String(run.Context),
		"cluster_uid":  starlark.String(run.ClusterUID),
		"from_version": starlark.String(run.From),
		"to_version":   starlark.String(run.To),
		"runbook":      starlark.String(run.Runbook),
		"run":          starlark.String(run.ID),
		"time":         starlark.String(now.Format(time.RFC3339)),
		"weekday":      starlark.String(now.Weekday().String()[:3]),
		"hour":         starlark.MakeInt(now.Hour()),
		"approved_by":  starlark.NewList(approvers),
		"created":      starlark.Bool(run.Created[e.Ref.ID()]),
		"forecast":     starlark.Bool(run.Forecast),
		"rollback":     starlark.Bool(run.Rollback),
	})
}

func frozen(d starlark.StringDict) starlark.Value {
	s := starlarkstruct.FromStringDict(starlarkstruct.Default, d)
	s.Freeze()
	return s
}

func objectValue(o *cluster.Object) starlark.Value {
	if o == nil {
		return starlark.None
	}
	return value.NewObject(withoutMaterial(o))
}

// withoutMaterial is the object without what a Secret holds, which no rule has
// to know, and could tell in what it returns.
func withoutMaterial(o *cluster.Object) map[string]any {
	if o.GetKind() != "Secret" {
		return o.Object
	}
	out := make(map[string]any, len(o.Object))
	for k, v := range o.Object {
		if k != "data" && k != "stringData" {
			out[k] = v
		}
	}
	if meta, ok := out["metadata"].(map[string]any); ok {
		if _, ok := meta["annotations"]; ok {
			bare := make(map[string]any, len(meta))
			for k, v := range meta {
				if k != "annotations" { // kubectl keeps the whole object in one
					bare[k] = v
				}
			}
			out["metadata"] = bare
		}
	}
	return out
}

func labelsValue(o *cluster.Object) starlark.Value {
	d := starlark.NewDict(0)
	if o != nil {
		labels := o.GetLabels()
		names := make([]string, 0, len(labels))
		for k := range labels {
			names = append(names, k)
		}
		slices.Sort(names)
		for _, k := range names {
			_ = d.SetKey(starlark.String(k), starlark.String(labels[k])) // strings can be keys
		}
	}
	return d
}
