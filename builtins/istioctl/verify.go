package istioctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/manifest"
)

// verifyManager asks for dry-runs under a name that owns nothing, so that the
// answer differs from the live object only in fields that the manifest has.
const verifyManager = "rutter-verify"

type verifyArgs struct {
	Manifest *manifest.Manifest `star:"manifest,positional" doc:"what should be installed"`
	Raise    bool               `star:"raise_" default:"true" doc:"fail when something does not match; False only returns it"`
}

// verification is the value of istioctl.verify_install.
type verification struct {
	OK         bool       `json:"ok"`
	Checked    int        `json:"compared"` // objects
	Mismatches []mismatch `json:"mismatches"`
}

type mismatch struct {
	Object  string   `json:"object"`
	Problem string   `json:"problem"`
	Fields  []string `json:"fields"`
}

func verifySpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[verifyArgs]{
		Name: "istioctl.verify_install", Returns: "struct(ok, compared, mismatches)",
		Doc: `Compare every object of a manifest with the cluster, and fail where they differ.
Each must exist, every field that the manifest gives must be as given, and
workloads and custom resource definitions must be ready. istioctl's own
verify-install was removed in 1.24. Fields compare as the API server sees them
(by a dry-run that would set them), so that defaults and ways of writing a
quantity make no difference. What istiod itself fills in (CA bundles,
the failure policy of its validation webhook) is left out.`,
		Example: `istioctl.verify_install(istioctl.manifest(version = "1.31.0"), raise_ = False).ok`,
		Do: func(c *builtin.Call, a *verifyArgs) (any, error) {
			v, err := verify(c, a.Manifest)
			if err != nil {
				return nil, err
			}
			if a.Raise && !v.OK {
				return nil, v.failure(a.Manifest)
			}
			return v, nil
		},
	})
}

func verify(c *builtin.Call, m *manifest.Manifest) (*verification, error) {
	objects, err := m.Objects(c.Blobs)
	if err != nil {
		return nil, err
	}
	v := &verification{Mismatches: []mismatch{}}
	for i, want := range objects {
		c.Progress(i, len(objects), cluster.RefOf(want).String())
		bad, err := compare(c.Ctx, c.Reader, want)
		if err != nil {
			return nil, err
		}
		if bad != nil {
			bad.Object = cluster.RefOf(want).String()
			v.Mismatches = append(v.Mismatches, *bad)
		}
		v.Checked++
	}
	v.OK = len(v.Mismatches) == 0
	return v, nil
}

// compare looks at one object; nil means that it is as it should be.
func compare(ctx context.Context, r cluster.Reader, want *cluster.Object) (*mismatch, error) {
	live, err := r.Get(ctx, cluster.RefOf(want))
	switch {
	case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrNoKind):
		return &mismatch{Problem: "is not there", Fields: []string{}}, nil
	case err != nil:
		return nil, err
	}
	if subset(want.Object, live.Object) {
		return unready(live), nil
	}
	set, err := r.DryRunApply(ctx, want, cluster.ApplyOptions{Manager: verifyManager, Force: true})
	switch {
	case cluster.MissingRight(err) != "": // which says nothing of the object
		return nil, err
	case errors.Is(err, cluster.ErrInvalid), errors.Is(err, cluster.ErrDenied):
		return &mismatch{Problem: "the API server would refuse it: " + err.Error(), Fields: []string{}}, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", cluster.RefOf(want), err)
	}
	d := &differ{secret: want.GetKind() == "Secret", leave: filledIn(want.GetKind())}
	d.walk(nil, live.Object, set.Object)
	if len(d.out) > 0 {
		slices.Sort(d.out)
		return &mismatch{Problem: "differs", Fields: d.out}, nil
	}
	return unready(live), nil
}

// subset reports whether live plainly holds everything that want has, which
// spares the dry-run for most objects. That it does not says nothing yet: the
// same can be written in several ways.
func subset(want, live any) bool {
	switch w := want.(type) {
	case nil:
		return true
	case map[string]any:
		l, ok := live.(map[string]any)
		for k, v := range w {
			if !ok || !subset(v, l[k]) {
				return false
			}
		}
		return ok
	case []any:
		l, ok := live.([]any)
		if !ok || len(l) != len(w) {
			return false
		}
		for i := range w {
			if !subset(w[i], l[i]) {
				return false
			}
		}
		return true
	}
	return equality.Semantic.DeepEqual(want, live)
}

// unready is the mismatch of an object that is as it should be, but does not work.
func unready(live *cluster.Object) *mismatch {
	if !judged(live.GetKind()) {
		return nil
	}
	if ready, _, why := cluster.Ready(live); !ready {
		return &mismatch{Problem: "is not ready: " + why, Fields: []string{}}
	}
	return nil
}

// judged are the kinds of a manifest whose readiness an installation needs.
func judged(kind string) bool {
	switch kind {
	case "Deployment", "DaemonSet", "StatefulSet", "CustomResourceDefinition":
		return true
	}
	return false
}

// filledIn are fields that istiod or the API server sets after an
// installation, whatever the manifest says: the CA bundles of webhooks, and the
// failure policy of the validation webhook once istiod serves it
// (pilot/pkg/config/kube/crdclient and pkg/webhooks/validation/controller of
// Istio).
func filledIn(kind string) func(path []string) bool {
	return func(path []string) bool {
		switch last := path[len(path)-1]; {
		case len(path) == 1 && last == "status":
			return true
		case len(path) == 2 && path[0] == "metadata":
			return slices.Contains([]string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"}, last)
		case last == "caBundle":
			return true
		case last == "failurePolicy":
			return kind == "ValidatingWebhookConfiguration"
		}
		return false
	}
}

// differ lists the fields in which two JSON values differ.
type differ struct {
	secret bool
	leave  func(path []string) bool
	out    []string
}

// mostFields bounds what is told of one object.
const mostFields = 10

func (d *differ) walk(path []string, live, want any) {
	if len(path) > 0 && d.leave(path) || len(d.out) >= mostFields || equality.Semantic.DeepEqual(live, want) {
		return
	}
	switch w := want.(type) {
	case map[string]any:
		if l, ok := live.(map[string]any); ok {
			for k := range union(l, w) {
				d.walk(append(slices.Clone(path), k), l[k], w[k])
			}
			return
		}
	case []any:
		if l, ok := live.([]any); ok && len(l) == len(w) {
			for i := range w {
				d.walk(append(slices.Clone(path), fmt.Sprint(i)), l[i], w[i])
			}
			return
		}
	}
	d.out = append(d.out, fmt.Sprintf("%s is %s, want %s", strings.Join(path, "."), d.shown(live), d.shown(want)))
}

func union(a, b map[string]any) map[string]bool {
	out := map[string]bool{}
	for k := range a {
		out[k] = true
	}
	for k := range b {
		out[k] = true
	}
	return out
}

func (d *differ) shown(v any) string {
	const most = 60
	if v == nil {
		return "not set"
	}
	if d.secret {
		return "<secret>"
	}
	s := fmt.Sprint(v)
	if _, text := v.(string); text {
		s = fmt.Sprintf("%q", v)
	}
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

// failure is the error of an installation that does not match.
func (v *verification) failure(m *manifest.Manifest) error {
	const most = 5
	var lines []string
	for i, b := range v.Mismatches {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(v.Mismatches)-most))
			break
		}
		line := b.Object + " " + b.Problem
		if len(b.Fields) > 0 {
			line += " (" + b.Fields[0]
			if len(b.Fields) > 1 {
				line += fmt.Sprintf(", and %d more fields", len(b.Fields)-1)
			}
			line += ")"
		}
		lines = append(lines, line)
	}
	return &diag.Error{
		Subject: m.String(),
		Problem: fmt.Sprintf("%d of %d objects are not as they should be: %s", len(v.Mismatches), v.Checked, strings.Join(lines, "; ")),
		Expect:  "every object there, as the manifest has it, and ready",
		Next:    "istioctl.verify_install(…, raise_ = False).mismatches lists them all",
	}
}
