package lib

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/client-go/rest"

	"istio.io/istio/istioctl/pkg/cli"
	"istio.io/istio/istioctl/pkg/precheck"
	"istio.io/istio/pkg/kube"

	"rutter.dev/rutter/runtime/cluster"
)

// IstioNamespace is where a mesh's control plane lives unless told otherwise.
const IstioNamespace = "istio-system"

// PrecheckOptions narrow a precheck.
type PrecheckOptions struct {
	// Namespace limits what workloads are looked at; empty means all.
	Namespace string
	// IstioNamespace is the control plane's; empty means istio-system.
	IstioNamespace string
	// Revision of the control plane; empty means default.
	Revision string
	// From is the minor version ("1.21") that is upgraded from. The library
	// looks at it for 1.21 and older only.
	From string
	// Reader, if there is one, lists what is looked at for its annotations only:
	// pods of a large mesh are not held whole, and a twin's not written out.
	Reader cluster.Reader
	// Pods, beside a Reader, are all pods of the cluster, for who has just listed
	// them; nil lists them.
	Pods *Pods
	// Timeout is how long nothing may be heard of the cluster; zero means DefaultTimeout.
	Timeout time.Duration
}

// Precheck runs the library's "istioctl x precheck": Kubernetes version,
// permissions, Gateway API versions, alpha annotations. Findings are returned,
// not errors; an error means that the precheck could not be completed.
//
// It reads, and asks for its own permissions (SelfSubjectAccessReview). A few
// idle goroutines of the library stay behind for each call, because its command
// never ends them; what they cached does not.
func Precheck(ctx context.Context, rc *rest.Config, opts PrecheckOptions) ([]Message, error) {
	if opts.IstioNamespace == "" {
		opts.IstioNamespace = IstioNamespace
	}
	s, err := newSession(ctx, rc, opts.Revision, opts.Timeout)
	if err != nil {
		return nil, fmt.Errorf("precheck: %w", err)
	}
	defer s.close()
	if opts.Reader != nil {
		s.readLean(opts.Reader, opts.Pods)
	}
	out, err := runPrecheck(s, opts)
	if stopped := s.err(); stopped != nil {
		return nil, fmt.Errorf("precheck: %w", stopped)
	}
	if len(bytes.TrimSpace(out)) > 0 {
		// With findings the command prints them and fails; that is no failure here.
		msgs, derr := decodeMessages(out)
		if derr != nil {
			return nil, fmt.Errorf("precheck: %w", derr)
		}
		return msgs, nil
	}
	if err != nil {
		return nil, fmt.Errorf("precheck: %w", err)
	}
	return nil, nil
}

func runPrecheck(s *session, opts PrecheckOptions) (out []byte, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil, endedEarly: // the session knows why
		default:
			err = fmt.Errorf("istio library: %v", p)
		}
	}()
	var stdout bytes.Buffer
	cmd := precheck.Cmd(&cliContext{session: s, opts: opts})
	args := []string{"--output", "json", "--output-threshold", LevelInfo}
	if opts.From != "" {
		args = append(args, "--from-version", opts.From)
	}
	if opts.Revision != "" {
		args = append(args, "--revision", opts.Revision)
	}
	cmd.SetArgs(args)
	cmd.SetOut(&stdout)
	cmd.SetErr(io.Discard)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err = cmd.ExecuteContext(s.ctx)
	return stdout.Bytes(), err
}

// cliContext is what the precheck command gets instead of istioctl's own
// context, which would read kubeconfig files. What it doesn't override is nil
// and not called.
type cliContext struct {
	cli.Context
	session *session
	opts    PrecheckOptions
}

func (c *cliContext) CLIClient() (kube.CLIClient, error) { return c.session, nil }

func (c *cliContext) CLIClientWithRevision(string) (kube.CLIClient, error) { return c.session, nil }

func (c *cliContext) RevisionOrDefault(rev string) string {
	if rev == "" {
		return "default"
	}
	return rev
}

func (c *cliContext) Namespace() string                   { return c.opts.Namespace }
func (c *cliContext) IstioNamespace() string              { return c.opts.IstioNamespace }
func (c *cliContext) NamespaceOrDefault(ns string) string { return ns }
