package value

import (
	"errors"
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// List is a frozen, lazy view over a JSON array that holds objects or lists.
// Arrays of scalars become plain frozen Starlark lists instead, so that they
// compare with list literals.
type List struct {
	v  []any
	at place
}

var (
	_ starlark.Indexable  = (*List)(nil)
	_ starlark.Sliceable  = (*List)(nil)
	_ starlark.Sequence   = (*List)(nil)
	_ starlark.Comparable = (*List)(nil)
	_ starlark.HasBinary  = (*List)(nil)
)

// String is the list as JSON, masked as Object.String is.
func (l *List) String() string { return string(appendJSON(nil, maskedList(l.v, l.at.secret))) }

// MarshalJSON is String.
func (l *List) MarshalJSON() ([]byte, error) { return []byte(l.String()), nil }

// Type implements starlark.Value.
func (l *List) Type() string { return "frozen_list" }

// Freeze implements starlark.Value.
func (l *List) Freeze() {}

// Truth is false for an empty list.
func (l *List) Truth() starlark.Bool { return len(l.v) > 0 }

// Hash implements starlark.Value; lists are not hashable.
func (l *List) Hash() (uint32, error) { return 0, errors.New("unhashable type: frozen_list") }

// Len implements starlark.Sequence.
func (l *List) Len() int { return len(l.v) }

// Index implements starlark.Indexable.
func (l *List) Index(i int) starlark.Value {
	return wrap(l.v[i], place{up: &l.at, index: i, root: l.at.root, secret: l.at.secret})
}

// Slice implements starlark.Sliceable.
func (l *List) Slice(start, end, step int) starlark.Value {
	if step == 1 {
		return &List{v: l.v[start:end:end], at: l.at}
	}
	var out []any
	for i := start; (step > 0 && i < end) || (step < 0 && i > end); i += step {
		out = append(out, l.v[i])
	}
	return &List{v: out, at: l.at}
}

// Iterate implements starlark.Iterable.
func (l *List) Iterate() starlark.Iterator { return &listIterator{l: l} }

// CompareSameType gives == and !=, by content.
func (l *List) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	other := y.(*List)
	if err := comparableJSON(l.v, l.at.secret, other.v, other.at.secret); err != nil {
		return false, err
	}
	switch op {
	case syntax.EQL:
		return equalJSON(l.v, other.v), nil
	case syntax.NEQ:
		return !equalJSON(l.v, other.v), nil
	}
	return false, fmt.Errorf("lists of objects have no order: %s %s %s", l.Type(), op, y.Type())
}

// Binary gives + with any list on either side, and `in`.
func (l *List) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	if op == syntax.IN && side == starlark.Right {
		for i := range l.v {
			if eq, err := starlark.Equal(l.Index(i), y); err != nil || eq {
				return starlark.Bool(eq), err
			}
		}
		return starlark.False, nil
	}
	other, ok := y.(starlark.Iterable)
	if _, isDict := y.(starlark.Mapping); op != syntax.PLUS || !ok || isDict {
		return nil, nil
	}
	var mine, theirs []starlark.Value
	for i := range l.v {
		mine = append(mine, l.Index(i))
	}
	for v := range starlark.Elements(other) {
		theirs = append(theirs, v)
	}
	if side == starlark.Right {
		mine, theirs = theirs, mine
	}
	return starlark.NewList(append(mine, theirs...)), nil
}

type listIterator struct {
	l *List
	i int
}

func (it *listIterator) Next(p *starlark.Value) bool {
	if it.i >= len(it.l.v) {
		return false
	}
	*p = it.l.Index(it.i)
	it.i++
	return true
}

func (it *listIterator) Done() {}

type sliceIterator struct {
	elems []starlark.Value
	i     int
}

func (it *sliceIterator) Next(p *starlark.Value) bool {
	if it.i >= len(it.elems) {
		return false
	}
	*p = it.elems[it.i]
	it.i++
	return true
}

func (it *sliceIterator) Done() {}
