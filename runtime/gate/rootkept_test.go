package gate

import (
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/effect"
)

func TestRootKept(t *testing.T) {
	ca := func(name, root string) string {
		return `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + name + `","namespace":"istio-system"},"data":{"root-cert.pem":"` + root + `"}}`
	}
	config := func(name, key, text, labels string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"istio-system","labels":{%s}},"data":{%q:%q}}`, name, labels, key, text)
	}
	mesh := func(text string) string { return config("istio", "mesh", text, "") }
	values := func(text string) string { return config("istio-sidecar-injector", "values", text, "") }
	plane := func(env string) string {
		return strings.Replace(istiod("docker.io/istio/pilot:1.31.0", ""), `"name":"discovery"`, `"name":"discovery","env":[`+env+`]`, 1)
	}
	beside := func(o string) string { return strings.Replace(o, `"name":"istiod"`, `"name":"istiod-next"`, 1) }
	const external = `{"name":"EXTERNAL_CA","value":"ISTIOD_RA_KUBERNETES_API"}`
	for name, c := range map[string]struct {
		before, after string
		there         []string
		to            string
		back          bool
		want          Verdict
		says          string
	}{
		"cacerts changed":                       {ca("cacerts", "a"), ca("cacerts", "b"), nil, "1.31.0", false, Block, "holds the CA of the mesh"},
		"cacerts made":                          {"", ca("cacerts", "b"), nil, "1.31.0", false, Block, "must not change"},
		"cacerts deleted":                       {ca("cacerts", "a"), "", nil, "1.31.0", false, Block, ""},
		"the self-signed CA deleted":            {ca("istio-ca-secret", "a"), "", nil, "1.31.0", false, Block, ""},
		"cacerts as they are":                   {ca("cacerts", "a"), ca("cacerts", "a"), nil, "1.31.0", false, Pass, ""},
		"another Secret":                        {ca("token", "a"), ca("token", "b"), nil, "1.31.0", false, Pass, ""},
		"in a run that is no upgrade":           {ca("cacerts", "a"), ca("cacerts", "b"), nil, "", false, Pass, ""},
		"on the way back":                       {ca("cacerts", "a"), ca("cacerts", "b"), nil, "1.31.0", true, Pass, ""},
		"another trust domain":                  {mesh("trustDomain: a.example"), mesh("trustDomain: b.example"), nil, "1.31.0", false, Block, "trustDomain: a.example -> b.example"},
		"the default trust domain, written out": {mesh("accessLogFile: x"), mesh("trustDomain: cluster.local"), nil, "1.31.0", false, Pass, ""},
		"other certificates":                    {mesh(""), mesh("caCertificates: [{pem: \"a\\nb\"}]"), nil, "1.31.0", false, Block, "caCertificates: not set -> another"},
		"another setting of the mesh":           {mesh("accessLogFile: x"), mesh("accessLogFile: y"), nil, "1.31.0", false, Pass, ""},
		"a configuration that can't be read":    {mesh("accessLogFile: x"), mesh("a: b: c"), nil, "1.31.0", false, Block, "mesh"},
		"another address of the CA":             {values(`{"global":{"caAddress":""}}`), values(`{"global":{"caAddress":"cert-manager-istio-csr:443"}}`), nil, "1.31.0", false, Block, "caAddress: not set -> cert-manager-istio-csr:443"},
		"another value":                         {values(`{"global":{"tag":"1.30.3"}}`), values(`{"global":{"tag":"1.31.0"}}`), nil, "1.31.0", false, Pass, ""},
		"another CA of istiod":                  {plane(""), plane(external), nil, "1.31.0", false, Block, "EXTERNAL_CA: not set -> ISTIOD_RA_KUBERNETES_API"},
		"another variable of istiod":            {plane(""), plane(`{"name":"X","value":"y"}`), nil, "1.31.0", false, Pass, ""},
		"istiod deleted":                        {plane(external), "", nil, "1.31.0", false, Pass, ""},
		"a revision beside it, alike":           {"", beside(plane(external)), []string{plane(external)}, "1.31.0", false, Pass, ""},
		"a revision beside it, with another CA": {"", beside(plane("")), []string{plane(external)}, "1.31.0", false, Block, "EXTERNAL_CA"},
		"its mesh configuration":                {"", config("istio-next", "mesh", "trustDomain: b.example", `"istio.io/rev":"next"`), []string{plane(""), mesh("trustDomain: a.example")}, "1.31.0", false, Block, "a.example -> b.example"},
		"its injector":                          {"", config("istio-sidecar-injector-next", "values", `{"global":{"caAddress":"x"}}`, ""), []string{plane(""), values(`{}`)}, "1.31.0", false, Block, "caAddress"},
		"another ConfigMap of Istio's":          {"", config("istio-cni-config", "mesh", "trustDomain: b.example", ""), []string{plane(""), mesh("trustDomain: a.example")}, "1.31.0", false, Pass, ""},
		"the first control plane":               {"", plane(external), nil, "1.31.0", false, Pass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{To: c.to, Rollback: c.back, Policy: &Policy{}, Seen: &Seen{}}
			got := judge(t, rootKept, &fake{objects: objects(t, c.there...)}, run, applied(t, c.before, c.after), c.want)
			if !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
		})
	}
	blind := applied(t, mesh("a: b"), mesh("a: c"))
	blind.Verb, blind.After = effect.Patch, nil
	judge(t, rootKept, &fake{}, &Run{To: "1.31.0", Policy: &Policy{}}, blind, Block)
}
