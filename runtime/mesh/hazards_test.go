package mesh_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/mesh"
)

const (
	agent = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME, namespace: kube-system, labels: {LABEL}}
spec:
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "docker.io/istio/IMAGE"}]}}
`
	cniConfig = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-cni-config, namespace: kube-system}
data: {REPAIR_ENABLED: "VALUE"}
`
	balancer = `
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: default, annotations: {ANNOTATION}}
spec: {type: TYPE, selector: {app: edge}, ports: [{port: 443}]}
`
	gateway = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: default}
spec:
  selector: {matchLabels: {app: edge}}
  template:
    metadata: {labels: {app: edge}, annotations: {ANNOTATION}}
    spec: {GRACE containers: [{name: istio-proxy, image: auto, env: [ENV]}]}
`
	holding = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {ANNOTATION}}
    spec: {initContainers: [{name: NAME, image: "IMAGE"}], containers: [{name: web, image: "web:1"}]}
`
	injecting = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: NAME, labels: {app: sidecar-injector, istio.io/rev: REV}}
webhooks:
- name: a.sidecar-injector.istio.io
  sideEffects: None
  failurePolicy: Ignore
  admissionReviewVersions: [v1]
  clientConfig: {service: {name: istiod, namespace: istio-system}}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
  objectSelector: {OBJECTS}
`
)

func with(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }

func TestHazards(t *testing.T) {
	cni := func(image string) string {
		return with(agent, "NAME", "istio-cni-node", "LABEL", "k8s-app: istio-cni-node", "IMAGE", image)
	}
	const delay = `service.beta.kubernetes.io/aws-load-balancer-target-group-attributes: "stickiness.enabled=true, deregistration_delay.timeout_seconds=60"`
	lb := with(balancer, "ANNOTATION", delay, "TYPE", "LoadBalancer")
	edge := func(annotation, grace, env string) string {
		return with(gateway, "ANNOTATION", annotation, "GRACE", grace, "ENV", env)
	}
	drains := func(d string) string { return `proxy.istio.io/config: "terminationDrainDuration: ` + d + `"` }
	hook := func(name, rev, objects string) string {
		return with(injecting, "NAME", name, "REV", rev, "OBJECTS", objects)
	}
	restored := func(name, image, annotation string) string {
		return with(holding, "NAME", name, "IMAGE", image, "ANNOTATION", annotation)
	}
	one := base64.StdEncoding.EncodeToString(root(t, "one"))
	two := string(root(t, "two"))
	roots := `
apiVersion: v1
kind: Secret
metadata: {name: cacerts, namespace: istio-system}
data: {root-cert.pem: ` + one + `}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-ca-root-cert, namespace: kube-public, labels: {istio.io/config: "true"}}
data: {root-cert.pem: ` + strings.ReplaceAll(`"`+two+`"`, "\n", `\n`) + "}\n"
	k, err := knowledge.Default()
	if err != nil {
		t.Fatal(err)
	}
	target := semver.MustParse("1.31.0")
	for name, c := range map[string]struct {
		there []string
		says  string // "" for no hazard
	}{
		"a mesh as it is installed":         {nil, ""},
		"agents one minor behind":           {[]string{cni("install-cni:1.30.1")}, ""},
		"agents two minors behind":          {[]string{cni("install-cni:1.29.0")}, "istio-cni-node in kube-system is 1.29.0: control plane 1.31.0, data plane 1.29.0: 2 minor versions behind"},
		"agents ahead":                      {[]string{cni("install-cni:1.32.0-distroless")}, "the data plane is ahead"},
		"agents of which nothing is known":  {[]string{cni("install-cni:mine")}, ""},
		"ztunnel two minors behind":         {[]string{with(agent, "NAME", "ztunnel", "LABEL", "app: ztunnel", "IMAGE", "ztunnel:1.29.5")}, "ztunnel in kube-system is 1.29.5"},
		"pods are repaired":                 {[]string{cni("install-cni:1.30.1"), with(cniConfig, "VALUE", "true")}, ""},
		"pods are not repaired":             {[]string{cni("install-cni:1.30.1"), with(cniConfig, "VALUE", "false")}, "repairs no pods"},
		"the load balancer is quicker":      {[]string{lb, edge(drains("60s"), "terminationGracePeriodSeconds: 90,", "")}, ""},
		"the load balancer is slower":       {[]string{lb, edge("", "terminationGracePeriodSeconds: 90,", "")}, "deployment.apps/edge in default ends 5s after it is told to, and the load balancer of service/edge in default sends traffic for 1m0s"},
		"the pod's grace is too short":      {[]string{lb, edge(drains("60s"), "", "")}, "ends 30s after"},
		"it waits for its connections":      {[]string{lb, edge("", "terminationGracePeriodSeconds: 90,", `{name: EXIT_ON_ZERO_ACTIVE_CONNECTIONS, value: "true"}`)}, ""},
		"the older annotation":              {[]string{with(balancer, "ANNOTATION", `service.beta.kubernetes.io/aws-load-balancer-connection-draining-timeout: "45"`, "TYPE", "LoadBalancer"), edge("", "", "")}, "sends traffic for 45s"},
		"a load balancer that says nothing": {[]string{with(balancer, "ANNOTATION", "", "TYPE", "LoadBalancer"), edge("", "", "")}, ""},
		"no load balancer":                  {[]string{with(balancer, "ANNOTATION", delay, "TYPE", "ClusterIP"), edge("", "", "")}, ""},
		"nothing of Istio behind it":        {[]string{lb, with(edge("", "", ""), "istio-proxy", "nginx")}, ""},
		"injectors of two revisions":        {[]string{hook("a", "old", ""), hook("b", "new", "")}, "mutatingwebhookconfigurations a and b both inject pods of namespace default, for revisions old and new"},
		"injectors of one revision":         {[]string{hook("a", "old", ""), hook("b", "old", "")}, ""},
		"injectors of different pods":       {[]string{hook("a", "old", `matchLabels: {x: "1"}`), hook("b", "new", "")}, ""},
		"a template that was injected":      {[]string{hook("a", "old", ""), restored("istio-init", "proxyv2:1.30.1", "")}, "deployment.apps/web in default: its template already holds an injected sidecar (init container istio-init), and mutatingwebhookconfiguration a injects another"},
		"injected beside Istio CNI":         {[]string{hook("a", "old", ""), restored("istio-validation", "proxyv2:1.30.1", "")}, "init container istio-validation"},
		"its annotation is there":           {[]string{hook("a", "old", ""), restored("istio-init", "proxyv2:1.30.1", `sidecar.istio.io/status: '{"initContainers":["istio-init"]}'`)}, ""},
		"nobody injects it":                 {[]string{restored("istio-init", "proxyv2:1.30.1", "")}, ""},
		"somebody sets what is injected":    {[]string{hook("a", "old", ""), restored("istio-init", "auto", "")}, ""},
		"roots that differ":                 {[]string{roots}, "roots of trust differ"},
	} {
		t.Run(name, func(t *testing.T) {
			r := generated(t)
			for _, doc := range strings.Split(strings.Join(c.there, "\n---\n"), "\n---\n") {
				o := &cluster.Object{}
				if err := utilyaml.Unmarshal([]byte(doc), &o.Object); err != nil {
					t.Fatalf("%v in %s", err, doc)
				}
				if len(o.Object) == 0 {
					continue
				}
				if _, err := r.Apply(t.Context(), o, cluster.ApplyOptions{Force: true, Manager: "test"}); err != nil {
					t.Fatal(err)
				}
			}
			px, err := mesh.Census(t.Context(), r, mesh.CensusOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := mesh.Hazards(t.Context(), r, k, target, px)
			if err != nil {
				t.Fatal(err)
			}
			if c.says == "" && len(got) > 0 {
				t.Errorf("found %+v", got)
			}
			if c.says != "" && (len(got) != 1 || !strings.Contains(got[0].Problem, c.says) || got[0].Next == "") {
				t.Errorf("found %+v, want one that says %q", got, c.says)
			}
		})
	}
}
