package lock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
)

// Info is what a Lease says of who holds the mesh.
type Info struct {
	Namespace string        `json:"namespace"`
	Run       string        `json:"run"`
	Holder    string        `json:"holder"` // the person
	Host      string        `json:"host"`
	Acquired  time.Time     `json:"acquired"`
	Renewed   time.Time     `json:"renewed"` // by the holder's clock
	Duration  time.Duration `json:"duration"`
	nonce     string        // sha256 of the nonce
	moves     int64         // leaseTransitions
}

// String says who holds the mesh, for a message.
func (i Info) String() string {
	return fmt.Sprintf("run %s, by %s on host %s, since %s, renewed %s",
		i.Run, i.Holder, i.Host, i.Acquired.UTC().Format(time.DateTime), i.Renewed.UTC().Format(time.TimeOnly))
}

// looksLive reports whether at now, by the reader's clock, the Lease has not
// run out; one that is renewed in the future cannot be told.
func (i Info) looksLive(now time.Time) bool {
	age := now.Sub(i.Renewed)
	return age >= -i.Duration && age < i.Duration
}

func sumOf(nonce string) string {
	h := sha256.Sum256([]byte(nonce))
	return hex.EncodeToString(h[:])
}

// newNonce is eight characters that are not misread from a screenshot.
func newNonce(rand io.Reader) (string, error) {
	const letters = "23456789bcdfghjkmnpqrstvwxz"
	b := make([]byte, 8)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", fmt.Errorf("nonce of the lock: %w", err)
	}
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:4]) + "-" + string(b[4:]), nil
}

func refIn(namespace string) cluster.Ref {
	return cluster.Ref{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Namespace: namespace, Name: Name}
}

// microTime is the format of metav1.MicroTime.
const microTime = "2006-01-02T15:04:05.000000Z07:00"

// object is the Lease that says i.
func (i Info) object() *cluster.Object {
	return &cluster.Object{Object: map[string]any{
		"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
		"metadata": map[string]any{
			"name": Name, "namespace": i.Namespace,
			"labels":      map[string]any{"app.kubernetes.io/managed-by": "rutter"},
			"annotations": map[string]any{annotationRun: i.Run, annotationHost: i.Host, annotationNonce: i.nonce},
		},
		"spec": map[string]any{
			"holderIdentity": i.Holder, "leaseDurationSeconds": int64(i.Duration / time.Second), "leaseTransitions": i.moves,
			"acquireTime": i.Acquired.UTC().Format(microTime), "renewTime": i.Renewed.UTC().Format(microTime),
		},
	}}
}

// read is what a Lease says. One that rutter did not write in this form is
// still somebody's.
func read(o *cluster.Object) Info {
	a := o.GetAnnotations()
	i := Info{Namespace: o.GetNamespace(), Run: a[annotationRun], Host: a[annotationHost], nonce: a[annotationNonce]}
	i.Holder, _, _ = unstructured.NestedString(o.Object, "spec", "holderIdentity")
	i.moves, _, _ = unstructured.NestedInt64(o.Object, "spec", "leaseTransitions")
	if s, ok, _ := unstructured.NestedInt64(o.Object, "spec", "leaseDurationSeconds"); ok {
		i.Duration = time.Duration(s) * time.Second
	}
	if i.Duration <= 0 {
		i.Duration = Duration
	}
	i.Acquired, i.Renewed = timeAt(o, "acquireTime"), timeAt(o, "renewTime")
	return i
}

// timeAt is the zero time where there is none: a Lease without one has run out.
func timeAt(o *cluster.Object, field string) time.Time {
	s, _, _ := unstructured.NestedString(o.Object, "spec", field)
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Look reads who holds the mesh whose root is namespace; nil when nobody does.
func Look(ctx context.Context, r cluster.Reader, namespace string) (*Info, error) {
	o, err := r.Get(ctx, refIn(namespace))
	if errors.Is(err, cluster.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	i := read(o)
	if i.Holder == "" {
		return nil, nil
	}
	return &i, nil
}

// Live reports whether, as far as a glance can tell, i is being renewed.
func (i *Info) Live(now time.Time) bool { return i != nil && i.looksLive(now) }
