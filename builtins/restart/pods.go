package restart

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// listAll reads every object of a kind in a namespace ("" for all). A kind that
// the server does not have has none.
func listAll(c *builtin.Call, gvk schema.GroupVersionKind, namespace string, each func(*cluster.Object) error) error {
	res, err := c.Reader.ResourceFor(c.Ctx, gvk)
	if err != nil {
		return err
	}
	return c.Reader.List(c.Ctx, res, cluster.ListOptions{Namespace: namespace}, each)
}

// isAbsent reports whether err says that an object, or its kind, is not there.
func isAbsent(err error) bool {
	return errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind)
}

// pods lists what the workload's selector matches, going and finished pods
// included. One list per workload: a namespace holds many more pods than the few
// workloads that are in flight in it.
func (t *target) pods(c *builtin.Call) ([]*cluster.Object, error) {
	res, err := c.Reader.ResourceFor(c.Ctx, schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	if err != nil {
		return nil, err
	}
	var out []*cluster.Object
	err = c.Reader.List(c.Ctx, res, cluster.ListOptions{Namespace: t.Ref.Namespace, Labels: t.Selector, Lean: true}, func(o *cluster.Object) error {
		if t.mayOwn(o) {
			out = append(out, o)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: its pods: %w", t.Ref, err)
	}
	return out, nil
}

// staying picks the pods that are neither going nor finished.
func staying(pods []*cluster.Object) []*cluster.Object {
	var out []*cluster.Object
	for _, p := range pods {
		if phase := text(p, "status", "phase"); p.GetDeletionTimestamp() == nil && phase != "Succeeded" && phase != "Failed" {
			out = append(out, p)
		}
	}
	return out
}

// own lists the workload's pods that stay.
func (t *target) own(c *builtin.Call) ([]*cluster.Object, error) {
	pods, err := t.pods(c)
	return staying(pods), err
}

// mayOwn leaves out pods that a selector matches by chance: those that another
// kind of controller owns.
func (t *target) mayOwn(pod *cluster.Object) bool {
	for _, o := range pod.GetOwnerReferences() {
		if o.Controller == nil || !*o.Controller {
			continue
		}
		switch t.Ref.Kind {
		case "Deployment", "Rollout":
			return o.Kind == "ReplicaSet" && strings.HasPrefix(o.Name, t.Ref.Name+"-")
		}
		return o.Kind == t.Ref.Kind && o.Name == t.Ref.Name
	}
	return false
}

// renewed reports whether a pod was made by this restart.
func (t *target) renewed(pod *cluster.Object) bool {
	if t.How == howRoll {
		return pod.GetAnnotations()[effect.AnnotationRestart] == t.Mark
	}
	for _, old := range t.Old {
		if old.UID == string(pod.GetUID()) {
			return false
		}
	}
	return true
}

func podReady(pod *cluster.Object) bool {
	cond, ok := cluster.Condition(pod, "Ready")
	return ok && cond.Status == "True" && pod.GetDeletionTimestamp() == nil
}

// container is what a pod's status says of one of its containers.
type container struct {
	name, image, waiting, message string
	restarts                      int64
}

func containersOf(pod *cluster.Object) []container {
	var out []container
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		list, ok := nested(pod, "status", field).([]any)
		if !ok {
			continue
		}
		for _, e := range list {
			m, ok := e.(map[string]any)
			if !ok {
				continue
			}
			s := &cluster.Object{Object: m}
			c := container{name: text(s, "name"), image: text(s, "image"), restarts: number(s, 0, "restartCount")}
			c.waiting = text(s, "state", "waiting", "reason")
			c.message = text(s, "state", "waiting", "message")
			if c.waiting == "" && text(s, "state", "terminated", "reason") == "Error" {
				c.waiting = "Error"
			}
			out = append(out, c)
		}
	}
	return out
}

// crashesTolerated is how often a container may crash at its start before it
// counts as a crash loop: applications that come up before their sidecar
// commonly fail once or twice.
const crashesTolerated = 3

// trouble says why a pod will not become ready by waiting; "" if it may.
func trouble(pod *cluster.Object) string {
	for _, c := range containersOf(pod) {
		switch c.waiting {
		case "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError":
		case "CrashLoopBackOff", "Error":
			if c.restarts < crashesTolerated {
				continue
			}
		default:
			continue
		}
		return fmt.Sprintf("pod %s: container %s: %s%s", pod.GetName(), c.name, c.waiting, after(": ", c.message))
	}
	return ""
}

// restarts is how often the containers of pods were restarted in all.
func restarts(pods []*cluster.Object) int64 {
	n := int64(0)
	for _, p := range pods {
		for _, c := range containersOf(p) {
			n += c.restarts
		}
	}
	return n
}

func after(sep, s string) string {
	if s == "" {
		return ""
	}
	return sep + s
}
