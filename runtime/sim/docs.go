package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"rutter.dev/rutter/runtime/sim/kinds"
	"rutter.dev/rutter/runtime/sim/openapi"
)

// docCache holds what is derived from the served resources.
type docCache struct {
	docs map[string][]byte
}

func (d *docCache) invalidate() { d.docs = nil }

func (d *docCache) get(name string, build func() ([]byte, error)) ([]byte, error) {
	if b := d.docs[name]; b != nil {
		return b, nil
	}
	b, err := build()
	if err != nil {
		return nil, err
	}
	if d.docs == nil {
		d.docs = map[string][]byte{}
	}
	d.docs[name] = b
	return b, nil
}

// openAPI answers /openapi/v2 and /openapi/v3[/api/v1|/apis/G/V].
func (c *Cluster) openAPI(parts []string, accept string) (any, string, error) {
	switch {
	case len(parts) == 1 && parts[0] == "v3":
		return c.openAPIIndex(), "application/json", nil
	case len(parts) == 3 && parts[0] == "v3" && parts[1] == "api":
		return c.openAPIGroup("", parts[2])
	case len(parts) == 4 && parts[0] == "v3" && parts[1] == "apis":
		return c.openAPIGroup(parts[2], parts[3])
	case len(parts) == 1 && parts[0] == "v2":
		return c.openAPIV2(accept)
	}
	return nil, "", errNotServed()
}

func (c *Cluster) openAPIIndex() any {
	paths := map[string]any{}
	names, versions := c.reg.groups()
	for _, g := range names {
		for _, v := range versions[g] {
			p := "api/" + v
			if g != "" {
				p = "apis/" + g + "/" + v
			}
			sum := sha256.New()
			for _, r := range c.reg.order {
				if r.group == g && r.crd != nil {
					fmt.Fprintf(sum, "%s %p\n", r.plural, r)
				}
			}
			paths[p] = map[string]any{"serverRelativeURL": fmt.Sprintf("/openapi/v3/%s?hash=%X", p, sum.Sum(nil)[:16])}
		}
	}
	return map[string]any{"paths": paths}
}

func (c *Cluster) openAPIGroup(group, version string) (any, string, error) {
	served := false
	for _, r := range c.reg.order {
		served = served || r.group == group && r.serves(version)
	}
	if !served {
		return nil, "", errNotServed()
	}
	b, err := c.docs.get("v3/"+group+"/"+version, func() ([]byte, error) {
		schemas, err := c.schemas(group, version)
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{
			"openapi": "3.0.0", "info": c.info(), "paths": c.paths(group, version),
			"components": map[string]any{"schemas": schemas},
		})
	})
	if err != nil {
		return nil, "", apierrors.NewInternalError(err)
	}
	return b, "application/json", nil
}

func (c *Cluster) info() map[string]any {
	return map[string]any{"title": "Kubernetes", "version": c.version().GitVersion}
}

// schemas are the models of a group and version.
func (c *Cluster) schemas(group, version string) (map[string]*spec.Schema, error) {
	gv := schema.GroupVersion{Group: group, Version: version}
	out := map[string]*spec.Schema{}
	var builtin []string
	for _, r := range c.reg.order {
		if r.group != group || !r.serves(version) {
			continue
		}
		if r.crd == nil {
			builtin = append(builtin, r.kind)
			continue
		}
		s, err := r.crd.openAPISchema(r, version)
		if err != nil {
			return nil, fmt.Errorf("schema of %s: %w", r.gr(), err)
		}
		out[r.crd.modelName(r, version)] = s
		maps.Copy(out, openapi.ObjectMeta())
	}
	if group == "" {
		builtin = append(builtin, "Status", "DeleteOptions")
	}
	maps.Copy(out, openapi.Schemas(kinds.Scheme(), gv, builtin))
	return out, nil
}

// paths are the operations of a group and version, with what clients look for:
// the kind, and the parameters of patch.
func (c *Cluster) paths(group, version string) map[string]any {
	out := map[string]any{}
	root := "/api/" + version
	if group != "" {
		root = "/apis/" + group + "/" + version
	}
	for _, r := range c.reg.order {
		if r.group != group || !r.serves(version) {
			continue
		}
		base := root + "/" + r.plural
		if r.namespaced {
			base = root + "/namespaces/{namespace}/" + r.plural
		}
		gvk := map[string]any{"group": group, "version": version, "kind": r.kind}
		op := func(action string, params ...string) map[string]any {
			ps := []any{}
			for _, p := range params {
				ps = append(ps, map[string]any{"name": p, "in": "query", "schema": map[string]any{"type": "string"}})
			}
			return map[string]any{
				"x-kubernetes-group-version-kind": gvk, "x-kubernetes-action": action, "parameters": ps,
				"responses": map[string]any{"200": map[string]any{"description": "OK"}},
			}
		}
		write := []string{"dryRun", "fieldManager", "fieldValidation"}
		if r.createOnly {
			out[base] = map[string]any{"post": op("post", write...)}
			continue
		}
		out[base] = map[string]any{"get": op("list", "labelSelector", "fieldSelector", "limit", "continue"), "post": op("post", write...), "delete": op("deletecollection", "dryRun")}
		out[base+"/{name}"] = map[string]any{"get": op("get"), "put": op("put", write...), "patch": op("patch", append(write, "force")...), "delete": op("delete", "dryRun", "propagationPolicy")}
	}
	return out
}

// openAPIV2 is one Swagger document of all groups, in JSON or protobuf.
func (c *Cluster) openAPIV2(accept string) (any, string, error) {
	const protoType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" // with a dot, where requests have an at sign
	j, err := c.docs.get("v2", func() ([]byte, error) {
		defs, paths := map[string]*spec.Schema{}, map[string]any{}
		names, versions := c.reg.groups()
		for _, g := range names {
			for _, v := range versions[g] {
				s, err := c.schemas(g, v)
				if err != nil {
					return nil, err
				}
				maps.Copy(defs, s)
				for p, ops := range c.paths(g, v) {
					paths[p] = swagger(ops)
				}
			}
		}
		b, err := json.Marshal(map[string]any{"swagger": "2.0", "info": c.info(), "paths": paths, "definitions": defs})
		if err != nil {
			return nil, err
		}
		var doc map[string]any
		if err := json.Unmarshal(bytes.ReplaceAll(b, []byte(openapi.Prefix), []byte("#/definitions/")), &doc); err != nil {
			return nil, err
		}
		downgrade(doc["definitions"])
		return json.Marshal(doc)
	})
	if err != nil {
		return nil, "", apierrors.NewInternalError(err)
	}
	if !strings.Contains(accept, "protobuf") {
		return j, "application/json", nil
	}
	b, err := c.docs.get("v2.pb", func() ([]byte, error) {
		d, err := openapiv2.ParseDocument(j)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(d)
	})
	if err != nil {
		return nil, "", apierrors.NewInternalError(fmt.Errorf("openapi v2: %w", err))
	}
	return b, protoType, nil
}

// downgrade takes out of schemas what version 2 has no words for. A value of
// one of several types is called a string, as the real server does.
func downgrade(v any) {
	switch x := v.(type) {
	case map[string]any:
		if _, ok := x["oneOf"].([]any); ok && x["type"] == nil && x["properties"] == nil {
			x["type"] = "string"
		}
		for _, k := range []string{"oneOf", "anyOf", "not", "nullable"} {
			switch x[k].(type) {
			case []any, bool:
				delete(x, k)
			case map[string]any:
				if k == "not" {
					delete(x, k)
				}
			}
		}
		for _, c := range x {
			downgrade(c)
		}
	case []any:
		for _, c := range x {
			downgrade(c)
		}
	}
}

// swagger rewrites the operations of a path for version 2: a parameter's type
// stands in the parameter, and a OneOf has no place.
func swagger(ops any) any {
	out := map[string]any{}
	m, _ := ops.(map[string]any)
	for method, op := range m {
		o, _ := op.(map[string]any)
		o = maps.Clone(o)
		params := []any{}
		list, _ := o["parameters"].([]any)
		for _, p := range list {
			pm, _ := p.(map[string]any)
			params = append(params, map[string]any{"name": pm["name"], "in": "query", "type": "string"})
		}
		o["parameters"] = params
		out[method] = o
	}
	return out
}
