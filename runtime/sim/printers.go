package sim

import (
	"fmt"
	"net"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
)

// The cells of kinds whose tables compute something. Source: the API server's
// printers (kubernetes/pkg/printers/internalversion).

// jobStatus is the STATUS of a Job.
func jobStatus(o *unstructured.Unstructured) any {
	has := map[string]bool{}
	for _, c := range mapsIn(o, "status", "conditions") {
		if c["status"] == "True" {
			kind, _ := c["type"].(string)
			has[kind] = true
		}
	}
	switch {
	case has["Complete"]:
		return "Complete"
	case has["Failed"]:
		return "Failed"
	case o.GetDeletionTimestamp() != nil:
		return "Terminating"
	}
	for _, kind := range []string{"Suspended", "FailureTarget", "SuccessCriteriaMet"} {
		if has[kind] {
			return kind
		}
	}
	return "Running"
}

func jobCompletions(o *unstructured.Unstructured) any {
	done := number(o, "status", "succeeded")
	if n, ok, _ := unstructured.NestedInt64(o.Object, "spec", "completions"); ok {
		return fmt.Sprintf("%d/%d", done, n)
	}
	if p := number(o, "spec", "parallelism"); p > 1 {
		return fmt.Sprintf("%d/1 of %d", done, p)
	}
	return fmt.Sprintf("%d/1", done)
}

// jobDuration is how long a Job ran, or has run until now.
var jobDuration = column{metav1.TableColumnDefinition{Name: "Duration", Type: "string"}, func(o *unstructured.Unstructured, now time.Time) any {
	at := func(field string) (time.Time, bool) {
		s, _, _ := unstructured.NestedString(o.Object, "status", field)
		t, err := time.Parse(time.RFC3339, s)
		return t, err == nil
	}
	start, ok := at("startTime")
	if !ok {
		return ""
	}
	if end, ok := at("completionTime"); ok {
		now = end
	}
	return duration.HumanDuration(now.Sub(start))
}}

// most is how many entries of a list the printers show.
const most = 3

// listed joins what the printers show of a list.
func listed(all []string, none string) string {
	if len(all) == 0 {
		return none
	}
	if len(all) > most {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:most], ","), len(all)-most)
	}
	return strings.Join(all, ",")
}

func endpointsCell(o *unstructured.Unstructured) any {
	var all []string
	for _, s := range mapsIn(o, "subsets") {
		subset := &unstructured.Unstructured{Object: s}
		ports := mapsIn(subset, "ports")
		if len(ports) == 0 {
			ports = []map[string]any{nil}
		}
		for _, p := range ports {
			for _, a := range mapsIn(subset, "addresses") {
				ip, _ := a["ip"].(string)
				if p != nil {
					ip = net.JoinHostPort(ip, fmt.Sprint(p["port"]))
				}
				all = append(all, ip)
			}
		}
	}
	return listed(all, "<none>")
}

func slicePorts(o *unstructured.Unstructured) any {
	var all []string
	for _, p := range mapsIn(o, "ports") {
		switch {
		case p["port"] != nil:
			all = append(all, fmt.Sprint(p["port"]))
		case p["name"] != nil:
			all = append(all, fmt.Sprint(p["name"]))
		default:
			all = append(all, "*")
		}
	}
	return listed(all, "<unset>")
}

func sliceEndpoints(o *unstructured.Unstructured) any {
	var all []string
	for _, e := range mapsIn(o, "endpoints") {
		addresses, _ := e["addresses"].([]any)
		for _, a := range addresses {
			all = append(all, fmt.Sprint(a))
		}
	}
	return listed(all, "<unset>")
}

// autoscalerTargets is the TARGETS of an autoscaler, of its metrics of
// resources; others show as unknown.
func autoscalerTargets(o *unstructured.Unstructured) any {
	specs, current := mapsIn(o, "spec", "metrics"), mapsIn(o, "status", "currentMetrics")
	var all []string
	for i, m := range specs {
		name, _, _ := unstructured.NestedString(m, "resource", "name")
		target, found, _ := unstructured.NestedInt64(m, "resource", "target", "averageUtilization")
		if !found {
			all = append(all, "<unknown>/<auto>")
			continue
		}
		now := "<unknown>"
		if i < len(current) {
			if n, ok, _ := unstructured.NestedInt64(current[i], "resource", "current", "averageUtilization"); ok {
				now = fmt.Sprintf("%d%%", n)
			}
		}
		all = append(all, fmt.Sprintf("%s: %s/%d%%", name, now, target))
	}
	if len(all) > 2 {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:2], ", "), len(all)-2)
	}
	if len(all) == 0 {
		return "<none>"
	}
	return strings.Join(all, ", ")
}
