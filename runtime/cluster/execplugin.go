package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// KnownPlugins are the programs that a kubeconfig may have run for credentials
// without anybody's leave: those of clouds and of single sign-on that write such
// entries, by bare name, so that they are what the operator's PATH finds. A
// kubeconfig is often somebody else's file, and can name any program, with any
// arguments: sh -c included.
var KnownPlugins = []string{
	"aws", "aws-iam-authenticator", "az", "civo", "doctl", "exo", "gcloud", "gke-gcloud-auth-plugin", "ibmcloud",
	"kubectl-oidc_login", "kubelogin", "linode-cli", "oci", "pinniped", "rancher", "scw", "tanzu", "tsh",
}

// execPluginsVar names, with commas between, further programs that a kubeconfig
// may have run.
const execPluginsVar = "RUTTER_EXEC_PLUGINS"

// AnyPlugin in Options.ExecPlugins allows every program.
const AnyPlugin = "*"

// ErrPlugin is wrapped by Connect's error about a credential program that may
// not be run.
var ErrPlugin = errors.New("credential program not allowed")

// allowPlugin lets rc run its credential program if it may be run, and has
// client-go hold to that one (its plugin policy, since 1.35).
func allowPlugin(rc *rest.Config, allowed []string) error {
	if rc.ExecProvider == nil {
		return nil
	}
	command := rc.ExecProvider.Command
	if slices.Contains(allowed, AnyPlugin) {
		return nil
	}
	// Its arguments are not told: they may hold a secret.
	if !slices.Contains(KnownPlugins, command) && !slices.Contains(allowed, command) {
		return fmt.Errorf("kubeconfig: %w: %q would be run for credentials: %s may be, and what RUTTER_EXEC_PLUGINS names (commas between): RUTTER_EXEC_PLUGINS=%s",
			ErrPlugin, command, strings.Join(KnownPlugins, ", "), command)
	}
	rc.ExecProvider.PluginPolicy = clientcmdapi.PluginPolicy{
		PolicyType: clientcmdapi.PluginPolicyAllowlist, Allowlist: []clientcmdapi.AllowlistEntry{{Command: command}},
	}
	return nil
}
