package lib

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/kube/inject"
	"istio.io/istio/pkg/kube/krt"
	"istio.io/istio/pkg/kube/multicluster"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim"
)

// Injector is Istio's sidecar injector for the simulated cluster: istiod's own
// webhook handler, fed with the injector's and the mesh's ConfigMaps. So it
// follows whatever a cluster's ConfigMaps say, of whatever Istio version they
// are, and differs from the istiod of another version only where that one's
// code (not its templates) does. It is safe for concurrent use.
//
// It sees no ProxyConfig resources; annotations and meshConfig.defaultConfig
// are honoured.
type Injector struct {
	mu    sync.Mutex
	hooks []*webhook // oldest first
}

var _ sim.Injector = (*Injector)(nil)

const (
	// injectorKeeps bounds the parsed configurations: a few revisions, before
	// and after a change.
	injectorKeeps = 16
	// webhookKeeps bounds the remembered answers per configuration.
	webhookKeeps = 4096
)

// webhook is istiod's handler for one configuration. It remembers its answers:
// the replicas of a workload differ in name and identity only, and an
// injection costs about 3 ms.
type webhook struct {
	config, values, mesh, revision string

	handler http.Handler
	mu      sync.Mutex
	answers map[string]*unstructured.Unstructured // nil value: not injected
	order   []string                              // keys of answers, oldest first
}

// NewInjector makes an Injector.
func NewInjector() *Injector { return &Injector{} }

// Inject implements sim.Injector. It returns a changed copy, or the pod itself
// when injection policy, labels, annotations or host networking say no. The
// error is the webhook's refusal in its own words, or says which ConfigMap key
// is unusable.
func (i *Injector) Inject(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	hook, err := i.hook(in)
	if err != nil {
		return nil, fmt.Errorf("injection webhook of revision %q: %w", in.Revision, err)
	}
	return hook.inject(in)
}

// hook returns the webhook for the request's configuration. The texts are
// long but mostly the same strings, which compare by their address.
func (i *Injector) hook(in sim.InjectionRequest) (*webhook, error) {
	config, values, meshYAML := in.InjectorConfig["config"], in.InjectorConfig["values"], in.MeshConfig["mesh"]
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, h := range i.hooks {
		if h.revision == in.Revision && h.mesh == meshYAML && h.values == values && h.config == config {
			return h, nil
		}
	}
	handler, err := newWebhook(config, values, meshYAML, in.Revision)
	if err != nil {
		return nil, err
	}
	h := &webhook{
		config: config, values: values, mesh: meshYAML, revision: in.Revision,
		handler: handler, answers: map[string]*unstructured.Unstructured{},
	}
	if len(i.hooks) >= injectorKeeps {
		i.hooks = append([]*webhook(nil), i.hooks[1:]...)
	}
	i.hooks = append(i.hooks, h)
	return h, nil
}

// identity are the metadata that the API server or a controller gives to each
// pod of a template. Istio's templates look at none of them when the pod has
// an owner.
func identity() []string {
	return []string{"name", "uid", "creationTimestamp", "resourceVersion", "managedFields"}
}

// inject answers for the pod without its identity, and gives it back.
func (h *webhook) inject(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	if in.Pod.GetGenerateName() == "" || metav1.GetControllerOfNoCopy(in.Pod) == nil {
		return h.ask(in, in.Pod) // the name means something: nothing to share
	}
	anonymous, own := withoutIdentity(in.Pod)
	pin := unpinned(anonymous)
	key, err := podKey(anonymous, requestNamespace(in))
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	answer, known := h.answers[key]
	h.mu.Unlock()
	if !known {
		if answer, err = h.ask(in, anonymous); err != nil {
			return nil, err
		}
		if answer == anonymous {
			answer = nil
		}
		h.remember(key, answer)
	}
	if answer == nil {
		return in.Pod, nil
	}
	if pin != nil && specOf(answer)["affinity"] != nil {
		return h.ask(in, in.Pod) // a template of this mesh has a say about it
	}
	out := answer.DeepCopy()
	if pin != nil {
		specOf(out)["affinity"] = runtime.DeepCopyJSONValue(pin)
	}
	meta := out.Object["metadata"].(map[string]any)
	for k, v := range own {
		meta[k] = runtime.DeepCopyJSONValue(v)
	}
	return out, nil
}

func (h *webhook) remember(key string, answer *unstructured.Unstructured) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.answers[key]; ok {
		return
	}
	if len(h.order) >= webhookKeeps {
		delete(h.answers, h.order[0])
		h.order = h.order[1:]
	}
	h.answers[key] = answer
	h.order = append(h.order, key)
}

// withoutIdentity returns a shallow copy without identity metadata, and those.
func withoutIdentity(p *unstructured.Unstructured) (*unstructured.Unstructured, map[string]any) {
	meta, own := map[string]any{}, map[string]any{}
	if m, ok := p.Object["metadata"].(map[string]any); ok {
		for k, v := range m {
			meta[k] = v
		}
	}
	for _, k := range identity() {
		if v, ok := meta[k]; ok {
			own[k] = v
			delete(meta, k)
		}
	}
	obj := map[string]any{}
	for k, v := range p.Object {
		obj[k] = v
	}
	obj["metadata"] = meta
	return &unstructured.Unstructured{Object: obj}, own
}

// unpinned takes from the copy of a DaemonSet's pod the affinity that pins it to
// its node, and returns it: it is all in which it differs from those of other
// nodes. Nil where there is none.
func unpinned(p *unstructured.Unstructured) any {
	owner := metav1.GetControllerOfNoCopy(p)
	spec := specOf(p)
	pin := spec["affinity"]
	if owner == nil || owner.Kind != "DaemonSet" || pin == nil {
		return nil
	}
	spec = maps.Clone(spec)
	delete(spec, "affinity")
	p.Object["spec"] = spec
	return pin
}

func specOf(p *unstructured.Unstructured) map[string]any {
	spec, _ := p.Object["spec"].(map[string]any)
	return spec
}

func podKey(p *unstructured.Unstructured, namespace string) (string, error) {
	b, err := plain.Encode(p.Object) // sorts keys
	return namespace + " " + sum(b), err
}

// ask sends the pod to the webhook and applies its patch. It returns p itself
// when there is nothing to inject.
func (h *webhook) ask(in sim.InjectionRequest, p *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	raw, err := p.MarshalJSON()
	if err != nil {
		return nil, err
	}
	patch, err := callWebhook(h.handler, requestNamespace(in), p.GetName(), raw)
	if err != nil || len(patch) == 0 {
		return p, err
	}
	out, err := applyPatch(raw, patch)
	if err != nil {
		return nil, fmt.Errorf("its patch: %w", err)
	}
	return out, nil
}

// newWebhook builds istiod's webhook from the texts in the ConfigMaps.
func newWebhook(config, values, meshYAML, revision string) (h http.Handler, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("istio library: %v", p)
		}
	}()
	if config == "" {
		return nil, errors.New("configmap istio-sidecar-injector: no key \"config\"")
	}
	if values == "" {
		return nil, errors.New("configmap istio-sidecar-injector: no key \"values\"")
	}
	parsed, err := inject.UnmarshalConfig([]byte(config))
	if err != nil {
		return nil, fmt.Errorf("configmap istio-sidecar-injector: config: %w", err)
	}
	meshCfg, err := mesh.ApplyMeshConfigDefaults(meshYAML)
	if err != nil {
		return nil, fmt.Errorf("configmap istio: mesh: %w", err)
	}
	env := &model.Environment{Watcher: fixedMesh{cfg: meshCfg}}
	env.SetPushContext(&model.PushContext{ProxyConfigs: &model.ProxyConfigs{}})
	mux := http.NewServeMux()
	_, err = inject.NewWebhook(inject.WebhookParameters{
		Watcher:  fixedConfig{config: &parsed, values: values},
		Env:      env,
		Mux:      mux,
		Revision: revision,
		// Only asked for nodes, and not even that with native sidecars on (Setup).
		MultiCluster: &multicluster.Controller{},
	})
	if err != nil {
		return nil, fmt.Errorf("configmap istio-sidecar-injector: %w", err)
	}
	return mux, nil
}

// callWebhook sends the admission review that an API server would send, and
// returns the JSON patch, or nil.
func callWebhook(hook http.Handler, namespace, name string, pod []byte) (patch []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("istio library: %v", p)
		}
	}()
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:       "rutter",
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Operation: admissionv1.Create,
			Name:      name,
			Namespace: namespace,
			Object:    runtime.RawExtension{Raw: pod},
		},
	}
	body, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, "/inject", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	var rec answerRecorder
	hook.ServeHTTP(&rec, req)
	if rec.status > http.StatusOK {
		return nil, fmt.Errorf("answered %d: %s", rec.status, bytes.TrimSpace(rec.body.Bytes()))
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(rec.body.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	switch r := answer.Response; {
	case r == nil:
		return nil, errors.New("answer has no response")
	case !r.Allowed && r.Result != nil:
		return nil, errors.New(r.Result.Message)
	case !r.Allowed:
		return nil, errors.New("denied without a reason")
	default:
		return r.Patch, nil
	}
}

// answerRecorder keeps an HTTP answer.
type answerRecorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *answerRecorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *answerRecorder) WriteHeader(status int)      { r.status = status }
func (r *answerRecorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func requestNamespace(in sim.InjectionRequest) string {
	if ns := in.Pod.GetNamespace(); ns != "" {
		return ns
	}
	if in.Namespace != nil {
		return in.Namespace.GetName()
	}
	return ""
}

func applyPatch(doc, patch []byte) (*unstructured.Unstructured, error) {
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	// As the API server applies it: a path that isn't there is created.
	opts := jsonpatch.NewApplyOptions()
	opts.EnsurePathExistsOnAdd = true
	patched, err := p.ApplyWithOptions(doc, opts)
	if err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	return out, out.UnmarshalJSON(patched)
}

// fixedConfig is an injection configuration that never changes.
type fixedConfig struct {
	config *inject.Config
	values string
}

var _ inject.Watcher = fixedConfig{}

func (fixedConfig) SetHandler(func(*inject.Config, string) error) {}
func (fixedConfig) Run(<-chan struct{})                           {}
func (c fixedConfig) Get() (*inject.Config, string, error)        { return c.config, c.values, nil }

// fixedMesh is a mesh configuration that never changes. The embedded
// collection is nil: the webhook uses only the methods below.
type fixedMesh struct {
	krt.Singleton[meshwatcher.MeshConfigResource]
	cfg *meshconfig.MeshConfig
}

var _ meshwatcher.WatcherCollection = fixedMesh{}

func (m fixedMesh) Mesh() *meshconfig.MeshConfig { return m.cfg }

func (fixedMesh) AddMeshHandler(func()) *mesh.WatcherHandlerRegistration {
	return mesh.NewWatcherHandlerRegistration(func() {})
}

func (fixedMesh) DeleteMeshHandler(*mesh.WatcherHandlerRegistration) {}
