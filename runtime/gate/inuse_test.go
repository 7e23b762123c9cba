package gate

import (
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

func sidecar(ns, name, rev, labels string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","namespace":"` + ns + `","labels":{` + labels + `},"annotations":{"istio.io/rev":"` + rev + `"},
	"ownerReferences":[{"apiVersion":"apps/v1","kind":"StatefulSet","name":"db","controller":true}]},
	"spec":{"containers":[{"name":"istio-proxy","image":"proxyv2:1.30.3","args":["proxy","sidecar"]}]}}`
}

func workload(kind, ns, name, labels string) string {
	return `{"apiVersion":"apps/v1","kind":"` + kind + `","metadata":{"name":"` + name + `","namespace":"` + ns + `"},"spec":{"template":{"metadata":{"labels":{` + labels + `}}}}}`
}

func revised(js, rev string) string {
	return strings.Replace(js, `"labels":{"app":"istiod"}`, `"labels":{"app":"istiod","istio.io/rev":"`+rev+`"}`, 1)
}

func TestInUse(t *testing.T) {
	planeA := revised(plane("istiod-a", 1, labelsA), "a")
	planeB := revised(plane("istiod-b", 1, labelsB), "b")
	hookA := injector("inject-a", "a", "", "Fail", "istiod-a", `"istio.io/rev":"a"`)
	tagA := injector("tag-prod", "a", "prod", "Fail", "istiod-a", `"istio.io/rev":"prod"`)
	tagB := injector("tag-prod", "b", "prod", "Fail", "istiod-b", `"istio.io/rev":"prod"`)
	byPod := strings.Replace(injector("inject-pods", "a", "", "Fail", "istiod-a", ""), `"namespaceSelector":{"matchLabels":{}}`, `"objectSelector":{"matchLabels":{"istio.io/rev":"a"}}`, 1)
	nsA, nsProd, nsNone := namespace("shop", `"istio.io/rev":"a"`), namespace("bank", `"istio.io/rev":"prod"`), namespace("idle", "")
	db := workload("StatefulSet", "shop", "db", "")
	gateway := `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"waypoint","namespace":"idle","labels":{"istio.io/rev":"prod"}}}`
	keptWaypoint := workload("StatefulSet", "idle", "db", "")
	proxyOfWaypoint := sidecar("idle", "db-0", "a", `"gateway.networking.k8s.io/gateway-name":"waypoint"`)
	waypointPod := sidecar("idle", "waypoint-0", "a", `"gateway.networking.k8s.io/gateway-name":"waypoint"`)
	gone := func(js string) *effect.Effect { return applied(t, js, "") }
	for name, c := range map[string]struct {
		e       *effect.Effect
		there   []string
		earlier []*effect.Effect
		want    Verdict
		says    string
	}{
		"webhook, namespace uses it":              {gone(hookA), []string{hookA, nsA, nsNone}, nil, Block, "1 namespaces are injected by it: namespace/shop"},
		"webhook, nobody uses it":                 {gone(hookA), []string{hookA, nsProd, nsNone}, nil, Pass, ""},
		"webhook, another one injects them":       {gone(hookA), []string{hookA, injector("other", "b", "", "Fail", "istiod-b", `"istio.io/rev":"a"`), nsA}, nil, Pass, ""},
		"webhook, namespace is relabelled before": {gone(hookA), []string{hookA, tagB, nsA}, []*effect.Effect{applied(t, nsA, namespace("shop", `"istio.io/rev":"prod"`))}, Pass, ""},
		"webhook selects less":                    {applied(t, hookA, injector("inject-a", "a", "", "Fail", "istiod-a", `"istio.io/deactivated":"x"`)), []string{hookA, nsA}, nil, Block, "would select less"},
		"webhook changes otherwise":               {applied(t, hookA, strings.Replace(hookA, `"Fail"`, `"Ignore"`, 1)), []string{hookA, nsA}, nil, Pass, ""},
		"webhook of somebody else":                {gone(strings.Replace(hookA, "sidecar-injector", "x", 1)), []string{nsA}, nil, Pass, ""},
		"webhook, a pod template asks for it":     {gone(byPod), []string{byPod, nsNone, workload("Deployment", "idle", "web", `"istio.io/rev":"a"`)}, nil, Block, "1 pod templates are injected by it: deployment.apps/web in idle"},
		"webhook, the workload goes before":       {gone(byPod), []string{byPod, nsNone, workload("Deployment", "idle", "web", `"istio.io/rev":"a"`)}, []*effect.Effect{gone(workload("Deployment", "idle", "web", `"istio.io/rev":"a"`))}, Pass, ""},
		"tag, namespace uses it":                  {gone(tagA), []string{tagA, nsProd}, nil, Block, `revision tag "prod" goes away`},
		"tag, a waypoint names it":                {gone(tagA), []string{tagA, gateway}, nil, Block, "1 gateways name it"},
		"tag, the waypoint follows another one":   {gone(tagA), []string{tagA, gateway}, []*effect.Effect{applied(t, gateway, strings.Replace(gateway, `"prod"`, `"next"`, 1))}, Pass, ""},
		"istiod, whose waypoint is given over":    {gone(planeA), []string{planeA, planeB, proxyOfWaypoint, keptWaypoint}, []*effect.Effect{applied(t, gateway, strings.Replace(gateway, `"prod"`, `"next"`, 1))}, Pass, ""},
		"istiod, whose waypoint stays":            {gone(planeA), []string{planeA, planeB, proxyOfWaypoint, keptWaypoint}, nil, Block, "running proxies belong to it"},
		"tag moves":                               {applied(t, tagA, tagB), []string{tagA, nsProd}, nil, Pass, ""},
		"istiod, nobody uses it":                  {gone(planeA), []string{planeA, planeB, hookA, nsNone}, nil, Pass, ""},
		"istiod, namespace":                       {gone(planeA), []string{planeA, planeB, hookA, nsA}, nil, Block, "namespaces are injected"},
		"istiod, namespace by a tag":              {gone(planeA), []string{planeA, planeB, tagA, nsProd}, nil, Block, "namespace/bank"},
		"istiod, the tag was moved before":        {gone(planeA), []string{planeA, planeB, tagA, nsProd}, []*effect.Effect{applied(t, tagA, tagB)}, Pass, ""},
		"istiod, running proxies":                 {gone(planeA), []string{planeA, planeB, sidecar("shop", "db-0", "a", ""), db}, nil, Block, "running proxies belong to it: statefulset.apps/db"},
		"istiod, proxies of another":              {gone(planeA), []string{planeA, planeB, sidecar("shop", "db-0", "b", ""), db}, nil, Pass, ""},
		"istiod, pods whose owner is gone":        {gone(planeA), []string{planeA, planeB, sidecar("shop", "db-0", "a", "")}, nil, Pass, ""},
		"istiod, whose proxies the call deletes":  {gone(planeA), []string{planeA, planeB, sidecar("shop", "db-0", "a", ""), db}, []*effect.Effect{gone(db)}, Pass, ""},
		"istiod, whose proxies are rolled before": {gone(planeA), []string{planeA, planeB, sidecar("shop", "db-0", "a", ""), db}, []*effect.Effect{applied(t, db, workload("StatefulSet", "shop", "db", `"again":"1"`))}, Pass, ""},
		"istiod, whose waypoint moves before":     {gone(planeA), []string{planeA, planeB, waypointPod, workload("StatefulSet", "idle", "db", "")}, []*effect.Effect{applied(t, gateway, strings.Replace(gateway, `"prod"`, `"b"`, 1))}, Pass, ""},
		"istiod, whose proxies stay as they are":  {gone(planeA), []string{planeA, planeB, sidecar("shop", "db-0", "a", ""), db}, []*effect.Effect{applied(t, db, strings.Replace(db, `"namespace"`, `"labels":{"a":"b"},"namespace"`, 1))}, Block, "running proxies"},
		"istiod, a waypoint names its tag":        {gone(planeA), []string{planeA, tagA, gateway}, nil, Block, "gateways name it"},
		"istiod scaled to none":                   {applied(t, planeA, revised(plane("istiod-a", 0, labelsA), "a")), []string{planeA, hookA, nsA}, nil, Block, `revision "a" goes away`},
		"istiod scaled up":                        {applied(t, planeA, revised(plane("istiod-a", 3, labelsA), "a")), []string{planeA, hookA, nsA}, nil, Pass, ""},
		"istiod, another of its revision stays":   {gone(planeA), []string{planeA, revised(plane("istiod-a2", 1, labelsA), "a"), hookA, nsA}, nil, Pass, ""},
		"istiod, another of its revision went":    {gone(planeA), []string{planeA, revised(plane("istiod-a2", 1, labelsA), "a"), hookA, nsA}, []*effect.Effect{gone(revised(plane("istiod-a2", 1, labelsA), "a"))}, Block, ""},
		"Service of the revision":                 {gone(service("istiod-a", labelsA)), []string{planeA, hookA, nsA}, nil, Block, `revision "a" goes away`},
		"Service of another":                      {gone(service("istiod-b", labelsB)), []string{planeA, hookA, nsA}, nil, Pass, ""},
		"namespace of the control plane":          {gone(namespace("istio-system", "")), []string{planeA, hookA, nsA}, nil, Block, `revision "a" goes away`},
		"another namespace":                       {gone(nsNone), []string{planeA, hookA, nsA}, nil, Pass, ""},
		"a Deployment that is no control plane":   {gone(workload("Deployment", "shop", "web", "")), []string{planeA, hookA, nsA}, nil, Pass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: true, Earlier: c.earlier, Policy: &Policy{}, Seen: &Seen{}}
			got := judge(t, inUse, &fake{objects: objects(t, c.there...)}, run, c.e, c.want)
			if c.want != Pass && !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
		})
	}
	down := &fake{fail: cluster.ErrUnreachable}
	judge(t, inUse, down, &Run{Policy: &Policy{}}, gone(planeA), Block)
	judge(t, inUse, down, &Run{Policy: &Policy{}}, gone(hookA), Block)
	judge(t, inUse, down, &Run{Policy: &Policy{}}, applied(t, planeA, planeA), Pass) // needs to know nothing
	blind := *gone(hookA)
	blind.Verb = effect.Patch
	judge(t, inUse, &fake{}, &Run{Policy: &Policy{}}, &blind, Block)
}
