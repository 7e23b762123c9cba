package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// appendJSON writes decoded JSON canonically: keys sorted, no HTML escapes, and
// floats recognizable as floats, so that 1.0 does not come back as the int 1.
func appendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return appendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case float64:
		return appendFloat(b, v)
	case json.Number:
		return append(b, v...)
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, k), ':')
			b = appendJSON(b, v[k])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, e)
		}
		return append(b, ']')
	}
	return appendString(b, fmt.Sprint(v))
}

func appendString(b []byte, s string) []byte {
	var buf strings.Builder
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	// Encoding a string into memory cannot fail.
	_ = enc.Encode(s)
	return append(b, strings.TrimSuffix(buf.String(), "\n")...)
}

func appendFloat(b []byte, f float64) []byte {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".eE") {
		s += ".0"
	}
	return append(b, s...)
}

// comparableJSON refuses to compare what holds material of a Secret, as two Secret
// values do.
func comparableJSON(a any, aSecret bool, b any, bSecret bool) error {
	if aSecret || bSecret || holdsMaterial(a) && holdsMaterial(b) {
		return errors.New("objects with material of a Secret can't be compared; compare their metadata.resourceVersion")
	}
	return nil
}

// equalJSON compares decoded JSON; numbers by value (1 == 1.0, as in Starlark).
func equalJSON(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !equalJSON(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !equalJSON(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	if x, ok := ratOf(a); ok {
		y, ok := ratOf(b)
		return ok && x.Cmp(y) == 0
	}
	return reflect.DeepEqual(a, b)
}

func ratOf(v any) (*big.Rat, bool) {
	switch v := v.(type) {
	case int:
		return new(big.Rat).SetInt64(int64(v)), true
	case int64:
		return new(big.Rat).SetInt64(v), true
	case float64:
		r := new(big.Rat).SetFloat64(v)
		return r, r != nil
	case json.Number:
		return new(big.Rat).SetString(string(v))
	}
	return nil, false
}

// masked is m with the material of Secrets hidden, wherever it lies in m.
func masked(m map[string]any, secret bool) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = maskValue(v, secret || holdsField(m, k, v))
	}
	return out
}

func maskedList(l []any, secret bool) []any {
	out := make([]any, len(l))
	for i, v := range l {
		out[i] = maskValue(v, secret)
	}
	return out
}

func maskValue(v any, secret bool) any {
	switch v := v.(type) {
	case map[string]any:
		return masked(v, secret)
	case []any:
		return maskedList(v, secret)
	case nil:
		return nil
	}
	if secret {
		return secretText
	}
	return v
}
