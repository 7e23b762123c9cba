package mesh

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"rutter.dev/rutter/runtime/sim/controllers"
)

// workload is one generated workload.
type workload struct {
	kind, namespace, name string
	replicas              int64
	onDelete, noSidecar   bool
	strict                bool
}

var workloadWords = []string{
	"cart", "checkout", "web", "api", "worker", "gateway", "cache", "index", "feed", "ledger",
	"quote", "mailer", "stock", "basket", "profile", "session", "report", "router", "audit", "sync",
}

// plan decides what each workload is: a StatefulSet in eight, a DaemonSet in
// twelve, Deployments with two to four replicas otherwise; those with special
// properties come last.
func (b *builder) plan() []workload {
	s := b.spec
	out := make([]workload, s.Workloads)
	for i := range out {
		w := workload{kind: "Deployment", namespace: b.spaces[i%len(b.spaces)], replicas: 2 + b.rnd.Int64N(3)}
		round := i / len(b.spaces)
		w.name = workloadWords[(i%len(b.spaces)+round)%len(workloadWords)]
		if n := round / len(workloadWords); n > 0 {
			w.name += "-" + strconv.Itoa(n+1)
		}
		switch {
		case i%8 == 3:
			w.kind = "StatefulSet"
		case i%12 == 6:
			w.kind = "DaemonSet"
		}
		out[i] = w
	}
	b.mark(out)
	return out
}

// mark gives the special properties to workloads from the end, those first
// that are in a namespace with injection.
func (b *builder) mark(all []workload) {
	var order []int
	for _, plain := range []bool{false, true} {
		for i := len(all) - 1; i >= 0; i-- {
			if b.plain[all[i].namespace] == plain {
				order = append(order, i)
			}
		}
	}
	each := func(n int, f func(w *workload)) {
		for ; n > 0 && len(order) > 0; n-- {
			f(&all[order[0]])
			order = order[1:]
		}
	}
	each(b.spec.OnDelete, func(w *workload) { w.kind, w.onDelete = "StatefulSet", true })
	each(b.spec.SingleReplica, func(w *workload) { w.kind, w.replicas = "Deployment", 1 })
	each(b.spec.NoSidecar, func(w *workload) { w.kind, w.noSidecar = "Deployment", true })
	each(b.spec.StrictPDBs, func(w *workload) { w.kind, w.strict = "Deployment", true })
}

func (b *builder) workloads() {
	b.loads = b.plan()
	for i, w := range b.loads {
		b.add("v1", "ServiceAccount", w.namespace, w.name, nil, nil)
		b.workload(w)
		b.add("v1", "Service", w.namespace, w.name, object{"app": w.name}, object{"spec": object{
			"selector": object{"app": w.name},
			"ports":    []any{object{"name": "http", "port": int64(80), "targetPort": int64(8080), "protocol": "TCP"}},
		}})
		b.budget(i, w)
	}
}

func (b *builder) workload(w workload) {
	labels := object{"app": w.name, "version": "v1"}
	if w.noSidecar {
		labels["sidecar.istio.io/inject"] = "false"
	}
	spec := object{
		"selector": object{"matchLabels": object{"app": w.name}},
		"template": object{
			"metadata": object{"labels": labels, "annotations": object{
				controllers.AnnotationReadyAfter: fmt.Sprintf("%ds", 2+b.rnd.IntN(3)),
			}},
			"spec": podSpec(w.namespace, w.name),
		},
	}
	if w.kind != "DaemonSet" {
		spec["replicas"] = w.replicas
	}
	switch w.kind {
	case "Deployment":
		spec["strategy"] = object{"type": "RollingUpdate", "rollingUpdate": object{"maxSurge": "25%", "maxUnavailable": "25%"}}
		spec["progressDeadlineSeconds"] = int64(120)
	case "StatefulSet":
		spec["serviceName"] = w.name
		spec["updateStrategy"] = object{"type": "RollingUpdate", "rollingUpdate": object{"partition": int64(0)}}
	case "DaemonSet":
		spec["updateStrategy"] = object{"type": "RollingUpdate", "rollingUpdate": object{"maxUnavailable": int64(1), "maxSurge": int64(0)}}
	}
	if w.onDelete {
		spec["updateStrategy"] = object{"type": "OnDelete"}
	}
	b.add("apps/v1", w.kind, w.namespace, w.name, object{"app": w.name}, object{"spec": spec})
}

func podSpec(namespace, name string) object {
	return object{
		"serviceAccountName": name,
		"containers": []any{object{
			"name": "app", "image": "registry.example/" + namespace + "/" + name + ":1.4.2",
			"ports":     []any{object{"name": "http", "containerPort": int64(8080), "protocol": "TCP"}},
			"resources": object{"requests": object{"cpu": "50m", "memory": "64Mi"}},
		}},
	}
}

// budget gives about half of the replicated workloads a PodDisruptionBudget
// that leaves room for one pod at a time, and the strict ones one that does
// not.
func (b *builder) budget(i int, w workload) {
	spec := object{"selector": object{"matchLabels": object{"app": w.name}}}
	switch {
	case w.strict:
		spec["minAvailable"] = w.replicas
	case w.kind == "DaemonSet" || w.replicas < 2 || i%2 == 1:
		return
	case i%3 == 0:
		spec["maxUnavailable"] = int64(1)
	case i%3 == 1:
		spec["minAvailable"] = w.replicas - 1
	default:
		spec["minAvailable"] = "50%"
	}
	b.add("policy/v1", "PodDisruptionBudget", w.namespace, w.name, object{"app": w.name}, object{"spec": spec})
}

func (b *builder) barePods() {
	var spaces []string
	for _, ns := range b.spaces {
		if !b.plain[ns] {
			spaces = append(spaces, ns)
		}
	}
	for i := range b.spec.BarePods {
		ns, name := spaces[i%len(spaces)], fmt.Sprintf("debug-%d", i+1)
		spec := podSpec(ns, "debug")
		spec["serviceAccountName"] = "default"
		b.add("v1", "Pod", ns, name, object{"app": name}, object{"spec": spec})
	}
}

func base64Text(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
