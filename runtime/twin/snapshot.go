package twin

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim"
)

// The format of a snapshot: gzip of one JSON object for the header, then one for
// each object, a line each. The header has the digest of the lines after it.
const (
	snapshotFormat  = "rutter-snapshot"
	snapshotVersion = 1
	snapshotMost    = 4 << 30 // bytes, unpacked
)

// Snapshot is a cluster at one time, without its secrets.
type Snapshot struct {
	Context    string
	Kubernetes string
	At         time.Time
	Served     []sim.Served
	Unread     []Assumption // what could not be read
	Objects    []*unstructured.Unstructured
}

type snapshotHeader struct {
	Format     string       `json:"format"`
	Version    int          `json:"version"`
	Digest     string       `json:"digest"`
	Context    string       `json:"context"`
	Kubernetes string       `json:"kubernetes"`
	At         time.Time    `json:"at"`
	Served     []sim.Served `json:"served"`
	Unread     []Assumption `json:"unread,omitempty"`
	Objects    int          `json:"objects"`
}

// leftOut are the kinds that no rehearsal reads and that change all the time.
var leftOut = []string{"events", "leases"}

// Take reads a cluster. What may not be read is left out and named.
func Take(ctx context.Context, c *cluster.Client, now time.Time) (*Snapshot, error) {
	said := &assumptions{}
	l, err := newLive(ctx, c, said)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Context: c.Context(), At: now.UTC()}
	if s.Served, err = l.served(); err != nil {
		return nil, err
	}
	data, err := l.do(http.MethodGet, "/version", nil, asJSON, nil)
	if err != nil {
		return nil, err
	}
	var v version.Info
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	s.Kubernetes = v.GitVersion
	for _, r := range s.Served {
		if slices.Contains(leftOut, r.Plural) || strings.HasSuffix(r.Plural, "reviews") || r.Group == "metrics.k8s.io" {
			continue
		}
		objs, err := l.Fetch(sim.Part{GroupVersionResource: schema.GroupVersionResource{Group: r.Group, Version: r.Versions[0], Resource: r.Plural}})
		switch {
		case apierrors.IsForbidden(err): // said already
		case apierrors.IsMethodNotSupported(err):
		case err != nil:
			return nil, err
		}
		for _, o := range objs {
			blind(o)
		}
		s.Objects = append(s.Objects, objs...)
	}
	s.Unread = said.sorted()
	return s, nil
}

// lastApplied is kubectl's copy of an object within it.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// blind takes what is secret from an object: the values of a Secret, and every
// copy of them that it carries.
func blind(o *unstructured.Unstructured) {
	if o.GetKind() != "Secret" || o.GroupVersionKind().Group != "" {
		return
	}
	for _, field := range []string{"data", "stringData"} {
		if m, ok := o.Object[field].(map[string]any); ok {
			for k := range m {
				m[k] = ""
			}
		}
	}
	a := o.GetAnnotations()
	delete(a, lastApplied)
	o.SetAnnotations(a)
}

// Write writes the snapshot.
func (s *Snapshot) Write(w io.Writer) error {
	var body bytes.Buffer
	for _, o := range s.Objects {
		raw, err := plain.Encode(o.Object)
		if err != nil {
			return err
		}
		body.Write(raw)
		body.WriteByte('\n')
	}
	h := snapshotHeader{
		Format: snapshotFormat, Version: snapshotVersion, Digest: sum(body.Bytes()), Context: s.Context, Kubernetes: s.Kubernetes,
		At: s.At, Served: s.Served, Unread: s.Unread, Objects: len(s.Objects),
	}
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	_, err = z.Write(append(head, '\n'))
	if err == nil {
		_, err = z.Write(body.Bytes())
	}
	return errors.Join(err, z.Close())
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// ReadSnapshot reads what Write wrote.
func ReadSnapshot(r io.Reader) (*Snapshot, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("is no snapshot: %w", err)
	}
	b := bufio.NewReader(io.LimitReader(z, snapshotMost))
	line, err := b.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("is cut off: %w", err)
	}
	var h snapshotHeader
	if err := json.Unmarshal(line, &h); err != nil || h.Format != snapshotFormat {
		return nil, errors.New("is no snapshot")
	}
	if h.Version > snapshotVersion {
		return nil, fmt.Errorf("is a snapshot in format %d, made by a newer rutter; this one reads format %d", h.Version, snapshotVersion)
	}
	body, err := io.ReadAll(b)
	if err != nil {
		return nil, fmt.Errorf("is cut off: %w", err)
	}
	if sum(body) != h.Digest {
		return nil, errors.New("was changed or cut off after it was made: its digest is another one")
	}
	s := &Snapshot{Context: h.Context, Kubernetes: h.Kubernetes, At: h.At, Served: h.Served, Unread: h.Unread}
	for raw := range bytes.Lines(body) {
		m, err := plain.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("object %d: %w", len(s.Objects)+1, err)
		}
		s.Objects = append(s.Objects, &unstructured.Unstructured{Object: m})
	}
	return s, nil
}

// Offline is the twin of a snapshot.
func Offline(s *Snapshot, o Options) (*Twin, error) {
	t := &Twin{name: s.Context, said: &assumptions{}}
	for _, a := range s.Unread {
		t.said.say(a)
	}
	t.said.say(Assumption{Code: DryRunLeftOut, Subject: "the server", Text: "was not asked: this is a rehearsal on a snapshot of " + s.At.Format(time.RFC3339)})
	o.Now = s.At
	return t, t.begin(o, newShelf(s), s.Served, s.Kubernetes)
}

// shelf is a snapshot as a backing.
type shelf struct {
	of map[schema.GroupResource][]*unstructured.Unstructured
}

func newShelf(s *Snapshot) *shelf {
	names := map[schema.GroupKind]schema.GroupResource{}
	for _, r := range s.Served {
		names[schema.GroupKind{Group: r.Group, Kind: r.Kind}] = schema.GroupResource{Group: r.Group, Resource: r.Plural}
	}
	out := &shelf{of: map[schema.GroupResource][]*unstructured.Unstructured{}}
	for _, o := range s.Objects {
		gr := names[o.GroupVersionKind().GroupKind()]
		out.of[gr] = append(out.of[gr], o)
	}
	return out
}

// Fetch implements sim.Backing.
func (s *shelf) Fetch(p sim.Part) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, o := range s.of[p.GroupResource()] {
		if (p.Namespace == "" || o.GetNamespace() == p.Namespace) && (p.Name == "" || o.GetName() == p.Name) {
			out = append(out, o)
		}
	}
	return out, nil
}

// Ask implements sim.Backing: nobody is there to answer.
func (s *shelf) Ask(sim.Question) ([]byte, bool, error) { return nil, false, nil }
