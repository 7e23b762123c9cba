package failures

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/tests/workbench"
)

// sickness is what a new version does to pods that nobody could know before: it
// sets an annotation by which the simulated kubelet, or a proxy, is steered on
// the pods that a rule selects. Its rules are in a ConfigMap, so that each clone
// of a mesh has its own:
//
//	data: {anything: "IMAGE ANNOTATION VALUE"}   every pod with that in an image
//	data: {anything: "IMAGE ANNOTATION VALUE NAMESPACE"}
type sickness struct{}

// sick makes the ConfigMap.
func sick(rules ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + sicknessName + ", namespace: default}\ndata:\n")
	for i, r := range rules {
		b.WriteString("  r" + string(rune('a'+i)) + ": \"" + r + "\"\n")
	}
	return b.String()
}

const sicknessName = "sickness"

var (
	podKind   = schema.GroupResource{Resource: "pods"}
	configMap = schema.GroupResource{Resource: "configmaps"}
)

// Name implements sim.Controller.
func (sickness) Name() string { return sicknessName }

// Watches implements sim.Controller.
func (sickness) Watches() []schema.GroupResource { return []schema.GroupResource{podKind, configMap} }

// Sync implements sim.Controller.
func (s sickness) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr == podKind {
		return s.sync(w, w.Get(podKind, namespace, name))
	}
	again := time.Duration(0)
	if namespace == "default" && name == sicknessName {
		for _, pod := range w.List(podKind, "") {
			again = max(again, s.sync(w, pod))
		}
	}
	return again
}

func (sickness) sync(w sim.World, pod *unstructured.Unstructured) time.Duration {
	rules := w.Get(configMap, "default", sicknessName)
	if rules == nil || pod == nil || pod.GetDeletionTimestamp() != nil {
		return 0
	}
	data, _, _ := unstructured.NestedStringMap(rules.Object, "data")
	next := pod.DeepCopy()
	notes := next.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	changed := false
	for _, rule := range data {
		f := strings.Fields(rule)
		ill := hasImage(pod, f[0])
		if len(f) > 3 && pod.GetNamespace() != f[3] || !ill || notes[f[1]] == f[2] {
			continue
		}
		notes[f[1]], changed = f[2], true
	}
	if !changed {
		return 0
	}
	next.SetAnnotations(notes)
	if err := w.Update(next); err != nil {
		return time.Second
	}
	return 0
}

// hasImage reports whether an image of the pod, or of a workload's template, has
// the text in it.
func hasImage(o *unstructured.Unstructured, text string) bool {
	pod := o
	if template, ok, err := unstructured.NestedMap(o.Object, "spec", "template"); err == nil && ok {
		pod = &unstructured.Unstructured{Object: template}
	}
	return slices.ContainsFunc(workbench.Images(pod), func(image string) bool { return strings.Contains(image, text) })
}
