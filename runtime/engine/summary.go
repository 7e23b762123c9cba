package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// Summary says in a few words what an effect changes: new images first, since
// that is what an upgrade is about.
func Summary(ef *effect.Effect) string {
	switch {
	case ef.Verb == effect.Delete:
		return "delete"
	case ef.Verb == effect.Evict:
		return "evict"
	case ef.Class == effect.Restart, ef.Verb == effect.Patch && ef.Why != "":
		return ef.Why
	case ef.Absent:
		return "create"
	case ef.Before == nil || ef.After == nil:
		return string(ef.Verb)
	}
	before, after := images(ef.Before), images(ef.After)
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if old, ok := before[name]; ok && old != after[name] {
			changes = append(changes, fmt.Sprintf("%s → %s", shortImage(old), shortImage(after[name])))
		}
	}
	if len(changes) > 0 {
		return strings.Join(slices.Compact(changes), ", ")
	}
	if ef.Verb == effect.Replace && ef.Why != "" {
		return ef.Why
	}
	return string(ef.Verb)
}

// images maps container names of a workload to their images.
func images(o *cluster.Object) map[string]string {
	out := map[string]string{}
	spec, _ := o.Object["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	pod, _ := template["spec"].(map[string]any)
	for _, field := range []string{"initContainers", "containers"} {
		list, _ := pod[field].([]any)
		for _, c := range list {
			m, _ := c.(map[string]any)
			name, _ := m["name"].(string)
			image, _ := m["image"].(string)
			if name != "" && image != "" {
				out[name] = image
			}
		}
	}
	return out
}

func shortImage(image string) string { return image[strings.LastIndexByte(image, '/')+1:] }
