package scripts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/cli"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/tests/e2e/plane"
)

// input is one way to ask for a manifest.
type input struct {
	profile, revision string
	set               []string
	files             []string // names in operators
	charts            bool     // those of the Istio module, from a folder
	bad               bool     // istioctl refuses it
}

// operators are IstioOperator documents as organizations have them.
var operators = map[string]string{
	"guide":    `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {profile: default, hub: private.example.com/istio, components: {cni: {enabled: true}, pilot: {k8s: {securityContext: {runAsUser: 1337, runAsGroup: 1337, runAsNonRoot: true}}}, ingressGateways: [{name: istio-ingressgateway, enabled: true, k8s: {service: {type: ClusterIP}}}]}, values: {global: {imagePullSecrets: [private-registry]}}}}`,
	"pilot":    `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {components: {pilot: {k8s: {resources: {requests: {cpu: 500m, memory: 2Gi}}, hpaSpec: {minReplicas: 2, maxReplicas: 5}, env: [{name: PILOT_TRACE_SAMPLING, value: "1"}]}}}, meshConfig: {accessLogFile: /dev/stdout, defaultConfig: {holdApplicationUntilProxyStarts: true}}}}`,
	"overlay":  `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {components: {pilot: {k8s: {overlays: [{kind: Deployment, name: istiod, patches: [{path: "spec.template.spec.containers.[name:discovery].args.[-1]", value: "--extra"}]}]}}}}}`,
	"gateways": `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {components: {ingressGateways: [{name: istio-ingressgateway, enabled: false}, {name: public, namespace: edge, enabled: true, label: {istio: public}}], egressGateways: [{name: out, enabled: true}]}}}`,
	"empty":    `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {}}`,
	"unknown":  `{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {components: {pilt: {enabled: true}}}}`,
	"notyaml":  "{apiVersion: [",
}

func inputs() []input {
	profiles := []string{"default", "demo", "minimal", "empty", "ambient", "preview", "remote", "stable", "openshift", "openshift-ambient"}
	var out []input
	for _, p := range profiles {
		out = append(out, input{profile: p}, input{profile: p, revision: "1-31-0"})
	}
	sets := [][]string{
		{"components.cni.enabled=true"},
		{"hub=private.example.com/istio", "tag=1.31.0-distroless"},
		{"values.global.imagePullSecrets[0]=private-registry"},
		{"meshConfig.accessLogFile=/dev/stdout", "meshConfig.enableTracing=true"},
		{"values.pilot.autoscaleMin=2", "values.pilot.autoscaleMax=4"},
		{"components.pilot.k8s.securityContext.runAsUser=1337", "components.pilot.k8s.securityContext.runAsNonRoot=true"},
		{`values.sidecarInjectorWebhook.injectedAnnotations.container\.apparmor\.security\.beta\.kubernetes\.io/istio-proxy=runtime/default`},
		{"values.global.proxy.resources.limits.cpu=2000m", "values.global.logAsJson=true"},
		{"components.ingressGateways[0].k8s.service.type=ClusterIP"},
		{"components.egressGateways[0].enabled=true", "components.egressGateways[0].name=istio-egressgateway"},
		{"values.global.platform=openshift"},
		{"compatibilityVersion=1.30"},
		{"values.global.meshID=mesh1", "values.global.multiCluster.clusterName=west", "values.global.network=net1"},
	}
	for _, s := range sets {
		out = append(out, input{set: s}, input{profile: "ambient", set: s})
	}
	for _, f := range []string{"guide", "pilot", "overlay", "gateways", "empty"} {
		out = append(out, input{files: []string{f}}, input{files: []string{f}, revision: "canary", set: []string{"values.global.logAsJson=true"}})
	}
	out = append(
		out,
		input{files: []string{"guide", "pilot"}}, input{files: []string{"pilot", "gateways"}, profile: "ambient"},
		input{charts: true}, input{charts: true, profile: "ambient", files: []string{"pilot"}},
		input{profile: "nope", bad: true}, input{set: []string{"components.pilt.enabled=true"}, bad: true},
		input{set: []string{"values.global.proxy.securityContext.runAsUser=1"}, bad: true}, input{files: []string{"unknown"}, bad: true},
		input{files: []string{"notyaml"}, bad: true}, input{set: []string{"values.pilot.replicaCount=many"}, bad: true},
		input{set: []string{"components.pilot.enabled"}, bad: true},
		input{set: []string{"values.global.proxy.resources.limits.cpu=2"}, bad: true},
	)
	return out
}

func (i input) String() string {
	s := fmt.Sprintf("%s-%s-%s-%s", i.profile, i.revision, strings.Join(i.set, ","), strings.Join(i.files, ","))
	if i.charts {
		s += "-charts"
	}
	return s
}

// flags are what istioctl manifest generate takes for it.
func (i input) flags(dir, charts string) []string {
	var out []string
	for _, f := range i.files {
		out = append(out, "-f", filepath.Join(dir, f+".yaml"))
	}
	if i.profile != "" {
		out = append(out, "--set", "profile="+i.profile)
	}
	for _, s := range i.set {
		out = append(out, "--set", s)
	}
	if i.revision != "" {
		out = append(out, "--revision", i.revision)
	}
	if i.charts {
		out = append(out, "-d", charts)
	}
	return out
}

// TestManifestsAreIstioctls holds "rutter istioctl manifest generate" and what
// istioctl.manifest renders against the real istioctl of the linked version.
func TestManifestsAreIstioctls(t *testing.T) {
	dir := t.TempDir()
	offer(t, dir, "istioctl", plane.BuildIstiobox)
	for name, text := range operators {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	if err != nil {
		t.Fatal(err)
	}
	charts := filepath.Join(strings.TrimSpace(string(module)), "manifests")
	if err := lib.Setup(); err != nil {
		t.Fatal(err)
	}
	renderer, compared, refused := lib.NewRenderer(""), 0, 0
	for _, in := range inputs() {
		t.Run(in.String(), func(t *testing.T) {
			args := append([]string{"manifest", "generate"}, in.flags(dir, charts)...)
			want, said, code := real(t, filepath.Join(dir, "istioctl"), args)
			got, talk, own := rutter(t, dir, append([]string{"istioctl"}, args...))
			if got != want || own != code || talk != said {
				t.Errorf("exit %d, want %d; stderr %q, want %q; %s", own, code, talk, said, firstDifference(got, want))
			}
			r, err := renderer.Render(t.Context(), in.options(dir, charts))
			if in.bad {
				refused++
				if code == 0 || err == nil {
					t.Errorf("istioctl exits with %d, istioctl.manifest says %v; want both to refuse it", code, err)
				}
				return
			}
			if code != 0 || err != nil {
				t.Fatalf("istioctl exits with %d (%s), istioctl.manifest says %v", code, said, err)
			}
			compared++
			if d := firstDifference(canonical(t, string(r.YAML)), canonical(t, want)); d != "" {
				t.Errorf("istioctl.manifest: %s", d)
			}
		})
	}
	t.Logf("%d manifests are equal, %d inputs are refused by both", compared, refused)
	if compared+refused < 60 {
		t.Errorf("%d inputs compared, want at least 60", compared+refused)
	}
}

func (i input) options(dir, charts string) lib.RenderOptions {
	o := lib.RenderOptions{Profile: i.profile, SetFlags: i.set, Revision: i.revision}
	for _, f := range i.files {
		o.Files = append(o.Files, lib.File{Name: filepath.Join(dir, f+".yaml")})
	}
	if i.charts {
		o.ChartsDir = charts
	}
	return o
}

func real(t *testing.T, binary string, args []string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH="}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func rutter(t *testing.T, dir string, args []string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	e := &env.Env{
		Clock: env.SystemClock{}, Rand: strings.NewReader(""), Getenv: func(string) string { return "" }, Stdin: strings.NewReader(""),
		Stdout: &out, Stderr: io.Writer(&errs), IsTerminal: func(any) bool { return false }, Workdir: dir,
	}
	code = cli.Run(context.Background(), context.Background(), e, args)
	return out.String(), errs.String(), code
}

// canonical is each object of a manifest as canonical JSON, sorted: the order is
// a matter of who applies it.
func canonical(t *testing.T, text string) string {
	t.Helper()
	var out []string
	for _, doc := range strings.Split("\n"+text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if len(o) == 0 {
			continue
		}
		b, err := cluster.CanonicalJSON(o)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// firstDifference shows where two texts part; "" where they don't.
func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d is %.300q, want %.300q", i+1, x, y)
		}
	}
	return ""
}
