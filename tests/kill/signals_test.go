package kill

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"rutter.dev/rutter/runtime/journal"
)

// TestNobodyWatchesAnyMore: a run whose terminal is closed, or whose output
// nobody reads, finishes what is in flight and stops as at a first interrupt.
func TestNobodyWatchesAnyMore(t *testing.T) {
	u := &undisturbed{cache: t.TempDir()}
	moment := func() func(ev) bool { return nth(3, of("effect-intent", "control plane")) }
	t.Run("SIGHUP", func(t *testing.T) {
		p := newPlace(t, u.cache)
		x := p.start(true, upgrade...)
		x.until(moment())
		x.signal(syscall.SIGHUP)
		x.must(130)
		p.stopped(x.run())
	})
	t.Run("the reader of stdout goes away", func(t *testing.T) {
		p := newPlace(t, u.cache)
		x := p.start(true, upgrade...)
		x.until(moment())
		if err := x.out.Close(); err != nil {
			t.Fatal(err)
		}
		if err := x.cmd.Wait(); x.cmd.ProcessState.ExitCode() != 130 {
			t.Fatalf("%v, want exit 130\n%s", err, x.stderr.String())
		}
		if out := x.stderr.String(); !strings.Contains(out, "rutter resume "+x.run()) {
			t.Errorf("stderr does not say how to go on:\n%s", out)
		}
		p.stopped(x.run())
	})
	t.Run("the terminal is closed", func(t *testing.T) {
		p := newPlace(t, u.cache)
		master, slave := terminal(t)
		args := append(append([]string{}, upgrade...), "--state", p.state())
		cmd := p.command(args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // its own session, of which this is the terminal
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // ended already, unless the test failed
		if err := slave.Close(); err != nil {
			t.Fatal(err)
		}
		readUntil(t, master, "control plane")
		if err := master.Close(); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if cmd.ProcessState.ExitCode() != 130 {
			t.Fatalf("%v, want exit 130", err)
		}
		p.stopped(p.only())
	})
}

// stopped demands of a run that it stopped cleanly and can be finished.
func (p *place) stopped(run string) {
	p.t.Helper()
	j := p.journal(run)
	if j.status != journal.RunInterrupted {
		p.t.Errorf("the run is %s, want %s", j.status, journal.RunInterrupted)
	}
	atMostOnce(p.t, j)
	if n := j.doubts(); n != 0 {
		p.t.Errorf("%d effects are in doubt", n)
	}
	p.start(false, "resume", run, "--yes").must(0)
	if got := p.journal(run); got.status != journal.RunDone || got.resumes != 1 {
		p.t.Errorf("after the resume the run is %s, with %d resumes", got.status, got.resumes)
	}
}

// only is the one run of the place.
func (p *place) only() string {
	p.t.Helper()
	entries, err := os.ReadDir(p.state())
	if err != nil || len(entries) != 1 {
		p.t.Fatalf("%d runs, %v", len(entries), err)
	}
	return entries[0].Name()
}

// readUntil reads until the text has come.
func readUntil(t *testing.T, f *os.File, text string) {
	t.Helper()
	var all strings.Builder
	buf := make([]byte, 1<<12)
	for !strings.Contains(all.String(), text) {
		n, err := f.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			t.Fatalf("%q did not come: %v\n%s", text, err, all.String())
		}
	}
}
