package sim

// AdminAgent is the user agent of requests that a test makes for itself, to
// arrange or to look. They are neither logged nor struck by faults.
const AdminAgent = "sim-admin"

// Clone is an independent cluster in memory with the same objects, uids,
// resourceVersions, virtual time and options. Faults, admission hooks, denials,
// watches and the request log are not taken over. States of objects never
// change, so that they are shared and a clone is cheap.
func (c *Cluster) Clone() *Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := newCluster(c.opts)
	if err != nil {
		panic(err) // c was made in the same way
	}
	n.lock()
	defer n.unlock()
	n.st.rv, n.seq, n.now, n.defs = c.st.rv, c.seq, c.now, c.defs
	for _, k := range c.deadBorn() {
		n.st.table(k.gr).delete(nsName{k.namespace, k.name})
	}
	for _, k := range c.allKeys() {
		e := c.st.get(k)
		n.st.place(k, nil, e)
		if k.gr == grCRDs {
			n.crdChanged(change{rv: e.rv, key: k, next: e})
		}
	}
	n.st.floor = n.st.rv
	n.resync()
	n.settle()
	return n
}
