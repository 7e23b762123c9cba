package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"

	"rutter.dev/rutter/runtime/access"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/policy"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

type rbacFlags struct {
	target target
	bound
	name       string
	output     string
	namespaces []string
	rollback   bool
	subjects   subjects
}

// subjects are whom the roles are bound to, as kubectl create rolebinding
// takes them.
type subjects struct {
	users, groups, accounts []string
}

// rbacMesh is the mesh that stands for the user's own: it has workloads of
// every kind that a run treats in its own way.
const rbacMesh = "mesh,workloads=24,namespaces=5,on-delete=1,bare-pods=1"

func (a *app) rbacCmd() *cobra.Command {
	f := &rbacFlags{}
	cmd := &cobra.Command{
		Use:   "rbac RUNBOOK",
		Short: "Print the least roles that a run needs",
		Long: `Runs the runbook on a simulated cluster, with every approval given, and prints
the ClusterRole and Roles that hold what the run asked of the API server, and
nothing more. Each rule says which builtins, gates and steps asked.

Objects that the runbook applies are named. The workloads of a mesh differ from
cluster to cluster: what the run does to them is allowed in all namespaces, or
with --namespaces in those alone. What the run does may depend on the mesh, too:
give --sim YAML of your own cluster's objects to be sure. A run that lacks a
permission is refused by the API server before its first change where a dry-run
or a gate can find out, and in any case says what was missing.

The lock on the mesh, a Lease, is among them. With --state cluster so are the
Secrets that the journal is kept in; RBAC knows no patterns of names, so that
these are all of that namespace.`,
		Example: `  rutter rbac istio/in-place --set to=1.31.0 | kubectl apply -f -
  rutter rbac istio/in-place --set to=1.31.0 --serviceaccount ops:rutter --namespaces shop,web
  rutter rbac istio/in-place --set to=1.31.0 --state cluster --rollback`,
		Args: exactly(1, 1, "a runbook"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rbac(cmd.Context(), f, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.target.Sim, "sim", rbacMesh, "the simulated cluster: mesh[,istio=1.30.3,workloads=60,…], or a file or folder of YAML objects")
	f.target.knowledgeFlag(cmd)
	fs.StringVar(&f.target.Policy, "policy", "", policyUsage)
	fs.StringVar(&f.target.As, "as", "", "user that runs will impersonate: the roles are for them, and one for who impersonates is added")
	fs.StringArrayVar(&f.target.AsGroups, "as-group", nil, "group to impersonate (repeatable)")
	f.bound.flags(cmd)
	fs.StringVar(&f.name, "name", "", "name of the roles (default rutter-RUNBOOK)")
	fs.StringVarP(&f.output, "output", "o", "yaml", "yaml, with comments, or json")
	fs.StringSliceVar(&f.namespaces, "namespaces", nil, "the only namespaces whose workloads runs will restart (default all)")
	fs.BoolVar(&f.rollback, "rollback", false, "what undoing the whole run needs, too")
	fs.StringArrayVar(&f.subjects.users, "user", nil, "bind the roles to this user (repeatable)")
	fs.StringArrayVar(&f.subjects.groups, "group", nil, "bind the roles to this group (repeatable)")
	fs.StringArrayVar(&f.subjects.accounts, "serviceaccount", nil, "bind the roles to this ServiceAccount, NAMESPACE:NAME (repeatable)")
	return cmd
}

func (a *app) rbac(ctx context.Context, f *rbacFlags, name string) error {
	bound, err := f.check()
	if err != nil {
		return err
	}
	done, err := a.rehearse(ctx, f, name)
	if err != nil {
		return err
	}
	if f.name == "" {
		f.name = "rutter-" + done.runbook.Name
	}
	got := access.Derive(done.requests, access.Options{Namespaces: f.namespaces})
	doc := &access.Document{Header: rbacHeader(f, done, &got)}
	if f.target.As == "" {
		doc.Roles = access.Roles(f.name, got.Needs, bound)
	} else {
		doc.Roles = access.Roles(f.name, got.Needs, f.impersonated(bound))
		doc.Roles = append(doc.Roles, access.Roles(f.name+"-impersonator", got.Impersonates, bound)...)
	}
	if err := a.talk("%d requests of %s %s on a simulated cluster (%s)", len(done.requests), done.runbook.Name, done.runbook.Version, f.target.Sim); err != nil {
		return err
	}
	if f.output == "json" {
		return doc.JSON(a.env.Stdout)
	}
	return doc.YAML(a.env.Stdout)
}

// dnsName is what Kubernetes takes as the name of a role's namespace, and what
// this command takes as the name of a role (RBAC itself would take more).
var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.:]*[a-z0-9])?$`)

// check judges the flags, and gives the subjects.
func (f *rbacFlags) check() ([]rbacv1.Subject, error) {
	if f.output != "yaml" && f.output != "json" {
		return nil, unknownFormat(f.output, "yaml or json")
	}
	if f.name != "" && !dnsName.MatchString(f.name) {
		return nil, diag.Usagef("--name "+f.name, "is no name of a role; expected letters, digits, - and .")
	}
	for _, ns := range f.namespaces {
		if !dnsName.MatchString(ns) {
			return nil, diag.Usagef("--namespaces "+ns, "is no name of a namespace")
		}
	}
	if f.target.As == "" && len(f.target.AsGroups) > 0 {
		return nil, diag.Usagef("--as-group", "goes with --as USER")
	}
	var out []rbacv1.Subject
	for _, u := range f.subjects.users {
		out = append(out, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: u})
	}
	for _, g := range f.subjects.groups {
		out = append(out, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: g})
	}
	for _, s := range f.subjects.accounts {
		ns, name, ok := strings.Cut(s, ":")
		if !ok || ns == "" || name == "" {
			return nil, diag.Usagef("--serviceaccount "+s, "expected NAMESPACE:NAME")
		}
		out = append(out, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name})
	}
	return out, nil
}

// impersonated is whom the roles of the run are bound to where others
// impersonate them; nobody where no bindings are wanted.
func (f *rbacFlags) impersonated(bound []rbacv1.Subject) []rbacv1.Subject {
	if len(bound) == 0 {
		return nil
	}
	if ns, name, ok := access.ServiceAccount(f.target.As); ok {
		return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name}}
	}
	return []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: f.target.As}}
}

// rehearsed is a run on a simulated cluster that was made to see what it asks.
type rehearsed struct {
	runbook   *host.Runbook
	to        string
	requests  []access.Request
	note      string // where the mesh comes from
	inCluster bool   // its journal was
}

// rehearse runs the runbook on a simulated cluster in memory, and leaves nothing
// behind.
func (a *app) rehearse(ctx context.Context, f *rbacFlags, name string) (*rehearsed, error) {
	renderer := a.renderer()
	h, err := a.assemble(renderer)
	if err != nil {
		return nil, err
	}
	rb, params, p, err := a.bind(ctx, h, f, name)
	if err != nil {
		return nil, err
	}
	known, err := f.target.known(ctx, a.env.Workdir)
	if err != nil {
		return nil, err
	}
	s, note, err := a.simulate(ctx, f.target.Sim, "", renderer, mesh.NewIstiods())
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // in memory: nothing can be lost
	log := &access.Log{}
	connect := func(clock env.Clock) (*cluster.Client, error) {
		return cluster.New(s.Config(), "sim", clock, cluster.ClientOptions{Version: version, Record: log.Record})
	}
	parts := []func(host.Session) error{func(session host.Session) error {
		session.Knowledge = known
		return h.Run(ctx, a.hard, session, rb, params)
	}}
	if f.rollback {
		parts = append(parts, func(session host.Session) error {
			session.Knowledge = known
			return h.Rollback(ctx, a.hard, session, engine.RollbackOptions{Foreign: "overwrite"})
		})
	}
	err = a.runInMemory(s, connect, inForce(p).Rehearsed(), parts...)
	if err != nil {
		return nil, fmt.Errorf("the run on the simulated cluster did not finish, so that what it needs is not known (see it with rutter run %s --sim %s): %w", name, f.target.Sim, err)
	}
	requests, err := log.Requests()
	requests = append(requests, forwarded(requests, s)...)
	for i := range requests { // on the simulated cluster nobody but its owner may do anything
		requests[i].As = access.NewIdentity(f.target.As, f.target.AsGroups)
	}
	to, _ := params.Map()["to"].(string)
	return &rehearsed{runbook: rb, requests: requests, note: note, to: to, inCluster: a.inCluster()}, err
}

// forwarded are the port forwards to istiod by which istioctl.proxy_status asks a
// real mesh, and not a simulated one. Its pods have other names each time. Client
// and server agree on a web socket, which is a GET, or on a POST.
func forwarded(requests []access.Request, s *sim.Cluster) []access.Request {
	i := slices.IndexFunc(requests, func(r access.Request) bool { return r.By.By == proxyStatus })
	if i < 0 {
		return nil
	}
	var out []access.Request
	for _, o := range s.Objects() {
		if o.GetKind() != "Deployment" || o.GetLabels()["app"] != "istiod" {
			continue
		}
		for _, verb := range []string{"get", "create"} {
			out = append(out, access.Request{By: requests[i].By, Needs: []access.Permission{{Verb: verb, Resource: "pods/portforward", Namespace: o.GetNamespace()}}})
		}
	}
	return out
}

const proxyStatus = "istioctl.proxy_status"

// runInMemory carries a run out, and what is done with it afterwards, through a
// client of a simulated cluster, with a journal that nobody keeps, and every
// question answered with yes.
func (a *app) runInMemory(s *sim.Cluster, connect func(env.Clock) (*cluster.Client, error), policy *gate.Policy, carry ...func(host.Session) error) error {
	e := *a.env
	e.Clock = lock.NewClock(s.Clock())
	c, err := connect(e.Clock)
	if err != nil {
		return err
	}
	store, err := a.passingStore(c, e.Clock)
	if err != nil {
		return err
	}
	sealer, err := seal.Ephemeral()
	if err != nil {
		return err
	}
	session := host.Session{
		Env: &e, Cluster: c, Sink: event.SinkFunc(func(event.Event) {}), Approver: consent{}, Policy: policy, Sealer: sealer,
		Lock: a.locking(&target{Sim: rbacMesh}),
	}
	for i, part := range carry {
		open := store.Create
		if i > 0 {
			open = store.Open
		}
		if session.Journal, err = open("rbac"); err != nil {
			return err
		}
		err = part(session)
		if cerr := session.Journal.Close(); err != nil || cerr != nil {
			return errors.Join(err, cerr)
		}
	}
	return nil
}

// passingStore is where the journal of a rehearsal is: in memory, or in the
// simulated cluster where the runs' own will be in theirs. There it is listed as
// well, as "rutter resume" and "rutter runs" do.
func (a *app) passingStore(c *cluster.Client, clock env.Clock) (*journal.Store, error) {
	if !a.inCluster() {
		return journal.NewStore(journal.NewMemFS(), journal.ClusterRoot, clock, a.env.Rand), nil
	}
	namespace, err := journalNamespace(a.hard, c)
	if err != nil {
		return nil, err
	}
	store := journal.NewStore(journal.NewSecrets(a.hard, c, namespace, clock), journal.ClusterRoot, clock, a.env.Rand)
	_, err = store.List()
	return store, err
}

func (a *app) bind(ctx context.Context, h *host.Host, f *rbacFlags, name string) (*host.Runbook, *interp.Params, *policy.Policy, error) {
	l, err := a.source(ctx, h, name, f.root)
	if err != nil {
		return nil, nil, nil, err
	}
	defer closeQuietly(l.Loader)
	p, err := a.policyFor(ctx, h, &f.target, l.root, l.Loader)
	if err != nil {
		return nil, nil, nil, err
	}
	rb, err := h.Load(ctx, l.Loader)
	if err != nil {
		return nil, nil, nil, err
	}
	given, err := a.given(ctx, &f.given)
	if err != nil {
		return nil, nil, nil, err
	}
	params, err := rb.BindAll(given)
	return rb, params, p, err
}

// consent answers everything with yes: nothing real is changed.
type consent struct{}

// Approve implements engine.Approver.
func (consent) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "rutter rbac", true, nil
}

// Leave implements engine.Approver.
func (consent) Leave(context.Context, []gate.Finding) (string, bool, error) {
	return "rutter rbac", true, nil
}

// rbacHeader says what the roles are for and what is not in them.
func rbacHeader(f *rbacFlags, done *rehearsed, got *access.Access) []string {
	rb := done.runbook
	what := rb.Name + " " + rb.Version
	if done.to != "" {
		what += " to " + done.to
	}
	runs := "a run of " + what
	if f.rollback {
		runs += ", and its rollback,"
	}
	out := []string{
		"The least that " + runs + " needs, from the requests of one",
		"on a simulated cluster: " + f.target.Sim + ".",
		"",
	}
	if len(got.Homes) > 0 {
		out = append(out, "Objects are named where the runbook applies them: "+strings.Join(got.Homes, ", ")+".")
	}
	if len(f.namespaces) == 0 {
		out = append(out, "The workloads of your mesh are not known here: --namespaces narrows where they may be.")
	} else {
		out = append(out, "The workloads of your mesh may be in "+strings.Join(f.namespaces, ", ")+" alone.")
	}
	if !f.rollback {
		out = append(out, "What a rollback needs beside is not in it: --rollback adds that.")
	}
	if done.inCluster {
		out = append(out, "It keeps its journal in Secrets of the cluster (--state cluster), whose names are not known beforehand.")
	}
	if len(got.Everybody) > 0 {
		out = append(
			out, "",
			"Left out, because every authenticated user has it by default (system:discovery,",
			"system:basic-user): discovery, OpenAPI, the version, and what one may do oneself.",
		)
	}
	if slices.ContainsFunc(got.Needs, func(n access.Need) bool { return n.Verb == "escalate" || n.Verb == "bind" }) {
		out = append(
			out, "",
			"escalate and bind: the manifest has roles of its own, and the API server asks who",
			"applies them for these, or for everything that the roles hold.",
		)
	}
	return out
}
