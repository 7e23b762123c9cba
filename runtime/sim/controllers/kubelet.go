package controllers

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// Annotations on a pod (or pod template) by which a test or a generated mesh
// steers the simulated kubelet. An image whose name ends in "-bad" crash-loops
// without any annotation.
const (
	// AnnotationReadyAfter is the time from the start of a pod's containers
	// until it is ready, a Go duration; 3s when absent.
	AnnotationReadyAfter = "sim.rutter.dev/ready-after"
	// AnnotationNeverReady keeps a pod running but not ready when "true".
	AnnotationNeverReady = "sim.rutter.dev/never-ready"
	// AnnotationCrashLoop makes a pod's first container crash-loop when "true".
	AnnotationCrashLoop = "sim.rutter.dev/crash-loop"
	// AnnotationCompleteAfter is how long the containers of a pod that is not
	// always restarted run until they exit with code 0; 2s when absent.
	AnnotationCompleteAfter = "sim.rutter.dev/complete-after"
)

const (
	defaultReadyAfter    = 3 * time.Second
	defaultCompleteAfter = 2 * time.Second
	initDuration         = time.Second // of each init container that ends
	crashAfter           = time.Second // from start to crash
	terminateAfter       = time.Second // from the deletion request to the end
	firstBackOff         = 10 * time.Second
	maxBackOff           = 5 * time.Minute
)

// kubelet runs the pods of all Nodes: it moves their status along a timeline
// that it reads from the status itself.
type kubelet struct{}

func (kubelet) Name() string { return "kubelet" }

func (kubelet) Watches() []schema.GroupResource { return []schema.GroupResource{grPods} }

func (k kubelet) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr != grPods {
		return 0
	}
	pod := w.Get(gr, namespace, name)
	if pod == nil {
		return 0
	}
	if deleting(pod) {
		return k.terminate(w, pod)
	}
	if text(pod.Object, "spec", "nodeName") == "" || finished(pod) {
		return 0
	}
	m := newMachine(w, pod)
	status := m.advance()
	again := setStatus(w, pod, status)
	for _, e := range m.events {
		w.Event(pod, e.kind, e.reason, e.message)
	}
	return sooner(m.wait, again)
}

// terminate ends a pod some time after its deletion was asked for, or at the
// end of its grace period when that is shorter.
func (kubelet) terminate(w sim.World, pod *unstructured.Unstructured) time.Duration {
	deadline := instant(text(pod.Object, "metadata", "deletionTimestamp"))
	grace := time.Duration(number(pod.Object, 0, "metadata", "deletionGracePeriodSeconds")) * time.Second
	if due := deadline.Add(-grace).Add(min(grace, terminateAfter)); due.After(w.Now()) {
		return due.Sub(w.Now())
	}
	if len(items(pod.Object, "metadata", "finalizers")) > 0 && grace == 0 {
		return 0 // ended already; only the finalizers hold it
	}
	if text(pod.Object, "status", "phase") == "Running" {
		for _, c := range items(pod.Object, "spec", "containers") {
			w.Event(pod, eventNormal, "Killing", "Stopping container "+text(c, "name"))
		}
	}
	if err := w.End(grPods, pod.GetNamespace(), pod.GetName()); err != nil {
		return retryDelay
	}
	return 0
}

type podEvent struct{ kind, reason, message string }

// machine computes a pod's next status from its present one and the time. It
// takes every transition that is due and reports when the next one is.
type machine struct {
	pod    *unstructured.Unstructured
	spec   map[string]any
	prior  map[string]any // the stored status
	now    time.Time
	wait   time.Duration
	events []podEvent
	hostIP string
}

func newMachine(w sim.World, pod *unstructured.Unstructured) *machine {
	m := &machine{pod: pod, spec: table(pod.Object, "spec"), prior: table(pod.Object, "status"), now: w.Now()}
	if n := w.Get(grNodes, "", text(m.spec, "nodeName")); n != nil {
		for _, a := range items(n.Object, "status", "addresses") {
			if text(a, "type") == "InternalIP" {
				m.hostIP = text(a, "address")
			}
		}
	}
	return m
}

// until notes that something is due at t, and reports whether it is due now.
func (m *machine) until(t time.Time) bool {
	if !t.After(m.now) {
		return true
	}
	m.wait = sooner(m.wait, t.Sub(m.now))
	return false
}

func (m *machine) event(kind, reason, message string) {
	m.events = append(m.events, podEvent{kind, reason, message})
}

func (m *machine) duration(annotation string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(annotationOf(m.pod, annotation))
	if err != nil || d < 0 {
		return otherwise
	}
	return d
}

func (m *machine) annotated(key string) bool { return annotationOf(m.pod, key) == "true" }

func (m *machine) advance() map[string]any {
	st := copyMap(m.prior)
	if text(st, "startTime") == "" {
		st["startTime"] = stamp(m.now)
	}
	m.addresses(st)
	inits, initialized := m.initContainers()
	if len(inits) > 0 {
		st["initContainerStatuses"] = inits
	}
	mains, allReady, ended := m.mainContainers(initialized)
	st["containerStatuses"] = mains
	for i, c := range items(m.spec, "initContainers") {
		if isSidecar(c) && !flag(inits[i], "ready") {
			allReady = false
		}
	}
	if qos := text(st, "qosClass"); qos == "" {
		st["qosClass"] = "Burstable"
	}
	st["phase"] = phase(initialized, ended, mains)
	done := st["phase"] == "Succeeded"
	st["conditions"] = m.conditions(initialized, allReady && !done, done, mains)
	return st
}

func phase(initialized, ended bool, mains []any) string {
	if !initialized {
		return "Pending"
	}
	if !ended {
		return "Running"
	}
	for _, c := range mains {
		if number(c, 0, "state", "terminated", "exitCode") != 0 {
			return "Failed"
		}
	}
	return "Succeeded"
}

// addresses gives the pod its IP, a function of its namespace, name and UID.
func (m *machine) addresses(st map[string]any) {
	if m.hostIP != "" {
		st["hostIP"] = m.hostIP
		st["hostIPs"] = []any{map[string]any{"ip": m.hostIP}}
	}
	if text(st, "podIP") != "" {
		return
	}
	ip := m.hostIP
	if !flag(m.spec, "hostNetwork") {
		h := spread(m.pod.GetNamespace() + "/" + m.pod.GetName() + "/" + uidOf(m.pod))
		ip = fmt.Sprintf("10.%d.%d.%d", 64+(h>>24)%128, (h>>16)&0xff, 1+(h&0xffff)%254)
	}
	if ip == "" {
		return
	}
	st["podIP"] = ip
	st["podIPs"] = []any{map[string]any{"ip": ip}}
}

func isSidecar(container any) bool { return text(container, "restartPolicy") == "Always" }

// initContainers runs init containers one after the other; native sidecars
// only have to start.
func (m *machine) initContainers() (statuses []any, done bool) {
	done = true
	for _, c := range items(m.spec, "initContainers") {
		old := statusOf(m.prior, "initContainerStatuses", c)
		if !done {
			statuses = append(statuses, m.waiting(c, old, "PodInitializing"))
			continue
		}
		next := m.initContainer(c, old)
		statuses = append(statuses, next)
		if isSidecar(c) {
			done = has(next, "state", "running")
		} else {
			done = has(next, "state", "terminated") && number(next, 1, "state", "terminated", "exitCode") == 0
		}
	}
	return statuses, done
}

func (m *machine) initContainer(c any, old map[string]any) map[string]any {
	if has(old, "state", "terminated") && number(old, 1, "state", "terminated", "exitCode") == 0 {
		return old
	}
	if m.bad(c) {
		return m.crashing(c, old, true)
	}
	next := m.running(c, old)
	if isSidecar(c) {
		next["ready"], next["started"] = true, true
		return next
	}
	began := instant(text(next, "state", "running", "startedAt"))
	if !m.until(began.Add(initDuration)) {
		next["started"] = false
		return next
	}
	next["ready"], next["started"] = true, false
	next["state"] = map[string]any{"terminated": m.terminated(next, 0, "Completed", began.Add(initDuration))}
	return next
}

func (m *machine) mainContainers(initialized bool) (statuses []any, allReady, ended bool) {
	allReady, ended = initialized, initialized
	for i, c := range items(m.spec, "containers") {
		old := statusOf(m.prior, "containerStatuses", c)
		var next map[string]any
		switch {
		case !initialized:
			next = m.waiting(c, old, waitReason(m.spec))
		case m.bad(c) || (i == 0 && m.annotated(AnnotationCrashLoop)):
			next = m.crashing(c, old, text(m.spec, "restartPolicy") != "Never")
		default:
			next = m.mainContainer(c, old)
		}
		statuses = append(statuses, next)
		allReady = allReady && flag(next, "ready")
		ended = ended && has(next, "state", "terminated")
	}
	return statuses, allReady, ended
}

func waitReason(spec map[string]any) string {
	if len(items(spec, "initContainers")) > 0 {
		return "PodInitializing"
	}
	return "ContainerCreating"
}

func (m *machine) mainContainer(c any, old map[string]any) map[string]any {
	if has(old, "state", "terminated") && text(m.spec, "restartPolicy") != "Always" && has(m.spec, "restartPolicy") {
		return old
	}
	next := m.running(c, old)
	began := instant(text(next, "state", "running", "startedAt"))
	if p := text(m.spec, "restartPolicy"); p == "Never" || p == "OnFailure" {
		end := began.Add(m.duration(AnnotationCompleteAfter, defaultCompleteAfter))
		if m.until(end) {
			next["ready"], next["started"] = false, false
			next["state"] = map[string]any{"terminated": m.terminated(next, 0, "Completed", end)}
			return next
		}
	}
	if !m.until(began.Add(m.duration(AnnotationReadyAfter, defaultReadyAfter))) {
		next["ready"], next["started"] = false, false
		return next
	}
	never := m.annotated(AnnotationNeverReady)
	if never && (flag(old, "ready") || !flag(old, "started")) {
		m.event(eventWarning, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
	}
	next["ready"], next["started"] = !never, true
	return next
}

// conditions brings the pod's conditions up to date, in the kubelet's order.
func (m *machine) conditions(initialized, allReady, done bool, mains []any) []any {
	now, out := stamp(m.now), items(m.prior, "conditions")
	set := func(kind string, ok bool, reason, message string) {
		value := "True"
		if !ok {
			value = "False"
		}
		if ok && !done {
			reason, message = "", ""
		}
		out = withCondition(out, newCondition(condition(m.prior, kind), kind, value, reason, message, now))
	}
	unready := ""
	for _, c := range mains {
		if !flag(c, "ready") {
			unready += " " + text(c, "name")
		}
	}
	reason, message := "ContainersNotReady", "containers with unready status: ["+strings.TrimSpace(unready)+"]"
	if done {
		reason, message = "PodCompleted", ""
	}
	set("PodReadyToStartContainers", !done, "", "")
	if done {
		set("Initialized", true, reason, message)
	} else {
		set("Initialized", initialized, "ContainersNotInitialized", "containers with incomplete status")
	}
	set("Ready", allReady, reason, message)
	set("ContainersReady", allReady, reason, message)
	set("PodScheduled", true, "", "")
	return out
}
