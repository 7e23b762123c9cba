package istioctl

import (
	"errors"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

type manifestArgs struct {
	Version  value.Version  `star:"version" doc:"Istio version to render; the linked one if not given; another minor needs its istioctl or its charts"`
	Profile  string         `star:"profile" default:"default" doc:"profile of the charts"`
	Set      map[string]any `star:"set" doc:"values by path, as istioctl's --set: {\"components.cni.enabled\": True}"`
	Files    []string       `star:"files" doc:"IstioOperator documents as YAML text, the later winning over the earlier; set wins over them"`
	Revision string         `star:"revision" doc:"revision of the control plane; none if not given"`
	Charts   string         `star:"charts" doc:"folder of another Istio release, whose charts are rendered"`
}

func manifestSpec(r *lib.Renderer) *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[manifestArgs]{
		Name: "istioctl.manifest", Returns: "manifest",
		Doc: `Render the manifest that istioctl of that version would install.
Objects come in the order of components, custom resource definitions first. The
linked minor is rendered by the linked library; another by that version's own
istioctl, which the toolchain finds, or by the charts of its release, with what
they do otherwise in warnings. engine says which it was.
Unknown paths and values are errors; what the library warns of is in warnings.`,
		Example: `istioctl.manifest(version = "1.31.0", profile = "default", set = {"hub": "docker.io/istio", "components.cni.enabled": True})`,
		Do: func(c *builtin.Call, a *manifestArgs) (any, error) {
			m, err := rendered(c, r, a)
			if err != nil {
				return nil, err
			}
			c.Note(effect.Fact{Render: &effect.Render{Digest: m.Digest, Version: m.Version, Engine: m.Engine}})
			return m, nil
		},
	})
}

// rendered is the manifest of a's inputs, its objects stored.
func rendered(c *builtin.Call, r *lib.Renderer, a *manifestArgs) (*manifest.Manifest, error) {
	got, err := r.Render(c.Ctx, a.options(c))
	if err != nil {
		return nil, badInput(c, err)
	}
	return manifest.New(got.Objects, manifest.Info{
		Version: got.Version, Revision: a.Revision, Profile: a.Profile,
		Engine: got.Engine, Components: got.Components, Warnings: got.Warnings,
	}, c.Blobs)
}

// badInput marks an error about what was to be rendered as one of the runbook's
// input: nothing was changed, and trying again does not mend it.
func badInput(c *builtin.Call, err error) error {
	var d *diag.Error
	if c.Ctx.Err() != nil || errors.As(err, &d) {
		return err
	}
	return &diag.Error{Code: diag.Usage, Err: err}
}
