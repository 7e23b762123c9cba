package builtin

import (
	"fmt"
	"reflect"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
)

// ArgDoc is one argument as documentation shows it.
type ArgDoc struct {
	Name       string   `json:"name"` // "*args" and "**kwargs" for the rest
	Type       string   `json:"type"`
	Doc        string   `json:"doc"`
	Default    string   `json:"default,omitempty"` // as Starlark source; "" when there is none
	Enum       []string `json:"enum,omitempty"`
	Required   bool     `json:"required,omitempty"`
	Positional bool     `json:"positional,omitempty"`
}

// argPlan is how one argument struct is filled, worked out once per builtin.
//
// The tags of a field: star:"name[,positional][,required|optional]",
// default:"…", enum:"a,b", doc:"…". Positional fields come first, in order, and
// are required unless they have a default or say optional; the others are by
// keyword only and optional unless they say required. star:"*name" captures
// further positional arguments (starlark.Tuple), star:"**name" further keywords
// ([]starlark.Tuple). None for an optional argument counts as not given, but
// for the types any and starlark.Value, which take it.
type argPlan struct {
	fields     []argField
	positional int // the first so many fields may be positional
	star       int // index of the *args field in the struct, or -1
	starStar   int // index of the **kwargs field, or -1
	rest       []ArgDoc
	names      []string
}

type argField struct {
	doc   ArgDoc
	index int
	deflt reflect.Value // invalid when there is none
	conv  converter
}

func planArgs(name string, t reflect.Type) (*argPlan, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("arguments are a struct, not %s", t)
	}
	p := &argPlan{star: -1, starStar: -1}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("star")
		if !ok || !f.IsExported() {
			return nil, fmt.Errorf("field %s: want an exported field with a star tag", f.Name)
		}
		if err := p.addField(f, tag, i); err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return p, nil
}

func (p *argPlan) addField(f reflect.StructField, tag string, index int) error {
	doc := f.Tag.Get("doc")
	if doc == "" {
		return fmt.Errorf("has no doc tag")
	}
	if strings.HasPrefix(tag, "*") {
		return p.addRest(f, tag, doc, index)
	}
	parts := strings.Split(tag, ",")
	field := argField{index: index, doc: ArgDoc{Name: parts[0], Doc: doc}}
	if !validName(field.doc.Name) || strings.Contains(field.doc.Name, ".") {
		return fmt.Errorf("name %q is no identifier", field.doc.Name)
	}
	for _, n := range p.names {
		if n == field.doc.Name {
			return fmt.Errorf("name %q is used twice", n)
		}
	}
	optional := false
	for _, opt := range parts[1:] {
		switch opt {
		case "positional":
			field.doc.Positional = true
		case "required":
			field.doc.Required = true
		case "optional":
			optional = true
		default:
			return fmt.Errorf("unknown option %q in its star tag", opt)
		}
	}
	conv, err := converterFor(f.Type)
	if err != nil {
		return err
	}
	field.conv, field.doc.Type = conv, conv.name
	if e, ok := f.Tag.Lookup("enum"); ok {
		field.doc.Enum = strings.Split(e, ",")
		field.conv = oneOf(conv, field.doc.Enum)
	}
	text, hasDefault := f.Tag.Lookup("default")
	if hasDefault {
		if field.deflt, field.doc.Default, err = parseDefault(field.conv, f.Type, text); err != nil {
			return fmt.Errorf("default: %w", err)
		}
	}
	if field.doc.Positional && !optional && !hasDefault {
		field.doc.Required = true
	}
	if field.doc.Required && (hasDefault || optional) {
		return fmt.Errorf("is required and has a default")
	}
	return p.place(field)
}

func (p *argPlan) place(field argField) error {
	if field.doc.Positional {
		if p.positional != len(p.fields) {
			return fmt.Errorf("positional arguments come first")
		}
		if n := len(p.fields); n > 0 && field.doc.Required && !p.fields[n-1].doc.Required {
			return fmt.Errorf("a required positional argument follows an optional one")
		}
		p.positional++
	}
	p.fields = append(p.fields, field)
	p.names = append(p.names, field.doc.Name)
	return nil
}

func (p *argPlan) addRest(f reflect.StructField, tag, doc string, index int) error {
	switch {
	case strings.HasPrefix(tag, "**") && f.Type == reflect.TypeFor[[]starlark.Tuple]() && p.starStar < 0:
		p.starStar = index
	case !strings.HasPrefix(tag, "**") && f.Type == reflect.TypeFor[starlark.Tuple]() && p.star < 0:
		p.star = index
	default:
		return fmt.Errorf("%s wants one field of type starlark.Tuple, or []starlark.Tuple for **", tag)
	}
	p.rest = append(p.rest, ArgDoc{Name: tag, Type: "any", Doc: doc})
	return nil
}

func (p *argPlan) docs() []ArgDoc {
	var out []ArgDoc
	for _, f := range p.fields {
		out = append(out, f.doc)
	}
	return append(out, p.rest...)
}

func (p *argPlan) unpack(name string, dst reflect.Value, args starlark.Tuple, kwargs []starlark.Tuple) error {
	var given [64]bool
	if len(p.fields) > len(given) {
		return fmt.Errorf("%s: declares more than %d arguments", name, len(given))
	}
	for i, v := range args {
		if i >= p.positional {
			if p.star < 0 {
				return p.tooMany(name, len(args))
			}
			dst.Field(p.star).Set(reflect.ValueOf(args[i:]))
			break
		}
		given[i] = true
		if err := p.set(name, dst, i, v); err != nil {
			return err
		}
	}
	for _, kv := range kwargs {
		key := string(kv[0].(starlark.String))
		i := p.find(key)
		switch {
		case i < 0 && p.starStar >= 0:
			rest := dst.Field(p.starStar)
			rest.Set(reflect.Append(rest, reflect.ValueOf(kv)))
			continue
		case i < 0:
			return p.unexpected(name, key)
		case given[i]:
			return usage(name, "got more than one value for argument %q", key)
		}
		given[i] = true
		if err := p.set(name, dst, i, kv[1]); err != nil {
			return err
		}
	}
	return p.fillDefaults(name, dst, given[:])
}

func (p *argPlan) fillDefaults(name string, dst reflect.Value, given []bool) error {
	var missing []string
	for i := range p.fields {
		f := &p.fields[i]
		switch {
		case given[i]:
		case f.doc.Required:
			missing = append(missing, f.doc.Name)
		case f.deflt.IsValid():
			dst.Field(f.index).Set(f.deflt)
		}
	}
	if len(missing) > 0 {
		s := "missing argument "
		if len(missing) > 1 {
			s = "missing arguments "
		}
		e := usage(name, "%s%s", s, strings.Join(missing, ", "))
		e.Expect = p.signature(name)
		return e
	}
	return nil
}

func (p *argPlan) set(name string, dst reflect.Value, i int, v starlark.Value) error {
	f := &p.fields[i]
	if v == starlark.None && !f.conv.takesNone {
		if f.doc.Required {
			return usage(name, "%s: got None, want %s", f.doc.Name, f.conv.name)
		}
		if f.deflt.IsValid() {
			dst.Field(f.index).Set(f.deflt)
		}
		return nil
	}
	if err := f.conv.set(dst.Field(f.index), v); err != nil {
		e := usage(name, "%s", f.doc.Name)
		e.Err = err
		return e
	}
	return nil
}

func (p *argPlan) find(key string) int {
	for i, n := range p.names {
		if n == key {
			return i
		}
	}
	return -1
}

func (p *argPlan) tooMany(name string, got int) error {
	e := usage(name, "got %d positional arguments, want at most %d", got, p.positional)
	if p.positional < len(p.fields) {
		var names []string
		for _, f := range p.fields[p.positional:] {
			names = append(names, f.doc.Name)
		}
		e.Problem += "; by keyword only: " + strings.Join(names, ", ")
	}
	return e
}

func (p *argPlan) unexpected(name, key string) error {
	e := usage(name, "unexpected keyword %q", key)
	switch near := diag.Nearest(key, p.names); {
	case near != "":
		e.Problem += fmt.Sprintf("; did you mean %q?", near)
	case len(p.names) > 0:
		e.Problem += "; it takes: " + strings.Join(p.names, ", ")
	default:
		e.Problem += "; it takes no arguments"
	}
	return e
}

func usage(subject, format string, args ...any) *diag.Error {
	return diag.Usagef(subject, format, args...)
}
