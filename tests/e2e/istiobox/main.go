//go:build e2e

// Command istiobox is the mesh's side of the real control plane in one binary:
// istiod (pilot-discovery), istioctl, and nodesim, chosen by the first
// argument. Called by the name istioctl it is that: the real one, at the
// version that go.mod pins, which tests hold the simulated cluster against, too.
// It is in the main module so that all link the same Istio, once.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"istio.io/istio/istioctl/cmd"
	pilot "istio.io/istio/pilot/cmd/pilot-discovery/app"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/version"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/tests/e2e/nodesim"
)

func main() {
	// The library does not know its version; a release build would.
	v := cmp.Or(os.Getenv("ISTIOBOX_VERSION"), lib.LinkedVersion)
	version.Info.Version, version.Info.GitTag, version.Info.BuildStatus = v, v, "Clean"
	version.DockerInfo.Tag, version.DockerInfo.Hub = v, lib.DefaultHub
	if filepath.Base(os.Args[0]) == "istioctl" {
		os.Exit(istioctl())
	}
	if len(os.Args) < 2 {
		usage()
	}
	os.Args = os.Args[1:]
	switch os.Args[0] {
	case "pilot-discovery":
		log.EnableKlogWithCobra()
		if err := pilot.NewRootCommand().Execute(); err != nil {
			log.Error(err)
			os.Exit(1)
		}
	case "istioctl":
		os.Exit(istioctl())
	case "nodesim":
		if err := simulate(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		usage()
	}
}

// istioctl is the library's own main, for the arguments of this process.
func istioctl() int {
	if err := cmd.ConfigAndEnvProcessing(); err != nil {
		fmt.Fprintln(os.Stderr, "Could not initialize:", err)
		return 1
	}
	root := cmd.GetRootCmd(os.Args[1:])
	log.EnableKlogWithCobra()
	if err := root.Execute(); err != nil {
		return cmd.GetExitCode(err)
	}
	return 0
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: istiobox pilot-discovery|istioctl|nodesim [flags]")
	os.Exit(2)
}

func simulate(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	o := nodesim.Options{Exe: exe}
	f := flag.NewFlagSet("nodesim", flag.ExitOnError)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "its own kubeconfig")
	f.StringVar(&o.IstiodKubeconfig, "istiod-kubeconfig", "", "the kubeconfig of istiods")
	f.StringVar(&o.Dir, "dir", "", "where logs and pid files go")
	f.StringVar(&o.Socket, "socket", "", "Unix socket of the pod network")
	f.IntVar(&o.FirstPort, "first-port", 21100, "where the search for free ports begins")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return nodesim.Run(ctx, o)
}
