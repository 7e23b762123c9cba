package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// ErrNotSimulated: a server answers that is no simulated cluster.
var ErrNotSimulated = errors.New("is no simulated cluster")

// RemoteClock reads the clock of a cluster that another process serves, and
// changes it first if change is not nil. ErrNotSimulated when a server answers
// that has none; a refusal is in the server's words.
func RemoteClock(ctx context.Context, rc *rest.Config, change *ClockChange) (ClockState, error) {
	var out ClockState
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return out, err
	}
	defer client.CloseIdleConnections()
	method, body := http.MethodGet, []byte(nil)
	if change != nil {
		method = http.MethodPost
		if body, err = json.Marshal(change); err != nil {
			return out, err
		}
	}
	base, _, err := rest.DefaultServerUrlFor(rc)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base.String(), "/")+ControlPath+"clock", bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return out, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return out, err
	}
	var st metav1.Status
	switch {
	case resp.StatusCode == http.StatusOK && json.Unmarshal(answer, &out) == nil && !out.Now.IsZero():
		return out, nil
	case resp.StatusCode == http.StatusBadRequest && json.Unmarshal(answer, &st) == nil && st.Message != "":
		return out, errors.New(st.Message)
	}
	return out, fmt.Errorf("%s: %w: %s", rc.Host, ErrNotSimulated, resp.Status)
}
