package testrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/value"
)

// simulated is a test's cluster. Its methods act as an administrator would
// beside the run.
type simulated struct {
	t     *test
	sim   *sim.Cluster
	admin *cluster.Client
}

// String implements starlark.Value.
func (c *simulated) String() string { return "<simulated cluster>" }

// Type implements starlark.Value.
func (c *simulated) Type() string { return "cluster" }

// Freeze implements starlark.Value.
func (c *simulated) Freeze() {}

// Truth implements starlark.Value.
func (c *simulated) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (c *simulated) Hash() (uint32, error) { return 0, errors.New("unhashable type: cluster") }

// AttrNames implements starlark.HasAttrs.
func (c *simulated) AttrNames() []string { return clusterMethods().names }

// Attr implements starlark.HasAttrs.
func (c *simulated) Attr(name string) (starlark.Value, error) {
	return clusterMethods().bind(c, "cluster", name)
}

type refArgs struct {
	Ref       string `star:"ref,positional" doc:"Object as kubectl names it, \"deploy/web\"."`
	Namespace string `star:"namespace" doc:"Its namespace."`
}

type listArgs struct {
	Resource  string `star:"resource,positional" doc:"Resource as kubectl names it, \"pods\"."`
	Namespace string `star:"namespace" doc:"Namespace; \"\" for all."`
	Selector  string `star:"selector" doc:"Label selector."`
}

type applyArgs struct {
	Objects starlark.Value `star:"objects,positional" doc:"YAML text, a file relative to the test file, an object, or a list of them."`
}

type patchArgs struct {
	Ref       string         `star:"ref,positional" doc:"Object as kubectl names it."`
	Patch     map[string]any `star:"patch,positional" doc:"JSON merge patch."`
	Namespace string         `star:"namespace" doc:"Its namespace."`
	Status    bool           `star:"status" doc:"Patch the status subresource."`
}

type advanceArgs struct {
	By time.Duration `star:"by,positional" doc:"How much virtual time passes, \"5m\"."`
}

type noArgs struct{}

func makeClusterMethods() *methods {
	return collect(
		declare("cluster.get", "object", "Reads an object; None when there is no such.", `c.get("deploy/web", namespace = "shop")`, (*simulated).get),
		declare("cluster.list", "list of object", "Lists objects.", `c.list("pods", namespace = "shop", selector = "app=web")`, (*simulated).list),
		declare("cluster.apply", "None", "Applies objects by server-side apply as kubectl, taking over every field.", `c.apply("extra.yaml")`, (*simulated).apply),
		declare("cluster.create", "None", "Creates objects as kubectl.", `c.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})`, (*simulated).create),
		declare("cluster.patch", "object", "Patches an object by JSON merge patch as kubectl.", `c.patch("deploy/web", {"spec": {"replicas": 1}}, namespace = "shop")`, (*simulated).patch),
		declare("cluster.delete", "None", "Deletes an object.", `c.delete("deploy/web", namespace = "shop")`, (*simulated).remove),
		declare("cluster.advance", "None", "Lets virtual time pass, with all that happens in it.", `c.advance("5m")`, (*simulated).advance),
		declare("cluster.fault", "None", "Makes requests of the run fail; what is not given matches every request.",
			`c.fault(verb = "apply", resource = "deployments.apps", name = "istiod", kind = "conflict")`, (*simulated).fault),
		declare("cluster.deny", "None", "Takes a right away from the run, as RBAC would.", `c.deny("patch", "deployments.apps")`, (*simulated).deny),
		declare("cluster.admission", "None", "Makes admission refuse objects, as a policy webhook would.",
			`c.admission(kind = "Deployment", name = "istiod", message = "no")`, (*simulated).admission),
		declare("cluster.annotate", "None", "Sets annotations of an object, or of a workload's pod template without a rollout.",
			`c.annotate("deploy/web", {"sim.rutter.dev/never-ready": "true"}, namespace = "shop")`, (*simulated).annotate),
		declare("cluster.requests", "list of object", "Lists the requests that the runs have made: no, verb, group, resource, namespace, name, dry_run, code, manager.",
			`c.requests(verb = "apply", dry_run = False)`, (*simulated).requests),
		declare("cluster.state", "dict", "Normal form of all objects by name, for comparing clusters: without what servers and controllers make of it.",
			`t.equal(c.state(), d.state())`, (*simulated).state),
	)
}

func (c *simulated) ref(th *starlark.Thread, name, namespace string) (cluster.Ref, error) {
	resource, object, err := cluster.ParseRef(name)
	if err != nil {
		return cluster.Ref{}, err
	}
	if object == "" {
		return cluster.Ref{}, fmt.Errorf("%s: no name, want one as in %q", name, name+"/web")
	}
	res, err := c.admin.Resolve(ctxOf(th), resource)
	if err != nil {
		return cluster.Ref{}, err
	}
	if !res.Namespaced {
		namespace = ""
	} else if namespace == "" {
		namespace = "default"
	}
	return res.ResourceRef(namespace, object), nil
}

func (c *simulated) get(th *starlark.Thread, a *refArgs) (starlark.Value, error) {
	ref, err := c.ref(th, a.Ref, a.Namespace)
	if err != nil {
		return nil, err
	}
	o, err := c.admin.Get(ctxOf(th), ref)
	if errors.Is(err, cluster.ErrNotFound) {
		return starlark.None, nil
	}
	if err != nil {
		return nil, err
	}
	return value.FromUnstructured(o), nil
}

func (c *simulated) list(th *starlark.Thread, a *listArgs) (starlark.Value, error) {
	res, err := c.admin.Resolve(ctxOf(th), a.Resource)
	if err != nil {
		return nil, err
	}
	var out []starlark.Value
	err = c.admin.List(ctxOf(th), res, cluster.ListOptions{Namespace: a.Namespace, Labels: a.Selector}, func(o *cluster.Object) error {
		out = append(out, value.FromUnstructured(o))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return starlark.NewList(out), nil
}

// kubectl is the field manager of the test's own writes.
const kubectl = "kubectl"

func (c *simulated) apply(th *starlark.Thread, a *applyArgs) (starlark.Value, error) {
	return c.each(a, func(o *cluster.Object) error {
		_, err := c.admin.Apply(ctxOf(th), o, cluster.ApplyOptions{Manager: kubectl, Force: true})
		return err
	})
}

func (c *simulated) create(th *starlark.Thread, a *applyArgs) (starlark.Value, error) {
	return c.each(a, func(o *cluster.Object) error {
		_, err := c.admin.Create(ctxOf(th), o, cluster.WriteOptions{Manager: kubectl})
		return err
	})
}

func (c *simulated) each(a *applyArgs, do func(*cluster.Object) error) (starlark.Value, error) {
	objects, err := c.t.objects(a.Objects)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if err := do(o); err != nil {
			return nil, err
		}
	}
	return starlark.None, nil
}

func (c *simulated) patch(th *starlark.Thread, a *patchArgs) (starlark.Value, error) {
	ref, err := c.ref(th, a.Ref, a.Namespace)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(a.Patch)
	if err != nil {
		return nil, err
	}
	w := cluster.WriteOptions{Manager: kubectl}
	if a.Status {
		w.Subresource = "status"
	}
	o, err := c.admin.Patch(ctxOf(th), ref, types.MergePatchType, b, w)
	if err != nil {
		return nil, err
	}
	return value.FromUnstructured(o), nil
}

func (c *simulated) remove(th *starlark.Thread, a *refArgs) (starlark.Value, error) {
	ref, err := c.ref(th, a.Ref, a.Namespace)
	if err != nil {
		return nil, err
	}
	return starlark.None, c.admin.Delete(ctxOf(th), ref, cluster.WriteOptions{})
}

func (c *simulated) advance(_ *starlark.Thread, a *advanceArgs) (starlark.Value, error) {
	c.sim.Advance(a.By)
	return starlark.None, nil
}

type requestsArgs struct {
	Verb      string `star:"verb" doc:"get, list, watch, create, update, patch, apply, delete or deletecollection."`
	Resource  string `star:"resource" doc:"Plural, with its group where it has one: \"deployments.apps\"; with \"/subresource\" where one is meant."`
	Namespace string `star:"namespace" doc:"Namespace."`
	Name      string `star:"name" doc:"Name of the object."`
	DryRun    *bool  `star:"dry_run" doc:"Only dry runs, or only others."`
}

func (c *simulated) requests(_ *starlark.Thread, a *requestsArgs) (starlark.Value, error) {
	resource, group := resourceOf(a.Resource)
	is := func(want, got string) bool { return want == "" || want == got }
	out := []any{}
	for _, r := range c.sim.Requests() {
		if !is(a.Verb, r.Verb) || !is(resource, r.Resource) || !is(group, r.Group) || !is(a.Namespace, r.Namespace) ||
			!is(a.Name, r.Name) || (a.DryRun != nil && *a.DryRun != r.DryRun) {
			continue
		}
		out = append(out, map[string]any{
			"no": int64(r.No), "verb": r.Verb, "group": r.Group, "resource": r.Resource, "namespace": r.Namespace, "name": r.Name,
			"dry_run": r.DryRun, "code": int64(r.Code), "manager": r.FieldManager,
		})
	}
	return data(out)
}

// resourceOf splits "deployments.apps/scale" into "deployments/scale" and "apps".
func resourceOf(s string) (resource, group string) {
	s, sub, _ := strings.Cut(s, "/")
	resource, group, _ = strings.Cut(s, ".")
	if sub != "" {
		resource += "/" + sub
	}
	return resource, group
}
