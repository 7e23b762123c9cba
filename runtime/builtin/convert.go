package builtin

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

// converter sets a struct field from a Starlark value.
type converter struct {
	name      string // the type as a person reads it
	takesNone bool
	set       func(dst reflect.Value, v starlark.Value) error
}

var (
	typeValue    = reflect.TypeFor[starlark.Value]()
	typeCallable = reflect.TypeFor[starlark.Callable]()
	typeHandle   = reflect.TypeFor[value.Handle]()
)

// converterFor finds the converter of a field's type.
func converterFor(t reflect.Type) (converter, error) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return converter{name: "duration", set: setDuration}, nil
	case reflect.TypeFor[value.Version]():
		return converter{name: "version", set: setVersion}, nil
	case reflect.TypeFor[value.Quantity]():
		return converter{name: "quantity", set: setQuantity}, nil
	case typeCallable:
		return converter{name: "function", set: assign(t, "function")}, nil
	case typeValue:
		return converter{name: "any", takesNone: true, set: assign(t, "any")}, nil
	case typeHandle:
		return converter{name: "handle", set: assign(t, "handle")}, nil
	case reflect.TypeFor[*value.Object]():
		return converter{name: "object", set: assign(t, "object")}, nil
	case reflect.TypeFor[*value.Secret]():
		return converter{name: "secret or string", set: setSecret}, nil
	case reflect.TypeFor[any]():
		return converter{name: "any", takesNone: true, set: setData}, nil
	case reflect.TypeFor[map[string]any]():
		return converter{name: "dict", set: setData}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return converter{name: "string", set: setString}, nil
	case reflect.Bool:
		return converter{name: "bool", set: setBool}, nil
	case reflect.Int, reflect.Int64:
		return converter{name: "int", set: setInt}, nil
	case reflect.Float64:
		return converter{name: "float", set: setFloat}, nil
	case reflect.Slice:
		return sliceConverter(t)
	case reflect.Map:
		return mapConverter(t)
	}
	if t.Implements(typeValue) {
		name := typeName(t)
		return converter{name: name, set: assign(t, name)}, nil
	}
	if t.Kind() == reflect.Pointer {
		return pointerConverter(t)
	}
	return converter{}, fmt.Errorf("type %s cannot be an argument", t)
}

// typeName asks a zero handle for its Starlark type where that is safe.
func typeName(t reflect.Type) (name string) {
	name = strings.ToLower(t.String()[strings.LastIndex(t.String(), ".")+1:])
	if t.Kind() != reflect.Pointer {
		return name
	}
	// A Type method that looks into its receiver may panic on a zero value;
	// the Go name does then.
	defer func() { _ = recover() }()
	if v, ok := reflect.New(t.Elem()).Interface().(starlark.Value); ok && v.Type() != "" {
		return v.Type()
	}
	return name
}

func want(v starlark.Value, name string) error {
	return fmt.Errorf("got %s, want %s", v.Type(), name)
}

func assign(t reflect.Type, name string) func(reflect.Value, starlark.Value) error {
	return func(dst reflect.Value, v starlark.Value) error {
		rv := reflect.ValueOf(v)
		if !rv.Type().AssignableTo(t) {
			return want(v, name)
		}
		dst.Set(rv)
		return nil
	}
}

func setString(dst reflect.Value, v starlark.Value) error {
	switch v := v.(type) {
	case starlark.String:
		dst.SetString(string(v))
	case value.Version:
		dst.SetString(v.String())
	default:
		return want(v, "string")
	}
	return nil
}

func setBool(dst reflect.Value, v starlark.Value) error {
	b, ok := v.(starlark.Bool)
	if !ok {
		return want(v, "bool")
	}
	dst.SetBool(bool(b))
	return nil
}

func setInt(dst reflect.Value, v starlark.Value) error {
	i, ok := v.(starlark.Int)
	if !ok {
		return want(v, "int")
	}
	n, ok := i.Int64()
	if !ok || dst.OverflowInt(n) {
		return fmt.Errorf("got %s, which is too large", i)
	}
	dst.SetInt(n)
	return nil
}

func setFloat(dst reflect.Value, v starlark.Value) error {
	f, ok := starlark.AsFloat(v)
	if !ok {
		return want(v, "float")
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("got %s, want a finite number", v)
	}
	dst.SetFloat(f)
	return nil
}

func setDuration(dst reflect.Value, v starlark.Value) error {
	switch v := v.(type) {
	case startime.Duration:
		if v < 0 {
			return fmt.Errorf("got %s, want a duration that is not negative", v)
		}
		dst.SetInt(int64(v))
	case starlark.String:
		d, err := value.ParseDuration(string(v))
		if err != nil {
			return err
		}
		dst.SetInt(int64(d))
	default:
		return want(v, `duration such as "10m"`)
	}
	return nil
}

func setVersion(dst reflect.Value, v starlark.Value) error {
	switch v := v.(type) {
	case value.Version:
		dst.Set(reflect.ValueOf(v))
	case starlark.String:
		ver, err := value.ParseVersion(string(v))
		if err != nil {
			return err
		}
		dst.Set(reflect.ValueOf(ver))
	default:
		return want(v, `version such as "1.31.0"`)
	}
	return nil
}

func setQuantity(dst reflect.Value, v starlark.Value) error {
	switch v := v.(type) {
	case value.Quantity:
		dst.Set(reflect.ValueOf(v))
	case starlark.Int:
		n, ok := v.Int64()
		if !ok || n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("got %s, want a count that is not negative", v)
		}
		dst.Set(reflect.ValueOf(value.Quantity{N: int(n)}))
	case starlark.String:
		q, err := value.ParseQuantity(string(v))
		if err != nil {
			return err
		}
		dst.Set(reflect.ValueOf(q))
	default:
		return want(v, `int or share such as "25%"`)
	}
	return nil
}

func setSecret(dst reflect.Value, v starlark.Value) error {
	switch v := v.(type) {
	case *value.Secret:
		dst.Set(reflect.ValueOf(v))
	case starlark.String:
		dst.Set(reflect.ValueOf(value.NewSecret(string(v))))
	default:
		return want(v, "secret or string")
	}
	return nil
}

// setData fills any and map[string]any with plain data.
func setData(dst reflect.Value, v starlark.Value) error {
	x, err := value.ToGo(v)
	if err != nil {
		return err
	}
	if x == nil {
		return nil
	}
	rv := reflect.ValueOf(x)
	if !rv.Type().AssignableTo(dst.Type()) {
		return want(v, "dict")
	}
	dst.Set(rv)
	return nil
}

func sliceConverter(t reflect.Type) (converter, error) {
	elem, err := converterFor(t.Elem())
	if err != nil {
		return converter{}, err
	}
	name := "list of " + elem.name
	return converter{name: name, set: func(dst reflect.Value, v starlark.Value) error {
		it, ok := v.(starlark.Iterable)
		if _, isMap := v.(starlark.Mapping); !ok || isMap {
			return want(v, name)
		}
		out := reflect.MakeSlice(t, 0, max(starlark.Len(v), 0))
		for e := range starlark.Elements(it) {
			x := reflect.New(t.Elem()).Elem()
			if err := elem.set(x, e); err != nil {
				return fmt.Errorf("[%d]: %w", out.Len(), err)
			}
			out = reflect.Append(out, x)
		}
		dst.Set(out)
		return nil
	}}, nil
}

func mapConverter(t reflect.Type) (converter, error) {
	if t.Key().Kind() != reflect.String {
		return converter{}, fmt.Errorf("type %s: keys must be strings", t)
	}
	elem, err := converterFor(t.Elem())
	if err != nil {
		return converter{}, err
	}
	name := "dict of string to " + elem.name
	return converter{name: name, set: func(dst reflect.Value, v starlark.Value) error {
		m, ok := v.(starlark.IterableMapping)
		if !ok {
			return want(v, name)
		}
		out := reflect.MakeMap(t)
		for _, kv := range m.Items() {
			k, ok := starlark.AsString(kv[0])
			if !ok {
				return fmt.Errorf("got a key of type %s (%s), want string", kv[0].Type(), kv[0])
			}
			x := reflect.New(t.Elem()).Elem()
			if err := elem.set(x, kv[1]); err != nil {
				return fmt.Errorf("[%q]: %w", k, err)
			}
			out.SetMapIndex(reflect.ValueOf(k).Convert(t.Key()), x)
		}
		dst.Set(out)
		return nil
	}}, nil
}

// pointerConverter: nil tells "not given" from the zero value.
func pointerConverter(t reflect.Type) (converter, error) {
	elem, err := converterFor(t.Elem())
	if err != nil {
		return converter{}, err
	}
	return converter{name: elem.name, set: func(dst reflect.Value, v starlark.Value) error {
		p := reflect.New(t.Elem())
		if err := elem.set(p.Elem(), v); err != nil {
			return err
		}
		dst.Set(p)
		return nil
	}}, nil
}

func oneOf(c converter, allowed []string) converter {
	inner := c.set
	c.set = func(dst reflect.Value, v starlark.Value) error {
		if err := inner(dst, v); err != nil {
			return err
		}
		if dst.Kind() == reflect.Slice {
			for i := range dst.Len() {
				if err := checkEnum(dst.Index(i).String(), allowed); err != nil {
					return err
				}
			}
			return nil
		}
		return checkEnum(dst.String(), allowed)
	}
	return c
}

func checkEnum(got string, allowed []string) error {
	for _, a := range allowed {
		if a == got {
			return nil
		}
	}
	msg := fmt.Sprintf("got %q, want one of: %s", got, strings.Join(allowed, ", "))
	if near := diag.Nearest(got, allowed); near != "" {
		msg = fmt.Sprintf("got %q; did you mean %q? one of: %s", got, near, strings.Join(allowed, ", "))
	}
	return errors.New(msg)
}

// parseDefault reads a default tag by the field's own rules; source is how it
// is written in Starlark.
func parseDefault(c converter, t reflect.Type, text string) (v reflect.Value, source string, err error) {
	var sv starlark.Value = starlark.String(text)
	base := t
	if base.Kind() == reflect.Pointer {
		base = base.Elem()
	}
	switch {
	case base == reflect.TypeFor[time.Duration]() || base == reflect.TypeFor[value.Quantity]():
	case base.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return v, "", err
		}
		sv = starlark.Bool(b)
	case base.Kind() == reflect.Int || base.Kind() == reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return v, "", err
		}
		sv = starlark.MakeInt64(n)
	case base.Kind() == reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return v, "", err
		}
		sv = starlark.Float(f)
	case base == reflect.TypeFor[[]string]():
		var elems []starlark.Value
		for _, s := range strings.Split(text, ",") {
			elems = append(elems, starlark.String(strings.TrimSpace(s)))
		}
		sv = starlark.NewList(elems)
	}
	dst := reflect.New(t).Elem()
	if err := c.set(dst, sv); err != nil {
		return v, "", err
	}
	return dst, sv.String(), nil
}
