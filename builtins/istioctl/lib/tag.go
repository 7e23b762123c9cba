package lib

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"istio.io/istio/istioctl/pkg/tag"
	"istio.io/istio/istioctl/pkg/util"
	"istio.io/istio/operator/pkg/uninstall"
)

// TagOptions say what a revision tag is to be.
type TagOptions struct {
	Tag      string
	Revision string // that it points at; "default" for the install without one
	// IstioNamespace is the control plane's; empty means istio-system.
	IstioNamespace string
	// Timeout is how long nothing may be heard of the cluster; zero means DefaultTimeout.
	Timeout time.Duration
}

// TagObjects are the objects of a revision tag as istioctl tag makes them
// (istioctl/pkg/tag Generate), in the order in which they can go in without a
// gap: the tag's Service, for the tag default the validation webhook that every
// revision is validated by, then the injection webhook. It only reads; whether
// the tag may be set is the caller's to find out.
func TagObjects(ctx context.Context, rc *rest.Config, o TagOptions) (objs []*unstructured.Unstructured, err error) {
	defer func() {
		if p := recover(); p != nil { // a revision with a Service and no webhook
			objs, err = nil, fmt.Errorf("tag %s: istio library: %v", o.Tag, p)
		}
	}()
	s, err := newSession(ctx, rc, o.Revision, o.Timeout)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if o.IstioNamespace == "" {
		o.IstioNamespace = IstioNamespace
	}
	text, err := tag.Generate(s.ctx, s, &tag.GenerateOptions{
		Tag: o.Tag, Revision: o.Revision, IstioNamespace: o.IstioNamespace, UserManaged: true,
		// Without Generate it writes to the cluster itself (it switches the
		// injector of the default revision off): that is an effect of the
		// caller's. Overwrite leaves the question whether the tag may move.
		Generate: true, Overwrite: true,
	})
	if stop := s.err(); stop != nil {
		return nil, fmt.Errorf("tag %s: %w", o.Tag, stop)
	}
	if err != nil {
		return nil, fmt.Errorf("tag %s: %w", o.Tag, err)
	}
	for _, doc := range strings.Split(text, "\n---\n") {
		j, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return nil, fmt.Errorf("tag %s: %w", o.Tag, err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(j); err != nil {
			return nil, fmt.Errorf("tag %s: %w", o.Tag, err)
		}
		tidy(u)
		objs = append(objs, u)
	}
	rank := map[string]int{"Service": 0, "ValidatingWebhookConfiguration": 1, "MutatingWebhookConfiguration": 2}
	sort.SliceStable(objs, func(i, j int) bool { return rank[objs[i].GetKind()] < rank[objs[j].GetKind()] })
	return objs, nil
}

// tidy takes away what encoding a typed object leaves behind and server-side
// apply would take for a value.
func tidy(u *unstructured.Unstructured) {
	delete(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	hooks, ok := u.Object["webhooks"].([]any)
	if !ok {
		return
	}
	for _, h := range hooks {
		m, ok := h.(map[string]any)
		if !ok {
			continue
		}
		if c, ok := m["clientConfig"].(map[string]any); ok && (c["caBundle"] == nil || c["caBundle"] == "") {
			delete(c, "caBundle")
		}
	}
}

// NeverMatch are the match labels by which istioctl switches an injection
// webhook off without deleting it (istioctl/pkg/util).
func NeverMatch() map[string]string { return util.NeverMatch.MatchLabels }

// RevisionObjects lists what istioctl uninstall --revision would delete, in its
// order of kinds: everything of the components of that revision but the base
// (operator/pkg/uninstall GetPrunedResources). The revision's gateways are among
// it. It only reads.
func RevisionObjects(ctx context.Context, rc *rest.Config, revision string) ([]*unstructured.Unstructured, error) {
	s, err := newSession(ctx, rc, revision, 0)
	if err != nil {
		return nil, err
	}
	defer s.close()
	lists, err := uninstall.GetPrunedResources(s, "", "", revision, false)
	if stop := s.err(); stop != nil {
		return nil, fmt.Errorf("revision %s: %w", revision, stop)
	}
	if err != nil {
		return nil, fmt.Errorf("revision %s: %w", revision, err)
	}
	var out []*unstructured.Unstructured
	for _, l := range lists {
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out, nil
}
