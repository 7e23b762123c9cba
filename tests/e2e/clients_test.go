//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pmezard/go-difflib/difflib"

	"rutter.dev/rutter/tests/e2e/child"
	"rutter.dev/rutter/tests/e2e/plane"
)

// step is one command that a real client is given, in both clusters.
type step struct {
	name string // as in differences.txt
	line string // the client's arguments, split at spaces; {…} is a file of testdata/clients
	// until is what the command is repeated for; it is not compared.
	until string
}

// kubectlSteps use every command that the issue of the simulated cluster names.
var kubectlSteps = []step{
	{"apply", "apply -f {web.yaml}", ""},
	{"apply again", "apply -f {web.yaml}", ""},
	{"rollout status deployment", "-n shop rollout status deployment/web --timeout=90s", "successfully"},
	{"rollout status statefulset", "-n shop rollout status statefulset/db --timeout=90s", "2 pods"},
	{"rollout status daemonset", "-n shop rollout status daemonset/agent --timeout=90s", "successfully"},
	{"wait for a job", "-n shop wait --for=condition=Complete job/once --timeout=90s", "met"},
	{"wait for a condition", "-n shop wait --for=condition=Available deployment/web --timeout=90s", ""},
	{"wait for a field", "-n shop wait --for=jsonpath={.status.phase}=Running pod/db-0 --timeout=90s", ""},
	{"wait in vain", "-n shop wait --for=condition=Nonsense deployment/web --timeout=1s", ""},
	{"get namespaces", "get namespace shop", ""},
	{"get workloads", "-n shop get deployments,replicasets,statefulsets,daemonsets,jobs", ""},
	{"get workloads wide", "-n shop get deployments,replicasets,statefulsets,daemonsets,jobs -o wide", ""},
	{"get pods", "-n shop get pods", ""},
	{"get pods by label", "-n shop get pods -l app=db -L app", ""},
	{"get others", "-n shop get services,configmaps,endpoints,endpointslices", ""},
	{"get nodes", "get nodes", ""},
	{"get none", "-n shop get pods -l app=none", ""},
	{"get by name", "-n shop get deploy/web sts/db -o name", ""},
	{"get missing", "-n shop get deploy/none", ""},
	{"get unknown kind", "get nonsense", ""},
	{"get deployment yaml", "-n shop get deployment web -o yaml", ""},
	{"get service yaml", "-n shop get service web -o yaml", ""},
	{"get statefulset yaml", "-n shop get statefulset db -o yaml", ""},
	{"get pod yaml", "-n shop get pod db-0 -o yaml", ""},
	{"get job yaml", "-n shop get job once -o yaml", ""},
	{"get namespace yaml", "get namespace shop -o yaml", ""},
	{"managed fields of a deployment's client", `-n shop get deployment web -o jsonpath={.metadata.managedFields[?(@.manager=="kubectl-client-side-apply")]}`, ""},
	{"managed fields of a deployment's controller", `-n shop get deployment web -o jsonpath={.metadata.managedFields[?(@.manager=="kube-controller-manager")]}`, ""},
	{"managed fields of a replicaset", "-n shop get replicaset -l app=web -o yaml --show-managed-fields", ""},
	{"managed fields of a pod", "-n shop get pod db-0 -o yaml --show-managed-fields", ""},
	{"describe deployment", "-n shop describe deployment web", ""},
	{"describe service", "-n shop describe service web", ""},
	{"apply a budget", "apply -f {pdb.yaml}", ""},
	{"wait for a budget", "-n shop wait --for=jsonpath={.status.disruptionsAllowed}=1 pdb/web --timeout=90s", ""},
	{"get pdb", "-n shop get pdb", ""},
	{"describe pdb", "-n shop describe pdb web", ""},
	{"describe statefulset", "-n shop describe statefulset db", ""},
	{"describe pod", "-n shop describe pod db-0", ""},
	{"describe job", "-n shop describe job once", ""},
	{"diff nothing", "diff -f {web.yaml}", ""},
	{"diff", "diff -f {web2.yaml}", ""},
	{"server-side apply", "apply --server-side -f {applied.yaml}", ""},
	{"server-side apply conflict", "apply --server-side --field-manager other -f {applied2.yaml}", ""},
	{"server-side apply by force", "apply --server-side --field-manager other --force-conflicts -f {applied2.yaml}", ""},
	{"server-side diff", "diff --server-side --field-manager other --force-conflicts -f {applied.yaml}", ""},
	{"managed fields of two managers", "-n shop get configmap applied -o yaml --show-managed-fields", ""},
	{"apply a bad object", "apply -f {bad.yaml}", ""},
	{"apply a bad object unchecked", "apply --validate=false -f {bad.yaml}", ""},
	{"dry run", "apply --dry-run=server -f {web2.yaml}", ""},
	{"update", "apply -f {web2.yaml}", ""},
	{"updated", "-n shop rollout status deployment/web --timeout=90s", "successfully"},
	{"rollout history", "-n shop rollout history deployment/web", ""},
	{"rollout history of a revision", "-n shop rollout history deployment/web --revision=2", ""},
	{"rollout undo", "-n shop rollout undo deployment/web", ""},
	{"undone", "-n shop rollout status deployment/web --timeout=90s", "successfully"},
	{"image after undo", "-n shop get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", ""},
	{"rollout restart", "-n shop rollout restart deployment/web statefulset/db daemonset/agent", ""},
	{"restarted deployment", "-n shop rollout status deployment/web --timeout=90s", "successfully"},
	{"restarted statefulset", "-n shop rollout status statefulset/db --timeout=90s", "2 pods"},
	{"restarted daemonset", "-n shop rollout status daemonset/agent --timeout=90s", "successfully"},
	{"history after restart", "-n shop rollout history deployment/web", ""},
	{"rollout undo to nothing", "-n shop rollout undo deployment/web --to-revision=77", ""},
	{"rollout pause", "-n shop rollout pause deployment/web", ""},
	{"rollout restart while paused", "-n shop rollout restart deployment/web", ""},
	{"rollout resume", "-n shop rollout resume deployment/web", ""},
	{"wait for the autoscaler", "-n shop wait --for=jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].status}=False hpa/web --timeout=90s", ""},
	{"get hpa", "-n shop get hpa", ""},
	{"get hpa yaml", "-n shop get hpa web -o yaml", ""},
	{"scale", "-n shop scale deployment web --replicas=4", ""},
	{"label", "-n shop label deployment web tier=front", ""},
	{"label conflict", "-n shop label deployment web tier=back", ""},
	{"annotate", "-n shop annotate deployment web why=test", ""},
	{"merge patch", `-n shop patch configmap settings --type merge -p {"data":{"size":"xl"}}`, ""},
	{"strategic patch", `-n shop patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"web","imagePullPolicy":"Always"}]}}}}`, ""},
	{"json patch", `-n shop patch configmap settings --type json -p [{"op":"remove","path":"/data/size"}]`, ""},
	{"json patch of nothing", `-n shop patch configmap settings --type json -p [{"op":"remove","path":"/data/none"}]`, ""},
	{"bad patch", `-n shop patch deployment web -p {"spec":{"replicas":"many"}}`, ""},
	{"immutable field", `-n shop patch deployment web --type merge -p {"spec":{"selector":{"matchLabels":{"app":"other"}}}}`, ""},
	{"create", "-n shop create configmap made --from-literal=a=b", ""},
	{"create again", "-n shop create configmap made --from-literal=a=b", ""},
	{"create in no namespace", "-n none create configmap made --from-literal=a=b", ""},
	{"explain", "explain deployment.spec.replicas", ""},
	{"can-i", "auth can-i patch deployments -n shop", ""},
	{"settled", "-n shop rollout status deployment/web --timeout=90s", "successfully"},
	{"cordon", "cordon {NODE}", ""},
	{"get cordoned node", "get node {NODE}", ""},
	{"drain", "drain {NODE} --ignore-daemonsets --timeout=90s", "drained"},
	{"uncordon", "uncordon {NODE}", ""},
	{"evicted pods are back", "-n shop rollout status deployment/web --timeout=90s", "successfully"},
	{"delete", "-n shop delete configmap made", ""},
	{"delete missing", "-n shop delete configmap made", ""},
	{"delete a deployment", "-n shop delete deployment web --timeout=90s", ""},
	{"delete by label", "-n shop delete pods -l app=none", ""},
	{"delete a namespace", "delete namespace shop --timeout=90s", ""},
	{"deleted namespace", "get namespace shop", ""},
}

// istioctlSteps install, look, tag and remove.
var istioctlSteps = []step{
	{"version without Istio", "version", ""},
	{"precheck", "x precheck", ""},
	{"analyze without Istio", "analyze -A", ""},
	{"tag list without Istio", "tag list", ""},
	{"install", "install -y --skip-confirmation --set profile=minimal --set hub=docker.io/istio --set tag=1.31.0", ""},
	{"version", "version", ""},
	{"install again", "install -y --set profile=minimal --set hub=docker.io/istio --set tag=1.31.0", ""},
	{"precheck with Istio", "x precheck", ""},
	{"proxy-status", "proxy-status", ""},
	{"proxy-status as JSON", "proxy-status -o json", ""},
	{"tag list", "tag list", ""},
	{"tag set", "tag set prod --revision default", ""},
	{"tag set again", "tag set prod --revision default", ""},
	{"tag set to nothing", "tag set other --revision none", ""},
	{"tag generate", "tag generate other --revision default", ""},
	{"tag list with a tag", "tag list", ""},
	{"tag remove", "tag remove prod -y", ""},
	{"tag remove missing", "tag remove prod -y", ""},
	{"analyze", "analyze -n default", ""},
	{"uninstall", "uninstall -y --purge", ""},
	{"version after uninstall", "version", ""},
}

// A control plane for what clients print, which leave nothing behind, and then for
// runs by the least roles.
func TestClientsThenRoles(t *testing.T) {
	parallel(t, 170*time.Second)
	p := startPlane(t, plane.Options{FirstPort: besides(3)})
	t.Run("clients see the same", func(t *testing.T) { clientsSeeTheSame(t, p) })
	t.Run("the roles of rutter rbac", func(t *testing.T) { rolesSuffice(t, p) })
}

// clientsSeeTheSame holds the simulated cluster against the real one by what
// kubectl and istioctl print of them.
func clientsSeeTheSame(t *testing.T, p *plane.Plane) {
	sim := serveSim(t, p)
	compare(t, "kubectl", kubectlSteps, p.AdminKubeconfig(), sim, []string{built.kubectl})
	compare(t, "istioctl", istioctlSteps, p.AdminKubeconfig(), sim, []string{built.plane.Istiobox, "istioctl"})
}

// serveSim runs rutter sim serve with the plane's nodes until the test ends,
// and returns the path of its kubeconfig. Its time is ten times as fast.
func serveSim(t *testing.T, p *plane.Plane) string {
	t.Helper()
	dir := t.TempDir()
	nodes := filepath.Join(dir, "nodes.yaml")
	text := kubectl(t, p, "get", "nodes", "-o", "yaml").want(t, 0).out
	// They are as old as the simulated cluster, whose time is another.
	text = regexp.MustCompile(`(?m)^ *creationTimestamp: .*\n`).ReplaceAllString(text, "")
	if err := os.WriteFile(nodes, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "kubeconfig")
	cmd := exec.Command(built.rutter, "sim", "serve", nodes, "--speed", "10", "--kubeconfig-out", config)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_STATE_HOME="+dir)
	talk, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&child.Starter{}).Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("rutter sim serve: %v", err)
		}
	})
	lines := bufio.NewScanner(talk)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "serving on") {
			go func() {
				_, err := io.Copy(io.Discard, talk)
				_ = err // it ended
			}()
			return config
		}
	}
	t.Fatalf("rutter sim serve did not come up: %v", lines.Err())
	return ""
}

// compare gives each step to both clusters and demands the same answer, but
// for the differences that are known.
func compare(t *testing.T, client string, steps []step, real, sim string, program []string) {
	t.Helper()
	known := differences(t, client)
	home, seen := t.TempDir(), 0
	node := strings.Fields(must(t, []string{built.kubectl}, real, home, "get nodes -o name"))[0]
	for _, s := range steps {
		line := strings.ReplaceAll(s.line, "{NODE}", strings.TrimPrefix(node, "node/"))
		want, got := answer(t, program, real, home, line, s.until), answer(t, program, sim, home, line, s.until)
		reason, excused := known[s.name]
		delete(known, s.name)
		switch {
		case want == got && excused:
			t.Errorf("%s %s: differences.txt says that it differs (%s), and it does not", client, line, reason)
		case want != got && excused:
			seen++
		case want != got:
			t.Errorf("%s %s (%s):\n%s", client, line, s.name, unified(want, got))
		}
	}
	for name := range known {
		t.Errorf("differences.txt: %s has no step %q", client, name)
	}
	t.Logf("%s: %d commands, %d known differences", client, len(steps), seen)
}

func must(t *testing.T, program []string, config, home, line string) string {
	t.Helper()
	return run(t, program, config, home, line).want(t, 0).out
}

func run(t *testing.T, program []string, config, home, line string) result {
	t.Helper()
	args := append([]string{}, program[1:]...)
	for _, a := range strings.Fields(line) {
		if name, ok := strings.CutPrefix(a, "{"); ok && strings.HasSuffix(name, ".yaml}") {
			a = filepath.Join("testdata", "clients", strings.TrimSuffix(name, "}"))
		}
		args = append(args, a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program[0], args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+config, "HOME="+home, "ISTIOBOX_VERSION=1.31.0")
	return finish(t, cmd)
}

// answer is what a command says, without what differs from run to run. One that
// waits is compared by its end alone, as how often it looks is a matter of time.
func answer(t *testing.T, program []string, config, home, line, until string) string {
	t.Helper()
	r := run(t, program, config, home, line)
	if until != "" {
		return fmt.Sprintf("exit code %d, %q among its words: %t\n", r.code, until, strings.Contains(r.out+r.errOut, until))
	}
	return fmt.Sprintf("exit code %d\n%s--- errors\n%s", r.code, normal(r.out), normal(r.errOut))
}

// suffix is a name's random end: the characters that Kubernetes makes names of.
const suffix = `[bcdfghjklmnpqrstvwxz2456789]`

// varying is what differs between two runs against one cluster.
var varying = []struct{ find, put string }{
	{`\x1b\[[0-9;?]*[a-zA-Z]`, ""},
	{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "UID"},
	{`\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?( ?[+-]\d{4})?Z?`, "TIME"},
	{`[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}`, "TIME"},
	{`\b(web|db|agent|once|istiod)-` + suffix + `{6,10}-` + suffix + `{5}\b`, "$1-HASH-POD"},
	{`\b(web|db|agent|istiod)-` + suffix + `{6,10}\b`, "$1-HASH"},
	{`\b(web|agent|once)-` + suffix + `{5}\b`, "$1-POD"},
	{`((?:pod-template-hash|controller-revision-hash)"?[:=] ?"?)[a-z0-9-]+`, "${1}HASH"},
	{`(resourceVersion"?: ")\d+`, "${1}N"},
	{`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b`, "IP"},
	{`(/tmp/|/var/folders/)\S*/?(LIVE|MERGED)-\d+`, "$2"},
	{`(containerd?|docker)://\S+`, "CONTAINER"},
	{`@?sha256:[0-9a-f]{64}`, "DIGEST"},
	// How often istioctl sees something not ready yet, and whether a pod goes
	// before it is asked to, is a matter of time.
	{`(?m)^- Processing resources for .*Waiting for.*\n`, ""},
	{`object: (/v1, Kind=Pod/\S+) is not being deleted because it no longer exists`, " Removed $1."},
	{`(caBundle: )\S+`, "${1}BUNDLE"},
	{`\b(\d+[ywdhm])?\d+[ydhms]( ago)?\b`, "AGE"},
	{`[ \t]+`, " "},
	{` \n`, "\n"},
	// Said of a new Service or not, by whether the repair loop of the API server came by before its allocator.
	{`Events:\n Type Reason Age From Message\n ---- ------ ---- ---- -------\n Warning ClusterIPNotAllocated [^\n]*\n`, "Events: <none>\n"},
}

func normal(s string) string {
	for _, v := range varying {
		s = regexp.MustCompile(v.find).ReplaceAllString(s, v.put)
	}
	return s
}

func unified(want, got string) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(want), B: difflib.SplitLines(got), FromFile: "real", ToFile: "simulated", Context: 2,
	})
	if err != nil {
		return err.Error()
	}
	return text
}

// differences reads the known ones of a client: lines "client | step | reason".
func differences(t *testing.T, client string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "clients", "differences.txt"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), " | ", 3)
		if len(f) == 3 && f[0] == client {
			out[f[1]] = f[2]
		}
	}
	return out
}
