package plan

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/seal"
)

// Identify is what an effect of a run and one of its plan must have in common to
// be the same: verb, target, and what is sent. Two things may differ, because
// they name the run or what comes and goes by itself:
//
//   - the mark of a restart, which holds the run's name and the generation of the
//     workload;
//   - which pod of a workload is evicted.
//
// A plan is for others to read: of a Secret it has a digest from which a guess at
// what is in it is found out slowly.
func Identify(e *effect.Effect) string {
	cp := *e
	if e.Verb == effect.Evict && e.Before != nil {
		if owner := metav1.GetControllerOfNoCopy(e.Before); owner != nil {
			cp.Ref.Name = "of " + owner.Kind + " " + owner.Name
		}
	}
	cp.Body = unmarked(e.Body)
	if !e.HoldsSecret() {
		return cp.Digest()
	}
	return seal.Stretch(cp.Ref.ID(), cp.Digest())
}

// unmarked is a body with the mark of a restart that is the same in every run.
func unmarked(body json.RawMessage) json.RawMessage {
	m, err := plain.Decode(body)
	if err != nil {
		return body
	}
	at := m
	for _, k := range []string{"spec", "template", "metadata", "annotations"} {
		next, ok := at[k].(map[string]any)
		if !ok {
			return body
		}
		at = next
	}
	if _, ok := at[effect.AnnotationRestart].(string); !ok {
		return body
	}
	at[effect.AnnotationRestart] = "restart"
	out, err := plain.Encode(m)
	if err != nil {
		return body
	}
	return out
}
