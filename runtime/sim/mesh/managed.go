package mesh

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
)

// managedGateway is a Gateway that istiod runs.
type managedGateway struct {
	gw       *unstructured.Unstructured
	class    gatewayClass
	name     string // of its Deployment, Service and ServiceAccount
	revision string
	image    string
}

// object makes one of the Gateway's objects.
func (g *managedGateway) object(apiVersion, kind string, rest object) *unstructured.Unstructured {
	labels := object{labelGatewayName: g.gw.GetName(), gatewayGroup + "/gateway-class-name": g.class.name}
	if kind == "Deployment" || !g.class.waypoint {
		labels["gateway.istio.io/managed"] = g.class.label
	}
	for k, v := range g.gw.GetLabels() {
		labels[k] = v
	}
	if !g.class.waypoint {
		labels["istio.io/dataplane-mode"] = "none"
	}
	o := object{"apiVersion": apiVersion, "kind": kind, "metadata": object{
		"name": g.name, "namespace": g.gw.GetNamespace(), "labels": labels,
		"ownerReferences": []any{object{
			"apiVersion": g.gw.GetAPIVersion(), "kind": "Gateway", "name": g.gw.GetName(), "uid": string(g.gw.GetUID()),
		}},
	}}
	for k, v := range rest {
		o[k] = v
	}
	return &unstructured.Unstructured{Object: o}
}

func (g *managedGateway) objects() []*unstructured.Unstructured {
	return []*unstructured.Unstructured{
		g.object("v1", "ServiceAccount", nil),
		g.object("apps/v1", "Deployment", object{"spec": object{
			"selector": object{"matchLabels": object{labelGatewayName: g.gw.GetName()}},
			"template": g.template(),
		}}),
		g.object("v1", "Service", object{"spec": object{
			"ipFamilyPolicy": "PreferDualStack", "ports": g.ports(), "type": g.class.service,
			"selector": object{labelGatewayName: g.gw.GetName()},
		}}),
	}
}

func (g *managedGateway) template() object {
	role := TypeRouter
	if g.class.waypoint {
		role = TypeWaypoint
	}
	istiod := "istiod"
	if g.revision != "default" {
		istiod += "-" + g.revision
	}
	port := func(n int64, name string) any { return object{"containerPort": n, "name": name, "protocol": "TCP"} }
	return object{
		"metadata": object{
			"annotations": object{
				"istio.io/rev": g.revision, "prometheus.io/path": "/stats/prometheus", "prometheus.io/port": "15020", "prometheus.io/scrape": "true",
			},
			"labels": object{
				"sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none",
				"service.istio.io/canonical-name": g.name, "service.istio.io/canonical-revision": "latest",
				labelGatewayName: g.gw.GetName(), gatewayGroup + "/gateway-class-name": g.class.name, "gateway.istio.io/managed": g.class.label,
			},
		},
		"spec": object{
			"serviceAccountName": g.name,
			"containers": []any{object{
				"name": ProxyContainer, "image": g.image,
				"args":  []any{"proxy", role, "--domain", "$(POD_NAMESPACE).svc.cluster.local"},
				"ports": []any{port(15020, "metrics"), port(15021, "status-port"), port(15090, "http-envoy-prom")},
				"env":   []any{object{"name": "CA_ADDR", "value": istiod + "." + SystemNamespace + ".svc:15012"}},
				"readinessProbe": object{
					"failureThreshold": int64(4), "periodSeconds": int64(15), "successThreshold": int64(1), "timeoutSeconds": int64(1),
					"httpGet": object{"path": "/healthz/ready", "port": int64(15021), "scheme": "HTTP"},
				},
			}},
		},
	}
}

// listeners are the Gateway's listeners.
func (g *managedGateway) listeners() []object {
	list, _, _ := unstructured.NestedSlice(g.gw.Object, "spec", "listeners")
	var out []object
	for _, x := range list {
		if l, ok := x.(object); ok {
			out = append(out, l)
		}
	}
	return out
}

// ports are those of the Gateway's Service (extractServicePorts).
func (g *managedGateway) ports() []any {
	out := []any{object{"name": "status-port", "port": int64(15021), "protocol": "TCP", "appProtocol": "tcp"}}
	seen := map[any]bool{}
	for _, l := range g.listeners() {
		if seen[l["port"]] {
			continue
		}
		seen[l["port"]] = true
		out = append(out, object{
			"name": l["name"], "port": l["port"], "protocol": "TCP", "appProtocol": strings.ToLower(fmt.Sprint(l["protocol"])),
		})
	}
	return out
}

// gatewayCondition is a condition as the Gateway API writes them.
type gatewayCondition struct {
	kind            string
	ok              bool
	reason, message string
}

// conditionsOf is the status of an object with conditions set; one whose status
// does not change keeps its time.
func conditionsOf(obj *unstructured.Unstructured, now time.Time, want ...gatewayCondition) object {
	status := object{}
	if old, ok := obj.Object["status"].(object); ok {
		for k, v := range old {
			status[k] = v
		}
	}
	old, _ := status["conditions"].([]any)
	status["conditions"] = conditionList(old, obj.GetGeneration(), now, want)
	return status
}

func conditionList(old []any, generation int64, now time.Time, want []gatewayCondition) []any {
	var out []any
	for _, c := range want {
		value := "False"
		if c.ok {
			value = "True"
		}
		next := object{
			"type": c.kind, "status": value, "reason": c.reason, "message": c.message,
			"observedGeneration": generation, "lastTransitionTime": now.UTC().Format(time.RFC3339),
		}
		for _, x := range old {
			if o, _ := x.(object); o["type"] == c.kind && o["status"] == value {
				next["lastTransitionTime"] = o["lastTransitionTime"]
			}
		}
		out = append(out, next)
	}
	return out
}

// status is what istiod reports of the Gateway (reportGatewayStatus): accepted
// at once, programmed when its Service has endpoints and, if it is a load
// balancer, an address.
func (g *managedGateway) status(v sim.View) object {
	host := g.name + "." + g.gw.GetNamespace() + ".svc.cluster.local"
	programmed := gatewayCondition{"Programmed", false, "AddressNotAssigned", ""}
	svc := v.Get(grServices, g.gw.GetNamespace(), g.name)
	var addresses []any
	switch ip := loadBalancerAddress(svc); {
	case svc == nil || !hasEndpoints(v, svc):
		programmed.message = fmt.Sprintf("Failed to assign to any requested addresses: no instances found for hostname %q", host)
	case g.class.service == "LoadBalancer" && ip == "":
		programmed.message = fmt.Sprintf("Assigned to service(s) %s, but failed to assign to all requested addresses: address pending for hostname %q", g.assigned(host), host)
	default:
		programmed.ok, programmed.reason, programmed.message = true, "Programmed", "Resource programmed, assigned to service(s) "+g.assigned(host)
		if ip == "" {
			ip, _, _ = unstructured.NestedString(svc.Object, "spec", "clusterIP")
		}
		addresses = []any{object{"type": "IPAddress", "value": ip}}
		if g.class.waypoint {
			addresses = append(addresses, object{"type": "Hostname", "value": host})
		}
	}
	status := conditionsOf(g.gw, v.Now(),
		gatewayCondition{"Accepted", true, "Accepted", "Resource accepted"}, programmed,
		gatewayCondition{"ResolvedRefs", true, "ResolvedRefs", "All references resolved"})
	if addresses != nil {
		status["addresses"] = addresses
	}
	status["listeners"] = g.listenerStatus(v)
	return status
}

func (g *managedGateway) assigned(host string) string {
	var all []string
	for _, l := range g.listeners() {
		all = append(all, fmt.Sprintf("%s:%v", host, l["port"]))
	}
	if n := len(all); n > 1 {
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
	return strings.Join(all, "")
}

func (g *managedGateway) listenerStatus(v sim.View) []any {
	old, _, _ := unstructured.NestedSlice(g.gw.Object, "status", "listeners")
	out := []any{}
	for _, l := range g.listeners() {
		var before []any
		for _, x := range old {
			if o, _ := x.(object); o["name"] == l["name"] {
				before, _ = o["conditions"].([]any)
			}
		}
		supported := []any{object{"group": gatewayGroup, "kind": "HTTPRoute"}, object{"group": gatewayGroup, "kind": "GRPCRoute"}}
		if l["protocol"] != "HTTP" && l["protocol"] != "HTTPS" {
			supported = []any{}
		}
		out = append(out, object{
			"name": l["name"], "attachedRoutes": g.attached(v, l), "supportedKinds": supported,
			"conditions": conditionList(before, g.gw.GetGeneration(), v.Now(), []gatewayCondition{
				{"Accepted", true, "Accepted", "No errors found"},
				{"Conflicted", false, "NoConflicts", "No errors found"},
				{"Programmed", true, "Programmed", "No errors found"},
				{"ResolvedRefs", true, "ResolvedRefs", "No errors found"},
			}),
		})
	}
	return out
}

// attached counts the HTTPRoutes that name the Gateway, and this listener or
// none, as their parent.
func (g *managedGateway) attached(v sim.View, listener object) int64 {
	n := int64(0)
	for _, r := range v.List(grRoutes, "") {
		parents, _, _ := unstructured.NestedSlice(r.Object, "spec", "parentRefs")
		for _, x := range parents {
			p, _ := x.(object)
			ns, _ := p["namespace"].(string)
			if first(ns, r.GetNamespace()) == g.gw.GetNamespace() && p["name"] == g.gw.GetName() && (p["sectionName"] == nil || p["sectionName"] == listener["name"]) {
				n++
				break
			}
		}
	}
	return n
}

func loadBalancerAddress(svc *unstructured.Unstructured) string {
	if svc == nil {
		return ""
	}
	ingress, _, _ := unstructured.NestedSlice(svc.Object, "status", "loadBalancer", "ingress")
	for _, x := range ingress {
		if i, _ := x.(object); i["ip"] != nil {
			ip, _ := i["ip"].(string)
			return ip
		}
	}
	return ""
}

func hasEndpoints(v sim.View, svc *unstructured.Unstructured) bool {
	for _, s := range v.List(grSlices, svc.GetNamespace()) {
		if s.GetLabels()["kubernetes.io/service-name"] != svc.GetName() {
			continue
		}
		endpoints, _ := s.Object["endpoints"].([]any)
		for _, x := range endpoints {
			if ready, _, _ := unstructured.NestedBool(x.(object), "conditions", "ready"); ready {
				return true
			}
		}
	}
	return false
}

// updateStatus stores a status that differs from the stored one.
func updateStatus(w sim.World, obj *unstructured.Unstructured, status object) time.Duration {
	if contains(obj.Object["status"], status) && contains(status, obj.Object["status"]) {
		return 0
	}
	next := &unstructured.Unstructured{Object: object{}}
	for k, v := range obj.Object {
		next.Object[k] = v
	}
	next.Object["status"] = status
	if err := w.UpdateStatus(next); err != nil {
		return retryDelay
	}
	return 0
}
