package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
)

// Kind is what a proxy is for.
type Kind string

// The kinds of proxy.
const (
	Sidecar  Kind = "sidecar"
	Gateway  Kind = "gateway"
	Waypoint Kind = "waypoint"
	Ztunnel  Kind = "ztunnel"
)

// Proxy is one pod of the data plane, projected to what an upgrade asks about.
type Proxy struct {
	Namespace string      `json:"namespace"`
	Pod       string      `json:"pod"`
	Owner     cluster.Ref `json:"owner"` // Deployment, StatefulSet, DaemonSet, Rollout …; the Pod itself if bare
	Kind      Kind        `json:"kind"`
	Native    bool        `json:"native,omitempty"` // the proxy is an init container
	Image     string      `json:"image"`
	Version   string      `json:"version"`  // "" if the tag names none
	Revision  string      `json:"revision"` // that injected it
	Ready     bool        `json:"ready"`
	// Labels are the pod's, by which injectors choose; Override is the proxy
	// image that the pod asks for itself (sidecar.istio.io/proxyImage).
	Labels   map[string]string `json:"-"`
	Override string            `json:"-"`
}

// CensusOptions narrow a census. The zero value takes all namespaces.
type CensusOptions struct {
	Namespaces []string
	// Each is called for every pod that is listed, with proxy or without, for who
	// asks something else of the pods and would list them again. What it is given
	// it only reads, and does not keep.
	Each func(pod *cluster.Object)
}

// Census lists every proxy with its owner, sorted by namespace and pod. Pods
// are paged, projected and dropped: about half a KiB stays of each proxy, and
// nothing of other pods. Finished pods are left out, and those
// that are being deleted: their successors count.
func Census(ctx context.Context, r cluster.Reader, o CensusOptions) ([]Proxy, error) {
	spaces := o.Namespaces
	if len(spaces) == 0 {
		spaces = []string{""}
	}
	var out []Proxy
	for _, ns := range spaces {
		err := list(ctx, r, pods, cluster.ListOptions{Namespace: ns}, func(p *cluster.Object) error {
			if o.Each != nil {
				o.Each(p)
			}
			if px, ok := proxyOf(p); ok {
				out = append(out, px)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("census: %w", err)
		}
		if err := resolveOwners(ctx, r, ns, out); err != nil {
			return nil, fmt.Errorf("census: %w", err)
		}
	}
	slices.SortFunc(out, func(a, b Proxy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return out, nil
}

// ProxyOf is the proxy in a pod, its owner being the controller that the pod
// names; ok is false for a pod without proxy.
func ProxyOf(p *cluster.Object) (px Proxy, ok bool) { return proxyOf(p) }

// HasInit reports whether a pod sets its network up itself (istio-init), rather
// than have Istio CNI do it.
func HasInit(p *cluster.Object) bool {
	return container(p, "istio-init", "spec", "initContainers") != nil
}

// proxyOf projects a pod; ok is false for a pod without proxy.
func proxyOf(p *cluster.Object) (Proxy, bool) {
	if phase := phaseOf(p); phase == "Succeeded" || phase == "Failed" || p.GetDeletionTimestamp() != nil {
		return Proxy{}, false
	}
	c, native := container(p, "istio-proxy", "spec", "containers"), false
	if c == nil {
		c, native = container(p, "istio-proxy", "spec", "initContainers"), true
	}
	if c == nil {
		return Proxy{}, false
	}
	ready, _ := cluster.Condition(p, "Ready")
	px := Proxy{
		Namespace: p.GetNamespace(), Pod: p.GetName(), Owner: cluster.Owners(nil).Of(p), Kind: kindOf(p, c), Native: native,
		Image: strings.Clone(text(c, "image")), Revision: revisionOf(p), Ready: ready.Status == "True",
		Labels: p.GetLabels(), Override: p.GetAnnotations()[AnnotationImage],
	}
	px.Version = ImageVersion(px.Image)
	return px, true
}

func phaseOf(p *cluster.Object) string {
	m, ok := p.Object["status"].(map[string]any)
	if !ok {
		return ""
	}
	return text(m, "phase")
}

// kindOf goes by the arguments of pilot-agent ("proxy sidecar|router|waypoint|
// ztunnel"), which all of Istio's templates give.
func kindOf(p *cluster.Object, c map[string]any) Kind {
	if args, ok := c["args"].([]any); ok {
		for _, a := range args {
			switch a {
			case "router":
				return Gateway
			case "waypoint":
				return Waypoint
			case "ztunnel":
				return Ztunnel
			}
		}
	}
	l := p.GetLabels()
	switch {
	case l["app"] == "ztunnel" || l["app.kubernetes.io/name"] == "ztunnel":
		return Ztunnel
	case l[LabelGatewayOwner] == "istio.io-mesh-controller":
		return Waypoint
	case l[LabelGatewayName] != "":
		return Gateway
	}
	return Sidecar
}

// revisionOf is the revision that injected the pod: its annotation istio.io/rev,
// else the revision in sidecar.istio.io/status, else its label.
func revisionOf(p *cluster.Object) string {
	ann := p.GetAnnotations()
	if rev := ann[LabelRev]; rev != "" {
		return rev
	}
	var st struct {
		Revision string `json:"revision"`
	}
	if s := ann[AnnotationStatus]; s != "" {
		if err := json.Unmarshal([]byte(s), &st); err == nil && st.Revision != "" {
			return st.Revision
		}
	}
	return orDefault(p.GetLabels()[LabelRev])
}

// resolveOwners replaces ReplicaSets by what controls them (a Deployment or an
// Argo Rollout). Only the metadata of ReplicaSets is read.
func resolveOwners(ctx context.Context, r cluster.Reader, ns string, px []Proxy) error {
	if !slices.ContainsFunc(px, func(p Proxy) bool { return p.Owner.Kind == "ReplicaSet" }) {
		return nil
	}
	owners := cluster.Owners{}
	err := list(ctx, r, replicaSets, cluster.ListOptions{Namespace: ns, MetadataOnly: true}, func(o *cluster.Object) error {
		owners.Add(o)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range px {
		px[i].Owner = owners.Above(px[i].Owner)
	}
	return nil
}

// Workload is an owner whose proxies are not what injection would make now.
type Workload struct {
	Ref    cluster.Ref `json:"ref"`
	Kind   Kind        `json:"kind"`
	Pods   int         `json:"pods"` // that are outdated
	Reason string      `json:"reason"`
	From   string      `json:"from"` // version, or image where that is what differs
	To     string      `json:"to"`
}

// Why is the reason in words.
func (w Workload) Why() string {
	if w.Reason == versionDiffers {
		return fmt.Sprintf("its proxy is %s, injection gives %s now", w.From, w.To)
	}
	return fmt.Sprintf("%s: %s, was %s", w.Reason, w.To, w.From)
}

// versionDiffers is the Reason of a proxy of another version.
const versionDiffers = "proxy version"

// ProxyImages maps each revision to the proxy image that its injector gives:
// hub, tag and image of the values in its istio-sidecar-injector ConfigMap
// (istio pkg/kube/inject ProxyImage).
func ProxyImages(ctx context.Context, r cluster.Reader, planes []ControlPlane) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range planes {
		name := "istio-sidecar-injector"
		if p.Revision != DefaultRevision {
			name += "-" + p.Revision
		}
		cm, err := r.Get(ctx, cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: p.Namespace, Name: name})
		if errors.Is(err, cluster.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("injector of revision %s: %w", p.Revision, err)
		}
		data, ok := cm.Object["data"].(map[string]any)
		if !ok {
			continue
		}
		img, err := injectorImage(text(data, "values"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cluster.RefOf(cm), err)
		}
		out[p.Revision] = img
	}
	return out, nil
}

func injectorImage(values string) (string, error) {
	var v struct {
		Global struct {
			Hub     string `json:"hub"`
			Tag     any    `json:"tag"`
			Variant string `json:"variant"`
			Proxy   struct {
				Image string `json:"image"`
			} `json:"proxy"`
		} `json:"global"`
	}
	if err := json.Unmarshal([]byte(values), &v); err != nil {
		return "", fmt.Errorf("values: %w", err)
	}
	img := v.Global.Proxy.Image
	if strings.Contains(img, "/") {
		return img, nil
	}
	tag := fmt.Sprint(v.Global.Tag)
	if v.Global.Variant != "" && v.Global.Variant != "default" && !strings.HasSuffix(tag, "-"+v.Global.Variant) {
		tag += "-" + v.Global.Variant
	}
	return v.Global.Hub + "/" + cmp.Or(img, "proxyv2") + ":" + tag, nil
}

// Outdated lists the workloads whose sidecars or gateways would come out
// different if their pods were made now, gateways apart from sidecars, sorted
// by Ref. A proxy is outdated when the injector that now selects it is of
// another revision, or gives another image. A template that changed without
// either is not seen in a pod: who changed the injector's configuration in this
// run restarts everything behind that revision. Pods that no injector selects
// any more are not listed: a restart would take their sidecar away. ztunnel is
// rolled by its own DaemonSet.
func Outdated(ctx context.Context, r cluster.Reader) ([]Workload, error) {
	planes, err := ControlPlanes(ctx, r)
	if err != nil {
		return nil, err
	}
	px, err := Census(ctx, r, CensusOptions{})
	if err != nil {
		return nil, err
	}
	return OutdatedOf(ctx, r, planes, px)
}

// OutdatedOf is Outdated for who has listed control planes and proxies already.
func OutdatedOf(ctx context.Context, r cluster.Reader, planes []ControlPlane, px []Proxy) ([]Workload, error) {
	ins, err := Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	return outdatedBy(ctx, r, planes, px, ins, nil)
}

// OutdatedWith is what Outdated would find if the mutating webhook
// configurations in after were as they are there, and those named in gone were
// not: what a move of a revision tag leaves to be restarted.
func OutdatedWith(ctx context.Context, r cluster.Reader, after []*cluster.Object, gone []string) ([]Workload, error) {
	ins, err := Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, o := range after {
		gone = append(gone, o.GetName())
	}
	ins = slices.DeleteFunc(ins, func(in Injector) bool { return slices.Contains(gone, in.Configuration) })
	for _, o := range after {
		more, err := injectors(o)
		if err != nil {
			return nil, err
		}
		ins = append(ins, more...)
	}
	slices.SortStableFunc(ins, func(a, b Injector) int { return cmp.Compare(a.Configuration, b.Configuration) })
	return outdatedNow(ctx, r, ins, nil)
}

// OutdatedRelabelled is what Outdated would find if the named namespaces had
// these labels: what a relabelling leaves to be restarted.
func OutdatedRelabelled(ctx context.Context, r cluster.Reader, labels map[string]map[string]string) ([]Workload, error) {
	ins, err := Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	return outdatedNow(ctx, r, ins, labels)
}

func outdatedNow(ctx context.Context, r cluster.Reader, ins []Injector, labels map[string]map[string]string) ([]Workload, error) {
	planes, err := ControlPlanes(ctx, r)
	if err != nil {
		return nil, err
	}
	px, err := Census(ctx, r, CensusOptions{})
	if err != nil {
		return nil, err
	}
	return outdatedBy(ctx, r, planes, px, ins, labels)
}

func outdatedBy(ctx context.Context, r cluster.Reader, planes []ControlPlane, px []Proxy, ins []Injector, labels map[string]map[string]string) ([]Workload, error) {
	images, err := ProxyImages(ctx, r, planes)
	if err != nil {
		return nil, err
	}
	spaces := map[string]map[string]string{}
	err = list(ctx, r, namespaces, cluster.ListOptions{MetadataOnly: true}, func(o *cluster.Object) error {
		spaces[o.GetName()] = o.GetLabels()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	maps.Copy(spaces, labels)
	return outdated(px, ins, spaces, images), nil
}

func outdated(px []Proxy, ins []Injector, spaces map[string]map[string]string, images map[string]string) []Workload {
	by := map[string]*Workload{}
	for _, p := range px {
		w, stale := judge(p, ins, spaces[p.Namespace], images)
		if !stale {
			continue
		}
		key := string(p.Kind) + " " + p.Owner.ID()
		if by[key] == nil {
			by[key] = &w
		}
		by[key].Pods++
	}
	out := make([]Workload, 0, len(by))
	for _, w := range by {
		out = append(out, *w)
	}
	slices.SortFunc(out, func(a, b Workload) int {
		return cmp.Or(cmp.Compare(a.Ref.ID(), b.Ref.ID()), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// judge compares a proxy with what its injector would give now.
func judge(p Proxy, ins []Injector, ns map[string]string, images map[string]string) (Workload, bool) {
	rev, selected := p.Revision, true
	switch {
	case p.Kind == Ztunnel:
		return Workload{}, false
	case p.Labels[LabelGatewayOwner] == "": // istiod writes managed gateways itself, without injection
		rev, selected = InjectingRevision(ins, ns, p.Labels)
	}
	if !selected {
		return Workload{}, false
	}
	w := Workload{Ref: p.Owner, Kind: p.Kind}
	want := cmp.Or(p.Override, images[rev])
	switch {
	case rev != p.Revision:
		w.Reason, w.From, w.To = "another revision injects it now", p.Revision, rev
	case want == "" || want == p.Image:
		return Workload{}, false
	case ImageVersion(want) != p.Version:
		w.Reason, w.From, w.To = versionDiffers, cmp.Or(p.Version, p.Image), cmp.Or(ImageVersion(want), want)
	default:
		w.Reason, w.From, w.To = "proxy image", p.Image, want
	}
	return w, true
}
