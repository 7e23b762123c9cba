package sim

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
)

// column is one column of a resource's table.
type column struct {
	metav1.TableColumnDefinition
	cell func(o *unstructured.Unstructured, now time.Time) any
}

// ageColumn and nameColumn are those of every resource but events.
var (
	nameColumn = column{metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name"}, func(o *unstructured.Unstructured, _ time.Time) any { return o.GetName() }}
	ageColumn  = column{metav1.TableColumnDefinition{Name: "Age", Type: "string"}, func(o *unstructured.Unstructured, now time.Time) any {
		return since(o.GetCreationTimestamp().Time, now)
	}}
)

func since(t, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t))
}

// tableColumns are the columns beside NAME, in order. Those with the priority 1
// are shown by kubectl get -o wide. Source: the API server's printers
// (kubernetes/pkg/printers/internalversion), as kubectl get shows them.
var tableColumns = map[string][]column{
	"pods": {
		text("Ready", podReadiness), text("Status", podStatus), text("Restarts", podRestarts), ageColumn,
		wide("IP", str("status", "podIP")), wide("Node", str("spec", "nodeName")),
		wide("Nominated Node", str("status", "nominatedNodeName")), wide("Readiness Gates", fixed("<none>")),
	},
	"deployments.apps": withContainers(true, text("Ready", readyOf("readyReplicas")),
		count("Up-to-date", "status", "updatedReplicas"), count("Available", "status", "availableReplicas"), ageColumn),
	"replicasets.apps": withContainers(true, count("Desired", "spec", "replicas"), count("Current", "status", "replicas"),
		count("Ready", "status", "readyReplicas"), ageColumn),
	"statefulsets.apps": withContainers(false, text("Ready", readyOf("readyReplicas")), ageColumn),
	"daemonsets.apps": withContainers(true,
		count("Desired", "status", "desiredNumberScheduled"), count("Current", "status", "currentNumberScheduled"), count("Ready", "status", "numberReady"),
		count("Up-to-date", "status", "updatedNumberScheduled"), count("Available", "status", "numberAvailable"),
		text("Node Selector", pairs("spec", "template", "spec", "nodeSelector")), ageColumn),
	"jobs.batch": withContainers(true, text("Status", jobStatus), text("Completions", jobCompletions), jobDuration, ageColumn),
	"endpoints":  {text("Endpoints", endpointsCell), ageColumn},
	"endpointslices.discovery.k8s.io": {
		text("AddressType", str("addressType")), text("Ports", slicePorts), text("Endpoints", sliceEndpoints), ageColumn,
	},
	"services": {
		text("Type", str("spec", "type")), text("Cluster-IP", str("spec", "clusterIP")), text("External-IP", externalIP),
		text("Port(s)", servicePorts), ageColumn, wide("Selector", pairs("spec", "selector")),
	},
	"namespaces": {text("Status", str("status", "phase")), ageColumn},
	"nodes": {
		text("Status", nodeStatus), text("Roles", nodeRoles), ageColumn, text("Version", str("status", "nodeInfo", "kubeletVersion")),
	},
	"configmaps":      {text("Data", entries("data", "binaryData")), ageColumn},
	"secrets":         {text("Type", str("type")), text("Data", entries("data")), ageColumn},
	"serviceaccounts": {text("Secrets", length("secrets")), ageColumn},
	"poddisruptionbudgets.policy": {
		text("Min Available", orNA("spec", "minAvailable")), text("Max Unavailable", orNA("spec", "maxUnavailable")),
		count("Allowed Disruptions", "status", "disruptionsAllowed"), ageColumn,
	},
	"horizontalpodautoscalers.autoscaling": {
		text("Reference", func(o *unstructured.Unstructured) any {
			return fmt.Sprint(str("spec", "scaleTargetRef", "kind")(o), "/", str("spec", "scaleTargetRef", "name")(o))
		}),
		text("Targets", autoscalerTargets), text("MinPods", str("spec", "minReplicas")), text("MaxPods", str("spec", "maxReplicas")), text("Replicas", str("status", "currentReplicas")), ageColumn,
	},
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":   {text("Webhooks", length("webhooks")), ageColumn},
	"validatingwebhookconfigurations.admissionregistration.k8s.io": {text("Webhooks", length("webhooks")), ageColumn},
	"customresourcedefinitions.apiextensions.k8s.io":               {text("Created At", str("metadata", "creationTimestamp"))},
	"clusterroles.rbac.authorization.k8s.io":                       {text("Created At", str("metadata", "creationTimestamp"))},
	"roles.rbac.authorization.k8s.io":                              {text("Created At", str("metadata", "creationTimestamp"))},
	"clusterrolebindings.rbac.authorization.k8s.io":                {text("Role", roleRef), ageColumn},
	"rolebindings.rbac.authorization.k8s.io":                       {text("Role", roleRef), ageColumn},
}

// eventColumns have no name in front.
var eventColumns = []column{
	{metav1.TableColumnDefinition{Name: "Last Seen", Type: "string"}, func(o *unstructured.Unstructured, now time.Time) any {
		s, _, _ := unstructured.NestedString(o.Object, "lastTimestamp")
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t = o.GetCreationTimestamp().Time
		}
		return since(t, now)
	}},
	text("Type", str("type")), text("Reason", str("reason")), text("Object", eventObject), text("Message", str("message")),
	wide("Name", func(o *unstructured.Unstructured) any { return o.GetName() }),
}

func text(name string, f func(*unstructured.Unstructured) any) column {
	return column{metav1.TableColumnDefinition{Name: name, Type: "string"}, func(o *unstructured.Unstructured, _ time.Time) any { return f(o) }}
}

func wide(name string, f func(*unstructured.Unstructured) any) column {
	c := text(name, f)
	c.Priority = 1
	return c
}

func count(name string, path ...string) column {
	return column{metav1.TableColumnDefinition{Name: name, Type: "integer"}, func(o *unstructured.Unstructured, _ time.Time) any { return number(o, path...) }}
}

// withContainers adds the wide columns of what has a pod template.
func withContainers(selector bool, cols ...column) []column {
	each := func(field string) func(*unstructured.Unstructured) any {
		return func(o *unstructured.Unstructured) any {
			var out []string
			for _, c := range mapsIn(o, "spec", "template", "spec", "containers") {
				out = append(out, fmt.Sprint(c[field]))
			}
			return strings.Join(out, ",")
		}
	}
	cols = append(cols, wide("Containers", each("name")), wide("Images", each("image")))
	if selector {
		cols = append(cols, wide("Selector", pairs("spec", "selector", "matchLabels")))
	}
	return cols
}

func number(o *unstructured.Unstructured, path ...string) int64 {
	n, _, _ := unstructured.NestedInt64(o.Object, path...)
	return n
}

// mapsIn are the maps of a list.
func mapsIn(o *unstructured.Unstructured, path ...string) []map[string]any {
	v, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	list, _ := v.([]any)
	var out []map[string]any
	for _, x := range list {
		if m, ok := x.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func str(path ...string) func(*unstructured.Unstructured) any { return orElse("<none>", path...) }

func orNA(path ...string) func(*unstructured.Unstructured) any { return orElse("N/A", path...) }

func orElse(absent string, path ...string) func(*unstructured.Unstructured) any {
	return func(o *unstructured.Unstructured) any {
		v, ok, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
		if !ok || v == nil || v == "" {
			return absent
		}
		return fmt.Sprint(v)
	}
}

func fixed(s string) func(*unstructured.Unstructured) any {
	return func(*unstructured.Unstructured) any { return s }
}

// pairs shows a map as kubectl shows labels.
func pairs(path ...string) func(*unstructured.Unstructured) any {
	return func(o *unstructured.Unstructured) any {
		m, _, _ := unstructured.NestedMap(o.Object, path...)
		if len(m) == 0 {
			return "<none>"
		}
		var out []string
		for k, v := range m {
			out = append(out, fmt.Sprintf("%s=%v", k, v))
		}
		sort.Strings(out)
		return strings.Join(out, ",")
	}
}

// entries counts the keys of maps.
func entries(fields ...string) func(*unstructured.Unstructured) any {
	return func(o *unstructured.Unstructured) any {
		n := 0
		for _, f := range fields {
			m, _, _ := unstructured.NestedMap(o.Object, f)
			n += len(m)
		}
		return int64(n)
	}
}

func length(field string) func(*unstructured.Unstructured) any {
	return func(o *unstructured.Unstructured) any { return int64(len(mapsIn(o, field))) }
}

func readyOf(field string) func(*unstructured.Unstructured) any {
	return func(o *unstructured.Unstructured) any {
		return fmt.Sprintf("%d/%d", number(o, "status", field), number(o, "spec", "replicas"))
	}
}

// sidecars are the names of init containers that go on running.
func sidecars(o *unstructured.Unstructured) []string {
	var out []string
	for _, c := range mapsIn(o, "spec", "initContainers") {
		if c["restartPolicy"] == "Always" {
			out = append(out, fmt.Sprint(c["name"]))
		}
	}
	return out
}

// podReadiness counts containers and, as Kubernetes does since 1.29, sidecars.
func podReadiness(o *unstructured.Unstructured) any {
	natives := sidecars(o)
	total, ready := len(mapsIn(o, "spec", "containers"))+len(natives), 0
	for _, s := range mapsIn(o, "status", "containerStatuses") {
		if s["ready"] == true {
			ready++
		}
	}
	for _, s := range mapsIn(o, "status", "initContainerStatuses") {
		if s["ready"] == true && slices.Contains(natives, fmt.Sprint(s["name"])) {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, total)
}

func podStatus(o *unstructured.Unstructured) any {
	if o.GetDeletionTimestamp() != nil {
		return "Terminating"
	}
	for _, s := range mapsIn(o, "status", "containerStatuses") {
		for _, state := range []string{"waiting", "terminated"} {
			if r, _, _ := unstructured.NestedString(s, "state", state, "reason"); r != "" {
				return r
			}
		}
	}
	return str("status", "phase")(o)
}

func podRestarts(o *unstructured.Unstructured) any {
	var n int64
	for _, s := range mapsIn(o, "status", "containerStatuses") {
		r, _ := s["restartCount"].(int64)
		n += r
	}
	return strconv.FormatInt(n, 10)
}

func servicePorts(o *unstructured.Unstructured) any {
	var out []string
	for _, m := range mapsIn(o, "spec", "ports") {
		port := fmt.Sprint(m["port"])
		if n, _ := m["nodePort"].(int64); n != 0 {
			port += ":" + strconv.FormatInt(n, 10)
		}
		out = append(out, fmt.Sprintf("%s/%v", port, m["protocol"]))
	}
	if len(out) == 0 {
		return "<none>"
	}
	return strings.Join(out, ",")
}

func externalIP(o *unstructured.Unstructured) any {
	var out []string
	for _, m := range mapsIn(o, "status", "loadBalancer", "ingress") {
		for _, k := range []string{"ip", "hostname"} {
			if s, _ := m[k].(string); s != "" {
				out = append(out, s)
				break
			}
		}
	}
	switch {
	case len(out) > 0:
		return strings.Join(out, ",")
	case str("spec", "type")(o) == "LoadBalancer":
		return "<pending>"
	}
	return "<none>"
}

func nodeStatus(o *unstructured.Unstructured) any {
	s := "NotReady"
	if podReady(o) {
		s = "Ready"
	}
	if v, _, _ := unstructured.NestedBool(o.Object, "spec", "unschedulable"); v {
		s += ",SchedulingDisabled"
	}
	return s
}

func nodeRoles(o *unstructured.Unstructured) any {
	var out []string
	for k := range o.GetLabels() {
		if role, ok := strings.CutPrefix(k, "node-role.kubernetes.io/"); ok && role != "" {
			out = append(out, role)
		}
	}
	if len(out) == 0 {
		return "<none>"
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

func roleRef(o *unstructured.Unstructured) any {
	return fmt.Sprint(str("roleRef", "kind")(o), "/", str("roleRef", "name")(o))
}

func eventObject(o *unstructured.Unstructured) any {
	kind, _, _ := unstructured.NestedString(o.Object, "involvedObject", "kind")
	name, _, _ := unstructured.NestedString(o.Object, "involvedObject", "name")
	return strings.ToLower(kind) + "/" + name
}
