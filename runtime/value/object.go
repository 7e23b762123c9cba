package value

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/diag"
)

// Object is a frozen, attribute-style view over decoded JSON. It copies
// nothing: each attribute wraps what it finds when it is asked for. The map
// behind it must not be changed afterwards. Safe for concurrent use.
//
// A field is an attribute (o.spec.replicas) or an index (o["spec"]); keys that
// are no identifiers, and fields named as one of the methods get and to_dict,
// are reached by index. JSON null is None.
type Object struct {
	m  map[string]any
	at place
}

// place is where a view sits below its root object; paths are only built for
// messages.
type place struct {
	up     *place
	key    string
	index  int
	root   map[string]any
	secret bool // below data or stringData of a Secret
}

var (
	_ starlark.HasAttrs        = (*Object)(nil)
	_ starlark.IterableMapping = (*Object)(nil)
	_ starlark.Comparable      = (*Object)(nil)
	_ starlark.Sequence        = (*Object)(nil)
)

// NewObject views m, which the caller gives away.
func NewObject(m map[string]any) *Object {
	return &Object{m: m, at: place{root: m, index: -1}}
}

// FromUnstructured views a cluster object, which the caller gives away. A nil
// object is a nil view.
func FromUnstructured(u *unstructured.Unstructured) *Object {
	if u == nil {
		return nil
	}
	return NewObject(u.Object)
}

// Map is the JSON behind the view; read-only.
func (o *Object) Map() map[string]any { return o.m }

// Unstructured is the same object for Go code; it shares the JSON and must be
// deep-copied before a change.
func (o *Object) Unstructured() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: o.m}
}

// String is the object as JSON, with a Secret's material masked.
func (o *Object) String() string { return string(appendJSON(nil, masked(o.m, o.at.secret))) }

// MarshalJSON is String: what json.encode gives, material masked.
func (o *Object) MarshalJSON() ([]byte, error) { return []byte(o.String()), nil }

// Type implements starlark.Value.
func (o *Object) Type() string { return "object" }

// Freeze implements starlark.Value; an Object is always frozen.
func (o *Object) Freeze() {}

// Truth is false for an empty object.
func (o *Object) Truth() starlark.Bool { return len(o.m) > 0 }

// Hash implements starlark.Value; objects are not hashable.
func (o *Object) Hash() (uint32, error) {
	return 0, errors.New("unhashable type: object; use its name, or its uid, as the key")
}

// Len implements starlark.Sequence.
func (o *Object) Len() int { return len(o.m) }

// Attr implements starlark.HasAttrs. A miss is an *AttrError.
func (o *Object) Attr(name string) (starlark.Value, error) {
	switch name {
	case "get":
		return starlark.NewBuiltin("get", objectGet).BindReceiver(o), nil
	case "to_dict":
		return starlark.NewBuiltin("to_dict", toDict).BindReceiver(o), nil
	}
	v, ok := o.m[name]
	if !ok {
		return nil, o.miss(name)
	}
	return o.child(name, v), nil
}

// AttrNames lists the fields and methods, for dir().
func (o *Object) AttrNames() []string {
	names := append(o.keys(), "get", "to_dict")
	sort.Strings(names)
	return names
}

// Get implements starlark.Mapping: o["key"] and `in`. A missing key is an
// *AttrError, which `in` ignores.
func (o *Object) Get(k starlark.Value) (starlark.Value, bool, error) {
	key, ok := starlark.AsString(k)
	if !ok {
		return nil, false, fmt.Errorf("%s: got %s as key, want string", o.at.subject(), k.Type())
	}
	v, ok := o.m[key]
	if !ok {
		return nil, false, o.miss(key)
	}
	return o.child(key, v), true, nil
}

// Iterate yields the keys, sorted.
func (o *Object) Iterate() starlark.Iterator {
	keys := o.keys()
	elems := make([]starlark.Value, len(keys))
	for i, k := range keys {
		elems[i] = starlark.String(k)
	}
	return &sliceIterator{elems: elems}
}

// Items implements starlark.IterableMapping, so that dict(o) and **o work.
func (o *Object) Items() []starlark.Tuple {
	keys := o.keys()
	out := make([]starlark.Tuple, len(keys))
	for i, k := range keys {
		out[i] = starlark.Tuple{starlark.String(k), o.child(k, o.m[k])}
	}
	return out
}

// CompareSameType gives == and !=, by content.
func (o *Object) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	other := y.(*Object)
	if err := comparableJSON(o.m, o.at.secret, other.m, other.at.secret); err != nil {
		return false, err
	}
	switch op {
	case syntax.EQL:
		return equalJSON(o.m, other.m), nil
	case syntax.NEQ:
		return !equalJSON(o.m, other.m), nil
	}
	return false, fmt.Errorf("objects have no order: %s %s %s", o.Type(), op, y.Type())
}

func (o *Object) keys() []string {
	keys := make([]string, 0, len(o.m))
	for k := range o.m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (o *Object) child(key string, v any) starlark.Value {
	secret := o.at.secret || holdsField(o.m, key, v)
	switch v.(type) {
	case map[string]any, []any:
		return wrap(v, place{up: &o.at, key: key, index: -1, root: o.at.root, secret: secret})
	}
	return wrap(v, place{secret: secret})
}

func (o *Object) miss(name string) error {
	keys := o.keys()
	return &AttrError{Subject: o.at.subject(), Path: join(o.at.path(), name), Nearest: diag.Nearest(name, keys), Has: keys}
}

// lastApplied is where kubectl keeps a copy of the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// holdsField reports whether m's field key holds what must not be shown: the
// material of a Secret, or kubectl's copy of one.
func holdsField(m map[string]any, key string, v any) bool {
	switch key {
	case "data", "stringData":
		return isSecret(m)
	case lastApplied:
		text, _ := v.(string)
		return strings.Contains(text, `"kind":"Secret"`)
	}
	return false
}

func isSecret(m map[string]any) bool {
	return m["kind"] == "Secret" && m["apiVersion"] == "v1"
}

// path is the dotted path below the root, "" at the root itself.
func (p *place) path() string {
	if p.up == nil {
		return ""
	}
	if p.index >= 0 {
		return fmt.Sprintf("%s[%d]", p.up.path(), p.index)
	}
	return join(p.up.path(), p.key)
}

// subject names the root: "Deployment.apps/web", or "object" for other data.
func (p *place) subject() string {
	kind, _ := p.root["kind"].(string)
	if kind == "" {
		return "object"
	}
	version, _ := p.root["apiVersion"].(string)
	if group, _, ok := strings.Cut(version, "/"); ok {
		kind += "." + group
	}
	meta, _ := p.root["metadata"].(map[string]any)
	if name, _ := meta["name"].(string); name != "" {
		kind += "/" + name
	}
	return kind
}

func join(path, key string) string {
	switch {
	case !isIdent(key):
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	}
	return path + "." + key
}

func isIdent(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// AttrError is the error of a field that is not there.
type AttrError struct {
	Subject string   // the root object
	Path    string   // the full path that was asked for
	Nearest string   // what may have been meant, or ""
	Has     []string // what is there
}

// Error names the path, the nearest field and what is there.
func (e *AttrError) Error() string {
	s := fmt.Sprintf("%s has no attribute %q", e.Subject, e.Path)
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Nearest)
	} else {
		s += ";"
	}
	const most = 12
	switch {
	case len(e.Has) == 0:
		return s + " it has no fields"
	case len(e.Has) > most:
		return s + fmt.Sprintf(" it has: %s and %d more", strings.Join(e.Has[:most], ", "), len(e.Has)-most)
	}
	return s + " it has: " + strings.Join(e.Has, ", ")
}
