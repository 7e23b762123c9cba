//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"

	"rutter.dev/rutter/tests/e2e/plane"
)

// A control plane without a mesh, first for its outages, then for two rutters. A
// plane costs more to start than what these ask of it.
func TestOutagesThenTogether(t *testing.T) {
	parallel(t, 210*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: 21200})
	t.Run("outages", func(t *testing.T) { outages(t, p) })
	t.Run("together", func(t *testing.T) { twoRutters(t, p) })
}

// The outages of a control plane in the middle of a run: what the run was about
// to do is done once, whatever became of the request that was under way.
func outages(t *testing.T, p *plane.Plane) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, *plane.Plane)
	}{
		{"api-server-killed", killedAPIServer},
		{"api-server-restarted", restartedAPIServer},
		{"api-server-hangs", frozenAPIServer},
		{"etcd-stopped", stoppedEtcd},
		{"token-expired", expiredToken},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, p) })
	}
}

// steady runs testdata/steady.star, which makes before+after objects.
type steady struct {
	t             *testing.T
	p             *plane.Plane
	prefix, state string
	kubeconfig    string
	before, after int
	mark          int64
}

func newSteady(t *testing.T, p *plane.Plane, prefix string, before int) *steady {
	t.Helper()
	mark, err := p.AuditMark()
	if err != nil {
		t.Fatal(err)
	}
	return &steady{t: t, p: p, prefix: prefix, state: t.TempDir(), kubeconfig: p.Kubeconfig(), before: before, after: 3, mark: mark}
}

func (s *steady) run() *stream {
	return follow(s.t, rutterCommand(s.t.Context(), s.state, s.kubeconfig, "run", "tests/e2e/testdata/steady.star", "--yes", "-o", "json",
		"--set", "prefix="+s.prefix, "--set", fmt.Sprintf("before=%d", s.before), "--set", fmt.Sprintf("after=%d", s.after)))
}

func (s *steady) resume() result {
	return rutter(s.t, s.state, s.kubeconfig, "resume", "--yes")
}

// letGo makes the object that the run waits for.
func (s *steady) letGo() {
	s.t.Helper()
	kubectl(s.t, s.p, "create", "configmap", s.prefix+"-go").want(s.t, 0)
}

// finished asserts that every object is there, and by the API server's record
// that each was made by one request.
func (s *steady) finished(user string) {
	s.t.Helper()
	made := strings.Fields(kubectl(s.t, s.p, "get", "configmaps", "-o", "jsonpath={.items[?(@.data.made)].metadata.name}").want(s.t, 0).out)
	there := map[string]bool{}
	for _, name := range made {
		there[name] = strings.HasPrefix(name, s.prefix+"-")
	}
	events, err := s.p.AuditSince(s.mark, plane.WritesBy(user))
	if err != nil {
		s.t.Fatal(err)
	}
	for phase, n := range map[string]int{"before": s.before, "after": s.after} {
		for i := range n {
			name := fmt.Sprintf("%s-%s-%d", s.prefix, phase, i)
			if !there[name] {
				s.t.Errorf("configmap %s was not made", name)
			}
			if writes := accepted(events, name); writes > 1 {
				s.t.Errorf("configmap %s was written by %d requests", name, writes)
			}
		}
	}
}

// accepted counts the requests for an object that changed something.
func accepted(events []auditv1.Event, name string) int {
	n := 0
	for _, e := range events {
		if e.ObjectRef == nil || e.ObjectRef.Name != name || strings.Contains(e.RequestURI, "dryRun=All") {
			continue
		}
		if e.Stage == auditv1.StageResponseComplete && e.ResponseStatus != nil && e.ResponseStatus.Code < 300 {
			n++
		}
	}
	return n
}

// kill -9 of the API server while changes are made: the run stops, saying so and
// how to go on, wherever in a change or between two the kill met it; when the
// server is back on the same store, resume finishes it.
func killedAPIServer(t *testing.T, p *plane.Plane) {
	s := newSteady(t, p, "killed", 40)
	run := s.run()
	run.until("the tenth change", intent(10))
	if err := p.KillAPIServer(); err != nil {
		t.Fatal(err)
	}
	stopped := run.end()
	if err := p.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	endedByOutage(t, stopped)
	if !strings.Contains(stopped.errOut, "rutter resume") {
		t.Errorf("the run does not say how to go on:\n%s", stopped.errOut)
	}
	s.letGo()
	s.resume().want(t, 0)
	s.finished(plane.Operator)
}

// endedByOutage demands that a run stopped for the outage, wherever it met it.
func endedByOutage(t *testing.T, stopped result) {
	t.Helper()
	switch stopped.code {
	case 1, 5: // at a request of its own, or at the change under way
	case 3: // between two changes: the gates of the next could not find out, and so blocked it
		if !strings.Contains(stopped.errOut, "could not find out") || !strings.Contains(stopped.errOut, "cluster unreachable") {
			t.Fatalf("the run was refused, and not for the outage\n%s", stopped.errOut)
		}
	default:
		t.Fatalf("the run ended with %d\n%s", stopped.code, stopped.errOut)
	}
}

// The store stops for 20 seconds: nothing is answered meanwhile. Requests that
// wait that long are answered when it is back.
func stoppedEtcd(t *testing.T, p *plane.Plane) {
	outlasts(t, p, "etcd", 20*time.Second, p.FreezeEtcd, p.ThawEtcd)
}

// The API server hangs with its connections open.
func frozenAPIServer(t *testing.T, p *plane.Plane) {
	outlasts(t, p, "frozen", 5*time.Second, p.FreezeAPIServer, p.ThawAPIServer)
}

// The API server is killed and comes back on the same store: the run goes on by
// itself, unless the kill cut off a change that was under way; that is looked
// into, and a resume finishes it.
func restartedAPIServer(t *testing.T, p *plane.Plane) {
	s := newSteady(t, p, "restarted", 40)
	s.letGo()
	run := s.run()
	run.until("the tenth change", intent(10))
	if err := p.KillAPIServer(); err != nil {
		t.Fatal(err)
	}
	if err := p.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := run.end()
	if ended.code != 0 {
		if !strings.Contains(ended.errOut, "it was sent and not answered") {
			t.Fatalf("the run ended with %d\n%s", ended.code, ended.errOut)
		}
		s.resume().want(t, 0)
	}
	s.finished(plane.Operator)
}

// outlasts demands that a run ends well by itself though something that it
// needs stands still in its middle.
func outlasts(t *testing.T, p *plane.Plane, name string, still time.Duration, freeze, thaw func() error) {
	t.Helper()
	s := newSteady(t, p, name, 40)
	s.letGo()
	run := s.run()
	run.until("the tenth change", intent(10))
	if err := freeze(); err != nil {
		t.Fatal(err)
	}
	back := time.AfterFunc(still, func() {
		if err := thaw(); err != nil {
			t.Error(err)
		}
	})
	defer back.Stop()
	run.end().want(t, 0)
	s.finished(plane.Operator)
}

// The token expires while the run waits: it stops at the next request, saying
// that it is not let in. With a new token in the kubeconfig it is taken up.
func expiredToken(t *testing.T, p *plane.Plane) {
	const user = "system:serviceaccount:default:shortlived"
	client, err := kubernetes.NewForConfig(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, p, "create", "serviceaccount", "shortlived").want(t, 0)
	_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "shortlived"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "shortlived"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSteady(t, p, "expired", 5)
	s.kubeconfig = withToken(t, p, 15*time.Second)
	run := s.run()
	run.until("the wait", started("wait"))
	stopped := run.end()
	if stopped.code != 1 || !strings.Contains(stopped.errOut, "nauthorized") {
		t.Fatalf("the run ended with %d\n%s", stopped.code, stopped.errOut)
	}
	s.letGo()
	if again := withToken(t, p, time.Hour); again != s.kubeconfig {
		t.Fatalf("the kubeconfig moved from %s to %s", s.kubeconfig, again)
	}
	s.resume().want(t, 0)
	s.finished(user)
}

// withToken writes the kubeconfig of the ServiceAccount shortlived.
func withToken(t *testing.T, p *plane.Plane, ttl time.Duration) string {
	t.Helper()
	token, err := p.Token(t.Context(), "default", "shortlived", ttl)
	if err != nil {
		t.Fatal(err)
	}
	path, err := p.KubeconfigFor("shortlived", token)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// killedWhileRestarting lets an upgrade go on until the second of the workloads
// that are left is being restarted, and kills the API server then. The run stops
// for the outage; afterwards the server is back on the same store.
func killedWhileRestarting(t *testing.T, p *plane.Plane, resume *exec.Cmd) {
	t.Helper()
	run := follow(t, resume)
	run.until("the data plane", started("data plane"))
	run.until("the second restart", intent(2))
	if err := p.KillAPIServer(); err != nil {
		t.Fatal(err)
	}
	stopped := run.end()
	if err := p.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	endedByOutage(t, stopped)
}

// restartedAtMostOnce: a restart gives a Deployment its second generation of pods,
// another one a third.
func restartedAtMostOnce(t *testing.T, p *plane.Plane) {
	t.Helper()
	revisions := kubectl(t, p, "get", "deployments", "-A", "-o",
		`jsonpath={range .items[?(@.metadata.namespace!="istio-system")]}{.metadata.annotations.deployment\.kubernetes\.io/revision}{"\n"}{end}`).want(t, 0).out
	for _, revision := range strings.Fields(revisions) {
		if revision != "1" && revision != "2" { // 1: a namespace without injection
			t.Errorf("a Deployment is at revision %s of its pods; all: %v", revision, strings.Fields(revisions))
		}
	}
}
