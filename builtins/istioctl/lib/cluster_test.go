package lib

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"istio.io/istio/pkg/config/schema/collections"
)

// stub answers as a small read-only API server, in memory: lists, gets,
// watches that never say anything, the version and access reviews. It is an
// http.RoundTripper, as the simulated cluster's transport is.
type stub struct {
	version string
	objects []*unstructured.Unstructured
	denied  string         // resource whose creation access reviews deny
	status  map[string]int // path suffix → status to answer with
	mu      sync.Mutex
	seen    []string
	open    int // watches
}

func (s *stub) config() *rest.Config {
	return &rest.Config{Host: "http://cluster.invalid", Transport: s}
}

func (s *stub) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.seen = append(s.seen, req.Method+" "+req.URL.Path)
	s.mu.Unlock()
	for suffix, code := range s.status {
		if strings.HasSuffix(req.URL.Path, suffix) {
			return answerOf(req, code, failure(code)), nil
		}
	}
	switch {
	case req.URL.Path == "/version":
		return answerOf(req, 200, map[string]any{"major": "1", "minor": "34", "gitVersion": s.version}), nil
	case strings.HasSuffix(req.URL.Path, "/selfsubjectaccessreviews"):
		return s.review(req)
	case req.URL.Query().Get("sendInitialEvents") == "true":
		return answerOf(req, 422, failure(422)), nil
	case req.URL.Query().Get("watch") != "":
		return s.watch(req), nil
	}
	return s.read(req), nil
}

func failure(code int) map[string]any {
	reason := map[int]string{403: "Forbidden", 404: "NotFound", 422: "Invalid"}[code]
	return map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason + " by the stub"}
}

func answerOf(req *http.Request, code int, body any) *http.Response {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(b)), Request: req,
	}
}

func (s *stub) review(req *http.Request) (*http.Response, error) {
	var r map[string]any
	if err := json.NewDecoder(req.Body).Decode(&r); err != nil {
		return nil, err
	}
	res, _, _ := unstructured.NestedString(r, "spec", "resourceAttributes", "resource")
	r["status"] = map[string]any{"allowed": res != s.denied}
	return answerOf(req, 201, r), nil
}

// silence is a watch's body: it ends with the request.
type silence struct {
	ctx context.Context
	end func()
}

func (b silence) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, b.ctx.Err() }
func (b silence) Close() error             { b.end(); return nil }

func (s *stub) watch(req *http.Request) *http.Response {
	s.mu.Lock()
	s.open++
	s.mu.Unlock()
	var once sync.Once
	resp := answerOf(req, 200, nil)
	resp.Body = silence{req.Context(), func() {
		once.Do(func() { s.mu.Lock(); s.open--; s.mu.Unlock() })
	}}
	return resp
}

func (s *stub) read(req *http.Request) *http.Response {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	group, parts := "", parts[1:] // api or apis
	if strings.HasPrefix(req.URL.Path, "/apis/") {
		group, parts = parts[0], parts[1:]
	}
	version, parts := parts[0], parts[1:]
	ns := ""
	if len(parts) > 2 && parts[0] == "namespaces" {
		ns, parts = parts[1], parts[2:]
	}
	items := []any{}
	for _, o := range s.objects {
		gvr, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		if gvr.Group != group || gvr.Version != version || gvr.Resource != parts[0] || (ns != "" && o.GetNamespace() != ns) {
			continue
		}
		if len(parts) > 1 && o.GetName() == parts[1] {
			return answerOf(req, 200, o.Object)
		}
		items = append(items, o.Object)
	}
	if len(parts) > 1 {
		return answerOf(req, 404, failure(404))
	}
	list := map[string]any{"kind": kindOf(group, parts[0]) + "List", "apiVersion": strings.Trim(group+"/"+version, "/"), "metadata": map[string]any{"resourceVersion": "1"}, "items": items}
	if strings.Contains(req.Header.Get("Accept"), "as=PartialObjectMetadataList") {
		list["kind"], list["apiVersion"] = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	return answerOf(req, 200, list)
}

func kindOf(group, plural string) string {
	if plural == "customresourcedefinitions" {
		return "CustomResourceDefinition"
	}
	for _, s := range collections.All.All() {
		if s.Group() == group && s.Plural() == plural {
			return s.Kind()
		}
	}
	return ""
}

const meshYAML = `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {networking.istio.io/exportTo: "~", alpha.istio.io/canonical-serviceaccounts: x}}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}, annotations: {alpha.istio.io/identity: x}}
spec: {containers: [{name: web, image: nginx}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io}
spec: {group: networking.istio.io, names: {kind: VirtualService, plural: virtualservices}, scope: Namespaced, versions: [{name: v1, served: true, storage: true}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], gateways: [nosuch], http: [{route: [{destination: {host: nosuch}}]}]}
`

// guardHome fails the test when anything is written below the home directory.
func guardHome(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Cleanup(func() {
		entries, err := os.ReadDir(home)
		if err != nil || len(entries) > 0 {
			t.Errorf("home directory was written to: %v, %v", entries, err)
		}
	})
}

func newStub(t testing.TB) *stub {
	t.Helper()
	return &stub{version: "v1.34.0", objects: parseObjects(t, []byte(meshYAML))}
}

func TestPrecheckClean(t *testing.T) {
	guardHome(t)
	s := newStub(t)
	s.objects = s.objects[:2]
	before := *s.config()
	rc := s.config()
	ms, err := Precheck(context.Background(), rc, PrecheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(ms) != 0 {
		t.Errorf("findings %v", ms)
	}
	if rc.QPS != before.QPS || rc.WrapTransport != nil || rc.UserAgent != "" {
		t.Error("the caller's rest.Config was changed")
	}
	if len(s.seen) == 0 {
		t.Error("the config's transport was not used")
	}
}

func TestPrecheckFindings(t *testing.T) {
	guardHome(t)
	s := newStub(t)
	s.version = "v1.29.3"
	s.denied = "clusterroles"
	ms, err := Precheck(context.Background(), s.config(), PrecheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var old, denied, alpha Message
	for _, m := range ms {
		switch {
		case strings.Contains(m.Text, "v1.29.3"):
			old = m
		case strings.Contains(m.Text, "clusterroles"):
			denied = m
		case strings.Contains(m.Resource, "web"):
			alpha = m
		}
	}
	if !strings.Contains(old.Text, K8sSupport()) || old.Resource != "Cluster" || old.Level == "" || old.URL == "" {
		t.Errorf("old Kubernetes: %+v in %v", old, ms)
	}
	if denied.Level != LevelError {
		t.Errorf("denied permission: %+v in %v", denied, ms)
	}
	if alpha.Code == "" {
		t.Errorf("no finding on the alpha annotation: %v", ms)
	}
}

func TestPrecheckUnreachable(t *testing.T) {
	s := newStub(t)
	s.status = map[string]int{"/version": 500}
	if _, err := Precheck(context.Background(), s.config(), PrecheckOptions{}); err == nil || !strings.Contains(err.Error(), "precheck: ") {
		t.Errorf("server error: %v", err)
	}
	s = newStub(t)
	s.status = map[string]int{"/pods": 403}
	_, err := Precheck(context.Background(), s.config(), PrecheckOptions{})
	if err == nil || !strings.Contains(err.Error(), "GET /api/v1/pods") {
		t.Errorf("denied list: %v", err)
	}
	s = newStub(t)
	s.status = map[string]int{"/pods": 500}
	_, err = Precheck(context.Background(), s.config(), PrecheckOptions{Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "nothing was heard for 300ms") || !strings.Contains(err.Error(), "/api/v1/pods") {
		t.Errorf("failing list: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Precheck(ctx, newStub(t).config(), PrecheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAnalyzeLive(t *testing.T) {
	guardHome(t)
	s := newStub(t)
	ms, err := Analyze(context.Background(), s.config(), AnalyzeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range ms {
		if m.Code == "IST0101" && m.Resource == "VirtualService shop/web" && m.Level == LevelError {
			found = append(found, m.Text)
		}
	}
	if len(found) != 2 {
		t.Errorf("the virtual service's two dangling references are not found: %v", ms)
	}
	none, err := Analyze(context.Background(), s.config(), AnalyzeOptions{Namespace: "istio-system"})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range none {
		if strings.Contains(m.Resource, "shop") {
			t.Errorf("finding of another namespace: %v", m)
		}
	}
	// A file that would add the missing service takes its finding away.
	with, err := Analyze(context.Background(), s.config(), AnalyzeOptions{Files: []File{{Name: "svc.yaml", Content: []byte(
		"apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: nosuch, namespace: shop}\nspec: {selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range with {
		if m.Code == "IST0101" && strings.Contains(m.Text, "gateway") && m.Resource == "VirtualService shop/web" {
			t.Errorf("the file's gateway was not seen: %v", m)
		}
	}
	if _, err := Analyze(context.Background(), s.config(), AnalyzeOptions{Namespace: "nosuch"}); err == nil || !strings.Contains(err.Error(), "namespace nosuch: not found") {
		t.Errorf("unknown namespace: %v", err)
	}
	s.status = map[string]int{"/services": 403}
	if _, err := Analyze(context.Background(), s.config(), AnalyzeOptions{}); err == nil || !strings.Contains(err.Error(), "/services") {
		t.Errorf("denied list: %v", err)
	}
}

func TestAnalyzeFiles(t *testing.T) {
	guardHome(t)
	vs := "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], gateways: [nosuch], http: [{route: [{destination: {host: web}}]}]}\n"
	ms, err := Analyze(context.Background(), nil, AnalyzeOptions{Files: []File{{Name: "vs.yaml", Content: []byte(vs)}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(ms) == 0 || !strings.HasPrefix(ms[0].Reference, "vs.yaml") {
		t.Errorf("findings %v", ms)
	}
	for name, opts := range map[string]AnalyzeOptions{
		"neither a cluster": {},
		"nosuch.yaml":       {Files: []File{{Name: "nosuch.yaml"}}},
		"bad.yaml":          {Files: []File{{Name: "bad.yaml", Content: []byte("a: [")}}},
	} {
		if _, err := Analyze(context.Background(), nil, opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSessionsEnd: no watch outlives the call that opened it.
func TestSessionsEnd(t *testing.T) {
	s := newStub(t)
	before := runtime.NumGoroutine()
	for range 3 {
		if _, err := Analyze(context.Background(), s.config(), AnalyzeOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := Precheck(context.Background(), s.config(), PrecheckOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		s.mu.Lock()
		open := s.open
		s.mu.Unlock()
		if open == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d watches are open after the calls", open)
		}
		runtime.Gosched()
	}
	t.Logf("goroutines: %d before, %d after six calls", before, runtime.NumGoroutine())
}
