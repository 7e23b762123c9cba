package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type now struct{}

func (now) Now() time.Time                             { return time.Now() }
func (now) Virtual() bool                              { return false }
func (now) Sleep(context.Context, time.Duration) error { return nil }

// kubeconfigWith is a kubeconfig whose user's credentials come from command.
func kubeconfigWith(t *testing.T, command string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: "` + command + `", args: [-c, "touch ran"]}}}]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCredentialPrograms(t *testing.T) {
	bin := t.TempDir()
	ran := filepath.Join(bin, "ran")
	for _, name := range []string{"aws", "mine"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\ntouch "+ran+"\nexit 1\n"), 0o700); err != nil { //nolint:gosec // it must be executable
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, c := range []struct {
		command string
		allowed []string
		runs    bool
	}{
		{"aws", nil, true},
		{"sh", nil, false},
		{"mine", nil, false},
		{"mine", []string{"mine"}, true},
		{"mine", []string{AnyPlugin}, true},
		{filepath.Join(bin, "aws"), nil, false}, // by a path it may be anything
		{filepath.Join(bin, "aws"), []string{filepath.Join(bin, "aws")}, true},
		{"./aws", nil, false},
	} {
		_ = os.Remove(ran) // it need not be there
		_, err := Connect(context.Background(), Options{Kubeconfig: kubeconfigWith(t, c.command), Clock: now{}, ExecPlugins: c.allowed})
		if err == nil {
			t.Errorf("%s: connected", c.command)
			continue
		}
		if refused := errors.Is(err, ErrPlugin); refused == c.runs {
			t.Errorf("%s with %v: got %v", c.command, c.allowed, err)
		}
		if _, serr := os.Stat(ran); (serr == nil) != c.runs {
			t.Errorf("%s with %v: ran is %v, want %v", c.command, c.allowed, serr == nil, c.runs)
		}
		if strings.Contains(err.Error(), "touch") {
			t.Errorf("%s: the error tells the program's arguments: %v", c.command, err)
		}
		if !c.runs && !strings.Contains(err.Error(), "RUTTER_EXEC_PLUGINS="+c.command) && c.command != "./aws" {
			t.Errorf("%s: the error does not say how to allow it: %v", c.command, err)
		}
	}
}
