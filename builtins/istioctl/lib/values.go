package lib

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/Masterminds/semver/v3"
	"sigs.k8s.io/yaml"

	"istio.io/istio/operator/pkg/render"
)

// Values is the IstioOperator that opts come to: profile, files and settings
// merged, as the charts get it (istioctl profile dump, which 1.24 removed). The
// text is YAML with sorted keys. Errors are those of Renderer.Render.
func Values(ctx context.Context, opts RenderOptions) (string, error) {
	in, err := newRenderInput(opts)
	if err != nil {
		return "", fmt.Errorf("values: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("values: %w", err)
	}
	dir, err := os.MkdirTemp("", "rutter-values-")
	if err != nil {
		return "", err
	}
	text, err := in.merged(dir)
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return "", fmt.Errorf("values: %w", err)
	}
	return text, nil
}

func (in *renderInput) merged(dir string) (text string, err error) {
	defer func() {
		if p := recover(); p != nil { // on some bad paths
			err = in.explain(fmt.Errorf("%v", p))
		}
	}()
	var paths []string
	for i, f := range in.files {
		p := filepath.Join(dir, fmt.Sprintf("%02d.yaml", i))
		if err := os.WriteFile(p, f.Content, 0o600); err != nil {
			return "", err
		}
		paths = append(paths, p)
	}
	m, err := render.MergeInputs(paths, in.allFlags(), nil)
	if err != nil {
		return "", in.explain(err)
	}
	if spec, ok := m.GetPathMap("spec"); ok {
		delete(spec, "installPackagePath") // where the charts are here says nothing of the install
	}
	b, err := yaml.Marshal(m)
	return string(b), err
}

// Profiles are the names of the profiles of a charts folder; empty means the
// linked charts.
func Profiles(chartsDir string) ([]string, error) {
	charts := ""
	if chartsDir != "" {
		var err error
		if charts, err = manifestsFolder(chartsDir); err != nil {
			return nil, err
		}
	}
	return profileNames(charts)
}

// ChartsVersion is the Istio version that the charts of a folder say they are;
// LinkedVersion for those of a source checkout, which don't say.
func ChartsVersion(chartsDir string) (string, error) {
	dir, err := manifestsFolder(chartsDir)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, "charts", "base", "Chart.yaml"))
	if errors.Is(err, os.ErrNotExist) {
		return LinkedVersion, nil
	}
	if err != nil {
		return "", fmt.Errorf("charts folder %s: %w", chartsDir, err)
	}
	var chart struct {
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(b, &chart); err != nil {
		return "", fmt.Errorf("charts folder %s: base/Chart.yaml: %w", chartsDir, err)
	}
	if v, err := semver.StrictNewVersion(chart.AppVersion); err == nil && v.Minor() != 0 {
		return v.String(), nil
	}
	return LinkedVersion, nil
}
