package mesh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/sim"
)

// settleTime is how long istiod is given to become ready before pods without
// an owner are created, which nobody would create again.
const settleTime = 15 * time.Second

// Populate brings the objects of Build into a cluster. Those of the installed
// control plane are applied server-side by the installer's field manager, as
// istioctl install does, so that their fields are owned as in a real mesh; the
// others are loaded. Virtual time passes only when there are bare pods; to see
// the mesh become ready, advance the cluster by a minute afterwards. The
// cluster should inject on load.
func Populate(c *sim.Cluster, objects []*unstructured.Unstructured) error {
	client, err := rest.HTTPClientFor(c.Config())
	if err != nil {
		return fmt.Errorf("client of the simulated cluster: %w", err)
	}
	var batch, pods []*unstructured.Unstructured
	flush := func() error {
		err := c.Load(batch)
		batch = nil
		return err
	}
	for _, o := range objects {
		switch {
		case o.GetKind() == "Pod":
			pods = append(pods, o)
		case ManagerOf(o) != InstallManager:
			batch = append(batch, o)
		default:
			if err := flush(); err != nil {
				return err
			}
			if err := apply(client, c.Config().Host, o); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil || len(pods) == 0 {
		return err
	}
	c.Advance(settleTime)
	return c.Load(pods)
}

// apply sends one server-side apply.
func apply(client *http.Client, host string, o *unstructured.Unstructured) error {
	what := strings.ToLower(o.GetKind()) + "/" + o.GetName()
	body, err := json.Marshal(o.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	gvr, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	path := []string{"api", gvr.Version}
	if gvr.Group != "" {
		path = []string{"apis", gvr.Group, gvr.Version}
	}
	if ns := o.GetNamespace(); ns != "" {
		path = append(path, "namespaces", ns)
	}
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	u, err := url.Parse(host)
	if err != nil {
		return fmt.Errorf("address of the simulated cluster: %w", err)
	}
	u = u.JoinPath(append(path, gvr.Resource, o.GetName())...)
	u.RawQuery = url.Values{"fieldManager": {InstallManager}, "force": {"true"}}.Encode()
	req, err := http.NewRequest(http.MethodPatch, u.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	req.Header.Set("Content-Type", "application/apply-patch+yaml")
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	answer, err := io.ReadAll(res.Body)
	if cerr := res.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		var status struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(answer, &status) != nil || status.Message == "" {
			status.Message = res.Status
		}
		return fmt.Errorf("%s: the simulated cluster refuses it: %s", what, status.Message)
	}
	return nil
}
