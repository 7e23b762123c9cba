package restart

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// component is a kind of workload that a mesh's control plane consists of, in
// the order in which they are restarted (GUIDE §3).
type component struct {
	name, kind, labels string
	gateway            bool
}

func components(gateways bool) []component {
	out := []component{
		{name: "istiod", kind: "Deployment", labels: "app=istiod"},
		{name: "cni", kind: "DaemonSet", labels: "k8s-app=istio-cni-node"},
		{name: "ztunnel", kind: "DaemonSet", labels: "app.kubernetes.io/name=ztunnel"},
	}
	if gateways {
		out = append(out, component{name: "gateways", kind: "Deployment", labels: "operator.istio.io/component in (IngressGateways,EgressGateways)", gateway: true})
	}
	return out
}

// controlPlane decides which parts of the control plane have to be restarted,
// and says of every other one why not: the decision table of GUIDE row 13.
//
//	istiod    its mesh ConfigMap is newer than its pods (istiod reloads most of
//	          it, but not all)
//	cni       a ConfigMap that its pods read at start is newer than they are
//	ztunnel   likewise
//	gateways  their proxy is not of the version that was applied
func controlPlane(c *builtin.Call, a *controlPlaneArgs) ([]wish, []Skipped, error) {
	version := c.Run.To
	if a.Manifest != nil && a.Manifest.Version != "" {
		version = a.Manifest.Version
	}
	j := &judge{c: c, version: version, before: map[string]*cluster.Object{}}
	for _, o := range a.Before {
		u := o.Unstructured()
		j.before[cluster.RefOf(u).ID()] = u
	}
	var wishes []wish
	var skipped []Skipped
	for _, comp := range components(a.Gateways) {
		found, err := comp.workloads(c, a.Revision)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range found {
			w, why, err := j.decide(comp, o)
			switch {
			case err != nil:
				return nil, nil, err
			case why != "":
				skipped = append(skipped, skip(cluster.RefOf(o), why))
			default:
				wishes = append(wishes, w)
			}
		}
	}
	return wishes, skipped, nil
}

func (comp component) workloads(c *builtin.Call, revision string) ([]*cluster.Object, error) {
	var out []*cluster.Object
	res, err := c.Reader.ResourceFor(c.Ctx, schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: comp.kind})
	if err != nil {
		return nil, err
	}
	err = c.Reader.List(c.Ctx, res, cluster.ListOptions{Labels: comp.labels}, func(o *cluster.Object) error {
		if rev, ok := o.GetLabels()["istio.io/rev"]; comp.name != "istiod" || revision == "" || !ok || rev == revision {
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

// judge looks at one component at a time.
type judge struct {
	c       *builtin.Call
	version string
	before  map[string]*cluster.Object // ConfigMaps, by Ref.ID
}

func (j *judge) decide(comp component, o *cluster.Object) (w wish, why string, err error) {
	w = wish{ref: cluster.RefOf(o), gateway: comp.gateway, wave: comp.name}
	sel, err := selectorOf(o)
	if err != nil {
		return w, "", err
	}
	pods, err := (&target{Ref: w.ref, Selector: sel.String()}).own(j.c)
	switch {
	case err != nil:
		return w, "", err
	case len(pods) == 0:
		return w, "it has no pods", nil
	}
	if ready, _, state := cluster.Ready(o); !ready {
		return w, "its rollout is not through: " + state, nil
	}
	if comp.gateway {
		return j.gateway(w, o, pods)
	}
	return j.config(w, o, pods)
}

func (j *judge) gateway(w wish, o *cluster.Object, pods []*cluster.Object) (wish, string, error) {
	if j.version == "" {
		return w, "no target version is known to hold its proxy against", nil
	}
	if named := templateProxy(o); named != "" && named != j.version {
		return w, fmt.Sprintf("its pod template names proxy %s, which a restart would bring again; apply the manifest of %s", named, j.version), nil
	}
	for _, p := range pods {
		if px, ok := proxyOf(p); ok && !px.is(j.version) {
			got := px.String()
			w.from, w.to = got, j.version
			w.reason = fmt.Sprintf("its proxy is %s, the control plane %s", got, j.version)
			return w, "", nil
		}
	}
	return w, "its proxies are of version " + j.version, nil
}

// templateProxy is the version of the proxy that a workload's own pod template
// names; "" where injection decides (image: auto, or no proxy in the template).
func templateProxy(o *cluster.Object) string {
	template, found, err := unstructured.NestedMap(o.Object, "spec", "template")
	if err != nil || !found {
		return ""
	}
	px, ok := proxyOf(&cluster.Object{Object: template})
	if !ok {
		return ""
	}
	return px.version
}

func (j *judge) config(w wish, o *cluster.Object, pods []*cluster.Object) (wish, string, error) {
	oldest := pods[0].GetCreationTimestamp().Time
	for _, p := range pods {
		if at := p.GetCreationTimestamp().Time; at.Before(oldest) {
			oldest = at
		}
	}
	names := mesh.ReadAtStart(o)
	for _, name := range names {
		ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: o.GetNamespace(), Name: name}
		cm, err := j.c.Reader.Get(j.c.Ctx, ref)
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return w, "", err
		}
		if j.changedSince(cm, oldest) {
			w.reason = fmt.Sprintf("configmap/%s changed after its pods started, and its pod template did not", name)
			return w, "", nil
		}
	}
	if len(names) == 0 {
		return w, "it reads no configuration but its pod template, which rolls it by itself", nil
	}
	return w, "its pods are newer than the configuration that they read (" + strings.Join(names, ", ") + ")", nil
}

// changedSince reports whether the data of a ConfigMap changed after t. With
// the object from before at hand, equal data means no.
func (j *judge) changedSince(cm *cluster.Object, t time.Time) bool {
	if old := j.before[cluster.RefOf(cm).ID()]; old != nil &&
		reflect.DeepEqual(old.Object["data"], cm.Object["data"]) && reflect.DeepEqual(old.Object["binaryData"], cm.Object["binaryData"]) {
		return false
	}
	last := cm.GetCreationTimestamp().Time
	for _, m := range cm.GetManagedFields() {
		if m.Time != nil && m.Time.After(last) && ownsData(m) {
			last = m.Time.Time
		}
	}
	return last.After(t)
}

func ownsData(m metav1.ManagedFieldsEntry) bool {
	if m.FieldsV1 == nil || m.Subresource != "" {
		return false
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields); err != nil {
		return true // unreadable: better one restart too many
	}
	return fields["f:data"] != nil || fields["f:binaryData"] != nil
}
