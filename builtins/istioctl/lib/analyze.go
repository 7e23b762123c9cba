package lib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"istio.io/istio/pkg/config/analysis/diag"
	"istio.io/istio/pkg/config/analysis/local"
	"istio.io/istio/pkg/config/resource"
	"istio.io/istio/pkg/kube"
)

// AnalyzeOptions narrow an analysis.
type AnalyzeOptions struct {
	// Namespace limits the findings; empty means all namespaces.
	Namespace string
	// IstioNamespace is the control plane's; empty means istio-system.
	IstioNamespace string
	// Revision whose configuration is looked at; empty means default.
	Revision string
	// Files are Kubernetes objects (YAML) that are taken as if they had been
	// applied over what the cluster has.
	Files []File
	// Timeout is how long nothing may be heard of the cluster; zero means DefaultTimeout.
	Timeout time.Duration
}

// Analyze runs all of the library's analyzers ("istioctl analyze") on the
// cluster behind rc and the files; with a nil rc on the files alone. Findings
// of every level are returned, not errors; an error means that a file could
// not be read, the namespace does not exist, or the cluster did not answer.
// It only reads.
func Analyze(ctx context.Context, rc *rest.Config, opts AnalyzeOptions) ([]Message, error) {
	if opts.IstioNamespace == "" {
		opts.IstioNamespace = IstioNamespace
	}
	if opts.Revision == "" {
		opts.Revision = "default"
	}
	if rc == nil && len(opts.Files) == 0 {
		return nil, errors.New("analyze: neither a cluster nor files to look at")
	}
	msgs, err := analyze(ctx, rc, opts)
	if err != nil {
		return nil, fmt.Errorf("analyze: %w", err)
	}
	return msgs, nil
}

func analyze(ctx context.Context, rc *rest.Config, opts AnalyzeOptions) (msgs []Message, err error) {
	defer func() {
		if p := recover(); p != nil { // on odd files
			err = fmt.Errorf("istio library: %v", p)
		}
	}()
	sa := local.NewIstiodAnalyzer(allAnalyzers(),
		resource.Namespace(opts.Namespace), resource.Namespace(opts.IstioNamespace), nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the library's goroutines
	stopped := ctx.Err
	done := ctx.Done()
	if rc != nil {
		s, err := newSession(ctx, rc, opts.Revision, opts.Timeout)
		if err != nil {
			return nil, err
		}
		defer s.close()
		if err := namespaceExists(s, opts.Namespace); err != nil {
			return nil, err
		}
		kube.EnableCrdWatcher(s.CLIClient)
		sa.AddRunningKubeSourceWithRevision(s, opts.Revision, false)
		stopped, done = s.err, s.ctx.Done()
	} else if err := sa.AddDefaultResources(); err != nil {
		return nil, err
	}
	readers, err := readerSources(opts.Files)
	if err != nil {
		return nil, err
	}
	if len(readers) > 0 {
		if err := sa.AddReaderKubeSource(readers); err != nil {
			return nil, fmt.Errorf("files: %w", err)
		}
	}
	result, err := runAnalyzers(sa, done)
	if stop := stopped(); stop != nil {
		return nil, stop // what was analyzed is only part of the cluster
	}
	if err != nil {
		return nil, err
	}
	return fromDiag(result.Messages.FilterOutLowerThan(diag.Info))
}

func runAnalyzers(sa *local.IstiodAnalyzer, done <-chan struct{}) (res local.AnalysisResult, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil, endedEarly: // the session knows why
		default:
			err = fmt.Errorf("istio library: %v", p)
		}
	}()
	return sa.Analyze(done)
}

func namespaceExists(s *session, name string) error {
	if name == "" {
		return nil
	}
	_, err := s.Kube().CoreV1().Namespaces().Get(s.ctx, name, metav1.GetOptions{})
	if kerrors.IsNotFound(err) {
		return fmt.Errorf("namespace %s: not found", name)
	}
	return err
}

func readerSources(files []File) ([]local.ReaderSource, error) {
	var out []local.ReaderSource
	for _, f := range files {
		if f.Content == nil {
			b, err := os.ReadFile(f.Name)
			if err != nil {
				return nil, fmt.Errorf("file %w", err)
			}
			f.Content = b
		}
		out = append(out, local.ReaderSource{Name: f.Name, Reader: bytes.NewReader(f.Content)})
	}
	return out, nil
}
