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
spec: {selector: {app: web}, ports: [{name: tcp, port: PORT, targetPort: 80, protocol: PROTO}]}
---
`
	var text strings.Builder
	for _, ns := range []string{"shop", "bank"} {
		text.WriteString(strings.ReplaceAll(namespace, "NS", ns))
	}
	for _, s := range [][]string{
		// In shop two of one port and another protocol, and two of one target port.
		{"NS", "shop", "NAME", "a", "PORT", "1", "PROTO", "TCP"},
		{"NS", "shop", "NAME", "b", "PORT", "1", "PROTO", "UDP"},
		{"NS", "shop", "NAME", "c", "PORT", "2", "PROTO", "TCP"},
		// In bank one, which only those of shop get in the way of.
		{"NS", "bank", "NAME", "d", "PORT", "3", "PROTO", "UDP"},
	} {
		text.WriteString(strings.NewReplacer(s...).Replace(service))
	}
	whole := analyzed(t, text.String(), &deployment.ServiceAssociationAnalyzer{})
	spared := analyzed(t, text.String(), byNamespace{&deployment.ServiceAssociationAnalyzer{}})
	if len(whole) != 2 || !slices.Equal(whole, spared) || strings.Contains(strings.Join(whole, "\n"), "bank") {
		t.Errorf("whole:\n%s\nspared:\n%s", strings.Join(whole, "\n"), strings.Join(spared, "\n"))
	}
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
