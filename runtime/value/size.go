package value

import (
	"errors"
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// MaxText bounds, in bytes, a text that one operation of a script makes, and
// what is decoded from one: etcd's own limit for an object is 1.5 MiB, and a
// whole rendered mesh is below 2 MiB.
const MaxText = 16 << 20

// MaxElems bounds the elements of a list that one operation of a script makes.
const MaxElems = 4 << 20

// maxData bounds, in bytes, data that is recorded or handed to a builtin: what a
// script lets stand for more is refused before any of it is written out.
const maxData = 128 << 20

// maxNest bounds how deep a value may nest that is written as text: what writes
// it recurses.
const maxNest = 400

// ErrTooLarge is wrapped by the errors of TextSize.
var ErrTooLarge = errors.New("too large")

// TextSize is about how long v is as text (str, repr, JSON), in bytes, before
// quotes are escaped. Lists that share elements are as long as they are written
// out: a few hundred bytes of them can stand for more text than there is memory.
// It is an error, found at a cost that limit bounds, if it is longer than limit
// or v nests too deep to be written.
func TextSize(v starlark.Value, limit int) (int, error) {
	s := sizer{left: limit, nest: maxNest, deep: ErrTooLarge}
	if err := s.value(v, 0); err != nil {
		return 0, err
	}
	return limit - s.left, nil
}

// bounded refuses what can't be recorded or handed on as data, at a cost that is
// bounded, before any of it is written out.
func bounded(v starlark.Value) error {
	s := sizer{left: maxData, nest: maxDepth, deep: ErrNotData}
	return s.value(v, 0)
}

type sizer struct {
	left, nest int
	deep       error // what the error of a value that nests too deep wraps
}

func (s *sizer) take(n int) error {
	if s.left -= n; s.left < 0 {
		return fmt.Errorf("longer as text than can be made at once: %w", ErrTooLarge)
	}
	return nil
}

func (s *sizer) value(v starlark.Value, depth int) error {
	if depth > s.nest {
		return fmt.Errorf("nests deeper than %d levels, or holds itself: %w", s.nest, s.deep)
	}
	switch v := v.(type) {
	case starlark.String:
		return s.take(len(v) + 2)
	case starlark.Bytes:
		return s.take(4*len(v) + 3)
	case starlark.Int:
		if _, small := v.Int64(); small {
			return s.take(8)
		}
		return s.take(v.BigInt().BitLen()/3 + 2) // a digit is log2(10) bits
	case *starlark.List:
		return s.each(v.Len(), v.Index, depth)
	case starlark.Tuple:
		return s.each(v.Len(), v.Index, depth)
	case *starlark.Dict:
		return s.pairs(v.Items(), depth)
	case *starlark.Set:
		for e := range v.Elements() {
			if err := s.element(e, depth); err != nil {
				return err
			}
		}
		return s.take(7)
	case *starlarkstruct.Struct:
		d := starlark.StringDict{}
		v.ToStringDict(d)
		for k, e := range d {
			if err := s.take(len(k) + 2); err != nil {
				return err
			}
			if err := s.element(e, depth); err != nil {
				return err
			}
		}
		return s.take(8)
	case *Object:
		return s.json(v.m, depth)
	case *List:
		return s.json(v.v, depth)
	}
	return s.take(16)
}

func (s *sizer) element(v starlark.Value, depth int) error {
	if err := s.take(2); err != nil {
		return err
	}
	return s.value(v, depth+1)
}

func (s *sizer) each(n int, at func(int) starlark.Value, depth int) error {
	if err := s.take(2); err != nil {
		return err
	}
	for i := range n {
		if err := s.element(at(i), depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *sizer) pairs(items []starlark.Tuple, depth int) error {
	if err := s.take(2); err != nil {
		return err
	}
	for _, kv := range items {
		if err := s.element(kv[0], depth); err != nil {
			return err
		}
		if err := s.element(kv[1], depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *sizer) json(v any, depth int) error {
	if depth > maxNest {
		return fmt.Errorf("nests deeper than %d levels: %w", maxNest, s.deep)
	}
	switch v := v.(type) {
	case string:
		return s.take(len(v) + 2)
	case map[string]any:
		for k, e := range v {
			if err := s.take(len(k) + 4); err != nil {
				return err
			}
			if err := s.json(e, depth+1); err != nil {
				return err
			}
		}
		return s.take(2)
	case []any:
		for _, e := range v {
			if err := s.take(1); err != nil {
				return err
			}
			if err := s.json(e, depth+1); err != nil {
				return err
			}
		}
		return s.take(2)
	}
	return s.take(8)
}
