package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/sim"
)

// What a person reads: where, what is wrong said once, what has changed, and
// what to type next.
func TestErrorsAreLaidOut(t *testing.T) {
	const steps = "    step(\"z\", put, \"z\", \"1\")\n    step(\"outer\", lambda: step(\"s\", put, \"a\", \"1\"))\n"
	on := func(kind sim.FaultKind, hook func(sim.Request)) *sim.Fault {
		return &sim.Fault{Verb: "apply", Resource: "configmaps", Name: "a", LiveOnly: true, Kind: kind, Message: "not in this house", Hook: hook}
	}
	for name, c := range map[string]struct {
		body    string
		policy  *gate.Policy
		kind    sim.FaultKind
		soft    bool // the request interrupts the run
		hard    bool // … twice
		code    diag.Code
		text    string
		changed string
	}{
		"refused":     {steps, deny("ConfigMap"), "", false, false, diag.Blocked, "t.star:3:9: refused by RUT016: configmap/z in default: apply is denied by the policy", "nothing"},
		"denied":      {steps, nil, sim.FaultDeny, false, false, diag.Failed, "t.star:4:31: step \"outer/s\": put: configmap/a in default: denied: admission webhook \"policy.simulated\" denied the request: not in this house", "1 object"},
		"interrupted": {steps, nil, sim.FaultHook, true, false, diag.Interrupted, "t.star:4:31: interrupted by the operator", "2 objects"},
		"in doubt":    {steps, nil, sim.FaultReset, true, true, diag.InDoubt, "t.star:4:31: put: a change may or may not have happened: configmap/a in default: in doubt", "1 object"},
		"timeout":     {"    step(\"s\", pause, \"1m\", timeout = \"10s\")\n", nil, "", false, false, diag.Failed, "t.star:3:9: step \"s\": took longer than its timeout of 10s: step \"s/pause 1m0s\": timed out", "nothing"},
		"fail":        {"    step(\"s\", fail, \"no good\")\n", nil, "", false, false, diag.Failed, "t.star:3:9: step \"s\": no good", "nothing"},
		"misuse":      {"    put(\"a\", \"1\")\n", nil, "", false, false, diag.Usage, "t.star:3:8: put was called outside of a step; expected every change inside a step", "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+"def run(p):\n"+c.body)
			w.policy = c.policy
			soft, stop := context.WithCancel(context.Background())
			hard, kill := context.WithCancel(context.Background())
			defer stop()
			defer kill()
			if c.kind != "" {
				w.sim.Inject(*on(c.kind, func(sim.Request) {
					if c.soft {
						stop()
					}
					if c.hard {
						kill()
					}
				}))
			}
			err := engine.Run(soft, hard, w.options())
			var d *diag.Error
			if !errors.As(err, &d) {
				t.Fatalf("got %v", err)
			}
			if d.Code != c.code || !strings.HasPrefix(err.Error(), c.text) || d.Changed != c.changed || d.Next == "" {
				t.Errorf("exit %d, changed %q, next %q:\n%v\nwant %d, %q:\n%s", d.Code, d.Changed, d.Next, err, c.code, c.changed, c.text)
			}
		})
	}
}
