package knowledge

import (
	"fmt"
	"testing"

	"sigs.k8s.io/yaml"
)

const tree = `
metadata: {annotations: {a.b/c: x}, name: web}
spec:
  containers:
  - {name: a, env: [{name: X, value: "1"}, {name: Y}]}
  - {name: b, ports: [80, 443]}
  tls: {mode: SIMPLE}
  subsets:
  - tls: {mode: MUTUAL}
  empty: null
  auto: true
`

func TestPath(t *testing.T) {
	var v map[string]any
	if err := yaml.Unmarshal([]byte(tree), &v); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		`metadata.name`:                              "[web]",
		`metadata.annotations["a.b/c"]`:              "[x]",
		`metadata.annotations.*`:                     "[x]",
		`spec.containers[].name`:                     "[a b]",
		`spec.containers[name=b].ports[]`:            "[80 443]",
		`spec.containers[].env[name=X].value`:        "[1]",
		`spec.containers[].env[name=Z]`:              "[]",
		`spec.**.mode`:                               "[MUTUAL SIMPLE]",
		`**["a.b/c"]`:                                "[x]",
		`spec.empty`:                                 "[]",
		`spec.auto`:                                  "[true]",
		`spec.name.more`:                             "[]",
		`metadata[]`:                                 "[]",
		`spec.containers[].env[name=Y].value.deeper`: "[]",
	} {
		p, err := parsePath(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := fmt.Sprint(p.values(v)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	for _, bad := range []string{"", ".", "a.", "a..b", "a[", "a[x]", "a[=x]", `a["`, `a[""]`, "a]b", "a[]b", `a"b`, "***", "**.a.**"} {
		if p, err := parsePath(bad); err == nil {
			t.Errorf("%q taken as %v", bad, p)
		}
	}
}

func TestVersionIn(t *testing.T) {
	for text, want := range map[string]string{
		"v1.4.0":                             "1.4.0",
		"1.29":                               "1.29.0",
		"docker.io/istio/ztunnel:1.28.10":    "1.28.10",
		"a:5000/ztunnel:1.28.10-distroless":  "1.28.10",
		"istio/ztunnel:1.28.10@sha256:abcde": "1.28.10",
		"istio/ztunnel@sha256:abcde":         "",
		"istio/ztunnel:latest":               "",
		"":                                   "",
		"v1.6.0-rc.1":                        "1.6.0",
	} {
		got := ""
		if v := versionIn(text); v != nil {
			got = v.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{`a.b[].c[x=y]["d.e"]`, "**.a", "*", "a["} {
		f.Add(s)
	}
	var v map[string]any
	if err := yaml.Unmarshal([]byte(tree), &v); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePath(text)
		if err != nil {
			return
		}
		if len(p) == 0 || len(p) > maxSteps {
			t.Fatalf("%q is a path of %d steps", text, len(p))
		}
		if len(p) < 4 {
			p.values(v)
		}
	})
}
