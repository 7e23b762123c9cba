package cli

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/policy"
	"rutter.dev/rutter/runtime/toolchain"
)

// toolchainVar names folders with releases or binaries for everything that renders.
const toolchainVar = "RUTTER_TOOLCHAIN"

// toolchainFlags are what the subcommands share.
type toolchainFlags struct {
	cache, lock, policy string
	folders             []string
	output              string
}

func (a *app) toolchainCmd() *cobra.Command {
	var f toolchainFlags
	cmd := &cobra.Command{
		Use:   "toolchain",
		Short: "Find, fetch and verify the istioctl of any version",
		Long: `Keeps the istioctls of other Istio versions than the linked one, by which their
manifests are rendered. Archives come from a mirror with the layout of Istio's
releases, and are unpacked only if their SHA-256 is the one in rutter.lock. The
section toolchain of the policy (rutter.yaml) names the mirror, the hosts that it
may redirect to, and whether an archive without a pin is trusted the first time:

  toolchain:
    mirror: https://mirror.example.com/istio
    redirectHosts: [storage.example.com]
    trustOnFirstUse: false`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	fl := cmd.PersistentFlags()
	fl.StringVar(&f.cache, "cache", "", "folder of the cache (default $XDG_CACHE_HOME/rutter/toolchain)")
	fl.StringVar(&f.lock, "lock", "", "lock file (default rutter.lock of the repository)")
	fl.StringVar(&f.policy, "policy", "", "the organization's policy file (default rutter.yaml of the repository, if it has one)")
	fl.StringSliceVar(&f.folders, "folder", nil, "folder with unpacked releases or binaries, looked into before PATH; may be repeated (for runs: "+toolchainVar+"=DIR:DIR)")
	fl.StringVarP(&f.output, "output", "o", "", "json")
	cmd.AddCommand(a.toolchainListCmd(&f), a.toolchainFetchCmd(&f), a.toolchainVerifyCmd(&f))
	return cmd
}

func (a *app) toolchainListCmd(f *toolchainFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the istioctls in the cache",
		Args: exactly(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			tc, err := a.toolchain(f)
			if err != nil {
				return err
			}
			tools, problems, err := tc.List()
			if err != nil {
				return err
			}
			if f.output == "json" {
				if tools == nil {
					tools = []*toolchain.Tool{}
				}
				return errors.Join(append([]error{writeJSON(a.env.Stdout, tools)}, problems...)...)
			}
			for _, t := range tools {
				if _, err := fmt.Fprintf(a.env.Stdout, "%s\t%s\tsha256:%s\n", t.Version, t.Binary, t.Archive); err != nil {
					return err
				}
			}
			return errors.Join(problems...)
		},
	}
}

func (a *app) toolchainFetchCmd(f *toolchainFlags) *cobra.Command {
	var sum, archive string
	cmd := &cobra.Command{
		Use: "fetch VERSION", Short: "Download a release from the mirror, check it, and keep its istioctl and charts",
		Example: "  rutter toolchain fetch 1.30.3 --sha256 0123…\n  rutter toolchain fetch 1.30.3 --archive istio-1.30.3-linux-amd64.tar.gz   # no network",
		Args:    exactly(1, 1, "a version such as 1.30.3"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tc, err := a.toolchain(f)
			if err != nil {
				return err
			}
			var got *toolchain.Fetched
			if archive != "" {
				got, err = tc.Import(cmd.Context(), args[0], a.abs(archive), sum)
			} else {
				got, err = tc.Fetch(cmd.Context(), args[0], sum)
			}
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(a.env.Stdout, got)
			}
			what := "fetched from " + got.From
			if got.Already {
				what = "was in the cache"
			}
			if got.Pinned {
				what += ", pinned now"
			}
			_, err = fmt.Fprintf(a.env.Stdout, "istioctl %s: %s\n%s\n", args[0], what, got.Tool.Binary)
			return err
		},
	}
	cmd.Flags().StringVar(&sum, "sha256", "", "SHA-256 that the archive must have; it is pinned in the lock file")
	cmd.Flags().StringVar(&archive, "archive", "", "archive on this machine, instead of a download")
	return cmd
}

func (a *app) toolchainVerifyCmd(f *toolchainFlags) *cobra.Command {
	return &cobra.Command{
		Use: "verify VERSION", Short: "Hold a cached istioctl against the lock file, and run it",
		Args: exactly(1, 1, "a version such as 1.30.3"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tc, err := a.toolchain(f)
			if err != nil {
				return err
			}
			tool, err := tc.Verify(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(a.env.Stdout, tool)
			}
			_, err = fmt.Fprintf(a.env.Stdout, "istioctl %s: as pinned, and runs\n%s\n", tool.Version, tool.Binary)
			return err
		},
	}
}

// toolchain is that of the flags, the policy and the machine.
func (a *app) toolchain(f *toolchainFlags) (*toolchain.Toolchain, error) {
	if f.output != "" && f.output != "json" {
		return nil, unknownFormat(f.output, "json")
	}
	root := rootOf(filepath.Join(a.env.Workdir, "x"))
	o := toolchain.Options{
		Dir: f.cache, LockFile: filepath.Join(root, "rutter.lock"), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Path: filepath.SplitList(a.env.Getenv("PATH")), Transport: http.DefaultTransport,
	}
	if o.Dir == "" {
		if o.Dir = a.cacheFolder("toolchain"); o.Dir == "" {
			return nil, diag.Usagef("--cache", "no folder for the cache: neither XDG_CACHE_HOME nor HOME is set")
		}
	}
	if f.lock != "" {
		o.LockFile = a.abs(f.lock)
	}
	for _, dir := range append(slices.Clone(f.folders), filepath.SplitList(a.env.Getenv(toolchainVar))...) {
		if dir != "" {
			o.Folders = append(o.Folders, a.abs(dir))
		}
	}
	file := filepath.Join(root, policy.Name)
	if f.policy != "" {
		file = a.abs(f.policy)
	}
	rules, err := toolchainRules(file, f.policy != "")
	o.Rules = rules
	return toolchain.New(o), err
}

// toolchainRules is what the policy file says of istioctl; rules and signers are
// for who runs runbooks.
func toolchainRules(path string, must bool) (toolchain.Rules, error) {
	if !must && !exists(path) {
		return toolchain.Rules{}, nil
	}
	p, err := policy.ReadFile(path)
	if err != nil {
		return toolchain.Rules{}, err
	}
	return p.Toolchain, nil
}

// abs is a path from where the command was given.
func (a *app) abs(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(a.env.Workdir, path)
}

// cacheFolder is a folder of the user's cache; "" where there is none.
func (a *app) cacheFolder(name string) string {
	dir := a.env.Getenv("XDG_CACHE_HOME")
	if dir == "" {
		if home := a.env.Getenv("HOME"); home != "" {
			dir = filepath.Join(home, ".cache")
		}
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "rutter", name)
}
