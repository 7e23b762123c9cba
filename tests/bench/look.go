package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// What rutter looks at before an upgrade (precheck, census of the proxies, analyze)
// may take, all together, of what istioctl's analyze takes on the same server: issue
// 6, §7.
const (
	maxLook   = 1.0
	lookPairs = 5
)

// look makes the world and compares in it.
func look(ctx context.Context, rutter, istioctl string) (err error) {
	p, err := fill(ctx, rutter, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	return looks(ctx, p.Kubeconfig(), rutter, istioctl)
}

// looks compares in a world that is there.
func looks(ctx context.Context, kubeconfig, rutter, istioctl string) (err error) {
	dir, err := os.MkdirTemp("", "rutter-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	as := []string{"--kubeconfig", kubeconfig}
	var ours, theirs cost
	err = compare(lookPairs, maxLook, "rutter run of precheck, census and analyze / istioctl analyze -A",
		func() (c cost, err error) {
			ours, err = spend(ctx, nil, rutter, append([]string{"run", "tests/bench/testdata/look.star", "--yes", "--state", dir}, as...)...)
			return ours, err
		},
		func() (c cost, err error) {
			theirs, err = spend(ctx, nil, istioctl, append([]string{"analyze", "--all-namespaces"}, as...)...)
			return theirs, err
		})
	fmt.Printf("the last pair: %.1f s of processors, %d MiB at most / %.1f s, %d MiB; rutter says:\n%s",
		ours.cpu.Seconds(), ours.peak>>20, theirs.cpu.Seconds(), theirs.peak>>20, ours.out)
	return err
}
