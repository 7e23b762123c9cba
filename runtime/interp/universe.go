package interp

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/value"
)

// maxRange bounds range(): the one compact value that stands for endless
// memory once sorted, listed or spread.
const maxRange = 1_000_000

// maxPairs bounds what enumerate and zip give, which is a tuple for each element.
const maxPairs = 1_000_000

// maxDigits bounds what int() reads; reading takes longer than in proportion.
const maxDigits = 50_000

// Universe is what this package puts in front of Starlark's own universe: the
// functions that can be asked for more in one call than they were given, with a
// look at sizes first, and the operators in the same way (see loader.check).
func Universe() starlark.StringDict {
	d := starlark.StringDict{
		"range": before("range", nil, boundedRange),
		"int":   before("int", boundedInt, nil),

		loader.CheckedTimes:   starlark.NewBuiltin("*", times),
		loader.CheckedPercent: starlark.NewBuiltin("%", percent),
		loader.CheckedPlus:    starlark.NewBuiltin("+", plus),
		loader.CheckedMore:    starlark.NewBuiltin("+=", more),
		loader.CheckedMethods: starlark.NewBuiltin(".", methodsOf),

		"getattr": starlark.NewBuiltin("getattr", checkedGetattr),
	}
	for _, name := range []string{"str", "repr", "print"} {
		d[name] = before(name, shortAsText(name), nil)
	}
	for name, most := range map[string]int{
		"list": value.MaxElems, "tuple": value.MaxElems, "set": value.MaxElems, "dict": value.MaxElems,
		"reversed": value.MaxElems, "sorted": value.MaxElems, "bytes": value.MaxElems, "enumerate": maxPairs, "zip": maxPairs,
	} {
		d[name] = before(name, countable(name, most), nil)
	}
	return d
}

type checkFunc func(t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) error

// before is Starlark's own function name, called once check agrees; then looks at
// what it returned.
func before(name string, check checkFunc, then func(starlark.Value) error) *starlark.Builtin {
	inner := starlark.Universe[name].(*starlark.Builtin)
	return starlark.NewBuiltin(name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if check != nil {
			if err := check(t, args, kwargs); err != nil {
				return nil, err
			}
		}
		v, err := inner.CallInternal(t, args, kwargs)
		if err == nil && then != nil {
			err = then(v)
		}
		return v, err
	})
}

func boundedRange(v starlark.Value) error {
	if n := starlark.Len(v); n > maxRange || n < 0 {
		return diag.Usagef("range", "got %d elements, want at most %d", n, maxRange)
	}
	return nil
}

func boundedInt(_ *starlark.Thread, args starlark.Tuple, _ []starlark.Tuple) error {
	if len(args) == 0 {
		return nil
	}
	if s, ok := starlark.AsString(args[0]); ok && len(s) > maxDigits {
		return diag.Usagef("int", "got a text of %d characters, want at most %d", len(s), maxDigits)
	}
	return nil
}

func shortAsText(name string) checkFunc {
	return func(t *starlark.Thread, args starlark.Tuple, _ []starlark.Tuple) error {
		left := value.MaxText
		for _, a := range args {
			n, err := textSize(t, a, left)
			if err != nil {
				return &diag.Error{Code: diag.Usage, Subject: name, Err: err}
			}
			left -= n
		}
		return nil
	}
}

// textSize is value.TextSize for what may be long; looking is counted as steps.
func textSize(t *starlark.Thread, v starlark.Value, limit int) (int, error) {
	switch v.(type) {
	case starlark.NoneType, starlark.Bool, starlark.Float:
		return 8, nil
	}
	n, err := value.TextSize(v, limit)
	if err != nil {
		n = limit
	}
	charge(t, n/64)
	return n, err
}

// charge counts work that one operation does as steps of the thread.
func charge(t *starlark.Thread, steps int) { t.Steps += uint64(max(steps, 0)) }

// countable refuses iterables of more than most elements.
func countable(name string, most int) checkFunc {
	return func(t *starlark.Thread, args starlark.Tuple, _ []starlark.Tuple) error {
		for _, a := range args {
			n := elements(a, most)
			if n > most {
				return diag.Usagef(name, "got %d elements, want at most %d", n, most)
			}
			charge(t, n)
		}
		return nil
	}
}

// elements counts what iterating over v gives, up to somewhat over most; 0 for
// what can't be iterated over.
func elements(v starlark.Value, most int) int {
	it, ok := v.(starlark.Iterable)
	if !ok {
		return 0
	}
	if n := starlark.Len(it); n >= 0 {
		return n
	}
	n := 0
	for range starlark.Elements(it) {
		if n++; n > most {
			break
		}
	}
	return n
}

// checkedGetattr gives the checked form of methods, as a dot does.
func checkedGetattr(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	inner := starlark.Universe["getattr"].(*starlark.Builtin)
	if len(args) >= 2 {
		name, _ := starlark.AsString(args[1])
		if x, ok := checkedForm(args[0]).(starlark.HasAttrs); ok && loader.CheckedMethod(name) {
			if v, err := x.Attr(name); v != nil || err != nil {
				return v, err
			}
		}
	}
	return inner.CallInternal(t, args, kwargs)
}

// methodsOf is x as what its methods are taken from.
func methodsOf(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return checkedForm(args[0]), nil
}

func checkedForm(x starlark.Value) starlark.Value {
	switch x := x.(type) {
	case starlark.String:
		return checkedText(x)
	case *starlark.List:
		return checkedList{x}
	}
	return x
}

// checkedList is a list of which methods are taken. No script ever holds one.
type checkedList struct{ *starlark.List }

// Attr is the method, with a look at sizes in front.
func (l checkedList) Attr(name string) (starlark.Value, error) {
	v, err := l.List.Attr(name)
	inner, ok := v.(*starlark.Builtin)
	if !ok || name != "extend" {
		return v, err
	}
	return starlark.NewBuiltin(name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if len(args) == 1 {
			if err := summed(t, name, l.List, args[0]); err != nil {
				return nil, err
			}
		}
		return inner.CallInternal(t, args, kwargs)
	}).BindReceiver(l.List), nil
}

// checkedText is a string of which methods are taken. No script ever holds one.
type checkedText starlark.String

var _ starlark.HasAttrs = checkedText("")

// String implements starlark.Value.
func (s checkedText) String() string { return starlark.String(s).String() }

// Type implements starlark.Value.
func (s checkedText) Type() string { return "string" }

// Freeze implements starlark.Value.
func (s checkedText) Freeze() {}

// Truth implements starlark.Value.
func (s checkedText) Truth() starlark.Bool { return len(s) > 0 }

// Hash implements starlark.Value.
func (s checkedText) Hash() (uint32, error) { return starlark.String(s).Hash() }

// AttrNames implements starlark.HasAttrs.
func (s checkedText) AttrNames() []string { return starlark.String(s).AttrNames() }

// Attr is the method, with a look at sizes in front.
func (s checkedText) Attr(name string) (starlark.Value, error) {
	v, err := starlark.String(s).Attr(name)
	inner, ok := v.(*starlark.Builtin)
	if !ok || !loader.CheckedMethod(name) {
		return v, err
	}
	return starlark.NewBuiltin(name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := s.check(t, name, args, kwargs); err != nil {
			return nil, err
		}
		return inner.CallInternal(t, args, kwargs)
	}).BindReceiver(starlark.String(s)), nil
}

func (s checkedText) check(t *starlark.Thread, name string, args starlark.Tuple, kwargs []starlark.Tuple) error {
	size := 0
	var err error
	switch name {
	case "join":
		size = s.joined(t, args)
	case "replace":
		size = s.replaced(args)
	case "format":
		size, err = formatted(t, string(s), args, kwargs)
	default:
		return s.pieces(name, args)
	}
	if err == nil && size > value.MaxText {
		err = fmt.Errorf("would give at least %d bytes, want at most %d", size, value.MaxText)
	}
	if err != nil {
		return &diag.Error{Code: diag.Usage, Subject: name, Err: err}
	}
	charge(t, size/64)
	return nil
}

func (s checkedText) joined(t *starlark.Thread, args starlark.Tuple) int {
	if len(args) != 1 {
		return 0
	}
	it, ok := args[0].(starlark.Iterable)
	if !ok {
		return 0
	}
	size, n := 0, 0
	for e := range starlark.Elements(it) {
		if text, ok := starlark.AsString(e); ok {
			size += len(text)
		}
		n++
		if size += len(s); size > value.MaxText+len(s) {
			break
		}
	}
	charge(t, n)
	return size - len(s)
}

func (s checkedText) replaced(args starlark.Tuple) int {
	if len(args) < 2 {
		return 0
	}
	old, _ := starlark.AsString(args[0])
	by, _ := starlark.AsString(args[1])
	if len(by) <= len(old) {
		return len(s)
	}
	return len(s) + strings.Count(string(s), old)*(len(by)-len(old))
}

// pieces refuses to split a text into more of them than a list may have.
func (s checkedText) pieces(name string, args starlark.Tuple) error {
	n := 0
	switch sep, _ := starlark.AsString(first(args)); {
	case name == "splitlines":
		n = strings.Count(string(s), "\n")
	case sep != "":
		n = strings.Count(string(s), sep)
	default:
		n = len(s) / 2
	}
	if n > value.MaxElems {
		return diag.Usagef(name, "may give %d pieces, want at most %d", n, value.MaxElems)
	}
	return nil
}

func first(args starlark.Tuple) starlark.Value {
	if len(args) == 0 {
		return starlark.None
	}
	return args[0]
}
