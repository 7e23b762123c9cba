// Command bench times rutter's command line against kubectl's, in pairs, and
// prints the ratio: absolute times of a shared machine mean little.
//
//	bench RUTTER KUBECTL
package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

const pairs = 21

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bench RUTTER KUBECTL")
		os.Exit(2)
	}
	rutter, kubectl := os.Args[1], os.Args[2]
	var ratios, a, b []float64
	for i := range pairs + 1 {
		ours, err := timed(rutter, "version")
		if err != nil {
			fail(err)
		}
		theirs, err := timed(kubectl, "version", "--client")
		if err != nil {
			fail(err)
		}
		if i == 0 {
			continue // a warm-up
		}
		a, b, ratios = append(a, ours), append(b, theirs), append(ratios, ours/theirs)
	}
	fmt.Printf("rutter version / kubectl version --client: ratio %.2f (median of %d pairs; %.0f ms / %.0f ms)\n",
		median(ratios), pairs, median(a), median(b))
}

// timed runs a command to its end and returns the milliseconds it took.
func timed(name string, args ...string) (float64, error) {
	cmd := exec.Command(name, args...)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return float64(time.Since(began).Microseconds()) / 1000, nil
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
