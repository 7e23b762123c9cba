package sim_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"rutter.dev/rutter/runtime/sim"
)

func names(l *unstructured.UnstructuredList) string {
	var out []string
	for _, o := range l.Items {
		out = append(out, o.GetName())
	}
	return strings.Join(out, " ")
}

// TestPagesShowOneState changes what a list holds between its pages.
func TestPagesShowOneState(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	for i := range 5 {
		must(t)(cm.Create(ctx, configMap(fmt.Sprint("c", i), nil), metav1.CreateOptions{}))
	}
	list := func(o metav1.ListOptions) *unstructured.UnstructuredList {
		t.Helper()
		l, err := cm.List(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := list(metav1.ListOptions{Limit: 2})
	if names(first) != "c0 c1" || *first.GetRemainingItemCount() != 3 {
		t.Errorf("first page: %s, %d remain", names(first), *first.GetRemainingItemCount())
	}
	if err := cm.Delete(ctx, "c3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(t)(cm.Create(ctx, configMap("c2a", nil), metav1.CreateOptions{}))
	second := list(metav1.ListOptions{Limit: 2, Continue: first.GetContinue()})
	if names(second) != "c2 c3" || second.GetResourceVersion() != first.GetResourceVersion() || *second.GetRemainingItemCount() != 1 {
		t.Errorf("second page: %s at %s", names(second), second.GetResourceVersion())
	}
	if got := names(list(metav1.ListOptions{ResourceVersion: first.GetResourceVersion(), ResourceVersionMatch: metav1.ResourceVersionMatchExact})); got != "c0 c1 c2 c3 c4" {
		t.Errorf("exactly at the old version: %s", got)
	}
	if got := names(list(metav1.ListOptions{ResourceVersion: first.GetResourceVersion()})); got != "c0 c1 c2 c2a c4" {
		t.Errorf("not older than the old version: %s", got)
	}
	if got := names(list(metav1.ListOptions{ResourceVersion: "0", Limit: 1})); got != "c0 c1 c2 c2a c4" {
		t.Errorf("at any version, with a limit: %s", got)
	}
	c.Compact()
	_, err := cm.List(ctx, metav1.ListOptions{Limit: 2, Continue: second.GetContinue()})
	var st apierrors.APIStatus
	if !apierrors.IsResourceExpired(err) || !asStatus(err, &st) || st.Status().ListMeta.Continue == "" {
		t.Fatalf("after compaction: %v", err)
	}
	rest := list(metav1.ListOptions{Limit: 2, Continue: st.Status().ListMeta.Continue})
	if names(rest) != "c4" {
		t.Errorf("inconsistent rest: %s", names(rest))
	}
	all, err := d.Resource(configMaps).List(ctx, metav1.ListOptions{Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	more, err := d.Resource(configMaps).List(ctx, metav1.ListOptions{Continue: all.GetContinue()})
	if err != nil || len(all.Items)+len(more.Items) != 5 {
		t.Errorf("of all namespaces: %s, %s, %v", names(all), names(more), err)
	}
}

func asStatus(err error, into *apierrors.APIStatus) bool {
	st, ok := err.(apierrors.APIStatus) //nolint:errorlint // client-go's own
	*into = st
	return ok
}

// TestListOptions holds the answers of a real server to parameters that it
// refuses.
func TestListOptions(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	for _, x := range []struct {
		query string
		code  int
		want  string
	}{
		{"continue=xxx", 400, "invalid continue token: continue key is not valid: invalid character '\u00c7' looking for beginning of value"},
		{"resourceVersion=0&resourceVersionMatch=Exact", 422, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"`},
		{"resourceVersionMatch=Exact", 422, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
		{"resourceVersion=1&resourceVersionMatch=foo", 422, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "foo": supported values: "Exact", "NotOlderThan", ""`},
		{"resourceVersion=abc", 400, `invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`},
		{"limit=abc", 400, `strconv.ParseInt: parsing "abc": invalid syntax`},
		{"labelSelector=a%20b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"},
		{"fieldSelector=foo=bar", 400, `"foo" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"sendInitialEvents=true", 422, `ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list`},
		{"watch=1&sendInitialEvents=true", 422, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan`},
		{"watch=1&resourceVersionMatch=NotOlderThan", 422, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided`},
		{"watch=1&resourceVersion=abc", 500, `resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`},
	} {
		code, got := ask(t, c.Config(), "GET", "/api/v1/namespaces/shop/configmaps?"+x.query, nil)
		if code != x.code || got["message"] != x.want {
			t.Errorf("%s: %d %v", x.query, code, got["message"])
		}
	}
	code, got := ask(t, c.Config(), "GET", "/api/v1/namespaces/shop/configmaps?resourceVersion=99999999", nil)
	if code != 504 || !strings.HasPrefix(got["message"].(string), "Timeout: Too large resource version: 99999999, current: ") {
		t.Errorf("%d %v", code, got)
	}
}

func TestFieldSelectorsOfKinds(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	for _, x := range []struct{ path, field, want string }{
		{"/api/v1/pods", "foo", "field label not supported: foo"},
		{"/api/v1/pods", "spec.nodeName", ""},
		{"/api/v1/services", "spec.clusterIP", ""},
		{"/api/v1/nodes", "metadata.namespace", "field label not supported: metadata.namespace"},
		{"/apis/batch/v1/jobs", "foo", `field label "foo" not supported for Job`},
		{"/apis/batch/v1/jobs", "status.successful", ""},
		{"/apis/apps/v1/replicasets", "status.replicas", `"status.replicas" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"/apis/events.k8s.io/v1/events", "regarding.kind", ""},
	} {
		code, got := ask(t, c.Config(), "GET", x.path+"?fieldSelector="+x.field+"%3Dx", nil)
		if x.want == "" && code != 200 || x.want != "" && (code != 400 || got["message"] != x.want) {
			t.Errorf("%s %s: %d %v", x.path, x.field, code, got["message"])
		}
	}
}

func TestBookmarks(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	must(t)(cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	w, err := cm.Watch(ctx, metav1.ListOptions{AllowWatchBookmarks: true, SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Errorf("%+v", e)
	}
	e := <-w.ResultChan()
	if o := e.Object.(*unstructured.Unstructured); e.Type != watch.Bookmark || o.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("%+v", e)
	}
	other := must(t)(d.Resource(namespaces).Create(ctx, obj("v1", "Namespace", "", "other", nil), metav1.CreateOptions{}))
	c.Advance(time.Minute)
	e = <-w.ResultChan()
	was, err := strconv.Atoi(other.GetResourceVersion())
	if err != nil {
		t.Fatal(err)
	}
	if now, err := strconv.Atoi(e.Object.(*unstructured.Unstructured).GetResourceVersion()); e.Type != watch.Bookmark || err != nil || now < was {
		t.Errorf("after a minute: %+v, %v", e, err)
	}
}
