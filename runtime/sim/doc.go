// Package sim is the simulated cluster: a Kubernetes API server in the process,
// with real request semantics over HTTP, deterministic controllers on a virtual
// clock, a model of Istio's injection, and faults on demand.
//
// Writes of clients are entered in managedFields by the upstream field manager,
// status writes of controllers by trackStatus, under kube-controller-manager or
// kubelet. Objects that controllers create (ReplicaSets, pods, EndpointSlices)
// have no entry for what they were created with: running the field manager
// over them, and over each later change of them, nearly doubles the time in
// which a mesh of 60 workloads comes up, and only a client that applies to
// another controller's ReplicaSet or pod would see the difference. For the same
// reason a pod's condition PodScheduled belongs to the kubelet here.
//
// It knows nothing of runbooks, engines or journals. Clients reach it as they
// reach any cluster, through a rest.Config.
package sim
