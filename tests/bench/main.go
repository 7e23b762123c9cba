// Command bench measures rutter's command line beside kubectl's, in pairs, and
// prints ratios: absolute times of a shared machine mean little.
//
//	bench version RUTTER KUBECTL    start-up
//	bench render  RUTTER ISTIOCTL   Istio's default profile
//	bench look    RUTTER ISTIOCTL [KUBECONFIG]
//	                                precheck, census and analyze, and istioctl's analyze, on a
//	                                real API server: its own, or one that up left
//	bench manifest RUTTER KUBECTL KUBECONFIG
//	                                the plan of Istio's manifest and kubectl diff of it, on a
//	                                server that up left; scale measures that, too
//	bench scale   RUTTER KUBECTL    plans against a real API server
//	bench up      RUTTER KUBECTL    leaves the server of scale running
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

const pairs = 21

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: bench version|scale|up RUTTER KUBECTL, bench render RUTTER ISTIOCTL, bench look RUTTER ISTIOCTL [KUBECONFIG], or bench manifest RUTTER KUBECTL KUBECONFIG")

func run(ctx context.Context, args []string) error {
	if len(args) == 4 {
		switch args[0] {
		case "look":
			return looks(ctx, args[3], args[1], args[2])
		case "manifest":
			return manifests(ctx, args[3], args[1], args[2])
		}
	}
	if len(args) != 3 {
		return errUsage
	}
	rutter, kubectl := args[1], args[2]
	switch args[0] {
	case "version":
		return startUp(ctx, rutter, kubectl)
	case "render":
		return render(ctx, rutter, kubectl)
	case "look":
		return look(ctx, rutter, kubectl)
	case "scale":
		return scale(ctx, rutter, kubectl)
	case "up":
		return leaveUp(ctx, rutter)
	}
	return errUsage
}

// startUp compares the shortest command of each.
func startUp(ctx context.Context, rutter, kubectl string) error {
	return compare(pairs, 0, "rutter version / kubectl version --client",
		func() (cost, error) { return spend(ctx, nil, rutter, "version") },
		func() (cost, error) { return spend(ctx, nil, kubectl, "version", "--client") })
}

// maxRender is what rutter's render of the default profile may take of istioctl's.
const maxRender = 1.1

// render compares the manifest of Istio's default profile.
func render(ctx context.Context, rutter, istioctl string) error {
	return compare(pairs, maxRender, "rutter istioctl manifest generate / istioctl manifest generate",
		func() (cost, error) { return spend(ctx, nil, rutter, "istioctl", "manifest", "generate") },
		func() (cost, error) { return spend(ctx, nil, istioctl, "manifest", "generate") })
}

// compare runs two commands in turn, n times after a warm-up, and prints the
// median of the ratios of their times, which may be at most so much (0: anything).
func compare(n int, most float64, what string, ours, theirs func() (cost, error)) error {
	var ratios, a, b []float64
	for i := range n + 1 {
		x, err := ours()
		if err != nil {
			return err
		}
		y, err := theirs()
		if err != nil {
			return err
		}
		if i == 0 {
			continue // a warm-up
		}
		p, q := x.wall.Seconds()*1000, y.wall.Seconds()*1000
		a, b, ratios = append(a, p), append(b, q), append(ratios, p/q)
	}
	fmt.Printf("%s: ratio %.2f (median of %d pairs, %.2f to %.2f; %.0f ms / %.0f ms)\n",
		what, median(ratios), n, slices.Min(ratios), slices.Max(ratios), median(a), median(b))
	if most > 0 && median(ratios) > most {
		return fmt.Errorf("%s: a ratio of %.2f is more than %.2f", what, median(ratios), most)
	}
	return nil
}

// cost is what a command took.
type cost struct {
	wall, cpu time.Duration
	peak      int64 // bytes of memory, at the most
	exit      int
	out       []byte
}

// spend runs a command to its end. Exit codes that are taken for good: 0, and
// those that are given.
func spend(ctx context.Context, good []int, name string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	c := cost{wall: time.Since(began), out: out}
	var exit *exec.ExitError
	if errors.As(err, &exit) && slices.Contains(good, exit.ExitCode()) {
		err = nil
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w\n%s", cmd, err, tail(out))
	}
	c.exit, c.cpu = cmd.ProcessState.ExitCode(), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.peak = u.Maxrss << 10 // Linux gives KiB
	}
	return c, nil
}

// tail is the end of a command's output, for errors.
func tail(out []byte) []byte { return out[max(0, len(out)-2000):] }

func median(xs []float64) float64 {
	sorted := slices.Sorted(slices.Values(xs))
	return sorted[len(sorted)/2]
}
