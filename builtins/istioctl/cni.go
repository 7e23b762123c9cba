package istioctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// cni looks for the node agent wherever it is (GUIDE §2 row 10), and whether
// injection counts on one that is not there: its pods would never start.
func (p *prechecked) cni(c *builtin.Call) error {
	res, err := c.Reader.ResourceFor(c.Ctx, schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"})
	if err != nil {
		return err
	}
	installed := false
	err = c.Reader.List(c.Ctx, res, cluster.ListOptions{Labels: "k8s-app=istio-cni-node"}, func(o *cluster.Object) error {
		installed = true
		if ready, _, why := cluster.Ready(o); !ready {
			p.add(lib.LevelError, fmt.Sprintf("%s is not ready: %s; pods on those nodes would not start", cluster.RefOf(o), why))
		} else {
			p.add(lib.LevelInfo, fmt.Sprintf("%s is ready on all its nodes", cluster.RefOf(o)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	wants, err := expectsCNI(c)
	if err != nil {
		return err
	}
	switch {
	case wants != "" && !installed:
		p.add(lib.LevelError, fmt.Sprintf("injection of revision %s counts on Istio CNI, and there is no istio-cni-node DaemonSet", wants))
	case wants == "" && installed:
		p.add(lib.LevelWarning, "Istio CNI is installed, but injection does not use it: new pods get the privileged istio-init")
	case !installed:
		p.add(lib.LevelInfo, "Istio CNI is not installed: pods get istio-init, which needs NET_ADMIN")
	}
	return nil
}

// expectsCNI names a revision whose injector leaves the pods' network to CNI.
func expectsCNI(c *builtin.Call) (string, error) {
	planes, err := mesh.ControlPlanes(c.Ctx, c.Reader)
	if err != nil {
		return "", err
	}
	for _, cp := range planes {
		name := "istio-sidecar-injector"
		if cp.Revision != mesh.DefaultRevision {
			name += "-" + cp.Revision
		}
		cm, err := c.Reader.Get(c.Ctx, cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: cp.Namespace, Name: name})
		if errors.Is(err, cluster.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		data, ok := cm.Object["data"].(map[string]any)
		if !ok {
			continue
		}
		text, ok := data["values"].(string)
		if !ok {
			continue
		}
		var values struct {
			Pilot struct {
				CNI struct {
					Enabled bool `json:"enabled"`
				} `json:"cni"`
			} `json:"pilot"`
		}
		if err := json.Unmarshal([]byte(text), &values); err != nil {
			return "", fmt.Errorf("%s: values: %w", cluster.RefOf(cm), err)
		}
		if values.Pilot.CNI.Enabled {
			return cp.Revision, nil
		}
	}
	return "", nil
}

// inOrder yields the counts by version, ascending; what is no version is left out.
func inOrder(counts map[string]int) iter.Seq2[*semver.Version, int] {
	return func(yield func(*semver.Version, int) bool) {
		for _, v := range parsed(slices.Collect(maps.Keys(counts))) {
			if !yield(v, counts[v.String()]) {
				return
			}
		}
	}
}
