package kube

import (
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/manifest"
)

type logsArgs struct {
	Pod       starlark.Value `star:"pod,positional" doc:"pod, or workload whose first pod is meant: \"deploy/istiod\""`
	Namespace string         `star:"namespace" doc:"namespace of the pod"`
	Container string         `star:"container" doc:"container; the pod's first without it"`
	Tail      int            `star:"tail" default:"100" doc:"lines from the end"`
	Previous  bool           `star:"previous" default:"false" doc:"of the container before its last restart"`
}

func logsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[logsArgs]{
		Name:    "kube.logs",
		Doc:     "Reads the last lines that a container wrote.",
		Example: `kube.logs("deploy/istiod", namespace = "istio-system", tail = 20)`,
		Returns: "string",
		Do: func(c *builtin.Call, a *logsArgs) (any, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Pod, a.Namespace)
			if err != nil {
				return nil, err
			}
			o, err := c.Reader.Get(c.Ctx, ref)
			if err != nil {
				return nil, err
			}
			pods, err := manifest.PodsOf(c.Ctx, c.Reader, o)
			if err != nil {
				return nil, err
			}
			if len(pods) == 0 {
				return nil, &diag.Error{Subject: ref.String(), Problem: "has no pod to read logs from"}
			}
			sort.Slice(pods, func(i, j int) bool { return pods[i].GetName() < pods[j].GetName() })
			return c.Reader.Logs(c.Ctx, pods[0].GetNamespace(), pods[0].GetName(), a.Container, int64(a.Tail), a.Previous)
		},
	})
}

type eventsArgs struct {
	Ref       starlark.Value `star:"ref,positional,optional" doc:"only events about this object"`
	Namespace string         `star:"namespace" doc:"namespace; all of them without it"`
}

func eventsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[eventsArgs]{
		Name:    "kube.events",
		Doc:     "Lists events, oldest first.",
		Example: `[e.message for e in kube.events(namespace = "istio-system") if e.type == "Warning"]`,
		Returns: "list of object with type, reason, message, object, count, last",
		Do: func(c *builtin.Call, a *eventsArgs) (any, error) {
			match, namespace := func(string, string) bool { return true }, a.Namespace
			if a.Ref != nil && a.Ref != starlark.None {
				ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
				if err != nil {
					return nil, err
				}
				match = func(kind, name string) bool { return kind == ref.Kind && name == ref.Name }
				namespace = ref.Namespace
			}
			evs, err := manifest.EventsOf(c.Ctx, c.Reader, namespace, match)
			if err != nil {
				return nil, err
			}
			out := make([]any, len(evs))
			for i, e := range evs {
				out[i] = map[string]any{"type": e.Type, "reason": e.Reason, "message": e.Message, "object": e.Object, "count": e.Count, "last": e.Last}
			}
			return out, nil
		},
	})
}

func describeSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[getArgs]{
		Name:    "kube.describe",
		Doc:     "Describes an object for a person: what it is, its conditions, its pods and its events.",
		Example: `log(kube.describe("deploy/istiod", namespace = "istio-system"))`,
		Returns: "string",
		Do: func(c *builtin.Call, a *getArgs) (any, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
			if err != nil {
				return nil, err
			}
			o, err := c.Reader.Get(c.Ctx, ref)
			if err != nil {
				return nil, err
			}
			return describe(c, ref, o)
		},
	})
}

func describe(c *builtin.Call, ref cluster.Ref, o *cluster.Object) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", ref)
	for _, kv := range []struct {
		name string
		m    map[string]string
	}{{"labels", o.GetLabels()}, {"annotations", o.GetAnnotations()}} {
		keys := make([]string, 0, len(kv.m))
		for k := range kv.m {
			if k != "kubectl.kubernetes.io/last-applied-configuration" {
				keys = append(keys, k)
			}
		}
		sort.Strings(keys)
		for _, k := range keys {
			fmt.Fprintf(&b, "  %s: %s=%s\n", kv.name, k, kv.m[k])
		}
	}
	ready, failed, why := cluster.Ready(o)
	fmt.Fprintf(&b, "  ready: %t", ready)
	if failed {
		b.WriteString(" (failed)")
	}
	if why != "" {
		b.WriteString(": " + why)
	}
	b.WriteByte('\n')
	for _, line := range manifest.Conditions(o) {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	pods, err := manifest.PodsOf(c.Ctx, c.Reader, o)
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		ready, _, why := cluster.Ready(p)
		fmt.Fprintf(&b, "  pod %s: ready=%t %s\n", p.GetName(), ready, why)
	}
	evs, err := manifest.EventsOf(c.Ctx, c.Reader, ref.Namespace, func(kind, name string) bool { return kind == ref.Kind && name == ref.Name })
	if err != nil {
		return "", err
	}
	for _, e := range evs {
		fmt.Fprintf(&b, "  event %s %s (%d): %s\n", e.Type, e.Reason, e.Count, e.Message)
	}
	return b.String(), nil
}
