package kube

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
)

func str(s string) starlark.Value { return starlark.String(s) }

// sick is a Deployment whose pods never become ready.
const sick = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {sim.rutter.dev/ready: never}}
    spec: {containers: [{name: web, image: "registry.example/web:1-bad"}]}
`

func podsIn(b *bench, namespace, labels string) []*cluster.Object {
	b.T.Helper()
	res, err := b.Client.Resolve(b.T.Context(), "pods")
	if err != nil {
		b.T.Fatal(err)
	}
	var out []*cluster.Object
	err = b.Client.List(b.T.Context(), res, cluster.ListOptions{Namespace: namespace, Labels: labels}, func(o *cluster.Object) error {
		out = append(out, o)
		return nil
	})
	if err != nil {
		b.T.Fatal(err)
	}
	return out
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	ns := kw("namespace", str("istio-system"))
	all := b.Must("kube.logs", starlark.Tuple{str("deploy/istiod")}, ns).(string)
	if all == "" {
		t.Fatal("a running container has written nothing")
	}
	one := b.Must("kube.logs", starlark.Tuple{str("deploy/istiod")}, ns, kw("tail", starlark.MakeInt(1))).(string)
	if strings.Count(strings.TrimSpace(one), "\n") != 0 || !strings.HasSuffix(strings.TrimSpace(all), strings.TrimSpace(one)) {
		t.Errorf("tail = 1: got %q of %q", one, all)
	}
	for name, args := range map[string]starlark.Tuple{
		"no such pod": {str("pod/none")},
		"no pods":     {str("cm/istio")},
	} {
		if _, err := b.Call("kube.logs", args, ns); err == nil || !strings.Contains(err.Error(), "istio-system") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := b.Call("kube.logs", starlark.Tuple{str("deploy/istiod")}, ns, kw("container", str("nope"))); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("no such container: got %v", err)
	}
}

func TestEventsAndDescribe(t *testing.T) {
	b := newBench(t)
	ns := kw("namespace", str("default"))
	b.Must("kube.apply", starlark.Tuple{str(sick)}, kw("wait", str("0s")))
	if _, err := b.Call("kube.wait", starlark.Tuple{str("deploy/web")}, ns, kw("timeout", str("1m"))); !errors.Is(err, cluster.ErrTimeout) {
		t.Fatalf("got %v, want a timeout", err)
	}
	evs := b.Must("kube.events", nil, ns).([]any)
	about := b.Must("kube.events", starlark.Tuple{str("deploy/web")}, ns).([]any)
	if len(about) == 0 || len(about) >= len(evs) {
		t.Errorf("%d events, of them %d about the Deployment", len(evs), len(about))
	}
	last := ""
	for _, e := range evs {
		m := e.(map[string]any)
		if at := m["last"].(string); at < last {
			t.Errorf("event of %s after one of %s", at, last)
		} else {
			last = at
		}
		if m["reason"] == "" || m["message"] == "" || !strings.Contains(m["object"].(string), "/") {
			t.Errorf("event %v", m)
		}
	}
	text := b.Must("kube.describe", starlark.Tuple{str("deploy/web")}, ns).(string)
	for _, want := range []string{"deployment.apps/web in default", "ready: false", "condition Available=False", "pod web-", "event Normal ScalingReplicaSet"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	pod := podsIn(b, "default", "app=web")[0].GetName()
	if text := b.Must("kube.describe", starlark.Tuple{str("pod/" + pod)}, ns).(string); !strings.Contains(text, "labels: app=web") {
		t.Errorf("describe pod:\n%s", text)
	}
}

func TestCanI(t *testing.T) {
	b := newBench(t)
	if got := b.Must("kube.can_i", starlark.Tuple{str("patch"), str("deploy")}, kw("namespace", str("istio-system"))); got != true {
		t.Errorf("got %v", got)
	}
	if _, err := b.Call("kube.can_i", starlark.Tuple{str("get"), str("widgets")}); !errors.Is(err, cluster.ErrNoKind) {
		t.Errorf("unknown resource: %v", err)
	}
}

func TestEvictHonoursBudgets(t *testing.T) {
	b := newBench(t)
	b.Must("kube.apply", starlark.Tuple{str(strings.NewReplacer(", annotations: {sim.rutter.dev/ready: never}", "", "-bad", "").Replace(sick))}, kw("wait", str("5m")))
	ns := kw("namespace", str("default"))
	first := podsIn(b, "default", "app=web")[0]
	b.Must("kube.evict", starlark.Tuple{str(first.GetName())}, ns)
	b.Must("kube.wait", starlark.Tuple{str("pod/" + first.GetName())}, ns, kw("condition", str("deleted")))
	b.Must("kube.wait", starlark.Tuple{str("deploy/web")}, ns)

	b.Must("kube.apply", starlark.Tuple{str("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web, namespace: default}\nspec: {minAvailable: 2, selector: {matchLabels: {app: web}}}\n")}, kw("wait", str("0s")))
	b.Must("kube.wait", starlark.Tuple{str("pdb/web")}, ns, kw("condition", str("status.expectedPods=2")))
	i := slices.IndexFunc(podsIn(b, "default", "app=web"), func(p *cluster.Object) bool { return p.GetDeletionTimestamp() == nil })
	next := podsIn(b, "default", "app=web")[i]
	if _, err := b.Call("kube.evict", starlark.Tuple{str(next.GetName())}, ns); !errors.Is(err, cluster.ErrDisruption) {
		t.Errorf("got %v, want a refusal for the budget", err)
	}
	if _, err := b.Call("kube.evict", starlark.Tuple{str("none")}, ns); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("no such pod: %v", err)
	}
}

func TestLabelRemovesAndRefuses(t *testing.T) {
	b := newBench(t)
	ns := kw("namespace", str("istio-system"))
	label := func(v starlark.Value) (any, error) {
		set := starlark.NewDict(1)
		if err := set.SetKey(str("team"), v); err != nil {
			t.Fatal(err)
		}
		return b.Call("kube.label", starlark.Tuple{str("deploy/istiod")}, ns, kw("set", set))
	}
	for _, v := range []starlark.Value{str("mesh"), starlark.None} {
		if got, err := label(v); got != true || err != nil {
			t.Errorf("%v: got %v, %v", v, got, err)
		}
	}
	if l, there := b.Get("Deployment", "apps", "istio-system", "istiod").GetLabels()["team"]; there {
		t.Errorf("the label is still there: %q", l)
	}
	if _, err := label(starlark.MakeInt(1)); err == nil || diag.ExitCode(err) != diag.Usage {
		t.Errorf("an int: got %v, want a usage error", err)
	}
}

func TestWaitConditions(t *testing.T) {
	b := newBench(t)
	ns := kw("namespace", str("istio-system"))
	both := starlark.NewList([]starlark.Value{str("deploy/istiod"), str("deploy/istio-ingressgateway")})
	for _, tc := range []struct {
		refs starlark.Value
		cond string
		want string // of the error; "" waits well
	}{
		{both, "ready", ""},
		{both, "exists", ""},
		{str("deploy/none"), "deleted", ""},
		{both, "condition=Available=True", ""},
		{both, "condition=available=true", "has no condition available"},
		{str("deploy/istiod"), ".metadata.name=\"istiod\"", ""},
		{str("deploy/istiod"), "status.nothing=1", "status.nothing is not there"},
		{str("deploy/istiod"), "deleted", "still exists"},
		{str("deploy/none"), "exists", "does not exist"},
		{str("deploy/none"), "condition=Available", "does not exist"},
		{str("deploy/istiod"), "soon", `got "soon", want ready`},
	} {
		_, err := b.Call("kube.wait", starlark.Tuple{tc.refs}, ns, kw("condition", str(tc.cond)), kw("timeout", str("3s")))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.cond, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v, want %q", tc.cond, err, tc.want)
		}
	}
}
