package toolchain

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Limits of an archive. A release of Istio 1.30 has about 400 entries, 150 MB
// unpacked and names of up to 110 bytes.
const (
	maxArchive  = 512 << 20 // compressed
	maxUnpacked = 1 << 30
	maxEntries  = 20000
	maxName     = 512
)

// ErrArchive is wrapped by the errors about an archive that is not what a
// release of Istio is, or is hostile.
var ErrArchive = errors.New("not unpacked")

// limits bound one unpacking; tests make them small.
type limits struct {
	bytes   int64
	entries int
	name    int
}

func usual() limits { return limits{bytes: maxUnpacked, entries: maxEntries, name: maxName} }

// unpack takes bin/istioctl and manifests/ of a release into root. It looks at
// every entry, and refuses the whole archive for one that is a link, a device,
// outside of the release's folder, there twice, or past the limits.
func unpack(r io.Reader, version string, root *os.Root, lim limits) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	in := tar.NewReader(&capped{r: z, left: lim.bytes})
	seen := map[string]bool{}
	top := "istio-" + version
	for n := 1; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrArchive, n, err)
		}
		if n > lim.entries {
			return fmt.Errorf("%w: more than %d entries", ErrArchive, lim.entries)
		}
		if err := admit(h, top, seen, lim); err != nil {
			return fmt.Errorf("%w: entry %d %.80q: %w", ErrArchive, n, h.Name, err)
		}
		rel := strings.TrimPrefix(strings.TrimSuffix(path.Clean(h.Name), "/"), top)
		rel = strings.TrimPrefix(rel, "/")
		if h.Typeflag != tar.TypeReg || !wanted(rel) {
			continue
		}
		if err := write(root, rel, in); err != nil {
			return fmt.Errorf("%w: entry %d %.80q: %w", ErrArchive, n, h.Name, err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if _, err := root.Stat("bin/istioctl"); err != nil {
		return fmt.Errorf("%w: holds no %s/bin/istioctl", ErrArchive, top)
	}
	return nil
}

// wanted is what rendering needs of a release.
func wanted(rel string) bool { return rel == "bin/istioctl" || strings.HasPrefix(rel, "manifests/") }

// admit judges an entry by its header alone.
func admit(h *tar.Header, top string, seen map[string]bool, lim limits) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink, tar.TypeLink:
		return errors.New("is a link")
	default:
		return fmt.Errorf("is neither file nor folder (type %q)", h.Typeflag)
	}
	name := h.Name
	switch {
	case len(name) > lim.name:
		return fmt.Errorf("has a name of %d bytes", len(name))
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == ':' }):
		return errors.New("has a name with control characters, a backslash or a colon")
	case path.IsAbs(name), strings.HasPrefix(name, "./.."):
		return errors.New("leads out of the archive")
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return errors.New("leads out of the archive")
		}
	}
	clean := path.Clean(name)
	if clean != top && !strings.HasPrefix(clean, top+"/") {
		return fmt.Errorf("is not in the folder %s", top)
	}
	if h.Size < 0 || h.Size > lim.bytes {
		return fmt.Errorf("is of %d bytes", h.Size)
	}
	key := strings.ToLower(clean) // one file system's two files are another's one
	if seen[key] && h.Typeflag == tar.TypeReg {
		return errors.New("is there twice")
	}
	seen[key] = true
	return nil
}

// write makes a file that must not be there yet.
func write(root *os.Root, rel string, r io.Reader) error {
	if err := root.MkdirAll(path.Dir(rel), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if rel == "bin/istioctl" {
		mode = 0o755
	}
	f, err := root.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// capped ends a stream that is longer than it may be with an error.
type capped struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		var one [1]byte
		if n, err := c.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, errors.New("it is larger than rutter takes")
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	return n, err
}
