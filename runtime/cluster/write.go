package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"rutter.dev/rutter/runtime/plain"
)

func nestedBool(o *Object, fields ...string) (bool, bool, error) {
	return unstructured.NestedBool(o.Object, fields...)
}

func dryRunOf(on bool) []string {
	if on {
		return []string{metav1.DryRunAll}
	}
	return nil
}

func subresource(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// write runs one write request and maps its error.
func (c *Client) write(ctx context.Context, ref Ref, dry bool, do func(context.Context, dynamic.ResourceInterface) (*Object, error)) (*Object, error) {
	ri, _, err := c.resourceOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	o, err := do(rctx, ri)
	if err != nil {
		q := c.request(ctx, ref.String(), ref, x)
		q.mutation = !dry
		return nil, q.mapError(err)
	}
	return o, nil
}

// Apply implements Writer. A resourceVersion or UID in obj is a precondition.
// An apply that was refused (409, so not made) only for fields that its own
// manager patched is sent again with force.
func (c *Client) Apply(ctx context.Context, obj *Object, o ApplyOptions) (*Object, error) {
	ref := RefOf(obj)
	raw, err := plain.Encode(Unmanaged(obj).Object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	manager := orElse(o.Manager, FieldManager)
	send := func(force bool) (*Object, error) {
		opts := metav1.PatchOptions{FieldManager: manager, Force: &force, DryRun: dryRunOf(o.DryRun)}
		return c.write(ctx, ref, o.DryRun, func(ctx context.Context, _ dynamic.ResourceInterface) (*Object, error) {
			return c.patchObject(ctx, ref, types.ApplyPatchType, raw, opts, "")
		})
	}
	got, err := send(o.Force)
	if !o.Force && withItself(err, manager) {
		return send(true)
	}
	return got, err
}

// withItself reports whether an apply was refused for nothing but what the same
// manager wrote by a patch or an update before: to the server those are two
// owners, one for each operation.
func withItself(err error, manager string) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict) && len(conflict.Fields) > 0 &&
		!slices.ContainsFunc(conflict.Fields, func(f FieldConflict) bool { return f.Manager != manager })
}

// Create implements Writer.
func (c *Client) Create(ctx context.Context, obj *Object, o WriteOptions) (*Object, error) {
	opts := metav1.CreateOptions{FieldManager: orElse(o.Manager, FieldManager), DryRun: dryRunOf(o.DryRun)}
	return c.write(ctx, RefOf(obj), o.DryRun, func(ctx context.Context, ri dynamic.ResourceInterface) (*Object, error) {
		return ri.Create(ctx, obj, opts, subresource(o.Subresource)...)
	})
}

// Replace implements Writer. Without a resourceVersion, in obj or o, it
// overwrites whatever is there.
func (c *Client) Replace(ctx context.Context, obj *Object, o WriteOptions) (*Object, error) {
	body := obj.DeepCopy()
	if o.ResourceVersion != "" {
		body.SetResourceVersion(o.ResourceVersion)
	}
	if o.UID != "" {
		body.SetUID(o.UID)
	}
	opts := metav1.UpdateOptions{FieldManager: orElse(o.Manager, FieldManager), DryRun: dryRunOf(o.DryRun)}
	return c.write(ctx, RefOf(obj), o.DryRun, func(ctx context.Context, ri dynamic.ResourceInterface) (*Object, error) {
		return ri.Update(ctx, body, opts, subresource(o.Subresource)...)
	})
}

// Patch implements Writer. Preconditions are put into the patch itself, which
// is the only place where the API server looks for them.
func (c *Client) Patch(ctx context.Context, ref Ref, pt types.PatchType, patch []byte, o WriteOptions) (*Object, error) {
	body, err := withPreconditions(pt, patch, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	opts := metav1.PatchOptions{FieldManager: orElse(o.Manager, FieldManager), DryRun: dryRunOf(o.DryRun)}
	got, err := c.write(ctx, ref, o.DryRun, func(ctx context.Context, _ dynamic.ResourceInterface) (*Object, error) {
		return c.patchObject(ctx, ref, pt, body, opts, o.Subresource)
	})
	return got, c.preconditionFailed(ctx, ref, pt, err, o)
}

// withPreconditions adds UID and resourceVersion to a patch: as fields to a
// merge, strategic or apply patch, as tests to a JSON patch.
func withPreconditions(pt types.PatchType, patch []byte, o WriteOptions) ([]byte, error) {
	if o.UID == "" && o.ResourceVersion == "" {
		return patch, nil
	}
	want := map[string]string{}
	if o.UID != "" {
		want["uid"] = string(o.UID)
	}
	if o.ResourceVersion != "" {
		want["resourceVersion"] = o.ResourceVersion
	}
	if pt == types.JSONPatchType {
		return withTests(patch, want)
	}
	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		return nil, fmt.Errorf("the patch is no JSON object: %w", err)
	}
	if m == nil {
		m = map[string]any{}
	}
	md, ok := m["metadata"].(map[string]any)
	if !ok {
		md = map[string]any{}
		m["metadata"] = md
	}
	for k, v := range want {
		md[k] = v
	}
	return plain.Encode(m)
}

func withTests(patch []byte, want map[string]string) ([]byte, error) {
	var ops []json.RawMessage
	if err := json.Unmarshal(patch, &ops); err != nil {
		return nil, fmt.Errorf("the JSON patch is no list: %w", err)
	}
	var tests []json.RawMessage
	for _, k := range []string{"uid", "resourceVersion"} {
		if v, ok := want[k]; ok {
			raw, err := json.Marshal(map[string]string{"op": "test", "path": "/metadata/" + k, "value": v})
			if err != nil {
				return nil, err
			}
			tests = append(tests, raw)
		}
	}
	return json.Marshal(append(tests, ops...))
}

// preconditionFailed finds the patches that failed for their precondition: the
// API server answers 422 to one with another UID (the field is immutable) and to
// a JSON patch whose test fails, the latter without saying why
// (k8s.io/apiserver handlers/patch.go), so that the object is read to tell. To
// the caller both are conflicts.
func (c *Client) preconditionFailed(ctx context.Context, ref Ref, pt types.PatchType, err error, o WriteOptions) error {
	var e *RequestError
	if !errors.As(err, &e) || e.Kind != ErrInvalid || o.UID == "" && o.ResourceVersion == "" {
		return err
	}
	failed := strings.Contains(e.Message, "metadata.uid")
	if !failed && pt == types.JSONPatchType {
		now, rerr := c.Get(ctx, ref)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		failed = o.UID != "" && now.GetUID() != o.UID || o.ResourceVersion != "" && now.GetResourceVersion() != o.ResourceVersion
	}
	if !failed {
		return err
	}
	out := *e
	out.Kind, out.Message = ErrConflict, "the object is not the one that was read before (UID or resourceVersion differs)"
	return &out
}

// Delete implements Writer.
func (c *Client) Delete(ctx context.Context, ref Ref, o WriteOptions) error {
	opts := deleteOptions(o)
	_, err := c.write(ctx, ref, o.DryRun, func(ctx context.Context, ri dynamic.ResourceInterface) (*Object, error) {
		return nil, ri.Delete(ctx, ref.Name, opts)
	})
	return err
}

func deleteOptions(o WriteOptions) metav1.DeleteOptions {
	prop := metav1.DeletionPropagation(orElse(o.Propagation, string(metav1.DeletePropagationBackground)))
	opts := metav1.DeleteOptions{PropagationPolicy: &prop, GracePeriodSeconds: o.GraceSeconds, DryRun: dryRunOf(o.DryRun)}
	if o.UID != "" || o.ResourceVersion != "" {
		opts.Preconditions = &metav1.Preconditions{}
		if o.UID != "" {
			opts.Preconditions.UID = &o.UID
		}
		if o.ResourceVersion != "" {
			opts.Preconditions.ResourceVersion = &o.ResourceVersion
		}
	}
	return opts
}

// Evict implements Writer through the policy/v1 eviction subresource, which
// honours disruption budgets. A refusal for a budget is ErrDisruption.
func (c *Client) Evict(ctx context.Context, ref Ref, o WriteOptions) error {
	ri, _, err := c.resourceOf(ctx, ref)
	if err != nil {
		return err
	}
	opts := deleteOptions(o)
	opts.PropagationPolicy = nil // of no meaning for a pod
	raw, err := json.Marshal(opts)
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	var del map[string]any
	if err := json.Unmarshal(raw, &del); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	ev := &Object{Object: map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata":      map[string]any{"name": ref.Name, "namespace": ref.Namespace},
		"deleteOptions": del,
	}}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	if _, err := ri.Create(rctx, ev, metav1.CreateOptions{DryRun: dryRunOf(o.DryRun)}, "eviction"); err != nil {
		q := c.request(ctx, "eviction of "+ref.String(), ref, x)
		q.mutation, q.eviction = !o.DryRun, true
		return q.mapError(err)
	}
	return nil
}

// DryRunApply implements Reader.
func (c *Client) DryRunApply(ctx context.Context, obj *Object, o ApplyOptions) (*Object, error) {
	o.DryRun = true
	return c.Apply(ctx, obj, o)
}

// DryRunPatch implements Reader.
func (c *Client) DryRunPatch(ctx context.Context, ref Ref, pt types.PatchType, patch []byte, o WriteOptions) (*Object, error) {
	o.DryRun = true
	return c.Patch(ctx, ref, pt, patch, o)
}

// DryRunCreate implements Reader.
func (c *Client) DryRunCreate(ctx context.Context, obj *Object, o WriteOptions) (*Object, error) {
	o.DryRun = true
	return c.Create(ctx, obj, o)
}

// DryRunDelete implements Reader.
func (c *Client) DryRunDelete(ctx context.Context, ref Ref, o WriteOptions) error {
	o.DryRun = true
	return c.Delete(ctx, ref, o)
}

// DryRunEvict implements Reader.
func (c *Client) DryRunEvict(ctx context.Context, ref Ref, o WriteOptions) error {
	o.DryRun = true
	return c.Evict(ctx, ref, o)
}

// DryRunReplace implements Reader.
func (c *Client) DryRunReplace(ctx context.Context, obj *Object, o WriteOptions) (*Object, error) {
	o.DryRun = true
	return c.Replace(ctx, obj, o)
}
