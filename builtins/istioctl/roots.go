package istioctl

import (
	"fmt"
	"strings"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/mesh"
)

type rootsArgs struct {
	Raise bool `star:"raise_" default:"false" doc:"fail where roots differ; False only returns them"`
}

func rootsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[rootsArgs]{
		Name: "istioctl.roots", Returns: "struct(roots, remotes, unreadable, differences)",
		Doc: `Fingerprints of the root certificates that the mesh trusts, and where they differ.
Looked at are the CA of each control plane (Secret cacerts or istio-ca-secret),
what istiod gave to namespaces (istio-ca-root-cert), the CA bundles that each
revision's istiod wrote into its webhooks, and the API servers of remote
clusters. An old and a new istiod with different roots are two meshes: their
proxies do not talk to each other. Private keys are not looked at.`,
		Example: `istioctl.roots().differences`,
		Do: func(c *builtin.Call, a *rootsArgs) (any, error) {
			t, err := mesh.Trust(c.Ctx, c.Reader)
			if err != nil {
				return nil, err
			}
			if a.Raise && len(t.Differences) > 0 {
				return nil, &diag.Error{
					Subject: "roots of trust", Problem: fmt.Sprintf("differ: %s", strings.Join(t.Differences, "; ")),
					Expect: "one root in the whole mesh", Next: "istioctl.roots() lists them; never change the CA in an upgrade",
				}
			}
			return t, nil
		},
	})
}
