package toolchain

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/lockfile"
)

const version = "1.30.3"

// item is one entry of a test's archive.
type item struct {
	name, content string
	kind          byte
	link          string
}

func file(name, content string) item {
	return item{name: "istio-" + version + "/" + name, content: content, kind: tar.TypeReg}
}

// script is an istioctl that says its version.
func script(v string) string {
	return "#!/bin/sh\necho '{\"clientVersion\":{\"version\":\"" + v + "\"}}'\n"
}

func release(more ...item) []item {
	return append([]item{
		{name: "istio-" + version + "/", kind: tar.TypeDir},
		file("bin/istioctl", script(version)),
		file("manifests/profiles/default.yaml", "kind: IstioOperator\n"),
		file("samples/bookinfo/x.yaml", "not needed\n"),
	}, more...)
}

func pack(t testing.TB, items []item) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Typeflag: i.kind, Linkname: i.link, Mode: 0o755, Size: int64(len(i.content)), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(i.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// mirror serves what answer does, below the layout of releases.
func mirror(t *testing.T, answer http.HandlerFunc) (string, *[]string) {
	t.Helper()
	var asked []string
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, &asked
}

func serve(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) } // a client that hung up is the test's wish
}

func toolchain(t *testing.T, mirror string, o func(*Options)) *Toolchain {
	t.Helper()
	dir := t.TempDir()
	opts := Options{
		Dir: filepath.Join(dir, "cache"), LockFile: filepath.Join(dir, "rutter.lock"), OS: "linux", Arch: "amd64",
		Rules: Rules{Mirror: mirror}, Transport: http.DefaultTransport, Stall: 5 * time.Second,
	}
	if o != nil {
		o(&opts)
	}
	return New(opts)
}

// empty fails the test when anything but the lock is left in the cache.
func empty(t *testing.T, tc *Toolchain) {
	t.Helper()
	entries, err := os.ReadDir(tc.o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" {
			t.Errorf("%s was left in the cache", e.Name())
		}
	}
	if b, err := os.ReadFile(tc.o.LockFile); err == nil {
		t.Errorf("the lock file holds %q", b)
	}
}

func TestFetch(t *testing.T) {
	good := pack(t, release())
	url, asked := mirror(t, serve(good))
	tc := toolchain(t, url, nil)
	_, err := tc.Fetch(t.Context(), version, "")
	if err == nil || diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), "is not pinned") {
		t.Fatalf("without a pin: %v", err)
	}
	if len(*asked) != 0 {
		t.Errorf("asked for %q before anything was pinned", *asked)
	}
	if _, err := tc.Find(t.Context(), version); !errors.Is(err, ErrNotFound) {
		t.Errorf("found %v", err)
	}
	got, err := tc.Fetch(t.Context(), version, digest(good))
	if err != nil || !got.Pinned || got.Already {
		t.Fatalf("%+v, %v", got, err)
	}
	if want := "/1.30.3/istio-1.30.3-linux-amd64.tar.gz"; (*asked)[0] != want {
		t.Errorf("asked for %s, want %s", (*asked)[0], want)
	}
	tool, err := tc.Find(t.Context(), version)
	if err != nil || tool.Source != "cache" || tool.Charts == "" {
		t.Fatalf("%+v, %v", tool, err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(tool.Charts), "samples")); err == nil {
		t.Error("the samples were unpacked")
	}
	if _, err := tc.Verify(t.Context(), version); err != nil {
		t.Error(err)
	}
	again, err := tc.Fetch(t.Context(), version, "")
	if err != nil || !again.Already || len(*asked) != 1 {
		t.Errorf("again: %+v, %v, asked %q", again, err, *asked)
	}
	list, problems, err := tc.List()
	if err != nil || len(list) != 1 || list[0].Version != version || len(problems) != 0 {
		t.Errorf("list %+v, %v, %v", list, problems, err)
	}

	// A binary that changed is not run, and is fetched again.
	if err := os.WriteFile(tool.Binary, []byte(script("9.9.9")), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := tc.Find(t.Context(), version); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "it was changed since") {
		t.Errorf("changed: %v", err)
	}
	if _, problems, err := tc.List(); err != nil || len(problems) != 1 {
		t.Errorf("problems %v, %v", problems, err)
	}
	if got, err := tc.Fetch(t.Context(), version, ""); err != nil || got.Already {
		t.Errorf("mended: %+v, %v", got, err)
	}
	if _, err := tc.Fetch(t.Context(), version, strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "a pin is changed in that file") {
		t.Errorf("another digest than the pinned: %v", err)
	}
}

func TestTrustOnFirstUse(t *testing.T) {
	answer := pack(t, release())
	url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) { serve(answer)(w, r) })
	tc := toolchain(t, url, func(o *Options) { o.Rules.TrustOnFirstUse = true })
	if err := os.WriteFile(tc.o.LockFile, []byte("module x sha256:aa\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := tc.Fetch(t.Context(), version, "")
	if err != nil || !got.Pinned {
		t.Fatalf("%+v, %v", got, err)
	}
	b, err := os.ReadFile(tc.o.LockFile)
	if want := "module x sha256:aa\ntoolchain istio-1.30.3-linux-amd64.tar.gz sha256:" + digest(answer) + "\n"; err != nil || string(b) != want {
		t.Errorf("the lock file holds %q, want %q", b, want)
	}
	// From then on it is pinned: another archive of that name is refused.
	if err := os.RemoveAll(tc.o.Dir); err != nil {
		t.Fatal(err)
	}
	answer = pack(t, release(file("manifests/more.yaml", "x")))
	if _, err := tc.Fetch(t.Context(), version, ""); err == nil || !strings.Contains(err.Error(), "it is damaged, or not the release") {
		t.Errorf("another archive: %v", err)
	}
}

func TestBadMirrors(t *testing.T) {
	good := pack(t, release())
	elsewhere, _ := mirror(t, serve(good))
	u, err := url.Parse(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	to := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusFound)
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		set    func(*Options)
		want   string // "" means that it works
	}{
		{name: "good", answer: serve(good)},
		{name: "corrupt", answer: serve(append([]byte("x"), good[1:]...)), want: "it is damaged, or not the release"},
		{name: "cut short", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			_, _ = w.Write(good[:len(good)/2])
		}, want: "unexpected EOF"},
		{name: "cut short without a length", answer: serve(good[:len(good)/2]), want: "it is damaged, or not the release"},
		{name: "not there", answer: http.NotFound, want: "404 Not Found: it has no such version"},
		{name: "broken", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, want: "502 Bad Gateway"},
		{name: "too large", answer: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "99999999999") }, want: "no release is"},
		{name: "stands still", answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(good[:10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, set: func(o *Options) { o.Stall = 20 * time.Millisecond }, want: "nothing came for 20ms"},
		{name: "redirects to another host", answer: to, want: "which the policy does not name"},
		{name: "redirects to a host of the policy", answer: to, set: func(o *Options) { o.Rules.RedirectHosts = []string{u.Host} }},
		{name: "redirects for ever", answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, want: "redirects more than 5 times"},
		{name: "air gap", answer: serve(good), set: func(o *Options) { o.Transport = nil }, want: "downloads are off"},
		{name: "no address", answer: serve(good), set: func(o *Options) { o.Rules.Mirror = "ftp://x/y" }, want: "is no address of a mirror"},
		{name: "credentials in the address", answer: serve(good), set: func(o *Options) { o.Rules.Mirror = "https://me:secret@x/y" }, want: "is no address of a mirror"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at, _ := mirror(t, tc.answer)
			c := toolchain(t, at, tc.set)
			_, err := c.Fetch(t.Context(), version, digest(good))
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
			empty(t, c)
		})
	}
}

func TestInterruptedFetchLeavesNothing(t *testing.T) {
	good := pack(t, release())
	ctx, cancel := context.WithCancel(t.Context())
	at, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(good[:10])
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	c := toolchain(t, at, nil)
	if _, err := c.Fetch(ctx, version, digest(good)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	empty(t, c)
}

func TestHostileArchives(t *testing.T) {
	top := "istio-" + version + "/"
	for _, tc := range []struct {
		name  string
		items []item
		want  string
	}{
		{"parent", release(item{name: top + "../../evil", kind: tar.TypeReg, content: "x"}), "leads out of the archive"},
		{"absolute", release(item{name: "/etc/evil", kind: tar.TypeReg, content: "x"}), "leads out of the archive"},
		{"another folder", release(item{name: "other/bin/istioctl", kind: tar.TypeReg, content: "x"}), "is not in the folder"},
		{"backslash", release(item{name: top + `manifests\..\..\evil`, kind: tar.TypeReg, content: "x"}), "backslash"},
		{"control characters", release(item{name: top + "manifests/\x1b[2J", kind: tar.TypeReg, content: "x"}), "control characters"},
		{"symlink", release(item{name: top + "manifests/out", kind: tar.TypeSymlink, link: "/etc"}), "is a link"},
		{"symlink, then through it", release(item{name: top + "manifests/out", kind: tar.TypeSymlink, link: "/tmp"}, file("manifests/out/evil", "x")), "is a link"},
		{"hard link", release(item{name: top + "manifests/out", kind: tar.TypeLink, link: "/etc/passwd"}), "is a link"},
		{"device", release(item{name: top + "manifests/dev", kind: tar.TypeChar}), "is neither file nor folder"},
		{"fifo", release(item{name: top + "manifests/fifo", kind: tar.TypeFifo}), "is neither file nor folder"},
		{"twice", release(file("bin/istioctl", "#!/bin/sh\nevil\n")), "is there twice"},
		{"twice but for the case", release(file("bin/ISTIOCTL", "#!/bin/sh\nevil\n")), "is there twice"},
		{"huge name", release(file("manifests/"+strings.Repeat("a/", 400)+"x", "x")), "has a name of"},
		{"no istioctl", []item{file("manifests/profiles/default.yaml", "x")}, "holds no istio-1.30.3/bin/istioctl"},
		{"another version's", []item{{name: "istio-1.29.0/bin/istioctl", kind: tar.TypeReg, content: "x"}}, "is not in the folder istio-1.30.3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := pack(t, tc.items)
			at, _ := mirror(t, serve(b))
			c := toolchain(t, at, nil)
			_, err := c.Fetch(t.Context(), version, digest(b))
			if !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
			empty(t, c)
		})
	}
	t.Run("no archive", func(t *testing.T) {
		b := []byte("<html>please log in</html>")
		at, _ := mirror(t, serve(b))
		c := toolchain(t, at, nil)
		if _, err := c.Fetch(t.Context(), version, digest(b)); !errors.Is(err, ErrArchive) {
			t.Errorf("error %v", err)
		}
		empty(t, c)
	})
}

// unpacked is what unpack says with small limits.
func unpacked(t *testing.T, items []item, lim limits) error {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return unpack(bytes.NewReader(pack(t, items)), version, root, lim)
}

func TestBombs(t *testing.T) {
	zeros := strings.Repeat("0", 1<<20)
	for _, tc := range []struct {
		name  string
		items []item
		lim   limits
		want  string
	}{
		{"one file", release(file("manifests/bomb", zeros)), limits{bytes: 64 << 10, entries: 100, name: 100}, "is of 1048576 bytes"},
		{"one that is passed over", release(file("samples/bomb", zeros)), limits{bytes: 64 << 10, entries: 100, name: 100}, "is of 1048576 bytes"},
		{"many files", release(file("samples/a", zeros), file("samples/b", zeros)), limits{bytes: 1500 << 10, entries: 100, name: 100}, "it is larger than rutter takes"},
		{"many entries", release(file("a", ""), file("b", "")), limits{bytes: 1 << 20, entries: 5, name: 100}, "more than 5 entries"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := unpacked(t, tc.items, tc.lim); !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(f, release()))
	f.Add(pack(f, release(item{name: "../x", kind: tar.TypeSymlink, link: "/"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		err = unpack(bytes.NewReader(b), version, root, limits{bytes: 1 << 20, entries: 100, name: 100})
		if err != nil && !errors.Is(err, ErrArchive) {
			t.Errorf("error %v", err)
		}
		if werr := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !d.Type().IsRegular() {
				t.Errorf("%s is a %s", p, d.Type())
			}
			return err
		}); werr != nil {
			t.Error(werr)
		}
	})
}

func FuzzLock(f *testing.F) {
	f.Add("toolchain istio-1.30.3-linux-amd64.tar.gz sha256:" + strings.Repeat("a", 64) + "\n")
	f.Add("module x\n\ntoolchain\n")
	f.Fuzz(func(t *testing.T, text string) {
		pins, err := pinsIn("rutter.lock", lockfile.In(text, pinWord))
		for name, sum := range pins {
			if len(sum) != 64 || !strings.HasPrefix(name, "istio-") {
				t.Errorf("%q: %q (%v)", name, sum, err)
			}
		}
	})
}

func TestBadLock(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"toolchain istio-1.30.3-linux-amd64.tar.gz md5:aa\n", "rutter.lock:1:1: is no pin of an archive"},
		{"x\ntoolchain ../evil sha256:" + strings.Repeat("a", 64) + "\n", "rutter.lock:2:1: is no pin"},
		{"toolchain istio-1-a.tar.gz sha256:" + strings.Repeat("a", 64) + "\ntoolchain istio-1-a.tar.gz sha256:" + strings.Repeat("b", 64) + "\n", "is pinned twice"},
	} {
		if _, err := pinsIn("rutter.lock", lockfile.In(tc.text, pinWord)); err == nil || !strings.Contains(err.Error(), tc.want) || diag.ExitCode(err) != diag.Usage {
			t.Errorf("%q: error %v, want one that says %q", tc.text, err, tc.want)
		}
	}
}

func TestImport(t *testing.T) {
	good := pack(t, release())
	archive := filepath.Join(t.TempDir(), "istio.tar.gz")
	if err := os.WriteFile(archive, good, 0o600); err != nil {
		t.Fatal(err)
	}
	c := toolchain(t, "", func(o *Options) { o.Transport = nil })
	if _, err := c.Import(t.Context(), version, archive, strings.Repeat("1", 64)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("another digest: %v", err)
	}
	for _, bad := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := c.Import(t.Context(), version, bad, digest(good)); diag.ExitCode(err) != diag.Usage {
			t.Errorf("%s: %v", bad, err)
		}
	}
	got, err := c.Import(t.Context(), version, archive, digest(good))
	if err != nil || got.From != archive {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := c.Verify(t.Context(), version); err != nil {
		t.Error(err)
	}
}

func TestFindElsewhere(t *testing.T) {
	folder, bin := t.TempDir(), t.TempDir()
	put := func(path, content string, mode os.FileMode) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(bin, "istioctl"), script("1.29.6"), 0o755)
	put(filepath.Join(folder, "istio-"+version, "bin", "istioctl"), script(version), 0o755)
	put(filepath.Join(folder, "istio-"+version, "manifests", "profiles", "default.yaml"), "x", 0o644)
	put(filepath.Join(folder, "istioctl-1.28.1"), "\x7fELF not for this machine", 0o755)
	put(filepath.Join(folder, "istioctl-1.28.2"), script("1.28.2"), 0o644)
	put(filepath.Join(folder, "istioctl-1.28.3"), script("1.28.9"), 0o755)
	put(filepath.Join(folder, "istioctl-1.28.4"), "#!/bin/sh\necho nonsense\n", 0o755)
	c := toolchain(t, "", func(o *Options) { o.Folders, o.Path = []string{folder}, []string{bin, "relative"} })
	for _, tc := range []struct{ version, source, want string }{
		{version, "folder", ""},
		{"1.29.6", "path", ""},
		{"1.28.1", "", "is not for this machine: wrong architecture"},
		{"1.28.2", "", "may not be executed"},
		{"1.28.3", "", "is of Istio 1.28.9"},
		{"1.28.4", "", "does not say its version"},
		{"1.27.0", "", "rutter toolchain fetch"},
		{"latest", "", "is no Istio version"},
		{"1.30.3/../../x", "", "is no Istio version"},
	} {
		tool, err := c.Find(t.Context(), tc.version)
		if tc.source != "" {
			if err != nil || tool.Source != tc.source || (tool.Charts != "") != (tc.version == version) {
				t.Errorf("%s: %+v, %v", tc.version, tool, err)
			}
			continue
		}
		var d *diag.Error
		said := fmt.Sprint(err)
		if errors.As(err, &d) {
			said += " " + d.Next
		}
		if err == nil || !strings.Contains(said, tc.want) {
			t.Errorf("%s: error %v, want one that says %q", tc.version, said, tc.want)
		}
	}
}

func TestExecIsScrubbedAndBounded(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "do not tell")
	dir := t.TempDir()
	bin := filepath.Join(dir, "istioctl")
	write := func(text string) {
		if err := os.WriteFile(bin, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := toolchain(t, "", nil)
	write("set\nprintf '[%s]' \"$@\"\n")
	out, err := c.Exec(t.Context(), bin, "a b", "$(id)", ";rm")
	if err != nil || strings.Contains(string(out), "do not tell") || !strings.Contains(string(out), "[a b][$(id)][;rm]") {
		t.Errorf("%v:\n%s", err, out)
	}
	write("echo 'Error: no such thing' >&2\nexit 7\n")
	var failed *ToolError
	if _, err := c.Exec(t.Context(), bin); !errors.As(err, &failed) || failed.Code != 7 || failed.Message != "Error: no such thing" {
		t.Errorf("error %v", err)
	}
	write("while :; do echo 0123456789012345678901234567890123456789; done\n")
	res, err := runCommand(t.Context(), Command{Path: bin, MaxStdout: 4096, MaxStderr: 10, Env: []string{}})
	if !errors.Is(err, ErrOutput) {
		t.Errorf("%+v, %v", res, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	write("while :; do :; done\n")
	if _, err := c.Exec(ctx, bin); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := unrunnable("x", syscall.ENOEXEC); !strings.Contains(err.Error(), "wrong architecture") {
		t.Errorf("error %v", err)
	}
}

// TestTwoProcessesFetchOnce: the cache's lock, and who comes second.
func TestTwoProcessesFetchOnce(t *testing.T) {
	good := pack(t, release())
	at, asked := mirror(t, serve(good))
	c := toolchain(t, at, nil)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = c.Fetch(t.Context(), version, digest(good)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil || len(*asked) != 1 {
		t.Errorf("asked %d times: %v", len(*asked), err)
	}
}
