package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/Masterminds/semver/v3"
	"github.com/spf13/cobra"

	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// knowledgeFlag adds --knowledge.
func (t *target) knowledgeFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.Knowledge, "knowledge", "", "a file of what is known of Istio's releases, laid over what this rutter knows")
}

// known is what is known of Istio's releases, with the file of --knowledge. The
// file's name becomes absolute, for a resume from another folder.
func (t *target) known(ctx context.Context, workdir string) (*knowledge.Base, error) {
	base, err := knowledge.Default()
	if err != nil || t.Knowledge == "" {
		return base, err
	}
	if !filepath.IsAbs(t.Knowledge) {
		t.Knowledge = filepath.Join(workdir, t.Knowledge)
	}
	text, err := env.ReadFile(ctx, t.Knowledge, maxGiven)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "--knowledge " + t.Knowledge, Problem: "cannot be read", Err: err, Changed: "nothing"}
	}
	return knowledge.Load(base, t.Knowledge, text)
}

// overrides is known where a file changes it; nil, which stands for what this rutter
// was built with, where none does: many plans never ask for it.
func (t *target) overrides(ctx context.Context, workdir string) (*knowledge.Base, error) {
	if t.Knowledge == "" {
		return nil, nil
	}
	return t.known(ctx, workdir)
}

func (a *app) knowledgeCmd() *cobra.Command {
	t := &target{}
	var output string
	cmd := &cobra.Command{
		Use:   "knowledge",
		Short: "What is known of Istio's releases, and what of it concerns a cluster",
		Long: `Lists what is known of each minor version of Istio: the Kubernetes versions that
it supports, and its upgrade notes, each with a severity (removed, changed,
ineffective, notice) and a class: detector (the cluster or a manifest tells),
manual (a person has to look) or irrelevant (it concerns no mesh).

A run is refused where it or its mesh uses what the target removed, and warned of
what changed (gate RUT017). A file laid over it all with --knowledge corrects
notes, and adds versions that are newer than this rutter:

  istio: "1.32"
  kubernetes: {min: "1.33", max: "1.37"}
  sources: [https://istio.io/latest/docs/releases/supported-releases/]
  notes:
    - id: istio-1.32-example
      title: EXAMPLE does nothing
      severity: ineffective
      changes: The variable is not read any more.
      do: Take it away.
      class: detector
      reason: it is set on istiod or it is not
      affects: [istiod EXAMPLE]
      sources: [https://istio.io/latest/news/releases/]
      detect:
        - {in: istiod, says: sets EXAMPLE, all: [{env: EXAMPLE}]}
  removedFields:   # of an IstioOperator, for the error that names them
    - {path: values.example, since: "1.32", instead: values.other, sources: [https://istio.io/latest/news/releases/]}`,
		Example: `  rutter knowledge
  rutter knowledge show istio-1.27-native-sidecars
  rutter knowledge diff 1.29 1.31 --context prod`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := t.known(cmd.Context(), a.env.Workdir)
			if err != nil {
				return err
			}
			return a.printed(output, map[string]any{"releases": k.Releases(), "skew": k.Skew(), "removedFields": k.RemovedFields()}, func(w io.Writer) error { return listKnown(w, k) })
		},
	}
	t.knowledgeFlag(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	cmd.AddCommand(a.knowledgeShowCmd(), a.knowledgeDiffCmd())
	return cmd
}

// printed writes v as JSON, or what text writes.
func (a *app) printed(output string, v any, text func(io.Writer) error) error {
	switch output {
	case "json":
		return writeJSON(a.env.Stdout, v)
	case "":
		return text(a.env.Stdout)
	}
	return unknownFormat(output, "json")
}

func listKnown(out io.Writer, k *knowledge.Base) error {
	w := &lineWriter{w: out}
	s := k.Skew()
	w.line("A control plane goes up %s in place, %s by revision; istio-cni and ztunnel may be %s behind it.",
		minors(s.InPlace), minors(s.ByRevision), minors(s.NodeAgents))
	for _, r := range k.Releases() {
		w.line("")
		w.line("Istio %s  Kubernetes %s", r.Istio, r.Kubernetes)
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, n := range r.Notes {
			_, err := fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", n.ID, n.Severity, n.Class, n.Title)
			w.keep(err)
		}
		w.keep(t.Flush())
	}
	w.line("")
	w.line("Fields of an IstioOperator that are gone")
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, f := range k.RemovedFields() {
		_, err := fmt.Fprintf(t, "  %s\tsince %s\t%s\n", f.Path, f.Since, f.Instead)
		w.keep(err)
	}
	w.keep(t.Flush())
	return w.err
}

func minors(n uint64) string {
	if n == 1 {
		return "1 minor version"
	}
	return fmt.Sprintf("%d minor versions", n)
}

func (a *app) knowledgeShowCmd() *cobra.Command {
	t := &target{}
	var output string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one upgrade note: what changes, what to do, and where it is written",
		Args:  exactly(1, 1, "the id of a note (rutter knowledge lists them)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := t.known(cmd.Context(), a.env.Workdir)
			if err != nil {
				return err
			}
			n, err := k.Note(args[0])
			if err != nil {
				return err
			}
			return a.printed(output, n, func(w io.Writer) error { return showNote(w, n) })
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			k, err := t.known(cmd.Context(), a.env.Workdir)
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var ids []string
			for _, r := range k.Releases() {
				for _, n := range r.Notes {
					ids = append(ids, n.ID+"\t"+n.Title)
				}
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
	t.knowledgeFlag(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func showNote(out io.Writer, n *knowledge.Note) error {
	w := &lineWriter{w: out}
	w.line("%s  (Istio %s, %s, %s)", n.Title, n.Istio, n.Severity, n.Class)
	for _, part := range []struct{ name, text string }{
		{"changes", n.Changes},
		{"do", n.Do},
		{"why " + string(n.Class), n.Reason},
		{"affects", strings.Join(n.Affects, "; ")},
	} {
		w.line("")
		w.line("%s", part.name)
		w.text("  ", part.text)
	}
	w.line("")
	w.line("sources")
	for _, s := range n.Sources {
		w.line("  %s", sourceOf(s))
	}
	return w.err
}

// sourceOf spells a source out.
func sourceOf(s string) string {
	issue, isIssue := strings.CutPrefix(s, "istio/istio#")
	switch {
	case isIssue:
		return "https://github.com/istio/istio/issues/" + issue
	case strings.HasPrefix(s, "https://"):
		return s
	}
	return "istio/istio: " + s
}

func (a *app) knowledgeDiffCmd() *cobra.Command {
	t := &target{}
	var (
		output  string
		offline bool
	)
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "Say what of the upgrade notes between two versions concerns a cluster",
		Long: `Holds the upgrade notes of the versions after FROM up to TO against a cluster:
what concerns it, with the objects; what a person has to look at; and what does
not concern it. The cluster is only read. With --offline, or where there is no
kubeconfig, all notes are listed by their class.`,
		Example: `  rutter knowledge diff 1.29 1.31
  rutter knowledge diff 1.30.3 1.31.0 --context prod -o json
  rutter knowledge diff 1.30 1.31 --sim mesh,istio=1.30.3`,
		Args: exactly(2, 2, "two versions of Istio, as 1.29 1.31"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.knowledgeDiff(cmd.Context(), t, args[0], args[1], offline, output)
		},
	}
	t.flags(cmd, true)
	t.knowledgeFlag(cmd)
	cmd.Flags().BoolVar(&offline, "offline", false, "look at no cluster")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

var istioVersion = regexp.MustCompile(`^\d+\.\d+(\.\d+(-[0-9A-Za-z.-]+)?)?$`)

func (a *app) knowledgeDiff(ctx context.Context, t *target, fromText, toText string, offline bool, output string) error {
	var vs [2]*semver.Version
	for i, text := range []string{fromText, toText} {
		v, err := semver.NewVersion(text)
		if err != nil || !istioVersion.MatchString(text) {
			return &diag.Error{Code: diag.Usage, Subject: text, Problem: "is no version of Istio", Expect: "one as 1.31 or 1.31.0"}
		}
		vs[i] = v
	}
	if vs[1].LessThan(vs[0]) {
		return &diag.Error{Code: diag.Usage, Subject: fromText + " " + toText, Problem: "the second is older than the first", Next: "rutter knowledge diff " + toText + " " + fromText}
	}
	k, err := t.known(ctx, a.env.Workdir)
	if err != nil {
		return err
	}
	r, done, err := a.lookAt(ctx, t, offline)
	if err != nil {
		return err
	}
	report, err := k.Report(ctx, r, vs[0], vs[1])
	if cerr := done(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return a.printed(output, report, func(w io.Writer) error { return showReport(w, report) })
}

// lookAt reaches the cluster to read; nil where there is none.
func (a *app) lookAt(ctx context.Context, t *target, offline bool) (cluster.Reader, func() error, error) {
	nothing := func() error { return nil }
	if offline {
		return nil, nothing, nil
	}
	if t.Sim != "" {
		s, _, err := a.simulate(ctx, t.Sim, "", a.renderer(), mesh.NewIstiods())
		if err != nil {
			return nil, nothing, err
		}
		c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{Version: version})
		if err != nil {
			return nil, nothing, errors.Join(err, s.Close())
		}
		return c, s.Close, nil
	}
	got, err := a.reach(ctx, t, "", nil)
	if errors.Is(err, cluster.ErrNoConfig) && t.Kubeconfig == "" && t.Context == "" {
		return nil, nothing, a.talk("no kubeconfig: no cluster was looked at")
	}
	if err != nil {
		return nil, nothing, err
	}
	return got.client, got.close, nil
}

func showReport(out io.Writer, r *knowledge.Report) error {
	w := &lineWriter{w: out}
	on := "no cluster looked at"
	if r.Cluster != "" {
		on = fmt.Sprintf("on %s: %d concern it, %d to look at, %d do not concern it", r.Cluster, len(r.Detected), len(r.Look), len(r.Clear)+len(r.Irrelevant))
	}
	w.line("Istio %s -> %s  %s", r.From, r.To, on)
	if len(r.Unknown) > 0 {
		w.line("nothing is known of Istio %s: give a file of it with --knowledge", strings.Join(r.Unknown, ", "))
	}
	clear := "does not concern this cluster"
	if r.Cluster == "" {
		clear = "detector: a cluster tells"
	} else {
		w.line("\nconcerns this cluster")
		for _, f := range r.Detected {
			w.line("  %s  %s  %s", f.Note.ID, f.Note.Severity, f.Note.Title)
			for _, h := range f.Hits {
				w.line("      %s %s", h.Ref, h.Says)
			}
			w.text("      ", "do: "+f.Note.Do)
		}
		w.none(len(r.Detected))
	}
	w.line("\nplease look")
	for _, n := range r.Look {
		w.line("  %s  %s  %s", n.ID, n.Severity, n.Title)
		w.text("      ", "why: "+n.Reason)
		w.text("      ", "do: "+n.Do)
	}
	w.none(len(r.Look))
	w.line("\n%s", clear)
	for _, n := range r.Clear {
		w.line("  %s  %s  %s", n.ID, n.Severity, n.Title)
	}
	w.none(len(r.Clear))
	if len(r.Irrelevant) > 0 {
		w.line("\nconcerns no mesh")
		for _, n := range r.Irrelevant {
			w.line("  %s  %s", n.ID, n.Title)
		}
	}
	return w.err
}

// lineWriter writes lines and keeps the first error.
type lineWriter struct {
	w   io.Writer
	err error
}

func (l *lineWriter) keep(err error) {
	if l.err == nil {
		l.err = err
	}
}

// Write implements io.Writer.
func (l *lineWriter) Write(b []byte) (int, error) {
	n, err := l.w.Write(b)
	l.keep(err)
	return n, err
}

func (l *lineWriter) line(format string, args ...any) {
	_, err := fmt.Fprintf(l.w, format+"\n", args...)
	l.keep(err)
}

func (l *lineWriter) none(n int) {
	if n == 0 {
		l.line("  nothing")
	}
}

// text writes a paragraph, indented and wrapped.
func (l *lineWriter) text(indent, text string) {
	for _, s := range view.Wrap(text, 80-len(indent)) {
		l.line("%s%s", indent, s)
	}
}
