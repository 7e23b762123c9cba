package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/tests/e2e/plane"
)

// What rutter may take at most of kubectl's time: a fifth with one file, and as much
// with a folder and 32 requests at a time. On the server's own machine, where no
// request takes time on its way, the server's dry-runs and the start of a process are
// most of ours, and a fifth is less than these take.
const (
	maxFile   = 1.0 / 5
	maxNear   = 0.5
	maxFolder = 1.0
)

// manifests compares the plan of Istio's manifest with kubectl diff of it, in a world
// that is there.
func manifests(ctx context.Context, kubeconfig, rutter, kubectl string) (err error) {
	objs, err := istio(ctx, rutter)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rutter-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w, err := write(dir, objs)
	if err != nil {
		return err
	}
	far, end, err := afar(ctx, kubeconfig)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	n := fmt.Sprintf(" (%d objects)", len(objs))
	away := fmt.Sprintf(", the server %s away", distance)
	near, wide := &contest{ctx, rutter, kubectl, kubeconfig, w, nil}, &contest{ctx, rutter, kubectl, far, w, nil}
	err = errors.Join(
		compare(diffPairs, maxFile, "rutter plan of Istio's manifest / kubectl diff --server-side"+n+away, wide.ours, wide.diff("-f", w.file)),
		compare(diffPairs, maxNear, "the same, the server on this machine", near.ours, near.diff("-f", w.file)),
		compare(diffPairs, maxFolder, "rutter plan of a folder of it / kubectl diff --server-side --concurrency 32"+n+away, wide.ours, wide.diff("--concurrency", "32", "-f", w.folder)),
		compare(diffPairs, maxFolder, "the same, the server on this machine", near.ours, near.diff("--concurrency", "32", "-f", w.folder)),
	)
	fmt.Printf("rutter's plan takes %.2f s of processors (median)\n", median(near.used))
	return err
}

// contest is the two commands on one server.
type contest struct {
	ctx                         context.Context //nolint:containedctx // for the length of one comparison
	rutter, kubectl, kubeconfig string
	w                           written
	used                        []float64 // seconds of processors, of ours
}

func (c *contest) ours() (cost, error) {
	got, err := spend(c.ctx, nil, c.rutter, "plan", "tests/bench/testdata/review.star", "--set-file", "manifest="+c.w.file, "--kubeconfig", c.kubeconfig)
	c.used = append(c.used, got.cpu.Seconds())
	return got, err
}

// diff exits with 1 where something differs.
func (c *contest) diff(args ...string) func() (cost, error) {
	return func() (cost, error) {
		return spend(c.ctx, []int{1}, c.kubectl, append([]string{"diff", "--server-side", "--force-conflicts", "--kubeconfig", c.kubeconfig}, args...)...)
	}
}

// istio is the manifest of Istio's default profile: the real one where there is one,
// else as rutter renders it.
func istio(ctx context.Context, rutter string) ([]*plane.Object, error) {
	if path, ok := plane.Fixture("1.31.0", plane.DefaultProfile); ok {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return plane.Parse(text)
	}
	c, err := spend(ctx, nil, rutter, "istioctl", "manifest", "generate", "--set", "hub=docker.io/istio", "--set", "tag=1.31.0", "--set", "profile="+plane.DefaultProfile)
	if err != nil {
		return nil, err
	}
	return plane.Parse(c.out)
}

// written is the manifest as each of the two takes it.
type written struct{ file, folder string }

func write(dir string, objs []*plane.Object) (written, error) {
	w := written{filepath.Join(dir, "istio.yaml"), filepath.Join(dir, "istio")}
	if err := os.Mkdir(w.folder, 0o700); err != nil {
		return w, err
	}
	var all bytes.Buffer
	for i, o := range objs {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return w, err
		}
		fmt.Fprintf(&all, "---\n%s", text)
		if err := os.WriteFile(filepath.Join(w.folder, fmt.Sprintf("%03d.yaml", i)), text, 0o600); err != nil {
			return w, err
		}
	}
	return w, os.WriteFile(w.file, all.Bytes(), 0o600)
}
