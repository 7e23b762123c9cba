package istioctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/mesh"
)

type setTagArgs struct {
	Tag       string   `star:"tag,positional" doc:"name of the revision tag"`
	Revision  string   `star:"revision,required" doc:"revision that it is to point at; \"default\" for the install without one"`
	Overwrite bool     `star:"overwrite" default:"false" doc:"move the tag if it points at another revision"`
	Adopt     []string `star:"adopt" doc:"field managers whose fields move to rutter, as for kube.apply: who made the tag or the validation webhook"`
}

const setTagDoc = `The objects are those of istioctl tag set: the tag's Service, its injection
webhook, and for the tag default the validation webhook too, which is repointed
first. The injector of an install without revision is switched off after the
tag default injects in its place, so that no pod goes without a sidecar.
Sidecars change when their pods are restarted; gateways of the Gateway API roll
at once.`

func setTagSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[setTagArgs]{
		Name:    "istioctl.set_tag",
		Doc:     "Makes a revision tag, or moves it to another revision.\n" + setTagDoc + "\nA tag move must be reviewed: istioctl.diff_set_tag shows it, approve() binds it.",
		Example: `step("tag", istioctl.set_tag, "stable", revision = "default")`,
		Returns: "struct(tag, revision, was, applied, unchanged, restarts, outdated)",
		Effects: []effect.Class{effect.Webhook, effect.Tag, effect.ControlPlane},
		Plan: func(c *builtin.Call, a *setTagArgs) (*effect.Plan, error) {
			t, err := planSetTag(c, a)
			if err != nil {
				return nil, err
			}
			return t.plan()
		},
		Drive: driveSetTag,
	})
}

func diffSetTagSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[setTagArgs]{
		Name:    "istioctl.diff_set_tag",
		Doc:     "Shows what istioctl.set_tag with the same arguments would change, restart at once and leave outdated, for an approval.\n" + setTagDoc,
		Example: `step("review the tag", istioctl.diff_set_tag, "stable", revision = "default").restarts`,
		Returns: "change",
		Do: func(c *builtin.Call, a *setTagArgs) (any, error) {
			t, err := planSetTag(c, a)
			if err != nil {
				return nil, err
			}
			p, err := t.plan()
			if err != nil {
				return nil, err
			}
			return manifest.Show(c, fmt.Sprintf("tag %s: %s -> %s", a.Tag, cmp.Or(t.was, "none"), a.Revision), p, t.impact)
		},
	})
}

// tagMove is a planned set_tag.
type tagMove struct {
	was     string // revision that it pointed at
	planned *manifest.Planned
	impact  manifest.Impact
}

func planSetTag(c *builtin.Call, a *setTagArgs) (*tagMove, error) {
	t := &tagMove{}
	ns, err := t.admit(c, a)
	if err != nil {
		return nil, err
	}
	cr, err := configReader(c.Reader)
	if err != nil {
		return nil, err
	}
	objs, err := lib.TagObjects(c.Ctx, cr.ReadOnlyConfig(), lib.TagOptions{Tag: a.Tag, Revision: a.Revision, IstioNamespace: ns})
	if err != nil {
		return nil, err
	}
	t.planned, err = manifest.Plan(c.Ctx, c.Reader, objs, manifest.Options{Adopt: a.Adopt, Why: fmt.Sprintf("revision tag %s points at %s", a.Tag, a.Revision)})
	if err != nil {
		return nil, err
	}
	if a.Tag == mesh.DefaultRevision {
		if err := t.switchOff(c); err != nil {
			return nil, err
		}
	}
	return t, t.forecast(c, a)
}

// admit refuses what istioctl tag set refuses, before anything is planned, and
// returns the namespace of the revision's control plane.
func (t *tagMove) admit(c *builtin.Call, a *setTagArgs) (string, error) {
	subject := fmt.Sprintf("tag %q", a.Tag)
	if bad := validation.IsDNS1123Label(a.Tag); len(bad) > 0 {
		return "", diag.Usagef(subject, "is no name of a tag: %s", bad[0])
	}
	revs, err := revisionsOf(c.Ctx, c.Reader)
	if err != nil {
		return "", err
	}
	ns, ok := revs[a.Revision]
	if !ok {
		return "", noRevision(subject, a.Revision, revs)
	}
	if _, taken := revs[a.Tag]; taken && a.Tag != mesh.DefaultRevision {
		return "", &diag.Error{
			Code: diag.Usage, Subject: subject, Problem: "a revision has this name: its namespaces would be injected by both",
			Expect: "a name that no revision has", Next: "kubectl get mutatingwebhookconfigurations -L istio.io/rev,istio.io/tag",
		}
	}
	tags, err := allTags(c.Ctx, c.Reader)
	if err != nil {
		return "", err
	}
	for _, tag := range tags {
		if tag.Name == a.Tag {
			t.was = tag.Revision
		}
	}
	if t.was != "" && t.was != a.Revision && !a.Overwrite {
		return "", &diag.Error{
			Code: diag.Usage, Subject: subject, Problem: fmt.Sprintf("exists already, and points at %s", t.was),
			Expect: "a tag that is new, or leave to move it", Next: fmt.Sprintf("istioctl.set_tag(%q, revision = %q, overwrite = True)", a.Tag, a.Revision),
		}
	}
	return ns, nil
}

// noRevision is the error about a revision that is not there.
func noRevision(subject, revision string, known map[string]string) error {
	all := slices.Sorted(maps.Keys(known))
	e := diag.Usagef(subject, "there is no revision %q", revision)
	e.Expect = "one of " + strings.Join(all, ", ")
	if len(all) == 0 {
		e.Expect = "an installed revision; no control plane is here"
	}
	if near := diag.Nearest(revision, all); near != "" {
		e.Next = fmt.Sprintf("did you mean %q?", near)
	}
	return e
}

// switchOff makes the injector of the install without revision match nothing,
// as istioctl does: with it and the tag default, two webhooks would inject.
func (t *tagMove) switchOff(c *builtin.Call) error {
	hooks, err := listed(c.Ctx, c.Reader, mutating, mesh.LabelRev+"="+mesh.DefaultRevision+",!"+mesh.LabelTag)
	if err != nil {
		return err
	}
	for _, live := range hooks {
		e, err := neverMatching(c.Ctx, c.Reader, live)
		if err != nil {
			return err
		}
		if e != nil {
			t.planned.Add(manifest.Webhooks, e)
		}
	}
	return nil
}

// neverMatching is the effect that switches an injection webhook off; nil where
// it is off already.
func neverMatching(ctx context.Context, r cluster.Reader, live *cluster.Object) (*effect.Effect, error) {
	hooks, ok := live.Object["webhooks"].([]any)
	if !ok || len(hooks) == 0 {
		return nil, nil
	}
	match := map[string]any{}
	for k, v := range lib.NeverMatch() {
		match[k] = v
	}
	var patch []any
	for _, h := range hooks {
		m, ok := h.(map[string]any)
		if !ok {
			continue
		}
		never := map[string]any{"$patch": "replace", "matchLabels": match}
		patch = append(patch, map[string]any{"name": m["name"], "namespaceSelector": never, "objectSelector": never})
	}
	e, err := effect.PatchOf(cluster.RefOf(live), string(types.StrategicMergePatchType), map[string]any{"webhooks": patch})
	if err != nil {
		return nil, err
	}
	e.Found(live)
	e.Reviewable, e.Why = true, "the tag default injects in its place"
	after, err := r.DryRunPatch(ctx, e.Ref, types.StrategicMergePatchType, e.Body, cluster.WriteOptions{UID: live.GetUID()})
	switch {
	case err == nil:
		e.After = after
	case ctx.Err() != nil || errors.Is(err, cluster.ErrUnreachable):
		return nil, fmt.Errorf("%s: dry-run: %w", e.Ref, err)
	default:
		return e, nil // the gate on dry-runs says why
	}
	text, err := manifest.Unified(e.Ref, live, after)
	if err != nil || text == "" {
		return nil, err
	}
	return e, nil
}

// forecast finds what the move does to gateways and workloads.
func (t *tagMove) forecast(c *builtin.Call, a *setTagArgs) error {
	var after []*cluster.Object
	for _, e := range t.planned.Effects {
		if e.Ref.Kind == mutating.Kind && e.Intended() != nil && !manifest.IsMove(e) {
			after = append(after, e.Intended())
		}
	}
	im, err := impactOf(c, after, nil)
	if err != nil {
		return err
	}
	if t.was != a.Revision {
		uses, err := mesh.UsesByName(c.Ctx, c.Reader)
		if err != nil {
			return err
		}
		for _, g := range uses[a.Tag].Gateways {
			if g.Workload.Name != "" {
				im.Restarts = append(im.Restarts, g.Workload.String())
			}
		}
		t.planned.Notes = append(t.planned.Notes, fmt.Sprintf("tag %s moves from %s to %s", a.Tag, cmp.Or(t.was, "nothing"), a.Revision))
	}
	t.planned.Notes = append(t.planned.Notes, im.Words()...)
	t.impact = *im
	return nil
}

// impactOf compares what is outdated now with what would be.
func impactOf(c *builtin.Call, after []*cluster.Object, gone []string) (*manifest.Impact, error) {
	im := &manifest.Impact{Restarts: []string{}, Outdated: []manifest.Outdated{}}
	if len(after)+len(gone) == 0 {
		return im, nil
	}
	now, err := mesh.Outdated(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	then, err := mesh.OutdatedWith(c.Ctx, c.Reader, after, gone)
	if err != nil {
		return nil, err
	}
	for _, w := range then {
		if !slices.Contains(now, w) {
			im.Outdated = append(im.Outdated, manifest.OutdatedOf(w))
		}
	}
	return im, nil
}

// tagData is what driving needs besides the effects.
type tagData struct {
	Was    string          `json:"was"`
	Impact manifest.Impact `json:"impact"`
}

func (t *tagMove) plan() (*effect.Plan, error) {
	return planWith(t.planned, tagData{Was: t.was, Impact: t.impact})
}

// tagSet is the value of istioctl.set_tag.
type tagSet struct {
	Tag       string              `json:"tag"`
	Revision  string              `json:"revision"`
	Was       string              `json:"was"`
	Applied   []string            `json:"applied"`
	Unchanged []string            `json:"unchanged"`
	Restarts  []string            `json:"restarts"`
	Outdated  []manifest.Outdated `json:"outdated"`
}

func driveSetTag(c *builtin.Call, s effect.Submitter, a *setTagArgs, p *effect.Plan) (any, error) {
	var d tagData
	inner, err := splitPlan(p, &d)
	if err != nil {
		return nil, err
	}
	done, err := manifest.Drive(c, s, inner, manifest.DriveOptions{Adopt: a.Adopt})
	if err != nil {
		return nil, err
	}
	return &tagSet{
		Tag: a.Tag, Revision: a.Revision, Was: d.Was, Applied: done.Applied, Unchanged: done.Unchanged,
		Restarts: d.Impact.Restarts, Outdated: d.Impact.Outdated,
	}, nil
}

// MoveTag are the effects of istioctl.set_tag(tag, revision, overwrite = True), for
// who asks what the move of a tag would do. It only reads; a tag or a revision that
// can't be is a *diag.Error with exit code 2.
func MoveTag(ctx context.Context, r cluster.Reader, tag, revision string) ([]*effect.Effect, error) {
	t, err := planSetTag(&builtin.Call{Ctx: ctx, Reader: r}, &setTagArgs{Tag: tag, Revision: revision, Overwrite: true})
	if err != nil {
		return nil, err
	}
	return t.planned.Effects, nil
}
