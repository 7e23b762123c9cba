package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"time"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// maxDepth bounds how deep data may nest in either direction; a recursive
// structure ends there instead of in a stack overflow.
const maxDepth = 100

// wrap views decoded JSON. Unknown Go types cannot occur below FromGo, which
// normalizes first.
func wrap(v any, at place) starlark.Value {
	switch v := v.(type) {
	case nil:
		return starlark.None
	case string:
		if at.secret {
			return NewSecret(v)
		}
		return starlark.String(v)
	case bool:
		return starlark.Bool(v)
	case int64:
		return starlark.MakeInt64(v)
	case int:
		return starlark.MakeInt(v)
	case float64:
		return starlark.Float(v)
	case json.Number:
		return number(v)
	case map[string]any:
		return &Object{m: v, at: at}
	case []any:
		return wrapList(v, at)
	case starlark.Value:
		return v
	}
	return starlark.String(fmt.Sprint(v))
}

func wrapList(v []any, at place) starlark.Value {
	if at.secret {
		return &List{v: v, at: at}
	}
	for _, e := range v {
		switch e.(type) {
		case map[string]any, []any:
			return &List{v: v, at: at}
		}
	}
	elems := make([]starlark.Value, len(v))
	for i, e := range v {
		elems[i] = wrap(e, at)
	}
	l := starlark.NewList(elems)
	l.Freeze()
	return l
}

// number keeps a JSON number exact: an int of any size, else a float.
func number(n json.Number) starlark.Value {
	if i, ok := new(big.Int).SetString(string(n), 10); ok {
		return starlark.MakeBigInt(i)
	}
	f, err := n.Float64()
	if err != nil {
		return starlark.String(n)
	}
	return starlark.Float(f)
}

// FromGo is the frozen Starlark value of a Go result: scalars, time.Time and
// time.Duration, cluster objects (also in slices), maps and slices of these,
// values that are Starlark values already, and structs by their JSON form.
// Maps become Objects. What it is given must not be changed afterwards.
func FromGo(x any) (starlark.Value, error) {
	switch x := x.(type) {
	case nil:
		return starlark.None, nil
	case starlark.Value:
		if reflect.ValueOf(x).Kind() == reflect.Pointer && reflect.ValueOf(x).IsNil() {
			return starlark.None, nil
		}
		x.Freeze()
		return x, nil
	case string, bool, int, int64, float64, json.Number:
		return wrap(x, place{}), nil
	case time.Time:
		return startime.Time(x), nil
	case time.Duration:
		return startime.Duration(x), nil
	case *unstructured.Unstructured:
		if x == nil {
			return starlark.None, nil
		}
		return FromUnstructured(x), nil
	case map[string]any:
		if plain(x, 0) {
			return NewObject(x), nil
		}
	case []any:
		if plain(x, 0) {
			return wrap(x, place{index: -1}), nil
		}
	}
	if rv := reflect.ValueOf(x); rv.Kind() == reflect.Slice && rv.Type().Elem().Kind() != reflect.Uint8 {
		return fromSlice(rv)
	}
	return fromJSON(x)
}

// fromSlice keeps the elements' own types: objects stay cluster objects.
func fromSlice(rv reflect.Value) (starlark.Value, error) {
	elems := make([]starlark.Value, rv.Len())
	for i := range elems {
		v, err := FromGo(rv.Index(i).Interface())
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		elems[i] = v
	}
	l := starlark.NewList(elems)
	l.Freeze()
	return l, nil
}

// fromJSON normalizes anything else through its JSON form.
func fromJSON(x any) (starlark.Value, error) {
	b, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("a %T has no Starlark form: %w", x, err)
	}
	v, err := decodePlain(b)
	if err != nil {
		return nil, err
	}
	if m, ok := v.(map[string]any); ok {
		return NewObject(m), nil
	}
	return wrap(v, place{index: -1}), nil
}

// decodePlain decodes JSON as unstructured does (int64, float64), but keeps
// integers beyond int64 exact as json.Number.
func decodePlain(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err == nil {
		return nil, errors.New("more than one JSON value")
	}
	return normalize(v), nil
}

func normalize(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = normalize(e)
		}
	case []any:
		for i, e := range v {
			v[i] = normalize(e)
		}
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		if _, big := number(v).(starlark.Int); big {
			return v
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return v
}

// plain reports whether v holds only what decoded JSON holds, so that it can
// be viewed as it is.
func plain(v any, depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch v := v.(type) {
	case nil, string, bool, int, int64, float64, json.Number:
		return true
	case map[string]any:
		for _, e := range v {
			if !plain(e, depth+1) {
				return false
			}
		}
		return true
	case []any:
		for _, e := range v {
			if !plain(e, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// ErrNotData is wrapped by the errors of ToGo and Codec.Encode about values
// that are no data (functions, handles, secrets).
var ErrNotData = errors.New("not data")

// ToGo is the plain Go form of Starlark data: nil, bool, string, int64 (json.Number
// beyond its range), float64, []any, map[string]any. Versions, durations and
// times become strings. The error names the path of what is no data. Nothing
// is shared with v except the JSON behind Objects, which stays read-only.
func ToGo(v starlark.Value) (any, error) {
	if err := bounded(v); err != nil {
		return nil, err
	}
	return toGo(v, "", 0)
}

func toGo(v starlark.Value, path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%snests deeper than %d levels, or holds itself: %w", at(path), maxDepth, ErrNotData)
	}
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return nil, nil
	case starlark.Bool:
		return bool(v), nil
	case starlark.String:
		return string(v), nil
	case starlark.Int:
		if i, ok := v.Int64(); ok {
			return i, nil
		}
		return json.Number(v.String()), nil
	case starlark.Float:
		return float64(v), nil
	case *Object:
		return v.m, openly(v.m, v.at.secret, v.Type(), path)
	case *List:
		return v.v, openly(v.v, v.at.secret, v.Type(), path)
	case Version:
		return v.String(), nil
	case Quantity:
		return v.String(), nil
	case startime.Duration:
		return v.String(), nil
	case startime.Time:
		return time.Time(v).UTC().Format(time.RFC3339Nano), nil
	case *starlarkstruct.Struct:
		d := starlark.StringDict{}
		v.ToStringDict(d)
		out := make(map[string]any, len(d))
		for k, e := range d {
			x, err := toGo(e, path+"."+k, depth+1)
			if err != nil {
				return nil, err
			}
			out[k] = x
		}
		return out, nil
	case starlark.IterableMapping:
		return mappingToGo(v, path, depth)
	case Handle, starlark.Callable, *Secret, starlark.Bytes:
		return nil, notData(v, path)
	case starlark.Iterable:
		out := []any{}
		i := 0
		for e := range starlark.Elements(v) {
			x, err := toGo(e, fmt.Sprintf("%s[%d]", path, i), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, x)
			i++
		}
		return out, nil
	}
	return nil, notData(v, path)
}

// openly refuses to give material of a Secret as plain data, from which it could
// be written elsewhere. A Secret as a whole stays one, by itself or in a list of
// objects.
func openly(v any, material bool, kind, path string) error {
	if material || holdsMaterial(v) && !whole.MatchString(path) {
		if path == "" {
			path = "value"
		}
		return fmt.Errorf("%s is a %s with material of a Secret, which is %w", path, kind, ErrNotData)
	}
	return nil
}

// whole are the places of objects in what builtins take: the value itself, an
// element of a list, an item of a kind List.
var whole = regexp.MustCompile(`^(\[\d+\])?(items(\[\d+\])?)?$`)

func mappingToGo(m starlark.IterableMapping, path string, depth int) (any, error) {
	items := m.Items()
	out := make(map[string]any, len(items))
	for _, kv := range items {
		k, ok := starlark.AsString(kv[0])
		if !ok {
			return nil, fmt.Errorf("%sgot a key of type %s (%s), want string: %w", at(path), kv[0].Type(), kv[0], ErrNotData)
		}
		x, err := toGo(kv[1], join(path, k), depth+1)
		if err != nil {
			return nil, err
		}
		out[k] = x
	}
	return out, nil
}

func notData(v starlark.Value, path string) error {
	if path == "" {
		path = "value"
	}
	return fmt.Errorf("%s is a %s, which is %w", path, v.Type(), ErrNotData)
}

func at(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

// toDict is o.to_dict(): a mutable copy as plain dicts and lists.
func toDict(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if err := starlark.UnpackArgs("to_dict", args, kwargs); err != nil {
		return nil, err
	}
	return thaw(b.Receiver()), nil
}

func thaw(v starlark.Value) starlark.Value {
	switch v := v.(type) {
	case *Object:
		d := starlark.NewDict(len(v.m))
		for _, kv := range v.Items() {
			// A string key always hashes, and d is not frozen.
			_ = d.SetKey(kv[0], thaw(kv[1]))
		}
		return d
	case *List:
		elems := make([]starlark.Value, v.Len())
		for i := range elems {
			elems[i] = thaw(v.Index(i))
		}
		return starlark.NewList(elems)
	case *starlark.List:
		elems := make([]starlark.Value, v.Len())
		for i := range elems {
			elems[i] = v.Index(i)
		}
		return starlark.NewList(elems)
	}
	return v
}

// Plain makes real dicts (keys sorted) and lists of decoded JSON, so that they
// compare with literals; other values go through FromGo.
func Plain(x any) (starlark.Value, error) {
	switch x := x.(type) {
	case []any:
		elems := make([]starlark.Value, len(x))
		for i, e := range x {
			v, err := Plain(e)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			elems[i] = v
		}
		return starlark.NewList(elems), nil
	case map[string]any:
		d := starlark.NewDict(len(x))
		for _, k := range NewObject(x).keys() {
			v, err := Plain(x[k])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			if err := d.SetKey(starlark.String(k), v); err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return FromGo(x)
}

// DecodeJSON decodes one JSON value as Objects expect it: int64 where it fits,
// json.Number for larger integers, float64 else.
func DecodeJSON(b []byte) (any, error) { return decodePlain(b) }
