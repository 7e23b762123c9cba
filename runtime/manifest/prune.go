package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// Labels and annotations by which an install marks what is its own (Istio's
// charts and operator library; Helm).
const (
	labelComponent = "operator.istio.io/component"
	labelOwner     = "install.operator.istio.io/owning-resource"
	labelRevision  = "istio.io/rev"
	labelTag       = "istio.io/tag"
	labelPartOf    = "app.kubernetes.io/part-of"
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelRelease   = "release"
	helmRelease    = "meta.helm.sh/release-name"
	helmNamespace  = "meta.helm.sh/release-namespace"
)

// Left is an object that an earlier manifest brought and this one does not,
// and that is left alone.
type Left struct {
	Ref cluster.Ref `json:"ref"`
	Why string      `json:"why"`
}

// seedKinds are the kinds that an Istio install makes
// (operator/pkg/uninstall of the Istio module names the same), from the one
// that others depend on least.
func seedKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Kind: "DaemonSet"},
		{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
		{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"},
		{Version: "v1", Kind: "Service"},
		{Version: "v1", Kind: "ServiceAccount"},
		{Version: "v1", Kind: "ConfigMap"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "Role"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"},
		{Group: "networking.istio.io", Version: "v1alpha3", Kind: "EnvoyFilter"},
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	}
}

// identity is how the objects of a manifest, and what is live of them, say
// which install they belong to.
type identity struct {
	ids        map[string]bool
	namespaces map[string]bool
	revisions  map[string]bool
	owners     map[string]bool // values of owning-resource
	releases   map[string]bool // values of the chart label "release"
	helm       map[string]bool // Helm releases that own live counterparts
	components map[string]bool
	istio      bool
	pilot      bool // it holds a control plane, so it is not an add-on's
}

func identify(objs []*cluster.Object, live []*cluster.Object) *identity {
	id := &identity{
		ids: map[string]bool{}, namespaces: map[string]bool{}, revisions: map[string]bool{}, owners: map[string]bool{},
		releases: map[string]bool{}, helm: map[string]bool{}, components: map[string]bool{},
	}
	note := func(set map[string]bool, v string) {
		if v != "" {
			set[v] = true
		}
	}
	for i, o := range objs {
		id.ids[cluster.RefOf(o).ID()] = true
		note(id.namespaces, o.GetNamespace())
		note(id.revisions, o.GetLabels()[labelRevision])
		note(id.components, o.GetLabels()[labelComponent])
		for _, x := range []*cluster.Object{o, live[i]} {
			if x == nil {
				continue
			}
			note(id.owners, x.GetLabels()[labelOwner])
			note(id.releases, x.GetLabels()[labelRelease])
			note(id.helm, releaseOf(x))
		}
		id.pilot = id.pilot || o.GetKind() == "Deployment" && isIstiod(o)
		id.istio = id.istio || o.GetLabels()[labelPartOf] == "istio" || o.GetLabels()[labelComponent] != ""
	}
	return id
}

func releaseOf(o *cluster.Object) string {
	a := o.GetAnnotations()
	if a[helmRelease] == "" {
		return ""
	}
	return a[helmNamespace] + "/" + a[helmRelease]
}

// owns reports whether o was brought by the same install as the manifest's
// objects (DESIGN §8 ruling 2: the first inventory is seeded from install and
// Helm labels).
func (id *identity) owns(o *cluster.Object) bool {
	labels := o.GetLabels()
	if o.GetNamespace() != "" && !id.namespaces[o.GetNamespace()] {
		return false
	}
	if r := releaseOf(o); r != "" {
		return id.helm[r]
	}
	if labels[labelComponent] != "" || labels[labelOwner] != "" {
		return labels[labelOwner] == "" || id.owners[labels[labelOwner]]
	}
	return id.pilot && labels[labelPartOf] == "istio" && labels[labelManagedBy] == "Helm" &&
		(labels[labelRelease] == "" || id.releases[labels[labelRelease]])
}

// keep says why o is never pruned, or "".
func (id *identity) keep(o *cluster.Object) string {
	labels := o.GetLabels()
	switch {
	case o.GetKind() == "CustomResourceDefinition":
		return "a CRD takes its instances along"
	case o.GetKind() == "Namespace":
		return "a namespace takes everything in it along"
	case o.GetKind() == "Secret", o.GetKind() == "PersistentVolumeClaim":
		return "it may hold what nothing else does"
	case labels[labelTag] != "":
		return fmt.Sprintf("it is the revision tag %q", labels[labelTag])
	case labels[labelRevision] != "" && len(id.revisions) > 0 && !id.revisions[labels[labelRevision]]:
		return fmt.Sprintf("it belongs to revision %q", labels[labelRevision])
	}
	return ""
}

// leftovers finds what an earlier manifest of the same inventory brought and
// this one does not. Without an inventory it is seeded from labels. Objects
// that a controller owns follow their owner and are passed over.
func leftovers(ctx context.Context, r cluster.Reader, id *identity, inventory *cluster.Object) (prune []*cluster.Object, left []Left, err error) {
	var found []*cluster.Object
	if inventory != nil {
		found, err = recorded(ctx, r, id, inventory)
	} else if id.istio {
		found, err = seeded(ctx, r, id)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, o := range found {
		why := id.keep(o)
		if c := o.GetLabels()[labelComponent]; why == "" && inventory == nil && c != "" && !id.components[c] {
			// Labels alone can't tell a component that was dropped from one that
			// another manifest brought (GUIDE §2.1).
			why = fmt.Sprintf("the manifest renders nothing of component %s", c)
		}
		switch {
		case len(o.GetOwnerReferences()) > 0 || o.GetDeletionTimestamp() != nil:
		case why != "":
			left = append(left, Left{Ref: cluster.RefOf(o), Why: why})
		default:
			prune = append(prune, o)
		}
	}
	sort.SliceStable(prune, func(i, j int) bool {
		if a, b := StageOf(prune[i]), StageOf(prune[j]); a != b {
			return a > b
		}
		return cluster.RefOf(prune[i]).ID() < cluster.RefOf(prune[j]).ID()
	})
	sort.Slice(left, func(i, j int) bool { return left[i].Ref.ID() < left[j].Ref.ID() })
	return prune, left, nil
}

func recorded(ctx context.Context, r cluster.Reader, id *identity, inventory *cluster.Object) ([]*cluster.Object, error) {
	refs, err := ReadInventory(inventory)
	if err != nil {
		return nil, err
	}
	refs = slices.DeleteFunc(refs, func(ref cluster.Ref) bool { return id.ids[ref.ID()] })
	objs, err := getAll(ctx, r, refs)
	return slices.DeleteFunc(objs, func(o *cluster.Object) bool { return o == nil }), err
}

// seeded finds by their labels the objects that the same install brought. What is
// looked through is all of Istio's CRDs too: their labels are listed, and only
// what was found is read whole.
func seeded(ctx context.Context, r cluster.Reader, id *identity) ([]*cluster.Object, error) {
	var mu sync.Mutex
	var found []cluster.Ref
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, gvk := range seedKinds() {
		for _, selector := range []string{labelComponent, "!" + labelComponent + "," + labelPartOf + "=istio"} {
			g.Go(func() error {
				res, err := r.ResourceFor(gctx, gvk)
				if errors.Is(err, cluster.ErrNoKind) {
					return nil
				}
				if err != nil {
					return fmt.Errorf("list %s to prune: %w", gvk.Kind, err)
				}
				err = r.List(gctx, res, cluster.ListOptions{Labels: selector, MetadataOnly: true}, func(o *cluster.Object) error {
					ref := cluster.RefOf(o)
					mu.Lock()
					defer mu.Unlock()
					if !id.ids[ref.ID()] && id.owns(o) {
						found = append(found, ref)
					}
					return nil
				})
				if err != nil {
					return fmt.Errorf("list %s to prune: %w", gvk.Kind, err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b cluster.Ref) int { return cmp.Compare(a.ID(), b.ID()) })
	objs, err := getAll(ctx, r, found)
	return slices.DeleteFunc(objs, func(o *cluster.Object) bool { return o == nil }), err
}

// InventoryRef names the ConfigMap that records what a manifest brought.
func InventoryRef(namespace, name string) cluster.Ref {
	return cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: namespace, Name: "rutter-inventory-" + name}
}

// NewInventory is the ConfigMap that records refs: one line each,
// "apps/v1 Deployment istio-system/istiod", sorted.
func NewInventory(ref cluster.Ref, refs []cluster.Ref) *cluster.Object {
	lines := make([]string, len(refs))
	for i, r := range refs {
		lines[i] = fmt.Sprintf("%s %s %s/%s", r.GVK().GroupVersion(), r.Kind, r.Namespace, r.Name)
	}
	sort.Strings(lines)
	return &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": ref.Name, "namespace": ref.Namespace,
			"labels": map[string]any{labelManagedBy: cluster.FieldManager},
		},
		"data": map[string]any{"objects": strings.Join(lines, "\n") + "\n"},
	}}
}

// ReadInventory is the inverse of NewInventory. A damaged inventory is an
// error: pruning by guesswork deletes what somebody needs.
func ReadInventory(o *cluster.Object) ([]cluster.Ref, error) {
	data, _ := o.Object["data"].(map[string]any)
	text, ok := data["objects"].(string)
	if !ok {
		return nil, fmt.Errorf("%s: has no data.objects; delete it to seed it anew from labels", cluster.RefOf(o))
	}
	var out []cluster.Ref
	for n, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line == "" {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || !strings.Contains(f[2], "/") {
			return nil, fmt.Errorf("%s: line %d: got %q, want \"apiVersion Kind namespace/name\"", cluster.RefOf(o), n+1, line)
		}
		gv, err := schema.ParseGroupVersion(f[0])
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", cluster.RefOf(o), n+1, err)
		}
		ns, name, _ := strings.Cut(f[2], "/")
		out = append(out, cluster.Ref{Group: gv.Group, Version: gv.Version, Kind: f[1], Namespace: ns, Name: name})
	}
	return out, nil
}
