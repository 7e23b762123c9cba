package gate

import (
	"context"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/knowledge"
)

func envoyFilter(name, filter string) string {
	return `{"apiVersion":"networking.istio.io/v1alpha3","kind":"EnvoyFilter","metadata":{"name":"` + name + `","namespace":"shop"},
	"spec":{"configPatches":[{"applyTo":"NETWORK_FILTER","patch":{"operation":"MERGE","value":{"name":"` + filter + `"}}}]}}`
}

// versioned is an EnvoyFilter with a patch for some versions of the proxy; version
// is written as in JSON.
func versioned(name, version string) string {
	return `{"apiVersion":"networking.istio.io/v1alpha3","kind":"EnvoyFilter","metadata":{"name":"` + name + `","namespace":"shop"},
	"spec":{"configPatches":[{"applyTo":"HTTP_FILTER","match":{"context":"GATEWAY","proxy":{"proxyVersion":"` + version + `"}},"patch":{"operation":"MERGE","value":{"name":"` + kept + `"}}}]}}`
}

const (
	gone = "envoy.filters.network.tcp_cluster_rewrite" // with 1.20
	kept = "envoy.filters.network.tcp_proxy"
)

func TestRemovedFields(t *testing.T) {
	k, err := knowledge.Default()
	if err != nil {
		t.Fatal(err)
	}
	own, err := knowledge.Load(k, "own.yaml", []byte(`istio: "1.32"
notes:
  - {id: istio-1.32-x, title: X is gone, severity: removed, changes: a, do: b, class: detector, reason: c, affects: [d], sources: [e],
     detect: [{in: istiod, says: sets X, all: [{env: X}]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	plane := func(version, env, labels string) string {
		return strings.Replace(istiod("docker.io/istio/pilot:"+version, labels), `"name":"discovery"`, `"name":"discovery","env":[`+env+`]`, 1)
	}
	native := `{"name":"ENABLE_NATIVE_SIDECARS","value":"false"}`
	rotate := strings.Replace(istiod("docker.io/istio/pilot:1.23.0", `,"operator.istio.io/component":"Pilot"`), `"name":"discovery"`, `"name":"discovery","args":["--log_rotate=/tmp/x"]`, 1)
	rotate = strings.Replace(rotate, `"name":"istiod"`, `"name":"istiod-old"`, 1)
	revised := `,"istio.io/rev":"1-24"`
	for name, c := range map[string]struct {
		from, to string
		effect   string
		objects  []string
		call     []string
		live     bool
		back     bool
		k        *knowledge.Base
		want     Verdict
		says     string
	}{
		"an EnvoyFilter for the old proxy":     {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{versioned("a", `^1\\.30.*`)}, nil, false, false, nil, Ask, `HTTP_FILTER in GATEWAY is for proxies "^1\\.30.*"`},
		"said of the forecast only":            {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{versioned("a", `^1\\.30.*`)}, nil, true, false, nil, Pass, ""},
		"one for each version":                 {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{versioned("a", `^1\\.30.*`), versioned("b", `^1\\.31.*`)}, nil, false, false, nil, Pass, ""},
		"one for all of a major version":       {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{versioned("a", `^1\\..*`)}, nil, false, false, nil, Pass, ""},
		"one for proxies long gone":            {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{versioned("a", `^1\\.29.*`)}, nil, false, false, nil, Pass, ""},
		"one that is no expression":            {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{versioned("a", `^1\\.30(`)}, nil, false, false, nil, Pass, ""},
		"a plain mesh":                         {"1.30.3", "1.31.0", plane("1.31.0", "", ""), []string{envoyFilter("a", kept)}, nil, false, false, nil, Pass, ""},
		"an EnvoyFilter of the mesh":           {"1.19.9", "1.20.0", plane("1.20.0", "", ""), []string{envoyFilter("a", gone), envoyFilter("b", kept)}, nil, false, false, nil, Block, "istio-1.20-network-filters"},
		"live too":                             {"1.19.9", "1.20.0", plane("1.20.0", "", ""), []string{envoyFilter("a", gone)}, nil, true, false, nil, Block, "network filter"},
		"one that the call changes":            {"1.19.9", "1.20.0", plane("1.20.0", "", ""), []string{envoyFilter("a", gone)}, []string{envoyFilter("a", kept)}, false, false, nil, Pass, ""},
		"one that the call changes, live":      {"1.19.9", "1.20.0", plane("1.20.0", "", ""), []string{envoyFilter("a", gone)}, []string{envoyFilter("a", kept)}, true, false, nil, Pass, ""},
		"removed before":                       {"1.20.0", "1.21.0", plane("1.21.0", `{"name":"X"}`, ""), []string{envoyFilter("a", gone)}, nil, false, false, nil, Pass, ""},
		"an object that is applied":            {"1.19.9", "1.20.0", envoyFilter("a", gone), nil, nil, false, false, nil, Block, "names a network filter"},
		"an object that is well":               {"1.19.9", "1.20.0", envoyFilter("a", kept), nil, nil, false, false, nil, Pass, ""},
		"another object looks at no mesh":      {"1.19.9", "1.20.0", configMap, []string{envoyFilter("a", gone)}, nil, false, false, nil, Pass, ""},
		"another behaviour":                    {"1.26.0", "1.27.0", plane("1.27.0", "", ""), nil, nil, false, false, nil, Warn, "istio-1.27-native-sidecars"},
		"said once, before the first write":    {"1.26.0", "1.27.0", plane("1.27.0", "", ""), nil, nil, true, false, nil, Pass, ""},
		"another behaviour, chosen":            {"1.26.0", "1.27.0", plane("1.27.0", native, ""), nil, nil, false, false, nil, Pass, ""},
		"two minors":                           {"1.26.0", "1.28.0", plane("1.28.0", `{"name":"METRIC_ROTATION_INTERVAL","value":"1h"},`+native, ""), nil, nil, false, false, nil, Warn, "istio-1.28-metric-rotation"},
		"the same minor":                       {"1.31.0", "1.31.1", plane("1.31.1", "", ""), []string{envoyFilter("a", gone)}, nil, false, false, nil, Pass, ""},
		"no target":                            {"1.30.3", "", plane("1.31.0", "", ""), nil, nil, false, false, nil, Pass, ""},
		"nothing is known of the target":       {"1.31.0", "1.32.0", plane("1.32.0", "", ""), nil, nil, false, false, nil, Warn, "--knowledge"},
		"known by a file":                      {"1.31.0", "1.32.0", plane("1.32.0", `{"name":"X"}`, ""), nil, nil, false, false, own, Block, "X is gone"},
		"known by a file, and well":            {"1.31.0", "1.32.0", plane("1.32.0", `{"name":"Y"}`, ""), nil, nil, false, false, own, Pass, ""},
		"an install that comes later warns":    {"1.23.0", "1.24.0", plane("1.24.0", "", ""), []string{rotate}, nil, false, false, nil, Warn, "--log_rotate"},
		"the install of the old revision":      {"1.23.0", "1.24.0", plane("1.24.0", "", revised), []string{rotate}, nil, false, false, nil, Pass, ""},
		"what undoes the run":                  {"1.19.9", "1.20.0", envoyFilter("a", gone), nil, nil, false, true, nil, Pass, ""},
		"a version that can't be read":         {"1.19.9", "next", envoyFilter("a", kept), nil, nil, false, false, nil, Block, "target version"},
		"the operator would undo the upgrade":  {"1.23.0", "1.24.0", plane("1.24.0", "", ""), []string{`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"istio-operator","namespace":"istio-operator","labels":{"name":"istio-operator"}},"spec":{"replicas":1}}`}, nil, false, false, nil, Block, "operator"},
		"a registry that never had the target": {"1.30.3", "1.31.0", strings.Replace(plane("1.31.0", "", ""), "docker.io/istio", "gcr.io/istio-release", 1), nil, nil, false, false, nil, Block, "istio-1.31-registries"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &fake{}
			for _, o := range c.objects {
				r.objects = append(r.objects, obj(t, o))
			}
			e := applied(t, "", c.effect)
			run := &Run{From: c.from, To: c.to, Forecast: !c.live, Rollback: c.back, Knowledge: c.k, Call: []*effect.Effect{e}, Policy: &Policy{}}
			for _, o := range c.call {
				run.Call = append(run.Call, applied(t, "", o))
			}
			found := judge(t, removedFields, r, run, e, c.want)
			text := ""
			for _, f := range found {
				text += f.Ref.String() + ": " + f.Problem + " " + f.Next + "\n"
			}
			if c.says != "" && !strings.Contains(text, c.says) {
				t.Errorf("%q is not said:\n%s", c.says, text)
			}
		})
	}
}

// The mesh is read once in a judgement, and a read that fails blocks.
func TestRemovedFieldsReads(t *testing.T) {
	r := &fake{objects: []*cluster.Object{obj(t, envoyFilter("a", kept))}}
	e := applied(t, "", istiod("docker.io/istio/pilot:1.31.0", ""))
	run := &Run{From: "1.30.3", To: "1.31.0", Forecast: true, Seen: &Seen{}, Policy: &Policy{}}
	judge(t, removedFields, r, run, e, Pass)
	once := r.lists
	judge(t, removedFields, r, run, e, Pass)
	if once == 0 || r.lists != once {
		t.Errorf("%d lists, then %d", once, r.lists)
	}
	r.fail = cluster.ErrDenied
	run.Seen = &Seen{}
	if _, err := removedFields.Before(context.Background(), r, run, e); err == nil {
		t.Error("a read that is denied passes")
	}
}
