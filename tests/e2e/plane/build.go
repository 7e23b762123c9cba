package plane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Binaries are what a plane runs, by absolute path.
type Binaries struct {
	Kubebox  string // Kubernetes and kwok
	Istiobox string // istiod, istioctl and nodesim
}

// version is the Kubernetes version that tests/e2e/kubebox/go.mod pins. The
// module's source does not know it; a release build sets it, as here.
const (
	kubeMajor   = "1"
	kubeMinor   = "36"
	kubeVersion = "v1.36.3"
	// kubectlVersion is that of the main module's k8s.io/kubectl, as it counts.
	kubectlVersion = "v1.36.0"
)

// BinariesHere is where Build puts the binaries of the repository around the working
// directory, built or not.
func BinariesHere() (Binaries, error) {
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	out := filepath.Join(root, "bin", "e2e")
	return Binaries{Kubebox: filepath.Join(out, "kubebox"), Istiobox: filepath.Join(out, "istiobox")}, nil
}

// Ensure is Build, or BinariesHere where RUTTER_E2E_BUILT says that make has
// just built them: to find that out again takes Go several seconds.
func Ensure(ctx context.Context) (Binaries, error) {
	if os.Getenv("RUTTER_E2E_BUILT") != "" {
		return BinariesHere()
	}
	return Build(ctx)
}

// Build builds the binaries into bin/e2e of the repository around the working
// directory. Go builds only what changed: with everything cached it takes
// seconds, on a fresh machine ten minutes.
func Build(ctx context.Context) (Binaries, error) {
	return build(ctx, istiobox)
}

// BuildAll builds everything that end-to-end tests run: beside the plane's
// binaries rutter, as a person would use it, and the real kubectl.
func BuildAll(ctx context.Context) (Binaries, error) {
	return build(ctx, istiobox, rutter, kubectl)
}

// BuildIstiobox builds istiod, istioctl and nodesim, and returns the binary's
// path. Through a link of that name it is istioctl.
func BuildIstiobox(ctx context.Context) (string, error) {
	return buildCommand(ctx, istiobox)
}

// BuildKubectl builds the real kubectl.
func BuildKubectl(ctx context.Context) (string, error) {
	return buildCommand(ctx, kubectl)
}

// Commands of the main module, each built into a binary of its last name.
const (
	istiobox = "./tests/e2e/istiobox"
	rutter   = "./cmd/rutter"
	kubectl  = "./tests/kubectl"
)

// stripped leaves out what only a debugger reads.
const stripped = "-s -w"

// build builds commands of the main module, and kubebox beside them: to find
// out that nothing changed takes each of the two one processor for seconds.
func build(ctx context.Context, commands ...string) (Binaries, error) {
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	b, err := BinariesHere()
	if err != nil {
		return Binaries{}, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		pkg := "k8s.io/component-base/version."
		flags := stripped + " -X " + pkg + "gitMajor=" + kubeMajor + " -X " + pkg + "gitMinor=" + kubeMinor + " -X " + pkg + "gitVersion=" + kubeVersion
		return goBuild(ctx, filepath.Join(root, "tests", "e2e", "kubebox"), b.Kubebox, []string{flags}, ".")
	})
	group.Go(func() error { return buildHere(ctx, root, commands...) })
	return b, group.Wait()
}

func buildCommand(ctx context.Context, command string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "bin", "e2e", path.Base(command)), buildHere(ctx, root, command)
}

// buildHere builds commands of the main module at once: Go then looks at what
// they have in common once.
func buildHere(ctx context.Context, root string, commands ...string) error {
	flags := []string{stripped, kubectl + "=" + stripped + " -X k8s.io/component-base/version.gitVersion=" + kubectlVersion}
	return goBuild(ctx, root, filepath.Join(root, "bin", "e2e")+string(filepath.Separator), flags, commands...)
}

// goBuild builds commands; of the linker's flags the last that are a command's
// hold for it. Without stamps of the commit, which would make every binary
// outdated with every commit.
func goBuild(ctx context.Context, dir, out string, ldflags []string, commands ...string) error {
	args := []string{"build", "-tags=e2e", "-buildvcs=false", "-o", out}
	for _, f := range ldflags {
		args = append(args, "-ldflags="+f)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, commands...)...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(commands, ", "), err, said.Bytes())
	}
	return nil
}

// Root is the repository's root: the nearest folder above the working directory
// that holds the nested module of the plane.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, "tests", "e2e", "kubebox", "go.mod"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", fmt.Errorf("repository root: no tests/e2e/kubebox above the working directory")
		}
	}
}
