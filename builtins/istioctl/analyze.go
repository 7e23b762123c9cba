package istioctl

import (
	"context"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
)

type analyzeArgs struct {
	Namespace string   `star:"namespace" doc:"only what is in it; all if not given"`
	Files     []string `star:"files" doc:"objects as YAML text, taken as if they had been applied"`
	Revision  string   `star:"revision" doc:"revision whose configuration is looked at"`
	Cluster   bool     `star:"cluster" default:"true" doc:"look at the cluster too; False looks at the files alone"`
}

// analysis is the value of istioctl.analyze.
type analysis struct {
	OK       bool          `json:"ok"` // no finding of level Error
	Errors   []string      `json:"errors"`
	Warnings []string      `json:"warnings"`
	Messages []lib.Message `json:"messages"`
}

func analyzeSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[analyzeArgs]{
		Name: "istioctl.analyze", Returns: "struct(ok, errors, warnings, messages)",
		Doc: `Look for mistakes in the mesh's configuration, with all analyzers of istioctl analyze.
Findings are returned, not raised.`,
		Example: `istioctl.analyze(namespace = "shop").errors`,
		Do: func(c *builtin.Call, a *analyzeArgs) (any, error) {
			opts := lib.AnalyzeOptions{Namespace: a.Namespace, Revision: a.Revision, Files: files(a.Files)}
			if !a.Cluster {
				found, err := lib.Analyze(c.Ctx, nil, opts)
				if err != nil {
					return nil, err
				}
				return sorted(found), nil
			}
			cr, err := configReader(c.Reader)
			if err != nil {
				return nil, err
			}
			found, err := lib.Analyze(c.Ctx, cr.ReadOnlyConfig(), opts)
			if err != nil {
				return nil, err
			}
			return sorted(found), nil
		},
	})
}

// Mistakes are the errors and warnings that the analyzers of istioctl find in
// the mesh behind r, a line each. It only reads, and ends with ctx.
func Mistakes(ctx context.Context, r cluster.Reader) ([]string, error) {
	cr, err := configReader(r)
	if err != nil {
		return nil, err
	}
	found, err := lib.Analyze(ctx, cr.ReadOnlyConfig(), lib.AnalyzeOptions{})
	if err != nil {
		return nil, err
	}
	a := sorted(found)
	var out []string
	for _, l := range []struct {
		level string
		lines []string
	}{{"error", a.Errors}, {"warning", a.Warnings}} {
		for _, line := range l.lines {
			out = append(out, l.level+": "+line)
		}
	}
	return out, nil
}

// sorted parts findings by their level; their order stays.
func sorted(found []lib.Message) *analysis {
	a := &analysis{Errors: []string{}, Warnings: []string{}, Messages: []lib.Message{}}
	for _, m := range found {
		a.Messages = append(a.Messages, m)
		switch m.Level {
		case lib.LevelError:
			a.Errors = append(a.Errors, sentence(m))
		case lib.LevelWarning:
			a.Warnings = append(a.Warnings, sentence(m))
		}
	}
	a.OK = len(a.Errors) == 0
	return a
}

// sentence is a message without its level, which its list tells.
func sentence(m lib.Message) string {
	s := m.Text + " [" + m.Code + "]"
	if m.Resource != "" {
		s = m.Resource + ": " + s
	}
	return s
}
