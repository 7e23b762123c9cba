package gate

import (
	"fmt"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

func web(name string, replicas int, strategy string) string {
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q,"namespace":"shop"},
	"spec":{"replicas":%d,"strategy":%s,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}}}}}`, name, replicas, strategy)
}

func budget(needed, expected, healthy int) string {
	return fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"b","namespace":"shop"},
	"spec":{"minAvailable":%d,"selector":{"matchLabels":{"app":"web"}}},"status":{"desiredHealthy":%d,"expectedPods":%d,"currentHealthy":%d,"disruptionsAllowed":%d}}`,
		needed, needed, expected, healthy, max(0, healthy-needed))
}

func restartOf(t *testing.T, js string) *effect.Effect {
	t.Helper()
	e := &effect.Effect{Verb: effect.Patch, Before: obj(t, js), Class: effect.Restart}
	e.Ref = cluster.RefOf(e.Before)
	return e
}

func TestDisruption(t *testing.T) {
	const (
		surge   = `{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`
		oneDown = `{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}`
		all     = `{"type":"Recreate"}`
	)
	pod := func(owner string) *effect.Effect {
		e := &effect.Effect{Verb: effect.Evict, Class: effect.Eviction, Before: obj(t,
			`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"shop","labels":{"app":"web"}`+owner+`}}`)}
		e.Ref = cluster.RefOf(e.Before)
		return e
	}
	const owned = `,"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"u","controller":true}]`
	gateway := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"gw","namespace":"shop","labels":{"istio":"ingressgateway"}},"spec":{"template":{}}}`
	for name, c := range map[string]struct {
		e        *effect.Effect
		budget   string
		forecast bool
		leave    []string
		along    []*effect.Effect
		fail     error
		want     Verdict
	}{
		"one replica that surges":      {restartOf(t, web("web", 1, surge)), "", false, nil, nil, nil, Pass},
		"one replica that goes down":   {restartOf(t, web("web", 1, oneDown)), "", false, nil, nil, nil, Ask},
		"with leave":                   {restartOf(t, web("web", 1, oneDown)), "", false, []string{"shop/w*"}, nil, nil, Pass},
		"leave for another":            {restartOf(t, web("web", 1, oneDown)), "", false, []string{"shop/api"}, nil, nil, Ask},
		"recreate":                     {restartOf(t, web("web", 3, all)), "", false, nil, nil, nil, Ask},
		"no replicas":                  {restartOf(t, web("web", 0, oneDown)), budget(1, 1, 1), false, nil, nil, nil, Pass},
		"within the budget":            {restartOf(t, web("web", 3, oneDown)), budget(2, 3, 3), false, nil, nil, nil, Pass},
		"beyond the budget":            {restartOf(t, web("web", 3, oneDown)), budget(3, 3, 3), false, nil, nil, nil, Block},
		"one is ill, live":             {restartOf(t, web("web", 3, oneDown)), budget(2, 3, 2), false, nil, nil, nil, Block},
		"one is ill, forecast":         {restartOf(t, web("web", 3, oneDown)), budget(2, 3, 2), true, nil, nil, nil, Pass},
		"surging needs no budget":      {restartOf(t, web("web", 3, surge)), budget(3, 3, 3), false, nil, nil, nil, Pass},
		"two at once share the budget": {restartOf(t, web("web", 3, oneDown)), budget(5, 6, 6), false, nil, []*effect.Effect{restartOf(t, web("api", 3, oneDown))}, nil, Block},
		"no answer":                    {restartOf(t, web("web", 3, oneDown)), "", false, nil, nil, cluster.ErrUnreachable, Block},
		"pod":                          {pod(owned), budget(2, 3, 3), false, nil, nil, nil, Pass},
		"pod without an owner":         {pod(""), "", false, nil, nil, nil, Ask},
		"pod beyond the budget":        {pod(owned), budget(3, 3, 3), false, nil, nil, nil, Block},
		"second pod of the budget":     {pod(owned), budget(2, 3, 3), false, nil, []*effect.Effect{pod(owned)}, nil, Block},
		"gateway deleted":              {applied(t, gateway, ""), "", false, nil, nil, nil, Ask},
	} {
		t.Run(name, func(t *testing.T) {
			r := &fake{fail: c.fail}
			if c.budget != "" {
				r.objects = append(r.objects, obj(t, c.budget))
			}
			run := &Run{Forecast: c.forecast, Earlier: c.along, Policy: &Policy{Leave: c.leave}, Seen: &Seen{}}
			judge(t, disruption, r, run, c.e, c.want)
		})
	}
}

func TestBlastRadius(t *testing.T) {
	const surge = `{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`
	var es []*effect.Effect
	for i := range 4 {
		e := restartOf(t, web(fmt.Sprintf("w%d", i), 2, surge))
		e.Wave = "first"
		es = append(es, e)
	}
	said := 0
	for i, e := range es {
		run := &Run{Forecast: true, Earlier: es[:i], Policy: &Policy{MaxWave: 2}}
		for _, f := range waveSize(run, e) {
			if f.Verdict != Block {
				t.Errorf("got %+v", f)
			}
			said++
		}
	}
	if said != 1 {
		t.Errorf("said %d times, want once", said)
	}
}

func TestRulesMatch(t *testing.T) {
	e := &effect.Effect{Verb: effect.Apply, Ref: cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"}}
	global := &effect.Effect{Verb: effect.Delete, Ref: cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}}
	for _, c := range []struct {
		r            Rules
		deploy, wide bool
	}{
		{Rules{}, true, true},
		{Rules{Kinds: []string{"Deployment"}}, true, false},
		{Rules{Kinds: []string{"deployment.APPS"}}, true, false},
		{Rules{Kinds: []string{"Deployment.extensions"}}, false, false},
		{Rules{Kinds: []string{"*.apps"}}, true, false},
		{Rules{Namespaces: []string{"shop"}}, true, false},
		{Rules{Namespaces: []string{""}}, false, true},
		{Rules{Namespaces: []string{"*"}}, true, true},
		{Rules{Verbs: []string{"delete"}}, false, true},
		{Rules{Namespaces: []string{"shop"}, Verbs: []string{"delete"}}, false, false},
		{Rules{Kinds: []string{"["}}, false, false},
	} {
		if got := c.r.Match(e); got != c.deploy {
			t.Errorf("%s: deployment %v, want %v", c.r, got, c.deploy)
		}
		if got := c.r.Match(global); got != c.wide {
			t.Errorf("%s: namespace %v, want %v", c.r, got, c.wide)
		}
	}
}
