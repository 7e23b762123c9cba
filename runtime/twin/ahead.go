package twin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"rutter.dev/rutter/runtime/sim"
)

// first is what every twin looks at when it begins. Where the server has these in
// another version, they are asked for again when that is known.
func first() []sim.Part {
	return []sim.Part{
		{GroupVersionResource: schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}},
		{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}},
		// The control planes, as mesh.ControlPlanes asks for them.
		{GroupVersionResource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, Labels: "app=istiod"},
	}
}

// fetched is an answer to Fetch.
type fetched struct {
	objs []*unstructured.Unstructured
	err  error
}

// ahead begins to fetch parts before anybody asks for them.
func (l *live) ahead(parts []sim.Part) {
	l.coming = map[sim.Part]<-chan fetched{}
	for _, p := range parts {
		c := make(chan fetched, 1)
		l.coming[p] = c
		go func() {
			objs, err := l.get(p)
			c <- fetched{objs, err}
		}()
	}
}

// introduction is what a server says of itself.
type introduction struct {
	served  []sim.Served
	version version.Info
}

// introduce asks the server for its version and what it serves, at once: each
// answer alone would be waited for longer than the server works on it.
func (l *live) introduce() (*introduction, error) {
	var in introduction
	err := together(
		func() (err error) {
			in.served, err = l.served()
			return err
		},
		func() error {
			data, err := l.do(http.MethodGet, "/version", nil, asJSON, nil)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(data, &in.version); err != nil {
				return fmt.Errorf("version: %w", err)
			}
			return nil
		})
	return &in, err
}

// together calls fs side by side, and gives the error of the first of them that has
// one, whichever ends first.
func together(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return cmp.Or(errs...)
}
