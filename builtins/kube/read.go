package kube

import (
	"errors"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/value"
)

type getArgs struct {
	Ref       starlark.Value `star:"ref,positional" doc:"object, as kubectl names it: \"deploy/istiod\""`
	Namespace string         `star:"namespace" doc:"namespace of a namespaced object"`
}

func getSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[getArgs]{
		Name: "kube.get",
		Doc: "Reads one object. A missing one is an error; kube.exists asks without failing.\n" +
			"A Secret comes without its material: its field keys has their names.",
		Example: `kube.get("deploy/istiod", namespace = "istio-system").status.readyReplicas`,
		Returns: "object",
		Do: func(c *builtin.Call, a *getArgs) (any, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
			if err != nil {
				return nil, err
			}
			o, err := c.Reader.Get(c.Ctx, ref)
			if err != nil {
				return nil, err
			}
			return shown(o), nil
		},
	})
}

func existsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[getArgs]{
		Name:    "kube.exists",
		Doc:     "Tells whether an object exists. A kind that the server does not know counts as absent.",
		Example: `kube.exists("configmap/istio", namespace = "istio-system")`,
		Returns: "bool",
		Do: func(c *builtin.Call, a *getArgs) (any, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
			if errors.Is(err, cluster.ErrNoKind) {
				return false, nil
			}
			if err != nil {
				return nil, err
			}
			o, err := optional(c, ref)
			return o != nil, err
		},
	})
}

func absent(err error) bool {
	return errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind)
}

type listArgs struct {
	Resource  string `star:"resource,positional" doc:"resource, as kubectl names it: \"pods\""`
	Namespace string `star:"namespace" doc:"only this namespace; all of them without it"`
	Selector  string `star:"selector" doc:"label selector"`
	Fields    string `star:"fields" doc:"field selector"`
	Limit     int    `star:"limit" default:"0" doc:"most objects to return; 0 means all"`
	Metadata  bool   `star:"metadata_only" default:"false" doc:"fetch only metadata, which takes a tenth of the memory"`
}

func listSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[listArgs]{
		Name:    "kube.list",
		Doc:     "Lists the objects of a resource, page by page. Secrets come as kube.get gives them.",
		Example: `[p.metadata.name for p in kube.list("pods", namespace = "istio-system", selector = "app=istiod")]`,
		Returns: "list of object",
		Do: func(c *builtin.Call, a *listArgs) (any, error) {
			res, err := c.Reader.Resolve(c.Ctx, a.Resource)
			if err != nil {
				return nil, err
			}
			out := []*value.Object{}
			o := cluster.ListOptions{Namespace: a.Namespace, Labels: a.Selector, Fields: a.Fields, MetadataOnly: a.Metadata, MaxItems: a.Limit}
			err = c.Reader.List(c.Ctx, res, o, func(o *cluster.Object) error {
				out = append(out, shown(o))
				if len(out)%1000 == 0 {
					c.Progress(len(out), 0, "listing "+res.String())
				}
				return nil
			})
			return out, err
		},
	})
}

type noArgs struct{}

func versionSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[noArgs]{
		Name:    "kube.version",
		Doc:     "Gives the version of the API server.",
		Example: `kube.version().minor`,
		Returns: "object with git, major, minor",
		Do: func(c *builtin.Call, _ *noArgs) (any, error) {
			v, err := c.Reader.Version(c.Ctx)
			if err != nil {
				return nil, err
			}
			return map[string]any{"git": v.Git, "major": v.Major, "minor": v.Minor}, nil
		},
	})
}

type canIArgs struct {
	Verb        string `star:"verb,positional" doc:"verb: get, list, create, patch, delete …"`
	Resource    string `star:"resource,positional" doc:"resource, as kubectl names it"`
	Namespace   string `star:"namespace" doc:"in this namespace; without it in all of them"`
	Name        string `star:"name" doc:"for this object only"`
	Subresource string `star:"subresource" doc:"for this subresource: status, scale, eviction …"`
}

func canISpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[canIArgs]{
		Name:    "kube.can_i",
		Doc:     "Asks the authorizer whether the present user may do something.",
		Example: `kube.can_i("patch", "deployments", namespace = "istio-system")`,
		Returns: "bool",
		Do: func(c *builtin.Call, a *canIArgs) (any, error) {
			res, err := c.Reader.Resolve(c.Ctx, a.Resource)
			if err != nil {
				return nil, err
			}
			ok, err := c.Reader.CanI(c.Ctx, cluster.Access{
				Verb: a.Verb, Group: res.GVR.Group, Resource: res.GVR.Resource, Subresource: a.Subresource, Namespace: a.Namespace, Name: a.Name,
			})
			if err != nil {
				return nil, err
			}
			return ok[0], nil
		},
	})
}
