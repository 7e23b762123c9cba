package twin

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

const owners = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector}
webhooks:
- name: rev.namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject}}
  failurePolicy: Ignore
  sideEffects: None
  admissionReviewVersions: [v1]
  rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Service
metadata: {name: istiod, namespace: istio-system}
spec: {selector: {app: istiod}, ports: [{port: 443}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system}
spec:
  selector: {matchLabels: {app: istiod}}
  template: {metadata: {labels: {app: istiod}}, spec: {containers: [{name: discovery, image: "pilot:1"}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: bank}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, image: "db:1"}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: bank}
spec:
  selector: {matchLabels: {app: log}}
  template: {metadata: {labels: {app: log}}, spec: {containers: [{name: log, image: "log:1"}]}}
`

// preparing notes which pods were prepared before they were injected. It injects
// nothing.
type preparing struct {
	mu       sync.Mutex
	prepared map[string]bool
	met      []string // app labels of pods whose injection was prepared
	missed   []string // and of those that came as a surprise
}

func (p *preparing) Prepare(in sim.InjectionRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prepared[likeness(in.Pod)] = true
}

func (p *preparing) Inject(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if app := in.Pod.GetLabels()["app"]; p.prepared[likeness(in.Pod)] {
		p.met = append(p.met, app)
	} else {
		p.missed = append(p.missed, app)
	}
	return in.Pod, nil
}

// likeness is a pod without what its identity, its owner's and its node tell.
func likeness(pod *unstructured.Unstructured) string {
	p := pod.DeepCopy()
	for _, f := range []string{"name", "uid", "creationTimestamp", "resourceVersion", "managedFields"} {
		unstructured.RemoveNestedField(p.Object, "metadata", f)
	}
	refs := p.GetOwnerReferences()
	for i := range refs {
		refs[i].UID = ""
		if refs[i].Kind == "DaemonSet" {
			unstructured.RemoveNestedField(p.Object, "spec", "affinity")
		}
	}
	p.SetOwnerReferences(refs)
	b, err := json.Marshal(p.Object)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// While a server answers the dry-run of a rollout, the injection of the pods that
// it will bring is prepared: of just these.
func TestInjectionIsPrepared(t *testing.T) {
	s := liveWorldOf(t, world+"---"+owners)
	inj := &preparing{prepared: map[string]bool{}}
	tw, c := twinWith(t, s, inj)
	patch := []byte(`{"spec":{"template":{"metadata":{"annotations":{"restart":"1"}}}}}`)
	refs := []cluster.Ref{
		webRef,
		{Group: "apps", Version: "v1", Kind: "StatefulSet", Namespace: "bank", Name: "db"},
		{Group: "apps", Version: "v1", Kind: "DaemonSet", Namespace: "bank", Name: "log"},
	}
	for _, ref := range refs {
		if _, err := c.DryRunPatch(t.Context(), ref, types.MergePatchType, patch, cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Patch(t.Context(), ref, types.MergePatchType, patch, cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Clock().Sleep(t.Context(), 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if len(inj.missed) > 0 {
		t.Errorf("not prepared: %v", inj.missed)
	}
	if got := len(inj.met); got != 3+2+1 {
		t.Errorf("%d pods were prepared, want 6: %v", got, inj.met)
	}
	if len(inj.prepared) != 1+2+1 {
		t.Errorf("%d kinds of pods were prepared, want 4", len(inj.prepared))
	}
	harmless(t, s)
}
