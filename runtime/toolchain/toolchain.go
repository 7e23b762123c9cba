package toolchain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/diag"
)

// DefaultMirror is where Istio publishes its releases.
const DefaultMirror = "https://github.com/istio/istio/releases/download"

// Rules are what the organization decides: the section toolchain of its policy.
type Rules struct {
	// Mirror is the URL below which VERSION/istio-VERSION-OS-ARCH.tar.gz is;
	// empty means DefaultMirror.
	Mirror string `json:"mirror,omitempty"`
	// RedirectHosts are hosts, besides the mirror's own, that the mirror may send
	// a download to.
	RedirectHosts []string `json:"redirectHosts,omitempty"`
	// TrustOnFirstUse lets an archive without a pin be fetched, and pins it.
	TrustOnFirstUse bool `json:"trustOnFirstUse,omitempty"`
}

// Options are what a Toolchain works with.
type Options struct {
	Dir      string   // the cache; made when something is first put into it
	LockFile string   // rutter.lock; need not exist
	Folders  []string // where releases may lie besides: unpacked ones, or binaries
	Path     []string // folders of PATH
	OS, Arch string   // of this machine, as Go names them
	Rules    Rules
	// Transport carries downloads; nil refuses them (air gap).
	Transport http.RoundTripper
	// Stall is how long a download may stand still; 0 means 30 s.
	Stall time.Duration
	// Run executes a command; nil means that of the machine.
	Run Runner
}

// Toolchain is the istioctls that this machine has or can get. It is safe for
// concurrent use, by several processes on one cache too.
type Toolchain struct{ o Options }

// New makes a Toolchain. It touches nothing.
func New(o Options) *Toolchain {
	if o.Stall <= 0 {
		o.Stall = 30 * time.Second
	}
	if o.Run == nil {
		o.Run = runCommand
	}
	return &Toolchain{o: o}
}

// Tool is one istioctl.
type Tool struct {
	Version string `json:"version"`
	Binary  string `json:"binary"`           // absolute path
	Charts  string `json:"charts,omitempty"` // folder with charts and profiles; "" where it has none
	Source  string `json:"source"`           // "cache", "folder" or "path"
	SHA256  string `json:"sha256,omitempty"` // of the binary; of cached ones
	Archive string `json:"archive,omitempty"`
}

// ErrNotFound is wrapped by Find's error where no istioctl of the version is here.
var ErrNotFound = errors.New("no istioctl of this version is here")

// archive is the name of a release's archive. Istio calls macOS osx.
func (t *Toolchain) archive(version string) string {
	system := t.o.OS
	if system == "darwin" {
		system = "osx"
	}
	return fmt.Sprintf("istio-%s-%s-%s.tar.gz", version, system, t.o.Arch)
}

func (t *Toolchain) entry(version string) string {
	return filepath.Join(t.o.Dir, strings.TrimSuffix(t.archive(version), ".tar.gz"))
}

// checkVersion takes "1.30.3": what goes into paths and URLs is nothing else.
func checkVersion(version string) error {
	if v, err := semver.StrictNewVersion(version); err != nil || v.String() != version || strings.Contains(version, "+") {
		return diag.Usagef(fmt.Sprintf("version %q", version), "is no Istio version; expected one such as 1.30.3")
	}
	return nil
}

// Find looks for the istioctl of a version: in the cache, in the folders, on
// PATH. A cached one must be what was unpacked; others must say that they are of
// the version. The error wraps ErrNotFound and says where was looked, and what
// was wrong with what was found there.
func (t *Toolchain) Find(ctx context.Context, version string) (*Tool, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	var reasons []string
	tool, err := t.cached(version)
	switch {
	case err == nil:
		return tool, nil
	case errors.Is(err, fs.ErrNotExist):
		reasons = append(reasons, "cache "+t.o.Dir+": has none")
	default:
		reasons = append(reasons, err.Error())
	}
	for _, c := range t.candidates(version) {
		if _, err := os.Stat(c.Binary); err != nil {
			continue
		}
		got, err := t.VersionOf(ctx, c.Binary)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			reasons = append(reasons, err.Error())
		case got != version:
			reasons = append(reasons, fmt.Sprintf("%s: is of Istio %s", c.Binary, got))
		default:
			return c, nil
		}
	}
	return nil, &diag.Error{
		Subject: "istioctl " + version, Problem: fmt.Sprintf("not found (%s)", strings.Join(reasons, "; ")),
		Next: "rutter toolchain fetch " + version, Err: ErrNotFound,
	}
}

// candidates are the places of a version outside of the cache.
func (t *Toolchain) candidates(version string) []*Tool {
	var out []*Tool
	for _, dir := range t.o.Folders {
		release := filepath.Join(dir, "istio-"+version)
		for _, c := range []Tool{
			{Binary: filepath.Join(release, "bin", "istioctl"), Charts: filepath.Join(release, "manifests")},
			{Binary: filepath.Join(dir, "istioctl-"+version)},
			{Binary: filepath.Join(dir, "bin", "istioctl"), Charts: filepath.Join(dir, "manifests")},
			{Binary: filepath.Join(dir, "istioctl")},
		} {
			c.Source = "folder"
			out = append(out, &c)
		}
	}
	for _, dir := range t.o.Path {
		if !filepath.IsAbs(dir) { // as os/exec does not look into the present folder
			continue
		}
		for _, name := range []string{"istioctl-" + version, "istioctl"} {
			out = append(out, &Tool{Binary: filepath.Join(dir, name), Source: "path"})
		}
	}
	for _, c := range out {
		c.Version = version
		if _, err := os.Stat(filepath.Join(c.Charts, "profiles")); c.Charts != "" && err != nil {
			c.Charts = ""
		}
	}
	return out
}

// receiptName is the file that makes a folder of the cache an entry.
const receiptName = "rutter-toolchain.json"

// receipt is what was unpacked.
type receipt struct {
	Version string `json:"version"`
	Archive string `json:"archive"`
	SHA256  string `json:"archiveSHA256"`
	Binary  string `json:"binarySHA256"`
}

// cached reads an entry and holds its binary against what was unpacked. The
// error wraps fs.ErrNotExist where there is none.
func (t *Toolchain) cached(version string) (*Tool, error) {
	dir := t.entry(version)
	b, err := os.ReadFile(filepath.Join(dir, receiptName))
	if err != nil {
		return nil, err
	}
	var r receipt
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, receiptName), err)
	}
	tool := &Tool{Version: version, Binary: filepath.Join(dir, "bin", "istioctl"), Source: "cache", SHA256: r.Binary, Archive: r.SHA256}
	got, err := fileSum(tool.Binary)
	if err != nil {
		return nil, err
	}
	if got != r.Binary {
		return nil, &diag.Error{
			Subject: tool.Binary, Problem: fmt.Sprintf("has SHA-256 %s, %s was unpacked: it was changed since", got, r.Binary),
			Next: fmt.Sprintf("remove %s, then rutter toolchain fetch %s", dir, version),
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "manifests", "profiles")); err == nil {
		tool.Charts = filepath.Join(dir, "manifests")
	}
	return tool, nil
}

// List is what the cache holds for this machine, and what is wrong with
// entries of it, by version.
func (t *Toolchain) List() (tools []*Tool, problems []error, err error) {
	suffix := strings.TrimPrefix(t.archive(""), "istio-")
	suffix = strings.TrimSuffix(suffix, ".tar.gz")
	entries, err := os.ReadDir(t.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var versions []*semver.Version
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "istio-")
		if !ok {
			continue
		}
		if name, ok = strings.CutSuffix(name, suffix); !ok {
			continue
		}
		if v, err := semver.StrictNewVersion(name); err == nil {
			versions = append(versions, v)
		}
	}
	slices.SortFunc(versions, func(a, b *semver.Version) int { return a.Compare(b) })
	for _, v := range versions {
		tool, err := t.cached(v.String())
		if err != nil {
			problems = append(problems, err)
			continue
		}
		tools = append(tools, tool)
	}
	return tools, problems, nil
}

// Verify holds a cached istioctl against the lock file and runs it: it must be
// of its version, and for this machine.
func (t *Toolchain) Verify(ctx context.Context, version string) (*Tool, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	tool, err := t.cached(version)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &diag.Error{Subject: "istioctl " + version, Problem: "is not in the cache", Next: "rutter toolchain fetch " + version, Err: ErrNotFound}
	}
	if err != nil {
		return nil, err
	}
	pins, err := readLock(t.o.LockFile)
	if err != nil {
		return nil, err
	}
	name := t.archive(version)
	switch pin := pins[name]; pin {
	case tool.Archive:
	case "":
		return nil, &diag.Error{Subject: name, Problem: "is not pinned in " + t.o.LockFile, Expect: "sha256 " + tool.Archive, Next: "rutter toolchain fetch " + version + " --sha256 HEX"}
	default:
		return nil, &diag.Error{Subject: name, Problem: fmt.Sprintf("in the cache is of SHA-256 %s; %s pins %s", tool.Archive, t.o.LockFile, pin), Next: "remove " + t.entry(version)}
	}
	got, err := t.VersionOf(ctx, tool.Binary)
	if err != nil {
		return nil, err
	}
	if got != version {
		return nil, &diag.Error{Subject: tool.Binary, Problem: "says that it is of Istio " + got, Expect: version}
	}
	return tool, nil
}
