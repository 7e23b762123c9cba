package sim

import (
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// flight is a Fetch that was begun without the lock.
type flight struct {
	done chan struct{}
	objs []*unstructured.Unstructured
	err  error
}

// anticipate asks the backing for what somebody is about to look at before the lock
// is taken for it, so that several who look at different parts wait side by side.
// What came is taken in by need, with the lock, as if it had been asked for there.
// Without the lock.
func (c *Cluster) anticipate(gr schema.GroupResource, namespace, name string) {
	c.mu.Lock()
	var f *flight
	if b := c.st.backed; b != nil && !unasked(gr) {
		f = b.depart(gr, namespace, name)
	}
	c.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// depart begins to fetch what need would fetch first, or finds that it is under way;
// nil where nothing is to be fetched or only need can tell. The lock is held.
func (b *backed) depart(gr schema.GroupResource, namespace, name string) *flight {
	res, k := b.unknown(gr)
	if k == nil {
		return nil
	}
	switch {
	case name != "" && gr == grSecrets:
		return nil
	case !res.namespaced || namespace == "" && name == "":
		if k.refused != nil {
			return nil
		}
		namespace = ""
	case namespace == "":
		return nil
	default:
		if _, asked := k.ns[namespace]; asked {
			return nil
		}
	}
	part := Part{GroupVersionResource: res.stored(), Namespace: namespace}
	if f := b.coming[part]; f != nil {
		return f
	}
	if namespace != "" {
		if k.asked >= wideAfter {
			return nil
		}
		k.asked++
	}
	f := &flight{done: make(chan struct{})}
	b.coming[part] = f
	go func() {
		defer close(f.done)
		f.objs, f.err = b.src.Fetch(part)
	}()
	return f
}

// departed reports whether all of a kind in a namespace is under way.
func (b *backed) departed(res *resource, namespace string) bool {
	return b.coming[Part{GroupVersionResource: res.stored(), Namespace: namespace}] != nil
}

// arrive gives a part that is under way, or else fetches it.
func (b *backed) arrive(p Part) ([]*unstructured.Unstructured, error) {
	f := b.coming[p]
	if f == nil {
		return b.src.Fetch(p)
	}
	delete(b.coming, p)
	<-f.done
	return f.objs, f.err
}

// outdated reports whether an answer says that the backing has another version of an
// object than was fetched, or none. Who owns its fields says nothing of that.
func outdated(err error) bool {
	if !apierrors.IsConflict(err) {
		return apierrors.IsNotFound(err)
	}
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) || answer.Status().Details == nil {
		return true
	}
	return !slices.ContainsFunc(answer.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Type == metav1.CauseTypeFieldManagerConflict })
}
