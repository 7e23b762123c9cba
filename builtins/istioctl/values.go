package istioctl

import (
	"cmp"

	"github.com/pmezard/go-difflib/difflib"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
)

func valuesSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[manifestArgs]{
		Name: "istioctl.values", Returns: "string",
		Doc: `The IstioOperator that a profile, files and settings come to, as YAML.
It is what the charts of istioctl.manifest with the same arguments get. With a
profile alone it dumps the profile, which istioctl itself no longer does.`,
		Example: `yaml.decode(istioctl.values(profile = "ambient"))["spec"]["components"]`,
		Do: func(c *builtin.Call, a *manifestArgs) (any, error) {
			text, err := lib.Values(c.Ctx, a.options(c))
			if err != nil {
				return nil, badInput(c, err)
			}
			return text, nil
		},
	})
}

type profilesArgs struct {
	Charts string `star:"charts" doc:"folder of another Istio release, whose profiles are listed"`
}

func profilesSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[profilesArgs]{
		Name: "istioctl.profiles", Returns: "list of string",
		Doc:     "The names of the installation profiles.",
		Example: `"ambient" in istioctl.profiles()`,
		Do: func(_ *builtin.Call, a *profilesArgs) (any, error) {
			return lib.Profiles(a.Charts)
		},
	})
}

type diffProfilesArgs struct {
	A       string `star:"a,positional" doc:"profile before"`
	B       string `star:"b,positional" doc:"profile after"`
	Charts  string `star:"charts" doc:"folder of another Istio release, for the profile before"`
	ChartsB string `star:"charts_b" doc:"folder of another Istio release, for the profile after"`
}

func diffProfilesSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[diffProfilesArgs]{
		Name: "istioctl.diff_profiles", Returns: "string",
		Doc: `What two installation profiles set differently, as a unified diff; "" where nothing.
Of one profile in two releases it shows what the newer one changed.`,
		Example: `istioctl.diff_profiles("default", "ambient")`,
		Do: func(c *builtin.Call, a *diffProfilesArgs) (any, error) {
			before, err := dump(c, a.A, a.Charts)
			if err != nil {
				return nil, err
			}
			after, err := dump(c, a.B, a.ChartsB)
			if err != nil {
				return nil, err
			}
			return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
				A: difflib.SplitLines(before), B: difflib.SplitLines(after), Context: 3, FromFile: a.A, ToFile: a.B,
			})
		},
	})
}

func dump(c *builtin.Call, profile, charts string) (string, error) {
	o := lib.RenderOptions{Profile: cmp.Or(profile, "default"), ChartsDir: charts}
	if charts != "" {
		v, err := lib.ChartsVersion(charts)
		if err != nil {
			return "", err
		}
		o.Version = v
	}
	return lib.Values(c.Ctx, o)
}
