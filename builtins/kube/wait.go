package kube

import (
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

type waitArgs struct {
	Refs      starlark.Value `star:"refs,positional" doc:"object, or list of objects, to wait for"`
	Condition string         `star:"condition" default:"ready" doc:"ready, exists, deleted, condition=NAME[=STATUS], or PATH=VALUE such as status.phase=Running"`
	Timeout   time.Duration  `star:"timeout" default:"5m" doc:"how long to wait"`
	Namespace string         `star:"namespace" doc:"namespace of the objects"`
}

func waitSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[waitArgs]{
		Name: "kube.wait",
		Doc: "Waits until objects meet a condition. Readiness is judged as kubectl and GitOps tools judge it (kstatus).\n" +
			"An object that failed for good ends the wait at once, with its conditions, pods and events as evidence.",
		Example: `kube.wait("deploy/istiod", namespace = "istio-system", timeout = "2m")`,
		Do: func(c *builtin.Call, a *waitArgs) (any, error) {
			refs, err := resolveAll(c, a.Refs, a.Namespace)
			if err != nil {
				return nil, err
			}
			cond, err := parseCondition(a.Condition)
			if err != nil {
				return nil, err
			}
			return nil, manifest.Await(c, refs, a.Timeout, cond, c.Progress)
		},
	})
}

func resolveAll(c *builtin.Call, v starlark.Value, namespace string) ([]cluster.Ref, error) {
	list := []starlark.Value{v}
	if it, ok := v.(starlark.Iterable); ok {
		if _, isObject := v.(*value.Object); !isObject {
			list = nil
			for e := range starlark.Elements(it) {
				list = append(list, e)
			}
		}
	}
	refs := make([]cluster.Ref, 0, len(list))
	for _, e := range list {
		ref, err := resolve(c.Ctx, c.Reader, e, namespace)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func parseCondition(s string) (manifest.Condition, error) {
	switch s {
	case "ready":
		return cluster.Ready, nil
	case "exists":
		return func(o *cluster.Object) (bool, bool, string) { return o != nil, false, "does not exist" }, nil
	case "deleted":
		return func(o *cluster.Object) (bool, bool, string) { return o == nil, false, "still exists" }, nil
	}
	key, want, ok := strings.Cut(s, "=")
	if ok && key == "condition" {
		name, status, hasStatus := strings.Cut(want, "=")
		if !hasStatus {
			status = "True"
		}
		return func(o *cluster.Object) (bool, bool, string) {
			if o == nil {
				return false, false, "does not exist"
			}
			got, found := cluster.Condition(o, name)
			if !found {
				return false, false, "has no condition " + name
			}
			return strings.EqualFold(got.Status, status), false, fmt.Sprintf("condition %s is %s: %s", name, got.Status, got.Message)
		}, nil
	}
	if ok && key != "" {
		return fieldCondition(strings.TrimPrefix(key, "."), strings.Trim(want, "\"'")), nil
	}
	return nil, diag.Usagef("condition", "got %q, want ready, exists, deleted, condition=NAME[=STATUS] or PATH=VALUE", s)
}

func fieldCondition(path, want string) manifest.Condition {
	return func(o *cluster.Object) (bool, bool, string) {
		if o == nil {
			return false, false, "does not exist"
		}
		v, found, err := value.FromUnstructured(o).Lookup(path)
		if err != nil || !found {
			return false, false, path + " is not there"
		}
		got, isString := starlark.AsString(v)
		if !isString {
			got = v.String()
		}
		return got == want, false, fmt.Sprintf("%s is %s, want %s", path, got, want)
	}
}
