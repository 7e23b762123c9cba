package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
)

// ProxyContainer is the name of the sidecar's container.
const ProxyContainer = "istio-proxy"

// ErrInjectorConfig is returned when the injector's ConfigMap cannot be used.
var ErrInjectorConfig = errors.New("injector configuration is not usable")

// StubInjector injects sidecars without Istio's template engine: the
// containers, volumes, labels and annotations that the sidecar template of
// istio.io/istio (injection-template.yaml) yields, as far as an upgrade can see
// them. What depends on configuration is read from the injector's ConfigMap, so
// that a pod made after it changed is injected anew.
type StubInjector struct{}

var _ sim.Injector = StubInjector{}

// injectorValues are the values that the template reads.
type injectorValues struct {
	Global struct {
		Hub     string `json:"hub"`
		Tag     any    `json:"tag"`
		Variant string `json:"variant"`
		Proxy   struct {
			Image     string         `json:"image"`
			Resources map[string]any `json:"resources"`
		} `json:"proxy"`
		ImagePullSecrets []string `json:"imagePullSecrets"`
	} `json:"global"`
	Pilot struct {
		CNI struct {
			Enabled bool `json:"enabled"`
		} `json:"cni"`
	} `json:"pilot"`
}

// Inject implements sim.Injector. A pod that uses the host's network, of a
// namespace of Kubernetes itself, that was injected before, or whose annotation refuses injection where its label does
// not ask for it (the rest of the label is the webhook's selectors' to judge), is
// returned as it is.
func (StubInjector) Inject(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	pod := in.Pod.DeepCopy()
	if host, _, _ := unstructured.NestedBool(pod.Object, "spec", "hostNetwork"); host {
		return pod, nil
	}
	if slices.Contains(ignoredNamespaces(), in.Pod.GetNamespace()) {
		return pod, nil
	}
	label, notes := pod.GetLabels()["sidecar.istio.io/inject"], pod.GetAnnotations()
	if injectedBefore(pod) || notes["sidecar.istio.io/inject"] == "false" && label != "true" {
		return pod, nil
	}
	var v injectorValues
	if err := json.Unmarshal([]byte(in.InjectorConfig["values"]), &v); err != nil {
		return nil, fmt.Errorf("configmap istio-sidecar-injector of revision %s: values: %w: %w", in.Revision, ErrInjectorConfig, err)
	}
	s := &stub{pod: pod, values: v, revision: in.Revision}
	if s.revision == "" {
		s.revision = "default"
	}
	s.inject()
	return pod, nil
}

// injectedBefore reports whether a pod has its sidecar; the annotation alone
// does not say so.
func injectedBefore(pod *unstructured.Unstructured) bool {
	if pod.GetAnnotations()["sidecar.istio.io/status"] == "" {
		return false
	}
	spec, _ := pod.Object["spec"].(object)
	for _, field := range []string{"containers", "initContainers"} {
		if list, _ := spec[field].([]any); slices.ContainsFunc(list, named(ProxyContainer)) {
			return true
		}
	}
	return false
}

// ignoredNamespaces are those whose pods istiod never injects, whatever their
// labels (istio.io/istio pkg/kube/inject, IgnoredNamespaces).
func ignoredNamespaces() []string {
	return []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}
}

type stub struct {
	pod      *unstructured.Unstructured
	values   injectorValues
	revision string
}

func (s *stub) image() string {
	name := s.pod.GetAnnotations()["sidecar.istio.io/proxyImage"]
	if name == "" {
		name = s.values.Global.Proxy.Image
	}
	if name == "" {
		name = "proxyv2"
	}
	if strings.Contains(name, "/") {
		return name
	}
	image := fmt.Sprintf("%s/%s:%v", s.values.Global.Hub, name, s.values.Global.Tag)
	if variant := s.values.Global.Variant; variant != "" && !strings.HasSuffix(image, "-"+variant) {
		image += "-" + variant
	}
	return image
}

// native reports whether the sidecar is an init container that keeps running,
// the default since Istio 1.27.
func (s *stub) native() bool {
	switch s.pod.GetAnnotations()["sidecar.istio.io/nativeSidecar"] {
	case "true":
		return true
	case "false":
		return false
	}
	v, err := semver.NewVersion(fmt.Sprint(s.values.Global.Tag))
	return err != nil || v.Major() > 1 || v.Minor() >= 27
}

func (s *stub) inject() {
	spec, _ := s.pod.Object["spec"].(object)
	containers, _ := spec["containers"].([]any)
	inits, _ := spec["initContainers"].([]any)
	status := object{"initContainers": nil, "containers": nil, "volumes": volumeNames(), "imagePullSecrets": nil, "revision": s.revision}
	if i := slices.IndexFunc(containers, named(ProxyContainer)); i >= 0 {
		// A gateway brings its own proxy container, which gets its image here.
		own, _ := containers[i].(object)
		if own["image"] == "auto" {
			own["image"] = s.image()
		}
		status["containers"] = []any{ProxyContainer}
	} else {
		setup := s.setupContainer()
		if s.native() {
			proxy := s.proxyContainer()
			proxy["restartPolicy"] = "Always"
			spec["initContainers"] = append([]any{setup, proxy}, inits...)
			status["initContainers"] = []any{setup["name"], ProxyContainer}
		} else {
			spec["initContainers"] = append([]any{setup}, inits...)
			spec["containers"] = append([]any{s.proxyContainer()}, containers...)
			status["initContainers"], status["containers"] = []any{setup["name"]}, []any{ProxyContainer}
		}
	}
	volumes, _ := spec["volumes"].([]any)
	spec["volumes"] = append(proxyVolumes(), volumes...)
	if len(s.values.Global.ImagePullSecrets) > 0 {
		secrets, _ := spec["imagePullSecrets"].([]any)
		var names []any
		for _, n := range s.values.Global.ImagePullSecrets {
			secrets, names = append(secrets, object{"name": n}), append(names, n)
		}
		spec["imagePullSecrets"], status["imagePullSecrets"] = secrets, names
	}
	s.describe(status, containers)
}

func named(name string) func(any) bool {
	return func(c any) bool { m, _ := c.(object); return m["name"] == name }
}

func (s *stub) setupContainer() object {
	c := object{
		"name": "istio-init", "image": s.image(),
		"args": []any{"istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020"},
		"securityContext": object{
			"allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": false,
			"runAsGroup": int64(0), "runAsNonRoot": false, "runAsUser": int64(0),
			"capabilities": object{"add": []any{"NET_ADMIN", "NET_RAW"}, "drop": []any{"ALL"}},
		},
	}
	if s.values.Pilot.CNI.Enabled {
		args, _ := c["args"].([]any)
		c["name"], c["args"] = "istio-validation", append(args, "--run-validation", "--skip-rule-apply")
		c["securityContext"] = object{
			"allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
			"runAsGroup": int64(1337), "runAsNonRoot": true, "runAsUser": int64(1337),
			"capabilities": object{"drop": []any{"ALL"}},
		}
	}
	return c
}

func (s *stub) proxyContainer() object {
	c := object{
		"name": ProxyContainer, "image": s.image(),
		"args":  []any{"proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning", "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info"},
		"ports": []any{object{"containerPort": int64(15090), "name": "http-envoy-prom", "protocol": "TCP"}},
		"securityContext": object{
			"allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
			"runAsGroup": int64(1337), "runAsNonRoot": true, "runAsUser": int64(1337), "capabilities": object{"drop": []any{"ALL"}},
		},
		"readinessProbe": object{
			"httpGet":          object{"path": "/healthz/ready", "port": int64(15021)},
			"failureThreshold": int64(4), "periodSeconds": int64(15), "timeoutSeconds": int64(3),
		},
	}
	if r := s.values.Global.Proxy.Resources; len(r) > 0 {
		c["resources"] = r
	}
	return c
}

func volumeNames() []any {
	var out []any
	for _, v := range proxyVolumes() {
		out = append(out, v.(object)["name"])
	}
	return out
}

func proxyVolumes() []any {
	return []any{
		object{"name": "workload-socket", "emptyDir": object{}},
		object{"name": "credential-socket", "emptyDir": object{}},
		object{"name": "workload-certs", "emptyDir": object{}},
		object{"name": "istio-envoy", "emptyDir": object{"medium": "Memory"}},
		object{"name": "istio-data", "emptyDir": object{}},
		object{"name": "istio-podinfo", "downwardAPI": object{"items": []any{
			object{"path": "labels", "fieldRef": object{"fieldPath": "metadata.labels"}},
			object{"path": "annotations", "fieldRef": object{"fieldPath": "metadata.annotations"}},
		}}},
		object{"name": "istio-token", "projected": object{"sources": []any{
			object{"serviceAccountToken": object{"audience": "istio-ca", "expirationSeconds": int64(43200), "path": "istio-token"}},
		}}},
		object{"name": "istiod-ca-cert", "configMap": object{"name": "istio-ca-root-cert"}},
	}
}

// describe sets the labels and annotations of an injected pod.
func (s *stub) describe(status object, containers []any) {
	labels := s.pod.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	orElse(labels, "security.istio.io/tlsMode", "istio")
	orElse(labels, "service.istio.io/canonical-name", first(labels["app.kubernetes.io/name"], labels["app"], s.workloadName()))
	orElse(labels, "service.istio.io/canonical-revision", first(labels["app.kubernetes.io/version"], labels["version"], "latest"))
	s.pod.SetLabels(labels)
	notes := s.pod.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	notes["istio.io/rev"] = s.revision
	if len(containers) > 0 {
		name, _ := containers[0].(object)["name"].(string)
		orElse(notes, "kubectl.kubernetes.io/default-container", name)
		orElse(notes, "kubectl.kubernetes.io/default-logs-container", name)
	}
	orElse(notes, "prometheus.io/path", "/stats/prometheus")
	orElse(notes, "prometheus.io/port", "15020")
	orElse(notes, "prometheus.io/scrape", "true")
	data, err := json.Marshal(status)
	if err != nil {
		data = []byte("{}") // cannot happen: the status is strings and lists
	}
	notes["sidecar.istio.io/status"] = string(data)
	s.pod.SetAnnotations(notes)
}

// workloadName is the name of what the pod belongs to: the Deployment's for a
// pod of a ReplicaSet.
func (s *stub) workloadName() string {
	for _, o := range s.pod.GetOwnerReferences() {
		if o.Controller == nil || !*o.Controller {
			continue
		}
		if hash := s.pod.GetLabels()["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
			return strings.TrimSuffix(o.Name, "-"+hash)
		}
		return o.Name
	}
	return first(s.pod.GetName(), strings.TrimSuffix(s.pod.GetGenerateName(), "-"))
}

func orElse(m map[string]string, key, value string) {
	if m[key] == "" {
		m[key] = value
	}
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
