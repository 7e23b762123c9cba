package lib

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	ahead ahead
}

var (
	_ sim.Injector = (*Injector)(nil)
	_ sim.Preparer = (*Injector)(nil)
)

// injectorKeeps bounds the parsed configurations: a few revisions, before and
// after a change.
const injectorKeeps = 16

// webhook is istiod's handler for one configuration, with its answers.
type webhook struct {
	config, values, mesh, revision string

	handler http.Handler
	answers answers
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

// Prepare implements sim.Preparer: it finds out in the background what the webhook
// will answer for pods like this one.
func (i *Injector) Prepare(in sim.InjectionRequest) {
	hook, err := i.hook(in)
	if err != nil {
		return // whoever asks will hear of it
	}
	if a := hook.prepare(in); a != nil {
		i.ahead.find(a)
	}
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
		handler: handler,
	}
	if len(i.hooks) >= injectorKeeps {
		i.hooks = append([]*webhook(nil), i.hooks[1:]...)
	}
	i.hooks = append(i.hooks, h)
	return h, nil
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
	obj, err := plain.Decode(patched)
	return &unstructured.Unstructured{Object: obj}, err
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
