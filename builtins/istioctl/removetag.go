package istioctl

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/mesh"
)

type removeTagArgs struct {
	Tag  string        `star:"tag,positional" doc:"name of the revision tag"`
	Wait time.Duration `star:"wait" default:"2m" doc:"how long to wait until its objects are gone; \"0s\" does not wait"`
}

const removeTagDoc = `Its injection webhook goes first, then its validation webhook if it has one,
then its Service. A tag that a namespace, a pod template or a gateway of the
Gateway API still names is not removed: their pods would come up without a
sidecar.`

func removeTagSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[removeTagArgs]{
		Name:    "istioctl.remove_tag",
		Doc:     "Removes a revision tag that nothing uses.\n" + removeTagDoc + "\nIt must be reviewed: istioctl.diff_remove_tag shows it, approve() binds it.",
		Example: `step("retire the tag", istioctl.remove_tag, "stale")`,
		Returns: "struct(removed)",
		Effects: []effect.Class{effect.Tag, effect.ControlPlane},
		Plan:    planRemoveTag,
		Drive: func(c *builtin.Call, s effect.Submitter, a *removeTagArgs, p *effect.Plan) (any, error) {
			return driveDeletes(c, s, p, a.Wait)
		},
	})
}

func diffRemoveTagSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[removeTagArgs]{
		Name:    "istioctl.diff_remove_tag",
		Doc:     "Shows what istioctl.remove_tag with the same arguments would delete, for an approval.\n" + removeTagDoc,
		Example: `step("review", istioctl.diff_remove_tag, "stale").effects`,
		Returns: "change",
		Do: func(c *builtin.Call, a *removeTagArgs) (any, error) {
			p, err := planRemoveTag(c, a)
			if err != nil {
				return nil, err
			}
			return manifest.Show(c, fmt.Sprintf("remove tag %s", a.Tag), p, manifest.Impact{})
		},
	})
}

func planRemoveTag(c *builtin.Call, a *removeTagArgs) (*effect.Plan, error) {
	subject := fmt.Sprintf("tag %q", a.Tag)
	tags, err := allTags(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(tags, func(t mesh.Tag) bool { return t.Name == a.Tag })
	if i < 0 && len(madeBefore(c, mesh.LabelTag, a.Tag)) > 0 {
		return &effect.Plan{}, nil // it is gone since this step failed
	}
	if i < 0 {
		e := diag.Usagef(subject, "there is no such revision tag")
		var all []string
		for _, t := range tags {
			all = append(all, t.Name)
		}
		if near := diag.Nearest(a.Tag, all); near != "" {
			e.Next = fmt.Sprintf("did you mean %q?", near)
		}
		return nil, e
	}
	uses, err := mesh.UsesByName(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	u := uses[a.Tag]
	u.Proxies = nil // a pod remembers its revision only, which may have the name of the tag
	if u.Any() {
		return nil, inUse(subject, u, "move them to another revision or tag first: kubectl label namespace NAME istio.io/rev=OTHER --overwrite")
	}
	p := &effect.Plan{}
	for _, gvk := range []schema.GroupVersionKind{mutating, validating, services} {
		objs, err := listed(c.Ctx, c.Reader, gvk, mesh.LabelTag+"="+a.Tag)
		if err != nil {
			return nil, err
		}
		for _, o := range objs {
			e := effect.DeleteOf(o, "")
			e.Reviewable, e.Why = true, "revision tag "+a.Tag+" is removed"
			p.Effects = append(p.Effects, e)
		}
	}
	if err := unmixed(subject, p.Effects); err != nil {
		return nil, err
	}
	return p, nil
}

// inUse refuses to take away what something still goes by.
func inUse(subject string, u mesh.Uses, next string) error {
	return &diag.Error{
		Code: diag.Usage, Subject: subject, Problem: "is in use by " + u.Summary(),
		Expect: "nothing that uses it; nothing was changed", Next: next,
	}
}

// unmixed refuses objects that belong to somebody else's release: Helm would
// find its release broken, and bring them back at the next upgrade.
func unmixed(subject string, es []*effect.Effect) error {
	for _, e := range es {
		if e.Verb != effect.Delete || e.Before == nil {
			continue
		}
		if release := e.Before.GetAnnotations()["meta.helm.sh/release-name"]; release != "" {
			ns := e.Before.GetAnnotations()["meta.helm.sh/release-namespace"]
			return &diag.Error{
				Code: diag.Usage, Subject: subject,
				Problem: fmt.Sprintf("%s belongs to the Helm release %s/%s", e.Ref, ns, release),
				Expect:  "objects that no Helm release owns; nothing was changed",
				Next:    fmt.Sprintf("helm uninstall %s -n %s", release, ns),
			}
		}
	}
	return nil
}

// removed is the value of what deletes.
type removed struct {
	Removed []string `json:"removed"`
	Changed []string `json:"changed"` // repointed so that the rest could go
}

// driveDeletes makes the effects one after the other, and then waits until what
// was deleted is gone.
func driveDeletes(c *builtin.Call, s effect.Submitter, p *effect.Plan, wait time.Duration) (any, error) {
	out := &removed{Removed: []string{}, Changed: []string{}}
	for i, e := range p.Effects {
		s.Progress(i, len(p.Effects), e.Ref.String())
		if _, err := s.Submit(c.Ctx, e); err != nil {
			return nil, err
		}
		if e.Verb != effect.Delete {
			out.Changed = append(out.Changed, e.Ref.String())
			continue
		}
		out.Removed = append(out.Removed, e.Ref.String())
		if waitsForEnd(e.Ref) {
			if err := manifest.AwaitGone(c, s, e, wait); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range p.Effects {
		if e.Verb == effect.Delete && !waitsForEnd(e.Ref) {
			if err := manifest.AwaitGone(c, s, e, wait); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// waitsForEnd: a webhook must be gone before what answers it goes.
func waitsForEnd(ref cluster.Ref) bool {
	return ref.Kind == mutating.Kind || ref.Kind == validating.Kind
}
