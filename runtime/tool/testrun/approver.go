package testrun

import (
	"context"
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/gate"
)

// approver answers as a test says.
type approver struct {
	by    []string
	grant bool
	leave string // who gives leave; "" for nobody
	plain bool   // nobody in particular says yes, as with --yes
	// person is asked instead, and does what they like to the cluster first;
	// nil without one.
	person *person
}

// person is a function of a test that plays whoever is asked: somebody who runs
// helm, say, before they say yes. A sweep has none, since it repeats runs on
// clusters that the function does not know.
type person struct {
	th  *starlark.Thread
	fn  starlark.Callable
	err error // of the function itself: it fails the test, not only the run
}

// answer calls the function. Runs make one approval at a time, on the goroutine
// of the test, which waits for them.
func (p *person) answer(message string) (approver, error) {
	v, err := builtin.CallScript(p.th, p.fn, starlark.Tuple{starlark.String(message)}, nil)
	if err == nil {
		if _, again := v.(starlark.Callable); again || v == starlark.None {
			err = fmt.Errorf("%s: got %s, want True, False, a name or a list of names", p.fn.Name(), v.Type())
		}
	}
	var a approver
	if err == nil {
		a, err = approverOf(p.th, v, "")
	}
	if err != nil && p.err == nil {
		p.err = err
	}
	return a, err
}

// failed is what t.run fails with: what the person met with, or err.
func (p *person) failed(err error) error {
	if p != nil && p.err != nil {
		return p.err
	}
	return err
}

// Approve implements engine.Approver.
func (a approver) Approve(_ context.Context, _, message string, _ []string) (string, bool, error) {
	a, err := a.asked(message)
	if err != nil {
		return "", false, err
	}
	return strings.Join(a.by, ", "), a.grant, nil
}

// asked is the approver as the person, if there is one, answers this question.
func (a approver) asked(message string) (approver, error) {
	if a.person == nil {
		return a, nil
	}
	return a.person.answer(message)
}

// Sign implements engine.Signatory. As with --yes, an answer without a name is
// none where the policy wants names.
func (a approver) Sign(_ context.Context, _, message string, _ []gate.Approval, _ []string) ([]string, bool, error) {
	a, err := a.asked(message)
	if err != nil {
		return nil, false, err
	}
	if a.plain && a.grant {
		return nil, true, nil
	}
	return a.by, a.grant, nil
}

// Leave implements engine.Approver. As with --yes, an answer to approve() is
// none to a gate that asks.
func (a approver) Leave(context.Context, []gate.Finding) (string, bool, error) {
	if a.leave == "" {
		return strings.Join(a.by, ", "), false, nil
	}
	return a.leave, true, nil
}

func approverOf(th *starlark.Thread, v starlark.Value, leave string) (approver, error) {
	a := approver{by: []string{operator}, grant: true, leave: leave, plain: true}
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return a, nil
	case starlark.Bool:
		a.grant = bool(v)
		return a, nil
	case starlark.String:
		a.by, a.plain = []string{string(v)}, false
		return a, nil
	case starlark.Callable:
		a.person = &person{th: th, fn: v}
		return a, nil
	case *starlark.List:
		a.by, a.plain = nil, false
		for e := range v.Elements() {
			name, ok := starlark.AsString(e)
			if !ok {
				return a, fmt.Errorf("got a list with a %s, want names", e.Type())
			}
			a.by = append(a.by, name)
		}
		return a, nil
	}
	return a, fmt.Errorf("got %s, want True, False, a name, a list of names or a function", v.Type())
}
