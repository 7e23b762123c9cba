package mesh

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/kinds"
)

var (
	grGateways    = schema.GroupResource{Group: gatewayGroup, Resource: "gateways"}
	grClasses     = schema.GroupResource{Group: gatewayGroup, Resource: "gatewayclasses"}
	grRoutes      = schema.GroupResource{Group: gatewayGroup, Resource: "httproutes"}
	grDefinitions = schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}
	grDeployments = schema.GroupResource{Group: "apps", Resource: "deployments"}
	grSlices      = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}
)

const (
	gatewayGroup     = "gateway.networking.k8s.io"
	labelGatewayName = gatewayGroup + "/gateway-name"
)

// gatewayClass is a class of Gateways that istiod implements
// (pilot/pkg/config/kube/gatewaycommon/classinfo.go).
type gatewayClass struct {
	name, controller, description string
	waypoint                      bool
	label                         string // of what istiod makes for a Gateway
	service                       string // type of its Service
}

// classes are those of a mesh, with those of ambient if it is one.
func classes(ambient bool) []gatewayClass {
	out := []gatewayClass{{
		name: "istio", controller: "istio.io/gateway-controller", description: "The default Istio GatewayClass",
		label: "istio.io-gateway-controller", service: "LoadBalancer",
	}}
	if ambient {
		out = append(out, gatewayClass{
			name: "istio-waypoint", controller: "istio.io/mesh-controller", description: "The default Istio waypoint GatewayClass",
			label: "istio.io-mesh-controller", service: "ClusterIP", waypoint: true,
		})
	}
	return out
}

// istiodClasses keeps the GatewayClasses that istiod makes once the Gateway
// API's definitions are there, and accepts those that are its own.
type istiodClasses struct{}

// Name implements sim.Controller.
func (istiodClasses) Name() string { return "istiod-gateway-classes" }

// Manager names the field manager of its writes.
func (istiodClasses) Manager() string { return Manager }

// Watches implements sim.Controller.
func (istiodClasses) Watches() []schema.GroupResource {
	return []schema.GroupResource{grClasses, grDefinitions, grPods}
}

// Sync implements sim.Controller.
func (c istiodClasses) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	switch {
	case gr == grPods:
		if pod := w.Get(gr, namespace, name); pod == nil || pod.GetLabels()["app"] != "istiod" {
			return 0
		}
	case gr == grDefinitions && name != grClasses.String():
		return 0
	}
	crd := w.Get(grDefinitions, "", grClasses.String())
	if crd == nil || conditionSince(crd, "Established").IsZero() || !anyIstiod(w) {
		return 0
	}
	for _, class := range classes(isAmbient(w)) {
		if again := c.sync(w, class); again > 0 {
			return again
		}
	}
	return 0
}

func (istiodClasses) sync(w sim.World, class gatewayClass) time.Duration {
	obj := w.Get(grClasses, "", class.name)
	if obj == nil {
		var err error
		if obj, err = w.Create(&unstructured.Unstructured{Object: object{
			"apiVersion": gatewayGroup + "/v1", "kind": "GatewayClass", "metadata": object{"name": class.name},
			"spec": object{"controllerName": class.controller, "description": class.description},
		}}); err != nil {
			return retryDelay
		}
	}
	status := conditionsOf(obj, w.Now(), gatewayCondition{"Accepted", true, "Accepted", "Handled by Istio controller"})
	return updateStatus(w, obj, status)
}

// istiodGateways makes the Deployment, Service and ServiceAccount of a Gateway
// of one of its classes, and reports the Gateway's status. What it makes are
// the objects of the kube-gateway and waypoint templates of Istio's injector,
// as far as an upgrade can see them: labels, annotations, owner, image, ports.
type istiodGateways struct{}

// Name implements sim.Controller.
func (istiodGateways) Name() string { return "istiod-gateways" }

// Manager is the field manager that the real controller applies with
// (features.ManagedGatewayController).
func (istiodGateways) Manager() string { return "istio.io/gateway-controller" }

// Watches implements sim.Controller.
func (istiodGateways) Watches() []schema.GroupResource {
	return []schema.GroupResource{grGateways, grClasses, grServices, grDeployments, grSlices, grRoutes, grConfigMaps, grPods, grMutating, grNamespaces}
}

// Sync implements sim.Controller.
func (c istiodGateways) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	obj := w.Get(gr, namespace, name)
	switch gr {
	case grGateways:
		return c.sync(w, obj)
	case grServices, grDeployments, grSlices:
		if obj != nil && obj.GetLabels()[labelGatewayName] != "" {
			return c.sync(w, w.Get(grGateways, namespace, obj.GetLabels()[labelGatewayName]))
		}
		return 0
	case grPods:
		if obj == nil || obj.GetLabels()["app"] != "istiod" || !podReady(obj) {
			return 0
		}
	case grConfigMaps:
		if !strings.HasPrefix(name, "istio-sidecar-injector") {
			return 0
		}
	case grMutating:
		if !strings.HasPrefix(name, tagPrefix) { // a tag that moved
			return 0
		}
	}
	again := time.Duration(0)
	for _, g := range w.List(grGateways, "") {
		again = max(again, c.sync(w, g))
	}
	return again
}

// tagPrefix begins the names of the webhooks of revision tags.
const tagPrefix = "istio-revision-tag-"

// inCharge is the revision whose istiod keeps a Gateway: the one that its
// label names, or its namespace's, directly or as a tag (pkg/revisions of Istio,
// IsMine of the tag watcher). A moved tag so rolls gateways at once
// (istio/istio#59959).
func inCharge(w sim.World, gw *unstructured.Unstructured) string {
	name, ok := gw.GetLabels()["istio.io/rev"]
	if ns := w.Get(grNamespaces, "", gw.GetNamespace()); !ok && ns != nil {
		name = ns.GetLabels()["istio.io/rev"]
	}
	name = cmp.Or(name, "default")
	if tag := w.Get(grMutating, "", tagPrefix+name); tag != nil {
		return cmp.Or(tag.GetLabels()["istio.io/rev"], "default")
	}
	return name
}

func (istiodGateways) sync(w sim.World, gw *unstructured.Unstructured) time.Duration {
	if gw == nil || gw.GetDeletionTimestamp() != nil {
		return 0
	}
	className, _, _ := unstructured.NestedString(gw.Object, "spec", "gatewayClassName")
	all := classes(isAmbient(w))
	i := slices.IndexFunc(all, func(c gatewayClass) bool { return c.name == className })
	rev := inCharge(w, gw)
	if i < 0 || len(readyIstiods(w, SystemNamespace, rev)) == 0 {
		return 0
	}
	g := &managedGateway{gw: gw, class: all[i], revision: rev}
	g.name = gw.GetName() + "-" + className
	if g.class.waypoint {
		g.name = gw.GetName()
	}
	var err error
	if g.image, err = injectorImage(w, rev); err != nil {
		return retryDelay
	}
	for _, want := range g.objects() {
		if applied(w, want) {
			continue
		}
		if err := w.Apply(want); err != nil {
			return retryDelay
		}
	}
	return updateStatus(w, gw, g.status(w))
}

// applied reports whether a stored object has everything that is wanted of it,
// so that it need not be applied again.
func applied(v sim.View, want *unstructured.Unstructured) bool {
	gr := map[string]schema.GroupResource{
		"Deployment": grDeployments, "Service": grServices, "ServiceAccount": {Resource: "serviceaccounts"},
	}[want.GetKind()]
	have := v.Get(gr, want.GetNamespace(), want.GetName())
	return have != nil && contains(have.Object, want.Object) && !outgrown(have, want)
}

// outgrown reports whether istiod owns a label that it no longer wants, such as the
// revision that its Gateway had: an apply takes it away.
func outgrown(have, want *unstructured.Unstructured) bool {
	for label := range have.GetLabels() {
		if _, wanted := want.GetLabels()[label]; wanted {
			continue
		}
		for _, m := range have.GetManagedFields() {
			if m.Manager == (istiodGateways{}).Manager() && m.FieldsV1 != nil && strings.Contains(m.FieldsV1.GetRawString(), `"f:`+label+`":`) {
				return true
			}
		}
	}
	return false
}

// contains reports whether every field of want is in have.
func contains(have, want any) bool {
	switch x := want.(type) {
	case object:
		h, ok := have.(object)
		for k, v := range x {
			ok = ok && contains(h[k], v)
		}
		return ok
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(x) {
			return false
		}
		for i := range x {
			ok = ok && contains(h[i], x[i])
		}
		return ok
	}
	return kinds.Equal(have, want)
}

// injectorImage is the proxy image that a revision's injector is configured
// with.
func injectorImage(v sim.View, rev string) (string, error) {
	name := "istio-sidecar-injector"
	if rev != "default" {
		name += "-" + rev
	}
	cm := v.Get(grConfigMaps, SystemNamespace, name)
	if cm == nil {
		return "", fmt.Errorf("configmap %s: %w", name, ErrInjectorConfig)
	}
	text, _, _ := unstructured.NestedString(cm.Object, "data", "values")
	var values injectorValues
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return "", fmt.Errorf("configmap %s: values: %w: %w", name, ErrInjectorConfig, err)
	}
	return (&stub{pod: &unstructured.Unstructured{Object: object{}}, values: values}).image(), nil
}

// isAmbient reports whether istiod was told to serve ambient
// (PILOT_ENABLE_AMBIENT).
func isAmbient(v sim.View) bool {
	for _, d := range v.List(grDeployments, SystemNamespace) {
		if d.GetLabels()["app"] != "istiod" {
			continue
		}
		containers, _, _ := unstructured.NestedSlice(d.Object, "spec", "template", "spec", "containers")
		for _, x := range containers {
			env, _ := x.(object)["env"].([]any)
			for _, y := range env {
				if e, _ := y.(object); e["name"] == "PILOT_ENABLE_AMBIENT" && e["value"] == "true" {
					return true
				}
			}
		}
	}
	return false
}
