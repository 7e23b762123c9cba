package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// jobController runs pods to completion: as many at once as parallelism says,
// until completions of them succeeded or backoffLimit failed. Indexed
// completion, pod failure policies and time limits are not simulated.
type jobController struct{}

func (jobController) Name() string { return "job-controller" }

func (jobController) Watches() []schema.GroupResource { return []schema.GroupResource{grJobs, grPods} }

func (c jobController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr != grJobs {
		return 0
	}
	job := w.Get(gr, namespace, name)
	if job == nil || deleting(job) || isTrue(job, "Complete") || isTrue(job, "Failed") {
		return 0
	}
	var running, terminating, succeeded, failed int64
	for _, p := range w.Owned(grPods, namespace, uidOf(job)) {
		switch {
		case text(p.Object, "status", "phase") == "Succeeded":
			succeeded++
		case text(p.Object, "status", "phase") == "Failed":
			failed++
		case deleting(p):
			terminating++
		default:
			running++
		}
	}
	completions := number(job.Object, 1, "spec", "completions")
	overLimit := failed > number(job.Object, 6, "spec", "backoffLimit")
	again := time.Duration(0)
	if !overLimit && !flag(job.Object, "spec", "suspend") {
		want := min(number(job.Object, 1, "spec", "parallelism"), completions-succeeded)
		for ; running < want; running++ {
			if err := c.create(w, job); err != nil {
				again = retryDelay
				break
			}
		}
	}
	return sooner(again, c.status(w, job, running, terminating, succeeded, failed, succeeded >= completions, overLimit))
}

func (jobController) create(w sim.World, job *unstructured.Unstructured) error {
	pod := podFrom(job, table(job.Object, "spec", "template"), w.Name(job.GetName()+"-"), map[string]string{
		"batch.kubernetes.io/job-name": job.GetName(), "job-name": job.GetName(),
		"batch.kubernetes.io/controller-uid": uidOf(job), "controller-uid": uidOf(job),
	})
	_, err := createPod(w, job, pod, job.GetName()+"-")
	return err
}

func (jobController) status(w sim.World, job *unstructured.Unstructured, running, terminating, succeeded, failed int64, done, overLimit bool) time.Duration {
	now := stamp(w.Now())
	status := map[string]any{"startTime": now, "ready": int64(0), "terminating": terminating, "uncountedTerminatedPods": map[string]any{}}
	if s := text(job.Object, "status", "startTime"); s != "" {
		status["startTime"] = s
	}
	setCount(status, "active", running)
	setCount(status, "succeeded", succeeded)
	setCount(status, "failed", failed)
	conditions := items(job.Object, "status", "conditions")
	note := func(kind, reason, message string) {
		c := newCondition(nil, kind, "True", reason, message, now)
		c["lastProbeTime"] = now
		conditions = withCondition(conditions, c)
	}
	suspended := flag(job.Object, "spec", "suspend")
	if suspended {
		delete(status, "startTime")
	}
	if old := condition(at(job.Object, "status"), "Suspended"); suspended != (text(old, "status") == "True") {
		c := newCondition(old, "Suspended", "True", "JobSuspended", "Job suspended", now)
		if !suspended {
			c = newCondition(old, "Suspended", "False", "JobResumed", "Job resumed", now)
		}
		if suspended || old != nil {
			c["lastProbeTime"] = now
			conditions = withCondition(conditions, c)
		}
	}
	switch {
	case done:
		status["completionTime"] = now
		note("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
		note("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
		w.Event(job, eventNormal, "Completed", "Job completed")
	case overLimit:
		note("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
		note("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
		w.Event(job, eventWarning, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
	}
	if len(conditions) > 0 {
		status["conditions"] = conditions
	}
	return setStatus(w, job, status)
}
