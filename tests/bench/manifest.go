package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"rutter.dev/rutter/tests/e2e/plane"
)

// What rutter has to be at least, beside kubectl: five times as quick with one
// file, and as quick with a folder and 32 requests at a time.
const (
	maxFile   = 1.0 / 5
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
	as := []string{"--kubeconfig", kubeconfig}
	var used []float64
	ours := func() (cost, error) {
		c, err := spend(ctx, nil, rutter, append([]string{"plan", "tests/bench/testdata/review.star", "--set-file", "manifest=" + w.file}, as...)...)
		used = append(used, c.cpu.Seconds())
		return c, err
	}
	diff := func(args ...string) func() (cost, error) {
		return func() (cost, error) { // which exits with 1 where something differs
			return spend(ctx, []int{1}, kubectl, append(append([]string{"diff", "--server-side", "--force-conflicts"}, args...), as...)...)
		}
	}
	n := fmt.Sprintf(" (%d objects)", len(objs))
	err = errors.Join(
		compare(diffPairs, maxFile, "rutter plan of Istio's manifest / kubectl diff --server-side"+n, ours, diff("-f", w.file)),
		compare(diffPairs, maxFolder, "rutter plan of a folder of it / kubectl diff --server-side --concurrency 32"+n, ours, diff("--concurrency", "32", "-f", w.folder)),
	)
	fmt.Printf("rutter's plan takes %.2f s of processors (median)\n", median(used))
	return err
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
		text, err := json.Marshal(o.Object)
		if err != nil {
			return w, err
		}
		fmt.Fprintf(&all, "---\n%s\n", text)
		if err := os.WriteFile(filepath.Join(w.folder, fmt.Sprintf("%03d.json", i)), text, 0o600); err != nil {
			return w, err
		}
	}
	return w, os.WriteFile(w.file, all.Bytes(), 0o600)
}
