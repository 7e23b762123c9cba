package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

func (a *app) showCmd() *cobra.Command {
	var output string
	t := &target{}
	cmd := &cobra.Command{
		Use:   "show [RUN]",
		Short: "Verify a run's journal and show what it says (the latest by default)",
		Args:  exactly(0, 1, "one run, or none for the latest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := a.stateAt(cmd.Context(), t)
			if err != nil {
				return err
			}
			store := at.store(a, a.env.Clock)
			id, err := a.findRun(at, store, args)
			if err != nil {
				return err
			}
			switch output {
			case "", "json":
				return a.show(at, store, id, output == "json")
			}
			return unknownFormat(output, "json")
		},
	}
	t.stateFlags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: the records, one a line")
	return cmd
}

func (a *app) show(at *stateAt, store *journal.Store, id string, raw bool) error {
	n := 0
	var bad []error
	verified := map[string]bool{}
	for rec, err := range store.Read(id) {
		if errors.Is(err, journal.ErrNewer) {
			return unopened(id, fmt.Errorf("run %s: %w", id, err))
		}
		if err != nil {
			what := "the folder " + store.Dir(id)
			if a.inCluster() {
				what = "what there is of it in the cluster"
			}
			return &diag.Error{
				Code: diag.Usage, Subject: "run " + id, Problem: fmt.Sprintf("its journal verifies up to record %d only", n), Err: err,
				Changed: "nothing by this command", Next: "keep " + what + " as it is, and look at the cluster before anything else",
			}
		}
		n++
		body, err := rec.Decode()
		if err != nil {
			return fmt.Errorf("run %s: %w", id, err)
		}
		for _, digest := range journal.Kept(body) {
			if verified[digest] {
				continue
			}
			verified[digest] = true
			if err := store.Verify(id, digest); err != nil {
				bad = append(bad, fmt.Errorf("record %d (%s): %w", rec.Seq, rec.Type, err))
			}
		}
		if raw {
			if _, err := fmt.Fprintf(a.env.Stdout, "{\"seq\":%d,\"time\":%q,\"type\":%q,\"body\":%s}\n", rec.Seq, rec.Time.Format(time.RFC3339Nano), rec.Type, rec.Body); err != nil {
				return err
			}
			continue
		}
		if err := showRecord(a.env.Stdout, rec, body); err != nil {
			return err
		}
	}
	if len(bad) > 0 {
		more := ""
		if len(bad) > 1 {
			more = fmt.Sprintf(", and %d more", len(bad)-1)
		}
		return unkept(fmt.Errorf("run %s: all %d records are as they were written; what they keep is not: %w%s", id, n, bad[0], more), at, store.Dir(id))
	}
	return a.talk("%d records, all verified", n)
}

// showRecord writes one record as a line for a person; reads of the script are
// left out.
func showRecord(w io.Writer, rec journal.Record, body journal.Body) error {
	text := recordText(body)
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "%5d  %s  %s\n", rec.Seq, rec.Time.UTC().Format("15:04:05"), event.Clean(text))
	return err
}

// secretText names the secret parameters, of which there is no more.
func secretText(digests map[string]string) string {
	if len(digests) == 0 {
		return ""
	}
	return ", secret " + strings.Join(slices.Sorted(maps.Keys(digests)), ", ")
}

func recordText(body journal.Body) string {
	switch b := body.(type) {
	case *journal.Begin:
		istio := ""
		if b.From != "" || b.To != "" {
			istio = fmt.Sprintf(", Istio %s -> %s", b.From, b.To)
		}
		return fmt.Sprintf("begin      %s %s on %s (%s)%s, rutter %s, parameters %s%s%s", b.Runbook, b.RunbookVersion, b.Context, b.ClusterUID, istio, b.Rutter, b.Params, secretText(b.Secrets), lockText(b.Lock))
	case *journal.Resume:
		switch {
		case b.Rollback && b.Until != "":
			return "rollback   to where " + b.Until + " ended" + lockText(b.Lock)
		case b.Rollback:
			return "rollback   of the whole run" + lockText(b.Lock)
		case b.Bundle != "":
			return "resume     with a changed runbook, " + b.RunbookDigest + ", parameters " + string(b.Params) + secretText(b.Secrets) + lockText(b.Lock)
		}
		return "resume     Istio " + b.Istio + " found" + lockText(b.Lock)
	case *journal.StepStart:
		if b.Attempt > 1 {
			return fmt.Sprintf("step       %s (attempt %d)", b.Path, b.Attempt)
		}
		return "step       " + b.Path
	case *journal.StepEnd:
		switch {
		case b.OK:
			return "step done  " + b.Path
		case b.Handled:
			return "handled    " + b.Path
		}
		return "step fail  " + b.Path + ": " + b.Error
	case *journal.Plan:
		return fmt.Sprintf("plan       %s in %s", b.Builtin, b.Step)
	case *journal.Intent:
		return fmt.Sprintf("intent     %s %s  %s  [%s]%s", b.Effect.Verb, b.Effect.Ref, b.Effect.Class, b.Key, findingsText(b.Findings))
	case *journal.Outcome:
		text := fmt.Sprintf("outcome    %s  [%s]", b.Status, b.Key)
		if b.Error != "" {
			text += ": " + b.Error
		}
		return text
	case *journal.Refused:
		return "refused    " + b.Builtin + " in " + b.Step + findingsText(b.Findings)
	case *journal.Approval:
		word := "refused"
		if b.Granted {
			word = "granted"
		}
		return fmt.Sprintf("approval   %s by %s: %s", word, b.By, b.Message)
	case *journal.Warn:
		return "warning    " + b.Message
	case *journal.Undo:
		if !b.Done {
			return fmt.Sprintf("left       [%s] of %s: %s", b.Key, b.Step, b.Reason)
		}
		return fmt.Sprintf("undone     [%s] of %s", b.Key, b.Step)
	case *journal.Evidence:
		return fmt.Sprintf("evidence   %s: %s", b.File, strings.Join(b.Objects, ", "))
	case *journal.End:
		if b.Error != "" {
			return fmt.Sprintf("end        %s (exit %d): %s", b.Status, b.Exit, b.Error)
		}
		return fmt.Sprintf("end        %s (exit %d)", b.Status, b.Exit)
	}
	return ""
}

// lockText is by what a process held the mesh: what rutter unlock wants to know.
func lockText(l *journal.Lock) string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("\n                   mesh locked by %s on host %s: lease in %s, nonce %s", l.Holder, l.Host, l.Namespace, l.Nonce)
}

func findingsText(fs []gate.Finding) string {
	var b strings.Builder
	for _, f := range fs {
		fmt.Fprintf(&b, "\n                   %s %s: %s: %s", f.Code, f.Verdict, f.Ref, f.Problem)
	}
	return b.String()
}
