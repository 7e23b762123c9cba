package toolchain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"rutter.dev/rutter/runtime/diag"
)

// Command is one execution of a tool: a program and its arguments, never a
// shell's line.
type Command struct {
	Path  string
	Args  []string
	Env   []string // all of it: nothing is inherited
	Dir   string
	Stdin io.Reader
	// MaxStdout and MaxStderr bound what is kept; more is an error of stdout, and
	// cut off of stderr.
	MaxStdout, MaxStderr int
}

// Result is what a Command said.
type Result struct {
	Stdout, Stderr []byte
	Code           int
}

// Runner executes a command. An error means that it could not be run to its
// end; that it failed is Result.Code.
type Runner func(ctx context.Context, c Command) (*Result, error)

// ErrOutput is wrapped where a tool wrote more than it may.
var ErrOutput = errors.New("it wrote more than rutter takes")

// killDelay is how long a tool that was told to end gets before it is killed.
const killDelay = 2 * time.Second

func runCommand(ctx context.Context, c Command) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, c.Path, c.Args...) // #nosec G204 -- an istioctl of a pinned digest, with no shell between
	cmd.Env, cmd.Dir, cmd.Stdin = c.Env, c.Dir, c.Stdin
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	out := &bounded{max: c.MaxStdout, full: func() { cancel(ErrOutput) }}
	errs := &bounded{max: c.MaxStderr}
	cmd.Stdout, cmd.Stderr = out, errs
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, cause)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return &Result{Stdout: out.kept, Stderr: errs.kept, Code: exit.ExitCode()}, nil
	case err != nil:
		return nil, unrunnable(c.Path, err)
	}
	return &Result{Stdout: out.kept, Stderr: errs.kept}, nil
}

// unrunnable says what keeps a program from starting.
func unrunnable(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return &diag.Error{Subject: path, Problem: "is not for this machine: wrong architecture or system, or no program", Err: err}
	case errors.Is(err, os.ErrPermission):
		return &diag.Error{Subject: path, Problem: "may not be executed", Next: "chmod +x " + path, Err: err}
	case errors.Is(err, os.ErrNotExist):
		return &diag.Error{Subject: path, Problem: "is not there, or the loader that it needs is not", Err: err}
	}
	return fmt.Errorf("%s: %w", path, err)
}

// bounded keeps the first max bytes. It embeds no buffer, whose ReadFrom would
// go round Write.
type bounded struct {
	kept []byte
	max  int
	full func()
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	room := b.max - len(b.kept)
	b.kept = append(b.kept, p[:min(room, len(p))]...)
	if len(p) > room && b.full != nil {
		b.full()
	}
	return len(p), nil
}

const (
	maxManifest = 64 << 20 // of what a tool may print
	maxTalk     = 64 << 10
	askTimeout  = 20 * time.Second
)

// Exec runs an istioctl with nothing of this process's environment but a home
// folder of its own, which is gone afterwards: what it renders can depend on its
// arguments only. It is not given a kubeconfig. A non-zero exit is an error with
// what it said.
func (t *Toolchain) Exec(ctx context.Context, binary string, args ...string) ([]byte, error) {
	home, err := os.MkdirTemp("", "rutter-istioctl-")
	if err != nil {
		return nil, err
	}
	res, err := t.o.Run(ctx, Command{
		Path: binary, Args: args, Dir: home, MaxStdout: maxManifest, MaxStderr: maxTalk,
		Env: []string{"HOME=" + home, "KUBECONFIG=" + home + "/none", "TMPDIR=" + home, "PATH=/nonexistent"},
	})
	if err := errors.Join(err, os.RemoveAll(home)); err != nil {
		return nil, err
	}
	if res.Code != 0 {
		return nil, &ToolError{Path: binary, Code: res.Code, Message: lastWords(res.Stderr)}
	}
	return res.Stdout, nil
}

// ToolError is a tool that ended with another code than 0.
type ToolError struct {
	Path    string
	Code    int
	Message string // what it wrote to stderr
}

// Error names the tool, what it said and its code.
func (e *ToolError) Error() string {
	return fmt.Sprintf("%s: %s (exit %d)", e.Path, e.Message, e.Code)
}

func lastWords(stderr []byte) string {
	s := strings.TrimSpace(string(bytes.ToValidUTF8(stderr, []byte("?"))))
	if s == "" {
		return "failed without a word"
	}
	return s
}

// VersionOf asks an istioctl for its own version.
func (t *Toolchain) VersionOf(ctx context.Context, binary string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("did not say its version within %s", askTimeout))
	defer cancel()
	out, err := t.Exec(ctx, binary, "version", "--remote=false", "--output", "json")
	if err != nil {
		return "", err
	}
	var v struct {
		Client struct {
			Version string `json:"version"`
		} `json:"clientVersion"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Client.Version == "" {
		return "", fmt.Errorf("%s: does not say its version as istioctl does", binary)
	}
	return v.Client.Version, nil
}
