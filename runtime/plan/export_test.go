package plan

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// Refill digests what r relies on in an object, as a run of the plan does.
func (r *Relied) Refill(o *unstructured.Unstructured) error { return r.fill(o) }

// RefillNames is Refill of what relies on which objects there are.
func (r *Relied) RefillNames(list []*unstructured.Unstructured) error { return r.fillNames(list) }
