package lib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"istio.io/istio/operator/pkg/manifest"
	"istio.io/istio/operator/pkg/render"
	"istio.io/istio/operator/pkg/util/clog"

	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/toolchain"
)

// RenderOptions says what to render. The zero value is the default profile of
// LinkedVersion.
type RenderOptions struct {
	// Version is the Istio version whose images the manifest names; empty means
	// LinkedVersion. Without ChartsDir it must be of LinkedMinor.
	Version string
	// Profile is one of the profiles of the charts; empty means default.
	Profile string
	// Set are values as NewSettings takes them.
	Set map[string]any
	// SetFlags are raw --set strings (path=value). They win over Set.
	SetFlags []string
	// Files are IstioOperator documents, the later winning over the earlier.
	// Set and SetFlags win over them.
	Files []File
	// Revision is the control plane's revision; empty means none (default).
	Revision string
	// ChartsDir is the folder of another Istio release, or its manifests
	// folder, to render that release's charts and profiles.
	ChartsDir string
	// Knowledge says which fields are gone, for errors; nil is what rutter was built
	// with.
	Knowledge *knowledge.Base
}

// File is an IstioOperator document: its content, or the path to read it from.
type File struct {
	// Name is what errors call it, and the path to read when Content is nil.
	Name    string
	Content []byte
}

// ErrNotLinked is wrapped by Render's error for a version of another minor
// than LinkedMinor without a charts folder.
var ErrNotLinked = errors.New("not of the linked Istio minor")

// Renderer renders manifests and keeps the results, by a digest of the inputs,
// in memory and, if Dir is given, on disk. It is safe for concurrent use;
// renders run one at a time.
type Renderer struct {
	dir   string
	tools Tools // nil where other minors need a charts folder

	mu    sync.Mutex
	memo  map[string]*Rendered
	order []string // digests, oldest first
}

// rendererKeeps bounds the results in memory: about 10 MB each.
const rendererKeeps = 8

// NewRenderer makes a Renderer. dir is a folder for results that outlive the
// process, made when first used; empty means none. A result read from disk is
// verified against its checksums, and rendered anew when they differ.
func NewRenderer(dir string) *Renderer {
	return &Renderer{dir: dir, memo: map[string]*Rendered{}}
}

// Render produces the manifest that istioctl of opts.Version would generate
// without a cluster ("manifest generate"). The result is shared between
// callers: don't change it, DeepCopy its objects.
//
// Errors name the offending profile, setting or file and keep the library's
// text. ctx is looked at before the work starts: the library can't be
// interrupted (0.3 s).
func (r *Renderer) Render(ctx context.Context, opts RenderOptions) (*Rendered, error) {
	in, err := newRenderInput(opts)
	if errors.Is(err, ErrNotLinked) && r.tools != nil {
		return r.elsewhere(ctx, opts, err)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	key := in.digest()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if got := r.memo[key]; got != nil {
		return got, nil
	}
	var note string
	if r.dir != "" {
		got, err := loadRendered(r.dir, key)
		switch {
		case err == nil:
			r.keep(key, got)
			return got, nil
		case !errors.Is(err, os.ErrNotExist):
			note = fmt.Sprintf("cached manifest not used: %v", err)
		}
	}
	got, err := in.render()
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	got.InputDigest = key
	if r.dir != "" {
		// A cache that can't be written costs time, not correctness.
		if err := got.store(r.dir, key); err != nil {
			note = fmt.Sprintf("manifest not cached: %v", err)
		}
	}
	if note != "" {
		got.CacheNote = note
	}
	r.keep(key, got)
	return got, nil
}

func (r *Renderer) keep(key string, got *Rendered) {
	if len(r.order) >= rendererKeeps {
		delete(r.memo, r.order[0])
		r.order = r.order[1:]
	}
	r.memo[key] = got
	r.order = append(r.order, key)
}

// render runs the library.
func (in *renderInput) render() (*Rendered, error) {
	dir, err := os.MkdirTemp("", "rutter-manifest-")
	if err != nil {
		return nil, err
	}
	got, err := in.renderIn(dir)
	return got, errors.Join(err, os.RemoveAll(dir))
}

func (in *renderInput) renderIn(dir string) (*Rendered, error) {
	var paths []string
	for i, f := range in.files {
		p := filepath.Join(dir, fmt.Sprintf("%02d.yaml", i))
		if err := os.WriteFile(p, f.Content, 0o600); err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	var out, warned bytes.Buffer
	sets, err := generate(paths, in.allFlags(), clog.NewConsoleLogger(&out, &warned, nil))
	if err != nil {
		return nil, in.explain(err)
	}
	got, err := newRendered(sets)
	if err != nil {
		return nil, err
	}
	got.Version, got.Engine = in.version, in.engine()
	got.Warnings = append(in.warnings, warningLines(warned.String())...)
	return got, nil
}

// generate calls the library, whose path functions panic on some bad input.
func generate(files, flags []string, logger clog.Logger) (sets []manifest.ManifestSet, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	sets, _, err = render.GenerateManifest(files, flags, false, nil, logger)
	return sets, err
}

// warningLines takes the library's warnings from what it logged.
func warningLines(text string) []string {
	var out []string
	for _, l := range strings.Split(text, "\n") {
		l = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(l), "❗"))
		if l != "" {
			out = append(out, l)
		}
	}
	return out
}

// Tool is the istioctl of a version that the renderer would use; the error wraps
// toolchain.ErrNotFound where there is none.
func (r *Renderer) Tool(ctx context.Context, version string) (*toolchain.Tool, error) {
	if r.tools == nil {
		return nil, fmt.Errorf("istioctl %s: no toolchain is here: %w", version, toolchain.ErrNotFound)
	}
	return r.tools.Find(ctx, version)
}
