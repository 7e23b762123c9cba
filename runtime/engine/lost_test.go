package engine_test

import (
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
)

// validator is the webhook configuration as a manifest has it, or as istiod makes it.
func validator(policy string) *cluster.Object {
	return &cluster.Object{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
		"metadata": map[string]any{"name": "v"},
		"webhooks": []any{map[string]any{
			"name": "rev.validation.istio.io", "failurePolicy": policy, "sideEffects": "None", "admissionReviewVersions": []any{"v1"},
			"clientConfig": map[string]any{"url": "https://istiod.example.com/validate"},
		}},
	}}
}

// validate applies it, and then the ConfigMap a: one call with two changes, as
// that of a manifest has many.
var validate = builtin.NewWrite(builtin.WriteDef[noArgs]{
	Name: "validate", Doc: "Applies a webhook and a ConfigMap.", Example: "validate()", Returns: "int", Effects: []effect.Class{effect.Webhook, effect.Plain},
	Plan: func(c *builtin.Call, _ *noArgs) (*effect.Plan, error) {
		e, err := effect.ApplyOf(validator("Ignore"), nil)
		if err != nil {
			return nil, err
		}
		live, err := c.Reader.Get(c.Ctx, e.Ref)
		if err != nil && !errors.Is(err, cluster.ErrNotFound) {
			return nil, err
		}
		e.Found(live)
		p, err := planPut(c, "a")
		if err != nil {
			return nil, err
		}
		p.Effects = append([]*effect.Effect{e}, p.Effects...)
		return p, nil
	},
	Drive: func(c *builtin.Call, s effect.Submitter, _ *noArgs, p *effect.Plan) (any, error) {
		for _, e := range p.Effects {
			if _, err := s.Submit(c.Ctx, e); err != nil {
				return 0, err
			}
		}
		return len(p.Effects), nil
	},
})

// What istiod takes over of a webhook that the run has made, before the host dies
// in the same step, is not lost to the run: it is not made again, which istiod's
// ownership would forbid. What a person takes is, and is refused by name.
func TestIstiodTakesOverWhatWasMade(t *testing.T) {
	for _, tc := range []struct {
		manager string
		refused bool
	}{{"pilot-discovery", false}, {"kubectl-edit", true}} {
		t.Run(tc.manager, func(t *testing.T) {
			w := newWorld(t, header+`
def run(p):
    step("validate", validate)
`)
			dead, done := false, 0
			w.onEvent = func(e event.Event) {
				if _, ok := e.Body.(*event.EffectDone); ok {
					done++
				}
				if _, ok := e.Body.(*event.EffectIntent); ok && done == 1 {
					dead = true // the second change is on record, and not made
				}
			}
			w.fs.Fault(func(int, string) error {
				if dead {
					return errors.New("killed")
				}
				return nil
			})
			if err := w.run(); err == nil || !dead {
				t.Fatalf("killed %t: %v", dead, err)
			}
			w.onEvent = nil
			if _, err := w.client.Apply(t.Context(), validator("Fail"), cluster.ApplyOptions{Manager: tc.manager, Force: true}); err != nil {
				t.Fatal(err)
			}
			w.fs = w.fs.Crash(1 << 20)
			var err error
			if w.journal, err = journal.Open(w.fs, "/runs", "test", w.sim.Clock()); err != nil {
				t.Fatal(err)
			}
			err = w.resume()
			if (err != nil) != tc.refused {
				t.Fatalf("resumed: %v", err)
			}
			if err != nil {
				return
			}
			live, err := w.client.Get(t.Context(), cluster.RefOf(validator("")))
			if err != nil {
				t.Fatal(err)
			}
			hooks, _, err := unstructured.NestedSlice(live.Object, "webhooks")
			if err != nil || hooks[0].(map[string]any)["failurePolicy"] != "Fail" {
				t.Errorf("webhooks %v (%v)", hooks, err)
			}
			if w.data("a") != "1" {
				t.Errorf("a = %s", w.data("a"))
			}
		})
	}
}
