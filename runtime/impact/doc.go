// Package impact tells the blast radius of one change: which pods and gateways
// are made anew at once, which come out otherwise at their next restart, and which
// never do. It makes the change on a twin of the cluster and lets that live on,
// and it has a sample pod of every workload injected before and after.
//
// It decides nothing by itself: what rolls is what plan.Rolled finds, what a
// workload's next pod is like is what the twin's admission makes of it, injectors
// included, what restart.outdated would restart is what mesh.Outdated says, and
// what reads its configuration only at its start is mesh.ReadAtStart's.
package impact
