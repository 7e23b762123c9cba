package impact_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/impact"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/twin"
)

// hook is the injection webhook of a revision or, with a tag, of that.
func hook(name, rev, tag, nsLabel, nsValue string) string {
	service, labels := "istiod", "app: sidecar-injector, istio.io/rev: "+rev
	if rev != "default" {
		service += "-" + rev
	}
	if tag != "" {
		labels += ", istio.io/tag: " + tag
	}
	return fmt.Sprintf(`
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: %s, labels: {%s}}
webhooks:
- name: rev.namespace.sidecar-injector.istio.io
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: Fail
  clientConfig: {service: {name: %s, namespace: istio-system, path: /inject, port: 443}}
  namespaceSelector: {matchLabels: {%s: %s}}
  objectSelector: {matchExpressions: [{key: sidecar.istio.io/inject, operator: NotIn, values: ["false"]}]}
  rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]
`, name, labels, service, nsLabel, nsValue)
}

func revision(rev, version string) string {
	suffix := ""
	if rev != "default" {
		suffix = "-" + rev
	}
	return strings.NewReplacer("SUFFIX", suffix, "REV", rev, "VERSION", version).Replace(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiodSUFFIX, namespace: istio-system, labels: {app: istiod, istio.io/rev: REV}}
spec:
  replicas: 2
  selector: {matchLabels: {app: istiod, istio.io/rev: REV}}
  template:
    metadata: {labels: {app: istiod, istio.io/rev: REV, sidecar.istio.io/inject: "false"}}
    spec: {containers: [{name: discovery, image: "docker.io/istio/pilot:VERSION"}]}
---
apiVersion: v1
kind: Service
metadata: {name: istiodSUFFIX, namespace: istio-system, labels: {app: istiod, istio.io/rev: REV}}
spec: {selector: {app: istiod, istio.io/rev: REV}, ports: [{name: https-webhook, port: 443}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injectorSUFFIX, namespace: istio-system, labels: {istio.io/rev: REV}}
data:
  config: "templates: {}"
  values: '{"global":{"hub":"docker.io/istio","tag":"VERSION"}}'
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istioSUFFIX, namespace: istio-system}
data: {mesh: "accessLogFile: /dev/stdout"}
`)
}

func app(namespace, name, more string) string {
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s%[3]s}}
    spec: {containers: [{name: app, image: "app:1"}]}
`, namespace, name, more)
}

const base = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {allocatable: {cpu: "64", memory: 128Gi, pods: "250"}, conditions: [{type: Ready, status: "True"}]}
---
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/rev: prod}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bank, labels: {istio-injection: enabled}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: plain}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.gateway.networking.k8s.io, annotations: {api-approved.kubernetes.io: "https://example.org"}}
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: {kind: Gateway, plural: gateways, singular: gateway, listKind: GatewayList}
  versions: [{name: v1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gatewayclasses.gateway.networking.k8s.io, annotations: {api-approved.kubernetes.io: "https://example.org"}}
spec:
  group: gateway.networking.k8s.io
  scope: Cluster
  names: {kind: GatewayClass, plural: gatewayclasses, singular: gatewayclass, listKind: GatewayClassList}
  versions: [{name: v1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sidecars.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {kind: Sidecar, plural: sidecars, singular: sidecar, listKind: SidecarList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {host: {type: string}, mode: {type: string}}}}}}}]
`

const later = `
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: web, namespace: shop}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s, namespace: shop}, spec: {host: a, mode: b}}
---
{apiVersion: v1, kind: Pod, metadata: {name: lone, namespace: shop, labels: {app: lone}}, spec: {containers: [{name: app, image: "app:1"}]}}
`

// live is a cluster with two revisions: default of 1.30.3, which the tag prod
// names, and 1-31-0. shop follows the tag, bank istio-injection, plain nothing.
func live(t *testing.T) *sim.Cluster {
	t.Helper()
	c, err := sim.New(sim.Options{Controllers: append(controllers.All(), mesh.NewIstiods().Controllers()...), Injector: mesh.StubInjector{}, InjectOnLoad: true})
	if err != nil {
		t.Fatal(err)
	}
	load := func(text string) {
		t.Helper()
		objs, err := sim.ReadObjects(strings.NewReader(text), "objects")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Load(objs); err != nil {
			t.Fatal(err)
		}
		c.Advance(3 * time.Minute)
	}
	load(base)
	load(strings.TrimPrefix(revision("default", "1.30.3")+revision("1-31-0", "1.31.0"), "\n---\n"))
	load(strings.TrimPrefix(hook("istio-sidecar-injector", "default", "", "istio-injection", "enabled")+hook("istio-sidecar-injector-1-31-0", "1-31-0", "", "istio.io/rev", "1-31-0")+
		hook("istio-revision-tag-prod", "default", "prod", "istio.io/rev", "prod"), "\n---\n"))
	load(strings.TrimPrefix(app("shop", "cart", "")+app("shop", "opted", `, sidecar.istio.io/inject: "false"`)+app("bank", "ledger", "")+app("plain", "other", "")+later, "\n---\n"))
	return c
}

// look finds the impact of changes on a cluster.
func look(t *testing.T, s *sim.Cluster, changes func(context.Context, *cluster.Client) ([]impact.Change, error)) (*impact.Report, error) {
	t.Helper()
	c, err := cluster.New(s.Config(), "prod", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.ClearRequests()
	tw, err := twin.New(t.Context(), c, twin.Options{
		Controllers: append(controllers.All(), mesh.NewIstiods().Controllers()...), Injector: mesh.StubInjector{}, Now: s.Clock().Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := impact.Of(t.Context(), impact.Request{Twin: tw, Version: "test", Changes: changes})
	for _, q := range s.Requests() {
		if q.Verb != "get" && q.Verb != "list" && !q.DryRun {
			t.Errorf("%s of %s/%s reached the cluster", q.Verb, q.Resource, q.Name)
		}
	}
	return r, err
}

func objects(t *testing.T, text string, change func(*cluster.Object) impact.Change) func(context.Context, *cluster.Client) ([]impact.Change, error) {
	t.Helper()
	objs, err := sim.ReadObjects(strings.NewReader(text), "changed")
	if err != nil {
		t.Fatal(err)
	}
	var out []impact.Change
	for _, o := range objs {
		out = append(out, change(o))
	}
	return func(context.Context, *cluster.Client) ([]impact.Change, error) { return out, nil }
}

// told is a report in a line for each workload that is made anew, or is a bare pod
// that would be.
func told(r *impact.Report) []string {
	var out []string
	for when, list := range map[string][]impact.Affected{"now": r.Now, "later": r.Later, "never": r.Never} {
		for _, a := range list {
			if when == "never" && (a.Ref.Kind != "Pod" || a.Why == "nothing makes a bare pod anew") {
				continue
			}
			s := fmt.Sprintf("%s %s/%s (%s) %d pods, %q to %q: %s", when, a.Ref.Namespace, a.Ref.Name, a.Role, len(a.Pods), a.From, a.To, a.Why)
			if a.Outdated {
				s += " [outdated]"
			}
			out = append(out, s)
		}
	}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %s: %s", f.Code, f.Ref, f.Problem))
	}
	slices.Sort(out)
	return out
}
