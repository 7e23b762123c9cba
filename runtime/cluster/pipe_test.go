//go:build unix

package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rutter.dev/rutter/runtime/env"
)

// client-go would wait for whoever writes to a pipe, past every signal.
func TestKubeconfigIsAPipe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	names := func(field string) string {
		text := `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://127.0.0.1:1", X: pipe}}]
users: [{name: u, user: {Y: pipe}}]
`
		for _, slot := range []string{"X", "Y"} {
			if (slot == "X") == (field == "certificate-authority") {
				text = strings.Replace(text, slot+": pipe", field+": pipe", 1)
			} else {
				text = strings.Replace(text, slot+": pipe", "", 1)
			}
		}
		name := filepath.Join(dir, field)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, o := range map[string]Options{
		"given":                 {Kubeconfig: pipe},
		"in KUBECONFIG":         {Getenv: func(k string) string { return map[string]string{"KUBECONFIG": pipe}[k] }},
		"certificate authority": {Kubeconfig: names("certificate-authority")},
		"certificate":           {Kubeconfig: names("client-certificate")},
		"key":                   {Kubeconfig: names("client-key")},
		"token":                 {Kubeconfig: names("tokenFile")},
	} {
		o.Clock = now{}
		_, _, err := Config(o)
		if !errors.Is(err, env.ErrNoFile) || !strings.Contains(err.Error(), pipe+": ") {
			t.Errorf("%s: got %v, want %v with its name", name, err, env.ErrNoFile)
		}
	}
	if _, _, err := Config(Options{Kubeconfig: os.DevNull, Clock: now{}}); !errors.Is(err, ErrNoConfig) {
		t.Errorf("the null device: got %v, want %v", err, ErrNoConfig)
	}
}
