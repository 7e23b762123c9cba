package cli

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/sim/mesh/istiod"
	"rutter.dev/rutter/runtime/sim/streams"
)

type serveFlags struct {
	listen     string
	kubeconfig string
	speed      float64
	webhooks   []string
}

func (a *app) simCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Work with simulated clusters",
		Args:  exactly(0, 0, "a command: serve or clock"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.simServeCmd(), a.simClockCmd())
	return cmd
}

func (a *app) simServeCmd() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve [SPEC]",
		Short: "Serve a simulated cluster on loopback, for kubectl and other clients",
		Long: `Serves a simulated cluster over HTTP on this machine until it is interrupted.
SPEC is what run --sim takes: mesh[,istio=1.30.3,workloads=60,…] (the default),
or a file or folder of YAML objects. Its clock goes with the machine's: "rutter
sim clock" moves it on, and makes it go faster or stand still.

Webhooks that are registered in it are not called: istiod's own are answered by
the simulation, and others let everything pass as long as their Service has a ready
pod. --webhooks says which are called, over HTTPS and on this machine alone:
"loopback" for those whose URL is on it, HOST=ADDR for those at a host
(NAME.NAMESPACE.svc, port 443 unless it is said) that listen on ADDR.

The kubeconfig is printed, or written to a file with --kubeconfig-out. There is
no authentication, so that only loopback addresses are taken.`,
		Example: `  rutter sim serve --kubeconfig-out /tmp/sim.yaml &
  kubectl --kubeconfig /tmp/sim.yaml get pods -A
  rutter sim serve --webhooks kyverno-svc.kyverno.svc=127.0.0.1:9443 --kubeconfig-out /tmp/sim.yaml`,
		Args: exactly(0, 1, "one simulated cluster, or none for a mesh"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simServe(cmd.Context(), f, a.simSpec(args))
		},
	}
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:0", "loopback address to listen on; port 0 takes a free one")
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig-out", "", "write the kubeconfig to this file instead of stdout")
	cmd.Flags().StringSliceVar(&f.webhooks, "webhooks", nil, "webhooks that are called: loopback, or HOST[:PORT]=ADDR (default none)")
	cmd.Flags().Float64Var(&f.speed, "speed", 1, "simulated seconds per second")
	return cmd
}

// simSpec is the argument, a mesh without one. A file is looked for from the
// working folder of this command line.
func (a *app) simSpec(args []string) string {
	if len(args) == 0 {
		return "mesh"
	}
	spec := args[0]
	if spec == "mesh" || strings.HasPrefix(spec, "mesh,") || filepath.IsAbs(spec) {
		return spec
	}
	return filepath.Join(a.env.Workdir, spec)
}

func (a *app) simServe(ctx context.Context, f *serveFlags, spec string) error {
	if f.speed <= 0 {
		return diag.Usagef("--speed", "got %g, want more than 0", f.speed)
	}
	called, err := calledWebhooks(f.webhooks)
	if err != nil {
		return err
	}
	l, err := loopback(ctx, f.listen)
	if err != nil {
		return err
	}
	istiods := mesh.NewIstiods()
	c, note, err := a.simulate(ctx, spec, "", a.renderer(), istiods, func(o *sim.Options) { o.WebhookAddress = called })
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { _ = c.Close() }() // in memory: nothing can be lost
	pods, err := istiod.New(c, istiods)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { _ = pods.Close() }() // all that can fail is that it ended before
	c.OnConnect(mesh.NewAnswers(istiods, streams.New(pods)))
	if err := a.announce(c, l.Addr().String(), note, f.kubeconfig); err != nil {
		return errors.Join(err, l.Close())
	}
	return c.Serve(ctx, l, sim.ServeOptions{Speed: f.speed})
}

// calledWebhooks reads --webhooks; nil where none are called.
func calledWebhooks(flags []string) (func(host string) (addr string, ok bool), error) {
	at, local := map[string]string{}, false
	for _, f := range flags {
		host, addr, ok := strings.Cut(f, "=")
		switch {
		case f == "loopback":
			local = true
			continue
		case !ok || host == "":
			return nil, diag.Usagef("--webhooks "+f, "expected loopback, or HOST[:PORT]=ADDR")
		}
		ip, _, err := net.SplitHostPort(addr)
		if err != nil || ip != "localhost" && !net.ParseIP(ip).IsLoopback() {
			return nil, diag.Usagef("--webhooks "+f, "%s is no address with a port on loopback", addr)
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(host, "443")
		}
		at[host] = addr
	}
	if len(flags) == 0 {
		return nil, nil
	}
	return func(host string) (string, bool) {
		if addr, ok := at[host]; ok || !local {
			return addr, ok
		}
		return sim.LoopbackWebhooks(host)
	}, nil
}

// announce says where the cluster is. The listener takes connections already:
// whoever reads the kubeconfig can use it at once.
func (a *app) announce(c *sim.Cluster, addr, note, path string) error {
	config := c.Kubeconfig(addr)
	if path == "" {
		if _, err := a.env.Stdout.Write(config); err != nil {
			return err
		}
	} else {
		if !filepath.IsAbs(path) {
			path = filepath.Join(a.env.Workdir, path)
		}
		if err := env.ReplaceFile(path, config, 0o600); err != nil {
			return &diag.Error{Code: diag.Usage, Subject: "--kubeconfig-out " + path, Problem: "cannot be written", Err: err, Changed: "nothing"}
		}
	}
	if note != "" {
		if err := a.talk("simulated cluster from %s", note); err != nil {
			return err
		}
	}
	return a.talk("serving on http://%s until interrupted", addr)
}

// loopback listens on an address of this machine only: a simulated cluster lets
// anybody do anything.
func loopback(ctx context.Context, addr string) (net.Listener, error) {
	usage := func(problem string, err error) error {
		return &diag.Error{Code: diag.Usage, Subject: "--listen " + addr, Problem: problem, Err: err, Expect: "a loopback address such as 127.0.0.1:0", Changed: "nothing"}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usage("is no address", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage("is not on loopback, and a simulated cluster has no authentication", nil)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, usage("cannot be listened on", err)
	}
	// localhost may be mapped to anything.
	if t, ok := l.Addr().(*net.TCPAddr); !ok || !t.IP.IsLoopback() {
		return nil, errors.Join(usage("is not on loopback", nil), l.Close())
	}
	return l, nil
}
