package knowledge

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// fake is a cluster of a few objects, that serves the kinds of these.
type fake struct {
	cluster.Reader
	objects []*cluster.Object
	fail    error
	lists   []string // what was listed
}

func (f *fake) Resources(context.Context) ([]cluster.Resource, error) {
	seen := map[schema.GroupKind]bool{}
	var out []cluster.Resource
	for _, o := range f.objects {
		gvk := o.GroupVersionKind()
		if !seen[gvk.GroupKind()] {
			seen[gvk.GroupKind()] = true
			out = append(out, cluster.Resource{GVK: gvk, GVR: gvk.GroupVersion().WithResource(strings.ToLower(gvk.Kind) + "s")})
		}
	}
	return out, f.fail
}

func (f *fake) List(_ context.Context, res cluster.Resource, o cluster.ListOptions, each func(*cluster.Object) error) error {
	f.lists = append(f.lists, strings.TrimSpace(res.GVK.Kind+" "+o.Labels+" "+o.Namespace))
	sel, err := labels.Parse(o.Labels)
	if err != nil {
		return err
	}
	for _, obj := range f.objects {
		if obj.GroupVersionKind().GroupKind() != res.GVK.GroupKind() || !sel.Matches(labels.Set(obj.GetLabels())) || o.Namespace != "" && o.Namespace != obj.GetNamespace() {
			continue
		}
		if err := each(obj); err != nil {
			return err
		}
	}
	return nil
}
