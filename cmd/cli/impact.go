package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/impact"
)

type impactFlags struct {
	target   target
	output   string
	offline  string
	detailed bool
}

// asked makes the changes that a command line asks about.
type asked func(ctx context.Context, c *cluster.Client) ([]impact.Change, error)

func (a *app) impactCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "impact",
		Short: "Show which pods and gateways one change makes anew: now, later or never",
		Long: `Makes a change on a twin of the cluster, as rutter plan does, lets the twin live on,
and tells which workloads roll at once, which get another sidecar at their next
restart, and which stay as they are, each with its pods and the reason. Of a
CustomResourceDefinition it tells what becomes of the stored objects.

Injection is asked of the injector before and after the change, with the cluster's own
configuration, so that a change of its templates shows although no version differs.
Nothing in the cluster is changed. Exit codes: 0 (4 with --detailed-exitcode where
anything is made anew), 3 the API server refuses the change, 2 usage, or the cluster
stopped answering.`,
		Example: `  rutter impact tag prod --to 1-31-0 --context prod
  rutter impact label namespace/payments istio.io/rev=1-31-0 istio-injection-
  rutter impact apply injector.yaml --offline prod.snapshot -o markdown`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.impactTagCmd(), a.impactLabelCmd(), a.impactApplyCmd(), a.impactReplaceCmd(), a.impactDeleteCmd())
	return cmd
}

func (f *impactFlags) flags(cmd *cobra.Command) {
	f.target.flags(cmd, true)
	fs := cmd.Flags()
	_ = fs.MarkHidden("policy") // nothing is run: there is nothing to hold to it
	fs.StringVarP(&f.output, "output", "o", "", "json or markdown (default text)")
	fs.StringVar(&f.offline, "offline", "", "look at a snapshot (rutter snapshot) instead of a cluster")
	fs.BoolVar(&f.detailed, "detailed-exitcode", false, "exit with 4 where anything is made anew, now or later")
	cmd.MarkFlagsMutuallyExclusive("offline", "sim")
	cmd.MarkFlagsMutuallyExclusive("offline", "context")
}

func (a *app) impactTagCmd() *cobra.Command {
	f, to := &impactFlags{}, ""
	cmd := &cobra.Command{
		Use:   "tag TAG --to REVISION",
		Short: "A revision tag is made, or moved to another revision",
		Long: `The objects are those of istioctl tag set, and of istioctl.set_tag in a runbook.
Gateways of the Gateway API that follow the tag roll at once.`,
		Example: `  rutter impact tag prod --to 1-31-0 --context prod`,
		Args:    exactly(1, 1, "a revision tag"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return diag.Usagef(cmd.CommandPath(), "--to says which revision the tag is to point at")
			}
			return a.impact(cmd.Context(), f, func(ctx context.Context, c *cluster.Client) ([]impact.Change, error) {
				effects, err := istioctl.MoveTag(ctx, c, args[0], to)
				if err != nil {
					return nil, err
				}
				var out []impact.Change
				for _, e := range effects {
					ch, err := impact.Effect(e)
					if err != nil {
						return nil, err
					}
					out = append(out, ch)
				}
				return out, nil
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&to, "to", "", "revision; \"default\" for the install without one")
	return cmd
}

func (a *app) impactLabelCmd() *cobra.Command {
	f := &impactFlags{}
	cmd := &cobra.Command{
		Use:     "label KIND/NAME LABEL=VALUE… LABEL-…",
		Short:   "Labels of an object are set or taken away, as by kubectl label --overwrite",
		Example: `  rutter impact label namespace/payments istio.io/rev=1-31-0 istio-injection-`,
		Args:    exactly(2, -1, "an object and its labels: KIND/NAME LABEL=VALUE, or LABEL- to take one away"),
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := labelled(args[1:])
			if err != nil {
				return err
			}
			return a.impact(cmd.Context(), f, func(ctx context.Context, c *cluster.Client) ([]impact.Change, error) {
				ref, err := named(ctx, c, args[0], f.target.Namespace)
				if err != nil {
					return nil, err
				}
				ch, err := impact.Label(ref, labels)
				return []impact.Change{ch}, err
			})
		},
	}
	f.flags(cmd)
	return cmd
}

func (a *app) impactApplyCmd() *cobra.Command {
	return a.impactFilesCmd(impact.Apply, &cobra.Command{
		Use:   "apply FILE…",
		Short: "Objects are applied: what the files say is set, anything else stays",
		Long: `As kubectl apply --server-side --force-conflicts. A file that kubectl get -o yaml
wrote and somebody took something out of is for rutter impact replace.`,
		Example: `  rutter impact apply injector.yaml --context prod`,
	})
}

func (a *app) impactReplaceCmd() *cobra.Command {
	return a.impactFilesCmd(impact.Replace, &cobra.Command{
		Use:     "replace FILE…",
		Short:   "Objects are replaced: what the files don't say goes",
		Long:    "As kubectl replace, or kubectl edit, whichever version of the objects is there.",
		Example: `  kubectl get mutatingwebhookconfiguration istio-sidecar-injector -o yaml > hook.yaml; vi hook.yaml; rutter impact replace hook.yaml`,
	})
}

func (a *app) impactFilesCmd(change func(*cluster.Object) impact.Change, cmd *cobra.Command) *cobra.Command {
	f := &impactFlags{}
	cmd.Args = exactly(1, -1, "files or folders of YAML objects")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var objs []*cluster.Object
		for _, path := range args {
			more, err := readObjects(path)
			if err == nil && len(more) == 0 {
				err = errors.New("has no object")
			}
			if err != nil {
				return &diag.Error{Code: diag.Usage, Subject: path, Problem: "can't be read", Err: err, Changed: "nothing"}
			}
			objs = append(objs, more...)
		}
		return a.impact(cmd.Context(), f, func(ctx context.Context, c *cluster.Client) ([]impact.Change, error) {
			var out []impact.Change
			for _, o := range objs {
				res, err := c.ResourceFor(ctx, o.GroupVersionKind())
				if err != nil {
					return nil, &diag.Error{Code: diag.Usage, Subject: cluster.RefOf(o).String(), Err: err, Changed: "nothing"}
				}
				if res.Namespaced && o.GetNamespace() == "" {
					o.SetNamespace(orDefaultNamespace(f.target.Namespace))
				}
				out = append(out, change(o))
			}
			return out, nil
		})
	}
	f.flags(cmd)
	return cmd
}

func (a *app) impactDeleteCmd() *cobra.Command {
	f := &impactFlags{}
	cmd := &cobra.Command{
		Use:     "delete KIND/NAME…",
		Short:   "Objects are deleted, and what belongs to them",
		Example: `  rutter impact delete mutatingwebhookconfiguration/istio-revision-tag-prod`,
		Args:    exactly(1, -1, "objects: KIND/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.impact(cmd.Context(), f, func(ctx context.Context, c *cluster.Client) ([]impact.Change, error) {
				var out []impact.Change
				for _, name := range args {
					ref, err := named(ctx, c, name, f.target.Namespace)
					if err != nil {
						return nil, err
					}
					out = append(out, impact.Delete(ref))
				}
				return out, nil
			})
		},
	}
	f.flags(cmd)
	return cmd
}

func (a *app) impact(ctx context.Context, f *impactFlags, changes asked) error {
	write, err := impactView(f.output)
	if err != nil {
		return err
	}
	a.collectLate()
	t, err := a.twin(ctx, &f.target, f.offline, a.renderer())
	if err != nil {
		return err
	}
	r, err := impact.Of(ctx, impact.Request{Twin: t, Version: version, Changes: changes})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.env.Stdout)
	if err := errors.Join(write(r, out), out.Flush()); err != nil {
		return err
	}
	if f.detailed && r.Any() {
		return exitError(diag.Changes)
	}
	return nil
}

func impactView(output string) (func(*impact.Report, io.Writer) error, error) {
	switch output {
	case "":
		return (*impact.Report).Text, nil
	case "markdown":
		return (*impact.Report).Markdown, nil
	case "json":
		return jsonView[impact.Report], nil
	}
	return nil, unknownFormat(output, "json or markdown")
}

// labelled reads labels as kubectl label takes them; nil for one that goes.
func labelled(args []string) (map[string]any, error) {
	out := map[string]any{}
	for _, arg := range args {
		name, value, sets := strings.Cut(arg, "=")
		gone := strings.TrimSuffix(name, "-")
		switch {
		case sets && name != "":
			out[name] = value
		case !sets && gone != name && gone != "":
			name = gone
			out[name] = nil
		default:
			return nil, diag.Usagef(arg, "is no label; expected LABEL=VALUE, or LABEL- to take one away")
		}
	}
	if len(out) != len(args) {
		return nil, diag.Usagef(strings.Join(args, " "), "name a label twice")
	}
	return out, nil
}

// named is the object that a command line names.
func named(ctx context.Context, c *cluster.Client, name, namespace string) (cluster.Ref, error) {
	kind, object, err := cluster.ParseRef(name)
	if err == nil && object == "" {
		err = fmt.Errorf("%q: no object is named: write it as in \"namespace/shop\"", name)
	}
	if err != nil {
		return cluster.Ref{}, &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing"}
	}
	res, err := c.Resolve(ctx, kind)
	if err != nil {
		return cluster.Ref{}, &diag.Error{Code: diag.Usage, Subject: name, Err: err, Changed: "nothing"}
	}
	return res.ResourceRef(orDefaultNamespace(namespace), object), nil
}

func orDefaultNamespace(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}
