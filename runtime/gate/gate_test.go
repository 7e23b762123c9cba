package gate

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// fake is a cluster of a few objects. Dry-runs answer with refuse; every read
// answers with fail, if set.
type fake struct {
	cluster.Reader
	context string
	uid     string
	objects []*cluster.Object
	version cluster.VersionInfo
	refuse  error
	fail    error
	gets    int
	lists   int
}

func (f *fake) Context() string { return f.context }

func (f *fake) Get(_ context.Context, ref cluster.Ref) (*cluster.Object, error) {
	f.gets++
	if f.fail != nil {
		return nil, f.fail
	}
	if ref.Kind == "Namespace" && ref.Name == "kube-system" {
		o := &cluster.Object{Object: map[string]any{}}
		o.SetUID(types.UID(f.uid))
		return o, nil
	}
	for _, o := range f.objects {
		if cluster.RefOf(o).ID() == ref.ID() {
			return o, nil
		}
	}
	return nil, cluster.ErrNotFound
}

func (f *fake) Version(context.Context) (cluster.VersionInfo, error) { return f.version, f.fail }

func (f *fake) ResourceFor(_ context.Context, gvk schema.GroupVersionKind) (cluster.Resource, error) {
	return cluster.Resource{GVK: gvk, GVR: gvk.GroupVersion().WithResource(strings.ToLower(gvk.Kind) + "s"), Namespaced: true}, f.fail
}

func (f *fake) Resources(ctx context.Context) ([]cluster.Resource, error) {
	seen := map[schema.GroupKind]bool{}
	var out []cluster.Resource
	for _, o := range f.objects {
		if gvk := o.GroupVersionKind(); !seen[gvk.GroupKind()] {
			seen[gvk.GroupKind()] = true
			r, err := f.ResourceFor(ctx, gvk)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, f.fail
}

func (f *fake) List(_ context.Context, res cluster.Resource, o cluster.ListOptions, each func(*cluster.Object) error) error {
	f.lists++
	if f.fail != nil {
		return f.fail
	}
	selector, err := labels.Parse(o.Labels)
	if err != nil {
		return err
	}
	for _, obj := range f.objects {
		if obj.GetKind() != res.GVK.Kind || !selector.Matches(labels.Set(obj.GetLabels())) || o.Namespace != "" && obj.GetNamespace() != o.Namespace {
			continue
		}
		if err := each(obj); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) DryRunApply(_ context.Context, o *cluster.Object, opts cluster.ApplyOptions) (*cluster.Object, error) {
	var c *cluster.ConflictError
	if errors.As(f.refuse, &c) && opts.Force {
		return o, nil
	}
	return o, f.refuse
}

func (f *fake) DryRunPatch(context.Context, cluster.Ref, types.PatchType, []byte, cluster.WriteOptions) (*cluster.Object, error) {
	return nil, f.refuse
}

func (f *fake) DryRunEvict(context.Context, cluster.Ref, cluster.WriteOptions) error { return f.refuse }

func (f *fake) DryRunDelete(context.Context, cluster.Ref, cluster.WriteOptions) error {
	return f.refuse
}

func obj(t *testing.T, js string) *cluster.Object {
	t.Helper()
	o := &cluster.Object{}
	if err := o.UnmarshalJSON([]byte(js)); err != nil {
		t.Fatalf("%v in %s", err, js)
	}
	return o
}

func applied(t *testing.T, before, after string) *effect.Effect {
	t.Helper()
	e := &effect.Effect{Verb: effect.Apply}
	if after != "" {
		e.After, e.Body = obj(t, after), json.RawMessage(after)
		e.Ref = cluster.RefOf(e.After)
	}
	if before != "" {
		e.Before = obj(t, before)
		e.Ref = cluster.RefOf(e.Before)
		if after == "" {
			e.Verb = effect.Delete
		}
	} else {
		e.Absent = true
	}
	e.Class = effect.Classify(e)
	return e
}

const (
	configMap = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"shop"}}`
	meshMap   = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"istio","namespace":"istio-system"}}`
	space     = `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`
)

func istiod(image, more string) string {
	return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"istiod","namespace":"istio-system","generation":1,"labels":{"app":"istiod"` + more + `}},
	"spec":{"replicas":1,"template":{"spec":{"containers":[{"name":"discovery","image":"` + image + `"}]}}},
	"status":{"observedGeneration":1,"replicas":1,"updatedReplicas":1,"readyReplicas":1,"availableReplicas":1,"conditions":[{"type":"Available","status":"True"}]}}`
}

func TestClusterPinned(t *testing.T) {
	for name, c := range map[string]struct {
		r    *fake
		want Verdict
	}{
		"the same":    {&fake{uid: "u"}, Pass},
		"another":     {&fake{uid: "v"}, Block},
		"protected":   {&fake{uid: "u", context: "prod"}, Block},
		"unreachable": {&fake{fail: cluster.ErrUnreachable}, Block},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{ClusterUID: "u", Policy: &Policy{ProtectedContexts: []string{"prod"}}}
			judge(t, clusterPinned, c.r, run, applied(t, "", configMap), c.want)
		})
	}
}

// The client remembers the identity; the gate must not, or a connection that
// comes to lead elsewhere would go unnoticed.
func TestClusterPinnedReadsAnew(t *testing.T) {
	r := &fake{uid: "u"}
	run := &Run{ClusterUID: "u", Policy: &Policy{}, Seen: &Seen{}}
	judge(t, clusterPinned, r, run, applied(t, "", configMap), Pass)
	judge(t, clusterPinned, r, run, applied(t, "", configMap), Pass)
	if r.gets != 1 {
		t.Errorf("%d reads within one judgement, want 1", r.gets)
	}
	r.uid, run.Seen = "v", &Seen{}
	judge(t, clusterPinned, r, run, applied(t, "", configMap), Block)
}

func TestVersionPath(t *testing.T) {
	for name, c := range map[string]struct {
		from, to, image, label string
		minor                  int
		fail                   error
		want                   Verdict
	}{
		"one minor":                {"1.30.3", "1.31.0", "pilot:1.31.0", "", 34, nil, Pass},
		"distroless":               {"1.30.3", "1.31.0", "pilot:1.31.0-distroless", "", 34, nil, Pass},
		"not the target's image":   {"1.30.3", "1.31.0", "pilot:1.30.3", "", 34, nil, Block},
		"downgrade":                {"1.31.0", "1.30.3", "pilot:1.30.3", "", 34, nil, Block},
		"two minors":               {"1.29.0", "1.31.0", "pilot:1.31.0", "", 34, nil, Block},
		"two minors by revision":   {"1.29.0", "1.31.0", "pilot:1.31.0", `,"istio.io/rev":"1-31-0"`, 34, nil, Pass},
		"old Kubernetes":           {"1.30.3", "1.31.0", "pilot:1.31.0", "", 20, nil, Block},
		"image of no version":      {"1.30.3", "1.31.0", "pilot@sha256:abc", "", 34, nil, Block},
		"version by label":         {"1.30.3", "1.31.0", "pilot@sha256:abc", `,"operator.istio.io/version":"1.31.0"`, 34, nil, Pass},
		"no target, downgrade":     {"1.31.0", "", "pilot:1.30.3", "", 34, nil, Block},
		"no answer":                {"1.30.3", "1.31.0", "pilot:1.31.0", "", 34, cluster.ErrUnreachable, Block},
		"not known to this rutter": {"", "", "pilot:1.99.0", "", 34, nil, Warn},
		"nonsense target":          {"1.30.3", "new", "pilot:1.31.0", "", 34, nil, Block},
	} {
		t.Run(name, func(t *testing.T) {
			r := &fake{version: cluster.VersionInfo{Git: "v1." + "x", Major: 1, Minor: c.minor}, fail: c.fail}
			judge(t, versionPath, r, &Run{From: c.from, To: c.to, Policy: &Policy{}}, applied(t, "", istiod(c.image, c.label)), c.want)
		})
	}
}

// Definitions and rights are shared by two control planes, or bear no label of
// their revision: which way the upgrade goes is for istiod to say.
func TestVersionPathOfWhatIsShared(t *testing.T) {
	crd := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a.b"}}`
	role := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"istiod-clusterrole-1-31-0-istio-system"}}`
	for _, js := range []string{crd, role} {
		judge(t, versionPath, &fake{}, &Run{From: "1.29.0", To: "1.31.0", Policy: &Policy{}}, applied(t, "", js), Pass)
		judge(t, versionPath, &fake{}, &Run{From: "1.28.0", To: "1.31.0", Policy: &Policy{}}, applied(t, "", js), Block)
	}
}

func TestPrecheckPassed(t *testing.T) {
	ok, bad := effect.Precheck{Target: "1.31.0"}, effect.Precheck{Target: "1.31.0", Errors: []string{"e1", "e2"}}
	for name, c := range map[string]struct {
		to   string
		made []effect.Precheck
		want Verdict
		n    int
	}{
		"none":                  {"1.31.0", nil, Block, 1},
		"for another target":    {"1.31.0", []effect.Precheck{{Target: "1.30.0"}}, Block, 1},
		"clean":                 {"1.31.0", []effect.Precheck{ok}, Pass, 0},
		"warned":                {"1.31.0", []effect.Precheck{{Target: "1.31.0", Warnings: []string{"w"}}}, Warn, 1},
		"errors":                {"1.31.0", []effect.Precheck{bad}, Block, 2},
		"the latest counts":     {"1.31.0", []effect.Precheck{ok, bad}, Block, 2},
		"mended":                {"1.31.0", []effect.Precheck{bad, ok}, Pass, 0},
		"no target, but istiod": {"", nil, Block, 1},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{To: c.to, Facts: &effect.Facts{Prechecks: c.made}, Policy: &Policy{}}
			if got := judge(t, precheckPassed, &fake{}, run, applied(t, "", istiod("pilot:1.31.0", "")), c.want); len(got) != c.n {
				t.Errorf("%d findings, want %d: %v", len(got), c.n, got)
			}
		})
	}
}

func TestBackupCovers(t *testing.T) {
	mesh, plain := applied(t, meshMap, meshMap), applied(t, configMap, configMap)
	covers := func(e *effect.Effect, verified bool) []effect.Backup {
		return []effect.Backup{{Verified: verified, Covers: map[string]string{e.Ref.ID(): "sha256:x"}}}
	}
	blind := *plain
	blind.Before = nil
	gone := applied(t, space, "")
	for name, c := range map[string]struct {
		e       *effect.Effect
		backups []effect.Backup
		created bool
		want    Verdict
	}{
		"new":                         {applied(t, "", meshMap), nil, false, Pass},
		"of this run":                 {mesh, nil, true, Pass},
		"mesh, no backup":             {mesh, nil, false, Block},
		"mesh, verified":              {mesh, covers(mesh, true), false, Pass},
		"mesh, not verified":          {mesh, covers(mesh, false), false, Block},
		"mesh, another's backup":      {mesh, covers(plain, true), false, Block},
		"plain, before-image":         {plain, nil, false, Pass},
		"plain, backup not verified":  {plain, covers(plain, false), false, Pass},
		"plain, no before-image":      {&blind, nil, false, Block},
		"namespace deleted":           {gone, covers(gone, true), false, Block},
		"namespace of this run":       {gone, nil, true, Pass},
		"mesh object deleted":         {applied(t, meshMap, ""), nil, false, Block},
		"verified beside an older no": {mesh, append(covers(mesh, false), covers(mesh, true)...), false, Pass},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Facts: &effect.Facts{Backups: c.backups}, Created: map[string]bool{c.e.Ref.ID(): c.created}, Policy: &Policy{}}
			judge(t, backupCovers, &fake{}, run, c.e, c.want)
		})
	}
}

func TestDryRun(t *testing.T) {
	conflict := &cluster.ConflictError{Fields: []cluster.FieldConflict{{Field: ".data.a", Manager: "helm"}, {Field: ".data.b", Manager: "kubectl"}}}
	itself := &cluster.ConflictError{Fields: append([]cluster.FieldConflict{{Field: ".data.c", Manager: cluster.FieldManager}}, conflict.Fields...)}
	e := applied(t, "", configMap)
	adopting := *e
	adopting.Adopt = []string{"helm", "kubectl"}
	half := *e
	half.Adopt = []string{"helm"}
	wrong := *e
	wrong.Ref.Name = "b"
	evict := &effect.Effect{Verb: effect.Evict, Ref: cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "shop", Name: "p"}, Class: effect.Eviction}
	for name, c := range map[string]struct {
		e        *effect.Effect
		refuse   error
		forecast bool
		earlier  []*effect.Effect
		want     Verdict
		n        int
	}{
		"admitted":                     {e, nil, false, nil, Pass, 0},
		"denied":                       {e, cluster.ErrDenied, false, nil, Block, 1},
		"unreachable":                  {e, cluster.ErrUnreachable, false, nil, Block, 1},
		"throttled":                    {e, cluster.ErrThrottled, false, nil, Block, 1},
		"fields of others":             {e, conflict, false, nil, Block, 2},
		"adopted":                      {&adopting, conflict, false, nil, Pass, 0},
		"adopted from one":             {&half, conflict, false, nil, Block, 1},
		"adopted, and patched itself":  {&adopting, itself, false, nil, Pass, 0},
		"another body":                 {&wrong, nil, false, nil, Block, 1},
		"namespace comes first":        {e, cluster.ErrNotFound, true, []*effect.Effect{applied(t, "", space)}, Pass, 1},
		"live, namespace is not there": {e, cluster.ErrNotFound, false, []*effect.Effect{applied(t, "", space)}, Block, 1},
		"budget, forecast":             {evict, cluster.ErrDisruption, true, nil, Pass, 0},
		"budget, live":                 {evict, cluster.ErrDisruption, false, nil, Block, 1},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: c.forecast, Earlier: c.earlier, Policy: &Policy{}}
			if got := judge(t, dryRun, &fake{refuse: c.refuse}, run, c.e, c.want); len(got) != c.n {
				t.Errorf("%d findings, want %d: %v", len(got), c.n, got)
			}
		})
	}
}

func TestReviewed(t *testing.T) {
	mesh, plain := applied(t, meshMap, meshMap), applied(t, configMap, configMap)
	manifest := *plain
	manifest.Reviewable = true
	diff := func(e *effect.Effect, id, digest string) effect.Diff {
		if digest == "" {
			digest = e.Digest()
		}
		return effect.Diff{ID: id, Objects: map[string]string{e.Ref.ID(): digest}}
	}
	yes := func(ids ...string) []effect.Approval { return []effect.Approval{{Diffs: ids}} }
	restart := &effect.Effect{Verb: effect.Patch, Class: effect.Restart, Ref: cluster.Ref{Kind: "Deployment", Group: "apps", Name: "web"}}
	for name, c := range map[string]struct {
		e         *effect.Effect
		diffs     []effect.Diff
		approvals []effect.Approval
		want      Verdict
	}{
		"plain, by itself":               {plain, nil, nil, Pass},
		"mesh configuration, by itself":  {mesh, nil, nil, Ask},
		"restart":                        {restart, nil, nil, Pass},
		"manifest, never shown":          {&manifest, nil, nil, Block},
		"manifest, approved":             {&manifest, []effect.Diff{diff(plain, "d", "")}, yes("d"), Pass},
		"manifest, not approved":         {&manifest, []effect.Diff{diff(plain, "d", "")}, nil, Block},
		"plain, shown and not approved":  {plain, []effect.Diff{diff(plain, "d", "")}, nil, Block},
		"approval of another diff":       {&manifest, []effect.Diff{diff(plain, "d", "")}, yes("e"), Block},
		"approval without diffs":         {&manifest, []effect.Diff{diff(plain, "d", "")}, yes(), Block},
		"changed since":                  {&manifest, []effect.Diff{diff(plain, "d", "sha256:old")}, yes("d"), Block},
		"shown anew, not approved anew":  {&manifest, []effect.Diff{diff(plain, "d", "sha256:old"), diff(plain, "e", "")}, yes("d"), Block},
		"mesh configuration, approved":   {mesh, []effect.Diff{diff(mesh, "d", "")}, yes("d"), Pass},
		"mesh configuration, not as was": {mesh, []effect.Diff{diff(mesh, "d", "sha256:old")}, yes("d"), Ask},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Facts: &effect.Facts{Diffs: c.diffs, Approvals: c.approvals}, Policy: &Policy{}}
			judge(t, reviewed, &fake{}, run, c.e, c.want)
		})
	}
}

func TestControlPlaneReady(t *testing.T) {
	ready := istiod("pilot:1.31.0", "")
	unready := strings.Replace(ready, `"availableReplicas":1`, `"availableReplicas":0`, 1)
	unready = strings.Replace(unready, `"readyReplicas":1`, `"readyReplicas":0`, 1)
	web := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop"}}`
	for name, c := range map[string]struct {
		planes   []string
		forecast bool
		earlier  []*effect.Effect
		fail     error
		want     Verdict
	}{
		"ready":                  {[]string{ready}, false, nil, nil, Pass},
		"not ready":              {[]string{unready}, false, nil, nil, Block},
		"scaled to nothing":      {[]string{strings.Replace(ready, `"spec":{"replicas":1`, `"spec":{"replicas":0`, 1)}, false, nil, nil, Block},
		"one scaled to nothing":  {[]string{ready, strings.Replace(strings.Replace(ready, `"spec":{"replicas":1`, `"spec":{"replicas":0`, 1), `"name":"istiod"`, `"name":"istiod-x"`, 1)}, false, nil, nil, Pass},
		"the old one only":       {[]string{istiod("pilot:1.30.3", "")}, false, nil, nil, Block},
		"none":                   {nil, false, nil, nil, Block},
		"no answer":              {nil, false, nil, cluster.ErrUnreachable, Block},
		"forecast, comes first":  {nil, true, []*effect.Effect{applied(t, "", ready)}, nil, Pass},
		"live, should have come": {nil, false, []*effect.Effect{applied(t, "", ready)}, nil, Block},
	} {
		t.Run(name, func(t *testing.T) {
			r := &fake{fail: c.fail}
			for _, p := range c.planes {
				r.objects = append(r.objects, obj(t, p))
			}
			run := &Run{To: "1.31.0", Forecast: c.forecast, Earlier: c.earlier, Policy: &Policy{}}
			judge(t, controlPlaneReady, r, run, applied(t, web, web), c.want)
		})
	}
	// A step that is taken up again finds its istiod applied, and still rolling.
	for forecast, want := range map[bool]Verdict{true: Pass, false: Block} {
		r := &fake{objects: []*cluster.Object{obj(t, unready)}}
		run := &Run{To: "1.31.0", Forecast: forecast, Awaits: []cluster.Ref{cluster.RefOf(obj(t, unready))}, Policy: &Policy{}}
		judge(t, controlPlaneReady, r, run, applied(t, web, web), want)
	}
}

func TestScope(t *testing.T) {
	e := applied(t, "", configMap)
	for name, c := range map[string]struct {
		scope  Rules
		policy Policy
		want   Verdict
		n      int
	}{
		"anything":         {Rules{}, Policy{}, Pass, 0},
		"inside":           {Rules{Namespaces: []string{"sh*"}, Kinds: []string{"configmap"}}, Policy{}, Pass, 0},
		"outside":          {Rules{Namespaces: []string{"istio-system"}}, Policy{}, Block, 1},
		"denied":           {Rules{}, Policy{Deny: []Rules{{Kinds: []string{"ConfigMap"}}}}, Block, 1},
		"allowed":          {Rules{}, Policy{Allow: []Rules{{Verbs: []string{"delete"}}, {Verbs: []string{"apply"}}}}, Pass, 0},
		"not allowed":      {Rules{}, Policy{Allow: []Rules{{Verbs: []string{"delete"}}}}, Block, 1},
		"all are reported": {Rules{Verbs: []string{"delete"}}, Policy{Deny: []Rules{{}}, Allow: []Rules{{Kinds: []string{"Secret"}}}}, Block, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judge(t, scope, &fake{}, &Run{Scope: c.scope, Policy: &c.policy}, e, c.want); len(got) != c.n {
				t.Errorf("%d findings, want %d: %v", len(got), c.n, got)
			}
		})
	}
}

// judge runs one gate the way Judge does and compares the worst verdict.
func judge(t *testing.T, g *Gate, r cluster.Reader, run *Run, e *effect.Effect, want Verdict) []Finding {
	t.Helper()
	got, err := g.Before(context.Background(), r, run, e)
	if err != nil { // what is not known blocks: see TestUnknownBlocks
		got = append(got, Finding{Verdict: Block, Problem: err.Error()})
	}
	if judged[g.Code] == nil {
		judged[g.Code] = map[Verdict]bool{}
	}
	judged[g.Code][Worst(got)] = true
	if Worst(got) != want {
		t.Errorf("%s: got %s, want %s: %+v", g.Code, Worst(got), want, got)
	}
	return got
}

func TestUnknownBlocks(t *testing.T) {
	e := applied(t, "", configMap)
	fs := Judge(context.Background(), &fake{fail: cluster.ErrUnreachable}, &Run{ClusterUID: "u", Policy: &Policy{}, Facts: &effect.Facts{}}, e)
	if Worst(fs) != Block || !strings.Contains(fs[0].Problem, "could not find out") || fs[0].Ref != e.Ref {
		t.Errorf("got %+v", fs)
	}
	e.Class = "new"
	if fs := Judge(context.Background(), &fake{}, &Run{Policy: &Policy{}}, e); Worst(fs) != Block {
		t.Errorf("an unknown class passes: %+v", fs)
	}
}

// Every class passes the gates that hold for everything, and those that touch
// the data plane wait for the control plane.
func TestClassesAndGates(t *testing.T) {
	for _, c := range effect.Classes() {
		codes := For(c)
		for _, always := range []Code{ClusterPinned, DryRun, Scope} {
			if !slices.Contains(codes, always) {
				t.Errorf("%s does not pass %s", c, always)
			}
		}
		if c != effect.Eviction && (!slices.Contains(codes, BackupCovers) || !slices.Contains(codes, ReviewedDigest)) {
			t.Errorf("%s escapes backup or review: %v", c, codes)
		}
		if slices.Contains([]effect.Class{effect.Restart, effect.Eviction, effect.Gateway, effect.Tag}, c) != slices.Contains(codes, ControlPlaneReady) {
			t.Errorf("%s: RUT012 is not as it should be: %v", c, codes)
		}
		if slices.Contains([]effect.Class{effect.Restart, effect.Eviction, effect.Gateway, effect.Tag, effect.ControlPlane}, c) != slices.Contains(codes, Disruption) {
			t.Errorf("%s: RUT013 is not as it should be: %v", c, codes)
		}
		if slices.Contains([]effect.Class{effect.CRD, effect.Webhook, effect.Tag, effect.ControlPlane, effect.Gateway}, c) != slices.Contains(codes, PrecheckPassed) {
			t.Errorf("%s: RUT004 is not as it should be: %v", c, codes)
		}
	}
	if len(byClass) != len(effect.Classes()) {
		t.Errorf("%d classes in the table, %d in all", len(byClass), len(effect.Classes()))
	}
}
