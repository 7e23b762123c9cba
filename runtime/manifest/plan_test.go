package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rutter.dev/rutter/runtime/cluster"
)

func object(kind, apiVersion, name string, labels map[string]string) *cluster.Object {
	o := &cluster.Object{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name, "namespace": "istio-system"}}}
	o.SetLabels(labels)
	return o
}

func TestStages(t *testing.T) {
	pilot := map[string]string{"operator.istio.io/component": "Pilot"}
	for _, tc := range []struct {
		o    *cluster.Object
		want Stage
	}{
		{object("CustomResourceDefinition", "apiextensions.k8s.io/v1", "gateways.networking.istio.io", nil), CRDs},
		{object("Namespace", "v1", "istio-system", nil), Namespaces},
		{object("ConfigMap", "v1", "istio", pilot), Base},
		{object("ClusterRole", "rbac.authorization.k8s.io/v1", "istiod", nil), Base},
		{object("Deployment", "apps/v1", "istiod-1-31-0", nil), ControlPlane},
		{object("HorizontalPodAutoscaler", "autoscaling/v2", "istiod", nil), ControlPlane},
		{object("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "istio-sidecar-injector", pilot), Webhooks},
		{object("ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "istio-validator", nil), Webhooks},
		{object("DaemonSet", "apps/v1", "istio-cni-node", nil), CNI},
		{object("DaemonSet", "apps/v1", "ztunnel", nil), Ztunnel},
		{object("Deployment", "apps/v1", "istio-ingressgateway", nil), Workloads},
		{object("PodDisruptionBudget", "policy/v1", "istio-ingressgateway", nil), Workloads},
		{object("EnvoyFilter", "networking.istio.io/v1alpha3", "stats", nil), Config},
		{object("Gateway", "gateway.networking.k8s.io/v1", "web", nil), Config},
	} {
		if got := StageOf(tc.o); got != tc.want {
			t.Errorf("%s: got %s, want %s", cluster.RefOf(tc.o), got, tc.want)
		}
	}
}

func TestInventoryRoundTrip(t *testing.T) {
	refs := []cluster.Ref{
		{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "istio-system", Name: "istiod"},
		{Version: "v1", Kind: "Namespace", Name: "istio-system"},
	}
	o := NewInventory(InventoryRef("istio-system", "istio"), refs)
	got, err := ReadInventory(o)
	if err != nil || !slices.Equal(got, refs) {
		t.Errorf("got %v, %v; want %v", got, err, refs)
	}
	o.Object["data"] = map[string]any{"objects": "nonsense\n"}
	if _, err := ReadInventory(o); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("damaged: got %v", err)
	}
}

func TestOwnership(t *testing.T) {
	install := map[string]string{labelComponent: "Pilot", labelOwner: "unknown", labelRevision: "default"}
	helm := func(release string) *cluster.Object {
		o := object("Role", "rbac.authorization.k8s.io/v1", "r", map[string]string{labelPartOf: "istio", labelManagedBy: "Helm", labelRelease: "istiod"})
		o.SetAnnotations(map[string]string{helmRelease: release, helmNamespace: "istio-system"})
		return o
	}
	desired := []*cluster.Object{object("Deployment", "apps/v1", "istiod", map[string]string{labelComponent: "Pilot", labelOwner: "unknown", labelRevision: "default", labelPartOf: "istio", labelRelease: "istiod"})}
	live := helm("istiod")
	id := identify(desired, []*cluster.Object{live})
	for _, tc := range []struct {
		name string
		o    *cluster.Object
		owns bool
		keep string
	}{
		{"of the install", object("ConfigMap", "v1", "old", install), true, ""},
		{"of another install", object("ConfigMap", "v1", "old", map[string]string{labelComponent: "Pilot", labelOwner: "mine"}), false, ""},
		{"of the Helm release", helm("istiod"), true, ""},
		{"of another Helm release", helm("gateway"), false, ""},
		{"of another revision", object("ConfigMap", "v1", "old", map[string]string{labelComponent: "Pilot", labelOwner: "unknown", labelRevision: "canary"}), true, "revision"},
		{"a tag", object("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "t", map[string]string{labelComponent: "Pilot", labelTag: "prod"}), true, "tag"},
		{"a CRD", object("CustomResourceDefinition", "apiextensions.k8s.io/v1", "c", install), true, "instances"},
		{"a Secret", object("Secret", "v1", "c", install), true, "hold"},
		{"nobody's", object("ConfigMap", "v1", "x", nil), false, ""},
	} {
		if got := id.owns(tc.o); got != tc.owns {
			t.Errorf("%s: owns: got %t", tc.name, got)
		}
		if got := id.keep(tc.o); (got == "") != (tc.keep == "") || !strings.Contains(got, tc.keep) {
			t.Errorf("%s: keep: got %q, want %q", tc.name, got, tc.keep)
		}
	}
}

func TestMaskTellsValuesApart(t *testing.T) {
	secret := func(data map[string]any) *cluster.Object {
		o := object("Secret", "v1", "s", nil)
		o.Object["data"] = data
		o.SetAnnotations(map[string]string{lastApplied: "aHVudGVyMg=="})
		return o
	}
	a, b := maskPair(secret(map[string]any{"k": "aHVudGVyMg==", "same": "aHVudGVyMg==", "was": "aHVudGVyMg=="}), secret(map[string]any{"k": "aHVudGVyMw==", "same": "aHVudGVyMg==", "is": "aHVudGVyMg=="}))
	if diff := cmp.Diff(map[string]any{"k": maskedBefore, "same": masked, "was": masked}, a.Object["data"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"k": maskedChanged, "same": masked, "is": masked}, b.Object["data"]); diff != "" {
		t.Error(diff)
	}
	if m := Mask(&cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "stringData": "hunter2"}}); m.Object["stringData"] != masked {
		t.Errorf("malformed material is shown: %v", m.Object)
	}
	if strings.Contains(a.GetAnnotations()[lastApplied], "aHV") {
		t.Error("kubectl's copy is not masked")
	}
}
