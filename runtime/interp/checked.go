package interp

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

// maxBits bounds a product of integers: 300,000 digits, which take milliseconds
// to multiply and to print.
const maxBits = 1 << 20

// times is x * y.
func times(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	x, y := args[0], args[1]
	nx, isInt := x.(starlark.Int)
	ny, areInts := y.(starlark.Int)
	if isInt && areInts { // by far the most: what fits needs no second look
		if a, ok := nx.Int64(); ok && math.MinInt32 <= a && a <= math.MaxInt32 {
			if b, ok := ny.Int64(); ok && math.MinInt32 <= b && b <= math.MaxInt32 {
				return starlark.MakeInt64(a * b), nil
			}
		}
	}
	var err error
	switch {
	case isInt && areInts:
		err = product(nx, ny)
	case isInt:
		err = repeated(y, nx)
	case areInts:
		err = repeated(x, ny)
	}
	if err != nil {
		return nil, err
	}
	return starlark.Binary(syntax.STAR, x, y)
}

func product(x, y starlark.Int) error {
	_, small := x.Int64()
	_, smaller := y.Int64()
	if small && smaller {
		return nil
	}
	if n := x.BigInt().BitLen() + y.BigInt().BitLen(); n > maxBits {
		return diag.Usagef("*", "would give a number of %d bits, want at most %d", n, maxBits)
	}
	return nil
}

func repeated(v starlark.Value, by starlark.Int) error {
	n, most, unit := starlark.Len(v), value.MaxText, "bytes"
	switch v.(type) {
	case *starlark.List, starlark.Tuple:
		most, unit = value.MaxElems, "elements"
	case starlark.String, starlark.Bytes:
	default:
		return nil
	}
	times, ok := by.Uint64()
	if by.Sign() <= 0 || n == 0 {
		return nil
	}
	over, size := bits.Mul64(uint64(n), times) // #nosec G115 -- a length
	if !ok || over != 0 || size > uint64(most) {
		return diag.Usagef("*", "would give %d times %s %s, want at most %d", n, by, unit, most)
	}
	return nil
}

// plus is x + y.
func plus(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if err := summed(t, "+", args[0], args[1]); err != nil {
		return nil, err
	}
	return starlark.Binary(syntax.PLUS, args[0], args[1])
}

// more is y, where x += y.
func more(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return args[1], summed(t, "+=", args[0], args[1])
}

// summed refuses a sum that is longer than one operation may make. A few doublings
// take all the memory there is, in less time than it takes to look.
func summed(t *starlark.Thread, name string, x, y starlark.Value) error {
	most, unit, n := 0, "", 0
	switch x := x.(type) {
	case starlark.String:
		most, unit, n = value.MaxText, "bytes", len(x)
	case starlark.Bytes:
		most, unit, n = value.MaxText, "bytes", len(x)
	case starlark.Sequence:
		most, unit, n = value.MaxElems, "elements", x.Len()
	default:
		return nil
	}
	more := max(starlark.Len(y), 0)
	if unit == "elements" {
		more = elements(y, most)
	}
	if n+more > most {
		return diag.Usagef(name, "would give %d %s, want at most %d", n+more, unit, most)
	}
	charge(t, more/64)
	return nil
}

// percent is x % y: of a string, formatting.
func percent(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	x, y := args[0], args[1]
	if format, ok := x.(starlark.String); ok {
		size, err := interpolated(t, string(format), y)
		if err == nil && size > value.MaxText {
			err = fmt.Errorf("would give at least %d bytes, want at most %d", size, value.MaxText)
		}
		if err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: "%", Err: err}
		}
		charge(t, size/64)
	}
	return starlark.Binary(syntax.PERCENT, x, y)
}

// interpolated is about how long format % y is. Positional operands are used
// once each; those by name as often as they are named.
func interpolated(t *starlark.Thread, format string, y starlark.Value) (int, error) {
	m := &meter{t: t, size: len(format)}
	byName, named := y.(starlark.Mapping)
	if strings.Count(format, "%") != strings.Count(format, "%(") { // one that takes y itself, or "%%"
		m.add(y)
	}
	if !named {
		return m.size, m.err
	}
	for rest := format; m.err == nil && m.size <= value.MaxText; {
		_, after, ok := strings.Cut(rest, "%(")
		if !ok {
			break
		}
		key, tail, ok := strings.Cut(after, ")")
		if !ok {
			break
		}
		if v, found, err := byName.Get(starlark.String(key)); err == nil && found {
			m.add(v)
		}
		rest = tail
	}
	return m.size, m.err
}

// formatted is about how long format.format(*args, **kwargs) is. What is wrong
// with the format is left to who formats.
func formatted(t *starlark.Thread, format string, args starlark.Tuple, kwargs []starlark.Tuple) (int, error) {
	m := &meter{t: t, size: len(format)}
	auto := 0
	for rest := format; m.err == nil && m.size <= value.MaxText; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			break
		}
		if tail, escaped := strings.CutPrefix(after, "{"); escaped {
			rest = tail
			continue
		}
		field, tail, ok := strings.Cut(after, "}")
		if !ok {
			break
		}
		name := field
		if i := strings.IndexAny(field, "!:"); i >= 0 {
			name = field[:i]
		}
		if name == "" {
			name = strconv.Itoa(auto)
			auto++
		}
		if v := operand(name, args, kwargs); v != nil {
			m.add(v)
		}
		rest = tail
	}
	return m.size, m.err
}

func operand(name string, args starlark.Tuple, kwargs []starlark.Tuple) starlark.Value {
	if i, err := strconv.Atoi(name); err == nil {
		if i >= 0 && i < len(args) {
			return args[i]
		}
		return nil
	}
	for _, kv := range kwargs {
		if k, _ := starlark.AsString(kv[0]); k == name {
			return kv[1]
		}
	}
	return nil
}

// meter adds up lengths.
type meter struct {
	t    *starlark.Thread
	size int
	err  error
}

func (m *meter) add(v starlark.Value) {
	if m.err != nil {
		return
	}
	if s, ok := v.(starlark.String); ok {
		m.size += len(s)
		return
	}
	if n, ok := v.(starlark.Int); ok {
		if _, small := n.Int64(); small {
			m.size += 8
			return
		}
	}
	n, err := textSize(m.t, v, value.MaxText)
	m.size, m.err = m.size+n, err
}
