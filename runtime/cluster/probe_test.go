package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
)

var gateway = cluster.Ref{Version: "v1", Kind: "Service", Namespace: "istio-system", Name: "gw"}

// probed is a client of a server that answers everything alike, and what the
// server was asked last.
func probed(t *testing.T, status int, contentType, body string) (*cluster.Client, *http.Request) {
	t.Helper()
	last := &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*last = *r
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	c, err := cluster.New(&rest.Config{Host: s.URL + "/k8s/c-1", BearerToken: "secret"}, "prod", env.SystemClock{}, cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c, last
}

func TestProbe(t *testing.T) {
	for _, status := range []int{200, 302, 404, 503} {
		c, last := probed(t, status, "text/plain", "hello")
		a, err := c.Probe(t.Context(), cluster.Probe{Ref: gateway, Port: 80, Path: "/health/?deep=1", Host: "shop.example.com"})
		if err != nil || a.Status != status || string(a.Body) != "hello" || a.Assumed {
			t.Errorf("%d: got %+v, %v", status, a, err)
		}
		if got := last.URL.String(); got != "/k8s/c-1/api/v1/namespaces/istio-system/services/gw:80/proxy/health/?deep=1" || last.Host != "shop.example.com" || last.Method != "GET" {
			t.Errorf("asked %s %s of host %s", last.Method, got, last.Host)
		}
	}
	c, last := probed(t, 200, "application/json", `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	if a, err := c.Probe(t.Context(), cluster.Probe{Ref: cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "a", Name: "b"}, Port: 15020, Path: "/"}); err != nil || a.Status != 200 {
		t.Errorf("got %+v, %v", a, err)
	}
	if last.URL.Path != "/k8s/c-1/api/v1/namespaces/a/pods/b:15020/proxy/" || strings.HasPrefix(last.Host, "shop") {
		t.Errorf("asked %s of host %s", last.URL, last.Host)
	}
}

// TestProbeThatNobodyAnswered: what the API server says itself is no answer.
func TestProbeThatNobodyAnswered(t *testing.T) {
	for code, want := range map[int]error{403: cluster.ErrDenied, 404: cluster.ErrNotFound, 503: cluster.ErrUnreachable, 500: cluster.ErrUnreachable} {
		c, _ := probed(t, code, "application/json", fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"so it is","code":%d,"details":{"kind":"services","name":"gw"}}`, code))
		_, err := c.Probe(t.Context(), cluster.Probe{Ref: gateway, Port: 80, Path: "/"})
		var re *cluster.RequestError
		if !errors.Is(err, want) || !errors.As(err, &re) || re.Code != code || re.Error() != "GET service/gw in istio-system port 80 /: "+want.Error()+": so it is" {
			t.Errorf("%d: got %v", code, err)
		}
	}
	c, _ := probed(t, 200, "text/plain", "")
	for _, p := range []cluster.Probe{
		{Ref: gateway, Port: 0, Path: "/"},
		{Ref: gateway, Port: 65536, Path: "/"},
		{Ref: gateway, Port: 80, Path: ""},
		{Ref: gateway, Port: 80, Path: "health"},
		{Ref: gateway, Port: 80, Path: "http://elsewhere/"},
		{Ref: gateway, Port: 80, Path: "/../../../secrets"},
		{Ref: gateway, Port: 80, Path: "/a/%2e%2e/%2e%2e/secrets"},
		{Ref: gateway, Port: 80, Path: "/a%2fb"},
		{Ref: gateway, Port: 80, Path: "/a/./b"},
		{Ref: gateway, Port: 80, Path: "//a"},
		{Ref: cluster.Ref{Version: "v1", Kind: "Service", Namespace: "a", Name: "../../secrets"}, Port: 80, Path: "/"},
		{Ref: cluster.Ref{Version: "v1", Kind: "Node", Name: "n"}, Port: 10250, Path: "/"},
		{Ref: cluster.Ref{Group: "serving.knative.dev", Version: "v1", Kind: "Service", Namespace: "a", Name: "b"}, Port: 80, Path: "/"},
	} {
		if _, err := c.Probe(t.Context(), p); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%s: got %v", p, err)
		}
	}
}
