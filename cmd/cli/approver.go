package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/gate"
)

// approver answers for the operator: from the command line, or at the terminal.
type approver struct {
	yes   bool
	names []string // --approve NAME
	tty   bool
	in    *bufio.Reader
	out   io.Writer
}

var errNoTerminal = errors.New("there is no terminal to ask at, and neither --yes nor --approve NAME was given")

// Approve implements engine.Approver.
func (p *approver) Approve(ctx context.Context, _, message string, _ []string) (string, bool, error) {
	switch {
	case len(p.names) > 0:
		return strings.Join(p.names, ", "), true, nil
	case p.yes:
		return person() + " (--yes)", true, nil
	case !p.tty:
		return "", false, errNoTerminal
	}
	ok, err := p.ask(ctx, "Approve: "+message+"?")
	return person(), ok, err
}

// Sign implements engine.Signatory: the names on the command line, and whoever
// sits at the terminal if that is one of those who are wanted. --yes is nobody.
func (p *approver) Sign(ctx context.Context, _, message string, wanted []gate.Approval, have []string) ([]string, bool, error) {
	names := slices.Clone(p.names)
	me := person()
	may := slices.ContainsFunc(wanted, func(a gate.Approval) bool {
		return slices.Contains(a.People, me) && a.Missing(slices.Concat(have, names)) > 0
	})
	if !p.tty || !may || slices.Contains(slices.Concat(have, names), me) {
		return names, true, nil
	}
	ok, err := p.ask(ctx, fmt.Sprintf("Approve as %s: %s?", me, message))
	if err != nil || !ok {
		return []string{me}, false, err
	}
	return append(names, me), true, nil
}

// Leave implements engine.Approver. --yes and --approve answer approve(), never
// a gate's ask.
func (p *approver) Leave(ctx context.Context, findings []gate.Finding) (string, bool, error) {
	if !p.tty {
		return "", false, errNoTerminal
	}
	for _, f := range findings {
		if f.Verdict != gate.Ask {
			continue
		}
		ok, err := p.ask(ctx, fmt.Sprintf("%s asks: %s: %s. Give leave?", f.Code, f.Ref, f.Problem))
		if err != nil || !ok {
			return person(), false, err
		}
	}
	return person(), true, nil
}

func (p *approver) ask(ctx context.Context, question string) (bool, error) {
	if _, err := fmt.Fprintf(p.out, "%s [y/N] ", question); err != nil {
		return false, err
	}
	line := make(chan string, 1)
	fail := make(chan error, 1)
	go func() {
		s, err := p.in.ReadString('\n')
		if err != nil {
			fail <- err
			return
		}
		line <- s
	}()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case err := <-fail:
		return false, fmt.Errorf("reading the answer: %w", err)
	case s := <-line:
		s = strings.ToLower(strings.TrimSpace(s))
		return s == "y" || s == "yes", nil
	}
}

// person is who runs rutter on this machine.
func person() string {
	u, err := user.Current()
	if err != nil {
		return "unknown user"
	}
	return u.Username
}
