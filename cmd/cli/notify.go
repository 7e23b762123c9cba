package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/policy"
)

// notifyLimit is how long one place may take to be told.
const notifyLimit = 10 * time.Second

// ending is what a place is told of a run. It names nothing of the cluster's
// objects: those are in the run's report.
type ending struct {
	Run     string `json:"run"`
	Status  string `json:"status"`
	Runbook string `json:"runbook"`
	Version string `json:"version"`
	Cluster string `json:"cluster"`
	From    string `json:"from,omitempty"` // Istio versions
	To      string `json:"to,omitempty"`
	Text    string `json:"text"` // all of it, for a person
}

// tell tells the policy's places how a run on a real cluster ended. What could not
// be told is said, and changes nothing about the end itself.
func (a *app) tell(ctx context.Context, p *policy.Policy, t *target, j journal.Journal) error {
	if p == nil || len(p.Notify) == 0 || t.Sim != "" {
		return nil
	}
	begin, err := host.Begun(j)
	if err != nil {
		return nil //nolint:nilerr // nothing has begun: there is nothing to tell
	}
	st, err := standing(j)
	if err != nil {
		return a.talk("nobody was told how the run ended: %v", err)
	}
	e := ending{
		Run: begin.Run, Status: string(st.over), Runbook: begin.Runbook, Version: begin.RunbookVersion,
		Cluster: begin.Context, From: begin.From, To: begin.To,
	}
	e.Text = fmt.Sprintf("rutter: run %s of %s %s on %s ended: %s", e.Run, e.Runbook, e.Version, e.Cluster, e.Status)
	var said []error
	for _, n := range p.Notify {
		if len(n.On) > 0 && !slices.Contains(n.On, e.Status) {
			continue
		}
		if err := announce(context.WithoutCancel(ctx), http.DefaultTransport, n, e); err != nil {
			said = append(said, a.talk("%s was not told how the run ended: %v", n.Name, err))
		}
	}
	return errors.Join(said...)
}

// announce sends one place what it shall be told. Errors never hold the URL, which
// may be a secret.
func announce(ctx context.Context, rt http.RoundTripper, n gate.Notify, e ending) error {
	to := n.URL
	if n.URLFile != "" {
		b, err := os.ReadFile(n.URLFile)
		if err != nil {
			return err
		}
		to = strings.TrimSpace(string(b))
	}
	var body any = e
	if n.Kind == "slack" {
		body = map[string]string{"text": e.Text}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, notifyLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(raw))
	if err != nil {
		return errors.New("its URL can't be read")
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return err
	}
	_, cerr := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if err := errors.Join(cerr, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}
