//go:build e2e

// Command istiobox is the mesh's side of the real control plane in one binary:
// istiod (pilot-discovery), istioctl, and nodesim, chosen by the first
// argument. It is in the main module so that both link the same Istio.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	istioctl "istio.io/istio/istioctl/cmd"
	pilot "istio.io/istio/pilot/cmd/pilot-discovery/app"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/version"

	"rutter.dev/rutter/tests/e2e/nodesim"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	// The library does not know its version; a release build would.
	if v := os.Getenv("ISTIOBOX_VERSION"); v != "" {
		version.Info.Version, version.DockerInfo.Tag, version.DockerInfo.Hub = v, v, "docker.io/istio"
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
		if err := istioctl.GetRootCmd(os.Args[1:]).Execute(); err != nil {
			os.Exit(istioctl.GetExitCode(err))
		}
	case "nodesim":
		if err := simulate(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		usage()
	}
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
