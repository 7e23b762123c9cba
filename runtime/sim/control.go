package sim

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rutter.dev/rutter/runtime/sim/rbac"
)

// speed is how many virtual seconds pass in a real one while a cluster is
// served.
type speed struct{ bits atomic.Uint64 }

func (s *speed) set(v float64) { s.bits.Store(math.Float64bits(v)) }
func (s *speed) get() float64  { return math.Float64frombits(s.bits.Load()) }

// ControlPath begins the paths by which a served cluster is controlled, as
// Go code controls one by its methods. They are for members of system:masters:
//
//	GET    /sim/clock      {"now": …, "speed": 1}
//	POST   /sim/clock      {"advance": "15m"}, {"to": "2026-01-01T02:00:00Z"}, {"speed": 0}
//	GET    /sim/requests   the request log; DELETE empties it
//	POST   /sim/faults     a Fault; DELETE removes all
//	POST   /sim/limit      a Limit; DELETE removes it
//	POST   /sim/restart    {"down": "5s"}
//	POST   /sim/compact
const ControlPath = "/sim/"

// ClockState is what /sim/clock answers.
type ClockState struct {
	Now   time.Time `json:"now"`
	Speed float64   `json:"speed"` // simulated seconds per second; 0 while it stands still
}

// ClockChange is what /sim/clock is told. Time that is to pass does so at once,
// with all that is due in it.
type ClockChange struct {
	Advance string     `json:"advance,omitempty"` // a duration
	To      *time.Time `json:"to,omitempty"`
	Speed   *float64   `json:"speed,omitempty"`
}

func (c *Cluster) serveControl(w http.ResponseWriter, r *http.Request, u *User) {
	if !rbac.Privileged(u) {
		writeError(w, apierrors.NewForbidden(grNamespaces, "", errors.New("only members of system:masters control the simulation")))
		return
	}
	out, err := c.control(r)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the client is gone: there is nobody left to tell
}

func (c *Cluster) control(r *http.Request) (any, error) {
	done := map[string]any{"status": "Success"}
	switch r.Method + " " + strings.TrimPrefix(strings.TrimSuffix(r.URL.Path, "/"), ControlPath) {
	case "GET clock":
		return ClockState{c.Clock().Now(), c.speed.get()}, nil
	case "POST clock":
		return c.controlClock(r)
	case "GET requests":
		return c.Requests(), nil
	case "DELETE requests":
		c.ClearRequests()
		return done, nil
	case "POST faults":
		var f Fault
		if err := readControl(r, &f); err != nil {
			return nil, err
		}
		c.Inject(f)
		return done, nil
	case "DELETE faults":
		c.ClearFaults()
		return done, nil
	case "POST limit":
		var l Limit
		if err := readControl(r, &l); err != nil {
			return nil, err
		}
		c.SetLimit(&l)
		return done, nil
	case "DELETE limit":
		c.SetLimit(nil)
		return done, nil
	case "POST restart":
		var in struct {
			Down string `json:"down"`
		}
		if err := readControl(r, &in); err != nil {
			return nil, err
		}
		down, err := span(in.Down)
		if err != nil {
			return nil, err
		}
		go c.Restart(down) // this request's connection is cut with the others
		return done, nil
	case "POST compact":
		c.Compact()
		return done, nil
	}
	return nil, errNotServed()
}

func (c *Cluster) controlClock(r *http.Request) (any, error) {
	var in ClockChange
	if err := readControl(r, &in); err != nil {
		return nil, err
	}
	if in.Speed != nil {
		if *in.Speed < 0 {
			return nil, apierrors.NewBadRequest("speed: less than zero")
		}
		c.speed.set(*in.Speed)
	}
	d, err := span(in.Advance)
	if err != nil {
		return nil, err
	}
	if in.To != nil {
		if d = in.To.Sub(c.Clock().Now()); d < 0 {
			return nil, apierrors.NewBadRequest("to: in the past of the simulation, whose clock goes forward only")
		}
	}
	if d > 0 {
		c.Advance(d)
	}
	return ClockState{c.Clock().Now(), c.speed.get()}, nil
}

func readControl(r *http.Request, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func span(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("time: less than zero")
	}
	if err != nil {
		return 0, apierrors.NewBadRequest(err.Error())
	}
	return d, nil
}
