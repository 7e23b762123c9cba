package gate

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

func injector(name, rev, tag, policy, service, selector string) string {
	if tag != "" {
		tag = `,"istio.io/tag":"` + tag + `"`
	}
	return `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"` + name + `","labels":{"app":"sidecar-injector","istio.io/rev":"` + rev + `"` + tag + `}},
	"webhooks":[{"name":"inject.istio.io","failurePolicy":"` + policy + `","clientConfig":{"service":{"name":"` + service + `","namespace":"istio-system"}},"namespaceSelector":{"matchLabels":{` + selector + `}}}]}`
}

func validator(policy, service string) string {
	return `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration","metadata":{"name":"istiod-default-validator","labels":{"app":"istiod"}},
	"webhooks":[{"name":"validation.istio.io","failurePolicy":"` + policy + `","clientConfig":{"service":{"name":"` + service + `","namespace":"istio-system"}}}]}`
}

func service(name, selector string) string {
	return `{"apiVersion":"v1","kind":"Service","metadata":{"name":"` + name + `","namespace":"istio-system"},"spec":{"selector":{` + selector + `}}}`
}

func istiodPod(name, labels, ready string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","namespace":"istio-system","labels":{` + labels + `}},"status":{"conditions":[{"type":"Ready","status":"` + ready + `"}]}}`
}

func plane(name string, replicas int, labels string) string {
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q,"namespace":"istio-system","labels":{"app":"istiod"}},
	"spec":{"replicas":%d,"selector":{"matchLabels":{%s}},"template":{"metadata":{"labels":{%s}},"spec":{"containers":[{"name":"discovery","image":"pilot:1.31.0"}]}}}}`, name, replicas, labels, labels)
}

func namespace(name, labels string) string {
	return `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + name + `","labels":{` + labels + `}}}`
}

const (
	labelsA = `"app":"istiod","istio.io/rev":"a"`
	labelsB = `"app":"istiod","istio.io/rev":"b"`
)

func objects(t *testing.T, js ...string) []*cluster.Object {
	t.Helper()
	var out []*cluster.Object
	for _, s := range js {
		out = append(out, obj(t, s))
	}
	return out
}

// A step that is taken up again finds its istiod applied, and still coming up: the
// call waits for it. Live it is judged again, and an istiod that was there before
// this run is not taken for one that comes up.
func TestWebhookOfWhatTheRunBrought(t *testing.T) {
	a := injector("inject-a", "a", "", "Fail", "istiod-a", `"istio.io/rev":"a"`)
	brought := strings.Replace(plane("istiod-a", 1, labelsA), `"labels":`, `"annotations":{"`+cluster.AnnotationRun+`":"this"},"labels":`, 1)
	for name, c := range map[string]struct {
		plane    string
		forecast bool
		awaits   bool
		run      string
		want     Verdict
	}{
		"taken up":          {brought, true, true, "this", Pass},
		"live":              {brought, false, true, "this", Block},
		"not waited for":    {brought, true, false, "this", Block},
		"another run's":     {brought, true, true, "other", Block},
		"there before":      {plane("istiod-a", 1, labelsA), true, true, "this", Block},
		"behind another":    {strings.ReplaceAll(brought, `"istio.io/rev":"a"`, `"istio.io/rev":"b"`), true, true, "this", Block},
		"scaled to nothing": {strings.Replace(brought, `"replicas":1`, `"replicas":0`, 1), true, true, "this", Block},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{ID: c.run, Forecast: c.forecast, Policy: &Policy{}, Seen: &Seen{}}
			if c.awaits {
				run.Awaits = []cluster.Ref{cluster.RefOf(obj(t, c.plane))}
			}
			r := &fake{objects: objects(t, service("istiod-a", labelsA), istiodPod("a-1", labelsA, "False"), c.plane)}
			judge(t, webhookSafe, r, run, applied(t, "", a), c.want)
		})
	}
}

func TestWebhookWritten(t *testing.T) {
	a := injector("inject-a", "a", "", "Fail", "istiod-a", `"istio.io/rev":"a"`)
	ready := []string{service("istiod-a", labelsA), istiodPod("a-1", labelsA, "True")}
	unready := []string{service("istiod-a", labelsA), istiodPod("a-1", labelsA, "False")}
	brings := applied(t, "", plane("istiod-a", 1, labelsA))
	remote := `{"apiVersion":"v1","kind":"Service","metadata":{"name":"istiod-a","namespace":"istio-system"},"spec":{}}`
	slice := `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"s","namespace":"istio-system","labels":{"kubernetes.io/service-name":"istiod-a"}},"endpoints":[{"conditions":{"ready":%s}}]}`
	for name, c := range map[string]struct {
		before, after string
		there         []string
		forecast      bool
		earlier       []*effect.Effect
		want          Verdict
		says          string
	}{
		"answered":                      {"", a, ready, false, nil, Pass, ""},
		"not ready":                     {"", a, unready, false, nil, Block, "no ready endpoint"},
		"no Service":                    {"", a, nil, false, nil, Block, "does not exist"},
		"fails open":                    {"", injector("inject-a", "a", "", "Ignore", "istiod-a", ""), unready, false, nil, Pass, ""},
		"policy not said":               {"", strings.Replace(a, `"failurePolicy":"Fail",`, "", 1), unready, false, nil, Block, "fail closed"},
		"a URL":                         {"", strings.Replace(a, `"service":{"name":"istiod-a","namespace":"istio-system"}`, `"url":"https://x"`, 1), nil, false, nil, Pass, ""},
		"validation":                    {"", validator("Fail", "istiod-a"), unready, false, nil, Block, "validation.istio.io"},
		"closes":                        {injector("inject-a", "a", "", "Ignore", "istiod-a", `"istio.io/rev":"a"`), a, unready, false, nil, Block, "would fail closed"},
		"moves to one not ready":        {injector("inject-a", "a", "", "Fail", "istiod-b", `"istio.io/rev":"a"`), a, unready, false, nil, Block, "would fail closed"},
		"as it was":                     {a, a, unready, false, nil, Warn, "as before"},
		"deleted":                       {a, "", unready, false, nil, Pass, ""},
		"forecast, the call brings it":  {"", a, []string{service("istiod-a", labelsA)}, true, []*effect.Effect{brings}, Pass, ""},
		"forecast, with its Service":    {"", a, nil, true, []*effect.Effect{applied(t, "", service("istiod-a", labelsA)), brings}, Pass, ""},
		"forecast, brings another":      {"", a, []string{service("istiod-a", labelsA)}, true, []*effect.Effect{applied(t, "", plane("istiod-b", 1, labelsB))}, Block, ""},
		"forecast, brings none":         {"", a, []string{service("istiod-a", labelsA)}, true, []*effect.Effect{applied(t, "", plane("istiod-a", 0, labelsA))}, Block, ""},
		"live, brought but not ready":   {"", a, unready, false, []*effect.Effect{brings}, Block, ""},
		"endpoints by hand":             {"", a, []string{remote, fmt.Sprintf(slice, "true")}, false, nil, Pass, ""},
		"endpoints by hand, none ready": {"", a, []string{remote, fmt.Sprintf(slice, "false")}, false, nil, Block, ""},
		"another cluster's name":        {"", a, []string{strings.Replace(remote, `"spec":{}`, `"spec":{"type":"ExternalName","externalName":"x"}`, 1)}, false, nil, Pass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: c.forecast, Earlier: c.earlier, Policy: &Policy{}, Seen: &Seen{}}
			e := applied(t, c.before, c.after)
			got := judge(t, webhookSafe, &fake{objects: objects(t, c.there...)}, run, e, c.want)
			if c.want != Pass && !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
			if c.forecast {
				return
			}
			after, err := webhookSafe.After(context.Background(), &fake{objects: objects(t, c.there...)}, run, e)
			if err != nil || Worst(after) != c.want {
				t.Errorf("afterwards %v, %v; want %s", after, err, c.want)
			}
		})
	}
	e := applied(t, "", a)
	judge(t, webhookSafe, &fake{fail: cluster.ErrUnreachable}, &Run{Policy: &Policy{}}, e, Block)
	blind := *e
	blind.Verb, blind.After = effect.Patch, nil
	judge(t, webhookSafe, &fake{}, &Run{Policy: &Policy{}}, &blind, Block)
}

func TestEndpointsTaken(t *testing.T) {
	hook := injector("inject-a", "a", "", "Fail", "istiod-a", `"istio.io/rev":"a"`)
	one := []string{hook, service("istiod-a", labelsA), istiodPod("a-1", labelsA, "True")}
	two := append([]string{istiodPod("x-1", `"app":"istiod","istio.io/rev":"a","set":"x"`, "True")}, one...)
	a := plane("istiod-a", 1, labelsA)
	withSet := plane("istiod-x", 1, `"app":"istiod","istio.io/rev":"a","set":"x"`)
	gone := func(js string) *effect.Effect { return applied(t, js, "") }
	scaled := applied(t, a, plane("istiod-a", 0, labelsA))
	blind := *scaled
	blind.Verb, blind.After, blind.Body = effect.Patch, nil, nil
	evicted := &effect.Effect{Verb: effect.Evict, Class: effect.Eviction, Ref: cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "istio-system", Name: "a-1"}, Before: obj(t, istiodPod("a-1", labelsA, "True"))}
	for name, c := range map[string]struct {
		e       *effect.Effect
		there   []string
		earlier []*effect.Effect
		want    Verdict
	}{
		"Deployment deleted":                       {gone(a), one, nil, Block},
		"scaled to none":                           {scaled, one, nil, Block},
		"scaled, forecast unknown":                 {&blind, one, nil, Block},
		"scaled to two":                            {applied(t, a, plane("istiod-a", 2, labelsA)), one, nil, Pass},
		"another Deployment is behind it, too":     {gone(withSet), two, nil, Pass},
		"and goes at the same time":                {gone(withSet), two, []*effect.Effect{gone(plane("istiod-a", 1, labelsA))}, Pass}, // its selector takes both
		"Deployment of another revision":           {gone(plane("istiod-b", 1, labelsB)), one, nil, Pass},
		"Deployment elsewhere":                     {gone(strings.ReplaceAll(a, "istio-system", "shop")), one, nil, Pass},
		"webhook fails open":                       {gone(a), append([]string{injector("inject-a", "a", "", "Ignore", "istiod-a", "")}, one[1:]...), nil, Pass},
		"nobody answers already":                   {gone(a), []string{hook, service("istiod-a", labelsA), istiodPod("a-1", labelsA, "False")}, nil, Block},
		"webhook goes before":                      {gone(a), one, []*effect.Effect{gone(hook)}, Pass},
		"webhook comes before":                     {gone(a), one[1:], []*effect.Effect{applied(t, "", hook)}, Block},
		"Service deleted":                          {gone(service("istiod-a", labelsA)), one, nil, Block},
		"Service deleted, nobody answers already":  {gone(service("istiod-a", labelsA)), one[:2], nil, Pass},
		"Service deleted, another's":               {gone(service("istiod-b", labelsB)), one, nil, Pass},
		"Service chooses others":                   {applied(t, service("istiod-a", labelsA), service("istiod-a", labelsB)), one, nil, Block},
		"Service changes nothing":                  {applied(t, service("istiod-a", labelsA), service("istiod-a", `"app":"istiod"`)), one, nil, Pass},
		"new pods bear other labels":               {applied(t, a, strings.Replace(a, `"template":{"metadata":{"labels":{`+labelsA, `"template":{"metadata":{"labels":{`+labelsB, 1)), one, nil, Block},
		"namespace deleted":                        {gone(namespace("istio-system", "")), one, nil, Block},
		"another namespace deleted":                {gone(namespace("shop", "")), one, nil, Pass},
		"last pod evicted":                         {evicted, one, nil, Ask},
		"one of two pods evicted":                  {evicted, two, nil, Pass},
		"a webhook that is nobody of Istio's":      {gone(a), append([]string{strings.NewReplacer("sidecar-injector", "x", "inject.istio.io", "x.y.z").Replace(hook)}, one[1:]...), nil, Block},
		"a workload of the data plane":             {gone(plane("web", 1, `"app":"web"`)), one, nil, Pass},
		"restart of istiod":                        {&effect.Effect{Verb: effect.Patch, Ref: gone(a).Ref, Before: obj(t, a), Body: []byte(`{"spec":{"template":{"metadata":{"annotations":{"` + effect.AnnotationRestart + `":"x"}}}}}`)}, one, nil, Pass},
		"call brings another behind it beforehand": {gone(a), one, []*effect.Effect{applied(t, "", withSet)}, Pass},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: true, Earlier: c.earlier, Policy: &Policy{}, Seen: &Seen{}}
			judge(t, webhookSafe, &fake{objects: objects(t, c.there...)}, run, c.e, c.want)
		})
	}
	judge(t, webhookSafe, &fake{fail: cluster.ErrUnreachable}, &Run{Policy: &Policy{}}, gone(a), Block)
	judge(t, webhookSafe, &fake{fail: cluster.ErrUnreachable}, &Run{Policy: &Policy{}}, applied(t, a, a), Pass) // needs to know nothing
	after, err := webhookSafe.After(context.Background(), &fake{objects: objects(t, one...)}, &Run{Policy: &Policy{}}, evicted)
	if err != nil || Worst(after) != Warn {
		t.Errorf("after the eviction: %v, %v", after, err)
	}
}

// A mesh whose webhooks nobody answers is not upgraded, unless the upgrade is
// what brings them back; the way out of one is not barred.
func TestWebhookBaseline(t *testing.T) {
	there := objects(t, validator("Fail", "istiod-old"), service("istiod-old", labelsB), service("istiod-a", labelsA), istiodPod("a-1", labelsA, "True"))
	first := applied(t, plane("istiod-a", 1, labelsA), plane("istiod-a", 2, labelsA))
	second := applied(t, plane("istiod-z", 1, labelsA), plane("istiod-z", 2, labelsA))
	owners := applied(t, plane("istiod-a", 1, labelsA), plane("istiod-a", 1, labelsA))
	owners.Verb, owners.PatchType, owners.Body = effect.Patch, string(types.JSONPatchType), []byte(`[{"op":"remove","path":"/metadata/managedFields/0"}]`)
	for name, c := range map[string]struct {
		e       *effect.Effect
		earlier []*effect.Effect
		more    []*effect.Effect
		undoing bool
		live    bool
		want    Verdict
	}{
		"nobody answers":         {first, nil, nil, false, false, Block},
		"said once":              {second, []*effect.Effect{first}, nil, false, false, Pass},
		"after a move of owners": {second, []*effect.Effect{owners}, nil, false, false, Block},
		"the call brings it":     {first, nil, []*effect.Effect{applied(t, "", plane("istiod-old", 1, labelsB))}, false, false, Pass},
		"the call deletes it":    {first, nil, []*effect.Effect{applied(t, validator("Fail", "istiod-old"), "")}, false, false, Pass},
		"the call points it at":  {first, nil, []*effect.Effect{applied(t, validator("Fail", "istiod-old"), validator("Fail", "istiod-a"))}, false, false, Pass},
		"rollback":               {first, nil, nil, true, false, Pass},
		"live":                   {first, nil, nil, false, true, Pass},
		"not the control plane":  {applied(t, configMap, configMap), nil, nil, false, false, Pass},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: !c.live, Rollback: c.undoing, Earlier: c.earlier, Policy: &Policy{}, Seen: &Seen{}}
			run.Call = append(append(append(run.Call, c.earlier...), c.e), c.more...)
			judge(t, webhookSafe, &fake{objects: there}, run, c.e, c.want)
		})
	}
}

func TestOverlaps(t *testing.T) {
	there := []string{
		injector("inject-a", "a", "", "Ignore", "istiod-a", `"istio-injection":"enabled"`),
		namespace("shop", `"istio-injection":"enabled"`), namespace("bank", `"istio.io/rev":"b"`),
	}
	tag := func(selector string) string { return injector("tag-prod", "b", "prod", "Ignore", "istiod-b", selector) }
	for name, c := range map[string]struct {
		before, after string
		there         []string
		earlier       []*effect.Effect
		want          Verdict
		says          string
	}{
		"apart":                              {"", tag(`"istio-injection":"disabled"`), there, nil, Pass, ""},
		"both select a namespace":            {"", tag(`"istio-injection":"enabled"`), there, nil, Block, "namespace shop"},
		"both would select one":              {"", tag(`"istio-injection":"enabled"`), append([]string{namespace("x", "")}, there[0]), nil, Warn, "there is none now"},
		"did before":                         {tag(`"istio-injection":"enabled"`), strings.Replace(tag(`"istio-injection":"enabled"`), "istiod-b", "istiod-c", 1), there, nil, Pass, ""},
		"the other one is deactivated first": {"", tag(`"istio-injection":"enabled"`), there, []*effect.Effect{applied(t, there[0], injector("inject-a", "a", "", "Ignore", "istiod-a", `"istio.io/deactivated":"never-match"`))}, Pass, ""},
		"not an injector":                    {"", strings.NewReplacer("sidecar-injector", "x", `,"istio.io/tag":"prod"`, "").Replace(tag(`"istio-injection":"enabled"`)), there, nil, Pass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: true, Earlier: c.earlier, Policy: &Policy{}, Seen: &Seen{}}
			got := judge(t, webhookSafe, &fake{objects: objects(t, c.there...)}, run, applied(t, c.before, c.after), c.want)
			if c.want != Pass && !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
		})
	}
}
