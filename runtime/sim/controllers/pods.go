package controllers

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"sort"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/rand"

	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim"
)

// active reports whether a pod counts as one of its owner's replicas.
func active(pod *unstructured.Unstructured) bool {
	return !deleting(pod) && !finished(pod)
}

// finished reports whether a pod's containers have ended for good.
func finished(pod *unstructured.Unstructured) bool {
	phase := text(pod.Object, "status", "phase")
	return phase == "Succeeded" || phase == "Failed"
}

// ready reports whether a pod is Ready. A pod that is being deleted is not.
func ready(pod *unstructured.Unstructured) bool {
	return !deleting(pod) && isTrue(pod, "Ready")
}

// available reports whether a pod has been ready for minReady seconds, and if
// not yet, how long until it is (zero when nothing but time is not missing).
func available(pod *unstructured.Unstructured, minReady int64, now time.Time) (bool, time.Duration) {
	if !ready(pod) {
		return false, 0
	}
	if minReady <= 0 {
		return true, 0
	}
	since := instant(text(condition(at(pod.Object, "status"), "Ready"), "lastTransitionTime"))
	left := since.Add(time.Duration(minReady) * time.Second).Sub(now)
	return left <= 0, max(left, 0)
}

// activePods are the active pods that owner controls, ordered by name.
func activePods(w sim.World, owner *unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, p := range w.Owned(grPods, owner.GetNamespace(), uidOf(owner)) {
		if active(p) {
			out = append(out, p)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].GetName() < out[j].GetName() })
	return out
}

// podFrom makes a pod from owner's pod template, with extra labels.
func podFrom(owner *unstructured.Unstructured, template map[string]any, name string, labels map[string]string) *unstructured.Unstructured {
	meta := map[string]any{
		"name": name, "namespace": owner.GetNamespace(), "ownerReferences": ownedBy(owner),
	}
	all := map[string]any{}
	for k, v := range table(template, "metadata", "labels") {
		all[k] = v
	}
	for k, v := range labels {
		all[k] = v
	}
	if len(all) > 0 {
		meta["labels"] = all
	}
	if a := table(template, "metadata", "annotations"); len(a) > 0 {
		meta["annotations"] = copyMap(a)
	}
	if f := items(template, "metadata", "finalizers"); len(f) > 0 {
		meta["finalizers"] = append([]any(nil), f...)
	}
	spec, _ := deepCopy(table(template, "spec")).(map[string]any)
	if spec == nil {
		spec = map[string]any{}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec,
	}}
}

// templateHash names a pod template, as pod-template-hash and
// controller-revision-hash do: ten characters that spell no words. The real
// controllers hash their Go structs, so the values differ from theirs.
func templateHash(template any, collisions int64) string {
	h := fnv.New32a()
	// Decoded JSON always encodes, with sorted keys.
	data, err := plain.Encode([]any{template, collisions})
	if err != nil {
		data = []byte(err.Error())
	}
	_, _ = h.Write(data) // a hash never fails to write
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// digest is a stable sha256 of text, in hexadecimal.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// spread spreads text over a small range of integers.
func spread(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // a hash never fails to write
	return h.Sum32()
}

// reasonOf is the short cause of an API error, for conditions and events.
func reasonOf(err error) string { return strings.TrimSpace(err.Error()) }
