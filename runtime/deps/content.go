package deps

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/loader"
)

// What a dependency may hold. The loader has limits of its own for what is used.
const (
	maxFiles   = 500
	maxFile    = 1 << 20  // bytes
	maxContent = 16 << 20 // bytes of all files
	maxWalked  = 50_000   // entries of a folder or tree that are looked at
)

// Vendor is the folder of a module in which its dependencies are kept.
const Vendor = "vendor"

// Content is the files of a dependency, in memory: what was hashed is what is
// loaded. It is an fs.FS of files without folders, and immutable.
type Content struct {
	files map[string]*file
}

type file struct {
	data []byte
	info fs.FileInfo
}

// belongs reports whether a file is part of a module: Starlark that is no test. Of
// folders, those of tests and of hidden things are none.
func belongs(name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if base := path.Base(dir); base == "testdata" || base == Vendor || strings.HasPrefix(base, ".") {
			return false
		}
	}
	return fs.ValidPath(name) && strings.HasSuffix(name, ".star") && !strings.HasSuffix(name, "_test.star") && !strings.HasPrefix(path.Base(name), ".")
}

// newContent is the content that files make, without those of modules inside.
func newContent(files map[string]*file) (*Content, error) {
	var inner []string
	for name := range files {
		if path.Base(name) == loader.ModFile && name != loader.ModFile {
			inner = append(inner, path.Dir(name)+"/")
		}
	}
	c := &Content{files: map[string]*file{}}
	total := 0
	for name, f := range files {
		if slices.ContainsFunc(inner, func(dir string) bool { return strings.HasPrefix(name, dir) }) {
			continue
		}
		total += len(f.data)
		c.files[name] = f
	}
	if files[loader.ModFile] == nil {
		return nil, errNoModule
	}
	if len(c.files) > maxFiles || total > maxContent {
		return nil, fmt.Errorf("it holds %d files of %d bytes, which is more than a module may (%d, %d)", len(c.files), total, maxFiles, maxContent)
	}
	return c, nil
}

var errNoModule = errors.New("it has no " + loader.ModFile + ", and so is no module")

// readFolder reads a module's files below root. Links are left out: nothing is
// loaded through them.
func readFolder(root *os.Root) (*Content, error) {
	fsys := env.RootFS(root)
	files := map[string]*file{}
	walked, total := 0, 0
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if walked++; walked > maxWalked {
			return fmt.Errorf("it has more than %d entries", maxWalked)
		}
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && !belongs(name+"/x.star"):
			return fs.SkipDir
		case !d.Type().IsRegular() || !belongs(name):
			return nil
		}
		f, err := readFile(fsys, name)
		if err != nil {
			return err
		}
		if total += len(f.data); len(files) >= 4*maxFiles || total > 4*maxContent {
			return fmt.Errorf("it holds more than a module may (%d files of %d bytes)", maxFiles, maxContent)
		}
		files[name] = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newContent(files)
}

// readFile reads a regular file.
func readFile(fsys fs.FS, name string) (out *file, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return &file{data: b, info: info}, nil
}

// Names are the files, sorted.
func (c *Content) Names() []string {
	names := make([]string, 0, len(c.files))
	for name := range c.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Text is a file's content, "" where there is no such file.
func (c *Content) Text(name string) string {
	if f := c.files[name]; f != nil {
		return string(f.data)
	}
	return ""
}

// Digest is the sha256 over names and contents, "sha256:<hex>".
func (c *Content) Digest() string {
	h := sha256.New()
	for _, name := range c.Names() {
		data := c.files[name].data
		_, _ = fmt.Fprintf(h, "%d:%s%d:", len(name), name, len(data)) // a hash takes everything
		_, _ = h.Write(data)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Open implements fs.FS.
func (c *Content) Open(name string) (fs.File, error) {
	f := c.files[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &opened{Reader: bytes.NewReader(f.data), f: f, name: name}, nil
}

// opened is an open file. Its Stat is that of the file that was read, by whose
// identity the organization's policy is refused.
type opened struct {
	*bytes.Reader
	f    *file
	name string
}

// Stat implements fs.File.
func (o *opened) Stat() (fs.FileInfo, error) {
	if o.f.info != nil {
		return o.f.info, nil
	}
	return unnamed{path.Base(o.name), int64(len(o.f.data))}, nil
}

// Close implements fs.File.
func (o *opened) Close() error { return nil }

// unnamed is the information of a file that was never on a disk.
type unnamed struct {
	name string
	size int64
}

func (u unnamed) Name() string     { return u.name }
func (u unnamed) Size() int64      { return u.size }
func (unnamed) Mode() fs.FileMode  { return 0o444 }
func (unnamed) ModTime() time.Time { return time.Time{} }
func (unnamed) IsDir() bool        { return false }
func (unnamed) Sys() any           { return nil }

// write writes the files into a folder below root, which must be empty or new.
func (c *Content) write(root *os.Root, dir string) error {
	for _, name := range c.Names() {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := root.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(p, c.files[name].data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
