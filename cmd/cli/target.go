package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/policy"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

type flagT = pflag.Flag

// target is which cluster a command works on. It is kept in the journal, so
// that a resume reaches the same one.
type target struct {
	Kubeconfig string   `json:"kubeconfig,omitempty"`
	Context    string   `json:"context,omitempty"`
	Namespace  string   `json:"namespace,omitempty"`
	As         string   `json:"as,omitempty"`
	AsGroups   []string `json:"asGroups,omitempty"`
	Sim        string   `json:"sim,omitempty"`
	Policy     string   `json:"policy,omitempty"`
	Knowledge  string   `json:"knowledge,omitempty"`
	// Runbook and Root are where the runbook was read: a resume looks whether it
	// has changed since.
	Runbook string `json:"runbook,omitempty"`
	Root    string `json:"root,omitempty"`
}

func (t *target) flags(cmd *cobra.Command, withSim bool) {
	f := cmd.Flags()
	f.StringVar(&t.Kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&t.Context, "context", "", "kubeconfig context (default the current one)")
	f.StringVarP(&t.Namespace, "namespace", "n", "", "default namespace")
	f.StringVar(&t.As, "as", "", "user to impersonate")
	f.StringArrayVar(&t.AsGroups, "as-group", nil, "group to impersonate (repeatable)")
	f.StringVar(&t.Policy, "policy", "", policyUsage)
	if withSim {
		f.StringVar(&t.Sim, "sim", "", "a simulated cluster instead: mesh[,istio=1.30.3,workloads=60,seed=1,…], or a file or folder of YAML objects")
	}
}

// reached is a cluster that was found, with the clock that it lives on.
type reached struct {
	client *cluster.Client
	env    *env.Env
	sim    *sim.Cluster
	note   string // where a simulated mesh comes from
}

// close lets a simulated cluster's file go.
func (r *reached) close() error {
	if r.sim == nil {
		return nil
	}
	return r.sim.Close()
}

// simName is the file of a run's folder in which its simulated cluster is.
const simName = "sim"

// reach connects to the target. dir is where a simulated cluster keeps itself.
func (a *app) reach(ctx context.Context, t *target, dir string, renderer *lib.Renderer) (*reached, error) {
	opts := cluster.ClientOptions{Version: version, Namespace: t.Namespace}
	if t.Sim == "" {
		c, err := cluster.Connect(ctx, cluster.Options{
			ClientOptions: opts, Kubeconfig: t.Kubeconfig, Context: t.Context, Namespace: t.Namespace,
			As: t.As, AsGroups: t.AsGroups, Getenv: a.env.Getenv, Clock: a.env.Clock,
		})
		if err != nil {
			return nil, &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing", Next: "kubectl config get-contexts"}
		}
		return &reached{client: c, env: a.env}, nil
	}
	s, note, err := a.simulate(ctx, t.Sim, filepath.Join(dir, simName), renderer, mesh.NewIstiods())
	if err != nil {
		return nil, err
	}
	e := *a.env
	e.Clock = lock.NewClock(s.Clock()) // on which the lock is renewed
	c, err := cluster.New(s.Config(), "sim", e.Clock, opts)
	if err != nil {
		return nil, err
	}
	return &reached{client: c, env: &e, sim: s, note: note}, nil
}

func (t *target) invocation() (json.RawMessage, error) { return json.Marshal(t) }

// sealer is the key with which this machine encrypts Secrets in journals and
// backups, to the policy's recipients too.
func (a *app) sealer(p *policy.Policy) (*seal.Sealer, error) {
	root, err := a.stateRoot()
	if err != nil {
		return nil, err
	}
	s, err := seal.Open(filepath.Dir(root))
	if err != nil || p == nil || len(p.Recipients) == 0 {
		return s, err
	}
	return s.To(p.Recipients...)
}

// bound are the flags by which a runbook gets its parameters, and says from where
// it may load.
type bound struct {
	given given
	root  string
}

func (b *bound) flags(cmd *cobra.Command) {
	b.given.flags(cmd, "")
	cmd.Flags().StringVar(&b.root, "root", "", "folder that the runbook may load from (default the nearest one above it with rutter.yaml or .git)")
}

// answers are the flags by which an operator answers beforehand.
type answers struct {
	yes   bool
	names []string
}

func (w *answers) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.yes, "yes", false, "answer approve() with yes; a gate that asks is not answered by it")
	cmd.Flags().StringArrayVar(&w.names, "approve", nil, "answer approve() in the name of this person (repeatable, where the policy wants several)")
}

func (a *app) approver(w *answers) *approver {
	return &approver{yes: w.yes, names: w.names, tty: a.env.IsTerminal(a.env.Stdin) && a.env.IsTerminal(a.env.Stderr), in: bufio.NewReader(a.env.Stdin), out: a.env.Stderr}
}

// shortDiff is how many lines of one object's diff a run shows that nobody has
// to approve from them.
const shortDiff = 12

// watching are the flags of what a run shows.
type watching struct {
	output   string
	fullDiff bool
}

func (w *watching) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&w.output, "output", "o", "", "json: the event stream on stdout; plain: lines without a live view")
	cmd.Flags().BoolVar(&w.fullDiff, "full-diff", false, "show diffs whole even when approval was given on the command line")
}

// sink is the view that -o asks for. Whoever is asked to approve sees diffs whole.
func (a *app) sink(w *watching, given *answers) (view.Sink, error) {
	look := a.look(a.env.Stderr)
	if !w.fullDiff && (given.yes || len(given.names) > 0) {
		look.DiffLines = shortDiff
	}
	switch output := w.output; output {
	case "":
		return view.New(a.env.Stderr, look), nil
	case "plain":
		return view.NewPlain(a.env.Stderr, look), nil
	case "json":
		return view.NewJSON(a.env.Stdout), nil
	}
	return nil, unknownFormat(w.output, "json or plain")
}

// talk writes a line for the person, not data.
func (a *app) talk(format string, args ...any) error {
	_, err := fmt.Fprintf(a.env.Stderr, format+"\n", args...)
	return err
}
