// Package injection holds the simulated injection of sidecars against a real
// API server that calls a real istiod: which pods are injected, by which
// revision, and what they then hold. Every namespace of the table meets every
// pod of it. The real answers are in testdata/decisions.txtar; under the build
// tag e2e a real mesh has to give them, and with -record writes them.
package injection

// The control planes that the pods meet: the default revision and canary, with
// the tag that mesh.Build makes for a named revision.
const (
	oldVersion = "1.30.3"
	newVersion = "1.31.0"
	canary     = "canary"
)

// space is a namespace by its labels, as YAML.
type space struct{ name, labels string }

var spaces = []space{
	{"plain", `{}`},
	{"enabled", `{istio-injection: enabled}`},
	{"disabled", `{istio-injection: disabled}`},
	{"misspelt", `{istio-injection: "true"}`},
	{"rev-default", `{istio.io/rev: default}`},
	{"rev-canary", `{istio.io/rev: canary}`},
	{"tag", `{istio.io/rev: stable}`},
	{"rev-unknown", `{istio.io/rev: none}`},
	{"enabled-and-rev", `{istio-injection: enabled, istio.io/rev: canary}`},
	{"disabled-and-rev", `{istio-injection: disabled, istio.io/rev: canary}`},
	{"ambient", `{istio.io/dataplane-mode: ambient}`},
	{"ambient-and-enabled", `{istio.io/dataplane-mode: ambient, istio-injection: enabled}`},
}

// systems are namespaces that there are, relabelled for the time of the test.
var systems = []space{
	{"default", `{istio-injection: enabled}`},
	{"kube-system", `{istio-injection: enabled}`},
	{"kube-public", `{istio.io/rev: canary}`},
	{"kube-node-lease", `{istio-injection: enabled}`},
}

// pod is a pod to be created; dry-run, since only its admission is looked at.
type pod struct{ name, metadata, spec string }

const app = `containers: [{name: app, image: "example/app:1"}]`

// pods meet every namespace.
var pods = []pod{
	{"nothing said", ``, app},
	{"label true", `labels: {sidecar.istio.io/inject: "true"}`, app},
	{"label false", `labels: {sidecar.istio.io/inject: "false"}`, app},
	{"label nonsense", `labels: {sidecar.istio.io/inject: maybe}`, app},
	{"annotation true", `annotations: {sidecar.istio.io/inject: "true"}`, app},
	{"annotation false", `annotations: {sidecar.istio.io/inject: "false"}`, app},
	{"label true, annotation false", `labels: {sidecar.istio.io/inject: "true"}, annotations: {sidecar.istio.io/inject: "false"}`, app},
	{"label false, annotation true", `labels: {sidecar.istio.io/inject: "false"}, annotations: {sidecar.istio.io/inject: "true"}`, app},
	{"revision", `labels: {istio.io/rev: canary}`, app},
	{"default revision", `labels: {istio.io/rev: default}`, app},
	{"tag", `labels: {istio.io/rev: stable}`, app},
	{"unknown revision", `labels: {istio.io/rev: none}`, app},
	{"label true and revision", `labels: {sidecar.istio.io/inject: "true", istio.io/rev: canary}`, app},
	{"label false and revision", `labels: {sidecar.istio.io/inject: "false", istio.io/rev: canary}`, app},
	{"label true and tag", `labels: {sidecar.istio.io/inject: "true", istio.io/rev: stable}`, app},
	{"host network", ``, `hostNetwork: true, ` + app},
	{"host network, label true", `labels: {sidecar.istio.io/inject: "true"}`, `hostNetwork: true, ` + app},
	{"injected before", `annotations: {sidecar.istio.io/status: "{}"}`, app},
	{"ambient label", `labels: {istio.io/dataplane-mode: ambient}`, app},
}

// shapes are pods whose injected form matters; they meet the namespaces that
// inject.
var shapes = []pod{
	{"two containers", ``, `containers: [{name: app, image: "example/app:1"}, {name: other, image: "example/other:1"}]`},
	{"an init container", ``, `initContainers: [{name: prepare, image: "example/prepare:1"}], ` + app},
	{"a pod of a job", ``, `restartPolicy: Never, ` + app},
	{"generated name and owner", `name: "", generateName: web-7d9f-, labels: {app: web, version: v2, pod-template-hash: 7d9f}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-7d9f, uid: 11111111-1111-1111-1111-111111111111, controller: true}]`, app},
	{"image by annotation", `annotations: {sidecar.istio.io/proxyImage: "example/proxy:2"}`, app},
	{"no native sidecar", `annotations: {sidecar.istio.io/nativeSidecar: "false"}`, app},
	{"native sidecar", `annotations: {sidecar.istio.io/nativeSidecar: "true"}`, app},
	{"gateway template", `annotations: {inject.istio.io/templates: gateway}`, `containers: [{name: istio-proxy, image: auto}]`},
	{"unknown template", `annotations: {inject.istio.io/templates: none}`, app},
	{"proxy container of its own", ``, `containers: [{name: app, image: "example/app:1"}, {name: istio-proxy, image: auto}]`},
	{"proxy resources", `annotations: {sidecar.istio.io/proxyCPU: 250m, sidecar.istio.io/proxyMemory: 64Mi}`, app},
	{"excluded ports", `annotations: {traffic.sidecar.istio.io/excludeInboundPorts: "9090"}`, app},
	{"no redirection", `annotations: {sidecar.istio.io/interceptionMode: NONE}`, app},
	{"a bad annotation", `annotations: {sidecar.istio.io/interceptionMode: SIDEWAYS}`, app},
	{"held until the proxy is there", `annotations: {proxy.istio.io/config: "{holdApplicationUntilProxyStarts: true}"}`, app},
}

var injecting = []string{"enabled", "rev-canary", "tag"}
