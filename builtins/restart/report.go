package restart

import (
	"encoding/json"
	"fmt"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/value"
)

// reportKind names the encoding of Report.
const reportKind = "restart.report/1"

// Report is what a restart did; it is the value of restart.outdated,
// restart.workloads and restart.control_plane. Immutable.
type Report struct {
	Restarted []Restarted `json:"restarted"`
	// Skipped are workloads that were left alone, each with the reason.
	Skipped []Skipped `json:"skipped"`
	Waves   []Wave    `json:"waves"`
	// Seconds is how long it took on the run's clock.
	Seconds int64 `json:"seconds"`
}

// Restarted is one workload whose pods were replaced.
type Restarted struct {
	Workload  string `json:"workload"` // "deployment.apps/web"
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Wave      string `json:"wave,omitempty"`
	Reason    string `json:"reason"`
	From      string `json:"from,omitempty"` // proxy version before
	To        string `json:"to,omitempty"`   // and as verified afterwards
	Pods      int    `json:"pods"`
	Seconds   int64  `json:"seconds"`
}

// Skipped is one workload or pod that was left alone.
type Skipped struct {
	Workload  string `json:"workload"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason"`
}

// Wave is one wave that ended well.
type Wave struct {
	Name    string `json:"name"`
	Size    int    `json:"size"`
	Seconds int64  `json:"seconds"`
}

var (
	_ value.Handle      = (*Report)(nil)
	_ starlark.HasAttrs = (*Report)(nil)
)

// String is the report in one line.
func (r *Report) String() string {
	return fmt.Sprintf("%d restarted, %d left alone, in %s",
		len(r.Restarted), len(r.Skipped), time.Duration(r.Seconds)*time.Second)
}

// Type implements starlark.Value.
func (r *Report) Type() string { return "restart_report" }

// Freeze implements starlark.Value; a Report is always frozen.
func (r *Report) Freeze() {}

// Truth is whether anything was restarted.
func (r *Report) Truth() starlark.Bool { return len(r.Restarted) > 0 }

// Hash implements starlark.Value.
func (r *Report) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: %s", r.Type()) }

// Attr gives restarted, skipped, waves (lists) and seconds.
func (r *Report) Attr(name string) (starlark.Value, error) {
	switch name {
	case "restarted":
		return value.FromGo(r.Restarted)
	case "skipped":
		return value.FromGo(r.Skipped)
	case "waves":
		return value.FromGo(r.Waves)
	case "seconds":
		return starlark.MakeInt64(r.Seconds), nil
	}
	return nil, nil
}

// AttrNames implements starlark.HasAttrs.
func (r *Report) AttrNames() []string { return []string{"restarted", "seconds", "skipped", "waves"} }

// HandleKind implements value.Handle.
func (r *Report) HandleKind() string { return reportKind }

// EncodeHandle implements value.Handle.
func (r *Report) EncodeHandle() (json.RawMessage, error) { return json.Marshal(r) }

func decodeReport(raw json.RawMessage) (starlark.Value, error) {
	r := &Report{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("restart report: %w", err)
	}
	return r, nil
}
