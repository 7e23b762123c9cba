package mesh

// meshConfig makes instances of Istio's kinds, of those that have a CRD, and
// an autoscaler.
func (b *builder) meshConfig() {
	b.instance("security.istio.io/v1", "PeerAuthentication", SystemNamespace, "default", object{"mtls": object{"mode": "STRICT"}})
	b.instance("telemetry.istio.io/v1", "Telemetry", SystemNamespace, "mesh-default", object{
		"accessLogging": []any{object{"providers": []any{object{"name": "envoy"}}}},
	})
	entered, scaled := false, false
	for i, w := range b.loads {
		if w.kind != "Deployment" || b.plain[w.namespace] || w.noSidecar {
			continue
		}
		if !entered {
			entered = true
			b.ingress(w)
		}
		if !scaled && w.replicas > 1 && !w.strict {
			scaled = true
			b.autoscaler(w)
		}
		b.traffic(i, w)
	}
}

func (b *builder) instance(apiVersion, kind, namespace, name string, spec object) {
	if b.serves[kind] {
		b.add(apiVersion, kind, namespace, name, nil, object{"spec": spec})
	}
}

func (b *builder) ingress(w workload) {
	b.instance("networking.istio.io/v1", "Gateway", w.namespace, "public", object{
		"selector": object{"istio": "ingressgateway"},
		"servers": []any{object{
			"hosts": []any{"shop.example.com"},
			"port":  object{"name": "http", "number": int64(80), "protocol": "HTTP"},
		}},
	})
	b.instance("networking.istio.io/v1", "VirtualService", w.namespace, "public", object{
		"hosts": []any{"shop.example.com"}, "gateways": []any{"public"},
		"http": []any{object{"route": []any{object{"destination": object{"host": w.name, "port": object{"number": int64(80)}}}}}},
	})
}

func (b *builder) traffic(i int, w workload) {
	if i%5 == 0 {
		b.instance("networking.istio.io/v1", "DestinationRule", w.namespace, w.name, object{
			"host":          w.name,
			"trafficPolicy": object{"connectionPool": object{"http": object{"http2MaxRequests": int64(1000)}}},
			"subsets":       []any{object{"name": "v1", "labels": object{"version": "v1"}}},
		})
	}
	if i%6 == 1 {
		b.instance("networking.istio.io/v1", "VirtualService", w.namespace, w.name, object{
			"hosts": []any{w.name},
			"http": []any{object{
				"timeout": "5s", "retries": object{"attempts": int64(2), "perTryTimeout": "2s"},
				"route": []any{object{"destination": object{"host": w.name}}},
			}},
		})
	}
	if i%9 == 2 {
		b.instance("security.istio.io/v1", "AuthorizationPolicy", w.namespace, w.name, object{
			"selector": object{"matchLabels": object{"app": w.name}}, "action": "ALLOW",
			"rules": []any{object{"from": []any{object{"source": object{"namespaces": []any{w.namespace, SystemNamespace}}}}}},
		})
	}
}

func (b *builder) autoscaler(w workload) {
	b.add("autoscaling/v2", "HorizontalPodAutoscaler", w.namespace, w.name, object{"app": w.name}, object{"spec": object{
		"minReplicas": w.replicas, "maxReplicas": w.replicas + 4,
		"scaleTargetRef": object{"apiVersion": "apps/v1", "kind": "Deployment", "name": w.name},
		"metrics": []any{object{"type": "Resource", "resource": object{
			"name": "cpu", "target": object{"type": "Utilization", "averageUtilization": int64(80)},
		}}},
	}})
}
