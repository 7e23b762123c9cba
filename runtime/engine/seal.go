package engine

import (
	"encoding/json"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
)

// sealEffect gives the effect as it may be journaled. Of a Secret, body,
// before- and after-image go age-encrypted into a blob; without a key to do so
// the change is refused (ruling 9).
func (e *Engine) sealEffect(ef *effect.Effect) (*effect.Effect, string, error) {
	cp := *ef
	cp.After = nil // the forecast is in the plan
	if !ef.HoldsSecret() {
		return &cp, "", nil
	}
	if e.o.Sealer == nil {
		return nil, "", &diag.Error{
			Code: diag.Blocked, Subject: ef.Ref.String(), Problem: "a Secret's before-image must be encrypted, and this run has no key",
			Expect: "an age key in the state folder",
		}
	}
	plain, err := json.Marshal(ef)
	if err != nil {
		return nil, "", err
	}
	sealed, err := e.o.Sealer.Seal(plain)
	if err != nil {
		return nil, "", err
	}
	blob, err := e.o.Journal.Put(sealed)
	if err != nil {
		return nil, "", e.journalError(err)
	}
	cp.Body, cp.Before = nil, nil
	return &cp, blob, nil
}
