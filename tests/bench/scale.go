package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rutter.dev/rutter/runtime/twin"
	"rutter.dev/rutter/tests/e2e/plane"
)

// world is a mesh of 10,000 pods in 1,000 namespaces, on ten large nodes.
const (
	world     = "mesh,istio=1.30.3,workloads=2800,namespaces=1000,nodes=10,node-pods=8000,seed=1"
	firstPort = 33000 // apart from those of end-to-end tests
	scaleRuns = 3     // of which the quickest counts
	diffPairs = 7
)

// bounds of issue 7, §7.
const (
	maxPlan = 60 * time.Second
	maxPeak = 3 << 29 // 1.5 GiB
)

// scale makes the world and measures in it.
func scale(ctx context.Context, rutter, kubectl string) (err error) {
	p, err := fill(ctx, rutter, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	return errors.Join(
		measure(ctx, "rutter plan of an upgrade of 10,000 pods in 1,000 namespaces", maxPlan, rutter, append(upgrade, "--kubeconfig", p.Kubeconfig())...),
		measure(ctx, "rutter impact of a label there", 0, rutter, append(moved, "--kubeconfig", p.Kubeconfig())...),
		manifests(ctx, p.Kubeconfig(), rutter, kubectl),
	)
}

var (
	upgrade = []string{"plan", "runbooks/istio/in-place.star", "--set", "to=1.31.0", "--set", "soak=1s", "-o", "json"}
	moved   = []string{"impact", "label", "namespace/istio-system", "istio.io/rev=default", "-o", "json"}
)

// leaveUp makes the world for a person, who ends it with the command that is
// printed.
func leaveUp(ctx context.Context, rutter string) error {
	p, err := fill(ctx, rutter, true)
	if err != nil {
		return err
	}
	fmt.Printf("%s\nend it with: go run ./tests/e2e/cmd/cluster down --dir %s\n", p.Kubeconfig(), p.Dir())
	return nil
}

// fill starts an API server with the world in it. The world is made once, on a
// simulated cluster, and kept in bin.
func fill(ctx context.Context, rutter string, stay bool) (*plane.Plane, error) {
	root, err := plane.Root()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "bin", "bench")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s, err := snapshot(ctx, rutter, filepath.Join(dir, "world.snapshot"))
	if err != nil {
		return nil, err
	}
	b, err := plane.Ensure(ctx)
	if err != nil {
		return nil, err
	}
	o := plane.Options{Binaries: b, FirstPort: firstPort, Bare: true, Detached: stay}
	if stay {
		o.Dir = filepath.Join(dir, "plane")
	}
	p, err := plane.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	began, pods := time.Now(), 0
	for _, o := range s.Objects {
		if o.GetKind() == "Pod" {
			pods++
		}
	}
	if err := p.Fill(ctx, s.Objects); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	fmt.Printf("%d objects, %d of them pods, are in a real API server after %s\n", len(s.Objects), pods, time.Since(began).Round(time.Second))
	return p, nil
}

func snapshot(ctx context.Context, rutter, path string) (*twin.Snapshot, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := spend(ctx, nil, rutter, "snapshot", path, "--sim", world); err != nil {
			return nil, err
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s, err := twin.ReadSnapshot(file)
	return s, errors.Join(err, file.Close())
}

// measure runs rutter several times and prints the best: the machine is not
// ours alone. within is the time that it may take, 0 for any.
func measure(ctx context.Context, what string, within time.Duration, rutter string, args ...string) error {
	var best, worst cost
	for range scaleRuns {
		c, err := spend(ctx, nil, rutter, args...)
		if err != nil {
			return err
		}
		if best.wall == 0 || c.wall < best.wall {
			best = c
		}
		worst.wall, worst.peak = max(worst.wall, c.wall), max(worst.peak, c.peak)
	}
	fmt.Printf("%s: %.1f s (best of %d, the slowest %.1f s), %.1f s of processors, %d MiB at most\n",
		what, best.wall.Seconds(), scaleRuns, worst.wall.Seconds(), best.cpu.Seconds(), worst.peak>>20)
	var errs []error
	if within > 0 && best.wall > within {
		errs = append(errs, fmt.Errorf("%s: took %s, which is more than %s", what, best.wall, within))
	}
	if worst.peak > maxPeak {
		errs = append(errs, fmt.Errorf("%s: took %d MiB, which is more than %d", what, worst.peak>>20, maxPeak>>20))
	}
	return errors.Join(errs...)
}
