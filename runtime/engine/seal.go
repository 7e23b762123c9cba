package engine

import (
	"encoding/json"
	"fmt"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/seal"
)

// digest is an effect's digest as the journal, the cluster and the views get to see
// it, in keys, facts and reviews. Of a Secret it is keyed: all but a few characters
// of what is in one may be known to who reads these, and a plain digest would tell
// him which guess at the rest is right. Journals from before (Begin.Marked) are gone
// on with as they were begun.
func (e *Engine) digest(ef *effect.Effect) string {
	plain := ef.Digest()
	if !ef.HoldsSecret() || !e.o.Begin.Marked {
		return plain
	}
	mark := seal.Stretch // without a key Secrets are looked at, and never changed
	if e.o.Sealer != nil {
		mark = e.o.Sealer.Mark
	}
	return mark(fmt.Sprintf("%s %s", e.run.ID, ef.Ref.ID()), plain)
}

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
