package plane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	kubelet "rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// linkedIstio is the Istio version whose code istiobox holds.
const linkedIstio = "1.31.0"

// Installation profiles of Istio.
const (
	DefaultProfile = "default"
	AmbientProfile = "ambient"
)

// Fixture is the path of the real manifest of an Istio version's profile, where
// one lies in ../shared beside the repository; ok is false where none does.
func Fixture(version, profile string) (path string, ok bool) {
	root, err := Root()
	if err != nil {
		return "", false
	}
	path = filepath.Join(root, "..", "shared", "fixtures", "manifests", "istio-"+version+"-"+profile+".yaml")
	_, err = os.Stat(path)
	return path, err == nil
}

// Istioctl runs the real istioctl of the linked version against the plane, as
// Operator, and returns what it printed to standard output.
func (p *Plane) Istioctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.state.Binaries.Istiobox, append([]string{"istioctl", "--kubeconfig=" + p.Kubeconfig()}, args...)...)
	cmd.Env = append(os.Environ(), "ISTIOBOX_VERSION="+linkedIstio, "HOME="+p.Dir())
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("istioctl %s: %w: %s", args, err, bytes.TrimSpace(talk.Bytes()))
	}
	return out.String(), nil
}

// IstioManifest is the manifest of an Istio version's profile: the real one where
// there is a Fixture; else the linked version's as istioctl renders it, re-tagged
// for an older version (mesh.Retag).
func (p *Plane) IstioManifest(ctx context.Context, version, profile string) ([]*Object, error) {
	if path, ok := Fixture(version, profile); ok {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return Parse(text)
	}
	text, err := p.Istioctl(ctx, "manifest", "generate", "--set", "hub=docker.io/istio", "--set", "tag="+linkedIstio, "--set", "profile="+profile)
	if err != nil {
		return nil, err
	}
	objs, err := Parse([]byte(text))
	if err != nil || version == linkedIstio {
		return objs, err
	}
	return mesh.Retag(objs, linkedIstio, version), nil
}

// InstallGatewayAPI brings the standard definitions of the Gateway API, which no
// profile of Istio has, of the version that Istio is built with.
func (p *Plane) InstallGatewayAPI(ctx context.Context) error {
	root, err := Root()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	cmd.Dir = root
	dir, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the Gateway API's module: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(string(bytes.TrimSpace(dir)), "config", "crd", "standard", "gateway.networking.k8s.io_*.yaml"))
	if err != nil {
		return err
	}
	var all []*Object
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		objs, err := Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, slices.DeleteFunc(objs, func(o *Object) bool { return o.GetKind() != "CustomResourceDefinition" })...)
	}
	if len(all) == 0 {
		return fmt.Errorf("%s: there are no definitions of the Gateway API", dir)
	}
	if err := p.Apply(ctx, "kubectl", all...); err != nil {
		return err
	}
	return p.AwaitCRDs(ctx, all...)
}

// InstallIstio brings a manifest into the cluster as istioctl install of that
// version would leave it: its labels, its field manager, istiod before what
// needs injection. It returns when istiod serves and the gateways are ready.
func (p *Plane) InstallIstio(ctx context.Context, version string, manifest []*Object) error {
	objs := mesh.Installed(mesh.Spec{Istio: version, Revision: revisionOf(manifest)}, manifest)
	late := func(o *Object) bool { return o.GetKind() == "Deployment" && o.GetLabels()["app"] != "istiod" }
	first := slices.DeleteFunc(slices.Clone(objs), late)
	system := &Object{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": mesh.SystemNamespace}}}
	if err := p.Apply(ctx, "kubectl", system); err != nil {
		return fmt.Errorf("install Istio %s: %w", version, err)
	}
	if err := p.Apply(ctx, mesh.InstallManager, first...); err != nil {
		return fmt.Errorf("install Istio %s: %w", version, err)
	}
	if err := p.AwaitWebhooks(ctx, first...); err != nil {
		return fmt.Errorf("install Istio %s: %w", version, err)
	}
	if err := p.Apply(ctx, mesh.InstallManager, slices.DeleteFunc(slices.Clone(objs), func(o *Object) bool { return !late(o) })...); err != nil {
		return fmt.Errorf("install Istio %s: %w", version, err)
	}
	if err := p.AwaitRollouts(ctx, mesh.SystemNamespace, upTimeout); err != nil {
		return fmt.Errorf("install Istio %s: %w", version, err)
	}
	return nil
}

func revisionOf(manifest []*Object) string {
	for _, o := range manifest {
		if rev := o.GetLabels()["istio.io/rev"]; o.GetKind() == "MutatingWebhookConfiguration" && rev != "default" {
			return rev
		}
	}
	return ""
}

// AwaitWebhooks waits until the injection webhooks among objects can be called:
// istiod has given them its certificate, and its pod is ready.
func (p *Plane) AwaitWebhooks(ctx context.Context, objs ...*Object) error {
	if err := p.AwaitRollouts(ctx, mesh.SystemNamespace, upTimeout); err != nil {
		return err
	}
	for _, o := range objs {
		if o.GetKind() != "MutatingWebhookConfiguration" {
			continue
		}
		err := Until(ctx, upTimeout, func(ctx context.Context) (bool, error) {
			got, err := p.Get(ctx, o.GroupVersionKind(), "", o.GetName())
			if err != nil {
				return false, err
			}
			hooks, _, _ := unstructured.NestedSlice(got.Object, "webhooks")
			for _, h := range hooks {
				m, _ := h.(map[string]any)
				if ca, _, _ := unstructured.NestedString(m, "clientConfig", "caBundle"); ca == "" {
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("webhook %s: waiting for its certificate: %w", o.GetName(), err)
		}
	}
	return nil
}

// Populate makes the workloads, budgets and mesh configuration of a generated
// mesh (mesh.Build) around an Istio that InstallIstio brought, and waits until
// all of it has rolled out. The manifest is what was installed.
func (p *Plane) Populate(ctx context.Context, spec mesh.Spec, manifest []*Object) error {
	var objs, pods []*Object
	for _, o := range mesh.Build(spec, manifest) {
		switch {
		case o.GetKind() == "Node", mesh.ManagerOf(o) == mesh.InstallManager, o.GetName() == "istio-ca-secret", o.GetName() == "istio-ca-root-cert":
			// Nodes are there, Istio is, and istiod makes its certificates itself.
		case o.GetKind() == "Pod":
			pods = append(pods, o)
		default:
			hurry(o)
			objs = append(objs, o)
		}
	}
	if err := p.Apply(ctx, "kubectl", objs...); err != nil {
		return fmt.Errorf("populate: %w", err)
	}
	if err := p.AwaitRollouts(ctx, "", 3*time.Minute); err != nil {
		return fmt.Errorf("populate: %w", err)
	}
	if err := p.Apply(ctx, "kubectl", pods...); err != nil {
		return fmt.Errorf("populate: %w", err)
	}
	return nil
}

// hurry makes the pods of a generated workload ready after moments where a
// simulated one takes seconds of virtual time.
func hurry(o *Object) {
	path := []string{"spec", "template", "metadata", "annotations", kubelet.AnnotationReadyAfter}
	if _, found, err := unstructured.NestedString(o.Object, path...); found && err == nil {
		_ = unstructured.SetNestedField(o.Object, "300ms", path...) // it can't fail: the path is there
	}
}

// AwaitRollouts waits until every Deployment, StatefulSet and DaemonSet of a
// namespace ("" for all) has what its spec asks for, updated and ready.
func (p *Plane) AwaitRollouts(ctx context.Context, namespace string, within time.Duration) error {
	r, err := p.Resources()
	if err != nil {
		return err
	}
	var left string
	err = poll(ctx, rolloutsEvery, within, func(ctx context.Context) (bool, error) {
		for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
			if left, err = r.rolling(ctx, kind, namespace); err != nil || left != "" {
				return false, err // the others are asked when it is their turn
			}
		}
		return true, nil
	})
	if err != nil && left != "" {
		return errors.Join(fmt.Errorf("rollouts: %w; not yet:%s", err, left), p.stuck(ctx, namespace))
	}
	return err
}

// rolloutsEvery is how often AwaitRollouts asks: a list of all that a mesh has
// costs more than to wait a moment longer.
const rolloutsEvery = 250 * time.Millisecond

// rolling names the objects of a kind that have not rolled out.
func (r *Resources) rolling(ctx context.Context, kind, namespace string) (left string, err error) {
	c, err := r.Of(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: kind}, namespace)
	if err != nil {
		return "", err
	}
	all, err := c.List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for i := range all.Items {
		if o := &all.Items[i]; !rolledOut(o) {
			left += fmt.Sprintf(" %s %s/%s;", kind, o.GetNamespace(), o.GetName())
		}
	}
	return left, nil
}

func rolledOut(o *Object) bool {
	number := func(fields ...string) int64 {
		n, _, _ := unstructured.NestedInt64(o.Object, fields...)
		return n
	}
	if number("status", "observedGeneration") < o.GetGeneration() {
		return false
	}
	if o.GetKind() == "DaemonSet" {
		want := number("status", "desiredNumberScheduled")
		return number("status", "numberReady") == want && number("status", "updatedNumberScheduled") == want
	}
	want := number("spec", "replicas")
	strategy, _, _ := unstructured.NestedString(o.Object, "spec", "updateStrategy", "type")
	return number("status", "readyReplicas") == want && number("status", "replicas") == want &&
		(strategy == "OnDelete" || number("status", "updatedReplicas") == want)
}

// stuck is what warnings say about a rollout that does not end.
func (p *Plane) stuck(ctx context.Context, namespace string) error {
	r, err := p.Resources()
	if err != nil {
		return err
	}
	c, err := r.Of(schema.GroupVersionKind{Version: "v1", Kind: "Event"}, namespace)
	if err != nil {
		return err
	}
	events, err := c.List(ctx, metav1.ListOptions{FieldSelector: "type=Warning", Limit: 20})
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range events.Items {
		message, _, _ := unstructured.NestedString(e.Object, "message")
		name, _, _ := unstructured.NestedString(e.Object, "involvedObject", "name")
		errs = append(errs, fmt.Errorf("%s/%s: %s", e.GetNamespace(), name, message))
	}
	return errors.Join(errs...)
}
