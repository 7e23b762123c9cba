package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// What a rollback leaves as it is, and why.

// whyLeft says why an object stays as the run made it; "" where it does not.
func (e *Engine) whyLeft(ctx context.Context, u *undone, live *cluster.Object) (string, error) {
	first := u.first()
	switch {
	case u.ref.Kind == "Secret" && u.ref.Group == "" && effect.IsMeshCA(u.ref.Name):
		return "the mesh's CA is never changed by a rollback", nil
	case first.Before == nil && !first.Absent && !u.evicted():
		if first.HoldsSecret() {
			return "its before-image can't be opened: it was sealed with a key that is not here", nil
		}
		return "the journal holds no before-image of it", nil
	case u.created():
		return e.whyKept(ctx, u, live)
	case live == nil:
		if u.deleted() || u.evicted() {
			return "", nil
		}
		return "somebody else has deleted it since", nil
	case u.deleted():
		if k := live.GetAnnotations()[cluster.AnnotationRun]; k != e.run.ID {
			return "somebody else has made it anew since", nil
		}
	case u.ref.Kind == "CustomResourceDefinition":
		if v := lostVersion(first.Before, live); v != "" {
			return fmt.Sprintf("objects are stored in its version %s, which it did not have before; a CRD never goes below a stored version", v), nil
		}
	}
	return "", nil
}

// whyKept says why something that the run made is kept.
func (e *Engine) whyKept(ctx context.Context, u *undone, live *cluster.Object) (string, error) {
	switch {
	case live == nil:
		return "", nil
	case u.last().uid != "" && string(live.GetUID()) != u.last().uid:
		return "another object has its name now, which the run did not make", nil
	case u.ref.Kind == "CustomResourceDefinition":
		n, err := e.instances(ctx, live)
		if err != nil || n == 0 {
			return "", err
		}
		return fmt.Sprintf("the run made it, and %d objects of its kind exist; deleting it would take them along", n), nil
	case u.ref.Kind == "Namespace" && u.ref.Group == "":
		n, err := e.contents(ctx, u.ref.Name)
		if err != nil || n == 0 {
			return "", err
		}
		return fmt.Sprintf("the run made it, and it holds %d objects that the run did not make", n), nil
	}
	return "", nil
}

// instances counts the objects of a CRD's kind, those apart that are going.
func (e *Engine) instances(ctx context.Context, crd *cluster.Object) (int, error) {
	plural, _, err := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	if err != nil {
		return 0, err
	}
	group, _, err := unstructured.NestedString(crd.Object, "spec", "group")
	if err != nil {
		return 0, err
	}
	res, err := e.view.Resolve(ctx, plural+"."+group)
	if errors.Is(err, cluster.ErrNoKind) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n := 0
	err = e.view.List(ctx, res, cluster.ListOptions{MetadataOnly: true}, func(o *cluster.Object) error {
		if o.GetDeletionTimestamp() == nil {
			n++
		}
		return nil
	})
	return n, err
}

// contents counts what a namespace holds besides what every namespace does and
// what this run made.
func (e *Engine) contents(ctx context.Context, ns string) (int, error) {
	all, err := e.view.Resources(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, res := range all {
		if !res.Namespaced || !res.Can("list") || slices.Contains([]string{"Event", "EndpointSlice", "Endpoints", "Lease"}, res.GVK.Kind) {
			continue
		}
		err := e.view.List(ctx, res, cluster.ListOptions{Namespace: ns, MetadataOnly: true}, func(o *cluster.Object) error {
			always := res.GVK.Kind == "ServiceAccount" && o.GetName() == "default" ||
				res.GVK.Kind == "ConfigMap" && (o.GetName() == "kube-root-ca.crt" || o.GetName() == "istio-ca-root-cert")
			if !always && len(o.GetOwnerReferences()) == 0 && o.GetDeletionTimestamp() == nil && o.GetAnnotations()[cluster.AnnotationRun] != e.run.ID {
				n++
			}
			return nil
		})
		if err != nil && !absent(err) {
			return 0, err
		}
	}
	return n, nil
}

// lostVersion is a version in which live's objects are stored and that before
// did not have; "" where there is none.
func lostVersion(before, live *cluster.Object) string {
	stored, _, err := unstructured.NestedStringSlice(live.Object, "status", "storedVersions")
	if err != nil {
		return ""
	}
	versions, _, err := unstructured.NestedSlice(before.Object, "spec", "versions")
	if err != nil {
		return ""
	}
	for _, v := range stored {
		if !slices.ContainsFunc(versions, func(x any) bool { m, _ := x.(map[string]any); return m["name"] == v }) {
			return v
		}
	}
	return ""
}
