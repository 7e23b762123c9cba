package lib

import (
	"slices"
	"strings"
	"testing"

	"istio.io/istio/pkg/config/analysis"
	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/analyzers/deployment"
	"istio.io/istio/pkg/config/analysis/local"
)

func TestOneAnalyzerOfTheLibraryIsSpared(t *testing.T) {
	if got, want := allAnalyzers().AnalyzerNames(), analyzers.AllCombined().AnalyzerNames(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	spared := 0
	for _, a := range analyzers.All() {
		if _, ok := a.(*deployment.ServiceAssociationAnalyzer); ok {
			spared++
		}
	}
	if spared != 1 {
		t.Errorf("the library has %d such analyzers", spared)
	}
}

// Shown the Services of a Deployment's namespace only, the analyzer finds what it
// finds when it goes through all of them.
func TestServicesByNamespace(t *testing.T) {
	text := services([][]string{
		// In shop two of one port and another protocol, and two of one target port.
		{"NS", "shop", "NAME", "a", "PORT", "1", "TARGET", "80", "PROTO", "TCP"},
		{"NS", "shop", "NAME", "b", "PORT", "1", "TARGET", "90", "PROTO", "UDP"},
		{"NS", "shop", "NAME", "c", "PORT", "2", "TARGET", "80", "PROTO", "TCP"},
		// In bank one, which only those of shop get in the way of.
		{"NS", "bank", "NAME", "d", "PORT", "3", "TARGET", "80", "PROTO", "UDP"},
	})
	whole := analyzed(t, text, &deployment.ServiceAssociationAnalyzer{})
	spared := analyzed(t, text, byNamespace{&deployment.ServiceAssociationAnalyzer{}})
	if len(whole) != 2 || !slices.Equal(whole, spared) || strings.Contains(strings.Join(whole, "\n"), "bank") {
		t.Errorf("whole:\n%s\nspared:\n%s", strings.Join(whole, "\n"), strings.Join(spared, "\n"))
	}
}

// Where two Services share a port, the library names either; one mesh reads the
// same every time.
func TestServicesThatShareAPortReadTheSameEveryTime(t *testing.T) {
	text := services([][]string{
		{"NS", "shop", "NAME", "a", "PORT", "1", "TARGET", "80", "PROTO", "TCP"},
		{"NS", "shop", "NAME", "b", "PORT", "1", "TARGET", "80", "PROTO", "TCP"},
		{"NS", "shop", "NAME", "c", "PORT", "2", "TARGET", "80", "PROTO", "TCP"},
	})
	for range 20 {
		got := analyzed(t, text, byNamespace{&deployment.ServiceAssociationAnalyzer{}})
		if len(got) != 1 || !strings.Contains(got[0], "[shop/b shop/c]") {
			t.Fatalf("got %v", got)
		}
	}
}

// services are two namespaces with Deployments in the mesh, and Services for them,
// each as the words of its template and what stands for them.
func services(list [][]string) string {
	const namespace = `apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec: {template: {metadata: {labels: {app: web}},
  spec: {containers: [{name: istio-proxy, image: x}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: lone, namespace: NS}
spec: {template: {metadata: {labels: {app: lone}},
  spec: {containers: [{name: istio-proxy, image: x}]}}}
---
`
	const service = `apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NS}
spec: {selector: {app: web}, ports: [{name: tcp, port: PORT, targetPort: TARGET, protocol: PROTO}]}
---
`
	var text strings.Builder
	for _, ns := range []string{"shop", "bank"} {
		text.WriteString(strings.ReplaceAll(namespace, "NS", ns))
	}
	for _, words := range list {
		text.WriteString(strings.NewReplacer(words...).Replace(service))
	}
	return text.String()
}

// analyzed are the messages of one analyzer, of objects as YAML.
func analyzed(t *testing.T, text string, a analysis.Analyzer) []string {
	t.Helper()
	sa := local.NewIstiodAnalyzer(analysis.Combine("one", a), "", IstioNamespace, nil)
	if err := sa.AddTestReaderKubeSource([]local.ReaderSource{{Name: "world.yaml", Reader: strings.NewReader(text)}}); err != nil {
		t.Fatal(err)
	}
	res, err := sa.Analyze(t.Context().Done())
	if err != nil {
		t.Fatal(err)
	}
	ms, err := fromDiag(res.Messages)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range ms {
		out = append(out, m.String())
	}
	return out
}
