package plain

import (
	"hash/maphash"
	"reflect"
)

// Sharer keeps equal values once. The pods of a cluster say mostly the same: a
// thousand of them hold the same sidecar, and a decoded one takes seven times the
// bytes of its JSON. What is shared must never be changed in place. A Sharer is
// not safe for concurrent use, and keeps what it was given as long as it lives.
type Sharer struct {
	seed  maphash.Seed
	known map[uint64][]any
}

// NewSharer makes a Sharer that knows no values.
func NewSharer() *Sharer {
	return &Sharer{seed: maphash.MakeSeed(), known: map[uint64][]any{}}
}

// Share is a value equal to v of which as much as possible is shared. v is taken
// over: its maps and slices are changed to hold what is shared, but for those that
// were given by Share, which others may be reading.
func (s *Sharer) Share(v any) any {
	switch x := v.(type) {
	case map[string]any:
		if x == nil {
			return v
		}
		sum := uint64(len(x))
		for k, e := range x {
			if one := s.Share(e); addressOf(one) != addressOf(e) { // else somebody may be reading it
				x[k], e = one, one
			}
			sum += maphash.String(s.seed, k) ^ s.hash(e) // entries have no order
		}
		return s.one(sum, v)
	case []any:
		if len(x) == 0 { // all empty ones have one address
			return v
		}
		sum := ^uint64(len(x))
		for i, e := range x {
			if one := s.Share(e); addressOf(one) != addressOf(e) {
				x[i], e = one, one
			}
			sum = sum*31 + s.hash(e)
		}
		return s.one(sum, v)
	}
	return v
}

// one is the value like v that is known already, or v itself from now on.
func (s *Sharer) one(sum uint64, v any) any {
	for _, known := range s.known[sum] {
		if alike(known, v) {
			return known
		}
	}
	s.known[sum] = append(s.known[sum], v)
	return v
}

// hash is of a shared value: of a map or slice it is the address's.
func (s *Sharer) hash(v any) uint64 {
	switch x := v.(type) {
	case string:
		return maphash.String(s.seed, x) + 1
	case map[string]any, []any:
		return maphash.Comparable(s.seed, addressOf(v))
	case nil, bool, int64, float64:
		return maphash.Comparable(s.seed, v)
	}
	return 0 // no JSON: equal by alike, or not
}

// alike compares values whose own entries are shared already.
func alike(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, e := range x {
			if f, ok := y[k]; !ok || !identical(e, f) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i, e := range x {
			if !identical(e, y[i]) {
				return false
			}
		}
		return true
	}
	return false
}

// identical is whether two shared values are the same one.
func identical(a, b any) bool {
	switch a.(type) {
	case map[string]any, []any:
		return addressOf(a) == addressOf(b)
	case nil, string, bool, int64, float64:
		return a == b
	}
	return false // no JSON
}

// address tells maps and slices apart, and those of other lengths.
type address struct {
	at    uintptr
	size  int
	slice bool
}

func addressOf(v any) address {
	switch x := v.(type) {
	case map[string]any:
		return address{at: reflect.ValueOf(x).Pointer(), size: len(x)}
	case []any:
		if x == nil {
			return address{slice: true, size: -1}
		}
		if len(x) == 0 {
			return address{slice: true}
		}
		return address{at: reflect.ValueOf(x).Pointer(), size: len(x), slice: true}
	}
	return address{}
}

// Same is whether a and b are one map or slice, not only equal ones.
func Same(a, b any) bool {
	at := addressOf(a)
	return at != address{} && at == addressOf(b)
}
