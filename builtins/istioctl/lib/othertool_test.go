package lib

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"istio.io/istio/manifests"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/toolchain"
)

// standIn answers for the istioctl of another minor, which can't be built here,
// with what the linked library renders under that version's tag.
type standIn struct {
	tool *toolchain.Tool
	out  []byte
	err  error
	args []string
}

func (s *standIn) Find(_ context.Context, version string) (*toolchain.Tool, error) {
	if s.tool == nil || s.tool.Version != version {
		return nil, &diag.Error{Subject: "istioctl " + version, Problem: "not found", Err: toolchain.ErrNotFound}
	}
	return s.tool, nil
}

func (s *standIn) Exec(_ context.Context, _ string, args ...string) ([]byte, error) {
	s.args = args
	return s.out, s.err
}

func TestAnotherMinorByItsOwnIstioctl(t *testing.T) {
	linked, err := NewRenderer("").Render(t.Context(), RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{tool: &toolchain.Tool{Version: "1.30.3", Binary: "/tools/istioctl", Source: "cache"}}
	s.out = []byte(strings.ReplaceAll(strings.TrimPrefix(string(linked.YAML), "---\n"), LinkedVersion, "1.30.3"))
	r := NewRenderer("")
	r.UseTools(s)
	got, err := r.Render(t.Context(), RenderOptions{Version: "1.30.3", Profile: "default", Revision: "1-30-3", SetFlags: []string{"hub=x"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Engine != "istioctl 1.30.3 (cache)" || got.Version != "1.30.3" || !slices.Equal(got.Components, linked.Components) || len(got.Objects) != len(linked.Objects) {
		t.Errorf("engine %q, components %q, %d objects of %d", got.Engine, got.Components, len(got.Objects), len(linked.Objects))
	}
	want := []string{"manifest", "generate", "--set", "profile=default", "--set", "hub=x", "--set", "revision=1-30-3"}
	if !slices.Equal(s.args, want) {
		t.Errorf("arguments %q, want %q", s.args, want)
	}

	// What the tool says of the input is the answer.
	s.err = &toolchain.ToolError{Path: "/tools/istioctl", Code: 1, Message: `Error: unknown field "pilt"`}
	if _, err := r.Render(t.Context(), RenderOptions{Version: "1.30.3"}); err == nil || !strings.Contains(err.Error(), `unknown field "pilt"`) {
		t.Errorf("error %v", err)
	}
	s.err = &toolchain.ToolError{Path: "/tools/istioctl", Code: 1, Message: `Error: unknown field "galley"`}
	if _, err := r.Render(t.Context(), RenderOptions{Version: "1.30.3", SetFlags: []string{"components.galley.enabled=true"}}); err == nil || !strings.Contains(err.Error(), `set "components.galley.enabled": istio 1.30.3 refuses it`) || !strings.Contains(err.Error(), "components.galley was removed in Istio 1.6") {
		t.Errorf("error %v", err)
	}
	// One that can't run leaves the charts of its release, and says so.
	s.err = errors.New("is not for this machine")
	charts := filepath.Join(t.TempDir(), "manifests")
	if err := os.CopyFS(charts, manifests.FS); err != nil {
		t.Fatal(err)
	}
	s.tool.Charts = charts
	got, err = r.Render(t.Context(), RenderOptions{Version: "1.30.3"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.Engine, "charts folder") || !strings.Contains(strings.Join(got.Warnings, "\n"), "is not for this machine") {
		t.Errorf("engine %q, warnings %q", got.Engine, got.Warnings)
	}
	// And without any tool the way to one.
	_, err = r.Render(t.Context(), RenderOptions{Version: "1.29.0"})
	var d *diag.Error
	if !errors.As(err, &d) || diag.ExitCode(err) != diag.Usage || !errors.Is(err, ErrNotLinked) || !strings.Contains(d.Next, "rutter toolchain fetch 1.29.0") {
		t.Errorf("error %v", err)
	}
}

func TestBadInputs(t *testing.T) {
	base, err := knowledge.Default()
	if err != nil {
		t.Fatal(err)
	}
	own, err := knowledge.Load(base, "own.yaml", []byte("removedFields:\n  - {path: components.galley, since: \"1.5\", instead: ask ops, sources: [x]}\n  - {path: components.pilt, since: \"1.32\", instead: later, sources: [x]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		in   RenderOptions
		want string
	}{
		{"unknown profile", RenderOptions{Profile: "nope"}, `profile "nope": not found; Istio 1.31.0 has`},
		{"unknown path", RenderOptions{SetFlags: []string{"components.pilt.enabled=true"}}, `set "components.pilt.enabled": istio 1.31.0 refuses it`},
		{"removed field of a setting", RenderOptions{SetFlags: []string{"addonComponents.grafana.enabled=true"}}, "addonComponents was removed in Istio 1.8; instead: install the addon itself"},
		{"removed field of a file", RenderOptions{Files: []File{{Name: "old.yaml", Content: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  components:\n    citadel:\n      enabled: true\n")}}}, "components.citadel was removed in Istio 1.6; instead: istiod is the CA"},
		{"removed field of a file of knowledge", RenderOptions{SetFlags: []string{"components.galley.enabled=true"}, Knowledge: own}, "components.galley was removed in Istio 1.5; instead: ask ops"},
		{"field that a later version removes", RenderOptions{SetFlags: []string{"components.pilt.enabled=true"}, Knowledge: own}, `unknown field "pilt"`},
		{"another minor", RenderOptions{Version: "1.29.0"}, "not of the linked Istio minor"},
		{"charts of another minor", RenderOptions{Version: "1.30.3", ChartsDir: t.TempDir()}, "no profiles/default.yaml in it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := NewRenderer("").Render(t.Context(), tc.in)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "later") {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}
