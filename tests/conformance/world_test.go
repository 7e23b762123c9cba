// Package conformance holds every declared builtin to the contract of
// declarations: documented, its example runs, a plan never writes and says what
// will be done, and a run killed anywhere ends as one that was not.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/stdlib"
)

const (
	from = "1.30.3"
	to   = lib.LinkedVersion

	journalRoot = "/runs"
	runID       = "conformance"
)

// lab is what all tests share: the assembled host and the meshes, each built
// once and cloned for every run.
type lab struct {
	host     *host.Host
	renderer *lib.Renderer
	sealer   *seal.Sealer
	meshes   map[meshState]*sim.Cluster
}

// meshState says how far along its upgrade a mesh is.
type meshState string

const (
	installed meshState = "installed" // everything at the old version
	upgraded  meshState = "upgraded"  // the control plane at the new one, proxies at the old
	retuned   meshState = "retuned"   // as upgraded, and the mesh's configuration changed since
	beside    meshState = "beside"    // as installed, with the control plane and the gateway of revision old that nothing uses
)

var theLab = sync.OnceValues(newLab)

func laboratory(t testing.TB) *lab {
	t.Helper()
	l, err := theLab()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newLab() (*lab, error) {
	if err := lib.Setup(); err != nil {
		return nil, err
	}
	l := &lab{renderer: lib.NewRenderer("")}
	set, err := modules.Set(l.renderer)
	if err != nil {
		return nil, err
	}
	l.host = &host.Host{Builtins: set, Decoders: modules.Decoders(), Stdlib: stdlib.FS, Version: "conformance", Cache: loader.NewCache()}
	if l.sealer, err = newSealer(); err != nil {
		return nil, err
	}
	return l, l.build()
}

// newSealer makes a key in a folder that is gone before the tests begin.
func newSealer() (*seal.Sealer, error) {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return nil, err
	}
	s, err := seal.Open(dir)
	return s, errors.Join(err, os.RemoveAll(dir))
}

// build makes the meshes, the later ones from the earlier.
func (l *lab) build() error {
	ctx := context.Background()
	r, err := l.renderer.Render(ctx, lib.RenderOptions{Profile: "default"})
	if err != nil {
		return err
	}
	spec := mesh.Spec{Istio: from, Workloads: 6, Namespaces: 2, Nodes: 2, Seed: 1, OnDelete: 1}
	c, err := sim.New(sim.Options{
		Seed: 1, Controllers: controllers.All(), Injector: lib.NewInjector(), InjectOnLoad: true, Connector: mesh.NewAnswers(mesh.NewIstiods(), nil),
	})
	if err != nil {
		return err
	}
	if err := mesh.Populate(c, mesh.Build(spec, mesh.Retag(r.Objects, to, from))); err != nil {
		return err
	}
	extra, err := sim.ReadFiles(os.DirFS("testdata"), "shop.yaml")
	if err != nil {
		return err
	}
	if err := c.Load(extra); err != nil {
		return err
	}
	c.Advance(2 * time.Minute)
	l.meshes = map[meshState]*sim.Cluster{installed: c.Clone()}
	if l.meshes[beside], err = l.besides(c.Clone()); err != nil {
		return err
	}
	client, err := connect(c)
	if err != nil {
		return err
	}
	for _, o := range r.Objects {
		if _, err := client.Apply(ctx, o.DeepCopy(), cluster.ApplyOptions{Force: true}); err != nil {
			return fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
	}
	c.Advance(2 * time.Minute)
	l.meshes[upgraded] = c.Clone()
	ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: mesh.SystemNamespace, Name: "istio"}
	body := `{"data": {"meshNetworks": "networks: {}  # changed by an operator"}}`
	if _, err := client.Patch(ctx, ref, types.MergePatchType, []byte(body), cluster.WriteOptions{Manager: "kubectl"}); err != nil {
		return err
	}
	c.Advance(2 * time.Minute)
	l.meshes[retuned] = c
	return nil
}

// besides installs revision old as istioctl does.
func (l *lab) besides(c *sim.Cluster) (*sim.Cluster, error) {
	ctx := context.Background()
	r, err := l.renderer.Render(ctx, lib.RenderOptions{Profile: "minimal", Revision: "old", Files: []lib.File{{Name: "old", Content: []byte(`
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  components:
    ingressGateways:
    - name: old-gateway
      enabled: true
      label: {istio: old-gateway}
`)}}})
	if err != nil {
		return nil, err
	}
	client, err := connect(c)
	if err != nil {
		return nil, err
	}
	for _, o := range mesh.Retag(r.Objects, to, from) {
		if o.GetKind() == "CustomResourceDefinition" || o.GetName() == "istiod-default-validator" {
			continue
		}
		if _, err := client.Apply(ctx, o.DeepCopy(), cluster.ApplyOptions{Manager: mesh.InstallManager, Force: true}); err != nil {
			return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
	}
	// The default tag was moved to it once, and back; validation was left with it.
	validator := &cluster.Object{}
	if err := validator.UnmarshalJSON([]byte(leftValidator)); err != nil {
		return nil, err
	}
	if _, err := client.Apply(ctx, validator, cluster.ApplyOptions{Manager: mesh.InstallManager, Force: true}); err != nil {
		return nil, err
	}
	c.Advance(2 * time.Minute)
	return c, nil
}

const leftValidator = `{
"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
"metadata": {"name": "istiod-default-validator", "labels": {"app": "istiod", "istio": "istiod", "istio.io/tag": "default"}},
"webhooks": [{
  "name": "validation.istio.io", "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": ["v1"],
  "clientConfig": {"service": {"name": "istiod-old", "namespace": "istio-system", "path": "/validate"}},
  "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "resources": ["*"]}]
}]}`

func connect(c *sim.Cluster) (*cluster.Client, error) {
	return cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
}

// world is one run on a cluster and a disk of its own.
type world struct {
	lab    *lab
	sim    *sim.Cluster
	disk   *journal.MemFS
	made   []made // by this process, in order
	events []event.Event
	on     func(event.Event)
}

// made is one change as the cluster answered it.
type made struct {
	ref cluster.Ref
	key string
	obj *cluster.Object
}

func (l *lab) world(state meshState) *world {
	return &world{lab: l, sim: l.meshes[state].Clone(), disk: journal.NewMemFS()}
}

// Approve implements engine.Approver.
func (w *world) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", true, nil
}

// Leave implements engine.Approver: an operator at the terminal says yes.
func (w *world) Leave(context.Context, []gate.Finding) (string, bool, error) {
	return "tester", true, nil
}

func (w *world) session(j journal.Journal) (host.Session, error) {
	client, err := connect(w.sim)
	return host.Session{
		Env: &env.Env{Clock: w.sim.Clock()}, Cluster: &recorder{Client: client, w: w}, Journal: j, Approver: w, Sealer: w.lab.sealer,
		Sink: event.SinkFunc(func(e event.Event) {
			w.events = append(w.events, e)
			if w.on != nil {
				w.on(e)
			}
		}),
	}, err
}

// run begins a run of the runbook with the given source.
func (w *world) run(source string) error {
	ctx := context.Background()
	j, err := journal.Create(w.disk, journalRoot, runID, w.sim.Clock())
	if err != nil {
		return err
	}
	rb, err := w.lab.host.Load(ctx, loader.FromBundle(&loader.Bundle{Entry: "//example.star", Files: map[string]string{"//example.star": source}}, nil))
	if err != nil {
		return err
	}
	p, err := rb.Bind(nil, map[string]any{"to": to})
	if err != nil {
		return err
	}
	s, err := w.session(j)
	if err != nil {
		return err
	}
	return closing(j, w.lab.host.Run(ctx, ctx, s, rb, p))
}

// resume takes the run up as another process would.
func (w *world) resume() error {
	ctx := context.Background()
	j, err := journal.Open(w.disk, journalRoot, runID, w.sim.Clock())
	if err != nil {
		return err
	}
	s, err := w.session(j)
	if err != nil {
		return err
	}
	return closing(j, w.lab.host.Resume(ctx, ctx, s))
}

// closing closes a journal, which a killed run leaves broken.
func closing(j journal.Journal, err error) error {
	if cerr := j.Close(); err == nil && cerr != nil {
		return cerr
	}
	return err
}

// recorder remembers what the cluster answered to every change.
type recorder struct {
	*cluster.Client
	w *world
}

func (r *recorder) note(o *cluster.Object, err error) (*cluster.Object, error) {
	if err == nil && o != nil {
		r.w.made = append(r.w.made, made{ref: cluster.RefOf(o), key: o.GetAnnotations()[cluster.AnnotationEffect], obj: o.DeepCopy()})
	}
	return o, err
}

// Create implements cluster.Writer.
func (r *recorder) Create(ctx context.Context, o *cluster.Object, opts cluster.WriteOptions) (*cluster.Object, error) {
	return r.note(r.Client.Create(ctx, o, opts))
}

// Apply implements cluster.Writer.
func (r *recorder) Apply(ctx context.Context, o *cluster.Object, opts cluster.ApplyOptions) (*cluster.Object, error) {
	return r.note(r.Client.Apply(ctx, o, opts))
}

// Replace implements cluster.Writer.
func (r *recorder) Replace(ctx context.Context, o *cluster.Object, opts cluster.WriteOptions) (*cluster.Object, error) {
	return r.note(r.Client.Replace(ctx, o, opts))
}

// Patch implements cluster.Writer.
func (r *recorder) Patch(ctx context.Context, ref cluster.Ref, pt types.PatchType, body []byte, opts cluster.WriteOptions) (*cluster.Object, error) {
	return r.note(r.Client.Patch(ctx, ref, pt, body, opts))
}

// mutations are the requests that changed something, one line each, in order.
func mutations(requests []sim.Request) []string {
	var out []string
	for _, r := range requests {
		review := r.Group == "authorization.k8s.io" // asks a question by creating
		if !r.DryRun && !review && r.Code < 300 && slices.Contains([]string{"create", "update", "patch", "apply", "delete", "deletecollection"}, r.Verb) {
			out = append(out, fmt.Sprintf("%s %s.%s %s/%s", r.Verb, r.Resource, r.Group, r.Namespace, r.Name))
		}
	}
	return out
}

// derived kinds are made by controllers, under names that depend on when.
var derived = []string{"Pod", "ReplicaSet", "ControllerRevision", "Event", "Lease", "Endpoints", "EndpointSlice"}

// stateOf is the normal form of all that clients made, and of every workload's
// pods what runs in them.
func stateOf(c *sim.Cluster) (map[string]string, error) {
	out := map[string]string{}
	objects := c.Objects()
	owner := map[types.UID]*unstructured.Unstructured{}
	for _, o := range objects {
		owner[o.GetUID()] = o
		if slices.Contains(derived, o.GetKind()) {
			continue
		}
		b, err := cluster.CanonicalJSON(cluster.Normalize(o, cluster.NormalizeOptions{}).Object)
		if err != nil {
			return nil, err
		}
		out[cluster.RefOf(o).String()] = string(b)
	}
	pods := map[string][]string{}
	for _, o := range objects {
		if o.GetKind() != "Pod" {
			continue
		}
		top := o
		for refs := top.GetOwnerReferences(); len(refs) > 0 && owner[refs[0].UID] != nil; refs = top.GetOwnerReferences() {
			top = owner[refs[0].UID]
		}
		ready, _, _ := cluster.Ready(o)
		key := "pods of " + cluster.RefOf(top).String()
		pods[key] = append(pods[key], fmt.Sprintf("ready %v: %v", ready, images(o)))
	}
	for k, v := range pods {
		slices.Sort(v)
		out[k] = fmt.Sprint(v)
	}
	return out, nil
}

func images(o *unstructured.Unstructured) []string {
	var out []string
	for _, field := range []string{"initContainers", "containers"} {
		cs, _, _ := unstructured.NestedSlice(o.Object, "spec", field)
		for _, c := range cs {
			image, _, _ := unstructured.NestedString(c.(map[string]any), "image")
			out = append(out, image)
		}
	}
	return out
}
