package controllers

import (
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// endpointsController keeps the EndpointSlice and the Endpoints of every
// Service with a selector. One slice holds all endpoints of a Service.
type endpointsController struct{}

func (endpointsController) Name() string { return "endpoint-slice-controller" }

func (endpointsController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grServices, grPods, grSlices, grEndpoints}
}

func (c endpointsController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	switch gr {
	case grServices, grEndpoints: // Endpoints bear their Service's name
		return c.sync(w, w.Get(grServices, namespace, name))
	case grPods:
		pod := w.Get(gr, namespace, name)
		if pod != nil && text(pod.Object, "status", "podIP") == "" {
			return 0 // in no slice yet: an address, once given, stays
		}
		for _, svc := range w.List(grServices, namespace) {
			if c.shows(w, svc, name, pod) {
				continue // most of what happens to a pod is nothing to its Services
			}
			if pod == nil || picks(table(svc.Object, "spec", "selector"), labelsOf(pod)) {
				// A refused write shows as a Service out of date; the
				// Service's own call, queued by it, retries.
				c.sync(w, svc)
			}
		}
	}
	return 0
}

// shows reports whether a Service's EndpointSlice and Endpoints hold a pod as it
// is, so that the Service has not to be looked at as a whole. pod is nil where it
// is gone.
func (endpointsController) shows(w sim.World, svc *unstructured.Unstructured, name string, pod *unstructured.Unstructured) bool {
	slices := w.Owned(grSlices, svc.GetNamespace(), uidOf(svc))
	old := w.Get(grEndpoints, svc.GetNamespace(), svc.GetName())
	if len(slices) == 0 || old == nil {
		return false
	}
	var want, address map[string]any
	field := ""
	if pod != nil && !finished(pod) && picks(table(svc.Object, "spec", "selector"), labelsOf(pod)) {
		want = endpoint(svc, pod)
		field, address = addressOf(svc, pod)
	}
	if !equal(ofPod(items(slices[0].Object, "endpoints"), name), want) {
		return false
	}
	for _, subset := range items(old.Object, "subsets") {
		for _, f := range []string{"addresses", "notReadyAddresses"} {
			found := ofPod(items(subset, f), name)
			if f == field && !equal(found, address) || f != field && found != nil {
				return false
			}
		}
	}
	return address == nil || len(items(old.Object, "subsets")) > 0
}

// ofPod is the entry of a list of addresses that refers to a pod, nil without one.
func ofPod(list []any, name string) map[string]any {
	for _, e := range list {
		if text(e, "targetRef", "name") == name {
			return table(e)
		}
	}
	return nil
}

// addressOf is a pod's entry in Endpoints and the list that it belongs in; one that is
// not ready and on its way out has none.
func addressOf(svc, pod *unstructured.Unstructured) (field string, address map[string]any) {
	switch {
	case ready(pod) || flag(svc.Object, "spec", "publishNotReadyAddresses"):
		field = "addresses"
	case !deleting(pod):
		field = "notReadyAddresses"
	default:
		return "", nil
	}
	address = map[string]any{"ip": text(pod.Object, "status", "podIP"), "targetRef": podReference(pod)}
	if n := text(pod.Object, "spec", "nodeName"); n != "" {
		address["nodeName"] = n
	}
	return field, address
}

func (c endpointsController) sync(w sim.World, svc *unstructured.Unstructured) time.Duration {
	if svc == nil || deleting(svc) || len(table(svc.Object, "spec", "selector")) == 0 {
		return 0
	}
	var pods []*unstructured.Unstructured
	for _, p := range w.List(grPods, svc.GetNamespace()) {
		if picks(table(svc.Object, "spec", "selector"), labelsOf(p)) && text(p.Object, "status", "podIP") != "" && !finished(p) {
			pods = append(pods, p)
		}
	}
	sort.Slice(pods, func(i, j int) bool { return pods[i].GetName() < pods[j].GetName() })
	again := c.slice(w, svc, pods)
	return sooner(again, c.endpoints(w, svc, pods))
}

func (endpointsController) slice(w sim.World, svc *unstructured.Unstructured, pods []*unstructured.Unstructured) time.Duration {
	endpoints := make([]any, 0, len(pods))
	for _, p := range pods {
		endpoints = append(endpoints, endpoint(svc, p))
	}
	body := map[string]any{"addressType": "IPv4", "endpoints": endpoints, "ports": portsFor(svc, pods)}
	labels := map[string]any{}
	for k, v := range labelsOf(svc) {
		labels[k] = v
	}
	labels["kubernetes.io/service-name"] = svc.GetName()
	labels["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io"
	if existing := w.Owned(grSlices, svc.GetNamespace(), uidOf(svc)); len(existing) > 0 {
		next := edit(existing[0])
		table(next.Object, "metadata")["labels"] = labels
		for k, v := range body {
			next.Object[k] = v
		}
		if equal(next.Object, existing[0].Object) {
			return 0
		}
		if err := w.Update(next); err != nil {
			return retryDelay
		}
		return 0
	}
	obj := map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata": map[string]any{
			"name": w.Name(svc.GetName() + "-"), "generateName": svc.GetName() + "-", "namespace": svc.GetNamespace(),
			"labels": labels, "ownerReferences": ownedBy(svc),
		},
	}
	for k, v := range body {
		obj[k] = v
	}
	if _, err := w.Create(&unstructured.Unstructured{Object: obj}); err != nil {
		return retryDelay
	}
	return 0
}

func endpoint(svc, pod *unstructured.Unstructured) map[string]any {
	serving := isTrue(pod, "Ready")
	ep := map[string]any{
		"addresses": []any{text(pod.Object, "status", "podIP")},
		"conditions": map[string]any{
			"ready":   ready(pod) || flag(svc.Object, "spec", "publishNotReadyAddresses"),
			"serving": serving, "terminating": deleting(pod),
		},
		"targetRef": podReference(pod),
	}
	if n := text(pod.Object, "spec", "nodeName"); n != "" {
		ep["nodeName"] = n
	}
	if h := text(pod.Object, "spec", "hostname"); h != "" && text(pod.Object, "spec", "subdomain") == svc.GetName() {
		ep["hostname"] = h
	}
	return ep
}

func podReference(pod *unstructured.Unstructured) map[string]any {
	return map[string]any{"kind": "Pod", "name": pod.GetName(), "namespace": pod.GetNamespace(), "uid": uidOf(pod)}
}

// portsFor resolves a Service's ports to the ports of its pods; a named target
// that no pod has is left out.
func portsFor(svc *unstructured.Unstructured, pods []*unstructured.Unstructured) []any {
	out := []any{}
	for _, p := range items(svc.Object, "spec", "ports") {
		target := number(p, number(p, 0, "port"), "targetPort")
		if name := text(p, "targetPort"); name != "" {
			target = namedPort(pods, name)
		}
		if target == 0 {
			continue
		}
		protocol := text(p, "protocol")
		if protocol == "" {
			protocol = "TCP"
		}
		port := map[string]any{"name": text(p, "name"), "port": target, "protocol": protocol}
		if a := text(p, "appProtocol"); a != "" {
			port["appProtocol"] = a
		}
		out = append(out, port)
	}
	return out
}

func namedPort(pods []*unstructured.Unstructured, name string) int64 {
	for _, pod := range pods {
		for _, field := range []string{"containers", "initContainers"} {
			for _, c := range items(pod.Object, "spec", field) {
				for _, p := range items(c, "ports") {
					if text(p, "name") == name {
						return number(p, 0, "containerPort")
					}
				}
			}
		}
	}
	return 0
}

// endpoints keeps the older Endpoints object, which lists ready addresses
// apart from those that are not.
func (endpointsController) endpoints(w sim.World, svc *unstructured.Unstructured, pods []*unstructured.Unstructured) time.Duration {
	subset := map[string]any{}
	for _, p := range pods {
		if field, address := addressOf(svc, p); field != "" {
			subset[field] = append(items(subset, field), address)
		}
	}
	var subsets []any
	if len(subset) > 0 {
		if ports := portsFor(svc, pods); len(ports) > 0 {
			subset["ports"] = ports
		}
		subsets = []any{subset}
	}
	if old := w.Get(grEndpoints, svc.GetNamespace(), svc.GetName()); old != nil {
		if equal(items(old.Object, "subsets"), subsets) {
			return 0
		}
		next := edit(old)
		delete(next.Object, "subsets")
		if subsets != nil {
			next.Object["subsets"] = subsets
		}
		if err := w.Update(next); err != nil {
			return retryDelay
		}
		return 0
	}
	meta := map[string]any{"name": svc.GetName(), "namespace": svc.GetNamespace()}
	labels := copyMap(labelsOf(svc))
	labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller"
	meta["labels"] = labels
	obj := map[string]any{"apiVersion": "v1", "kind": "Endpoints", "metadata": meta}
	if subsets != nil {
		obj["subsets"] = subsets
	}
	if _, err := w.Create(&unstructured.Unstructured{Object: obj}); err != nil {
		return retryDelay
	}
	return 0
}
