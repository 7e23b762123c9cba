package istioctl

import (
	"encoding/json"
	"fmt"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

// wrapped is the data of a plan whose effects manifest.Drive makes, with what
// the builtin itself wants to know afterwards.
type wrapped struct {
	Drive json.RawMessage `json:"drive"`
	Own   json.RawMessage `json:"own"`
}

// planWith is p with the builtin's own data beside what drives it.
func planWith(p *manifest.Planned, own any) (*effect.Plan, error) {
	plan, err := p.EffectPlan()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	plan.Data, err = json.Marshal(wrapped{Drive: plan.Data, Own: raw})
	return plan, err
}

// splitPlan is the inverse of planWith: the plan for manifest.Drive.
func splitPlan(p *effect.Plan, own any) (*effect.Plan, error) {
	var w wrapped
	if err := json.Unmarshal(p.Data, &w); err != nil {
		return nil, fmt.Errorf("recorded plan: %w", err)
	}
	if err := json.Unmarshal(w.Own, own); err != nil {
		return nil, fmt.Errorf("recorded plan: %w", err)
	}
	inner := *p
	inner.Data = w.Drive
	return &inner, nil
}
