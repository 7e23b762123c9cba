package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/access"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// operator is who runs are made as: a ServiceAccount that holds nothing but
// what it is bound to.
const operator = "system:serviceaccount:ops:rutter"

// roleBench runs the in-place runbook on copies of one simulated mesh.
type roleBench struct {
	a        *app
	renderer *lib.Renderer
	mesh     *sim.Cluster
	flags    rbacFlags
}

func newRoleBench(t *testing.T) *roleBench {
	t.Helper()
	e := &env.Env{
		Clock: env.SystemClock{}, Rand: rand.Reader, Getenv: func(string) string { return "" },
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, IsTerminal: func(any) bool { return false }, Workdir: t.TempDir(),
	}
	b := &roleBench{a: &app{env: e, hard: t.Context()}, renderer: lib.NewRenderer("")}
	b.flags.given.sets = []string{"to=1.31.0"}
	var err error
	if b.mesh, _, err = b.a.simulate(t.Context(), "mesh,workloads=10,namespaces=3,on-delete=1", "", b.renderer, mesh.NewIstiods()); err != nil {
		t.Fatal(err)
	}
	return b
}

type connector func(*sim.Cluster, env.Clock) (*cluster.Client, error)

// run makes one run on a copy of the mesh in which the objects are, too.
func (b *roleBench) run(ctx context.Context, objects []runtime.Object, connect connector) error {
	h, err := b.a.assemble(b.renderer)
	if err != nil {
		return err
	}
	rb, params, _, err := b.a.bind(ctx, h, &b.flags, "istio/in-place")
	if err != nil {
		return err
	}
	s := b.mesh.Clone()
	var load []*unstructured.Unstructured
	for _, o := range objects {
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return err
		}
		load = append(load, &unstructured.Unstructured{Object: m})
	}
	if err := s.Load(load); err != nil {
		return err
	}
	on := func(clock env.Clock) (*cluster.Client, error) { return connect(s, clock) }
	parts := []func(host.Session) error{func(session host.Session) error { return h.Run(ctx, ctx, session, rb, params) }}
	if b.flags.rollback {
		parts = append(parts, func(session host.Session) error {
			return h.Rollback(ctx, ctx, session, engine.RollbackOptions{Foreign: "overwrite"})
		})
	}
	return b.a.runInMemory(s, on, nil, parts...)
}

// as connects as a user with no other rights than the roles give.
func as(name string) connector {
	return func(s *sim.Cluster, clock env.Clock) (*cluster.Client, error) {
		return cluster.New(s.ConfigFor(sim.User{Name: name}), "sim", clock, cluster.ClientOptions{})
	}
}

// roles are what a run as the cluster's owner asks for.
func (b *roleBench) roles(t *testing.T, o access.Options) []access.Role {
	t.Helper()
	log := &access.Log{}
	err := b.run(t.Context(), nil, func(s *sim.Cluster, clock env.Clock) (*cluster.Client, error) {
		return cluster.New(s.Config(), "sim", clock, cluster.ClientOptions{Record: log.Record})
	})
	if err != nil {
		t.Fatal(err)
	}
	requests, err := log.Requests()
	if err != nil {
		t.Fatal(err)
	}
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: "ops", Name: "rutter"}
	return access.Roles("rutter", access.Derive(requests, o).Needs, []rbacv1.Subject{subject})
}

func TestTheRolesAreEnoughAndNoneIsTooMuch(t *testing.T) {
	if testing.Short() {
		t.Skip("a run for each rule")
	}
	b := newRoleBench(t)
	roles := b.roles(t, access.Options{})
	whole := (&access.Document{Roles: roles}).Objects()
	if err := b.run(t.Context(), whole, as(operator)); err != nil {
		t.Fatalf("a run as exactly these roles: %v", err)
	}
	if err := b.run(t.Context(), whole, as("system:serviceaccount:ops:somebody")); !errors.Is(err, cluster.ErrDenied) {
		t.Errorf("a run as somebody else ended with %v, want it denied", err)
	}
	for i := range roles {
		for j, r := range roles[i].Rules {
			t.Run(fmt.Sprintf("without %s %s %s", roles[i].Namespace, r.Verbs, r.Resources), func(t *testing.T) {
				less := slices.Clone(roles)
				less[i].Rules = slices.Delete(slices.Clone(less[i].Rules), j, j+1)
				err := b.run(t.Context(), (&access.Document{Roles: less}).Objects(), as(operator))
				if roles[i].Namespace == "kube-system" && slices.Equal(r.Resources, []string{"leases"}) {
					// Only looked at, for a run that makes the mesh's namespace: who may
					// not look goes on (engine.LockNamespace).
					if err != nil || !slices.Equal(r.Verbs, []string{"get"}) {
						t.Errorf("%s: ended with %v, want it to go on", r.Verbs, err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), "forbidden") && !strings.Contains(err.Error(), "403") {
					t.Errorf("ended with %v, want it forbidden", err)
				}
				if advice := told(err); !strings.Contains(advice, "rutter rbac RUNBOOK") || !strings.Contains(advice, "the right to ") {
					t.Errorf("ended with %v, and says neither what is missing nor where it is to be had: %s", err, advice)
				}
			})
		}
	}
}

// told is what an error says was expected, and is to be done.
func told(err error) string {
	var b strings.Builder
	if err == nil {
		return ""
	}
	if view.Error(&b, err, view.Options{}) != nil {
		return ""
	}
	return b.String()
}

func TestTheRolesOfARollback(t *testing.T) {
	b := newRoleBench(t)
	less := (&access.Document{Roles: b.roles(t, access.Options{})}).Objects()
	b.flags.rollback = true
	enough := (&access.Document{Roles: b.roles(t, access.Options{})}).Objects()
	if err := b.run(t.Context(), enough, as(operator)); err != nil {
		t.Errorf("a run and its rollback as exactly these roles: %v", err)
	}
	if err := b.run(t.Context(), less, as(operator)); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("a rollback with the roles of the run alone ended with %v, want it forbidden", err)
	}
}

// A journal in the cluster takes Secrets there, and the roles without
// --state cluster don't have them.
func TestTheRolesOfAJournalInTheCluster(t *testing.T) {
	b := newRoleBench(t)
	less := (&access.Document{Roles: b.roles(t, access.Options{})}).Objects()
	b.a.state = stateCluster
	roles := b.roles(t, access.Options{})
	b.flags.rollback = true
	undone := b.roles(t, access.Options{})
	b.flags.rollback = false
	if err := b.run(t.Context(), (&access.Document{Roles: roles}).Objects(), as(operator)); err != nil {
		t.Errorf("a run with its journal in the cluster as exactly these roles: %v", err)
	}
	err := b.run(t.Context(), less, as(operator))
	if advice := told(err); !strings.Contains(advice, "the right to get, list, create, update and delete secrets in istio-system") || !strings.Contains(advice, "rutter rbac RUNBOOK --state cluster") {
		t.Errorf("without rights to Secrets: %v\n%s", err, advice)
	}
	for _, r := range append(roles, undone...) {
		for _, rule := range r.Rules {
			if r.Namespace != lib.IstioNamespace && slices.Contains(rule.Resources, "secrets") && slices.Contains(rule.Verbs, "create") {
				t.Errorf("secrets elsewhere: %q %v", r.Namespace, rule)
			}
		}
	}
	b.flags.rollback = true
	if err := b.run(t.Context(), (&access.Document{Roles: undone}).Objects(), as(operator)); err != nil {
		t.Errorf("… and its rollback: %v", err)
	}
}

func TestTheRolesOfSomeNamespaces(t *testing.T) {
	b := newRoleBench(t)
	spaces := map[string]bool{}
	for _, o := range b.mesh.Objects() {
		if o.GetKind() == "StatefulSet" || o.GetKind() == "Deployment" || o.GetKind() == "DaemonSet" {
			spaces[o.GetNamespace()] = true
		}
	}
	delete(spaces, lib.IstioNamespace)
	var all []string
	for ns := range spaces {
		all = append(all, ns)
	}
	slices.Sort(all)
	enough := (&access.Document{Roles: b.roles(t, access.Options{Namespaces: all})}).Objects()
	if err := b.run(t.Context(), enough, as(operator)); err != nil {
		t.Errorf("in all namespaces of the mesh: %v", err)
	}
	elsewhere := (&access.Document{Roles: b.roles(t, access.Options{Namespaces: []string{"default"}})}).Objects()
	if err := b.run(t.Context(), elsewhere, as(operator)); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("in another namespace: ended with %v, want it forbidden", err)
	}
}
