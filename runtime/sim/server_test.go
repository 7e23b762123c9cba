package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"rutter.dev/rutter/runtime/sim"
)

func TestWatchReplaysFiltersAndExpires(t *testing.T) {
	ctx := t.Context()
	_, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	l, err := cm.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a := configMap("a", nil)
	a.SetLabels(map[string]string{"x": "1"})
	a = must(t)(cm.Create(ctx, a, metav1.CreateOptions{}))
	w, err := cm.Watch(ctx, metav1.ListOptions{ResourceVersion: l.GetResourceVersion(), LabelSelector: "x=1"})
	if err != nil {
		t.Fatal(err)
	}
	must(t)(cm.Create(ctx, configMap("unseen", nil), metav1.CreateOptions{}))
	must(t)(cm.Patch(ctx, "a", types.MergePatchType, []byte(`{"data":{"k":"1"}}`), metav1.PatchOptions{}))
	must(t)(cm.Patch(ctx, "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"2"}}}`), metav1.PatchOptions{}))
	for i, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		e := <-w.ResultChan()
		if o, ok := e.Object.(*unstructured.Unstructured); e.Type != want || !ok || o.GetName() != "a" {
			t.Errorf("event %d is %+v, expected %s of a", i, e, want)
		}
	}
	w.Stop()
	for i := range 17000 {
		if i%2 == 0 {
			must(t)(cm.Create(ctx, configMap("churn", nil), metav1.CreateOptions{}))
		} else if err := cm.Delete(ctx, "churn", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if w, err = cm.Watch(ctx, metav1.ListOptions{ResourceVersion: a.GetResourceVersion()}); err != nil {
		t.Fatal(err)
	}
	e, ok := <-w.ResultChan()
	if err := apierrors.FromObject(e.Object); !ok || e.Type != watch.Error || !apierrors.IsResourceExpired(err) {
		t.Errorf("old watch: %+v, expected 410 in the stream", e)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	_, d := newCluster(t, sim.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	w, err := d.Resource(configMaps).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range w.ResultChan() { //nolint:revive // drained until it closes
	}
}

func TestInformersSync(t *testing.T) {
	c, d := newCluster(t, sim.Options{})
	f := dynamicinformer.NewDynamicSharedInformerFactory(d, 0)
	inf := f.ForResource(configMaps)
	seen := make(chan string, 10)
	if _, err := inf.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(o any) {
		if u, ok := o.(*unstructured.Unstructured); ok {
			seen <- u.GetName()
		}
	}}); err != nil {
		t.Fatal(err)
	}
	must(t)(d.Resource(configMaps).Namespace("shop").Create(t.Context(), configMap("a", nil), metav1.CreateOptions{}))
	ctx, cancel := context.WithCancel(t.Context())
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	must(t)(d.Resource(configMaps).Namespace("shop").Create(t.Context(), configMap("b", nil), metav1.CreateOptions{}))
	if a, b := <-seen, <-seen; a != "a" || b != "b" {
		t.Errorf("%s then %s", a, b)
	}
	cancel()
	f.Shutdown()
	for _, r := range c.Requests() {
		if r.Code >= 400 {
			t.Errorf("%+v", r)
		}
	}
}

func TestTables(t *testing.T) {
	c, d := newCluster(t, sim.Options{})
	must(t)(d.Resource(crds).Create(t.Context(), virtualServiceCRD(), metav1.CreateOptions{}))
	must(t)(d.Resource(routes).Namespace("shop").Create(t.Context(), obj("networking.istio.io/v1", "VirtualService", "shop", "v", object{"spec": object{"hosts": []any{"a"}}}), metav1.CreateOptions{}))
	c.Advance(5 * time.Minute)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sim.invalid/apis/networking.istio.io/v1/virtualservices", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	resp, err := c.Config().Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.NewDecoder(resp.Body).Decode(&table); err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 1 || !reflect.DeepEqual(table.Rows[0].Cells, []any{"v", `["a"]`, "5m"}) {
		t.Errorf("%+v", table.Rows)
	}
}

func TestTypedMetadataAndDiscoveryClients(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{KubernetesVersion: "v1.33.2"})
	must(t)(d.Resource(crds).Create(ctx, virtualServiceCRD(), metav1.CreateOptions{}))
	must(t)(d.Resource(deployments).Namespace("shop").Create(ctx, deployment("web"), metav1.CreateOptions{}))
	cs, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	dep, err := cs.AppsV1().Deployments("shop").Get(ctx, "web", metav1.GetOptions{})
	if err != nil || *dep.Spec.Replicas != 1 {
		t.Fatalf("%v %v", dep, err)
	}
	sc, err := cs.AppsV1().Deployments("shop").GetScale(ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sc.Spec.Replicas = 4
	if sc, err = cs.AppsV1().Deployments("shop").UpdateScale(ctx, "web", sc, metav1.UpdateOptions{}); err != nil || sc.Spec.Replicas != 4 {
		t.Errorf("scale %v: %v", sc, err)
	}
	mc, err := metadata.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	ml, err := mc.Resource(deployments).Namespace("shop").List(ctx, metav1.ListOptions{})
	if err != nil || len(ml.Items) != 1 || ml.Items[0].Name != "web" {
		t.Errorf("metadata: %+v %v", ml, err)
	}
	dc, err := discovery.NewDiscoveryClientForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	if v, err := dc.ServerVersion(); err != nil || v.Minor != "33" {
		t.Errorf("version %+v: %v", v, err)
	}
	for name, lists := range map[string]func() ([]*metav1.APIResourceList, error){
		"aggregated": func() ([]*metav1.APIResourceList, error) { _, l, err := dc.ServerGroupsAndResources(); return l, err },
		"legacy": func() ([]*metav1.APIResourceList, error) {
			_, l, err := discovery.NewDiscoveryClient(dc.WithLegacy().RESTClient()).ServerGroupsAndResources()
			return l, err
		},
	} {
		l, err := lists()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := map[string]bool{}
		for _, g := range l {
			for _, r := range g.APIResources {
				found[g.GroupVersion+" "+r.Name] = true
			}
		}
		for _, want := range []string{"v1 pods", "v1 pods/eviction", "apps/v1 deployments/scale", "networking.istio.io/v1beta1 virtualservices", "autoscaling/v1 horizontalpodautoscalers"} {
			if !found[want] {
				t.Errorf("%s: %s is missing", name, want)
			}
		}
	}
	for _, gv := range []string{"v1", "apps/v1", "networking.istio.io/v1", "apiextensions.k8s.io/v1"} {
		g, err := parseGV(gv)
		if err != nil {
			t.Fatal(err)
		}
		s, err := openapi3.NewRoot(dc.OpenAPIV3()).GVSpec(g)
		if err != nil || len(s.Components.Schemas) == 0 || len(s.Paths.Paths) == 0 {
			t.Errorf("openapi v3 of %s: %v", gv, err)
		}
	}
	if s, err := dc.OpenAPISchema(); err != nil || len(s.GetDefinitions().GetAdditionalProperties()) < 100 {
		t.Errorf("openapi v2: %v", err)
	}
}

func TestEvictionHonoursBudgets(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	cs, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b"} {
		p := obj("v1", "Pod", "shop", n, object{"spec": object{"containers": []any{object{"name": "c", "image": "x"}}}})
		p.SetLabels(map[string]string{"app": "web"})
		must(t)(d.Resource(pods).Namespace("shop").Create(ctx, p, metav1.CreateOptions{}))
		p = must(t)(d.Resource(pods).Namespace("shop").Get(ctx, n, metav1.GetOptions{}))
		p.Object["status"] = object{"phase": "Running"}
		must(t)(d.Resource(pods).Namespace("shop").UpdateStatus(ctx, p, metav1.UpdateOptions{}))
	}
	b := must(t)(d.Resource(pdbs).Namespace("shop").Create(ctx, obj("policy/v1", "PodDisruptionBudget", "shop", "web", object{"spec": object{"selector": object{"matchLabels": object{"app": "web"}}}}), metav1.CreateOptions{}))
	b.Object["status"] = object{"disruptionsAllowed": int64(1), "currentHealthy": int64(2), "desiredHealthy": int64(1), "expectedPods": int64(2)}
	must(t)(d.Resource(pdbs).Namespace("shop").UpdateStatus(ctx, b, metav1.UpdateOptions{}))
	evict := func(name string, dry ...string) error {
		return cs.PolicyV1().Evictions("shop").Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, DeleteOptions: &metav1.DeleteOptions{DryRun: dry}})
	}
	if err := errors.Join(evict("a", metav1.DryRunAll), evict("a")); err != nil {
		t.Fatal(err)
	}
	if err := evict("b"); !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("second eviction: %v, expected 429", err)
	}
	if _, err := cs.CoreV1().Pods("shop").Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("evicted pod: %v", err)
	}
}

func TestFaults(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	create := func() error { _, err := cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}); return err }
	exists := func() bool { _, err := cm.Get(ctx, "a", metav1.GetOptions{}); return err == nil }
	for _, tc := range []struct {
		name  string
		fault sim.Fault
		is    func(error) bool
		there bool
	}{
		{"error before", sim.Fault{Verb: "create", Code: 503, Kind: sim.FaultStatus}, apierrors.IsServiceUnavailable, false},
		{"error after", sim.Fault{Verb: "create", Code: 500, Kind: sim.FaultStatus, After: true}, func(err error) bool { return err != nil }, true},
		{"conflict", sim.Fault{Verb: "create", Kind: sim.FaultConflict}, apierrors.IsConflict, false},
		{"timeout", sim.Fault{Verb: "create", Kind: sim.FaultTimeout, After: true}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, true},
		{"reset", sim.Fault{Verb: "create", Kind: sim.FaultReset}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "connection reset") }, false},
		{"denied", sim.Fault{Resource: "configmaps", Kind: sim.FaultDeny, Message: "policy.test: no"}, apierrors.IsForbidden, false},
		{"other resource", sim.Fault{Resource: "secrets", Kind: sim.FaultConflict}, func(err error) bool { return err == nil }, true},
		{"later", sim.Fault{Verb: "create", Skip: 1, Kind: sim.FaultConflict}, func(err error) bool { return err == nil }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.ClearFaults()
			c.Inject(tc.fault)
			if err := create(); !tc.is(err) {
				t.Errorf("%v", err)
			}
			c.ClearFaults()
			if exists() != tc.there {
				t.Errorf("stored: %v, expected %v", !tc.there, tc.there)
			}
			_ = cm.Delete(ctx, "a", metav1.DeleteOptions{})
		})
	}
	c.ClearRequests()
	c.Inject(sim.Fault{Verb: "get", Kind: sim.FaultThrottle, RetryAfter: 1})
	raw := transportGet(t, c, "/api/v1/namespaces/shop/configmaps/none")
	if raw.StatusCode != 429 || raw.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", raw.StatusCode, raw.Header)
	}
	c.Inject(sim.Fault{Kind: sim.FaultWatchCut, Events: 1})
	w, err := cm.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		must(t)(cm.Create(ctx, configMap(fmt.Sprint("w-", i), nil), metav1.CreateOptions{}))
	}
	n := 0
	for range w.ResultChan() {
		n++
	}
	if n != 1 {
		t.Errorf("%d events before the cut, expected 1", n)
	}
	log := c.Requests()
	if len(log) != 4 || log[0].Code != 429 || log[1].Verb != "watch" || log[2].Verb != "create" || log[2].Code != 201 {
		t.Errorf("request log: %+v", log)
	}
}

func transportGet(t *testing.T, c *sim.Cluster, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sim.invalid"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Config().Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func TestLogSurvivesAKill(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "cluster.log")
	opts := sim.Options{Seed: 7}
	c, err := sim.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	d := dynamic.NewForConfigOrDie(c.Config())
	must(t)(d.Resource(namespaces).Create(ctx, obj("v1", "Namespace", "", "shop", nil), metav1.CreateOptions{}))
	must(t)(d.Resource(crds).Create(ctx, virtualServiceCRD(), metav1.CreateOptions{}))
	must(t)(d.Resource(routes).Namespace("shop").Apply(ctx, "v", obj("networking.istio.io/v1", "VirtualService", "shop", "v", object{"spec": object{"hosts": []any{"a"}}}), apply("one", false)))
	must(t)(d.Resource(configMaps).Namespace("shop").Create(ctx, configMap("gone", nil), metav1.CreateOptions{}))
	if err := d.Resource(configMaps).Namespace("shop").Delete(ctx, "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Advance(90 * time.Minute)
	before, now := c.Objects(), c.Clock().Now()
	data, err := os.ReadFile(path) // what a killed process leaves
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(t *testing.T, data []byte) (*sim.Cluster, error) {
		t.Helper()
		p := filepath.Join(t.TempDir(), "copy.log")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := sim.Open(p, sim.Options{Seed: 99})
		if err == nil {
			t.Cleanup(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		return c, err
	}
	t.Run("whole", func(t *testing.T) {
		again, err := reopen(t, data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Objects(), before) || !again.Clock().Now().Equal(now) {
			t.Error("state differs after reopening")
		}
		// The next object gets the same uid as it would have without the kill.
		a := must(t)(dynamic.NewForConfigOrDie(again.Config()).Resource(routes).Namespace("shop").Create(ctx, obj("networking.istio.io/v1", "VirtualService", "shop", "w", object{"spec": object{"hosts": []any{"a"}}}), metav1.CreateOptions{FieldManager: "m"}))
		b := must(t)(d.Resource(routes).Namespace("shop").Create(ctx, obj("networking.istio.io/v1", "VirtualService", "shop", "w", object{"spec": object{"hosts": []any{"a"}}}), metav1.CreateOptions{FieldManager: "m"}))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%v\n%v", a, b)
		}
	})
	t.Run("torn tail", func(t *testing.T) {
		again, err := reopen(t, data[:len(data)-20])
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Objects()) != len(before) {
			t.Errorf("%d objects, expected %d", len(again.Objects()), len(before))
		}
	})
	t.Run("damage in the middle", func(t *testing.T) {
		bad := bytes.Clone(data)
		bad[200] ^= 1
		if _, err := reopen(t, bad); !errors.Is(err, sim.ErrDamaged) {
			t.Errorf("%v, expected ErrDamaged", err)
		}
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestLoadAndReadObjects(t *testing.T) {
	files := fstest.MapFS{
		"mesh/b.yaml":   {Data: []byte("# nothing\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: shop, uid: keep-me}\ndata: {a: b}\n")},
		"mesh/a.yaml":   {Data: []byte("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: shop}\n")},
		"mesh/note.txt": {Data: []byte("not yaml: [")},
		"bad/c.yaml":    {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\nfoo: bar\n")},
	}
	objs, err := sim.ReadFiles(files, "mesh")
	if err != nil || len(objs) != 2 {
		t.Fatalf("%d objects: %v", len(objs), err)
	}
	c, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		t.Fatal(err)
	}
	got := must(t)(dynamic.NewForConfigOrDie(c.Config()).Resource(configMaps).Namespace("shop").Get(t.Context(), "x", metav1.GetOptions{}))
	if got.GetUID() != "keep-me" {
		t.Errorf("uid %q", got.GetUID())
	}
	if _, err := sim.ReadFiles(files, "bad"); err == nil || !strings.Contains(err.Error(), "bad/c.yaml:2:") {
		t.Errorf("%v, expected it to name bad/c.yaml:2", err)
	}
	err = c.Load([]*unstructured.Unstructured{obj("x.test/v1", "Odd", "", "o", nil)})
	if err == nil || !strings.Contains(err.Error(), "CustomResourceDefinition") {
		t.Errorf("%v", err)
	}
}

func TestServe(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, l, sim.ServeOptions{Tick: time.Millisecond, Speed: 1000}) }()
	cfg, err := clientcmd.RESTConfigFromKubeConfig(c.Kubeconfig(l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	cs := kubernetes.NewForConfigOrDie(cfg)
	w, err := cs.CoreV1().ConfigMaps("shop").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cs.CoreV1().ConfigMaps("shop").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Errorf("%+v", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
