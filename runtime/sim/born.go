package sim

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/sim/rbac"
)

// bornState is one object with which every cluster is born.
type bornState struct {
	key   objectKey
	entry *entry
}

// bornRoles are the roles and bindings of a cluster born at the usual time,
// made once for the process: a stored state never changes, so that clusters
// share them.
var bornRoles = sync.OnceValues(func() ([]bornState, error) { return bornAt(clock0) })

// bornAt makes the roles and bindings of a new cluster. They take no uid and
// no resourceVersion from the cluster's counters, and one that was not changed
// since is in no log and no snapshot.
func bornAt(t time.Time) ([]bornState, error) {
	objs, err := rbac.Bootstrap()
	if err != nil {
		return nil, err
	}
	out := make([]bornState, len(objs))
	for i, u := range objs {
		gr := schema.GroupResource{Group: rbac.Group, Resource: strings.ToLower(u.GetKind()) + "s"}
		sum := sha256.Sum256(fmt.Append(nil, gr, u.GetNamespace(), u.GetName()))
		u.SetUID(types.UID(formatUID(sum)))
		u.SetResourceVersion("1")
		setMeta(u, "creationTimestamp", t.UTC().Format(time.RFC3339))
		out[i] = bornState{objectKey{gr, u.GetNamespace(), u.GetName()}, &entry{obj: u, rv: 1, born: true}}
	}
	return out, nil
}

// beBorn puts the objects of a new cluster into the store.
func (c *Cluster) beBorn() error {
	make := bornRoles
	if c.now != clock0 {
		make = func() ([]bornState, error) { return bornAt(c.now) }
	}
	states, err := make()
	if err != nil {
		return fmt.Errorf("simulated cluster: roles: %w", err)
	}
	for _, s := range states {
		c.st.place(s.key, nil, s.entry)
	}
	c.births = states
	return nil
}

// deadBorn are the keys of the objects that the cluster was born with and that
// are there no longer.
func (c *Cluster) deadBorn() []objectKey {
	var out []objectKey
	for _, s := range c.births {
		if c.st.get(s.key) == nil {
			out = append(out, s.key)
		}
	}
	return out
}
