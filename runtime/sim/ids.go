package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// digest is the next pseudo-random block: a function of the seed and of how
// many were drawn before, so that a reopened cluster goes on in the sequence.
func (c *Cluster) digest() [32]byte {
	c.seq++
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(c.opts.Seed)) // #nosec G115 -- the bits, not the number, matter
	binary.BigEndian.PutUint64(b[8:], c.seq)
	return sha256.Sum256(b[:])
}

// uid makes a version-4 UUID.
func (c *Cluster) uid() string { return formatUID(c.digest()) }

// rehearse draws from another sequence until the returned function is called: a
// dry run must not give out what the real write will, nor change it.
func (c *Cluster) rehearse() (end func()) {
	seq := c.seq
	c.seq |= 1 << 63
	return func() { c.seq = seq }
}

func formatUID(d [32]byte) string {
	d[6] = d[6]&0x0f | 0x40
	d[8] = d[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", d[0:4], d[4:6], d[6:8], d[8:10], d[10:16])
}

// suffix makes the five characters that generateName appends, from the same
// alphabet as the API server's (k8s.io/apimachinery/pkg/util/rand).
func (c *Cluster) suffix() string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	d := c.digest()
	b := make([]byte, 5)
	for i := range b {
		b[i] = alphabet[int(d[i])%len(alphabet)]
	}
	return string(b)
}

func (c *Cluster) timestamp() string { return c.now.UTC().Format(time.RFC3339) }

func sortKeys(keys []objectKey) { slices.SortFunc(keys, compareKeys) }

// compareVersions orders API versions as the server does: v2 above v1, v1
// above v1beta1, that above v1alpha3.
func compareVersions(a, b string) int { return version.CompareKubeAwareVersionStrings(a, b) }

// ownerKey is the key of the object's controller owner, stored or not.
func (c *Cluster) ownerKey(e *entry, namespace string) (objectKey, bool) {
	o := metav1.GetControllerOf(e.obj)
	if o == nil {
		return objectKey{}, false
	}
	return c.refKey(*o, namespace)
}

// refKey is the key that an owner reference names.
func (c *Cluster) refKey(o metav1.OwnerReference, namespace string) (objectKey, bool) {
	gv, err := schema.ParseGroupVersion(o.APIVersion)
	if err != nil {
		return objectKey{}, false
	}
	res := c.reg.byKind[schema.GroupKind{Group: gv.Group, Kind: o.Kind}]
	if res == nil {
		return objectKey{}, false
	}
	if !res.namespaced {
		namespace = ""
	}
	return objectKey{res.gr(), namespace, o.Name}, true
}

// recordEvent stores a core/v1 Event about obj, or counts it on one that says
// the same.
func (c *Cluster) recordEvent(source string, obj *unstructured.Unstructured, kind, reason, message string) {
	ns := obj.GetNamespace()
	if ns == "" {
		ns = "default"
	}
	sum := sha256.Sum256([]byte(string(obj.GetUID()) + "\x00" + source + "\x00" + kind + "\x00" + reason + "\x00" + message))
	name := fmt.Sprintf("%s.%x", obj.GetName(), sum[:8])
	if e := c.st.get(objectKey{grEvents, ns, name}); e != nil {
		next := e.obj.DeepCopy()
		n, _, _ := unstructured.NestedInt64(next.Object, "count")
		next.Object["count"], next.Object["lastTimestamp"] = n+1, c.timestamp()
		c.commit(objectKey{grEvents, ns, name}, next)
		return
	}
	if in := c.st.get(objectKey{grNamespaces, "", ns}); in == nil || in.obj.GetDeletionTimestamp() != nil {
		return // the real server refuses it, and the recorder drops it
	}
	ev := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"name": name, "namespace": ns, "uid": c.uid(), "creationTimestamp": c.timestamp()},
		"involvedObject": map[string]any{
			"apiVersion": obj.GetAPIVersion(), "kind": obj.GetKind(), "name": obj.GetName(), "namespace": obj.GetNamespace(),
			"uid": string(obj.GetUID()), "resourceVersion": obj.GetResourceVersion(),
		},
		"type": kind, "reason": reason, "message": message, "count": int64(1),
		"firstTimestamp": c.timestamp(), "lastTimestamp": c.timestamp(), "eventTime": nil,
		"source": map[string]any{"component": source}, "reportingComponent": source, "reportingInstance": "",
	}}
	k := objectKey{grEvents, ns, name}
	c.commit(k, ev)
	if c.st.backed != nil {
		c.st.backed.happened(k)
	}
}
