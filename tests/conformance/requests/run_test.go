package requests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// target is a server that cases are sent to.
type target struct {
	name   string
	host   string
	client http.RoundTripper
	// pass lets a little time go by: real time on a real server, virtual time
	// on a simulated cluster.
	pass func(ctx context.Context) error
	// patience is how often pass is called before a wait has failed.
	patience int
	// simulated is the one that may differ: a wait in vain is an answer there.
	simulated bool
	// compact drops the history before the present resourceVersion.
	compact func(ctx context.Context) error
}

// runner sends the requests of one case to one target.
type runner struct {
	t       testing.TB
	ctx     context.Context
	target  target
	ns      string
	names   *names
	kept    map[string]string
	watches map[string]*watching
	answers []answer
	sent    int

	met     *http.Response // what the last await ended with
	metData []byte
}

// play runs a case and returns its transcript. The case's namespace is made
// first; it stays.
func play(t testing.TB, tg target, s scenario) ([]answer, int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &runner{
		t: t, ctx: ctx, target: tg, ns: s.namespace(), names: newNames(),
		kept: map[string]string{}, watches: map[string]*watching{},
	}
	if err := r.open(); err != nil {
		t.Fatalf("%s: namespace %s: %v", tg.name, r.ns, err)
	}
	for i, st := range s.steps {
		st.do(r)
		if t.Failed() {
			t.Logf("%s: at step %d", tg.name, i+1)
			break
		}
	}
	for _, w := range r.watches {
		w.body.Close() //nolint:errcheck // the case is over
	}
	return r.answers, r.sent
}

// open makes the case's namespace and waits for what controllers put there.
func (r *runner) open() error {
	body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, r.ns)
	if _, _, err := r.expect("POST", "/api/v1/namespaces", body, http.StatusCreated); err != nil {
		return err
	}
	for _, p := range []string{"serviceaccounts/default", "configmaps/kube-root-ca.crt"} {
		if err := r.await("/api/v1/namespaces/"+r.ns+"/"+p, func(code int, _ map[string]any) bool { return code == http.StatusOK }); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) expect(method, path string, body []byte, code int) (*http.Response, []byte, error) {
	resp, data, err := r.send(method, path, body, map[string]string{"Content-Type": "application/json"})
	if err == nil && resp.StatusCode != code {
		err = fmt.Errorf("%s %s: %d, expected %d: %s", method, path, resp.StatusCode, code, data)
	}
	return resp, data, err
}

// await asks for a path until ok, letting time pass in between.
func (r *runner) await(path string, ok func(code int, obj map[string]any) bool) error {
	var last string
	for range r.target.patience {
		resp, data, err := r.send("GET", path, nil, nil)
		if err != nil {
			return err
		}
		obj, err := decode(data)
		if err != nil {
			return err
		}
		if ok(resp.StatusCode, obj) {
			r.met, r.metData = resp, data
			return nil
		}
		last = fmt.Sprintf("%d %s", resp.StatusCode, data)
		if err := r.target.pass(r.ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: waited in vain; it is %s", path, last)
}

// send makes one request and reads the whole answer.
func (r *runner) send(method, path string, body []byte, header map[string]string) (*http.Response, []byte, error) {
	resp, err := r.begin(r.ctx, method, path, body, header)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	data, err := io.ReadAll(resp.Body)
	return resp, data, err
}

func (r *runner) begin(ctx context.Context, method, path string, body []byte, header map[string]string) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, method, r.target.host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Accept", "application/json")
	q.Header.Set("User-Agent", "conformance/1")
	for k, v := range header {
		q.Header.Set(k, v)
	}
	return r.target.client.RoundTrip(q)
}

var (
	reference = regexp.MustCompile(`\$(uid|rv|continue|name)\(([^)]+)\)`)
	versioned = regexp.MustCompile(`\$older\(([^)]+)\)`)
)

// fill puts kept values into a path or body.
func (r *runner) fill(s string) string {
	s = strings.ReplaceAll(s, "$ns", r.ns)
	s = versioned.ReplaceAllStringFunc(s, func(m string) string {
		return older(r.kept["rv "+versioned.FindStringSubmatch(m)[1]])
	})
	return reference.ReplaceAllStringFunc(s, func(m string) string {
		g := reference.FindStringSubmatch(m)
		v, ok := r.kept[g[1]+" "+g[2]]
		if !ok {
			r.t.Errorf("%s: nothing was kept as %s", s, m)
		}
		return v
	})
}

// expand makes a URL path of a step's abbreviation.
func (r *runner) expand(path string) (url string, k kind) {
	base, query, has := strings.Cut(path, "?")
	if !strings.HasPrefix(base, "/") {
		plural, rest, _ := strings.Cut(base, "/")
		var ok bool
		if k, ok = servedKind(plural); !ok {
			r.t.Fatalf("%s: unknown resource", path)
		}
		base = k.root()
		if rest != "" {
			base += "/" + rest
		}
	}
	if has {
		base += "?" + query
	}
	return r.fill(base), k
}

// do sends the request, and again until its conditions hold; it records the
// last answer.
func (q *request) do(r *runner) {
	r.t.Helper()
	url, k := r.expand(q.path)
	body := []byte(r.fill(q.body))
	if q.body != "" && !q.raw {
		body = r.encode(q, k, body)
	}
	header := map[string]string{}
	if q.body != "" {
		header["Content-Type"] = "application/json"
	}
	for h, v := range q.header {
		header[h] = v
	}
	if q.poll != nil || q.gone {
		if err := r.await(url, q.met); err != nil {
			if r.target.simulated { // it differs from the real server, and the case goes on
				r.answers = append(r.answers, answer{title: q.title(), lines: []line{{"http", "waited in vain"}}})
				return
			}
			r.t.Errorf("%s: %v", r.target.name, err)
			return
		}
		r.sent++ // a second look might see the next state
		r.record(q, k, r.met, r.metData)
		return
	}
	resp, data, err := r.send(q.method, url, body, header)
	if err != nil {
		r.t.Errorf("%s: %s %s: %v", r.target.name, q.method, url, err)
		return
	}
	r.sent++
	r.record(q, k, resp, data)
}

func (q *request) met(code int, obj map[string]any) bool {
	if q.gone {
		return code == http.StatusNotFound
	}
	if code != http.StatusOK {
		return false
	}
	for _, c := range q.poll {
		if !holds(obj, c) {
			return false
		}
	}
	return true
}

// encode makes JSON of a body's YAML. An object that does not say its kind
// gets that of the path.
func (r *runner) encode(q *request, k kind, body []byte) []byte {
	j, err := yaml.YAMLToJSON(body)
	if err != nil {
		r.t.Fatalf("%s: body: %v", q.path, err)
	}
	var m map[string]any
	whole := q.method != "PATCH" && q.method != "DELETE" || strings.HasPrefix(q.header["Content-Type"], "application/apply-patch")
	if !whole || json.Unmarshal(j, &m) != nil {
		return j
	}
	if m["kind"] == nil && !strings.Contains(strings.TrimPrefix(q.path, k.plural+"/"), "/") {
		m["kind"], m["apiVersion"] = k.kind, k.apiVersion
	}
	if j, err = json.Marshal(m); err != nil {
		r.t.Fatalf("%s: body: %v", q.path, err)
	}
	return j
}

func (q *request) title() string { return q.method + " " + q.path }

// record normalizes an answer and keeps it.
func (r *runner) record(q *request, k kind, resp *http.Response, data []byte) {
	a := answer{title: q.title()}
	a.add("http", fmt.Sprint(resp.StatusCode))
	for _, w := range resp.Header.Values("Warning") {
		a.add("warning", r.names.text(w))
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
		a.add("content-type", ct)
	}
	if ra := resp.Header.Get("Retry-After"); ra != "" {
		a.add("retry-after", ra)
	}
	obj, err := decode(data)
	switch {
	case err != nil:
		a.add("text", r.names.text(string(data)))
	default:
		r.keep(q, k, obj)
		r.names.object(&a, obj, q.only)
	}
	r.answers = append(r.answers, a)
}

// keep notes what later steps may refer to: under PLURAL/NAME, and under the
// name that the step gave it.
func (r *runner) keep(q *request, k kind, obj map[string]any) {
	meta, _ := obj["metadata"].(map[string]any)
	if meta == nil {
		return
	}
	names := []string{}
	if n, _ := meta["name"].(string); n != "" && k.plural != "" {
		names = append(names, k.plural+"/"+n)
	}
	if q.keep != "" {
		names = append(names, q.keep)
	}
	for _, n := range names {
		for field, as := range map[string]string{"uid": "uid", "resourceVersion": "rv", "continue": "continue"} {
			if v, _ := meta[field].(string); v != "" {
				r.kept[as+" "+n] = v
			}
		}
		if n, _ := meta["name"].(string); n != "" && q.keep != "" {
			r.kept["name "+q.keep] = n
		}
	}
}

// decode reads a JSON object with its numbers as they are written.
func decode(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	return m, nil
}
