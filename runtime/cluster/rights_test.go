package cluster_test

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

func TestMissingRight(t *testing.T) {
	s, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	clerk := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles", "clusterrolebindings"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "create"}},
	}}
	clerk.Name = "clerk"
	held := &rbacv1.ClusterRoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "clerk"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "dev"}},
	}
	held.Name = "clerk"
	if err := s.Load([]*unstructured.Unstructured{decoded(t, clerk, "ClusterRole"), decoded(t, held, "ClusterRoleBinding")}); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(s.ConfigFor(sim.User{Name: "dev"}), "sim", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	all := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}}
	all.Name = "all"
	admin := &rbacv1.ClusterRoleBinding{RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}, Subjects: held.Subjects}
	admin.Name = "admin"
	secret := &cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "namespace": "default"}}}
	create := func(o *cluster.Object) error {
		_, err := c.Create(ctx, o, cluster.WriteOptions{})
		return err
	}
	for _, tc := range []struct {
		name, want string
		ask        func() error
	}{
		{"one object", "get configmaps web in default", func() error {
			_, err := c.Get(ctx, cluster.RefOf(configMap("")))
			return err
		}},
		{"a list of all", "list deployments.apps", func() error {
			res, err := c.Resolve(ctx, "deployments")
			if err != nil {
				return err
			}
			return c.List(ctx, res, cluster.ListOptions{}, func(*cluster.Object) error { return nil })
		}},
		{"a dry-run", "patch configmaps web in default", func() error {
			_, err := c.DryRunApply(ctx, configMap(""), cluster.ApplyOptions{})
			return err
		}},
		{"a subresource", "create pods/eviction p in default", func() error {
			return c.Evict(ctx, cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "default", Name: "p"}, cluster.WriteOptions{})
		}},
		{"a role that gives more than one has", "escalate clusterroles.rbac.authorization.k8s.io all", func() error { return create(decoded(t, all, "ClusterRole")) }},
		{"a binding that does", "bind the role that clusterrolebindings.rbac.authorization.k8s.io admin names", func() error { return create(decoded(t, admin, "ClusterRoleBinding")) }},
		{"not there", "", func() error {
			_, err := c.Get(ctx, cluster.RefOf(secret))
			return err
		}},
		{"refused in admission", "", func() error {
			s.Inject(sim.Fault{Resource: "secrets", Kind: sim.FaultDeny, Message: `secrets "s" is forbidden: no`})
			return create(secret)
		}},
	} {
		err := tc.ask()
		if got := cluster.MissingRight(err); err == nil || got != tc.want {
			t.Errorf("%s: got %q, want %q, of %v", tc.name, got, tc.want, err)
		}
	}
}

func decoded(t *testing.T, o runtime.Object, kind string) *cluster.Object {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	u := &cluster.Object{Object: m}
	u.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind(kind))
	return u
}
