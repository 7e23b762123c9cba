//go:build unix

package policy

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Opening a pipe waits for its writer, and no signal ends that.
func TestPolicyThatIsAPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "rutter.yaml")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(name); err == nil || !strings.Contains(err.Error(), "a pipe") {
		t.Errorf("read: %v", err)
	}
	if _, err := Read(t.Context(), name, Options{}); err == nil || !strings.Contains(err.Error(), "a pipe") {
		t.Errorf("read with rules: %v", err)
	}
}
