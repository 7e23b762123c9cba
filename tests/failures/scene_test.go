package failures

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// scene is a file of the catalogue: a mesh, what is unusual about it, and what a
// flow must do there.
type scene struct {
	base `json:",inline"`

	What string `json:"what"` // a failure, or what the mesh is, in a few words
	Seen string `json:"seen"` // the fixture, in a few words
	Flow flow   `json:"flow"` // default: in-place

	// Helm makes the installation belong to Helm releases, as Helm marks it.
	Helm bool `json:"helm"`
	// GatewayAPI brings the definitions of the Gateway API in, first of all.
	GatewayAPI bool `json:"gatewayAPI"`
	// The fixture, in this order.
	Load    string      `json:"load"`    // YAML that is there with its status, and that no admission saw
	Apply   string      `json:"apply"`   // YAML that somebody applied with kubectl
	Patches []patch     `json:"patches"` // and what somebody changed
	Delete  []object    `json:"delete"`
	Sick    []string    `json:"sick"` // rules of sickness: what the new version does to pods
	Refuse  []admission `json:"refuse"`
	// Meanwhile is what somebody else does when a step of the run begins.
	Meanwhile *meanwhile `json:"meanwhile"`

	// What the run is given besides the mesh's own.
	Params  map[string]any `json:"params"`
	Set     map[string]any `json:"set"` // values of the installation that are new
	MaxWave int            `json:"maxWave"`

	// Of healthy meshes: objects that are still there, unchanged, in the end.
	Kept []string `json:"kept"`
	// Of failures.
	Number int    `json:"number"` // up to 22 that of the upgrade guide
	Issues string `json:"issues"` // where it is told
	// By is the gate that refuses it; "" where the flow itself stops.
	By gate.Code `json:"by"`
	// At is the step that the run is stopped in once something was written; ""
	// for before the first write.
	At string `json:"at"`
	// Untouched are objects that the run must not have written to by then.
	Untouched []object `json:"untouched"`
	// Excepted are objects, as errors name them, that somebody else changed meanwhile.
	Excepted []string `json:"excepted"`
	// Restarts are how many workloads may have been restarted by then.
	Restarts int      `json:"restarts"`
	Says     []string `json:"says"` // what the error must say, all of it

	file string
}

// object names an object as kubectl does.
type object struct {
	Ref       string `json:"ref"` // "deploy/istiod"
	Namespace string `json:"namespace"`
}

// patch is a merge patch, or a strategic one, of an object by its manager.
type patch struct {
	object `json:",inline"`
	By     string         `json:"by"`   // field manager; default kubectl
	Type   string         `json:"type"` // "merge" (default) or "strategic"
	Merge  map[string]any `json:"patch"`
}

// admission refuses objects as a policy does.
type admission struct {
	Kind      string `json:"kind"` // resource, "pods"
	Namespace string `json:"namespace"`
	Operation string `json:"operation"` // default: CREATE
	// Native: only pods whose sidecar is an init container.
	Native   bool   `json:"native"`
	Image    string `json:"image"`    // only pods with this in an image
	LiveOnly bool   `json:"liveOnly"` // dry-runs pass, as of a webhook that is not told of them
	Message  string `json:"message"`
}

type meanwhile struct {
	Step    string  `json:"step"`
	Patches []patch `json:"patches"`
	Apply   string  `json:"apply"`
}

// scenes reads the files of a folder in the order of their names.
func scenes(t testing.TB, folder string) []scene {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", folder, len(files), err)
	}
	slices.Sort(files)
	var out []scene
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := scene{file: filepath.Base(file), Flow: inPlace}
		if err := yaml.UnmarshalStrict(text, &s); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, s)
	}
	return out
}

// arrange makes the world of the scene.
func (s scene) arrange(t testing.TB) *world {
	t.Helper()
	w := newWorld(t, s.base, s.Flow)
	maps.Copy(w.params, s.Params)
	if set, ok := w.params["set"].(map[string]any); ok {
		maps.Copy(set, s.Set)
	}
	w.policy = &gate.Policy{MaxWave: s.MaxWave}
	if s.Helm {
		w.ownedByHelm()
	}
	if s.GatewayAPI {
		text, err := os.ReadFile(filepath.Join("..", "..", "runtime", "sim", "mesh", "testdata", "gateway-api.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		w.load(string(text))
	}
	w.load(s.Load)
	w.apply(s.Apply)
	if len(s.Patches) > 0 {
		w.sim.Advance(settle) // for what istiod makes of it
	}
	w.patch(s.Patches...)
	w.remove(s.Delete...)
	if len(s.Sick) > 0 {
		w.apply(sick(s.Sick...))
	}
	w.sim.Advance(settle)
	for _, a := range s.Refuse {
		w.sim.OnAdmission(a.judge)
	}
	if m := s.Meanwhile; m != nil {
		w.on = func(e event.Event) {
			if b, ok := e.Body.(*event.StepStarted); ok && b.Name == m.Step {
				w.apply(m.Apply)
				w.patch(m.Patches...)
			}
		}
	}
	return w
}

// judge implements sim.AdmissionHook.
func (a admission) judge(r sim.Admission) error {
	op := a.Operation
	if op == "" {
		op = "CREATE"
	}
	o := r.Object
	if o == nil || r.Resource != a.Kind || r.Operation != op || a.Namespace != "" && r.Namespace != a.Namespace || a.LiveOnly && r.DryRun {
		return nil
	}
	if a.Native && !native(o) || a.Image != "" && !hasImage(o, a.Image) {
		return nil
	}
	return errors.New(a.Message)
}

// native reports whether a pod's proxy is an init container that keeps running.
func native(pod *unstructured.Unstructured) bool {
	inits, _, _ := unstructured.NestedSlice(pod.Object, "spec", "initContainers")
	return slices.ContainsFunc(inits, func(c any) bool {
		m, _ := c.(map[string]any)
		return m["restartPolicy"] == "Always"
	})
}

// ref resolves what kubectl would.
func (w *world) ref(o object) cluster.Ref {
	w.t.Helper()
	resource, name, err := cluster.ParseRef(o.Ref)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.admin.Resolve(w.t.Context(), resource)
	if err != nil {
		w.t.Fatal(err)
	}
	ns := o.Namespace
	if !res.Namespaced {
		ns = ""
	} else if ns == "" {
		w.t.Fatalf("%s: no namespace", o.Ref)
	}
	return res.ResourceRef(ns, name)
}

func (s scene) String() string { return fmt.Sprintf("%s: %s", s.file, s.What) }

// ownedByHelm moves every object of the installation to a Helm release: its labels
// and annotations, and the fields that Helm would own.
func (w *world) ownedByHelm() {
	w.t.Helper()
	var all []*unstructured.Unstructured
	for _, o := range w.sim.Objects() {
		if mesh.ManagerOf(o) != mesh.InstallManager {
			continue
		}
		o = o.DeepCopy()
		l, notes, fields := o.GetLabels(), o.GetAnnotations(), o.GetManagedFields()
		for k := range l {
			if strings.HasPrefix(k, "operator.istio.io/") || strings.HasPrefix(k, "install.operator.istio.io/") {
				delete(l, k)
			}
		}
		if notes == nil {
			notes = map[string]string{}
		}
		l["app.kubernetes.io/managed-by"] = "Helm"
		notes["meta.helm.sh/release-name"], notes["meta.helm.sh/release-namespace"] = "istiod", mesh.SystemNamespace
		for i := range fields {
			if fields[i].Manager == mesh.InstallManager {
				fields[i].Manager, fields[i].Operation = "helm", metav1.ManagedFieldsOperationUpdate
			}
		}
		o.SetLabels(l)
		o.SetAnnotations(notes)
		o.SetManagedFields(fields)
		all = append(all, o)
	}
	if err := w.sim.Load(all); err != nil {
		w.t.Fatal(err)
	}
}
