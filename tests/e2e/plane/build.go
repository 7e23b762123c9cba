package plane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
// directory. Go builds only what changed: with everything cached it takes about
// two seconds, on a fresh machine ten minutes.
func Build(ctx context.Context) (Binaries, error) {
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	b, err := BinariesHere()
	if err != nil {
		return Binaries{}, err
	}
	pkg := "k8s.io/component-base/version."
	flags := "-s -w -X " + pkg + "gitMajor=" + kubeMajor + " -X " + pkg + "gitMinor=" + kubeMinor + " -X " + pkg + "gitVersion=" + kubeVersion
	if err := goBuild(ctx, filepath.Join(root, "tests", "e2e", "kubebox"), b.Kubebox, flags, "."); err != nil {
		return Binaries{}, err
	}
	_, err = BuildIstiobox(ctx)
	return b, err
}

// BuildIstiobox builds istiod, istioctl and nodesim, and returns the binary's
// path. Through a link of that name it is istioctl.
func BuildIstiobox(ctx context.Context) (string, error) {
	return buildCommand(ctx, "istiobox", "./tests/e2e/istiobox", "")
}

// BuildRutter builds the rutter command beside the plane's binaries, as a
// person would use it, and returns its path.
func BuildRutter(ctx context.Context) (string, error) {
	return buildCommand(ctx, "rutter", "./cmd/rutter", "")
}

// BuildKubectl builds the real kubectl.
func BuildKubectl(ctx context.Context) (string, error) {
	return buildCommand(ctx, "kubectl", "./tests/kubectl", " -X k8s.io/component-base/version.gitVersion="+kubectlVersion)
}

func buildCommand(ctx context.Context, name, pkg, ldflags string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "e2e", name)
	return path, goBuild(ctx, root, path, "-s -w"+ldflags, pkg)
}

// goBuild builds one command. Without stamps of the commit, which would make
// every binary outdated with every commit.
func goBuild(ctx context.Context, dir, out, ldflags, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags=e2e", "-buildvcs=false", "-ldflags="+ldflags, "-o", out, pkg)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", filepath.Base(out), err, said.Bytes())
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
