package kinds

import "fmt"

// AllocateClusterIP gives a Service (in its JSON form) an address in
// 10.96.0.0/16, its family, and node ports where its type wants them. next draws numbers,
// used says whether an address is taken.
func AllocateClusterIP(svc map[string]any, next func() uint32, used func(string) bool) {
	spec, ok := svc["spec"].(map[string]any)
	if !ok {
		return
	}
	typ, _ := spec["type"].(string)
	if typ == "ExternalName" {
		return
	}
	if spec["ipFamilyPolicy"] == nil {
		spec["ipFamilyPolicy"] = "SingleStack"
	}
	if list, _ := spec["ipFamilies"].([]any); len(list) == 0 {
		spec["ipFamilies"] = []any{"IPv4"}
	}
	ip, _ := spec["clusterIP"].(string)
	for ip == "" {
		n := next()
		candidate := fmt.Sprintf("10.96.%d.%d", n>>8&0xff, n&0xff)
		if last := n & 0xff; last != 0 && last != 255 && !used(candidate) {
			ip = candidate
		}
	}
	spec["clusterIP"] = ip
	if spec["clusterIPs"] == nil {
		spec["clusterIPs"] = []any{ip}
	}
	if typ != "NodePort" && typ != "LoadBalancer" {
		return
	}
	if a, ok := spec["allocateLoadBalancerNodePorts"].(bool); ok && !a {
		return
	}
	ports, _ := spec["ports"].([]any)
	for _, p := range ports {
		if m, ok := p.(map[string]any); ok && m["nodePort"] == nil {
			m["nodePort"] = int64(30000 + next()%2768)
		}
	}
}

// KeepServiceFields carries the allocated values of a Service over into an
// update that leaves them out.
func KeepServiceFields(old, obj map[string]any) {
	a, _ := old["spec"].(map[string]any)
	b, _ := obj["spec"].(map[string]any)
	if a == nil || b == nil {
		return
	}
	if typ, _ := b["type"].(string); typ == "ExternalName" {
		return
	}
	for _, f := range []string{"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"} {
		if v, ok := b[f]; (!ok || v == "") && a[f] != nil {
			b[f] = a[f]
		}
	}
	nodePorts := map[any]any{}
	op, _ := a["ports"].([]any)
	for _, p := range op {
		if m, ok := p.(map[string]any); ok && m["nodePort"] != nil {
			nodePorts[[2]any{m["port"], m["protocol"]}] = m["nodePort"]
		}
	}
	np, _ := b["ports"].([]any)
	for _, p := range np {
		m, ok := p.(map[string]any)
		if !ok || m["nodePort"] != nil {
			continue
		}
		proto := m["protocol"]
		if proto == nil {
			proto = "TCP"
		}
		if n := nodePorts[[2]any{m["port"], proto}]; n != nil {
			m["nodePort"] = n
		}
	}
}
