package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/seal"
)

// stateCluster is the --state that keeps runs in the cluster that they change.
const stateCluster = "cluster"

func (a *app) inCluster() bool { return a.state == stateCluster }

// stateRoot is the folder of this machine that holds a folder per run. With
// --state cluster evidence and the key still are there.
func (a *app) stateRoot() (string, error) {
	if a.state != "" && !a.inCluster() {
		return filepath.Abs(a.state)
	}
	root, err := journal.DefaultRoot(a.env.Getenv)
	if err != nil {
		return "", &diag.Error{Code: diag.Usage, Subject: "state folder", Err: err, Next: "set XDG_STATE_HOME, or --state DIR"}
	}
	return root, nil
}

// findRuns is what has to be typed after a run's name so that it is found again.
type findRuns struct{ a *app }

// String implements fmt.Stringer.
func (f findRuns) String() string {
	if f.a.state == "" {
		return ""
	}
	return strings.Join(append([]string{"--state", typed(f.a.state)}, f.a.at...), " ")
}

// typed is s as it is typed into a shell.
func typed(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// stateAt is where journals are: the folder, or the cluster that t names.
type stateAt struct {
	fs      journal.FS
	root    string
	where   string           // for a message
	secrets *journal.Secrets // nil for a folder
}

func (a *app) stateAt(ctx context.Context, t *target) (*stateAt, error) {
	if !a.inCluster() {
		root, err := a.stateRoot()
		return &stateAt{fs: journal.OS{}, root: root, where: "state folder " + root}, err
	}
	if t.Sim != "" {
		return nil, diag.Usagef("--state cluster", "a simulated cluster is a file beside the run; there is nothing to hand over")
	}
	for _, f := range [][2]string{{"--context", t.Context}, {"--kubeconfig", t.Kubeconfig}} {
		if f[1] != "" {
			a.at = append(a.at, f[0], typed(f[1]))
		}
	}
	r, err := a.reach(ctx, t, "", nil)
	if err != nil {
		return nil, err
	}
	namespace, err := journalNamespace(ctx, r.client)
	if err != nil {
		return nil, err
	}
	s := journal.NewSecrets(a.hard, r.client, namespace, a.env.Clock)
	return &stateAt{fs: s, root: journal.ClusterRoot, where: "cluster " + r.client.Context(), secrets: s}, nil
}

// journalNamespace is where the journals of a cluster are: beside its mesh. They
// must be found again after the run, so that there has to be a place that the run
// itself does not make.
func journalNamespace(ctx context.Context, c *cluster.Client) (string, error) {
	namespace, found, err := engine.MeshNamespace(ctx, c)
	switch {
	case err != nil:
		return "", &diag.Error{Code: diag.Usage, Subject: "cluster " + c.Context(), Err: err, Changed: "nothing"}
	case !found:
		return "", &diag.Error{
			Code: diag.Usage, Subject: "cluster " + c.Context(), Problem: "it has no namespace " + namespace + " to keep journals in",
			Expect: "a mesh, or its namespace, for --state cluster", Changed: "nothing",
			Next: "kubectl create namespace " + namespace + ", or leave --state cluster out",
		}
	}
	return namespace, nil
}

func (s *stateAt) store(a *app, clock env.Clock) *journal.Store {
	return journal.NewStore(s.fs, s.root, clock, a.env.Rand)
}

// dismiss closes the journal of a run. What is left of one that never began
// goes: nothing was done, so there is nothing to show or to resume.
func (s *stateAt) dismiss(j journal.Journal, dir string) error {
	_, err := host.Begun(j)
	_ = j.Close() // sealed by the engine; nothing is lost here
	if !errors.Is(err, journal.ErrNotBegun) {
		return nil
	}
	err = os.RemoveAll(dir)
	if s.secrets != nil {
		err = errors.Join(err, s.secrets.RemoveRun(j.Run()))
	}
	if err != nil {
		return fmt.Errorf("what is left of a run that never began: %w", err)
	}
	return nil
}

// stateFlags say which cluster is meant with --state cluster.
func (t *target) stateFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.Kubeconfig, "kubeconfig", "", "with --state cluster: kubeconfig file (default $KUBECONFIG, then ~/.kube/config)")
	cmd.Flags().StringVar(&t.Context, "context", "", "with --state cluster: kubeconfig context (default the current one)")
}

// sameKey refuses a run whose Secrets this machine could not open: its rollback
// would fail half way (DESIGN §8 ruling 9).
func (a *app) sameKey(begin *journal.Begin, s *seal.Sealer) error {
	if begin.Key == "" || begin.Key == s.Recipient() {
		return nil
	}
	root, err := a.stateRoot()
	if err != nil {
		return err
	}
	on := "the machine where it began"
	if begin.Lock != nil {
		on = "host " + begin.Lock.Host
	}
	path := filepath.Join(filepath.Dir(root), seal.KeyFile)
	return &diag.Error{
		Code: diag.Usage, Subject: "run " + begin.Run, Problem: "its Secrets are sealed to " + begin.Key + ", and the key here is " + s.Recipient(),
		Expect: "the key with which it began", Changed: "nothing by this command",
		Next: fmt.Sprintf("copy %s of %s to %s (keep the one that is there: this machine's own runs need it)", seal.KeyFile, on, path),
	}
}
