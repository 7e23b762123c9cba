package sim

import (
	"math"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rutter.dev/rutter/runtime/sim/rbac"
)

// Limit makes the server throttle: a bucket that holds Burst requests and gets
// PerSecond more in a second of virtual time. What does not fit is answered
// with 429 in the form of API Priority and Fairness, which is not simulated
// otherwise. As there, members of system:masters are exempt.
type Limit struct {
	PerSecond  float64 `json:"perSecond"`
	Burst      int     `json:"burst"`
	RetryAfter int     `json:"retryAfter,omitempty"` // seconds; 1 when zero
	// Everybody limits members of system:masters, too.
	Everybody bool `json:"everybody,omitempty"`
}

// bucket is a Limit in force.
type bucket struct {
	Limit
	left float64
	at   time.Time
}

// SetLimit puts a limit into force, or none when l is nil.
func (c *Cluster) SetLimit(l *Limit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit.Store(nil)
	if l != nil {
		c.limit.Store(&bucket{Limit: *l, left: float64(l.Burst), at: c.now})
	}
}

// throttle refuses a request that the limit has no room for.
func (c *Cluster) throttle(r *http.Request, u *User) error {
	b := c.limit.Load()
	if b == nil || r.UserAgent() == AdminAgent || !b.Everybody && rbac.Privileged(u) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.left = math.Min(float64(b.Burst), b.left+b.PerSecond*c.now.Sub(b.at).Seconds())
	b.at = c.now
	if b.left < 1 {
		return apierrors.NewTooManyRequests("Too many requests, please try again later.", max(1, b.RetryAfter))
	}
	b.left--
	return nil
}

// writeThrottled answers as the filter for priority and fairness does, which
// makes no Status.
func writeThrottled(w http.ResponseWriter, err error) {
	st := statusOf(err)
	w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	http.Error(w, st.Message, http.StatusTooManyRequests)
}
