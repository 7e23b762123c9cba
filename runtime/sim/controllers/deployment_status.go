package controllers

import (
	"fmt"
	"math"
	"time"
)

// status computes the counters and conditions of a Deployment.
func (r *rollout) status() map[string]any {
	prior := table(r.d.Object, "status")
	availableN := totalStatus(r.sets, "availableReplicas")
	total := totalStatus(r.sets, "replicas")
	st := map[string]any{"observedGeneration": number(r.d.Object, 0, "metadata", "generation")}
	setCount(st, "replicas", total)
	if r.current != nil {
		setCount(st, "updatedReplicas", number(r.current.Object, 0, "status", "replicas"))
	}
	setCount(st, "readyReplicas", totalStatus(r.sets, "readyReplicas"))
	setCount(st, "availableReplicas", availableN)
	setCount(st, "unavailableReplicas", max(0, totalWanted(r.sets)-availableN))
	if n := at(prior, "collisionCount"); n != nil {
		st["collisionCount"] = n
	}
	conditions := append([]any(nil), items(prior, "conditions")...)
	conditions = withCondition(conditions, r.availability(prior, availableN))
	st["conditions"] = conditions
	return st
}

func (r *rollout) availability(prior map[string]any, availableN int64) map[string]any {
	if availableN >= r.replicas-r.unavailable {
		return r.condition(prior, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
	}
	return r.condition(prior, "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
}

// condition makes a Deployment condition; an unchanged one stays as it is.
func (r *rollout) condition(prior map[string]any, kind, status, reason, message string) map[string]any {
	old := condition(prior, kind)
	if old != nil && text(old, "status") == status && text(old, "reason") == reason {
		return old
	}
	return r.renewed(prior, kind, status, reason, message)
}

// renewed is a condition updated at this instant.
func (r *rollout) renewed(prior map[string]any, kind, status, reason, message string) map[string]any {
	now := stamp(r.w.Now())
	c := newCondition(condition(prior, kind), kind, status, reason, message, now)
	c["lastUpdateTime"] = now
	return c
}

// complete reports whether every pod is of the present template and available.
func (r *rollout) complete() bool { return r.completeBy(r.status()) }

func (r *rollout) completeBy(st map[string]any) bool {
	return number(st, 0, "updatedReplicas") == r.replicas && number(st, 0, "replicas") == r.replicas &&
		number(st, 0, "availableReplicas") == r.replicas
}

// writeStatus stores the status, and says when the progress deadline is due.
func (r *rollout) writeStatus() time.Duration {
	st := r.status()
	prior := table(r.d.Object, "status")
	conditions := items(st, "conditions")
	deadline := number(r.d.Object, 600, "spec", "progressDeadlineSeconds")
	var again time.Duration
	if deadline >= math.MaxInt32 {
		conditions = withoutCondition(conditions, "Progressing")
	} else {
		if c := r.progress(prior, st, deadline); c != nil {
			conditions = withCondition(conditions, c)
		}
		again = r.untilDeadline(conditions, deadline)
	}
	conditions = r.withFailure(prior, conditions)
	st["conditions"] = conditions
	again = sooner(again, setStatus(r.w, r.d, st))
	if r.failed != nil {
		again = sooner(again, retryDelay)
	}
	return again
}

// untilDeadline is how long until a rollout that makes no more progress has
// timed out; zero when none is under way.
func (r *rollout) untilDeadline(conditions []any, deadline int64) time.Duration {
	c := condition(map[string]any{"conditions": conditions}, "Progressing")
	if text(c, "status") != "True" || text(c, "reason") == "NewReplicaSetAvailable" {
		return 0
	}
	due := instant(text(c, "lastUpdateTime")).Add(time.Duration(deadline)*time.Second + time.Second)
	return max(due.Sub(r.w.Now()), time.Second)
}

// progress computes the Progressing condition; nil leaves it as it is.
func (r *rollout) progress(prior, st map[string]any, deadline int64) map[string]any {
	old := condition(prior, "Progressing")
	if flag(r.d.Object, "spec", "paused") {
		return r.pausedCondition(prior, old)
	}
	if text(old, "reason") == "DeploymentPaused" {
		return r.renewed(prior, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
	}
	name := "Deployment " + quoted(r.d.GetName())
	if r.current != nil {
		name = "ReplicaSet " + quoted(r.current.GetName())
	}
	switch {
	case r.failed != nil && r.current == nil:
		return r.renewed(prior, "Progressing", "False", "ReplicaSetCreateError", reasonOf(r.failed))
	case r.created:
		return r.renewed(prior, "Progressing", "True", "NewReplicaSetCreated", "Created new replica set "+quoted(r.current.GetName()))
	case text(old, "reason") == "NewReplicaSetAvailable" && number(st, 0, "replicas") == number(st, 0, "updatedReplicas"):
		return nil // a finished rollout stays finished when pods come and go
	case r.completeBy(st):
		return r.condition(prior, "Progressing", "True", "NewReplicaSetAvailable", name+" has successfully progressed.")
	case old == nil:
		return r.renewed(prior, "Progressing", "True", "FoundNewReplicaSet", "Found new replica set "+quoted(r.d.GetName()))
	case advanced(prior, st):
		return r.renewed(prior, "Progressing", "True", "ReplicaSetUpdated", name+" is progressing.")
	case text(old, "reason") == "ProgressDeadlineExceeded" || text(old, "reason") == "NewReplicaSetAvailable":
		return nil
	}
	if !instant(text(old, "lastUpdateTime")).Add(time.Duration(deadline) * time.Second).Before(r.w.Now()) {
		return nil
	}
	return r.renewed(prior, "Progressing", "False", "ProgressDeadlineExceeded", name+" has timed out progressing.")
}

func (r *rollout) pausedCondition(prior, old map[string]any) map[string]any {
	if reason := text(old, "reason"); reason == "DeploymentPaused" || reason == "ProgressDeadlineExceeded" {
		return nil
	}
	return r.renewed(prior, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
}

// advanced reports whether a status shows progress over the one before it.
func advanced(prior, st map[string]any) bool {
	outdated := func(s map[string]any) int64 { return number(s, 0, "replicas") - number(s, 0, "updatedReplicas") }
	return number(st, 0, "updatedReplicas") > number(prior, 0, "updatedReplicas") ||
		outdated(st) < outdated(prior) ||
		number(st, 0, "readyReplicas") > number(prior, 0, "readyReplicas") ||
		number(st, 0, "availableReplicas") > number(prior, 0, "availableReplicas")
}

// withFailure copies a ReplicaSet's failure to create pods to the Deployment.
func (r *rollout) withFailure(prior map[string]any, conditions []any) []any {
	var failure map[string]any
	for _, s := range r.sets {
		c := condition(at(s.Object, "status"), "ReplicaFailure")
		if text(c, "status") == "True" && (failure == nil || s == r.current) {
			failure = c
		}
	}
	if failure == nil {
		return withoutCondition(conditions, "ReplicaFailure")
	}
	c := r.condition(prior, "ReplicaFailure", "True", text(failure, "reason"), text(failure, "message"))
	return withCondition(conditions, c)
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }
