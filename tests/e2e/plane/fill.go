package plane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Filling writes so many objects at once, in so many requests at a time.
const (
	fillBatch    = 64
	fillInFlight = 8
)

// Fill puts objects into the store behind the API server's back, as they are:
// with status, UIDs and owners of fields, and without admission. A cluster of ten
// thousand pods is there in seconds by it. Kinds of CustomResourceDefinitions
// among them are waited for; what the API server makes for itself is left as it
// has it. Meant for a Bare plane: no controller has agreed to what is put there.
func (p *Plane) Fill(ctx context.Context, objs []*Object) error {
	var defs, rest []*Object
	for _, o := range objs {
		if o.GetKind() == "CustomResourceDefinition" {
			defs = append(defs, o)
		} else if !ownOfServer(o) {
			rest = append(rest, o)
		}
	}
	if err := p.put(ctx, defs); err != nil {
		return err
	}
	if err := p.AwaitCRDs(ctx, defs...); err != nil {
		return err
	}
	return p.put(ctx, rest)
}

// ownOfServer tells what an API server makes by itself when it starts.
func ownOfServer(o *Object) bool {
	switch o.GetKind() {
	case "Namespace":
		return slices.Contains([]string{"default", "kube-system", "kube-public", "kube-node-lease"}, o.GetName())
	case "Service":
		return o.GetNamespace() == "default" && o.GetName() == "kubernetes"
	case "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding":
		return o.GetLabels()["kubernetes.io/bootstrapping"] != ""
	case "APIService", "FlowSchema", "PriorityLevelConfiguration", "PriorityClass", "ComponentStatus":
		return true
	}
	return false
}

func (p *Plane) put(ctx context.Context, objs []*Object) error {
	if len(objs) == 0 {
		return nil
	}
	r, err := p.Resources()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillInFlight)
	for batch := range slices.Chunk(objs, fillBatch) {
		var ops []any
		for _, o := range batch {
			key, err := r.storeKey(o)
			if err != nil {
				return err
			}
			stored := o.DeepCopy()
			stored.SetResourceVersion("")
			value, err := json.Marshal(stored.Object)
			if err != nil {
				return err
			}
			ops = append(ops, map[string]any{"requestPut": map[string]any{"key": []byte(key), "value": value}})
		}
		group.Go(func() error { return p.transact(ctx, ops) })
	}
	return group.Wait()
}

// transact writes by the JSON gateway of etcd.
func (p *Plane) transact(ctx context.Context, ops []any) error {
	body, err := json.Marshal(map[string]any{"success": ops})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.EtcdURL()+"/v3/kv/txn", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	said, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, said)
	}
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	return nil
}

// storeKeys are the resources that are not stored under their own name
// (k8s.io/kubernetes pkg/kubeapiserver/default_storage_factory_builder.go and
// the storage of each).
var storeKeys = map[string]string{
	"nodes": "minions", "services": "services/specs", "endpoints": "services/endpoints", "replicationcontrollers": "controllers", "ingresses": "ingress",
}

// storeKey is where the API server keeps an object in etcd.
func (r *Resources) storeKey(o *Object) (string, error) {
	gvk := o.GroupVersionKind()
	m, err := r.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return "", fmt.Errorf("%s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
	}
	at := m.Resource.Resource
	if own := storeKeys[at]; own != "" {
		at = own
	}
	if g := m.Resource.Group; strings.Contains(g, ".") && (!strings.HasSuffix(g, ".k8s.io") || g == "apiextensions.k8s.io" || g == "gateway.networking.k8s.io") {
		at = g + "/" + at // of definitions and aggregation, and definitions themselves
	}
	parts := []string{"/registry", at, o.GetName()}
	if o.GetNamespace() != "" {
		parts = []string{"/registry", at, o.GetNamespace(), o.GetName()}
	}
	return strings.Join(parts, "/"), nil
}
