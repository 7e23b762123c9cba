// Command kubectl is the real kubectl, built from its library at the version
// that go.mod pins, for tests that hold the simulated cluster against it.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// Prints the error as kubectl does and exits with its code.
		util.CheckErr(err)
		os.Exit(1)
	}
}
