package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/plain"
)

// given are the flags of parameters.
type given struct {
	sets, files, vars []string
	params            string
}

// flags adds them; more ends the line of each that says a value.
func (g *given) flags(cmd *cobra.Command, more string) {
	fs := cmd.Flags()
	fs.StringArrayVar(&g.sets, "set", nil, "parameter, name=value (repeatable); none that is secret"+more)
	fs.StringArrayVar(&g.files, "set-file", nil, "parameter, name=FILE that holds its value, - for standard input (repeatable)"+more)
	fs.StringArrayVar(&g.vars, "set-env", nil, "parameter, name=VARIABLE of the environment that holds its value (repeatable)"+more)
	fs.StringVar(&g.params, "params", "", "YAML or JSON file of parameters; the others win")
}

// maxGiven bounds a file that is given on the command line, in bytes.
const maxGiven = 16 << 20

// given reads what the flags name.
func (a *app) given(ctx context.Context, g *given) (interp.Given, error) {
	out := interp.Given{Sets: g.sets, Read: map[string]string{}, Ask: a.asksSecrets(ctx)}
	var err error
	if out.File, err = a.paramFile(ctx, g.params); err != nil {
		return out, err
	}
	stdin := false
	for _, set := range g.files {
		name, path, err := reads("--set-file", set, "FILE", out.Read)
		if err != nil {
			return out, err
		}
		var b []byte
		switch {
		case path == "-" && stdin:
			return out, diag.Usagef("--set-file "+set, "standard input is read once")
		case path == "-":
			stdin = true
			b, err = env.ReadAll(ctx, a.env.Stdin, maxGiven)
		default:
			b, err = a.readGiven(ctx, path)
		}
		if err != nil {
			return out, &diag.Error{Code: diag.Usage, Subject: "--set-file " + set, Problem: "cannot be read", Err: err, Changed: "nothing"}
		}
		out.Read[name] = oneLineLess(string(b))
	}
	for _, set := range g.vars {
		name, variable, err := reads("--set-env", set, "VARIABLE", out.Read)
		if err != nil {
			return out, err
		}
		if out.Read[name] = a.env.Getenv(variable); out.Read[name] == "" {
			return out, &diag.Error{Code: diag.Usage, Subject: "--set-env " + set, Problem: "there is nothing in that variable", Changed: "nothing"}
		}
	}
	return out, nil
}

// reads takes apart what says where a parameter's value is.
func reads(flag, set, what string, read map[string]string) (name, where string, err error) {
	name, where, ok := strings.Cut(set, "=")
	if !ok || name == "" || where == "" {
		return "", "", &diag.Error{Code: diag.Usage, Subject: flag, Problem: "does not say what of which parameter", Expect: "NAME=" + what, Changed: "nothing"}
	}
	if _, twice := read[name]; twice {
		return "", "", diag.Usagef("parameter "+name, "is set twice")
	}
	return name, where, nil
}

// oneLineLess is s without the end of its last line, which editors and echo add.
func oneLineLess(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// readGiven reads a file that the command line names, a pipe included.
func (a *app) readGiven(ctx context.Context, path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.env.Workdir, path)
	}
	return env.ReadFile(ctx, path, maxGiven)
}

func (a *app) paramFile(ctx context.Context, path string) (map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	b, err := a.readGiven(ctx, path)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "--params " + path, Problem: "cannot be read", Err: err, Changed: "nothing"}
	}
	out := map[string]any{}
	if err := plain.Written.Unmarshal(b, &out); err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "--params " + path, Problem: "is not YAML of name: value", Err: err, Changed: "nothing"}
	}
	return out, nil
}

// asksSecrets asks for a secret parameter at the terminal, which does not show it;
// nil where there is none.
func (a *app) asksSecrets(ctx context.Context) func(*interp.Param) (string, error) {
	in, ok := a.env.Stdin.(*os.File)
	if !ok || !a.env.IsTerminal(a.env.Stdin) || !a.env.IsTerminal(a.env.Stderr) {
		return nil
	}
	told := map[string]string{} // nobody is asked twice
	return func(p *interp.Param) (string, error) {
		if s, ok := told[p.Name]; ok {
			return s, nil
		}
		what := p.Name
		if p.Doc != "" {
			what += " (" + p.Doc + ")"
		}
		if _, err := fmt.Fprintf(a.env.Stderr, "%s, not shown: ", event.Clean(what)); err != nil {
			return "", err
		}
		s, err := readHidden(ctx, in)
		_, werr := fmt.Fprintln(a.env.Stderr)
		if err == nil {
			told[p.Name] = s
		}
		return s, errors.Join(err, werr)
	}
}

// readHidden reads a line without echo. An interrupt gives the terminal back as it
// was.
func readHidden(ctx context.Context, in *os.File) (string, error) {
	fd := int(in.Fd())
	was, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	line, fail := make(chan string, 1), make(chan error, 1)
	go func() {
		b, err := term.ReadPassword(fd)
		if err != nil {
			fail <- err
			return
		}
		line <- string(b)
	}()
	select {
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, was))
	case err := <-fail:
		return "", fmt.Errorf("reading it: %w", err)
	case s := <-line:
		return s, nil
	}
}
