// Package env is the one place through which rutter meets the machine it runs
// on: time, environment variables, standard streams and randomness. Everything
// above takes an *Env (or one of its fields) as an argument, so that a test, a
// rehearsal on the simulated cluster and a real run differ only in what is
// plugged in here.
package env

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"time"
)

// Clock tells the time and lets it pass. Implementations are safe for
// concurrent use.
type Clock interface {
	// Now is the current time on this clock.
	Now() time.Time
	// Sleep returns when d has passed, or with ctx's error when ctx ends
	// first. A virtual clock does not block: it moves itself d forward, and
	// with it everything that was due in between.
	Sleep(ctx context.Context, d time.Duration) error
	// Virtual reports whether Sleep moves time instead of waiting for it.
	// Waits poll on a virtual clock, because nothing happens between polls,
	// and watch on a real one.
	Virtual() bool
}

// Env carries every capability that comes from outside the program.
type Env struct {
	Clock  Clock
	Rand   io.Reader // source of run ids, nonces and keys
	Getenv func(string) string

	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// IsTerminal reports whether a stream is an interactive terminal.
	IsTerminal func(stream any) bool
	// Workdir is the directory that relative paths on the command line start from.
	Workdir string
}

// System is the environment of the real process.
func System(isTerminal func(any) bool) (*Env, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return &Env{
		Clock: SystemClock{}, Rand: rand.Reader, Getenv: os.Getenv,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		IsTerminal: isTerminal, Workdir: wd,
	}, nil
}

// SystemClock is the machine's own clock.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Virtual implements Clock.
func (SystemClock) Virtual() bool { return false }

// Sleep implements Clock.
func (SystemClock) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
