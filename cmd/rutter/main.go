// Command rutter runs versioned Starlark runbooks that upgrade Istio on
// Kubernetes, and refuses to let a runbook do anything unsafe.
package main

import (
	"os"

	"rutter.dev/rutter/cmd/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
