package sim_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

var (
	mutatingHooks   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	validatingHooks = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
)

// hookServer answers AdmissionReviews by path, as the tests want it.
func hookServer(t *testing.T, seen *[]admissionv1.AdmissionRequest) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Errorf("review: %v", err)
		}
		*seen = append(*seen, *in.Request)
		out := &admissionv1.AdmissionResponse{UID: in.Request.UID, Allowed: true}
		label := func(k, v string) {
			out.PatchType = new(admissionv1.PatchTypeJSONPatch)
			op := object{"op": "add", "path": "/metadata/labels", "value": object{k: v}}
			if strings.Contains(string(in.Request.Object.Raw), `"labels"`) {
				op = object{"op": "add", "path": "/metadata/labels/" + k, "value": v}
			}
			out.Patch = must1(json.Marshal([]any{op}))
		}
		switch r.URL.Path {
		case "/deny":
			out.Allowed, out.Result = false, &metav1.Status{Message: "no way", Code: 400, Reason: "Nope"}
		case "/deny-plain":
			out.Allowed = false
		case "/label":
			label("hooked", "yes")
		case "/count": // how often it saw the object
			n := strings.Count(string(in.Request.Object.Raw), `"seen`)
			label("seen"+string(rune('0'+n)), "x")
		case "/warn":
			out.Warnings = []string{"careful"}
		case "/nouid":
			out.UID = ""
		case "/garbage":
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("hello"))
			return
		case "/500":
			w.WriteHeader(500)
		case "/none":
			out = nil
		}
		in.Request, in.Response = nil, out
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(in)
	})
}

func hookConfig(kind, name, path string, rest object) *unstructured.Unstructured {
	h := object{
		"name": name + ".example.com", "sideEffects": "None", "admissionReviewVersions": []any{"v1"},
		"clientConfig": object{"service": object{"name": "hooks", "namespace": "shop", "path": "/" + path}},
		"rules":        []any{object{"operations": []any{"*"}, "apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"configmaps"}}},
	}
	for k, v := range rest {
		h[k] = v
	}
	return obj("admissionregistration.k8s.io/v1", kind, "", name, object{"webhooks": []any{h}})
}

// TestWebhookAnswers holds the answers of a real server to what a webhook says.
func TestWebhookAnswers(t *testing.T) {
	ctx := t.Context()
	var seen []admissionv1.AdmissionRequest
	c, d := newCluster(t, sim.Options{})
	c.HandleWebhook("hooks.shop.svc:443", hookServer(t, &seen))
	const call = `Internal error occurred: failed calling webhook "v.example.com": `
	for _, x := range []struct {
		path, want string
		code       int
		rest       object
	}{
		{"deny", `admission webhook "v.example.com" denied the request: no way`, 400, nil},
		{"deny-plain", `admission webhook "v.example.com" denied the request without explanation`, 400, nil},
		{"none", call + "received invalid webhook response: webhook response was absent", 500, nil},
		{"nouid", call + "received invalid webhook response: expected response.uid=", 500, nil},
		{"garbage", call + "failed to call webhook: couldn't get version/kind; json parse error: ", 500, nil},
		{"500", call + `failed to call webhook: an error on the server ("unknown") has prevented the request from succeeding`, 500, nil},
		{"garbage", "", 201, object{"failurePolicy": "Ignore"}},
		{"deny", `admission webhook "v.example.com" denied the request: no way`, 400, object{"failurePolicy": "Ignore"}},
		{"deny", "", 201, object{"matchConditions": []any{object{"name": "c", "expression": `object.metadata.name == "no"`}}}},
		{"deny", `configmaps "x" is forbidden: expression 'object.data.x == "no"' resulted in error: no such key: data`, 403, object{"matchConditions": []any{object{"name": "c", "expression": `object.data.x == "no"`}}}},
		{"deny", "", 201, object{"objectSelector": object{"matchLabels": object{"a": "b"}}}},
		{"deny", "", 201, object{"namespaceSelector": object{"matchLabels": object{"a": "b"}}}},
	} {
		must(t)(d.Resource(validatingHooks).Create(ctx, hookConfig("ValidatingWebhookConfiguration", "v", x.path, x.rest), metav1.CreateOptions{}))
		code, got := ask(t, c.Config(), "POST", "/api/v1/namespaces/shop/configmaps?dryRun=All", object{"metadata": object{"name": "x"}})
		if msg, _ := got["message"].(string); code != x.code || !strings.HasPrefix(msg, x.want) || x.want == "" && msg != "" {
			t.Errorf("%s %v: %d %v", x.path, x.rest, code, got["message"])
		}
		if err := d.Resource(validatingHooks).Delete(ctx, "v", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	first := seen[0]
	if first.Operation != "CREATE" || first.Name != "x" || first.Namespace != "shop" || first.UserInfo.Username != "kubernetes-admin" || first.DryRun == nil || !*first.DryRun {
		t.Errorf("the webhook was told %+v", first)
	}
	_, err := d.Resource(validatingHooks).Create(ctx, hookConfig("ValidatingWebhookConfiguration", "v", "x", object{"matchConditions": []any{object{"name": "c", "expression": "object.("}}}), metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "webhooks[0].matchConditions[0].expression: Invalid value: \"object.(\": compilation failed: ERROR: <input>:1:8: Syntax error") {
		t.Errorf("%v", err)
	}
}

func TestMutatingWebhooks(t *testing.T) {
	ctx := t.Context()
	var seen []admissionv1.AdmissionRequest
	c, d := newCluster(t, sim.Options{})
	c.HandleWebhook("hooks.shop.svc:443", hookServer(t, &seen))
	must(t)(d.Resource(mutatingHooks).Create(ctx, hookConfig("MutatingWebhookConfiguration", "a-count", "count", object{"reinvocationPolicy": "IfNeeded"}), metav1.CreateOptions{}))
	must(t)(d.Resource(mutatingHooks).Create(ctx, hookConfig("MutatingWebhookConfiguration", "b-label", "label", nil), metav1.CreateOptions{}))
	u := must(t)(d.Resource(configMaps).Namespace("shop").Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	l := u.GetLabels()
	if l["hooked"] != "yes" || l["seen0"] != "x" || l["seen1"] != "x" || len(l) != 3 {
		t.Errorf("labels: %v", l)
	}
	if len(seen) != 3 {
		t.Errorf("%d calls, expected two and one again", len(seen))
	}
}

// TestWebhookOverHTTPS calls a webhook by its URL, and lets it read from the
// cluster while the cluster waits for it.
func TestWebhookOverHTTPS(t *testing.T) {
	ctx := t.Context()
	var seen []admissionv1.AdmissionRequest
	_, d := newCluster(t, sim.Options{WebhookAddress: sim.LoopbackWebhooks})
	answer := hookServer(t, &seen)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := d.Resource(namespaces).Get(ctx, "shop", metav1.GetOptions{}); err != nil {
			t.Errorf("a read while the webhook answers: %v", err)
		}
		answer.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	config := func(ca []byte) *unstructured.Unstructured {
		return hookConfig("MutatingWebhookConfiguration", "m", "", object{"clientConfig": object{"url": srv.URL + "/label", "caBundle": base64.StdEncoding.EncodeToString(ca)}})
	}
	must(t)(d.Resource(mutatingHooks).Create(ctx, config(ca), metav1.CreateOptions{}))
	u := must(t)(d.Resource(configMaps).Namespace("shop").Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	if u.GetLabels()["hooked"] != "yes" {
		t.Errorf("labels: %v", u.GetLabels())
	}
	if err := d.Resource(mutatingHooks).Delete(ctx, "m", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(t)(d.Resource(mutatingHooks).Create(ctx, config(nil), metav1.CreateOptions{}))
	_, err := d.Resource(configMaps).Namespace("shop").Create(ctx, configMap("b", nil), metav1.CreateOptions{})
	const want = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
	if err == nil || !strings.Contains(err.Error(), `failed calling webhook "m.example.com": failed to call webhook: Post "`+srv.URL+"/label?timeout=10s\": "+want) {
		t.Errorf("%v", err)
	}
}
