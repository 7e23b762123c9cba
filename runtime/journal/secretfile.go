package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
)

// draft is a file that has no name yet.
type draft struct{ data []byte }

// Write implements io.Writer.
func (d *draft) Write(b []byte) (int, error) {
	d.data = append(d.data, b...)
	return len(b), nil
}

// Sync implements File: it is durable when it has its name.
func (d *draft) Sync() error { return nil }

// Truncate implements File.
func (d *draft) Truncate(size int64) error {
	d.data = d.data[:size]
	return nil
}

// Close implements io.Closer.
func (d *draft) Close() error { return nil }

// secretFile is a file in chunks, open for appending.
type secretFile struct {
	s      *Secrets
	path   string
	headRV string
	chunks int
	tail   []byte // what the last chunk holds
	tailRV string

	mu      sync.Mutex // records are written while others are synced
	pending []byte     // written, not synced
}

func runOf(p string) string {
	run, _, _ := strings.Cut(strings.TrimPrefix(p, ClusterRoot+"/"), "/")
	return run
}

// file is the path within the run's directory.
func (f *secretFile) file() string {
	return strings.TrimPrefix(f.path, path.Join(ClusterRoot, runOf(f.path))+"/")
}

// name is that of the Secret of a chunk, or with -1 of the one that names the file.
func (f *secretFile) name(chunk int) string {
	n := "rutter." + runOf(f.path) + "." + strings.ReplaceAll(f.file(), "/", ".")
	if chunk >= 0 {
		n += "." + strconv.Itoa(chunk)
	}
	return n
}

func (f *secretFile) secret(chunk int, part string, annotations map[string]any) *cluster.Object {
	annotations[annotationFile] = f.file()
	return &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": typeOfSecret,
		"metadata": map[string]any{
			"name": f.name(chunk), "namespace": f.s.ns, "annotations": annotations,
			"labels": map[string]any{labelRun: runOf(f.path), labelPart: part, "app.kubernetes.io/managed-by": "rutter"},
		},
	}}
}

func (f *secretFile) head(chunks int) *cluster.Object {
	return f.secret(-1, "file", map[string]any{annotationChunks: strconv.Itoa(chunks)})
}

func (f *secretFile) chunk(n int, data []byte) *cluster.Object {
	sum := sha256.Sum256(data)
	o := f.secret(n, "chunk", map[string]any{annotationSum: hex.EncodeToString(sum[:])})
	o.Object["data"] = map[string]any{"data": base64.StdEncoding.EncodeToString(data)}
	return o
}

// load reads the whole file, and is then at its end.
func (f *secretFile) load() ([]byte, error) {
	head, err := f.s.get(f.name(-1))
	if err != nil {
		return nil, err
	}
	count, err := strconv.Atoi(head.GetAnnotations()[annotationChunks])
	if err != nil {
		return nil, &ChunkError{f.s.ns, f.name(-1), 0, 0, "it does not say how many chunks there are"}
	}
	f.headRV = head.GetResourceVersion()
	var all []byte
	for n := 0; ; n++ {
		o, err := f.s.get(f.name(n))
		if errors.Is(err, fs.ErrNotExist) {
			if n < count {
				return nil, &ChunkError{f.s.ns, f.name(n), n + 1, count, "it is missing"}
			}
			f.chunks = n
			return all, nil // one more than was counted is of a process that died in between
		}
		if err != nil {
			return nil, err
		}
		text, _, _ := unstructured.NestedString(o.Object, "data", "data")
		data, err := base64.StdEncoding.DecodeString(text)
		if sum := sha256.Sum256(data); err != nil || hex.EncodeToString(sum[:]) != o.GetAnnotations()[annotationSum] {
			return nil, &ChunkError{f.s.ns, f.name(n), n + 1, max(count, n+1), "it is not what was written"}
		}
		all = append(all, data...)
		f.tail, f.tailRV = data, o.GetResourceVersion()
	}
}

// Write implements io.Writer.
func (f *secretFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(f.pending, b...)
	return len(b), nil
}

// Sync implements File: it fills the last chunk and begins others.
func (f *secretFile) Sync() error {
	f.mu.Lock()
	rest := f.pending
	f.pending = nil
	f.mu.Unlock()
	for len(rest) > 0 {
		if f.chunks > 0 && len(f.tail) < f.s.chunk {
			n := min(len(rest), f.s.chunk-len(f.tail))
			next := append(bytes.Clone(f.tail), rest[:n]...)
			got, err := f.s.replace(f.chunk(f.chunks-1, next), f.tailRV)
			if err != nil {
				return err
			}
			f.tail, f.tailRV, rest = next, got.GetResourceVersion(), rest[n:]
			continue
		}
		n := min(len(rest), f.s.chunk)
		next := bytes.Clone(rest[:n])
		got, err := f.s.create(f.chunk(f.chunks, next))
		if err != nil {
			return err
		}
		f.chunks, f.tail, f.tailRV, rest = f.chunks+1, next, got.GetResourceVersion(), rest[n:]
		if err := f.count(); err != nil {
			return err
		}
	}
	return nil
}

func (f *secretFile) count() error {
	got, err := f.s.replace(f.head(f.chunks), f.headRV)
	if err == nil {
		f.headRV = got.GetResourceVersion()
	}
	return err
}

// Truncate implements File. The count goes first: what is cut short by a crash
// is at the end still, and is cut again.
func (f *secretFile) Truncate(size int64) error {
	all, err := f.load()
	if err != nil {
		return err
	}
	if size < 0 || size > int64(len(all)) {
		return fmt.Errorf("truncate to %d: out of range", size)
	}
	was := f.chunks
	f.chunks = (int(size) + f.s.chunk - 1) / f.s.chunk
	if err := f.count(); err != nil {
		return err
	}
	for n := was - 1; n >= f.chunks; n-- {
		if err := f.s.delete(f.name(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if f.chunks == 0 {
		f.tail, f.tailRV = nil, ""
		return nil
	}
	last, err := f.s.get(f.name(f.chunks - 1))
	if err != nil {
		return err
	}
	f.tail = bytes.Clone(all[(f.chunks-1)*f.s.chunk : size])
	got, err := f.s.replace(f.chunk(f.chunks-1, f.tail), last.GetResourceVersion())
	if err == nil {
		f.tailRV = got.GetResourceVersion()
	}
	return err
}

// Close implements io.Closer.
func (f *secretFile) Close() error { return nil }
