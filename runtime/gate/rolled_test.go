package gate

import (
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/effect"
)

// What rolls with a control plane or a tag is judged before the first write.
func TestRolledAlong(t *testing.T) {
	const (
		recreate = `{"type":"Recreate"}`
		surging  = `{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`
	)
	gateway := func(name, rev string) string {
		return `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"` + name + `","namespace":"shop","labels":{` + rev + `}},"spec":{"gatewayClassName":"istio"}}`
	}
	kept := func(name string, replicas int, strategy string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"%s-istio","namespace":"shop","labels":{"gateway.istio.io/managed":"istio.io-gateway-controller","gateway.networking.k8s.io/gateway-name":%q}},
		"spec":{"replicas":%d,"strategy":%s,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}}}}}`, name, name, replicas, strategy)
	}
	shop := namespace("shop", "")
	tag := func(rev string) string {
		return injector("istio-revision-tag-prod", rev, "prod", "Fail", "istiod-"+rev, `"istio.io/rev":"prod"`)
	}
	old, next := istiod("docker.io/istio/pilot:1.30.3", ""), istiod("docker.io/istio/pilot:1.31.0", "")
	const prod = `"istio.io/rev":"prod"`
	for name, c := range map[string]struct {
		before, after string
		class         effect.Class
		there         []string
		policy        Policy
		live, back    bool
		want          Verdict
		says          string
	}{
		"a control plane, no gateways":          {old, next, effect.ControlPlane, nil, Policy{}, false, false, Pass, ""},
		"a gateway that surges":                 {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 1, surging)}, Policy{}, false, false, Pass, ""},
		"a gateway that goes down":              {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 2, recreate)}, Policy{}, false, false, Ask, "takes all of its 2 replicas down"},
		"with leave":                            {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 2, recreate)}, Policy{Leave: []string{"shop/*"}}, false, false, Pass, ""},
		"beyond its budget":                     {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 3, `{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}`), budget(3, 3, 3)}, Policy{}, false, false, Block, "bears 0"},
		"more than the policy lets":             {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 1, surging), gateway("b", ""), kept("b", 1, surging)}, Policy{MaxWave: 1}, false, false, Block, "2 gateways of the Gateway API roll at once"},
		"as many as the policy lets":            {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 1, surging), gateway("b", ""), kept("b", 1, surging)}, Policy{MaxWave: 2}, false, false, Pass, ""},
		"of another revision":                   {old, next, effect.ControlPlane, []string{gateway("a", prod), kept("a", 1, recreate)}, Policy{}, false, false, Pass, ""},
		"by a tag of the revision":              {old, next, effect.ControlPlane, []string{gateway("a", prod), kept("a", 1, recreate), tag("default")}, Policy{}, false, false, Ask, "takes all"},
		"the same version":                      {old, old, effect.ControlPlane, []string{gateway("a", ""), kept("a", 1, recreate)}, Policy{}, false, false, Pass, ""},
		"a control plane beside it":             {"", next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 1, recreate)}, Policy{}, false, false, Pass, ""},
		"said before the first write":           {old, next, effect.ControlPlane, []string{gateway("a", ""), kept("a", 1, recreate)}, Policy{}, true, false, Pass, ""},
		"a tag that moves":                      {tag("a"), tag("b"), effect.Tag, []string{gateway("a", prod), kept("a", 1, recreate)}, Policy{}, false, false, Ask, "takes all"},
		"a tag that stays":                      {tag("a"), tag("a"), effect.Tag, []string{gateway("a", prod), kept("a", 1, recreate)}, Policy{}, false, false, Pass, ""},
		"a tag that goes":                       {tag("a"), "", effect.Tag, []string{gateway("a", prod), kept("a", 1, recreate)}, Policy{}, false, false, Pass, ""},
		"a tag that is rolled back, as it must": {tag("b"), tag("a"), effect.Tag, []string{gateway("a", prod), kept("a", 1, recreate)}, Policy{MaxWave: 1}, false, true, Warn, "takes all"},
		"a workload that is not there yet":      {old, next, effect.ControlPlane, []string{gateway("a", "")}, Policy{}, false, false, Pass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := applied(t, c.before, c.after)
			e.Class = c.class
			run := &Run{Forecast: !c.live, Rollback: c.back, Policy: &c.policy, Seen: &Seen{}, To: "1.31.0"}
			got := judge(t, disruption, &fake{objects: objects(t, append(c.there, shop)...)}, run, e, c.want)
			if !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
		})
	}
}
