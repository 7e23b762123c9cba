package manifest

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"rutter.dev/rutter/runtime/cluster"
)

// kindEvent, kindPod: what evidence is made of.
var (
	kindPod   = cluster.Ref{Version: "v1", Kind: "Pod"}
	kindEvent = cluster.Ref{Version: "v1", Kind: "Event"}
)

const (
	mostPods   = 5
	mostEvents = 5
)

// evidence is what a person would look up about an object that does not become
// ready: its conditions, its pods that are not ready, its last warnings. What
// cannot be read says so.
func evidence(ctx context.Context, r cluster.Reader, ref cluster.Ref) []string {
	o, err := r.Get(ctx, ref)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", ref, err)}
	}
	out := Conditions(o)
	names := map[string]bool{ref.Kind + "/" + ref.Name: true}
	pods, err := PodsOf(ctx, r, o)
	if err != nil {
		out = append(out, fmt.Sprintf("pods of %s: %v", ref, err))
	}
	n := 0
	for _, p := range pods {
		ready, _, why := cluster.Ready(p)
		names["Pod/"+p.GetName()] = true
		if ready || n == mostPods {
			continue
		}
		n++
		out = append(out, fmt.Sprintf("pod/%s: %s", p.GetName(), why))
	}
	evs, err := EventsOf(ctx, r, ref.Namespace, func(kind, name string) bool { return names[kind+"/"+name] })
	if err != nil {
		return append(out, fmt.Sprintf("events of %s: %v", ref, err))
	}
	warnings := evs[:0]
	for _, e := range evs {
		if e.Type == "Warning" {
			warnings = append(warnings, e)
		}
	}
	for _, e := range warnings[max(0, len(warnings)-mostEvents):] {
		out = append(out, fmt.Sprintf("event: %s: %s: %s", e.Object, e.Reason, e.Message))
	}
	return out
}

// Conditions are the conditions in the status of o, a line each.
func Conditions(o *cluster.Object) []string {
	var out []string
	cs, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
	if err != nil {
		return []string{"status.conditions: " + err.Error()}
	}
	for _, c := range cs {
		m, ok := c.(map[string]any)
		if !ok {
			continue
		}
		line := fmt.Sprintf("condition %v=%v", m["type"], m["status"])
		if s, _ := m["reason"].(string); s != "" {
			line += " (" + s + ")"
		}
		if s, _ := m["message"].(string); s != "" {
			line += ": " + s
		}
		out = append(out, line)
	}
	return out
}

// PodsOf lists the pods that a workload selects, or the pod itself.
func PodsOf(ctx context.Context, r cluster.Reader, o *cluster.Object) ([]*cluster.Object, error) {
	if o.GetKind() == "Pod" {
		return []*cluster.Object{o}, nil
	}
	sel, found, err := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	if err != nil || !found || len(sel) == 0 {
		return nil, err
	}
	res, err := r.ResourceFor(ctx, kindPod.GVK())
	if err != nil {
		return nil, err
	}
	var out []*cluster.Object
	err = r.List(ctx, res, cluster.ListOptions{Namespace: o.GetNamespace(), Labels: labels.Set(sel).String()}, func(p *cluster.Object) error {
		out = append(out, p)
		return nil
	})
	return out, err
}

// Happening is one Event, as runbooks see it.
type Happening struct {
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Object  string `json:"object"`
	Count   int64  `json:"count"`
	Last    string `json:"last"`
}

// EventsOf lists the Events about the objects that match, oldest first.
func EventsOf(ctx context.Context, r cluster.Reader, namespace string, match func(kind, name string) bool) ([]Happening, error) {
	res, err := r.ResourceFor(ctx, kindEvent.GVK())
	if errors.Is(err, cluster.ErrNoKind) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Happening
	err = r.List(ctx, res, cluster.ListOptions{Namespace: namespace}, func(o *cluster.Object) error {
		about, _ := o.Object["involvedObject"].(map[string]any)
		kind, _ := about["kind"].(string)
		name, _ := about["name"].(string)
		if !match(kind, name) {
			return nil
		}
		h := Happening{Object: strings.ToLower(kind) + "/" + name, Count: 1}
		h.Type, _ = o.Object["type"].(string)
		h.Reason, _ = o.Object["reason"].(string)
		h.Message, _ = o.Object["message"].(string)
		if n, ok := o.Object["count"].(int64); ok && n > 0 {
			h.Count = n
		}
		for _, k := range []string{"eventTime", "firstTimestamp", "lastTimestamp"} {
			if s, ok := o.Object[k].(string); ok && s != "" {
				h.Last = s
			}
		}
		out = append(out, h)
		return nil
	})
	sort.SliceStable(out, func(i, j int) bool { return out[i].Last < out[j].Last })
	return out, err
}
