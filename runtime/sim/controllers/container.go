package controllers

import (
	"fmt"
	"strings"
	"time"
)

// bad reports whether a container's image is one that crashes.
func (m *machine) bad(c any) bool { return strings.HasSuffix(text(c, "image"), "-bad") }

// crashing runs a container that exits soon after each start and is started
// again after a growing delay, if at all.
func (m *machine) crashing(c any, old map[string]any, restart bool) map[string]any {
	if has(old, "state", "waiting") && text(old, "state", "waiting", "reason") == "CrashLoopBackOff" {
		ended := instant(text(old, "lastState", "terminated", "finishedAt"))
		if !m.until(ended.Add(backOff(number(old, 0, "restartCount")))) {
			return old
		}
	}
	if has(old, "state", "terminated") {
		return old
	}
	next := m.running(c, old)
	next["ready"] = false
	began := instant(text(next, "state", "running", "startedAt"))
	if !m.until(began.Add(crashAfter)) {
		next["started"] = true
		return next
	}
	next["started"] = false
	terminated := m.terminated(next, 1, "Error", began.Add(crashAfter))
	if !restart {
		next["state"] = map[string]any{"terminated": terminated}
		return next
	}
	delay := backOff(number(next, 0, "restartCount"))
	m.wait = sooner(m.wait, max(began.Add(crashAfter+delay).Sub(m.now), time.Second))
	name, pod := text(c, "name"), fmt.Sprintf("%s_%s(%s)", m.pod.GetName(), m.pod.GetNamespace(), uidOf(m.pod))
	next["lastState"] = map[string]any{"terminated": terminated}
	next["state"] = map[string]any{"waiting": map[string]any{
		"reason": "CrashLoopBackOff", "message": fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", delay, name, pod),
	}}
	m.event(eventWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s", name, pod))
	return next
}

// backOff is the delay before a container's next start: 10 s, doubled at each
// restart, at most 5 min, as the kubelet's.
func backOff(restarts int64) time.Duration {
	return min(firstBackOff<<min(restarts, 10), maxBackOff)
}

// running is the status of a container that runs: as before, or started now.
func (m *machine) running(c any, old map[string]any) map[string]any {
	if has(old, "state", "running") {
		return copyMap(old)
	}
	next := m.base(c, old)
	if has(old, "lastState", "terminated") || has(old, "state", "terminated") {
		next["restartCount"] = number(old, 0, "restartCount") + 1
	}
	if has(old, "state", "terminated") {
		next["lastState"] = old["state"]
	}
	next["containerID"] = "containerd://" + digest(uidOf(m.pod)+"/"+text(c, "name")+"/"+decimal(number(next, 0, "restartCount")))
	next["state"] = map[string]any{"running": map[string]any{"startedAt": stamp(m.now)}}
	m.event(eventNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", text(c, "image")))
	m.event(eventNormal, "Started", "Started container "+text(c, "name"))
	return next
}

func (m *machine) waiting(c any, old map[string]any, reason string) map[string]any {
	if old != nil {
		return old
	}
	next := m.base(c, old)
	next["state"] = map[string]any{"waiting": map[string]any{"reason": reason}}
	return next
}

func (m *machine) base(c any, old map[string]any) map[string]any {
	image := text(c, "image")
	next := map[string]any{
		"name": text(c, "name"), "image": image, "imageID": imageID(image),
		"ready": false, "started": false, "restartCount": number(old, 0, "restartCount"), "lastState": map[string]any{},
	}
	if last := table(old, "lastState"); last != nil {
		next["lastState"] = last
	}
	return next
}

func (m *machine) terminated(status map[string]any, code int64, reason string, at time.Time) map[string]any {
	return map[string]any{
		"exitCode": code, "reason": reason, "startedAt": text(status, "state", "running", "startedAt"),
		"finishedAt": stamp(at), "containerID": status["containerID"],
	}
}

// imageID is the digest reference of an image; the digest is made from the
// name, as there is no registry to ask.
func imageID(image string) string {
	repository := image
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		repository = image[:i]
	}
	if i := strings.Index(image, "@"); i >= 0 {
		return image
	}
	return repository + "@sha256:" + digest(image)
}

func statusOf(status map[string]any, field string, container any) map[string]any {
	name := text(container, "name")
	for _, s := range items(status, field) {
		if text(s, "name") == name {
			return s.(map[string]any)
		}
	}
	return nil
}
