package controllers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// loadBalancers gives every Service of type LoadBalancer an address, as a
// cloud's controller would: one of the documentation addresses 203.0.113.0/24,
// a function of the Service's namespace and name.
type loadBalancers struct{}

func (loadBalancers) Name() string { return "service-controller" }

func (loadBalancers) Watches() []schema.GroupResource { return []schema.GroupResource{grServices} }

func (loadBalancers) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	svc := w.Get(gr, namespace, name)
	if gr != grServices || svc == nil || deleting(svc) {
		return 0
	}
	status := copyMap(table(svc.Object, "status"))
	if text(svc.Object, "spec", "type") != "LoadBalancer" {
		if len(items(status, "loadBalancer", "ingress")) == 0 {
			return 0
		}
		status["loadBalancer"] = map[string]any{} // it was one before
		return setStatus(w, svc, status)
	}
	if len(items(status, "loadBalancer", "ingress")) > 0 {
		return 0
	}
	ip := fmt.Sprintf("203.0.113.%d", 1+spread(namespace+"/"+name)%254)
	status["loadBalancer"] = map[string]any{"ingress": []any{map[string]any{"ip": ip, "ipMode": "VIP"}}}
	w.Event(svc, eventNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	return setStatus(w, svc, status)
}
