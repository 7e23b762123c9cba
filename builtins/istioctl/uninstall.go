package istioctl

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/mesh"
)

type uninstallArgs struct {
	Revision string        `star:"revision,required" doc:"revision to remove; \"default\" for the install without one"`
	Gateways bool          `star:"gateways" default:"false" doc:"delete the revision's own gateways too, as istioctl uninstall does; False leaves them"`
	Wait     time.Duration `star:"wait" default:"2m" doc:"how long to wait until each object is gone; \"0s\" does not wait"`
}

const uninstallDoc = `It deletes what istioctl uninstall --revision would, in an order that is safe: a
webhook that stays and points at the revision's istiod is repointed to the other
control plane, or goes first where there is none; then the revision's tags and
webhooks, its gateways if asked for, istiod, and what istiod ran with. CRDs and
the base stay. A revision that is in use is not removed.`

func uninstallSpec(r *lib.Renderer) *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[uninstallArgs]{
		Name:    "istioctl.uninstall",
		Doc:     "Removes the control plane of a revision that nothing uses.\n" + uninstallDoc + "\nIt must be reviewed: istioctl.diff_uninstall shows it, approve() binds it.",
		Example: `step("retire", istioctl.uninstall, revision = "old", gateways = True)`,
		Returns: "struct(removed, changed)",
		Effects: []effect.Class{effect.Webhook, effect.Tag, effect.ControlPlane, effect.Gateway, effect.MeshConfig},
		Plan:    func(c *builtin.Call, a *uninstallArgs) (*effect.Plan, error) { return planUninstall(c, r, a) },
		Drive: func(c *builtin.Call, s effect.Submitter, a *uninstallArgs, p *effect.Plan) (any, error) {
			return driveDeletes(c, s, p, a.Wait)
		},
	})
}

func diffUninstallSpec(r *lib.Renderer) *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[uninstallArgs]{
		Name:    "istioctl.diff_uninstall",
		Doc:     "Shows what istioctl.uninstall with the same arguments would delete, and the gateways among it, for an approval.\n" + uninstallDoc,
		Example: `step("review", istioctl.diff_uninstall, revision = "old", gateways = True).effects`,
		Returns: "change",
		Do: func(c *builtin.Call, a *uninstallArgs) (any, error) {
			p, err := planUninstall(c, r, a)
			if err != nil {
				return nil, err
			}
			return manifest.Show(c, fmt.Sprintf("uninstall revision %s", a.Revision), p, manifest.Impact{})
		},
	})
}

func planUninstall(c *builtin.Call, r *lib.Renderer, a *uninstallArgs) (*effect.Plan, error) {
	subject := fmt.Sprintf("revision %q", a.Revision)
	known, err := revisionsOf(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	if _, ok := known[a.Revision]; !ok {
		begun := madeBefore(c, mesh.LabelRev, a.Revision)
		if len(begun) == 0 {
			return nil, noRevision(subject, a.Revision, known)
		}
		known[a.Revision] = namespaceOf(begun)
	}
	cr, err := configReader(c.Reader)
	if err != nil {
		return nil, err
	}
	objs, err := lib.RevisionObjects(c.Ctx, cr.ReadOnlyConfig(), a.Revision)
	if err != nil {
		return nil, err
	}
	more, err := unlabelled(c, r, a.Revision, known, objs)
	if err != nil {
		return nil, err
	}
	objs = append(objs, more...)
	p := &effect.Plan{}
	objs = slices.DeleteFunc(objs, func(o *cluster.Object) bool { return follows(o) })
	objs = withoutGateways(p, objs, a.Gateways)
	if err := idle(c, subject, a.Revision, objs); err != nil {
		return nil, err
	}
	if err := keepWebhooks(c, p, subject, a.Revision, objs); err != nil {
		return nil, err
	}
	slices.SortStableFunc(objs, func(x, y *cluster.Object) int {
		return cmp.Or(cmp.Compare(removalRank(x), removalRank(y)), cmp.Compare(cluster.RefOf(x).ID(), cluster.RefOf(y).ID()))
	})
	for _, o := range objs {
		e := effect.DeleteOf(o, "")
		e.Reviewable, e.Why = true, "revision "+a.Revision+" is removed"
		p.Effects = append(p.Effects, e)
	}
	return p, unmixed(subject, p.Effects)
}

// madeBefore are the deletions that an earlier execution of this step made, before
// it failed, of objects that a label says are of this revision or tag. With them
// went what a revision or tag is known by, and the rest is to go all the same.
func madeBefore(c *builtin.Call, label, name string) []*effect.Effect {
	var out []*effect.Effect
	if c.Made == nil {
		return out
	}
	c.Made(func(e *effect.Effect) bool {
		if e.Verb == effect.Delete && e.Before != nil && e.Before.GetLabels()[label] == name {
			out = append(out, e)
		}
		return false // only looked at: a plan may be made more than once
	})
	return out
}

// namespaceOf is that of the control plane which was removed; istio-system where
// there was none in this cluster.
func namespaceOf(begun []*effect.Effect) string {
	for _, e := range begun {
		if e.Ref.Kind == "Deployment" {
			return e.Ref.Namespace
		}
	}
	return lib.IstioNamespace
}

// unlabelled are the objects of a revision that do not say so: accounts and
// rights bear the label of their revision only where istioctl install added it,
// and its validation webhook never that of its component. They are known by
// their names, which the charts make from the revision. What another revision
// here has too is left.
func unlabelled(c *builtin.Call, r *lib.Renderer, name string, known map[string]string, have []*cluster.Object) ([]*cluster.Object, error) {
	taken := map[string]bool{}
	for _, o := range have {
		taken[cluster.RefOf(o).ID()] = true
	}
	for other := range known {
		if other == name {
			continue
		}
		refs, err := controlPlaneRefs(c, r, other, known[other])
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			taken[ref.ID()] = true
		}
	}
	refs, err := controlPlaneRefs(c, r, name, known[name])
	if err != nil {
		return nil, err
	}
	// What kube.apply remembered of it goes with it.
	inventory := "istio"
	if name != mesh.DefaultRevision {
		inventory += "-" + name
	}
	refs = append(refs, manifest.InventoryRef(known[name], inventory))
	var out []*cluster.Object
	for _, ref := range refs {
		if taken[ref.ID()] {
			continue
		}
		o, err := c.Reader.Get(c.Ctx, ref)
		switch {
		case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrNoKind):
		case err != nil:
			return nil, err
		default:
			out = append(out, o)
		}
	}
	return out, nil
}

// controlPlaneRefs are what the charts name for the istiod of a revision.
func controlPlaneRefs(c *builtin.Call, r *lib.Renderer, revision, namespace string) ([]cluster.Ref, error) {
	if revision == mesh.DefaultRevision {
		revision = ""
	}
	got, err := r.Render(c.Ctx, lib.RenderOptions{Profile: "empty", Revision: revision, Set: map[string]any{
		"components.pilot.enabled": true, "values.global.istioNamespace": namespace,
	}})
	if err != nil {
		return nil, err
	}
	var out []cluster.Ref
	for _, o := range got.Objects {
		out = append(out, cluster.RefOf(o))
	}
	return out, nil
}

// follows: an object that a controller owns goes with its owner, and a finished
// deletion needs none.
func follows(o *cluster.Object) bool {
	return len(o.GetOwnerReferences()) > 0 || o.GetDeletionTimestamp() != nil
}

func isGatewayPart(o *cluster.Object) bool {
	switch o.GetLabels()["operator.istio.io/component"] {
	case "IngressGateways", "EgressGateways":
		return true
	}
	return false
}

// withoutGateways takes the gateways' objects out unless they are to go, and says
// either way which there are.
func withoutGateways(p *effect.Plan, objs []*cluster.Object, take bool) []*cluster.Object {
	var workloads []string
	for _, o := range objs {
		if isGatewayPart(o) && (o.GetKind() == "Deployment" || o.GetKind() == "DaemonSet") {
			workloads = append(workloads, cluster.RefOf(o).String())
		}
	}
	slices.Sort(workloads)
	switch {
	case len(workloads) == 0:
	case take:
		p.Notes = append(p.Notes, "the revision's gateways go with it: "+strings.Join(workloads, ", "))
	default:
		p.Notes = append(p.Notes, "the revision's gateways stay, which istioctl uninstall would take along: "+strings.Join(workloads, ", "))
	}
	if take {
		return objs
	}
	return slices.DeleteFunc(objs, isGatewayPart)
}

// idle refuses a revision that something uses besides what is deleted with it.
func idle(c *builtin.Call, subject, name string, objs []*cluster.Object) error {
	tags, err := allTags(c.Ctx, c.Reader)
	if err != nil {
		return err
	}
	uses, err := mesh.UsesByName(c.Ctx, c.Reader)
	if err != nil {
		return err
	}
	goes := map[string]bool{}
	for _, o := range objs {
		goes[cluster.RefOf(o).ID()] = true
	}
	u := usesOf(name, tags, uses)
	u.Workloads = slices.DeleteFunc(u.Workloads, func(r cluster.Ref) bool { return goes[r.ID()] })
	u.Proxies = slices.DeleteFunc(slices.Clone(u.Proxies), func(p mesh.Proxy) bool { return goes[p.Owner.ID()] })
	if !u.Any() {
		for _, t := range tags {
			if t.Revision == name && t.Configuration != "" && !goes[configurationID(t.Configuration)] {
				return &diag.Error{
					Code: diag.Usage, Subject: subject, Problem: fmt.Sprintf("tag %q points at it", t.Name), Expect: "no tag that points at it; nothing was changed",
					Next: fmt.Sprintf("istioctl.set_tag(%q, revision = …, overwrite = True), or istioctl.remove_tag(%q)", t.Name, t.Name),
				}
			}
		}
		return nil
	}
	return inUse(subject, u, "move them to another revision and restart them: istioctl.revisions() lists what uses which")
}

func configurationID(name string) string {
	return cluster.Ref{Group: mutating.Group, Version: mutating.Version, Kind: mutating.Kind, Name: name}.ID()
}

// keepWebhooks looks at the webhook configurations that stay: one that calls a
// Service that goes would refuse every write (validation, GUIDE §4 row 1) or
// every pod. It is repointed to the other control plane, or where none is left
// deleted before its backend.
func keepWebhooks(c *builtin.Call, p *effect.Plan, subject, name string, objs []*cluster.Object) error {
	goes, backends := map[string]bool{}, map[string]bool{}
	for _, o := range objs {
		goes[cluster.RefOf(o).ID()] = true
		if o.GetKind() == "Service" {
			backends[o.GetNamespace()+"/"+o.GetName()] = true
		}
	}
	heir, err := survivor(c, name)
	if err != nil {
		return err
	}
	hooks, err := listed(c.Ctx, c.Reader, validating, "")
	if err != nil {
		return err
	}
	more, err := listed(c.Ctx, c.Reader, mutating, "")
	if err != nil {
		return err
	}
	for _, live := range append(hooks, more...) {
		calls := callsTo(live, backends)
		if goes[cluster.RefOf(live).ID()] || len(calls) == 0 {
			continue
		}
		e, err := rescue(c, live, calls, heir, subject)
		if err != nil {
			return err
		}
		p.Effects = append(p.Effects, e)
		if e.Verb == effect.Delete {
			p.Notes = append(p.Notes, fmt.Sprintf("%s goes too: no other control plane is left to answer it", e.Ref))
		} else {
			p.Notes = append(p.Notes, fmt.Sprintf("%s is repointed to %s first", e.Ref, heir.Name))
		}
	}
	return nil
}

// callsTo names the webhooks of a configuration that call one of the Services.
func callsTo(o *cluster.Object, backends map[string]bool) []string {
	var out []string
	hooks, ok := o.Object["webhooks"].([]any)
	if !ok {
		return nil
	}
	for _, h := range hooks {
		m, _ := h.(map[string]any)
		cc, _ := m["clientConfig"].(map[string]any)
		svc, ok := cc["service"].(map[string]any)
		if !ok || !backends[fmt.Sprintf("%v/%v", svc["namespace"], svc["name"])] {
			continue
		}
		if n, ok := m["name"].(string); ok {
			out = append(out, n)
		}
	}
	return out
}

// survivor is the ready control plane that remains when the revision goes; nil
// if none does. The newest is taken, and of several of a version the first by
// name.
func survivor(c *builtin.Call, name string) (*mesh.ControlPlane, error) {
	planes, err := mesh.ControlPlanes(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	var best *mesh.ControlPlane
	for i, p := range planes {
		if p.Revision == name || !p.Ready {
			continue
		}
		if best == nil || newer(p.Version, best.Version) {
			best = &planes[i]
		}
	}
	return best, nil
}

func newer(a, b string) bool {
	vs := parsed([]string{a, b})
	return len(vs) == 2 && a != b && vs[1].String() == a
}

// rescue is the effect that keeps a webhook configuration from calling what is gone.
func rescue(c *builtin.Call, live *cluster.Object, calls []string, heir *mesh.ControlPlane, subject string) (*effect.Effect, error) {
	if heir == nil {
		if live.GetKind() == mutating.Kind && live.GetLabels()[mesh.LabelTag] == "" {
			return nil, diag.Usagef(subject, "%s calls its istiod and no other control plane is ready to answer it", cluster.RefOf(live))
		}
		e := effect.DeleteOf(live, "")
		e.Reviewable, e.Why = true, "it calls the istiod that is removed"
		return e, nil
	}
	var patch []any
	for _, n := range calls {
		patch = append(patch, map[string]any{"name": n, "clientConfig": map[string]any{"service": map[string]any{
			"name": heir.Name, "namespace": heir.Namespace,
		}}})
	}
	body := map[string]any{"webhooks": patch, "metadata": map[string]any{"labels": map[string]any{mesh.LabelRev: heir.Revision}}}
	e, err := effect.PatchOf(cluster.RefOf(live), string(types.StrategicMergePatchType), body)
	if err != nil {
		return nil, err
	}
	e.Found(live)
	e.Reviewable, e.Why = true, "it calls the istiod that is removed"
	after, err := c.Reader.DryRunPatch(c.Ctx, e.Ref, types.StrategicMergePatchType, e.Body, cluster.WriteOptions{UID: live.GetUID()})
	if err == nil {
		e.After = after
	} else if c.Ctx.Err() != nil || errors.Is(err, cluster.ErrUnreachable) {
		return nil, fmt.Errorf("%s: dry-run: %w", e.Ref, err)
	}
	return e, nil
}

// removalRank is the order in which what makes up a revision goes: who calls
// istiod before istiod, and what it needs to run after it.
func removalRank(o *cluster.Object) int {
	switch kind := o.GetKind(); {
	case kind == mutating.Kind && o.GetLabels()[mesh.LabelTag] != "":
		return 0
	case kind == validating.Kind:
		return 1
	case kind == mutating.Kind:
		return 2
	case isGatewayPart(o) && manifest.StageOf(o) != manifest.Base:
		return 3
	case kind == "EnvoyFilter":
		return 4
	case kind == "HorizontalPodAutoscaler", kind == "PodDisruptionBudget":
		return 5
	case manifest.Waits(o):
		return 6
	case kind == "Service":
		return 7
	case kind == "ConfigMap", kind == "Secret":
		return 8
	case strings.HasSuffix(kind, "Binding"):
		return 9
	case strings.HasSuffix(kind, "Role"):
		return 10
	}
	return 11
}
