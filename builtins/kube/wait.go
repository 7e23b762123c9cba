package kube

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
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
			return nil, await(c, refs, a.Timeout, cond, c.Progress)
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

// condition judges one object (nil when absent): whether it is met, failed for
// good, and why not.
type condition func(o *cluster.Object) (met, failed bool, why string)

func parseCondition(s string) (condition, error) {
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

func fieldCondition(path, want string) condition {
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

// failedError tells that waiting longer will not help.
type failedError struct {
	ref cluster.Ref
	why string
}

func (e *failedError) Error() string { return e.ref.String() + ": failed: " + e.why }

// await waits until every ref meets cond. When one fails for good, or time is
// up, the evidence is shown and the error says which.
func await(c *builtin.Call, refs []cluster.Ref, timeout time.Duration, cond condition, progress func(done, total int, message string)) error {
	if len(refs) == 0 {
		return nil
	}
	last, pending := "", []cluster.Ref(nil)
	err := c.Reader.WaitFor(c.Ctx, refs, timeout, func(now []*cluster.Object) (bool, error) {
		pending = pending[:0]
		message := ""
		for i, o := range now {
			met, failed, why := cond(o)
			if failed {
				return false, &failedError{refs[i], why}
			}
			if !met {
				if len(pending) == 0 {
					message = refs[i].String() + ": " + why
				}
				pending = append(pending, refs[i])
			}
		}
		if message != last {
			progress(len(refs)-len(pending), len(refs), message)
			last = message
		}
		return len(pending) == 0, nil
	})
	var failed *failedError
	switch {
	case errors.As(err, &failed):
		pending = []cluster.Ref{failed.ref}
	case errors.Is(err, cluster.ErrTimeout):
		err = fmt.Errorf("%s: not ready after %s: %s: %w", pending[0], timeout, strings.TrimPrefix(last, pending[0].String()+": "), cluster.ErrTimeout)
	}
	if err == nil || c.Ctx.Err() != nil {
		return err
	}
	for _, ref := range pending {
		for _, line := range evidence(c.Ctx, c.Reader, ref) {
			c.Emit(&event.Log{Level: "warn", Message: ref.String() + ": " + line})
		}
	}
	return err
}
