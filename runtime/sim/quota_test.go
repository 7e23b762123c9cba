package sim_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// TestQuotas holds a real server's answers in a namespace with a quota.
func TestQuotas(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	quotas := d.Resource(schema.GroupVersionResource{Version: "v1", Resource: "resourcequotas"}).Namespace("shop")
	_, err := quotas.Create(ctx, obj("v1", "ResourceQuota", "shop", "q2", object{"spec": object{"hard": object{"bogus": "3", "pods": "-1"}}}), metav1.CreateOptions{})
	const bad = `ResourceQuota "q2" is invalid: [spec.hard[bogus]: Invalid value: "bogus": must be a standard resource type or fully qualified, spec.hard[bogus]: Invalid value: "bogus": must be a standard resource for quota, spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0]`
	if err == nil || err.Error() != bad {
		t.Errorf("%v", err)
	}
	must(t)(quotas.Create(ctx, obj("v1", "ResourceQuota", "shop", "q", object{"spec": object{"hard": object{
		"configmaps": "2", "count/secrets": "1", "pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "services.nodeports": "0",
	}}}), metav1.CreateOptions{}))
	post := func(kind, name string, rest object, query ...string) (int, string) {
		body := object{"metadata": object{"name": name}}
		for k, v := range rest {
			body[k] = v
		}
		code, got := ask(t, c.Config(), "POST", "/api/v1/namespaces/shop/"+kind+"?"+strings.Join(query, "&"), body)
		msg, _ := got["message"].(string)
		return code, msg
	}
	pod := func(resources object) object {
		return object{"spec": object{"containers": []any{object{"name": "c", "image": "x", "resources": resources}}}}
	}
	half := pod(object{"requests": object{"cpu": "600m"}, "limits": object{"memory": "100Mi"}})
	for _, x := range []struct {
		kind, name string
		rest       object
		code       int
		want       string
	}{
		{"configmaps", "a", nil, 201, ""},
		{"configmaps", "b", nil, 201, ""},
		{"configmaps", "c", nil, 403, `configmaps "c" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2`},
		{"secrets", "a", nil, 201, ""},
		{"secrets", "b", nil, 403, `secrets "b" is forbidden: exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1`},
		{"pods", "p", pod(object{}), 403, `pods "p" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c`},
		{"pods", "p1", half, 201, ""},
		{"pods", "p2", half, 403, `pods "p2" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1`},
		{"services", "s", object{"spec": object{"type": "NodePort", "ports": []any{object{"port": int64(80)}}}}, 403, `services "s" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0, limited: services.nodeports=0`},
	} {
		code, msg := post(x.kind, x.name, x.rest)
		if code != x.code || x.want != "" && msg != x.want {
			t.Errorf("%s %s: %d %s", x.kind, x.name, code, msg)
		}
	}
	if code, _ := post("configmaps", "d", nil, "dryRun=All"); code != 403 {
		t.Errorf("a dry run: %d", code)
	}
	q := must(t)(quotas.Get(ctx, "q", metav1.GetOptions{}))
	if at(q, "status", "used", "configmaps") != "2" || at(q, "status", "used", "requests.cpu") != "600m" || at(q, "status", "hard", "pods") != "2" {
		t.Errorf("status: %v", q.Object["status"])
	}
	if err := d.Resource(configMaps).Namespace("shop").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	q = must(t)(quotas.Get(ctx, "q", metav1.GetOptions{}))
	if at(q, "status", "used", "configmaps") != "1" {
		t.Errorf("after a deletion: %v", q.Object["status"])
	}
	if code, _ := post("configmaps", "c", nil); code != 201 {
		t.Errorf("there is room again: %d", code)
	}
	other := obj("v1", "ConfigMap", "default", "x", nil)
	must(t)(d.Resource(configMaps).Namespace("default").Create(ctx, other, metav1.CreateOptions{}))
}
