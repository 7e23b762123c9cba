package injection

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// decision is what became of a pod.
type decision struct {
	where, pod string
	Code       int               `json:"code"`
	Message    string            `json:"message,omitempty"`
	Revision   string            `json:"revision,omitempty"` // that injected it
	Init       []string          `json:"init,omitempty"`     // NAME IMAGE, and its restart policy
	Containers []string          `json:"containers,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Notes      map[string]string `json:"annotations,omitempty"`
}

func (d decision) title() string { return d.where + ": " + d.pod }

// verdict is whether the pod is there, and who injected it.
func (d decision) verdict() string { return fmt.Sprint(d.Code, " ", d.Revision) }

// manifests are the control planes': the linked version's default profile,
// re-tagged for the old one.
func manifests(t testing.TB) (old, next []*unstructured.Unstructured) {
	t.Helper()
	if err := lib.Setup(); err != nil {
		t.Fatal(err)
	}
	r := lib.NewRenderer("")
	render := func(revision string) []*unstructured.Unstructured {
		got, err := r.Render(t.Context(), lib.RenderOptions{Profile: "default", Revision: revision})
		if err != nil {
			t.Fatal(err)
		}
		return got.Objects
	}
	return mesh.Retag(render(""), newVersion, oldVersion), render(canary)
}

// client sends requests to a mesh.
type client struct {
	host string
	rt   http.RoundTripper
	// pass lets a little time go by, in which controllers act.
	pass func(context.Context) error
}

func newClient(t testing.TB, cfg *rest.Config, pass func(context.Context) error) *client {
	t.Helper()
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &client{cfg.Host, rt, pass}
}

// send makes one request of YAML.
func (c *client) send(ctx context.Context, method, path, body string) (int, map[string]any, error) {
	j, err := yaml.YAMLToJSON([]byte(body))
	if err != nil {
		return 0, nil, err
	}
	q, err := http.NewRequestWithContext(ctx, method, c.host+path, bytes.NewReader(j))
	if err != nil {
		return 0, nil, err
	}
	q.Header.Set("Accept", "application/json")
	q.Header.Set("Content-Type", "application/json")
	if method == "PATCH" {
		q.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := c.rt.RoundTrip(q)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	obj := map[string]any{}
	return resp.StatusCode, obj, json.Unmarshal(data, &obj)
}

// want sends a request that has to succeed.
func (c *client) want(t testing.TB, method, path, body string) map[string]any {
	t.Helper()
	code, obj, err := c.send(t.Context(), method, path, body)
	if err != nil || code >= 300 {
		t.Fatalf("%s %s: %d %v %v", method, path, code, obj["message"], err)
	}
	return obj
}

// decide lets every pod meet every namespace.
func decide(t testing.TB, c *client) []decision {
	t.Helper()
	var out []decision
	for _, s := range spaces {
		ns := "inject-" + s.name
		c.want(t, "POST", "/api/v1/namespaces", fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: %s}}`, ns, s.labels))
		c.awaitAccount(t, ns)
		all := pods
		if slices.Contains(injecting, s.name) {
			all = slices.Concat(pods, shapes)
		}
		for _, p := range all {
			out = append(out, c.create(t, s.name, ns, p, true))
		}
	}
	for _, s := range systems {
		c.awaitAccount(t, s.name)
		c.want(t, "PATCH", "/api/v1/namespaces/"+s.name, fmt.Sprintf(`{metadata: {labels: %s}}`, s.labels))
		for _, p := range pods {
			out = append(out, c.create(t, s.name, s.name, p, true))
		}
	}
	return append(out, c.later(t)...)
}

// later is what becomes of a pod that is there when labels change: nothing.
func (c *client) later(t testing.TB) []decision {
	t.Helper()
	const ns = "inject-later"
	c.want(t, "POST", "/api/v1/namespaces", `{apiVersion: v1, kind: Namespace, metadata: {name: `+ns+`}}`)
	c.awaitAccount(t, ns)
	quiet := pod{"created before", ``, `schedulerName: nobody, ` + app}
	out := []decision{c.create(t, "later", ns, quiet, false)}
	c.want(t, "PATCH", "/api/v1/namespaces/"+ns, `{metadata: {labels: {istio-injection: enabled}}}`)
	after := c.want(t, "PATCH", "/api/v1/namespaces/"+ns+"/pods/app", `{metadata: {labels: {sidecar.istio.io/inject: "true"}}}`)
	out = append(out, see("later", "patched after its namespace", http.StatusOK, after))
	c.want(t, "DELETE", "/api/v1/namespaces/"+ns+"/pods/app", `{gracePeriodSeconds: 0}`)
	out = append(out, c.create(t, "later", ns, pod{"created after", ``, app}, true))
	c.want(t, "PATCH", "/api/v1/namespaces/"+ns, `{metadata: {labels: {istio-injection: null, istio.io/rev: stable}}}`)
	return append(out, c.create(t, "later", ns, pod{"created after a move", ``, app}, true))
}

func (c *client) create(t testing.TB, where, ns string, p pod, dry bool) decision {
	t.Helper()
	meta := "name: app, namespace: " + ns
	if strings.HasPrefix(p.metadata, "name:") {
		meta = "namespace: " + ns
	}
	if p.metadata != "" {
		meta += ", " + p.metadata
	}
	path := "/api/v1/namespaces/" + ns + "/pods"
	if dry {
		path += "?dryRun=All"
	}
	code, obj, err := c.send(t.Context(), "POST", path, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {%s}, spec: {%s}}`, meta, p.spec))
	if err != nil {
		t.Fatalf("%s: %s: %v", where, p.name, err)
	}
	return see(where, p.name, code, obj)
}

// tokenMount is where the ServiceAccount's token goes, which is not simulated.
var tokenMount = regexp.MustCompile(`"volumeMounts":\[\{"name":"kube-api-access-[^]]*\],`)

// see takes what is compared out of an answer.
func see(where, name string, code int, obj map[string]any) decision {
	d := decision{where: where, pod: name, Code: code}
	if code >= 300 {
		message, _ := obj["message"].(string)
		// Templates are listed in the order of a map.
		d.Message, _, _ = strings.Cut(message, "; have ")
		return d
	}
	meta, _ := obj["metadata"].(map[string]any)
	spec, _ := obj["spec"].(map[string]any)
	d.Labels, d.Notes = texts(meta["labels"]), texts(meta["annotations"])
	d.Revision = d.Notes["istio.io/rev"]
	if n, ok := d.Notes["proxy.istio.io/overrides"]; ok {
		d.Notes["proxy.istio.io/overrides"] = tokenMount.ReplaceAllString(n, "")
	}
	d.Init, d.Containers = containers(spec["initContainers"]), containers(spec["containers"])
	volumes, _ := spec["volumes"].([]any)
	for _, v := range volumes {
		m, _ := v.(map[string]any)
		n, _ := m["name"].(string)
		if !strings.HasPrefix(n, "kube-api-access-") { // of the ServiceAccount, which is not simulated
			d.Volumes = append(d.Volumes, n)
		}
	}
	return d
}

func texts(v any) map[string]string {
	m, _ := v.(map[string]any)
	out := map[string]string{}
	for k := range maps.Keys(m) {
		out[k], _ = m[k].(string)
	}
	return out
}

func containers(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, x := range list {
		m, _ := x.(map[string]any)
		s := fmt.Sprint(m["name"], " ", m["image"])
		if p := m["restartPolicy"]; p != nil {
			s += fmt.Sprint(" ", p)
		}
		out = append(out, s)
	}
	return out
}

// awaitAccount waits for what the controllers make in every namespace, without
// which a pod is refused.
func (c *client) awaitAccount(t testing.TB, ns string) {
	t.Helper()
	for range 600 {
		code, _, err := c.send(t.Context(), "GET", "/api/v1/namespaces/"+ns+"/serviceaccounts/default", "null")
		if err != nil {
			t.Fatal(err)
		}
		if code == http.StatusOK {
			return
		}
		if err := c.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("namespace %s has no default ServiceAccount", ns)
}
