// Package sim is the simulated cluster: a Kubernetes API server in the process,
// with real request semantics over HTTP, deterministic controllers on a virtual
// clock, a model of Istio's injection, and faults on demand.
//
// Writes of clients are entered in managedFields by the upstream field manager,
// status writes of controllers by trackStatus, and pods that are alike by the
// entry of the first of them (trackNew), under the name of the component that
// would make them: kube-controller-manager, kubelet, pilot-discovery. What
// controllers change in pods, Endpoints and EndpointSlices afterwards is not
// entered anew: running the field manager over it nearly doubles the time in
// which a mesh of 60 workloads comes up. For the same reason a pod's condition
// PodScheduled belongs to the kubelet here.
//
// It knows nothing of runbooks, engines or journals. Clients reach it as they
// reach any cluster, through a rest.Config.
package sim
