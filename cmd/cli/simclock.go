package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/sim"
)

type clockFlags struct {
	target  target
	advance time.Duration
	to      string
	speed   float64
	output  string
}

func (a *app) simClockCmd() *cobra.Command {
	f := &clockFlags{}
	cmd := &cobra.Command{
		Use:   "clock",
		Short: "Read or move the clock of a simulated cluster that is being served",
		Long: `Prints what time it is in the simulated cluster that the kubeconfig names, and how
many simulated seconds pass in a second; before, moves it as the flags say. Time
that is to pass does so at once, with all that is due in it: restarts, back-offs,
deadlines, leases. It goes forward only.`,
		Example: `  rutter sim clock --kubeconfig /tmp/sim.yaml
  rutter sim clock --advance 15m
  rutter sim clock --speed 0                     # from now on it moves only when told to`,
		Args: exactly(0, 0, "flags alone"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			change, err := f.change(cmd)
			if err != nil {
				return err
			}
			return a.simClock(cmd.Context(), f, change)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.target.Kubeconfig, "kubeconfig", "", "kubeconfig file (default $KUBECONFIG, then ~/.kube/config)")
	fs.StringVar(&f.target.Context, "context", "", "kubeconfig context (default the current one)")
	fs.DurationVar(&f.advance, "advance", 0, "let so much time pass, such as 15m")
	fs.StringVar(&f.to, "to", "", "let time pass until then, such as 2026-01-01T02:00:00Z")
	fs.Float64Var(&f.speed, "speed", 1, "simulated seconds per second; 0 stops the clock")
	fs.StringVarP(&f.output, "output", "o", "", "json")
	return cmd
}

// change is what the flags ask for; nil where they ask for nothing.
func (f *clockFlags) change(cmd *cobra.Command) (*sim.ClockChange, error) {
	if f.output != "" && f.output != "json" {
		return nil, unknownFormat(f.output, "json")
	}
	var c sim.ClockChange
	given := cmd.Flags().Changed
	if given("advance") && given("to") {
		return nil, diag.Usagef("--to", "goes without --advance")
	}
	if given("advance") {
		if f.advance < 0 {
			return nil, diag.Usagef("--advance "+f.advance.String(), "the clock goes forward only")
		}
		c.Advance = f.advance.String()
	}
	if given("to") {
		to, err := time.Parse(time.RFC3339, f.to)
		if err != nil {
			return nil, diag.Usagef("--to "+f.to, "is no time such as 2026-01-01T02:00:00Z")
		}
		c.To = &to
	}
	if given("speed") {
		if !(f.speed >= 0) { // NaN is neither
			return nil, diag.Usagef("--speed", "got %g, want 0 or more", f.speed)
		}
		c.Speed = &f.speed
	}
	if c == (sim.ClockChange{}) {
		return nil, nil
	}
	return &c, nil
}

func (a *app) simClock(ctx context.Context, f *clockFlags, change *sim.ClockChange) error {
	rc, name, err := cluster.Config(cluster.Options{Kubeconfig: f.target.Kubeconfig, Context: f.target.Context, Getenv: a.env.Getenv, Clock: a.env.Clock})
	if err != nil {
		return &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing", Next: "rutter sim serve --kubeconfig-out FILE"}
	}
	now, err := sim.RemoteClock(ctx, rc, change)
	switch {
	case errors.Is(err, sim.ErrNotSimulated):
		return &diag.Error{Code: diag.Usage, Subject: "context " + name, Err: err, Expect: "one that rutter sim serve serves", Changed: "nothing"}
	case err != nil:
		return &diag.Error{Subject: "clock of " + name, Err: err}
	case f.output == "json":
		return json.NewEncoder(a.env.Stdout).Encode(now)
	}
	_, err = fmt.Fprintf(a.env.Stdout, "%s  speed %g\n", now.Now.UTC().Format(time.RFC3339), now.Speed)
	return err
}
