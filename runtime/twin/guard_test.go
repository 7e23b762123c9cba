package twin

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sent keeps what came through.
type sent struct{ r *http.Request }

func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.r = r
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func throughGuard(t testing.TB, prefix, method, target, body string, header http.Header) *http.Request {
	t.Helper()
	u, err := url.Parse("http://cluster.invalid" + target)
	if err != nil {
		return nil
	}
	r := &http.Request{Method: method, URL: u, Header: header, Body: io.NopCloser(strings.NewReader(body))}
	if header == nil {
		r.Header = http.Header{}
	}
	s := &sent{}
	g := newGuard(&url.URL{Path: prefix}, s)
	g.keeps("networking.istio.io")
	resp, err := g.RoundTrip(r)
	if (err == nil) != (s.r != nil) {
		t.Fatalf("%s %s: error %v, and sent %v", method, target, err, s.r != nil)
	}
	if resp != nil {
		_ = resp.Body.Close() // http.NoBody
	}
	return s.r
}

const web = "/apis/apps/v1/namespaces/shop/deployments/web"

func TestGuard(t *testing.T) {
	pod := "/api/v1/namespaces/shop/pods/web"
	for _, c := range []struct {
		method, target, body string
		out                  bool
	}{
		{"GET", web, "", true},
		{"GET", "/api/v1/pods?limit=500&continue=abc", "", true},
		{"GET", "/api/v1/pods?watch=true", "", true},
		{"HEAD", "/version", "", true},
		{"GET", "/openapi/v3/apis/apps/v1?hash=1", "", true},
		{"GET", "/apis", "", true},
		{"GET", pod + "/log?container=x", "", true},
		{"GET", web + "/scale", "", true},
		{"GET", pod + "/exec?command=rm", "", false},
		{"GET", pod + "/attach", "", false},
		{"GET", pod + "/portforward?ports=1", "", false},
		{"GET", pod + "/proxy/delete-all", "", false},
		{"GET", "/api/v1/namespaces/shop/services/web/proxy/quit", "", false},
		{"GET", "/api/v1/nodes/a/proxy/run", "", false},
		{"GET", "/api/v1/proxy/namespaces/shop/pods/web", "", false},
		{"GET", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/b/console", "", false},
		{"GET", web + "/../../../x", "", false},
		{"GET", "//api/v1/pods", "", false},
		{"GET", "/api/v1/namespaces/shop/pods/web%2Fexec", "", false},
		{"GET", "/debug/pprof", "", false},
		{"GET", "/sim/clock", "", false},
		{"OPTIONS", web, "", false},
		{"CONNECT", pod + "/proxy", "", false},
		{"TRACE", web, "", false},
		{"PATCH", web + "?dryRun=All", "{}", true},
		{"PUT", web + "?dryRun=All&fieldManager=rutter", "{}", true},
		{"POST", "/apis/apps/v1/namespaces/shop/deployments?dryRun=All", "{}", true},
		{"POST", "/apis/networking.istio.io/v1/namespaces/shop/gateways?dryRun=All", "{}", true},
		{"PATCH", web, "{}", false},
		{"PATCH", web + "?dryRun=", "{}", false},
		{"PATCH", web + "?dryRun=all", "{}", false},
		{"PATCH", web + "?dryrun=All", "{}", false},
		{"PATCH", web + "?dryRun=All&dryRun=All", "{}", false},
		{"PATCH", web + "?dryRun=All&dryRun=", "{}", false},
		{"PATCH", web + "?dryRun=None&dryRun=All", "{}", false},
		{"PATCH", web + "?x;dryRun=All", "{}", false},
		{"PATCH", web + "?%zz&dryRun=All", "{}", false},
		{"PATCH", web, `{"dryRun":["All"]}`, false},
		{"POST", "/apis/apps/v1/namespaces/shop/deployments", `{"dryRun":["All"]}`, false},
		{"POST", web + "?dryRun=All", "{}", false},
		{"POST", pod + "/eviction?dryRun=All", "{}", true},
		{"POST", pod + "/exec?dryRun=All", "", false},
		{"POST", pod + "/portforward?dryRun=All", "", false},
		{"POST", pod + "/binding?dryRun=All", "{}", false},
		{"POST", "/api/v1/namespaces/shop/bindings?dryRun=All", "{}", false},
		{"POST", pod + "/proxy/x?dryRun=All", "", false},
		{"PATCH", pod + "/ephemeralcontainers?dryRun=All", "{}", false},
		{"POST", "/api/v1/namespaces/shop/serviceaccounts/a/token?dryRun=All", "{}", false},
		{"PUT", "/api/v1/namespaces/shop/finalize?dryRun=All", "{}", false},
		{"PATCH", "/apis/apps/v1/namespaces/shop/deployments?dryRun=All", "{}", false},
		{"DELETE", "/apis/apps/v1/namespaces/shop/deployments?dryRun=All", "", false},
		{"DELETE", web + "?dryRun=All", "", true},
		{"DELETE", web + "?dryRun=All", `{"gracePeriodSeconds":0}`, true},
		{"DELETE", web + "?dryRun=All", `{"DryRun":["All"]}`, false},
		{"DELETE", web + "?dryRun=All", `{"dryRun":["All"],"dryRun":[]}`, false},
		{"DELETE", web + "?dryRun=All", "k8s\x00protobuf", false},
		{"DELETE", web, `{"dryRun":["All"]}`, false},
		{"POST", "/apis/metrics.example.com/v1/namespaces/shop/things?dryRun=All", "{}", false},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "{}", true},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "{}", true},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", "{}", false},
		{"POST", "/apis/example.com/v1/selfsubjectaccessreviews", "{}", false},
		{"PATCH", "/version?dryRun=All", "{}", false},
	} {
		got := throughGuard(t, "", c.method, c.target, c.body, nil)
		if (got != nil) != c.out {
			t.Errorf("%s %s %q: sent %v, want %v", c.method, c.target, c.body, got != nil, c.out)
		}
		if got != nil {
			harmlessOnAServer(t, got)
		}
	}
}

func TestGuardKeepsToItsServer(t *testing.T) {
	if throughGuard(t, "/k8s/clusters/c-1", "GET", "/k8s/clusters/c-1"+web, "", nil) == nil {
		t.Error("a read below the prefix was not sent")
	}
	if throughGuard(t, "/k8s/clusters/c-1", "GET", "/v3/users", "", nil) != nil {
		t.Error("a request beside the prefix was sent")
	}
	for _, h := range []http.Header{{"Upgrade": {"websocket"}}, {"Connection": {"keep-alive, Upgrade"}}, {"Sec-Websocket-Key": {"x"}}} {
		if throughGuard(t, "", "GET", "/api/v1/pods", "", h) != nil {
			t.Errorf("%v: a connection was opened", h)
		}
	}
	if r := throughGuard(t, "", "GET", "/api/v1/pods", "x", http.Header{"X-Http-Method-Override": {"DELETE"}}); r == nil || r.Header.Get("X-Http-Method-Override") != "" || r.Body != nil {
		t.Error("a GET left with a body, or with another method in its headers")
	}
}

// subresource is what follows an object's name in a path, as the API server's
// RequestInfo has it (k8s.io/apiserver pkg/endpoints/request/requestinfo.go).
func subresource(p string) string {
	s := strings.Split(strings.Trim(p, "/"), "/")
	switch {
	case s[0] == "api" && len(s) > 2:
		s = s[2:]
	case s[0] == "apis" && len(s) > 3:
		s = s[3:]
	default:
		return ""
	}
	if s[0] == "proxy" || s[0] == "watch" {
		return s[0]
	}
	if s[0] == "namespaces" && len(s) > 2 {
		if s[2] == "status" || s[2] == "finalize" {
			return s[2]
		}
		s = s[2:]
	}
	if len(s) > 2 {
		return s[2]
	}
	return ""
}

// harmlessOnAServer judges a request as an API server reads it: independently of
// how the guard does.
func harmlessOnAServer(t testing.TB, r *http.Request) {
	t.Helper()
	var raw []byte
	if r.Body != nil {
		var err error
		if raw, err = io.ReadAll(r.Body); err != nil {
			t.Fatal(err)
		}
	}
	// Over the wire, as net/http would write it.
	wire := httptest.NewRequest(r.Method, r.URL.RequestURI(), strings.NewReader(string(raw)))
	if sub := subresource(wire.URL.Path); slices.Contains([]string{"exec", "attach", "portforward", "proxy", "token", "binding", "ephemeralcontainers", "finalize", "console"}, sub) {
		t.Errorf("%s %s went out", r.Method, r.URL)
	}
	if strings.Contains(wire.URL.Path+"/", "/../") || wire.Method == http.MethodPost && strings.HasSuffix(wire.URL.Path, "/bindings") {
		t.Errorf("%s %s went out", r.Method, r.URL)
	}
	switch wire.Method {
	case http.MethodGet, http.MethodHead:
		if len(raw) > 0 {
			t.Errorf("%s %s has a body", wire.Method, r.URL)
		}
		return
	}
	if wire.Method == http.MethodPost && strings.HasPrefix(wire.URL.Path, "/apis/auth") && strings.HasSuffix(wire.URL.Path, "reviews") {
		return
	}
	dry := wire.URL.Query()["dryRun"]
	if wire.Method == http.MethodDelete && len(raw) > 0 {
		var o metav1.DeleteOptions
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Errorf("DELETE %s: body %q: %v", r.URL, raw, err)
		}
		dry = o.DryRun
	}
	if !slices.Equal(dry, []string{"All"}) {
		t.Errorf("%s %s %q would change something", wire.Method, r.URL, raw)
	}
}

func FuzzGuard(f *testing.F) {
	f.Add("PATCH", web, "dryRun=All", "{}")
	f.Add("DELETE", web, "dryRun=All&dryRun=", `{"dryRun":["All"]}`)
	f.Add("GET", "/api/v1/namespaces/a/pods/b/exec", "command=x", "")
	f.Add("POST", "/api/v1/namespaces/a/pods/b/eviction", "dryRun=All", "{}")
	f.Add("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", "{}")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		u := &url.URL{Scheme: "http", Host: "cluster.invalid", Path: path, RawQuery: query}
		s := &sent{}
		resp, err := newGuard(nil, s).RoundTrip(&http.Request{Method: method, URL: u, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))})
		if resp != nil {
			_ = resp.Body.Close() // http.NoBody
		}
		if err == nil {
			harmlessOnAServer(t, s.r)
		}
	})
}

// TestGuardRandomly puts requests together of what is likely to be mistaken.
func TestGuardRandomly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	passed := 0
	for range 200_000 {
		method := pick("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "CONNECT")
		path := pick("/api/v1", "/apis/apps/v1", "/apis/x.io/v1", "/apis/authorization.k8s.io/v1", "", "/openapi/v3", "/api", "/sim")
		for range rnd.IntN(3) {
			path += pick("/namespaces/a", "/pods/b", "/pods", "/deployments/b", "/services/s", "/selfsubjectaccessreviews", "/serviceaccounts/d", "/watch", "/bindings", "/.", "/", "/nodes/n")
		}
		path += pick("", "", "/exec", "/proxy", "/proxy/x", "/eviction", "/token", "/binding", "/scale", "/portforward", "/log", "/..", "/finalize")
		query := pick("", "dryRun=All", "dryRun=All", "dryRun=All", "dryRun=All&dryRun=All", "dryRun=None", "dryRun=All&dryRun=", "dryRun=All;x", "dryRun[]=All", "force=true&dryRun=All", "watch=1")
		body := pick("", "{}", `{"dryRun":["All"]}`, `{"dryRun":[]}`, `{"DRYRUN":["All"]}`, `{"dryRun":["All"],"dryRun":[]}`, "x")
		u := &url.URL{Scheme: "http", Host: "cluster.invalid", Path: path, RawQuery: query}
		s := &sent{}
		resp, err := newGuard(nil, s).RoundTrip(&http.Request{Method: method, URL: u, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))})
		if resp != nil {
			_ = resp.Body.Close() // http.NoBody
		}
		if err == nil {
			passed++
			harmlessOnAServer(t, s.r)
		}
	}
	if passed < 1000 {
		t.Errorf("only %d requests went out: the test tries nothing", passed)
	}
}
