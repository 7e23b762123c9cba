package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
)

// connectTimeout bounds the first request, by which Connect learns that the
// cluster is there.
const connectTimeout = 10 * time.Second

// Options say which cluster to connect to, as kubectl's flags do.
type Options struct {
	ClientOptions
	Kubeconfig string              // --kubeconfig; "" means KUBECONFIG, then ~/.kube/config, then in-cluster
	Context    string              // --context; "" means the current one
	Namespace  string              // --namespace; "" means the context's
	As         string              // --as
	AsGroups   []string            // --as-group
	Getenv     func(string) string // KUBECONFIG, HOME, KUBERNETES_SERVICE_HOST
	Clock      env.Clock
	// ExecPlugins are programs that the kubeconfig may run for credentials,
	// beside KnownPlugins; AnyPlugin for all.
	ExecPlugins []string
}

// Errors of Connect beside ErrUnreachable, ErrDenied and ErrPlugin.
var (
	ErrNoConfig  = errors.New("no kubeconfig")
	ErrNoContext = errors.New("no such context")
)

// inCluster is the context's name where there is no kubeconfig.
const inCluster = "in-cluster"

// Connect makes a client as kubectl would find its cluster, and asks the
// cluster for its version, so that a wrong address or expired credentials show
// now: ErrNoConfig, ErrNoContext, ErrUnreachable, ErrDenied.
func Connect(ctx context.Context, o Options) (*Client, error) {
	rc, name, ns, err := load(o)
	if err != nil {
		return nil, err
	}
	if o.As != "" || len(o.AsGroups) > 0 {
		rc.Impersonate = rest.ImpersonationConfig{UserName: o.As, Groups: o.AsGroups}
	}
	co := o.ClientOptions
	co.Namespace = orElse(o.Namespace, ns)
	c, err := New(rc, name, o.Clock, co)
	if err != nil {
		return nil, err
	}
	pctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := c.Version(pctx); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = &RequestError{
				Subject: "server version", Kind: ErrUnreachable, cause: err,
				Message: fmt.Sprintf("%s: no answer within %s", rc.Host, connectTimeout),
			}
		}
		return nil, fmt.Errorf("context %s: %w", name, err)
	}
	return c, nil
}

// Config is the configuration by which Connect would reach the cluster, and the
// context's name, for a server that is no API server alone: ErrNoConfig,
// ErrNoContext. It sends nothing.
func Config(o Options) (*rest.Config, string, error) {
	rc, name, _, err := load(o)
	return rc, name, err
}

// Contexts lists the contexts of the kubeconfig, sorted, and the current one.
func Contexts(o Options) (names []string, current string, err error) {
	cfg, err := kubeconfig(o)
	if err != nil {
		return nil, "", err
	}
	return contextNames(cfg), cfg.CurrentContext, nil
}

func rules(o Options) *clientcmd.ClientConfigLoadingRules {
	r := &clientcmd.ClientConfigLoadingRules{ExplicitPath: o.Kubeconfig}
	if list := getenv(o, clientcmd.RecommendedConfigPathEnvVar); list != "" {
		r.Precedence = filepath.SplitList(list)
	} else if home := getenv(o, "HOME"); home != "" {
		r.Precedence = []string{filepath.Join(home, ".kube", "config")}
	}
	return r
}

func getenv(o Options, key string) string {
	if o.Getenv == nil {
		return ""
	}
	return o.Getenv(key)
}

func kubeconfig(o Options) (*clientcmdapi.Config, error) {
	r := rules(o)
	names := r.Precedence
	if o.Kubeconfig != "" {
		names = []string{o.Kubeconfig}
	}
	err := mustBeFiles(names...)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %w", err)
	}
	cfg, err := r.Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w: %w", strings.Join(names, ", "), ErrNoConfig, err)
	}
	return cfg, nil
}

// mustBeFiles refuses what client-go, which opens these by their names and more than
// once, would wait for.
func mustBeFiles(names ...string) error {
	for _, n := range names {
		var pe *fs.PathError
		if err := env.MustBeFile(n); errors.As(err, &pe) {
			return fmt.Errorf("%s: %w; it is read more than once, by a resume too: write it to a file", pe.Path, pe.Err)
		}
	}
	return nil
}

// filesOf are the files that a context names.
func filesOf(cfg *clientcmdapi.Config, context string) []string {
	var names []string
	if c := cfg.Clusters[cfg.Contexts[context].Cluster]; c != nil {
		names = append(names, c.CertificateAuthority)
	}
	if u := cfg.AuthInfos[cfg.Contexts[context].AuthInfo]; u != nil {
		names = append(names, u.ClientCertificate, u.ClientKey, u.TokenFile)
	}
	return names
}

// load finds the configuration, the context's name and its namespace.
func load(o Options) (*rest.Config, string, string, error) {
	cfg, err := kubeconfig(o)
	if err != nil {
		return nil, "", "", err
	}
	if len(cfg.Contexts) == 0 && len(cfg.Clusters) == 0 {
		return loadInCluster(o)
	}
	name := orElse(o.Context, cfg.CurrentContext)
	if name == "" {
		return nil, "", "", fmt.Errorf("kubeconfig: %w: no context is current: choose one with --context (%s)",
			ErrNoContext, strings.Join(contextNames(cfg), ", "))
	}
	if _, ok := cfg.Contexts[name]; !ok {
		return nil, "", "", unknownContext(name, contextNames(cfg))
	}
	if err := mustBeFiles(filesOf(cfg, name)...); err != nil {
		return nil, "", "", fmt.Errorf("context %s: %w", name, err)
	}
	cc := clientcmd.NewNonInteractiveClientConfig(*cfg, name, &clientcmd.ConfigOverrides{}, rules(o))
	rc, err := cc.ClientConfig()
	if err != nil {
		return nil, "", "", fmt.Errorf("context %s: %w", name, err)
	}
	if err := allowPlugin(rc, append(strings.Split(getenv(o, execPluginsVar), ","), o.ExecPlugins...)); err != nil {
		return nil, "", "", fmt.Errorf("context %s: %w", name, err)
	}
	ns, _, err := cc.Namespace()
	if err != nil {
		return nil, "", "", fmt.Errorf("context %s: %w", name, err)
	}
	return rc, name, ns, nil
}

func loadInCluster(o Options) (*rest.Config, string, string, error) {
	where := strings.Join(rules(o).Precedence, ", ")
	if getenv(o, "KUBERNETES_SERVICE_HOST") == "" || o.Context != "" && o.Context != inCluster {
		return nil, "", "", fmt.Errorf("%w: nothing in %s: give --kubeconfig FILE or set KUBECONFIG, or use --sim for a simulated cluster",
			ErrNoConfig, orElse(where, "the default places"))
	}
	rc, err := rest.InClusterConfig()
	if err != nil {
		return nil, "", "", fmt.Errorf("%s: %w", inCluster, err)
	}
	return rc, inCluster, "", nil
}

func contextNames(cfg *clientcmdapi.Config) []string {
	names := make([]string, 0, len(cfg.Contexts))
	for n := range cfg.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func unknownContext(name string, known []string) error {
	msg := fmt.Sprintf("known are %s", strings.Join(known, ", "))
	if best := diag.Nearest(name, known); best != "" {
		msg = fmt.Sprintf("did you mean %q? (%s)", best, msg)
	}
	return fmt.Errorf("context %q: %w: %s", name, ErrNoContext, msg)
}
