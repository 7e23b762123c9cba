package host

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/seal"
)

// commitments are salted digests of the secret parameters, for the journal; nil
// where there are none.
func commitments(p *interp.Params, random io.Reader) (map[string]string, error) {
	var out map[string]string
	for _, name := range slices.Sorted(maps.Keys(p.Secrets())) {
		c, err := seal.Commit(p.Secrets()[name].Reveal(), random)
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", name, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = c
	}
	return out, nil
}

// otherSecrets are the names of the secret parameters that are not what they were
// when the digests were made, sorted.
func otherSecrets(p *interp.Params, digests map[string]string) ([]string, error) {
	names := map[string]bool{}
	for n := range digests {
		names[n] = true
	}
	for n := range p.Secrets() {
		names[n] = true
	}
	var out []string
	for _, n := range slices.Sorted(maps.Keys(names)) {
		s, given := p.Secrets()[n]
		digest, had := digests[n]
		same := given && had
		if same {
			var err error
			if same, err = seal.Committed(digest, s.Reveal()); err != nil {
				return nil, fmt.Errorf("parameter %s: what the journal has of it %w", n, err)
			}
		}
		if !same {
			out = append(out, n)
		}
	}
	return out, nil
}

// notTheSame refuses to go on with a secret that is not the run's, or without it.
func notTheSame(run, name string, p *interp.Params) error {
	what := "what was given is not what the run began with"
	if p.Secrets()[name] == nil {
		what = "the journal does not have it"
	}
	return &diag.Error{
		Code: diag.Usage, Subject: "run " + run, Problem: "parameter " + name + " is secret, and " + what,
		Expect: "the same value: --set-file " + name + "=FILE or --set-env " + name + "=VARIABLE", Changed: "nothing by this command",
		Next: fmt.Sprintf("rutter resume %s --adopt goes on with another value, if that replays; rutter rollback %s needs none", run, run),
	}
}

// onlySecrets is what of g is for secret parameters of rb: all else is in the
// journal. What --set says stays where it would be refused.
func onlySecrets(rb *Runbook, g interp.Given) interp.Given {
	out := interp.Given{Ask: g.Ask, Read: map[string]string{}, File: map[string]any{}}
	for _, p := range secretsOf(rb) {
		if v, ok := g.Read[p]; ok {
			out.Read[p] = v
		}
		if v, ok := g.File[p]; ok {
			out.File[p] = v
		}
	}
	return out
}

// withSecrets is what is read now, with the secrets that were bound already: nobody
// is asked twice.
func withSecrets(rb *Runbook, p *interp.Params, g interp.Given) map[string]string {
	out := maps.Clone(g.Read)
	if out == nil {
		out = map[string]string{}
	}
	for _, n := range secretsOf(rb) {
		if s, ok := p.Secrets()[n]; ok {
			out[n] = s.Reveal()
		}
	}
	return out
}

func secretsOf(rb *Runbook) []string {
	var out []string
	for _, p := range rb.Params {
		if p.Kind == "secret" {
			out = append(out, p.Name)
		}
	}
	return out
}

// recordedParams are the journal's parameters, laid over file.
func recordedParams(begin *journal.Begin, file map[string]any) (map[string]any, error) {
	params := maps.Clone(file)
	if params == nil {
		params = map[string]any{}
	}
	if err := json.Unmarshal(begin.Params, &params); err != nil {
		return nil, fmt.Errorf("run %s: parameters: %w", begin.Run, err)
	}
	return params, nil
}
