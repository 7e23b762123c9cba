package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/diag"
)

// Fetched says what Fetch or Import did.
type Fetched struct {
	Tool *Tool `json:"tool"`
	// Already: it was in the cache.
	Already bool `json:"already,omitempty"`
	// Pinned: its digest was put into the lock file by this call.
	Pinned bool   `json:"pinned,omitempty"`
	From   string `json:"from"`
}

// Fetch downloads a version into the cache, unless it is there. sum, if given,
// is the SHA-256 of the archive in hex: it is pinned. Without it the archive
// must be pinned already, or trusted on first use.
func (t *Toolchain) Fetch(ctx context.Context, version, sum string) (*Fetched, error) {
	return t.into(ctx, version, sum, func(ctx context.Context, to *os.File, name string) (string, error) {
		return t.download(ctx, to, version, name)
	})
}

// Import takes a version into the cache from an archive on this machine, for
// one without a network. The archive is held against the pin as a download is.
func (t *Toolchain) Import(ctx context.Context, version, archive, sum string) (*Fetched, error) {
	return t.into(ctx, version, sum, func(_ context.Context, to *os.File, _ string) (string, error) {
		f, err := os.Open(archive)
		if err != nil {
			return "", diag.Usagef(archive, "%v", err)
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return "", errors.Join(diag.Usagef(archive, "is no file; expected a release's archive"), f.Close())
		}
		_, err = io.Copy(to, &capped{r: f, left: maxArchive})
		return archive, errors.Join(err, f.Close())
	})
}

// source writes the archive to a file and says where it is from.
type source func(ctx context.Context, to *os.File, name string) (from string, err error)

func (t *Toolchain) into(ctx context.Context, version, sum string, get source) (*Fetched, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	name := t.archive(version)
	want, err := t.expected(name, sum)
	if err != nil {
		return nil, err
	}
	if tool, err := t.cached(version); err == nil && (want == "" || tool.Archive == want) {
		return &Fetched{Tool: tool, Already: true, From: "cache"}, t.pin(name, tool.Archive, want, sum)
	}
	if err := os.MkdirAll(t.o.Dir, 0o755); err != nil { // #nosec G301 -- what is public may be shared
		return nil, err
	}
	unlock, err := lockDir(ctx, t.o.Dir)
	if err != nil {
		return nil, err
	}
	f, err := t.store(ctx, version, want, sum, get)
	return f, errors.Join(err, unlock())
}

// expected is the digest that the archive must have; "" where it is to be
// trusted on first use.
func (t *Toolchain) expected(name, sum string) (string, error) {
	pins, err := readLock(t.o.LockFile)
	if err != nil {
		return "", err
	}
	pin := pins[name]
	if sum != "" {
		if b, err := hex.DecodeString(sum); err != nil || len(b) != sha256.Size {
			return "", diag.Usagef(fmt.Sprintf("sha256 %q", sum), "is no SHA-256; expected 64 hexadecimal digits")
		}
		sum = strings.ToLower(sum)
		if pin != "" && pin != sum {
			return "", diag.Usagef(name, "%s pins sha256 %s; a pin is changed in that file, in a review", t.o.LockFile, pin)
		}
		return sum, nil
	}
	if pin == "" && !t.o.Rules.TrustOnFirstUse {
		return "", &diag.Error{
			Code: diag.Usage, Subject: name, Problem: fmt.Sprintf("is not pinned in %s, and the policy does not trust on first use", t.o.LockFile),
			Expect: "the SHA-256 that the release publishes beside it (" + name + ".sha256)", Next: "rutter toolchain fetch VERSION --sha256 HEX",
		}
	}
	return pin, nil
}

// pin writes what is not pinned yet.
func (t *Toolchain) pin(name, got, want, given string) error {
	pins, err := readLock(t.o.LockFile)
	if err != nil || pins[name] != "" {
		return err
	}
	if want == "" || given != "" {
		return addPin(t.o.LockFile, name, got)
	}
	return nil
}

// store gets, checks and unpacks the archive; the cache's lock is held.
func (t *Toolchain) store(ctx context.Context, version, want, given string, get source) (out *Fetched, err error) {
	name := t.archive(version)
	if tool, err := t.cached(version); err == nil && (want == "" || tool.Archive == want) { // somebody else was first
		return &Fetched{Tool: tool, Already: true, From: "cache"}, t.pin(name, tool.Archive, want, given)
	}
	work, err := os.MkdirTemp(t.o.Dir, ".fetch-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	archive, err := os.Create(filepath.Join(work, "archive"))
	if err != nil {
		return nil, err
	}
	from, err := get(ctx, archive, name)
	if err = errors.Join(err, archive.Close()); err != nil {
		return nil, err
	}
	got, err := fileSum(archive.Name())
	if err != nil {
		return nil, err
	}
	if want != "" && got != want {
		return nil, &diag.Error{
			Subject: name, Problem: fmt.Sprintf("from %s is of SHA-256 %s, want %s: it is damaged, or not the release", from, got, want),
			Changed: "nothing was unpacked", Next: "fetch it again; if it stays so, ask who changed the mirror",
		}
	}
	if err := t.unpackInto(filepath.Join(work, "release"), archive.Name(), version, got); err != nil {
		return nil, fmt.Errorf("%s from %s: %w", name, from, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := replace(filepath.Join(work, "release"), t.entry(version), filepath.Join(work, "old")); err != nil {
		return nil, err
	}
	tool, err := t.cached(version)
	if err != nil {
		return nil, err
	}
	pinned := want == "" || given != ""
	return &Fetched{Tool: tool, Pinned: pinned, From: from}, t.pin(name, got, want, given)
}

// replace puts a folder in the place of another, which may be damaged.
func replace(from, to, aside string) error {
	if err := os.Rename(to, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(from, to)
}

func (t *Toolchain) unpackInto(dir, archive, version, sum string) error {
	if err := os.Mkdir(dir, 0o755); err != nil { // #nosec G301 -- what is public may be shared
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(archive)
	if err != nil {
		return errors.Join(err, root.Close())
	}
	err = unpack(f, version, root, usual())
	if err = errors.Join(err, f.Close(), root.Close()); err != nil {
		return err
	}
	bin, err := fileSum(filepath.Join(dir, "bin", "istioctl"))
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(receipt{Version: version, Archive: t.archive(version), SHA256: sum, Binary: bin}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, receiptName), append(b, '\n'), 0o644) // #nosec G306 -- what is public may be shared
}

// download gets an archive from the mirror.
func (t *Toolchain) download(ctx context.Context, to *os.File, version, name string) (string, error) {
	if t.o.Transport == nil {
		return "", diag.Usagef(name, "downloads are off on this machine; import the archive: rutter toolchain fetch %s --archive FILE", version)
	}
	mirror := t.o.Rules.Mirror
	if mirror == "" {
		mirror = DefaultMirror
	}
	base, err := url.Parse(mirror)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.User != nil {
		return "", diag.Usagef("mirror "+mirror, "is no address of a mirror; expected https://HOST/PATH without credentials")
	}
	at := base.JoinPath(version, name).String()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(t.o.Stall, func() { cancel(fmt.Errorf("nothing came for %s", t.o.Stall)) })
	defer watchdog.Stop()
	client := &http.Client{Transport: t.o.Transport, CheckRedirect: t.redirects(base)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", downloadError(at, ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		problem := "the mirror answered " + resp.Status
		if resp.StatusCode == http.StatusNotFound {
			problem += ": it has no such version, or none for this system"
		}
		return "", errors.Join(&diag.Error{Subject: at, Problem: problem}, resp.Body.Close())
	}
	if resp.ContentLength > maxArchive {
		return "", errors.Join(&diag.Error{Subject: at, Problem: fmt.Sprintf("is of %d bytes; no release is", resp.ContentLength)}, resp.Body.Close())
	}
	_, err = io.Copy(to, &capped{r: &fed{r: resp.Body, feed: func() { watchdog.Reset(t.o.Stall) }}, left: maxArchive})
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", downloadError(at, ctx, err)
	}
	return at, nil
}

func downloadError(at string, ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &diag.Error{Subject: at, Problem: "was not downloaded", Changed: "nothing was unpacked", Err: err}
}

// publicHosts are where GitHub keeps what its releases hold.
var publicHosts = []string{"release-assets.githubusercontent.com", "objects.githubusercontent.com"}

// redirects lets a mirror lead to itself and to the hosts that are named, never
// from TLS to plain text.
func (t *Toolchain) redirects(base *url.URL) func(*http.Request, []*http.Request) error {
	allowed := append([]string{base.Host}, t.o.Rules.RedirectHosts...)
	if base.String() == DefaultMirror {
		allowed = append(allowed, publicHosts...)
	}
	return func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) > 5:
			return errors.New("the mirror redirects more than 5 times")
		case !slices.Contains(allowed, req.URL.Host):
			return fmt.Errorf("the mirror redirects to %s, which the policy does not name (toolchain: redirectHosts)", req.URL.Host)
		case base.Scheme == "https" && req.URL.Scheme != "https":
			return fmt.Errorf("the mirror redirects from https to %s", req.URL.Scheme)
		}
		return nil
	}
}

// fed tells each time that something comes.
type fed struct {
	r    io.Reader
	feed func()
}

// Read implements io.Reader.
func (f *fed) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 {
		f.feed()
	}
	return n, err
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
