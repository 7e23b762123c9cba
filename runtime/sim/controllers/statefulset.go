package controllers

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// statefulSetController runs pods with stable names in the order of their
// ordinals. maxUnavailable (an alpha field) is taken as one.
type statefulSetController struct{}

func (statefulSetController) Name() string { return "statefulset-controller" }

func (statefulSetController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grStatefulSets, grPods}
}

func (statefulSetController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr != grStatefulSets {
		return 0
	}
	set := w.Get(gr, namespace, name)
	if set == nil {
		return 0
	}
	s := &stateful{w: w, set: set, minReady: number(set.Object, 0, "spec", "minReadySeconds")}
	if deleting(set) {
		return 0
	}
	var err error
	if s.history, err = syncHistory(w, set, "controller.kubernetes.io/hash"); err != nil {
		w.Event(set, eventWarning, "FailedCreate", "Error creating revision: "+reasonOf(err))
		return retryDelay
	}
	s.resolveRevisions()
	s.load()
	again := time.Duration(0)
	if err := s.reconcile(); err != nil {
		again = retryDelay
	}
	s.load()
	return sooner(sooner(again, s.wait), s.writeStatus())
}

// stateful is one look at a StatefulSet.
type stateful struct {
	w        sim.World
	set      *unstructured.Unstructured
	history  history
	minReady int64
	wait     time.Duration // until a pod that is ready becomes available

	start, replicas   int64
	current, update   string // revision names
	currentRevision   *unstructured.Unstructured
	slots             []*unstructured.Unstructured // by ordinal; nil is missing
	condemned, extant []*unstructured.Unstructured // beyond the replicas; all pods
}

func (s *stateful) resolveRevisions() {
	s.start = number(s.set.Object, 0, "spec", "ordinals", "start")
	s.replicas = number(s.set.Object, 1, "spec", "replicas")
	s.update = s.history.update.GetName()
	s.current = text(s.set.Object, "status", "currentRevision")
	s.currentRevision = s.history.named(s.current)
	if s.currentRevision == nil {
		s.current, s.currentRevision = s.update, s.history.update
	}
}

// load sorts the pods into slots.
func (s *stateful) load() {
	s.slots = make([]*unstructured.Unstructured, s.replicas)
	s.condemned, s.extant, s.wait = nil, nil, 0
	for _, p := range s.w.Owned(grPods, s.set.GetNamespace(), uidOf(s.set)) {
		n, ok := ordinalOf(s.set.GetName(), p.GetName())
		if !ok {
			continue
		}
		s.extant = append(s.extant, p)
		if n >= s.start && n < s.start+s.replicas {
			s.slots[n-s.start] = p
		} else {
			s.condemned = append(s.condemned, p)
		}
	}
	sort.Slice(s.condemned, func(i, j int) bool {
		a, _ := ordinalOf(s.set.GetName(), s.condemned[i].GetName())
		b, _ := ordinalOf(s.set.GetName(), s.condemned[j].GetName())
		return a > b
	})
}

func ordinalOf(set, pod string) (int64, bool) {
	suffix, ok := strings.CutPrefix(pod, set+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(suffix, 10, 64)
	return n, err == nil && n >= 0
}

func (s *stateful) monotonic() bool {
	return text(s.set.Object, "spec", "podManagementPolicy") != "Parallel"
}

// healthy reports whether a pod is running, ready and available; what is
// missing may only be time.
func (s *stateful) healthy(p *unstructured.Unstructured) bool {
	ok, wait := available(p, s.minReady, s.w.Now())
	s.wait = sooner(s.wait, wait)
	return ok && text(p.Object, "status", "phase") == "Running"
}

// reconcile fills the slots in order, removes condemned pods from the end,
// and then updates outdated pods from the end, one at a time. With the
// ordered policy each of these waits for the one before to be healthy, a
// broken pod of a bad template included: it has to be deleted by hand, as on
// a real cluster.
func (s *stateful) reconcile() error {
	wait, err := s.fill()
	if err != nil || wait {
		return err
	}
	if wait, err = s.shrink(); err != nil || wait {
		return err
	}
	if text(s.set.Object, "spec", "updateStrategy", "type") == "OnDelete" {
		return nil
	}
	return s.updateLast()
}

func (s *stateful) fill() (wait bool, err error) {
	for i, p := range s.slots {
		if p != nil && finished(p) && !deleting(p) {
			if err := deletePod(s.w, s.set, p); err != nil {
				return true, err
			}
			p = nil
		}
		if p == nil {
			if err := s.createSlot(s.start + int64(i)); err != nil {
				return true, err
			}
			if s.monotonic() {
				return true, nil
			}
			continue
		}
		if s.monotonic() && !s.healthy(p) {
			return true, nil
		}
	}
	return false, nil
}

func (s *stateful) createSlot(ordinal int64) error {
	name, revision := slotName(s.set, ordinal), s.history.update
	if s.keepsCurrent(ordinal) {
		revision = s.currentRevision
	}
	if err := s.claims(name); err != nil {
		s.w.Event(s.set, eventWarning, "FailedCreate", fmt.Sprintf("create Claim for Pod %s failed: %s", name, reasonOf(err)))
		return err
	}
	_, err := s.w.Create(slotPod(s.set, templateOf(revision), revision.GetName(), ordinal))
	if err != nil {
		s.w.Event(s.set, eventWarning, "FailedCreate", fmt.Sprintf("Create Pod %s in StatefulSet %s failed error: %s", name, s.set.GetName(), reasonOf(err)))
		return err
	}
	s.w.Event(s.set, eventNormal, "SuccessfulCreate", fmt.Sprintf("Create Pod %s in StatefulSet %s successful", name, s.set.GetName()))
	return nil
}

// slotPod is the pod of an ordinal.
func slotPod(set *unstructured.Unstructured, template map[string]any, revision string, ordinal int64) *unstructured.Unstructured {
	name := slotName(set, ordinal)
	pod := podFrom(set, template, name, map[string]string{
		labelRevision: revision, "statefulset.kubernetes.io/pod-name": name,
		"apps.kubernetes.io/pod-index": strconv.FormatInt(ordinal, 10),
	})
	spec := table(pod.Object, "spec")
	spec["hostname"] = name
	if svc := text(set.Object, "spec", "serviceName"); svc != "" {
		spec["subdomain"] = svc
	}
	mountClaims(set, name, spec)
	pod.SetGenerateName(set.GetName() + "-")
	return pod
}

func slotName(set *unstructured.Unstructured, ordinal int64) string {
	return set.GetName() + "-" + strconv.FormatInt(ordinal, 10)
}

// keepsCurrent reports whether a new pod of this ordinal still gets the
// current revision: below the partition, or, without one, in the part of the
// set that a running update has not reached.
func (s *stateful) keepsCurrent(ordinal int64) bool {
	if text(s.set.Object, "spec", "updateStrategy", "type") == "OnDelete" {
		return false
	}
	if has(s.set.Object, "spec", "updateStrategy", "rollingUpdate") {
		return ordinal < s.start+s.partition()
	}
	return ordinal < s.start+number(s.set.Object, 0, "status", "currentReplicas")
}

func (s *stateful) partition() int64 {
	return number(s.set.Object, 0, "spec", "updateStrategy", "rollingUpdate", "partition")
}

func claimName(template any, pod string) string {
	return text(template, "metadata", "name") + "-" + pod
}

// claims makes the pod's PersistentVolumeClaims. Nothing binds them: pods do
// not wait for volumes in the simulated cluster.
func (s *stateful) claims(pod string) error {
	for _, t := range items(s.set.Object, "spec", "volumeClaimTemplates") {
		name := claimName(t, pod)
		if s.w.Get(grClaims, s.set.GetNamespace(), name) != nil {
			continue
		}
		meta := map[string]any{"name": name, "namespace": s.set.GetNamespace()}
		if l := table(s.set.Object, "spec", "selector", "matchLabels"); len(l) > 0 {
			meta["labels"] = copyMap(l)
		}
		_, err := s.w.Create(&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": deepCopy(table(t, "spec")),
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

func mountClaims(set *unstructured.Unstructured, pod string, spec map[string]any) {
	templates := items(set.Object, "spec", "volumeClaimTemplates")
	if len(templates) == 0 {
		return
	}
	volumes := append([]any(nil), items(spec, "volumes")...)
	for _, t := range templates {
		volumes = append(volumes, map[string]any{
			"name":                  text(t, "metadata", "name"),
			"persistentVolumeClaim": map[string]any{"claimName": claimName(t, pod)},
		})
	}
	spec["volumes"] = volumes
}

func (s *stateful) shrink() (wait bool, err error) {
	for _, p := range s.condemned {
		if deleting(p) {
			if s.monotonic() {
				return true, nil
			}
			continue
		}
		if err := s.remove(p); err != nil || s.monotonic() {
			return true, err
		}
	}
	return false, nil
}

func (s *stateful) remove(p *unstructured.Unstructured) error {
	if err := s.w.Delete(grPods, p.GetNamespace(), p.GetName()); err != nil {
		return err
	}
	s.w.Event(s.set, eventNormal, "SuccessfulDelete", fmt.Sprintf("Delete Pod %s in StatefulSet %s successful", p.GetName(), s.set.GetName()))
	return nil
}

// updateLast deletes the highest outdated pod, when all above it are healthy.
func (s *stateful) updateLast() error {
	for i := int64(len(s.slots)) - 1; i >= s.partition(); i-- {
		p := s.slots[i]
		if p == nil {
			return nil
		}
		if text(p.Object, "metadata", "labels", labelRevision) != s.update && !deleting(p) {
			return s.remove(p)
		}
		if !s.healthy(p) {
			return nil
		}
	}
	return nil
}

func (s *stateful) writeStatus() time.Duration {
	var nReady, nAvailable, nCurrent, nUpdated int64
	used := map[string]bool{s.current: true, s.update: true}
	for _, p := range s.extant {
		revision := text(p.Object, "metadata", "labels", labelRevision)
		used[revision] = true
		if ready(p) {
			nReady++
		}
		if s.healthy(p) {
			nAvailable++
		}
		if deleting(p) {
			continue
		}
		if revision == s.current {
			nCurrent++
		}
		if revision == s.update {
			nUpdated++
		}
	}
	replicas := int64(len(s.extant))
	onDelete := text(s.set.Object, "spec", "updateStrategy", "type") == "OnDelete"
	if !onDelete && nUpdated == replicas && nReady == replicas && replicas == s.replicas {
		s.current, nCurrent = s.update, nUpdated
	}
	status := map[string]any{
		"observedGeneration": number(s.set.Object, 0, "metadata", "generation"),
		"replicas":           replicas, "availableReplicas": nAvailable,
		"currentRevision": s.current, "updateRevision": s.update, "collisionCount": number(s.set.Object, 0, "status", "collisionCount"),
	}
	setCount(status, "readyReplicas", nReady)
	setCount(status, "currentReplicas", nCurrent)
	setCount(status, "updatedReplicas", nUpdated)
	again := setStatus(s.w, s.set, status)
	limit := number(s.set.Object, 10, "spec", "revisionHistoryLimit")
	if err := s.history.trim(s.w, int(limit), used); err != nil {
		again = sooner(again, retryDelay)
	}
	return sooner(again, s.wait)
}
