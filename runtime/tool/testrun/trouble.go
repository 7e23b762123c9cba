package testrun

import (
	"errors"
	"fmt"
	"net/http"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

type faultArgs struct {
	Verb       string `star:"verb" doc:"get, list, watch, create, update, patch, apply, delete or deletecollection."`
	Resource   string `star:"resource" doc:"Plural, with its group where it has one: \"deployments.apps\"; with \"/subresource\" where one is meant."`
	Namespace  string `star:"namespace" doc:"Namespace."`
	Name       string `star:"name" doc:"Name of the object."`
	Kind       string `star:"kind" enum:"error,conflict,throttle,timeout,reset,deny,watch-cut" default:"error" doc:"What goes wrong."`
	Code       int    `star:"code" default:"500" doc:"HTTP status of an error."`
	Reason     string `star:"reason" doc:"Reason of an error, as Kubernetes words it."`
	Message    string `star:"message" doc:"Message of the answer."`
	Skip       int    `star:"skip" doc:"Matching requests that pass first."`
	Times      int    `star:"times" default:"1" doc:"Matching requests that fail then; negative for all."`
	After      bool   `star:"after" doc:"The request takes effect, and only then the answer is lost or wrong."`
	LiveOnly   bool   `star:"live_only" doc:"Let dry runs pass, and do not count them."`
	RetryAfter int    `star:"retry_after" doc:"Seconds that a throttled client should wait."`
	Events     int    `star:"events" doc:"Events before a watch is cut."`
}

func (c *simulated) fault(_ *starlark.Thread, a *faultArgs) (starlark.Value, error) {
	kind := sim.FaultKind(a.Kind)
	if a.Kind == "error" {
		kind = sim.FaultStatus
	}
	resource, group := resourceOf(a.Resource)
	c.sim.Inject(sim.Fault{
		Verb: a.Verb, Resource: resource, Group: group, Namespace: a.Namespace, Name: a.Name, Skip: a.Skip, Times: a.Times,
		Kind: kind, After: a.After, Code: a.Code, Reason: a.Reason, Message: a.Message, RetryAfter: a.RetryAfter, LiveOnly: a.LiveOnly, Events: a.Events,
	})
	return starlark.None, nil
}

type denyArgs struct {
	Verb      string `star:"verb,positional" doc:"Verb of RBAC: get, list, watch, create, update, patch, delete. Server-side apply is patch."`
	Resource  string `star:"resource,positional" doc:"Plural, with its group where it has one: \"deployments.apps\"."`
	Namespace string `star:"namespace" doc:"Namespace; all when not given."`
	Name      string `star:"name" doc:"Name of the object; all when not given."`
}

// deny makes access reviews say no and refuses the requests, as one and the
// same authorizer would.
func (c *simulated) deny(_ *starlark.Thread, a *denyArgs) (starlark.Value, error) {
	resource, group := resourceOf(a.Resource)
	c.sim.Deny(sim.DenyRule{Verb: a.Verb, Group: group, Resource: resource, Namespace: a.Namespace, Name: a.Name, Reason: "RBAC"})
	c.sim.Inject(sim.Fault{
		Verb: a.Verb, Group: group, Resource: resource, Namespace: a.Namespace, Name: a.Name, Times: -1,
		Kind: sim.FaultStatus, Code: http.StatusForbidden, Reason: "Forbidden",
		Message: fmt.Sprintf("%s is forbidden: user cannot %s it", a.Resource, a.Verb),
	})
	return starlark.None, nil
}

type admissionArgs struct {
	Kind      string `star:"kind" doc:"Kind of the object."`
	Name      string `star:"name" doc:"Name of the object."`
	Namespace string `star:"namespace" doc:"Namespace."`
	Operation string `star:"operation" enum:"CREATE,UPDATE,DELETE" doc:"Operation; every one when not given."`
	Message   string `star:"message,required" doc:"What the webhook says."`
	LiveOnly  bool   `star:"live_only" doc:"Let dry runs pass, as a webhook that is not told of them."`
}

func (c *simulated) admission(_ *starlark.Thread, a *admissionArgs) (starlark.Value, error) {
	is := func(want, got string) bool { return want == "" || want == got }
	rule := *a
	c.sim.OnAdmission(func(r sim.Admission) error {
		o := r.Object
		if o == nil {
			o = r.Old
		}
		if o == nil || !is(rule.Kind, o.GetKind()) || !is(rule.Name, r.Name) || !is(rule.Namespace, r.Namespace) ||
			!is(rule.Operation, r.Operation) || (rule.LiveOnly && r.DryRun) {
			return nil
		}
		return errors.New(rule.Message)
	})
	return starlark.None, nil
}

type annotateArgs struct {
	Ref         string            `star:"ref,positional" doc:"Object as kubectl names it."`
	Annotations map[string]string `star:"annotations,positional" doc:"Annotations by name."`
	Namespace   string            `star:"namespace" doc:"Its namespace."`
}

// annotate loads the object anew, together with the ReplicaSets or
// ControllerRevisions that hold the same pod template, at one instant: so the
// controllers see nothing to roll out, and the annotations take hold of pods
// that are made from then on.
func (c *simulated) annotate(th *starlark.Thread, a *annotateArgs) (starlark.Value, error) {
	ref, err := c.ref(th, a.Ref, a.Namespace)
	if err != nil {
		return nil, err
	}
	o, err := c.admin.Get(ctxOf(th), ref)
	if err != nil {
		return nil, err
	}
	load := []*unstructured.Unstructured{o}
	at := []string{"metadata", "annotations"}
	if _, ok, _ := unstructured.NestedMap(o.Object, "spec", "template"); ok {
		at = []string{"spec", "template", "metadata", "annotations"}
		load = append(load, c.current(o)...)
	}
	for i, x := range load {
		path := at
		if x.GetKind() == "ControllerRevision" {
			path = append([]string{"data"}, at...)
		}
		if err := setAll(x, path, a.Annotations); err != nil {
			return nil, fmt.Errorf("%s: %w", cluster.RefOf(load[i]), err)
		}
	}
	return starlark.None, c.sim.Load(load)
}

func setAll(o *unstructured.Unstructured, path []string, annotations map[string]string) error {
	m, _, err := unstructured.NestedStringMap(o.Object, path...)
	if err != nil {
		return err
	}
	if m == nil {
		m = map[string]string{}
	}
	for k, v := range annotations {
		m[k] = v
	}
	return unstructured.SetNestedStringMap(o.Object, m, path...)
}

// current are the newest ReplicaSet or ControllerRevision of a workload.
func (c *simulated) current(owner *unstructured.Unstructured) []*unstructured.Unstructured {
	var newest *unstructured.Unstructured
	var at int64 = -1
	for _, o := range c.sim.Objects() {
		if !ownedBy(o, owner) {
			continue
		}
		var n int64
		switch o.GetKind() {
		case "ControllerRevision":
			n, _, _ = unstructured.NestedInt64(o.Object, "revision")
		case "ReplicaSet":
			_, err := fmt.Sscan(o.GetAnnotations()["deployment.kubernetes.io/revision"], &n)
			if err != nil {
				n = 0
			}
		default:
			continue
		}
		if n > at {
			newest, at = o, n
		}
	}
	if newest == nil {
		return nil
	}
	return []*unstructured.Unstructured{newest}
}

func ownedBy(o, owner *unstructured.Unstructured) bool {
	for _, r := range o.GetOwnerReferences() {
		if r.UID == owner.GetUID() {
			return true
		}
	}
	return false
}
