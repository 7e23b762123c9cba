package twin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

const world = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {allocatable: {cpu: "8", memory: 16Gi, pods: "110"}, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1"}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: shop}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: shop}
data: {a: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: pass, namespace: shop}
stringData: {password: hunter2}
`

func liveWorld(t *testing.T) *sim.Cluster {
	t.Helper()
	return liveWorldOf(t, world)
}

// liveWorldOf is a cluster with these objects, a minute later.
func liveWorldOf(t *testing.T, yaml string) *sim.Cluster {
	t.Helper()
	c, err := sim.New(sim.Options{Controllers: controllers.All()})
	if err != nil {
		t.Fatal(err)
	}
	objs, err := sim.ReadObjects(strings.NewReader(yaml), "world")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	c.ClearRequests()
	return c
}

// twinOf makes a twin of s, and a client of it.
func twinOf(t *testing.T, s *sim.Cluster) (*Twin, *cluster.Client) {
	t.Helper()
	return twinWith(t, s, nil)
}

// twinWith makes a twin whose pods are injected by inj, nil for none.
func twinWith(t *testing.T, s *sim.Cluster, inj sim.Injector) (*Twin, *cluster.Client) {
	t.Helper()
	live, err := cluster.New(s.Config(), "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tw, err := New(t.Context(), live, Options{Controllers: controllers.All(), Injector: inj, Now: s.Clock().Now()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tw.Client(tw.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tw, c
}

var (
	webRef  = cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"}
	confRef = cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "conf"}
)

// harmless demands that nothing in s was changed by requests, and that none
// could have changed anything.
func harmless(t *testing.T, s *sim.Cluster) {
	t.Helper()
	for _, r := range s.Requests() {
		switch {
		case r.Verb == "get", r.Verb == "list", r.DryRun, strings.HasSuffix(r.Resource, "accessreviews"):
		default:
			t.Errorf("%s %s %s/%s reached the live cluster", r.Verb, r.Resource, r.Namespace, r.Name)
		}
	}
}

func images(t *testing.T, c *cluster.Client) []string {
	t.Helper()
	res, err := c.Resolve(t.Context(), "pods")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	err = c.List(t.Context(), res, cluster.ListOptions{Namespace: "shop"}, func(o *cluster.Object) error {
		list, _, _ := unstructured.NestedSlice(o.Object, "spec", "containers")
		image, _ := list[0].(map[string]any)["image"].(string)
		out = append(out, image)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCopyOnWrite(t *testing.T) {
	s := liveWorld(t)
	before := s.Objects()
	tw, c := twinOf(t, s)
	if uid, err := c.UID(t.Context()); err != nil || uid == "" {
		t.Fatalf("uid %q: %v", uid, err)
	}
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:2"}]}}}}`)
	o, err := c.Patch(t.Context(), webRef, types.StrategicMergePatchType, patch, cluster.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if o.GetGeneration() != 2 {
		t.Errorf("generation %d, want 2", o.GetGeneration())
	}
	if err := tw.Clock().Sleep(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(images(t, c), " "); got != "web:2 web:2 web:2" {
		t.Errorf("the twin's pods run %s", got)
	}
	live, err := cluster.New(s.Config(), "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(images(t, live), " "); got != "web:1 web:1 web:1" {
		t.Errorf("the live pods run %s", got)
	}
	harmless(t, s)
	after := s.Objects()
	if len(before) != len(after) {
		t.Fatalf("%d objects became %d", len(before), len(after))
	}
	for i := range before {
		if before[i].GetResourceVersion() != after[i].GetResourceVersion() {
			t.Errorf("%s %s changed", before[i].GetKind(), before[i].GetName())
		}
	}
	pods, web := 0, false
	for _, ch := range tw.Changes() {
		if ch.GR.Resource == "pods" {
			pods++
		}
		web = web || ch.GR.Resource == "deployments" && ch.Before != nil && ch.After != nil
	}
	if pods != 6 || !web {
		t.Errorf("changes: %d pods (want 3 gone and 3 new), deployment %v", pods, web)
	}
	w := tw.Workloads()
	if len(w) != 1 || w[0].Name != "web" || w[0].Least < 2 || !w[0].Ready {
		t.Errorf("course of workloads: %+v", w)
	}
	if n := tw.Counts(); n.DryRuns != 1 {
		t.Errorf("%d dry-runs, want 1", n.DryRuns)
	}
}

// What is asked for as a dry-run is not asked again when it is written with demands
// that its target meets, and is when it does not.
func TestAskedOnce(t *testing.T) {
	s := liveWorld(t)
	tw, c := twinOf(t, s)
	web, err := c.Get(t.Context(), webRef)
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"metadata":{"annotations":{"a":"b"}},"spec":{"minReadySeconds":1}}`)
	if _, err := c.DryRunPatch(t.Context(), webRef, types.MergePatchType, patch, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	stale := cluster.WriteOptions{UID: web.GetUID(), ResourceVersion: "7"}
	if _, err := c.DryRunPatch(t.Context(), webRef, types.MergePatchType, patch, stale); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("a demand that is not met: %v, want a conflict", err)
	}
	if n := tw.Counts().DryRuns; n != 2 {
		t.Errorf("%d dry-runs, want 2", n)
	}
	if _, err := c.DryRunPatch(t.Context(), webRef, types.MergePatchType, patch, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := tw.Counts().DryRuns
	met := cluster.WriteOptions{UID: web.GetUID(), ResourceVersion: web.GetResourceVersion()}
	o, err := c.Patch(t.Context(), webRef, types.MergePatchType, patch, met)
	if err != nil {
		t.Fatal(err)
	}
	if n := tw.Counts().DryRuns; n != asked || o.GetAnnotations()["a"] != "b" {
		t.Errorf("%d dry-runs where %d had been; %v", n, asked, o.GetAnnotations())
	}
}

// The live server's answer is what is stored, and its refusals are the twin's.
func TestDryRunDecides(t *testing.T) {
	s := liveWorld(t)
	s.OnAdmission(func(a sim.Admission) error {
		if a.Object != nil && strings.Contains(a.Name, "bad") {
			return errors.New("no bad things")
		}
		return nil
	})
	_, c := twinOf(t, s)
	cm := func(name string) *cluster.Object {
		return &cluster.Object{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "shop"}, "data": map[string]any{"a": "2"},
		}}
	}
	if _, err := c.Apply(t.Context(), cm("bad"), cluster.ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "no bad things") {
		t.Errorf("apply of what live admission refuses: %v", err)
	}
	if _, err := c.Apply(t.Context(), cm("good"), cluster.ApplyOptions{}); err != nil {
		t.Errorf("apply: %v", err)
	}
	if _, err := c.Apply(t.Context(), cm("conf"), cluster.ApplyOptions{}); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("apply over fields of others: %v, want a conflict", err)
	}
	// What exists only in the twin can't be asked of the live server.
	n := len(s.Requests())
	if _, err := c.Patch(t.Context(), cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "good"}, types.MergePatchType, []byte(`{"data":{"b":"3"}}`), cluster.WriteOptions{}); err != nil {
		t.Error(err)
	}
	for _, r := range s.Requests()[n:] {
		if r.DryRun {
			t.Errorf("a dry-run of an object that the live server does not have: %+v", r)
		}
	}
	harmless(t, s)
}

// An object that moved on since it was read is read again: the caller gets the
// conflict that it would get, and succeeds when it tries again.
func TestLiveMovesOn(t *testing.T) {
	s := liveWorld(t)
	_, c := twinOf(t, s)
	o, err := c.Get(t.Context(), confRef)
	if err != nil {
		t.Fatal(err)
	}
	live, err := cluster.New(s.Config(), "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := live.Patch(t.Context(), confRef, types.MergePatchType, []byte(`{"data":{"z":"9"}}`), cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	w := cluster.WriteOptions{ResourceVersion: o.GetResourceVersion()}
	if _, err = c.Patch(t.Context(), confRef, types.MergePatchType, []byte(`{"data":{"a":"2"}}`), w); !errors.Is(err, cluster.ErrConflict) {
		t.Fatalf("patch of a stale version: %v", err)
	}
	if o, err = c.Get(t.Context(), confRef); err != nil {
		t.Fatal(err)
	}
	w.ResourceVersion = o.GetResourceVersion()
	if o, err = c.Patch(t.Context(), confRef, types.MergePatchType, []byte(`{"data":{"a":"2"}}`), w); err != nil {
		t.Fatal(err)
	}
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	if data["a"] != "2" || data["z"] != "9" {
		t.Errorf("data %v", data)
	}
}

// Read-only credentials: the twin merges by itself, and says so. What may not be
// read is refused as the server refuses it, and named.
func TestReadOnlyCredentials(t *testing.T) {
	s := liveWorld(t)
	tw, c := twinOfUser(t, s, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: look}, rules: [
 {apiGroups: ["", apps, policy, discovery.k8s.io, batch, autoscaling, apiextensions.k8s.io, admissionregistration.k8s.io], resources: [pods, namespaces, nodes, configmaps, services, endpoints, resourcequotas, limitranges, deployments, replicasets, statefulsets, daemonsets, controllerrevisions, poddisruptionbudgets, endpointslices, jobs, horizontalpodautoscalers, customresourcedefinitions, mutatingwebhookconfigurations, validatingwebhookconfigurations, validatingadmissionpolicies, validatingadmissionpolicybindings], verbs: [get, list, watch]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: look}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: look}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: eve}]}
`)
	if _, err := c.Patch(t.Context(), confRef, types.MergePatchType, []byte(`{"data":{"a":"2"}}`), cluster.WriteOptions{}); err != nil {
		t.Fatalf("patch in the twin: %v", err)
	}
	secret := cluster.Ref{Version: "v1", Kind: "Secret", Namespace: "shop", Name: "pass"}
	if _, err := c.Get(t.Context(), secret); !errors.Is(err, cluster.ErrDenied) {
		t.Errorf("a Secret that may not be read: %v", err)
	}
	said := map[Code]string{}
	for _, a := range tw.Assumptions() {
		said[a.Code] += a.String() + "\n"
	}
	if !strings.Contains(said[DryRunLeftOut], "patch configmaps") {
		t.Errorf("no word of the dry-run that was left out: %v", said)
	}
	if !strings.Contains(said[Unreadable], "secrets pass in shop") {
		t.Errorf("no word of what could not be read: %v", said)
	}
	harmless(t, s)
}

func twinOfUser(t *testing.T, s *sim.Cluster, roles string) (*Twin, *cluster.Client) {
	t.Helper()
	objs, err := sim.ReadObjects(strings.NewReader(roles), "roles")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(objs); err != nil {
		t.Fatal(err)
	}
	cfg := s.Config()
	cfg.Impersonate.UserName = "eve"
	live, err := cluster.New(cfg, "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tw, err := New(t.Context(), live, Options{Controllers: controllers.All(), Now: s.Clock().Now()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tw.Client(tw.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tw, c
}

// Reviews are about the rights on the live cluster.
func TestReviewsAreLive(t *testing.T) {
	s := liveWorld(t)
	s.Deny(sim.DenyRule{Verb: "delete", Resource: "pods"})
	_, c := twinOf(t, s)
	for verb, want := range map[string]bool{"delete": false, "get": true} {
		ok, err := c.CanI(t.Context(), cluster.Access{Verb: verb, Resource: "pods", Namespace: "shop"})
		if err != nil || len(ok) != 1 || ok[0] != want {
			t.Errorf("may I %s pods: %v, %v", verb, ok, err)
		}
	}
	harmless(t, s)
}

func TestUnreachableHalfWay(t *testing.T) {
	s := liveWorld(t)
	cfg := s.Config()
	cut := &cable{next: cfg.Transport}
	cfg.Transport = cut
	live, err := cluster.New(cfg, "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tw, err := New(t.Context(), live, Options{Controllers: controllers.All(), Now: s.Clock().Now()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tw.Client(tw.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), confRef); err != nil {
		t.Fatal(err)
	}
	cut.down = true
	if _, err := c.Get(t.Context(), webRef); err == nil {
		t.Error("an answer about what was never read")
	}
	if err := tw.Err(); !errors.Is(err, ErrUnreachable) {
		t.Errorf("the twin's error: %v", err)
	}
	if _, err := c.Get(t.Context(), confRef); err == nil {
		t.Error("a twin that has lost its cluster goes on")
	}
}

type cable struct {
	next http.RoundTripper
	down bool
}

func (c *cable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.down {
		return nil, errors.New("no route to host")
	}
	return c.next.RoundTrip(r)
}

// A namespace takes with it what only the live cluster knew of.
func TestDeletionReachesWhatWasNotRead(t *testing.T) {
	s := liveWorld(t)
	tw, c := twinOf(t, s)
	if err := c.Delete(t.Context(), webRef, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := tw.Clock().Sleep(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := images(t, c); len(got) != 0 {
		t.Errorf("pods outlive their deployment: %v", got)
	}
	if err := c.Delete(t.Context(), cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := tw.Clock().Sleep(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), confRef); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("a ConfigMap outlives its namespace: %v", err)
	}
	harmless(t, s)
}

// up answers everything.
type up struct{}

func (up) Connect(w http.ResponseWriter, _ *http.Request, _ sim.Connection) {
	w.WriteHeader(http.StatusOK)
}

// TestProbesAreAssumed: pods of the twin are asked, never those of the cluster.
func TestProbesAreAssumed(t *testing.T) {
	s := liveWorld(t)
	live, err := cluster.New(s.Config(), "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tw, err := New(t.Context(), live, Options{Controllers: controllers.All(), Now: s.Clock().Now(), Connector: up{}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tw.Client(tw.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	for _, o := range s.Objects() {
		if o.GetKind() == "Pod" {
			name = o.GetName()
		}
	}
	for range 2 {
		a, err := c.Probe(t.Context(), cluster.Probe{Ref: cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "shop", Name: name}, Port: 80, Path: "/"})
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("got %+v, %v", a, err)
		}
	}
	harmless(t, s)
	for _, r := range s.Requests() {
		if strings.HasSuffix(r.Resource, "/proxy") {
			t.Errorf("%s %s reached the live cluster", r.Verb, r.Resource)
		}
	}
	said := tw.Assumptions()
	if len(said) != 1 || said[0].Code != NotCalled || !strings.Contains(said[0].Text, "nothing is sent") {
		t.Errorf("assumed %v", said)
	}
}
