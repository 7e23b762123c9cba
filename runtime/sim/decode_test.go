package sim_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/sim"
)

// TestRefusedRequests holds a real server's answers to requests that it cannot
// read or does not take.
func TestRefusedRequests(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	must(t)(d.Resource(crds).Create(ctx, thingCRD(object{"type": "object", "properties": object{"spec": object{"type": "object", "properties": object{"a": object{"type": "integer"}}}}}, nil), metav1.CreateOptions{}))
	must(t)(d.Resource(things).Namespace("shop").Create(ctx, thing("two", object{"a": int64(1)}), metav1.CreateOptions{}))
	must(t)(d.Resource(configMaps).Namespace("shop").Create(ctx, configMap("c", object{"a": "b"}), metav1.CreateOptions{}))
	rt, err := rest.TransportFor(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	const (
		cms    = "/api/v1/namespaces/shop/configmaps"
		ths    = "/apis/ex.io/v1/namespaces/shop/things"
		media  = "the body of the request was in an unknown format - accepted media types include: "
		bodies = media + "application/json, application/yaml, application/vnd.kubernetes.protobuf"
	)
	for _, x := range []struct {
		method, path, media, body string
		code                      int
		want                      string
	}{
		{"POST", cms, "", "not json", 400, "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'o' in literal null (expecting 'u') (6e6f74206a736f6e)"},
		{"POST", cms, "", `{"kind":"Secret","apiVersion":"v1"}`, 400, `Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion`},
		{"POST", cms, "", `{"metadata":{"name":"c2"},"data":{"a":1}}`, 400, `ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
		{"POST", cms, "", `{"metadata":{"name":"x","resourceVersion":"4"}}`, 500, "resourceVersion should not be set on objects to be created"},
		{"POST", cms, "application/nonsense", `{}`, 415, bodies},
		{"POST", cms, "application/cbor", `{}`, 415, bodies},
		{"POST", cms, "application/yaml", "metadata: {name: fromyaml}", 201, ""},
		{"POST", ths, "", `{"apiVersion":"ex.io/v1","metadata":{"name":"s"},"spec":{"a":1}}`, 400, `the object provided is unrecognized (must be of type Thing): Object 'Kind' is missing in '{"apiVersion":"ex.io/v1","metadata":{"name":"s"},"spec":{"a":1}}' ({"apiVersion":"ex.io/v1","meta ...)`},
		{"POST", ths, "", `{"kind":"Thing","metadata":{"name":"s"}}`, 400, "the API version in the data () does not match the expected API version (ex.io/v1)"},
		{"PUT", ths + "/two", "", `{"apiVersion":"ex.io/v1","kind":"Thing","metadata":{"name":"two"}}`, 422, `things.ex.io "two" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`},
		{"GET", ths + "/two/scale", "", "", 404, `things.ex.io "two" not found`},
		{"PATCH", ths + "/two", "application/strategic-merge-patch+json", `{}`, 415, media + "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"},
		{"PATCH", ths + "/two", "application/json-patch+json", `{"op":"remove"}`, 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"},
		{"PATCH", cms + "/c", "application/json", `{}`, 415, "415: Unsupported Media Type"},
		{"PATCH", cms + "/c", "application/strategic-merge-patch+json", `{"data":`, 400, "unexpected end of JSON input"},
		{"PATCH", cms + "/c", "application/strategic-merge-patch+json", `{"$patch":"bogus"}`, 500, "unknown patch type: bogus in map: map[$patch:bogus]"},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", `{"spec":{}}`, 422, `.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`},
		{"PUT", "/api/v1/pods", "", `{}`, 405, "the server does not allow this method on the requested resource"},
		{"DELETE", cms + "/c?propagationPolicy=Weird", "", "", 422, `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Weird": supported values: "Foreground", "Background", "Orphan", "nil"`},
		{"DELETE", cms + "/c", "", `{"kind":"Pod","apiVersion":"v1"}`, 400, `no kind "Pod" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111"`},
		{"GET", "/apis/nosuch/v1/foos", "", "", 404, "404 page not found\n"},
		{"GET", "/apis/apps/v9/deployments", "", "", 404, "the server could not find the requested resource"},
	} {
		if x.media == "" {
			x.media = "application/json"
		}
		r, err := http.NewRequestWithContext(ctx, x.method, c.Config().Host+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", x.media)
		code, body := send(t, rt, r)
		var st metav1.Status
		if err := json.Unmarshal(body, &st); err != nil {
			st.Message = string(body)
		}
		if code != x.code || x.want != "" && st.Message != x.want {
			t.Errorf("%s %s %s: %d %s", x.method, x.path, x.body, code, st.Message)
		}
	}
	for accept, want := range map[string]string{
		"application/nonsense":            `"code":406`,
		"application/json;as=Table;v=v9":  "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
		"application/yaml":                "kind: ConfigMap\n",
		"application/nonsense, */*;q=0.1": `"kind":"ConfigMap"`,
	} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config().Host+cms+"/c", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		if _, body := send(t, rt, r); !strings.Contains(string(body), want) {
			t.Errorf("%s: %s", accept, body)
		}
	}
}

func send(t *testing.T, rt http.RoundTripper, r *http.Request) (int, []byte) {
	t.Helper()
	res, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, body
}
