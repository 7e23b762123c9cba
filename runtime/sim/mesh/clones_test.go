package mesh_test

import (
	"fmt"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Clones have the istiods of what they were cloned from, and are used at the same
// time: what these remember of configuration is theirs together.
func TestClonesAtTheSameTime(t *testing.T) {
	c, _, _ := alive(t)
	var wg sync.WaitGroup
	for range 4 {
		cl := newClient(t, c.Clone())
		wg.Go(func() {
			for i := range 50 {
				svc := decode(t, fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: default}, spec: {ports: [{port: 80}]}}", i))
				if _, err := cl.resource(svc).Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
