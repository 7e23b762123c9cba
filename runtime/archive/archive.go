// Package archive is the stored form of a backup: every object as it was, with
// a checksum each, Secrets sealed. builtins/backup writes and restores it;
// builtins/diff compares it with the cluster.
package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// Kind is the HandleKind of a Backup.
const Kind = "backup/1"

// format is the first line of an archive.
const format = "rutter backup 1"

// Backup names a stored archive. It is immutable.
type Backup struct {
	Digest     string `json:"digest"` // of the archive's blob
	ClusterUID string `json:"clusterUID"`
	Count      int    `json:"count"`
	Sealed     int    `json:"sealed,omitempty"` // Secrets among them
	// Left names what belongs to the scope and is not in the archive: Secrets
	// where the run has no key.
	Left []cluster.Ref `json:"left,omitempty"`
	Run  string        `json:"run"`
}

var (
	_ value.Handle      = (*Backup)(nil)
	_ starlark.HasAttrs = (*Backup)(nil)
)

// header is the archive's first line.
type header struct {
	Format     string `json:"format"`
	ClusterUID string `json:"clusterUID"`
	Count      int    `json:"count"`
}

// line is one object of the archive: in the clear, or sealed.
type line struct {
	Ref    cluster.Ref     `json:"ref"`
	SHA256 string          `json:"sha256"` // of the object's canonical JSON
	Object json.RawMessage `json:"object,omitempty"`
	Sealed []byte          `json:"sealed,omitempty"`
}

// Entry is one object read back.
type Entry struct {
	Ref    cluster.Ref
	Digest string
	Object *cluster.Object
}

// ErrDamaged is wrapped by errors about archives that are not what was written.
var ErrDamaged = errors.New("the archive is damaged")

// Write stores objs. managedFields are left out; everything else, status
// included (a CRD's stored versions are there), is kept as it was read. A
// Secret with material goes in sealed, or with a nil sealer is left out and named.
func Write(objs []*cluster.Object, clusterUID, run string, blobs builtin.Blobs, sealer builtin.Sealer) (*Backup, error) {
	b := &Backup{ClusterUID: clusterUID, Run: run}
	var lines []line
	for _, o := range objs {
		ref := cluster.RefOf(o)
		secret := manifest.HoldsMaterial(o)
		if secret && sealer == nil {
			b.Left = append(b.Left, ref)
			continue
		}
		raw, err := cluster.CanonicalJSON(cluster.Unmanaged(o).Object)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		l := line{Ref: ref, SHA256: sum(raw), Object: raw}
		if secret {
			l.Object = nil
			// What is outside the seal must not confirm a guess of what is
			// inside: the checksum of a sealed object is that of its seal.
			if l.Sealed, err = sealer.Seal(raw); err != nil {
				return nil, fmt.Errorf("%s: %w", ref, err)
			}
			l.SHA256 = sum(l.Sealed)
			b.Sealed++
		}
		lines = append(lines, l)
	}
	b.Count = len(lines)
	raw, err := pack(header{format, clusterUID, len(lines)}, lines)
	if err != nil {
		return nil, err
	}
	b.Digest, err = blobs.Put(raw)
	if err != nil {
		return nil, fmt.Errorf("store the backup: %w", err)
	}
	return b, nil
}

func pack(h header, lines []line) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b) // no name and no time: equal backups are equal bytes
	enc := json.NewEncoder(z)
	enc.SetEscapeHTML(false) // escapes would change what was summed
	if err := enc.Encode(h); err != nil {
		return nil, fmt.Errorf("write the backup: %w", err)
	}
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return nil, fmt.Errorf("write the backup: %s: %w", l.Ref, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write the backup: %w", err)
	}
	return b.Bytes(), nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// Read reads an archive back and recomputes every checksum. All objects are
// verified; a sealed one that can't be opened is an error.
func Read(b *Backup, blobs builtin.Blobs, sealer builtin.Sealer) ([]Entry, error) {
	raw, err := blobs.Get(b.Digest)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", b.short(), err)
	}
	if got := sum(raw); got != b.Digest {
		return nil, fmt.Errorf("backup %s: its bytes have the digest %s: %w", b.short(), got, ErrDamaged)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w: %w", b.short(), ErrDamaged, err)
	}
	dec := json.NewDecoder(bufio.NewReader(z))
	var h header
	if err := dec.Decode(&h); err != nil || h.Format != format {
		return nil, fmt.Errorf("backup %s: is not of the format %q: %w", b.short(), format, ErrDamaged)
	}
	out := make([]Entry, 0, h.Count)
	for {
		var l line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("backup %s: object %d: %w: %w", b.short(), len(out)+1, ErrDamaged, err)
		}
		e, err := l.open(sealer)
		if err != nil {
			return nil, fmt.Errorf("backup %s: %s: %w", b.short(), l.Ref, err)
		}
		out = append(out, e)
	}
	if len(out) != h.Count || h.Count != b.Count {
		return nil, fmt.Errorf("backup %s: holds %d objects, want %d: %w", b.short(), len(out), b.Count, ErrDamaged)
	}
	return out, nil
}

func (l *line) open(sealer builtin.Sealer) (Entry, error) {
	raw := []byte(l.Object)
	if l.Sealed != nil {
		if sum(l.Sealed) != l.SHA256 {
			return Entry{}, fmt.Errorf("its checksum does not match: %w", ErrDamaged)
		}
		if sealer == nil {
			return Entry{}, errors.New("is encrypted; the run's age key is needed")
		}
		var err error
		if raw, err = sealer.Open(l.Sealed); err != nil {
			return Entry{}, err
		}
	} else if sum(raw) != l.SHA256 {
		return Entry{}, fmt.Errorf("its checksum does not match: %w", ErrDamaged)
	}
	o, err := cluster.DecodeObject(raw)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if got := cluster.RefOf(o); got != l.Ref {
		return Entry{}, fmt.Errorf("is filed under the wrong name, it is %s: %w", got, ErrDamaged)
	}
	return Entry{Ref: l.Ref, Digest: l.SHA256, Object: o}, nil
}

// Decode is the decoder of Kind.
func Decode(raw json.RawMessage) (starlark.Value, error) {
	b := &Backup{}
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("%s: %w", Kind, err)
	}
	return b, nil
}

func (b *Backup) short() string {
	return strings.TrimPrefix(b.Digest, "sha256:")[:min(12, len(strings.TrimPrefix(b.Digest, "sha256:")))]
}

// HandleKind implements value.Handle.
func (b *Backup) HandleKind() string { return Kind }

// EncodeHandle implements value.Handle.
func (b *Backup) EncodeHandle() (json.RawMessage, error) { return json.Marshal(b) }

// String is how a log shows it.
func (b *Backup) String() string {
	return fmt.Sprintf("<backup %s, %d objects, %d sealed>", b.short(), b.Count, b.Sealed)
}

// Type implements starlark.Value.
func (b *Backup) Type() string { return "backup" }

// Freeze implements starlark.Value; a backup is always frozen.
func (b *Backup) Freeze() {}

// Truth implements starlark.Value.
func (b *Backup) Truth() starlark.Bool { return b.Count > 0 }

// Hash implements starlark.Value.
func (b *Backup) Hash() (uint32, error) { return starlark.String(b.Digest).Hash() }

// Attr implements starlark.HasAttrs; restore is backup.restore with this
// backup filled in, so that a step can name it as its undo.
func (b *Backup) Attr(name string) (starlark.Value, error) {
	switch name {
	case "digest":
		return starlark.String(b.Digest), nil
	case "count":
		return starlark.MakeInt(b.Count), nil
	case "sealed":
		return starlark.MakeInt(b.Sealed), nil
	case "left_out":
		names := make([]string, len(b.Left))
		for i, r := range b.Left {
			names[i] = r.String()
		}
		return value.FromGo(names)
	case "restore":
		return &builtin.Bound{Builtin: "backup.restore", Recv: b}, nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("backup has no attribute %q; it has: %s", name, strings.Join(b.AttrNames(), ", ")))
}

// AttrNames implements starlark.HasAttrs.
func (b *Backup) AttrNames() []string {
	return []string{"count", "digest", "left_out", "restore", "sealed"}
}
