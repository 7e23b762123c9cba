package restart

import (
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

func workloadWith(image string) *cluster.Object {
	return &cluster.Object{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "gw", "namespace": "edge"},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{
			"containers": []any{map[string]any{"name": "istio-proxy", "image": image}},
		}}},
	}}
}

// A gateway whose template names its proxy is upgraded by the manifest: a
// restart brings the old one again.
func TestAGatewayThatNamesItsProxyIsLeftToTheManifest(t *testing.T) {
	pod := &cluster.Object{Object: map[string]any{
		"kind": "Pod", "metadata": map[string]any{"name": "gw-1"},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.30.3"}}},
	}}
	j := &judge{version: "1.31.0"}
	for image, want := range map[string]string{
		"docker.io/istio/proxyv2:1.30.3": "apply the manifest of 1.31.0",
		"auto":                           "",
	} {
		_, why, err := j.gateway(wish{}, workloadWith(image), []*cluster.Object{pod})
		if err != nil {
			t.Fatal(err)
		}
		if (want == "") != (why == "") || !strings.Contains(why, want) {
			t.Errorf("template image %s: skipped because %q, want %q", image, why, want)
		}
	}
}
