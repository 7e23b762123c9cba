// Command cluster builds, starts and stops the real control plane of the
// end-to-end tests for a person: see the Makefile's cluster-up and cluster-down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"rutter.dev/rutter/tests/e2e/plane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1) //nolint:gocritic // nothing that stop would do matters then
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("cluster", flag.ExitOnError)
	root, err := plane.Root()
	if err != nil {
		return err
	}
	dir := f.String("dir", filepath.Join(root, "bin", "e2e", "cluster"), "where the cluster keeps its state")
	port := f.Int("first-port", 0, "where the search for free ports begins; 0: 21000")
	mark := f.String("mark", "", "leaks: look for every process with this NAME=VALUE in its environment, instead of those of clusters")
	istio := f.String("istio", "", "an Istio version to install, 1.30.3 or 1.31.0; empty: none")
	if err := f.Parse(args[min(1, len(args)):]); err != nil {
		return err
	}
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	switch verb {
	case "build":
		_, err := build(ctx)
		return err
	case "up":
		return up(ctx, *dir, *port, *istio)
	case "down":
		return down(*dir)
	case "leaks":
		if *mark != "" {
			return marked(ctx, *mark)
		}
		return leaks(*dir)
	}
	return errors.New("usage: cluster build|up|down|leaks [--dir DIR] [--first-port N] [--istio VERSION] [--mark NAME=VALUE]")
}

// build builds everything that the tests run.
func build(ctx context.Context) (plane.Binaries, error) {
	began := time.Now()
	b, err := plane.BuildAll(ctx)
	if err != nil {
		return b, err
	}
	fmt.Fprintf(os.Stderr, "built in %s\n", time.Since(began).Round(time.Second/10))
	return b, nil
}

func up(ctx context.Context, dir string, port int, istio string) error {
	b, err := build(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := plane.Start(ctx, plane.Options{Binaries: b, Dir: dir, FirstPort: port, Detached: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "a cluster with 3 nodes is up after %s; its logs are in %s\n", time.Since(began).Round(time.Second/10), dir)
	if istio != "" {
		objs, err := p.IstioManifest(ctx, istio, plane.DefaultProfile)
		if err == nil {
			err = p.InstallIstio(ctx, istio, objs)
		}
		if err != nil {
			return errors.Join(err, p.Stop())
		}
		fmt.Fprintf(os.Stderr, "Istio %s is installed after %s\n", istio, time.Since(began).Round(time.Second/10))
	}
	fmt.Println(p.Kubeconfig())
	return nil
}

func down(dir string) error {
	p, err := plane.Open(dir)
	if err != nil {
		return err
	}
	if err := p.Stop(); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// leaks fails if anything but the cluster in dir still runs one of the
// binaries: a test that did not clean up.
func leaks(dir string) error {
	b, err := plane.BinariesHere()
	if err != nil {
		return err
	}
	return leftOver(plane.Strays(b, dir))
}

// marked fails if a process below whoever set the mark outlives it by more than
// a moment.
func marked(ctx context.Context, mark string) error {
	var left []string
	err := plane.Until(ctx, 5*time.Second, func(context.Context) (done bool, err error) {
		left, err = plane.Marked(mark)
		return len(left) == 0, err
	})
	if errors.Is(err, errors.ErrUnsupported) {
		fmt.Fprintln(os.Stderr, "processes that are left over are looked for on Linux only")
		return nil
	}
	if err != nil && len(left) == 0 {
		return err
	}
	return leftOver(left)
}

func leftOver(processes []string) error {
	var errs []error
	for _, s := range processes {
		errs = append(errs, errors.New("left over: "+s))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "no process is left over")
	return nil
}
