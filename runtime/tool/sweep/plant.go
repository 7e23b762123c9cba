package sweep

import (
	"encoding/base64"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
)

// plantedWord is in no output of a sound run: the value of a Secret that a
// sweep adds to the cluster, so that there is one to be told.
const plantedWord = "nobody-may-read-what-a-sweep-planted"

// planted is the cluster with such a Secret in the namespaces that a run is
// likely to touch, as kubectl would have applied it: with its value once more
// in an annotation.
func planted(before *sim.Cluster) (*sim.Cluster, error) {
	c := before.Clone()
	var objects []*unstructured.Unstructured
	for _, o := range c.Objects() {
		if o.GetKind() == "Namespace" && slices.Contains([]string{"default", "istio-system"}, o.GetName()) {
			objects = append(objects, plantedIn(o.GetName()))
		}
	}
	if err := c.Load(objects); err != nil {
		return nil, fmt.Errorf("plant a secret: %w", err)
	}
	return c, nil
}

func plantedIn(namespace string) *unstructured.Unstructured {
	value := base64.StdEncoding.EncodeToString([]byte(plantedWord))
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": map[string]any{
			"name": "sweep-planted", "namespace": namespace,
			"annotations": map[string]any{
				"kubectl.kubernetes.io/last-applied-configuration": fmt.Sprintf(
					`{"apiVersion":"v1","data":{"word":%q},"kind":"Secret","metadata":{"annotations":{},"name":"sweep-planted","namespace":%q},"type":"Opaque"}`+"\n", value, namespace),
			},
		},
		"data": map[string]any{"word": value},
	}}
}
