// Package plane runs a real Kubernetes control plane on loopback for tests:
// etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with kwok
// in the place of kubelets, and nodesim, which runs a real istiod for each
// istiod pod and carries the API server's webhook calls to it. Nothing needs a
// container or root.
//
// Every process is known by a pid file and is signalled only after its
// executable has been compared with that file's, so that a pid that the system
// gave away again is never hit.
package plane
