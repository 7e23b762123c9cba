package plan

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/journal"
)

// Fidelity says how a plan compares with the run that was made of it.
type Fidelity struct {
	// Effects is how many there were in the plan or in the run, and Same how many
	// in both, in the order of their groups.
	Effects int `json:"effects"`
	Same    int `json:"same"`
	// Objects is how many changed in the twin or in the cluster, and Equal how
	// many ended alike, field by field; Fields and EqualFields count the fields.
	Objects     int      `json:"objects"`
	Equal       int      `json:"equal"`
	Fields      int      `json:"fields"`
	EqualFields int      `json:"equalFields"`
	Differences []string `json:"differences"`
}

// Write prints the percentages and every difference.
func (f *Fidelity) Write(w io.Writer) error {
	_, err := fmt.Fprintf(w, "effects %s of %d, objects %s of %d, fields %s of %d\n",
		percent(f.Same, f.Effects), f.Effects, percent(f.Equal, f.Objects), f.Objects, percent(f.EqualFields, f.Fields), f.Fields)
	for _, d := range f.Differences {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", d)
		}
	}
	return err
}

func percent(n, of int) string {
	if of == 0 {
		return "100%"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(n)/float64(of))
}

// Made are the effects of a run, from its journal, as a plan would have them; sealer
// opens what is in there of Secrets.
func Made(j journal.Journal, sealer builtin.Sealer) ([]Effect, error) {
	g := &gatherer{plan: &Plan{}, sealer: sealer}
	if err := g.read(j); err != nil {
		return nil, err
	}
	return g.plan.Effects, nil
}

// Measure compares a plan with a run: what it planned with what was made, and
// the twin's objects with those of the cluster, both as they were in the end
// where they are not as before.
func (p *Plan) Measure(made []Effect, before, twin, real []*unstructured.Unstructured) *Fidelity {
	f := &Fidelity{Differences: []string{}}
	f.effects(p.Effects, made)
	was, predicted, actual := states(before), states(twin), states(real)
	keys := map[string]bool{}
	for k, v := range actual {
		if !reflect.DeepEqual(was[k], v) {
			keys[k] = true
		}
	}
	for k, v := range predicted {
		if !reflect.DeepEqual(was[k], v) {
			keys[k] = true
		}
	}
	for k := range was {
		if _, ok := actual[k]; !ok {
			keys[k] = true
		}
		if _, ok := predicted[k]; !ok {
			keys[k] = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		f.object(k, predicted[k], actual[k])
	}
	return f
}

func (f *Fidelity) effects(planned, made []Effect) {
	count := map[string]int{}
	id := func(e Effect) string { return e.Step + " " + e.Wave + " " + e.Identity }
	name := map[string]string{}
	for _, e := range planned {
		count[id(e)]++
		name[id(e)] = e.Step + ": " + e.headline()
	}
	f.Effects = max(len(planned), len(made))
	for _, e := range made {
		if count[id(e)] > 0 {
			count[id(e)]--
			f.Same++
			continue
		}
		f.Differences = append(f.Differences, "made and not planned: "+e.Step+": "+e.headline())
	}
	for _, k := range slices.Sorted(maps.Keys(count)) {
		for range count[k] {
			f.Differences = append(f.Differences, "planned and not made: "+name[k])
		}
	}
}

func (f *Fidelity) object(name string, predicted, actual map[string]any) {
	f.Objects++
	n := leaves(actual)
	f.Fields += n
	var fields []Field
	compareMaps("", predicted, actual, &fields)
	f.EqualFields += max(0, n-len(fields))
	if len(fields) == 0 {
		f.Equal++
		return
	}
	for _, d := range fields {
		f.Differences = append(f.Differences, name+": "+d.Path+": planned "+brief(d.Old)+", is "+brief(d.New))
	}
}

func leaves(v any) int {
	switch x := v.(type) {
	case map[string]any:
		n := 0
		for _, y := range x {
			n += leaves(y)
		}
		return n
	case []any:
		n := 0
		for _, y := range x {
			n += leaves(y)
		}
		return n
	}
	return 1
}

// passing are the kinds that are not what anybody wants, but records of how it
// came about.
var passing = []string{"Event", "Lease", "ControllerRevision", "Endpoints", "EndpointSlice", "ReplicaSet"}

// states are the normal forms of objects by name. Pods are known by their owner
// and their number, because their names are made up.
func states(objs []*unstructured.Unstructured) map[string]map[string]any {
	out := map[string]map[string]any{}
	owners := cluster.Owners{}
	for _, o := range objs {
		if o.GetKind() == "ReplicaSet" {
			owners.Add(o)
		}
	}
	pods := map[owner][]map[string]any{}
	for _, o := range objs {
		switch {
		case slices.Contains(passing, o.GetKind()):
		case o.GetKind() == "Pod":
			w := ownerOf(o, owners)
			pods[w] = append(pods[w], podState(o))
		default:
			out[cluster.RefOf(o).String()] = generalState(o)
		}
	}
	for w, list := range pods {
		slices.SortFunc(list, func(a, b map[string]any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) // maps are printed in order
		for i, s := range list {
			out[fmt.Sprintf("pod %d of %s/%s in %s", i, w.kind, w.name, w.namespace)] = s
		}
	}
	return out
}

func generalState(o *unstructured.Unstructured) map[string]any {
	n := plainNumbers(cluster.Normalize(o, cluster.NormalizeOptions{})).Object
	// Who of several leads is written there by those who have no Lease for it.
	unstructured.RemoveNestedField(n, "metadata", "annotations", "control-plane.alpha.kubernetes.io/leader")
	if t, ok, _ := unstructured.NestedMap(n, "spec", "template", "metadata", "annotations"); ok {
		for k, v := range t {
			if s, isText := v.(string); isText && k == "rutter.dev/restart" && s != "" {
				t[k] = "restart"
			}
		}
		_ = unstructured.SetNestedMap(n, t, "spec", "template", "metadata", "annotations") // it was there
	}
	return n
}

// podState is what a pod is for: its containers, labels and whether it is ready.
func podState(o *unstructured.Unstructured) map[string]any {
	labels := map[string]any{}
	for k, v := range o.GetLabels() {
		switch k {
		case "topology.kubernetes.io/zone", "topology.kubernetes.io/region": // of the node (admission plugin PodTopologyLabels)
		case "pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index":
		default:
			labels[k] = v
		}
	}
	n := plainNumbers(o).Object
	spec, _ := n["spec"].(map[string]any)
	for _, field := range []string{"containers", "initContainers"} {
		withoutToken(spec[field])
	}
	return map[string]any{
		"labels": labels, "containers": spec["containers"], "initContainers": spec["initContainers"], "serviceAccountName": spec["serviceAccountName"],
		"phase": fmt.Sprint(nested(n, "status", "phase")), "going": o.GetDeletionTimestamp() != nil,
	}
}

// withoutToken takes away where the API server mounts the token of the service
// account, under a name that it makes up (admission plugin ServiceAccount).
func withoutToken(containers any) {
	list, _ := containers.([]any)
	for _, c := range list {
		m, _ := c.(map[string]any)
		mounts, ok := m["volumeMounts"].([]any)
		if !ok {
			continue
		}
		mounts = slices.DeleteFunc(mounts, func(x any) bool {
			mount, _ := x.(map[string]any)
			name, _ := mount["name"].(string)
			return strings.HasPrefix(name, "kube-api-access-")
		})
		if m["volumeMounts"] = mounts; len(mounts) == 0 {
			delete(m, "volumeMounts")
		}
	}
}

func nested(m map[string]any, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(m, path...)
	return v
}
