package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/value"
)

// Kind is the HandleKind of a Manifest.
const Kind = "manifest/1"

// Blobs is where the objects are kept, by digest. builtin.Blobs satisfies it.
type Blobs interface {
	Put(b []byte) (digest string, err error)
	Get(digest string) ([]byte, error)
}

// Info is what is known of a manifest besides its objects.
type Info struct {
	Version    string   `json:"version,omitempty"`  // Istio version, "" for one that is not Istio's
	Revision   string   `json:"revision,omitempty"` // istio.io/rev; "" means default
	Profile    string   `json:"profile,omitempty"`
	Engine     string   `json:"engine,omitempty"` // what rendered it
	Components []string `json:"components,omitempty"`
	Warnings   []string `json:"warnings,omitempty"`
}

// Manifest is a set of desired objects, kept by digest; the value itself holds
// only what describes it, so that it stays small in the journal. It is
// immutable and safe for concurrent use.
type Manifest struct {
	Info
	// Digest is the sha256 of the objects as JSON lines, and their blob's name.
	Digest string `json:"digest"`
	// Refs names the objects, in the order in which they were given.
	Refs []cluster.Ref `json:"refs"`

	objects []*cluster.Object // nil after decoding
}

var (
	_ value.Handle      = (*Manifest)(nil)
	_ starlark.HasAttrs = (*Manifest)(nil)
)

// New stores objs and returns the manifest that names them. Objects are taken
// over and must not be changed afterwards. It refuses duplicates, objects
// without kind or name, and Secrets with material, which would lie in the
// store unencrypted.
func New(objs []*cluster.Object, info Info, blobs Blobs) (*Manifest, error) {
	if err := validate(objs, func(i int) string { return fmt.Sprintf("object %d", i+1) }); err != nil {
		return nil, err
	}
	m := &Manifest{Info: info, objects: objs}
	var b bytes.Buffer
	for _, o := range objs {
		if HoldsMaterial(o) {
			return nil, fmt.Errorf("%s: a manifest may not hold Secret material; create it apart, with kube.apply of the object itself", cluster.RefOf(o))
		}
		line, err := json.Marshal(o.Object)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
		b.Write(line)
		b.WriteByte('\n')
		m.Refs = append(m.Refs, cluster.RefOf(o))
	}
	digest, err := blobs.Put(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("store the manifest: %w", err)
	}
	m.Digest = digest
	return m, nil
}

// HoldsMaterial reports whether o is a Secret with data.
func HoldsMaterial(o *cluster.Object) bool {
	return o.GetKind() == "Secret" && o.GetAPIVersion() == "v1" && (o.Object["data"] != nil || o.Object["stringData"] != nil)
}

// Objects returns the objects, from memory or from blobs. They are shared:
// deep-copy before a change.
func (m *Manifest) Objects(blobs Blobs) ([]*cluster.Object, error) {
	if m.objects != nil {
		return m.objects, nil
	}
	b, err := blobs.Get(m.Digest)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", short(m.Digest), err)
	}
	var out []*cluster.Object
	for n, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		o, err := cluster.DecodeObject(line)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: object %d: %w", short(m.Digest), n+1, err)
		}
		out = append(out, o)
	}
	return out, nil
}

// Decode is the decoder of Kind.
func Decode(raw json.RawMessage) (starlark.Value, error) {
	m := &Manifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s: %w", Kind, err)
	}
	if m.Digest == "" {
		return nil, fmt.Errorf("%s: has no digest", Kind)
	}
	return m, nil
}

// HandleKind implements value.Handle.
func (m *Manifest) HandleKind() string { return Kind }

// EncodeHandle implements value.Handle.
func (m *Manifest) EncodeHandle() (json.RawMessage, error) { return json.Marshal(m) }

// String is how a log shows it.
func (m *Manifest) String() string {
	what := "manifest"
	if m.Version != "" {
		what += " of Istio " + m.Version
	}
	return fmt.Sprintf("<%s, %d objects, %s>", what, len(m.Refs), short(m.Digest))
}

// Type implements starlark.Value.
func (m *Manifest) Type() string { return "manifest" }

// Freeze implements starlark.Value; a manifest is always frozen.
func (m *Manifest) Freeze() {}

// Truth is false for a manifest without objects.
func (m *Manifest) Truth() starlark.Bool { return len(m.Refs) > 0 }

// Hash implements starlark.Value.
func (m *Manifest) Hash() (uint32, error) { return starlark.String(m.Digest).Hash() }

// Attr implements starlark.HasAttrs.
func (m *Manifest) Attr(name string) (starlark.Value, error) {
	switch name {
	case "version":
		return starlark.String(m.Version), nil
	case "revision":
		return starlark.String(m.Revision), nil
	case "profile":
		return starlark.String(m.Profile), nil
	case "engine":
		return starlark.String(m.Engine), nil
	case "digest":
		return starlark.String(m.Digest), nil
	case "count":
		return starlark.MakeInt(len(m.Refs)), nil
	case "components":
		return value.FromGo(m.Components)
	case "warnings":
		return value.FromGo(m.Warnings)
	case "objects":
		names := make([]string, len(m.Refs))
		for i, r := range m.Refs {
			names[i] = r.String()
		}
		return value.FromGo(names)
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("manifest has no attribute %q; it has: %s", name, strings.Join(m.AttrNames(), ", ")))
}

// AttrNames implements starlark.HasAttrs.
func (m *Manifest) AttrNames() []string {
	names := []string{"version", "revision", "profile", "engine", "digest", "count", "components", "warnings", "objects"}
	sort.Strings(names)
	return names
}

func short(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		hex = digest
	}
	return hex[:min(12, len(hex))]
}

// ErrInput is wrapped by the errors about objects that are no valid manifest.
var ErrInput = errors.New("not a manifest")

func validate(objs []*cluster.Object, where func(int) string) error {
	seen := map[string]int{}
	for i, o := range objs {
		switch {
		case o == nil || o.Object == nil:
			return fmt.Errorf("%s: is empty: %w", where(i), ErrInput)
		case o.GetAPIVersion() == "":
			return fmt.Errorf("%s: has no apiVersion: %w", where(i), ErrInput)
		case o.GetKind() == "":
			return fmt.Errorf("%s: has no kind: %w", where(i), ErrInput)
		case o.GetName() == "":
			return fmt.Errorf("%s: %s has no metadata.name: %w", where(i), o.GetKind(), ErrInput)
		}
		ref := cluster.RefOf(o)
		if j, twice := seen[ref.ID()]; twice {
			return fmt.Errorf("%s: %s is there twice, first in %s: %w", where(i), ref, where(j), ErrInput)
		}
		seen[ref.ID()] = i
	}
	return nil
}
