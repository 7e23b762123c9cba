package lib

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

func TestMain(m *testing.M) {
	if err := Setup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// fixture reads a manifest that a real istioctl rendered. The fixtures are not
// part of the repository; without them the test is skipped.
func fixture(t testing.TB, name string) []*unstructured.Unstructured {
	t.Helper()
	// The repository's root is three folders up; the fixtures lie beside it.
	path := filepath.Join("..", "..", "..", "..", "shared", "fixtures", "manifests", name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("fixtures are not here: %v", err)
	}
	return parseObjects(t, b)
}

func parseObjects(t testing.TB, b []byte) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	dec := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := dec.Decode(u)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// configMapData finds a ConfigMap's data by the object's name.
func configMapData(t testing.TB, objs []*unstructured.Unstructured, name string) map[string]string {
	t.Helper()
	for _, o := range objs {
		if o.GetKind() == "ConfigMap" && o.GetName() == name {
			data, _, err := unstructured.NestedStringMap(o.Object, "data")
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	t.Fatalf("no configmap %s", name)
	return nil
}

// TestStdoutIsSilent: stdout carries rutter's data. Setup was called by TestMain.
func TestStdoutIsSilent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	real := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = real }()
	ctx := context.Background()
	rendered, err := NewRenderer("").Render(ctx, RenderOptions{})
	if err != nil {
		t.Error(err)
	} else if _, err := NewInjector().Inject(request(t, rendered.Objects, "default", pod(t, nil, map[string]string{"sidecar.istio.io/inject": "perhaps"}))); err != nil {
		t.Error(err)
	}
	if _, err := Precheck(ctx, newStub(t).config(), PrecheckOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := Analyze(ctx, newStub(t).config(), AnalyzeOptions{}); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 {
		t.Errorf("the library wrote to stdout: %s", b)
	}
}

func TestVersions(t *testing.T) {
	if got := K8sSupport(); got != "1.32" {
		t.Errorf("oldest Kubernetes of Istio %s: %s, its release notes say 1.32", LinkedVersion, got)
	}
	if !strings.HasPrefix(LinkedVersion, LinkedMinor+".") {
		t.Errorf("%s is not of %s", LinkedVersion, LinkedMinor)
	}
}
