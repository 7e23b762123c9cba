package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/review"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/twin"
)

// reviewMesh is the mesh that runbooks are compared on where no other is named:
// it has workloads of every kind that a run treats in its own way.
const reviewMesh = "mesh,workloads=12,namespaces=4,on-delete=1,bare-pods=1"

type reviewFlags struct {
	target target
	meshes []string
	given  given
	output string
}

func (a *app) reviewCmd() *cobra.Command {
	f := &reviewFlags{}
	cmd := &cobra.Command{
		Use:   "review OLD NEW",
		Short: "Compare what two versions of a runbook do, not how they are written",
		Long: `Rehearses both on the same simulated meshes, once where all goes well, once where
the API server refuses the control plane, and once where the pods of one namespace
never come, and tells what differs: effects, their order and fields, gates, questions,
restarts, and what the runbook may do now and could not before.

OLD and NEW are files, folders, or either at a git revision, REV:PATH; of folders,
every runbook that both have is compared. Exit codes: 0 both do the same, 4 the
behaviour changed.`,
		Example: `  rutter review main:runbooks/upgrade.star runbooks/upgrade.star --set to=1.31.0
  rutter review main:runbooks runbooks --set to=1.31.0 -o markdown
  rutter review istio/in-place my-in-place.star --set to=1.31.0 --sim mesh,ambient=3`,
		Args: exactly(2, 2, "two versions of a runbook"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.review(cmd.Context(), f, args[0], args[1]) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.meshes, "sim", []string{reviewMesh}, "a simulated cluster to compare on: mesh[,istio=1.30.3,workloads=60,…], or a file or folder of YAML objects (repeatable)")
	f.given.flags(cmd, "; one that a version does not have is left out for it")
	fs.StringVarP(&f.output, "output", "o", "", "json or markdown (default text)")
	fs.StringVar(&f.target.Policy, "policy", "", policyUsage)
	f.target.knowledgeFlag(cmd)
	return cmd
}

func (a *app) review(ctx context.Context, f *reviewFlags, older, newer string) error {
	write, err := reviewView(f.output)
	if err != nil {
		return err
	}
	r := &reviewer{app: a, f: f, renderer: a.renderer(), had: map[string]bool{}}
	if r.host, err = a.assemble(r.renderer); err != nil {
		return err
	}
	was, err := a.versionOf(ctx, r.host, older)
	if err != nil {
		return err
	}
	defer was.close()
	is, err := a.versionOf(ctx, r.host, newer)
	if err != nil {
		return err
	}
	defer is.close()
	if err := errors.Join(a.dependenciesHere(ctx, was, older), a.dependenciesHere(ctx, is, newer)); err != nil {
		return err
	}
	pairs, err := paired(was, is)
	if err != nil {
		return err
	}
	if r.known, err = f.target.known(ctx, a.env.Workdir); err != nil {
		return err
	}
	if r.given, err = a.given(ctx, &f.given); err != nil {
		return err
	}
	changed := false
	out := bufio.NewWriter(a.env.Stdout)
	for _, p := range pairs {
		rep, err := r.compare(ctx, p, older, newer)
		if err != nil {
			return err
		}
		if err := write(rep, out); err != nil {
			return err
		}
		changed = changed || rep.Changed()
	}
	if err := r.strange(); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if changed {
		return exitError(diag.Changes)
	}
	return nil
}

func reviewView(output string) (func(*review.Report, io.Writer) error, error) {
	switch output {
	case "":
		return (*review.Report).Text, nil
	case "markdown":
		return (*review.Report).Markdown, nil
	case "json":
		return jsonView[review.Report], nil
	}
	return nil, unknownFormat(output, "json or markdown")
}

// reviewer rehearses versions of runbooks on simulated clusters.
type reviewer struct {
	*app
	f        *reviewFlags
	host     *host.Host
	renderer *lib.Renderer
	known    *knowledge.Base
	given    interp.Given
	had      map[string]bool // parameters that were given, and whether a version has them
}

// trouble is what goes wrong in a scenario.
type trouble struct {
	name string
	hook func() sim.AdmissionHook // a new one for each rehearsal; nil: nothing does
}

// troubles are the branches on failure that are compared: a change that is
// refused before it is made, and one that only shows when it is.
func troubles() []trouble {
	return []trouble{
		{name: "where all goes well"},
		{name: "where the API server refuses the control plane", hook: func() sim.AdmissionHook {
			return func(r sim.Admission) error {
				if r.Resource == "deployments" && r.Operation != "DELETE" && strings.HasPrefix(r.Name, "istiod") && r.Object != nil && !samePods(r) {
					return errors.New("images must be signed")
				}
				return nil
			}
		}},
		{name: "where the new pods of one namespace never come", hook: func() sim.AdmissionHook {
			struck := ""
			return func(r sim.Admission) error {
				if r.Resource != "pods" || r.Operation != "CREATE" || r.DryRun || r.Namespace == "istio-system" {
					return nil
				}
				if struck == "" {
					struck = r.Namespace
				}
				if r.Namespace == struck {
					return errors.New("exceeded quota: pods")
				}
				return nil
			}
		}},
	}
}

// samePods reports whether a write leaves the pods of a workload as they are:
// status, replicas and owners of fields are not what is refused.
func samePods(r sim.Admission) bool {
	if r.Old == nil {
		return false
	}
	return reflect.DeepEqual(podsOf(r.Old), podsOf(r.Object))
}

func podsOf(o *unstructured.Unstructured) any {
	spec, _ := o.Object["spec"].(map[string]any)
	return spec["template"]
}

// compare rehearses both versions in every scenario.
func (r *reviewer) compare(ctx context.Context, p pair, older, newer string) (*review.Report, error) {
	rep := &review.Report{Runbook: p.name, Old: older, New: newer, Gained: []string{}, Lost: []string{}, Scenarios: []review.Scenario{}}
	for _, spec := range r.f.meshes {
		world, note, err := r.simulate(ctx, spec, "", r.renderer, mesh.NewIstiods())
		if err != nil {
			return nil, err
		}
		if err := r.talk("%s on a simulated mesh from %s", p.name, note); err != nil {
			return nil, err
		}
		for _, t := range troubles() {
			was, err := r.rehearsed(ctx, world, t, p.was)
			if err != nil {
				return nil, err
			}
			is, err := r.rehearsed(ctx, world, t, p.is)
			if err != nil {
				return nil, err
			}
			rep.Add(fmt.Sprintf("%s, %s", spec, t.name), was, is)
		}
		if err := world.Close(); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

// own are the parameters that a version has, of those that were given: the other
// may have more.
func (r *reviewer) own(rb *host.Runbook) interp.Given {
	has := func(name string) bool {
		ok := slices.ContainsFunc(rb.Params, func(p *interp.Param) bool { return p.Name == name })
		r.had[name] = r.had[name] || ok
		return ok
	}
	sets := slices.DeleteFunc(slices.Clone(r.given.Sets), func(set string) bool {
		name, _, _ := strings.Cut(set, "=")
		return !has(name)
	})
	own := interp.Given{Sets: sets, Ask: r.given.Ask, Read: map[string]string{}, File: map[string]any{}}
	for name, v := range r.given.File {
		if has(name) {
			own.File[name] = v
		}
	}
	for name, v := range r.given.Read {
		if has(name) {
			own.Read[name] = v
		}
	}
	return own
}

// strange refuses a parameter that no version of any runbook has.
func (r *reviewer) strange() error {
	for _, name := range slices.Sorted(maps.Keys(r.had)) {
		if !r.had[name] {
			return diag.Usagef("parameter "+name, "neither version has it")
		}
	}
	return nil
}

// rehearsed is one version in one scenario. That it does not load, or is not for
// this cluster, is a result; the error is for what says nothing of the runbook.
func (r *reviewer) rehearsed(ctx context.Context, world *sim.Cluster, t trouble, v runbookFile) (review.Run, error) {
	if v.path == "" {
		return review.Run{Err: errors.New("there is no such runbook")}, nil
	}
	at := r.f.target
	at.Runbook = v.path
	rb, held, err := r.load(ctx, r.host, &at, v.root)
	if err != nil {
		return review.Run{Err: err}, nil
	}
	params, err := rb.BindAll(r.own(rb))
	if err != nil {
		return review.Run{Err: err}, nil
	}
	o := livingFrom(world.Clock().Now())
	if t.hook != nil {
		o.Admission = []sim.AdmissionHook{t.hook()}
	}
	c, err := cluster.New(world.Config(), "sim", world.Clock(), cluster.ClientOptions{Version: version})
	if err != nil {
		return review.Run{}, err
	}
	tw, err := twin.New(ctx, c, o)
	if err != nil {
		return review.Run{}, err
	}
	p, err := plan.Rehearse(ctx, plan.Rehearsal{
		Host: r.host, Runbook: rb, Params: params, Twin: tw, Policy: inForce(held).Rehearsed(), Knowledge: r.known, Workdir: r.env.Workdir, Analyze: istioctl.Mistakes, Path: at.Runbook, Root: at.Root,
	})
	if err != nil && ctx.Err() != nil {
		return review.Run{}, err
	}
	return review.Run{Plan: p, Err: err}, nil
}
