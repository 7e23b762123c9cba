package restart

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

const (
	// silentMost is how long a node that does not report is waited for: as long
	// as Kubernetes itself waits before it gives the node's pods away (admission
	// plugin DefaultTolerationSeconds).
	silentMost  = 5 * time.Minute
	silentEvery = 5 * time.Second
)

// readyAtLast demands that every pod is ready now that the soak is over. A pod
// whose node does not report is not known to be bad: Kubernetes calls it unready
// until its kubelet is heard again, and after an outage of the API server that
// is every pod at once. Such a node is waited for.
func (d *driver) readyAtLast(items []*item) error {
	deadline := d.now().Add(silentMost)
	for {
		var silent map[string]bool // read when a pod is not ready
		waits := ""
		err := d.look(items, func(_ *item, p *cluster.Object) string {
			if podReady(p) {
				return ""
			}
			why := fmt.Sprintf("pod %s is not ready at the end of the soak", p.GetName())
			if silent == nil {
				var err error
				if silent, err = d.silentNodes(); err != nil {
					return fmt.Sprintf("%s, and whether its node reports can't be read: %v", why, err)
				}
			}
			node := text(p, "spec", "nodeName")
			switch {
			case !silent[node]:
				return why
			case !d.now().Before(deadline):
				return fmt.Sprintf("%s: its node %s has not reported for %s", why, node, silentMost)
			}
			waits = node
			return ""
		})
		if err != nil || waits == "" {
			return err
		}
		d.progress(fmt.Sprintf("%s: soaked, waiting for node %s, which does not report", d.wave.Name, waits))
		if err := d.c.Env.Clock.Sleep(d.c.Ctx, min(silentEvery, d.untilLook(silentEvery))); err != nil {
			return err
		}
		if err := d.healthy(true); err != nil {
			return err
		}
	}
}

// silentNodes are the nodes whose kubelet is not heard: the control plane says
// of them that it does not know whether they are ready (NodeStatusUnknown).
func (d *driver) silentNodes() (map[string]bool, error) {
	out := map[string]bool{}
	err := listAll(d.c, schema.GroupVersionKind{Version: "v1", Kind: "Node"}, "", func(o *cluster.Object) error {
		if c, ok := cluster.Condition(o, "Ready"); ok && c.Status == "Unknown" {
			out[o.GetName()] = true
		}
		return nil
	})
	return out, err
}
