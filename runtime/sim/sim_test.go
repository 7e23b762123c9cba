package sim_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"rutter.dev/rutter/runtime/sim"
)

type object = map[string]any

var (
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	pods        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	crds        = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	pdbs        = schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}
	routes      = schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}
)

func newCluster(t testing.TB, opts sim.Options) (*sim.Cluster, dynamic.Interface) {
	t.Helper()
	c, err := sim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	must(t)(d.Resource(namespaces).Create(t.Context(), obj("v1", "Namespace", "", "shop", nil), metav1.CreateOptions{}))
	return c, d
}

func obj(apiVersion, kind, ns, name string, rest object) *unstructured.Unstructured {
	meta := object{"name": name}
	if ns != "" {
		meta["namespace"] = ns
	}
	o := object{"apiVersion": apiVersion, "kind": kind, "metadata": meta}
	for k, v := range rest {
		o[k] = v
	}
	return (&unstructured.Unstructured{Object: o}).DeepCopy()
}

func configMap(name string, data object) *unstructured.Unstructured {
	return obj("v1", "ConfigMap", "shop", name, object{"data": data})
}

func deployment(name string, containers ...any) *unstructured.Unstructured {
	if containers == nil {
		containers = []any{object{"name": "app", "image": "web:1"}}
	}
	return obj("apps/v1", "Deployment", "shop", name, object{"spec": object{
		"selector": object{"matchLabels": object{"app": name}},
		"template": object{"metadata": object{"labels": object{"app": name}}, "spec": object{"containers": containers}},
	}})
}

// must ends the test on an error and returns the object otherwise.
func must(t testing.TB) func(*unstructured.Unstructured, error) *unstructured.Unstructured {
	t.Helper()
	return func(u *unstructured.Unstructured, err error) *unstructured.Unstructured {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
}

func at(u *unstructured.Unstructured, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	return v
}

func virtualServiceCRD() *unstructured.Unstructured {
	version := func(name string, storage bool) object {
		return object{
			"name": name, "served": true, "storage": storage, "subresources": object{"status": object{}},
			"additionalPrinterColumns": []any{object{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"}},
			"schema": object{"openAPIV3Schema": object{"type": "object", "properties": object{
				"spec": object{"type": "object", "required": []any{"hosts"}, "properties": object{
					"hosts": object{"type": "array", "items": object{"type": "string"}},
					"mode":  object{"type": "string", "default": "plain", "enum": []any{"plain", "fancy"}},
				}},
				"status": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
			}}},
		}
	}
	return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "virtualservices.networking.istio.io", object{"spec": object{
		"group": "networking.istio.io", "scope": "Namespaced",
		"names":    object{"plural": "virtualservices", "singular": "virtualservice", "kind": "VirtualService", "listKind": "VirtualServiceList", "shortNames": []any{"vs"}},
		"versions": []any{version("v1", true), version("v1beta1", false)},
	}})
}

var apply = func(manager string, force bool) metav1.ApplyOptions {
	return metav1.ApplyOptions{FieldManager: manager, Force: force}
}

// TestBehaviours holds the behaviours in which the fakes of client-go and
// controller-runtime differ from a real API server.
func TestBehaviours(t *testing.T) {
	ctx := context.Background()
	type env struct {
		*testing.T
		c    *sim.Cluster
		d    dynamic.Interface
		cm   dynamic.ResourceInterface
		dep  dynamic.ResourceInterface
		must func(*unstructured.Unstructured, error) *unstructured.Unstructured
	}
	for name, f := range map[string]func(env){
		"server sets uid, version and time": func(e env) {
			o := e.must(e.cm.Create(ctx, configMap("a", object{"k": "1"}), metav1.CreateOptions{}))
			if o.GetUID() == "" || o.GetResourceVersion() == "" || !o.GetCreationTimestamp().Time.Equal(e.c.Clock().Now()) {
				e.Errorf("metadata = %v", o.Object["metadata"])
			}
		},
		"already exists and not found": func(e env) {
			e.must(e.cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
			if _, err := e.cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
				e.Error(err)
			}
			if _, err := e.cm.Get(ctx, "b", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				e.Error(err)
			}
		},
		"generateName": func(e env) {
			o := configMap("", nil)
			unstructured.RemoveNestedField(o.Object, "metadata", "name")
			o.SetGenerateName("gen-")
			if n := e.must(e.cm.Create(ctx, o, metav1.CreateOptions{})).GetName(); !strings.HasPrefix(n, "gen-") || len(n) != 9 {
				e.Error(n)
			}
		},
		"dry runs store nothing": func(e env) {
			dry := []string{metav1.DryRunAll}
			e.must(e.cm.Create(ctx, configMap("dry", nil), metav1.CreateOptions{DryRun: dry}))
			if _, err := e.cm.Get(ctx, "dry", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				e.Error(err)
			}
			e.must(e.cm.Create(ctx, configMap("a", object{"k": "1"}), metav1.CreateOptions{}))
			p := e.must(e.cm.Patch(ctx, "a", types.MergePatchType, []byte(`{"data":{"k":"2"}}`), metav1.PatchOptions{DryRun: dry}))
			ao := apply("one", true)
			ao.DryRun = dry
			s := e.must(e.cm.Apply(ctx, "a", configMap("a", object{"k": "3"}), ao))
			if err := e.cm.Delete(ctx, "a", metav1.DeleteOptions{DryRun: dry}); err != nil {
				e.Error(err)
			}
			g := e.must(e.cm.Get(ctx, "a", metav1.GetOptions{}))
			if at(p, "data", "k") != "2" || at(s, "data", "k") != "3" || at(g, "data", "k") != "1" {
				e.Errorf("patched %v, applied %v, stored %v", p.Object, s.Object, g.Object)
			}
		},
		"stale version conflicts": func(e env) {
			o := e.must(e.cm.Create(ctx, configMap("a", object{"k": "1"}), metav1.CreateOptions{}))
			stale := o.DeepCopy()
			o.Object["data"] = object{"k": "2"}
			e.must(e.cm.Update(ctx, o, metav1.UpdateOptions{}))
			stale.Object["data"] = object{"k": "3"}
			if _, err := e.cm.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				e.Error(err)
			}
		},
		"a write that changes nothing has no new version": func(e env) {
			o := e.must(e.dep.Create(ctx, deployment("web"), metav1.CreateOptions{}))
			p := e.must(e.dep.Update(ctx, o, metav1.UpdateOptions{}))
			if o.GetResourceVersion() != p.GetResourceVersion() {
				e.Errorf("%v then %v", o.Object, p.Object)
			}
			a := e.must(e.dep.Apply(ctx, "b", deployment("b"), apply("one", false)))
			e.c.Advance(time.Hour)
			b := e.must(e.dep.Apply(ctx, "b", deployment("b"), apply("one", false)))
			if a.GetResourceVersion() != b.GetResourceVersion() {
				e.Errorf("%v then %v", a.Object, b.Object)
			}
		},
		"apply creates, conflicts, forces, drops": func(e env) {
			o := e.must(e.cm.Apply(ctx, "s", configMap("s", object{"a": "1"}), apply("one", false)))
			if len(o.GetManagedFields()) != 1 || o.GetManagedFields()[0].Manager != "one" {
				e.Error(o.GetManagedFields())
			}
			_, err := e.cm.Apply(ctx, "s", configMap("s", object{"a": "2"}), apply("two", false))
			st, _ := err.(apierrors.APIStatus)
			if !apierrors.IsConflict(err) || len(st.Status().Details.Causes) != 1 || st.Status().Details.Causes[0].Field != ".data.a" {
				e.Errorf("%+v", err)
			}
			e.must(e.cm.Apply(ctx, "s", configMap("s", object{"a": "2", "b": "1"}), apply("two", true)))
			o = e.must(e.cm.Apply(ctx, "s", configMap("s", object{"a": "2"}), apply("two", true)))
			if at(o, "data", "b") != nil {
				e.Error(o.Object)
			}
		},
		"apply merges containers by name": func(e env) {
			e.must(e.dep.Apply(ctx, "web", deployment("web"), apply("one", false)))
			more := obj("apps/v1", "Deployment", "shop", "web", object{"spec": object{"template": object{"spec": object{"containers": []any{object{"name": "proxy", "image": "p:1"}}}}}})
			o := e.must(e.dep.Apply(ctx, "web", more, apply("two", false)))
			if l, _ := at(o, "spec", "template", "spec", "containers").([]any); len(l) != 2 {
				e.Error(l)
			}
			_, err := e.dep.Apply(ctx, "web", deployment("web", object{"name": "app", "image": "web:2"}), apply("two", false))
			if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one"`) {
				e.Error(err)
			}
		},
		"strategic merge by name": func(e env) {
			e.must(e.dep.Create(ctx, deployment("web"), metav1.CreateOptions{}))
			o := e.must(e.dep.Patch(ctx, "web", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"proxy","image":"p:1"}]}}}}`), metav1.PatchOptions{}))
			if l, _ := at(o, "spec", "template", "spec", "containers").([]any); len(l) != 2 {
				e.Error(l)
			}
		},
		"json patch": func(e env) {
			e.must(e.cm.Create(ctx, configMap("a", object{"k": "1"}), metav1.CreateOptions{}))
			o := e.must(e.cm.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"replace","path":"/data/k","value":"9"}]`), metav1.PatchOptions{}))
			if at(o, "data", "k") != "9" {
				e.Error(o.Object)
			}
			if _, err := e.cm.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"test","path":"/data/k","value":"1"}]`), metav1.PatchOptions{}); apierrors.ReasonForError(err) != metav1.StatusReasonInvalid {
				e.Errorf("%v", err)
			}
		},
		"defaults, generation, status apart": func(e env) {
			o := e.must(e.dep.Create(ctx, deployment("web"), metav1.CreateOptions{}))
			if at(o, "spec", "strategy", "rollingUpdate", "maxSurge") != "25%" || at(o, "spec", "progressDeadlineSeconds") != int64(600) || o.GetGeneration() != 1 {
				e.Error(o.Object)
			}
			o = e.must(e.dep.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{}))
			if o.GetGeneration() != 2 {
				e.Error(o.GetGeneration())
			}
			o.Object["status"] = object{"observedGeneration": int64(7)}
			o = e.must(e.dep.Update(ctx, o, metav1.UpdateOptions{}))
			if at(o, "status", "observedGeneration") != nil {
				e.Error(o.Object["status"])
			}
			o.Object["status"] = object{"observedGeneration": int64(7)}
			o.Object["spec"].(object)["replicas"] = int64(9)
			o = e.must(e.dep.UpdateStatus(ctx, o, metav1.UpdateOptions{}))
			if at(o, "status", "observedGeneration") != int64(7) || at(o, "spec", "replicas") != int64(2) || o.GetGeneration() != 2 {
				e.Error(o.Object)
			}
		},
		"invalid objects are refused": func(e env) {
			bad := deployment("Bad_Name")
			if _, err := e.dep.Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
				e.Error(err)
			}
			mismatch := deployment("web")
			unstructured.SetNestedField(mismatch.Object, object{"app": "other"}, "spec", "selector", "matchLabels")
			if _, err := e.dep.Create(ctx, mismatch, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
				e.Error(err)
			}
			e.must(e.dep.Create(ctx, deployment("web"), metav1.CreateOptions{}))
			if _, err := e.dep.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"selector":{"matchLabels":{"x":"y"}}}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
				e.Error(err)
			}
			typo := deployment("typo")
			typo.Object["spec"].(object)["replica"] = int64(1)
			if _, err := e.dep.Create(ctx, typo, metav1.CreateOptions{FieldValidation: "Strict"}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `unknown field "spec.replica"`) {
				e.Error(err)
			}
		},
		"missing namespace": func(e env) {
			o := configMap("a", nil)
			o.SetNamespace("absent")
			if _, err := e.d.Resource(configMaps).Namespace("absent").Create(ctx, o, metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
				e.Error(err)
			}
		},
		"paging over a snapshot": func(e env) {
			for i := range 5 {
				e.must(e.cm.Create(ctx, configMap(fmt.Sprint("p-", i), nil), metav1.CreateOptions{}))
			}
			var names []string
			token := ""
			for {
				l, err := e.cm.List(ctx, metav1.ListOptions{Limit: 2, Continue: token})
				if err != nil {
					e.Fatal(err)
				}
				for _, o := range l.Items {
					names = append(names, o.GetName())
				}
				if token = l.GetContinue(); token == "" {
					break
				}
				e.must(e.cm.Create(ctx, configMap(fmt.Sprint("q-", len(names)), nil), metav1.CreateOptions{}))
			}
			if got := strings.Join(names, " "); got != "p-0 p-1 p-2 p-3 p-4" {
				e.Error(got)
			}
		},
		"field and label selectors": func(e env) {
			pod := obj("v1", "Pod", "shop", "p", object{"spec": object{"containers": []any{object{"name": "c", "image": "x"}}}})
			pod.SetLabels(map[string]string{"tier": "web"})
			pi := e.d.Resource(pods).Namespace("shop")
			e.must(pi.Create(ctx, pod, metav1.CreateOptions{}))
			for sel, want := range map[metav1.ListOptions]int{
				{FieldSelector: "status.phase=Pending"}: 1, {FieldSelector: "status.phase=Failed"}: 0, {FieldSelector: "metadata.name=p"}: 1,
				{LabelSelector: "tier in (web,db)"}: 1, {LabelSelector: "tier!=web"}: 0,
			} {
				l, err := pi.List(ctx, sel)
				if err != nil {
					e.Fatalf("%+v: %v", sel, err)
				}
				if len(l.Items) != want {
					e.Errorf("%+v: %d items", sel, len(l.Items))
				}
			}
			if _, err := pi.List(ctx, metav1.ListOptions{FieldSelector: "spec.foo=1"}); !apierrors.IsBadRequest(err) {
				e.Error(err)
			}
		},
		"finalizers hold, owners collect": func(e env) {
			held := configMap("held", nil)
			held.SetFinalizers([]string{"x.test/f"})
			o := e.must(e.cm.Create(ctx, held, metav1.CreateOptions{}))
			child := configMap("child", nil)
			child.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "held", UID: o.GetUID()}})
			e.must(e.cm.Create(ctx, child, metav1.CreateOptions{}))
			if err := e.cm.Delete(ctx, "held", metav1.DeleteOptions{}); err != nil {
				e.Fatal(err)
			}
			if g := e.must(e.cm.Get(ctx, "held", metav1.GetOptions{})); g.GetDeletionTimestamp() == nil {
				e.Error("not marked")
			}
			e.must(e.cm.Get(ctx, "child", metav1.GetOptions{}))
			e.must(e.cm.Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}))
			for _, n := range []string{"held", "child"} {
				if _, err := e.cm.Get(ctx, n, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					e.Errorf("%s: %v", n, err)
				}
			}
		},
		"orphan and foreground": func(e env) {
			for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground} {
				o := e.must(e.cm.Create(ctx, configMap("o", nil), metav1.CreateOptions{}))
				child := configMap("c", nil)
				child.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "o", UID: o.GetUID()}})
				e.must(e.cm.Create(ctx, child, metav1.CreateOptions{}))
				if err := e.cm.Delete(ctx, "o", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
					e.Fatal(err)
				}
				_, err := e.cm.Get(ctx, "c", metav1.GetOptions{})
				if (policy == metav1.DeletePropagationOrphan) != (err == nil) {
					e.Errorf("%s: %v", policy, err)
				}
				if _, err := e.cm.Get(ctx, "o", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					e.Errorf("%s: %v", policy, err)
				}
				if err := e.cm.Delete(ctx, "c", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
					e.Error(err)
				}
			}
		},
		"namespace deletion empties it": func(e env) {
			e.must(e.dep.Create(ctx, deployment("web"), metav1.CreateOptions{}))
			if err := e.d.Resource(namespaces).Delete(ctx, "shop", metav1.DeleteOptions{}); err != nil {
				e.Fatal(err)
			}
			for _, o := range e.c.Objects() {
				if o.GetNamespace() == "shop" || o.GetName() == "shop" {
					e.Errorf("left: %s %s", o.GetKind(), o.GetName())
				}
			}
		},
		"delete preconditions": func(e env) {
			o := e.must(e.cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
			wrong, right := types.UID("x"), o.GetUID()
			if err := e.cm.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}}); !apierrors.IsConflict(err) {
				e.Error(err)
			}
			if err := e.cm.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &right}}); err != nil {
				e.Error(err)
			}
		},
		"custom resources": func(e env) {
			e.must(e.d.Resource(crds).Create(ctx, virtualServiceCRD(), metav1.CreateOptions{}))
			vs := func(host string) *unstructured.Unstructured {
				return obj("networking.istio.io/v1", "VirtualService", "shop", "v", object{"spec": object{"hosts": []any{host}, "unknown": "x"}})
			}
			ri := e.d.Resource(routes).Namespace("shop")
			o := e.must(ri.Create(ctx, vs("a"), metav1.CreateOptions{}))
			if at(o, "spec", "mode") != "plain" || at(o, "spec", "unknown") != nil || o.GetGeneration() != 1 {
				e.Error(o.Object)
			}
			_ = ri.Delete(ctx, "v", metav1.DeleteOptions{})
			clean := vs("a")
			unstructured.RemoveNestedField(clean.Object, "spec", "unknown")
			e.must(ri.Apply(ctx, "v", clean, apply("one", false)))
			other := clean.DeepCopy()
			unstructured.SetNestedStringSlice(other.Object, []string{"b"}, "spec", "hosts")
			if _, err := ri.Apply(ctx, "v", other, apply("two", false)); !apierrors.IsConflict(err) {
				e.Error(err)
			}
			if _, err := ri.Patch(ctx, "v", types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}); !apierrors.IsUnsupportedMediaType(err) {
				e.Error(err)
			}
			if _, err := ri.Patch(ctx, "v", types.MergePatchType, []byte(`{"spec":{"mode":"odd"}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
				e.Error(err)
			}
			beta := routes
			beta.Version = "v1beta1"
			if b := e.must(e.d.Resource(beta).Namespace("shop").Get(ctx, "v", metav1.GetOptions{})); b.GetAPIVersion() != "networking.istio.io/v1beta1" {
				e.Error(b.GetAPIVersion())
			}
			if err := e.d.Resource(crds).Delete(ctx, "virtualservices.networking.istio.io", metav1.DeleteOptions{}); err != nil {
				e.Error(err)
			}
			if _, err := ri.Get(ctx, "v", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				e.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, d := newCluster(t, sim.Options{})
			f(env{t, c, d, d.Resource(configMaps).Namespace("shop"), d.Resource(deployments).Namespace("shop"), must(t)})
		})
	}
}

// An apply with a resourceVersion that no object has makes what is absent, and
// is refused where there is something: as kube-apiserver 1.36.3 answers it.
func TestApplyThatMayOnlyCreate(t *testing.T) {
	_, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	body := configMap("a", object{"k": "1"})
	body.SetResourceVersion("1")
	opts := metav1.ApplyOptions{FieldManager: "rutter"}
	made := must(t)(cm.Apply(t.Context(), "a", body, opts))
	if rv := made.GetResourceVersion(); rv == "1" || rv == "" {
		t.Errorf("resourceVersion %q", rv)
	}
	if _, err := cm.Apply(t.Context(), "a", body, opts); !apierrors.IsConflict(err) {
		t.Errorf("where there is one: %v", err)
	}
}
