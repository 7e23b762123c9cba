package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/env"
)

func object(t *testing.T, text string) *Object {
	t.Helper()
	o := &Object{}
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestDigestIgnoresWhatTheServerWrites(t *testing.T) {
	a := object(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {template: {metadata: {labels: {app: web}}}}
`)
	b := object(t, `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  uid: u
  resourceVersion: "9"
  generation: 3
  creationTimestamp: "2026-01-01T00:00:00Z"
  managedFields: [{manager: x}]
  labels: {app: web}
  annotations: {rutter.dev/run: r, rutter.dev/effect: e, deployment.kubernetes.io/revision: "4"}
spec: {template: {metadata: {creationTimestamp: null, labels: {app: web}}}}
status: {replicas: 1}
`)
	da, err1 := Digest(a)
	db, err2 := Digest(b)
	if da != db || err1 != nil || err2 != nil {
		t.Errorf("%s, %s, %v, %v", da, db, err1, err2)
	}
	b.SetLabels(map[string]string{"app": "other"})
	if db, err2 = Digest(b); db == da || err2 != nil {
		t.Errorf("a changed label has the same digest (%v)", err2)
	}
	if b.GetResourceVersion() != "9" {
		t.Error("Normalize changed its argument")
	}
}

func TestReady(t *testing.T) {
	cases := []struct {
		name, yaml    string
		ready, failed bool
		why           string
	}{
		{"configmap", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`, true, false, ""},
		{"deadline", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 1}, status: {conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded}]}}`, false, true, "deadline"},
		{"rolling", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 3}, status: {observedGeneration: 1, replicas: 1}}`, false, false, "Replicas: 1/3"},
		{"crd", `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: a}}`, false, false, ""},
		{"crash loop", `{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Running, containerStatuses: [{name: c, state: {waiting: {reason: CrashLoopBackOff}}}]}}`, false, true, "CrashLoopBackOff"},
	}
	for _, tc := range cases {
		ready, failed, why := Ready(object(t, tc.yaml))
		if ready != tc.ready || failed != tc.failed || !strings.Contains(why, tc.why) {
			t.Errorf("%s: ready %v, failed %v, %q", tc.name, ready, failed, why)
		}
	}
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string][2]string{
		"deploy/web": {"deploy", "web"}, "pods": {"pods", ""},
		"virtualservices.networking.istio.io/web": {"virtualservices.networking.istio.io", "web"},
	} {
		r, n, err := ParseRef(in)
		if err != nil || r != want[0] || n != want[1] {
			t.Errorf("%s: %q %q %v", in, r, n, err)
		}
	}
	for _, bad := range []string{"", "deploy/", "a/b/c"} {
		if _, _, err := ParseRef(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestPreconditionsGoIntoThePatch(t *testing.T) {
	o := WriteOptions{UID: "u", ResourceVersion: "4"}
	for pt, want := range map[types.PatchType][2]string{
		types.MergePatchType: {`{"spec":{}}`, `{"metadata":{"resourceVersion":"4","uid":"u"},"spec":{}}`},
		types.JSONPatchType:  {`[]`, `[{"op":"test","path":"/metadata/uid","value":"u"},{"op":"test","path":"/metadata/resourceVersion","value":"4"}]`},
	} {
		got, err := withPreconditions(pt, []byte(want[0]), o)
		if err != nil || string(got) != want[1] {
			t.Errorf("%s: %s, %v", pt, got, err)
		}
	}
}

func TestConnectErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	const text = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: prod-eu, context: {cluster: c, user: u}}, {name: staging, context: {cluster: c, user: u}}]
current-context: staging
users: [{name: u, user: {}}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := func(k string) string { return map[string]string{"KUBECONFIG": file}[k] }
	o := Options{Getenv: getenv, Clock: env.SystemClock{}}
	_, err := Connect(t.Context(), o)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "staging") {
		t.Errorf("unreachable: %v", err)
	}
	o.Context = "prod-us"
	_, err = Connect(t.Context(), o)
	if !errors.Is(err, ErrNoContext) || !strings.Contains(err.Error(), `did you mean "prod-eu"?`) {
		t.Errorf("unknown context: %v", err)
	}
	_, err = Connect(t.Context(), Options{Clock: env.SystemClock{}, Getenv: func(string) string { return "" }})
	if !errors.Is(err, ErrNoConfig) {
		t.Errorf("no kubeconfig: %v", err)
	}
	_, err = Connect(t.Context(), Options{Kubeconfig: filepath.Join(dir, "absent"), Clock: env.SystemClock{}})
	if !errors.Is(err, ErrNoConfig) {
		t.Errorf("absent file: %v", err)
	}
}
