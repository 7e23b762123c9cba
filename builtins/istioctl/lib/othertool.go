package lib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"istio.io/istio/operator/pkg/component"
	"istio.io/istio/operator/pkg/manifest"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/toolchain"
)

// Tools finds the istioctl of another version. *toolchain.Toolchain is one.
type Tools interface {
	Find(ctx context.Context, version string) (*toolchain.Tool, error)
	Exec(ctx context.Context, binary string, args ...string) ([]byte, error)
}

// UseTools lets r render versions of other minors than LinkedMinor: by that
// version's own istioctl, or where it cannot run, by the charts of its release.
// Call it before the first Render.
func (r *Renderer) UseTools(t Tools) { r.tools = t }

// knownDifferences are what the linked library does otherwise than the istioctl
// of another minor with the same charts (measured: 1.31 over 1.30's charts
// agrees on 34 of 42 inputs).
const knownDifferences = "the charts are of that release, but merged by the library of " + LinkedVersion +
	": k8s overlays of an IstioOperator (components.*.k8s) come out differently from that release's own istioctl"

// elsewhere renders a version that is not linked.
func (r *Renderer) elsewhere(ctx context.Context, opts RenderOptions, notLinked error) (*Rendered, error) {
	tool, err := r.tools.Find(ctx, opts.Version)
	if err != nil {
		if !errors.Is(err, toolchain.ErrNotFound) {
			return nil, err
		}
		return nil, &diag.Error{
			Code: diag.Usage, Subject: "manifest of Istio " + opts.Version, Problem: "that minor is not linked, and no istioctl of it is here",
			Expect: "its own istioctl, or its charts", Next: "rutter toolchain fetch " + opts.Version + ", or charts = FOLDER of the release",
			Err: errors.Join(notLinked, err),
		}
	}
	got, err := r.byTool(ctx, opts, tool)
	var said *toolchain.ToolError
	if err == nil || errors.As(err, &said) || tool.Charts == "" || ctx.Err() != nil {
		return got, err // what it says of the input is the answer
	}
	opts.ChartsDir = tool.Charts
	fallback, cerr := r.Render(ctx, opts)
	if cerr != nil {
		return nil, errors.Join(err, cerr)
	}
	out := *fallback
	out.Warnings = append(append([]string{}, fallback.Warnings...), fmt.Sprintf("%s could not be run (%v)", tool.Binary, err))
	return &out, nil
}

// byTool runs the real istioctl of the version.
func (r *Renderer) byTool(ctx context.Context, opts RenderOptions, tool *toolchain.Tool) (*Rendered, error) {
	in, err := newInput(opts)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	in.tool, in.charts = tool.Binary, tool.Charts
	if err := in.refuseProfileOf(tool); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	dir, err := os.MkdirTemp("", "rutter-manifest-")
	if err != nil {
		return nil, err
	}
	got, err := r.execute(ctx, in, dir, tool)
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return nil, fmt.Errorf("manifest: istioctl %s: %w", opts.Version, err)
	}
	return got, nil
}

func (r *Renderer) execute(ctx context.Context, in *renderInput, dir string, tool *toolchain.Tool) (*Rendered, error) {
	args := []string{"manifest", "generate"}
	for i, f := range in.files[1:] { // the first is what the tool has compiled in
		p := filepath.Join(dir, fmt.Sprintf("%02d.yaml", i))
		if err := os.WriteFile(p, f.Content, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--filename", p)
	}
	charts := in.charts
	in.charts = "" // the tool has its own, compiled in
	for _, f := range in.allFlags() {
		args = append(args, "--set", f)
	}
	in.charts = charts
	out, err := r.tools.Exec(ctx, tool.Binary, args...)
	if err != nil {
		if unknownField.MatchString(err.Error()) {
			err = in.explain(err)
		}
		return nil, err
	}
	sets, err := componentsOf(out)
	if err != nil {
		return nil, err
	}
	got, err := newRendered(sets)
	if err != nil {
		return nil, err
	}
	got.Version, got.Engine = in.version, "istioctl "+in.version+" ("+tool.Source+")"
	got.Warnings = in.warnings
	return got, nil
}

// refuseProfileOf looks at the profiles of the release where they are here; a
// bare istioctl says itself what it does not know.
func (in *renderInput) refuseProfileOf(tool *toolchain.Tool) error {
	if tool.Charts == "" {
		return nil
	}
	return in.refuseProfile()
}

// componentsOf parts what istioctl printed by component, by the label that its
// charts give; what has none belongs to the base, or to whom its app label says.
func componentsOf(out []byte) ([]manifest.ManifestSet, error) {
	by := map[component.Name][]manifest.Manifest{}
	for _, doc := range bytes.Split(out, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			return nil, fmt.Errorf("its output: %w", err)
		}
		if len(u.Object) == 0 {
			continue
		}
		name := componentName(u)
		by[name] = append(by[name], manifest.Manifest{Unstructured: u, Content: string(doc)})
	}
	var sets []manifest.ManifestSet
	for _, name := range componentOrder() {
		if len(by[name]) > 0 {
			sets = append(sets, manifest.ManifestSet{Component: name, Manifests: by[name]})
		}
	}
	return sets, nil
}

func componentName(u *unstructured.Unstructured) component.Name {
	l := u.GetLabels()
	for _, name := range componentOrder() {
		if l["operator.istio.io/component"] == string(name) {
			return name
		}
	}
	switch app := l["app"]; {
	case app == "istiod", app == "sidecar-injector", strings.HasPrefix(u.GetName(), "istiod"):
		if u.GetName() == "istiod-default-validator" {
			return component.BaseComponentName
		}
		return component.PilotComponentName
	case app == "istio-cni", strings.HasPrefix(u.GetName(), "istio-cni"):
		return component.CNIComponentName
	case app == "ztunnel", strings.HasPrefix(u.GetName(), "ztunnel"):
		return component.ZtunnelComponentName
	}
	return component.BaseComponentName
}
