package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/journal"
)

// A run whose journal somebody else goes on with has no disk to be mended: it
// is told apart from one that cannot be written.
func TestTheJournalIsTaken(t *testing.T) {
	for _, c := range []struct {
		err  error
		code diag.Code
		next string
	}{
		{fmt.Errorf("%w: %w", journal.ErrBroken, journal.ErrTaken), diag.InDoubt, "rutter show r"},
		{journal.ErrBroken, diag.Failed, "mend the disk"},
	} {
		e := &Engine{ledger: newLedger()}
		e.run.ID = "r"
		err := e.journalError(c.err)
		err = e.lay(err, statusOf(err))
		var d *diag.Error
		if !errors.As(err, &d) || d.Code != c.code || !strings.Contains(d.Next, c.next) {
			t.Errorf("%v: %+v", c.err, err)
		}
	}
}
