package requests

import "fmt"

// gated are the annotations by which the pods of both sides run, and become
// ready when follow releases them.
const gated = `{sim.rutter.dev/never-ready: "true"}`

// podsOf is a template of pods that are gated.
func podsOf(app, image, more string) string {
	return fmt.Sprintf(`{metadata: {labels: {app: %s}, annotations: %s}, spec: {containers: [{name: app, image: %q}]%s}}`, app, gated, image, comma(more))
}

// workload is a Deployment, StatefulSet or DaemonSet of image app:1.
func workload(name, more string) string {
	return fmt.Sprintf(`{metadata: {name: %s}, spec: {selector: {matchLabels: {app: %s}}, template: %s%s}}`, name, name, podsOf(name, "app:1", ""), comma(more))
}

// running is a Deployment whose pods are ready soon.
func running(name string, replicas int) string {
	return fmt.Sprintf(`{metadata: {name: %s}, spec: {replicas: %d, selector: {matchLabels: {app: %s}}, template: {metadata: {labels: {app: %s}}, spec: `+podSpec+`}}}`, name, replicas, name, name)
}

func runningPod(name, annotations string) string {
	return fmt.Sprintf(`{metadata: {name: %s, labels: {app: %s}, annotations: %s}, spec: %s}`, name, name, annotations, podSpec)
}

// ready waits until a Deployment is complete, and says nothing of it.
func ready(path string, n int) step {
	return until(path, "status.observedGeneration=.metadata.generation", fmt.Sprintf("status.readyReplicas=%d", n), fmt.Sprintf("status.updatedReplicas=%d", n), fmt.Sprintf("status.availableReplicas=%d", n), fmt.Sprintf("status.replicas=%d", n)).with("status.readyReplicas")
}

// ended is met when none of a Deployment's n former pods is still ending, which
// its status counts apart from those that it has. The simulated cluster does not
// count them (differences.yaml).
func ended(n int) []string {
	var c []string
	for i := range n {
		c = append(c, fmt.Sprintf("status.terminatingReplicas!=%d", i+1))
	}
	return c
}

func image(i string) string {
	return `{spec: {template: {spec: {containers: [{name: app, image: "` + i + `"}]}}}}`
}

var controllerCases = []scenario{
	{name: "controllers/a deployment makes a replica set", steps: []step{
		create("deployments", running("web", 2)), ready("deployments/web", 2), get("deployments/web").with("metadata.annotations", "metadata.generation", "status"), get("replicasets").with("items[0].metadata.annotations", "items[0].metadata.labels", "items[0].metadata.ownerReferences", "items[0].metadata.generation", "items[0].spec", "items[0].status", "items[1]"),
		get("pods").with("items[0].metadata.labels.app", "items[0].metadata.generateName", "items[0].metadata.ownerReferences", "items[0].spec.tolerations", "items[0].spec.schedulerName", "items[0].spec.serviceAccountName", "items[0].status.phase", "items[2]"),
	}},
	{name: "controllers/scale to zero and back", steps: []step{create("deployments", running("web", 2)).with("code"), ready("deployments/web", 2), merge("deployments/web/scale", `{spec: {replicas: 0}}`), until("deployments/web", "status.replicas=", "status.observedGeneration=.metadata.generation").with("status.replicas", "status.observedGeneration"), merge("deployments/web", `{spec: {replicas: 1}}`).with("code"), ready("deployments/web", 1), get("replicasets").with("items[0].spec.replicas", "items[0].metadata.annotations", "items[1]")}},
	{name: "controllers/a deleted pod is replaced", steps: []step{create("deployments", running("web", 1)).with("code"), ready("deployments/web", 1), del("pods?labelSelector=app%3Dweb").with("code", "items[0].metadata.labels.app"), until("pods?labelSelector=app%3Dweb", "items[0].status.conditions[Ready].status=True", "items[0].metadata.deletionTimestamp=", "items[1]=").with("items[0].status.phase"), ready("deployments/web", 1)}},
	{name: "controllers/revisions and undo", steps: []step{
		create("deployments", running("web", 1)).with("code"), ready("deployments/web", 1), strategic("deployments/web", image("app:2")).with("code"), ready("deployments/web", 1), get("deployments/web").with("metadata.annotations"), strategic("deployments/web", image("example/app:1")).with("code"), until("deployments/web", "metadata.annotations[deployment.kubernetes.io/revision]=3").with("metadata.annotations"), ready("deployments/web", 1),
		get("deployments/web").with("status.conditions[Progressing].reason", "status.conditions[Available].reason", "status.conditions[Progressing].status"),
	}},
	{name: "controllers/history limit", steps: []step{
		create("deployments", `{metadata: {name: web}, spec: {revisionHistoryLimit: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: `+podSpec+`}}}`).with("code"), ready("deployments/web", 1), strategic("deployments/web", image("app:2")).with("code"), ready("deployments/web", 1), strategic("deployments/web", image("app:3")).with("code"), ready("deployments/web", 1), until("replicasets?labelSelector=app%3Dweb", "items[2]=").with("items[1].kind"),
	}},
	{name: "controllers/paused", steps: []step{create("deployments", running("web", 1)).with("code"), ready("deployments/web", 1), merge("deployments/web", `{spec: {paused: true}}`).with("code"), until("deployments/web", "status.conditions[Progressing].reason=DeploymentPaused").with("status.conditions[Progressing].status", "status.conditions[Progressing].message"), strategic("deployments/web", image("app:2")).with("code"), until("deployments/web", "status.observedGeneration=.metadata.generation").with("status.updatedReplicas"), merge("deployments/web", `{spec: {paused: false}}`).with("code"), ready("deployments/web", 1)}},
	{name: "controllers/restart by annotation", steps: []step{create("deployments", running("web", 2)).with("code"), ready("deployments/web", 2), strategic("deployments/web?fieldManager=kubectl-rollout", `{spec: {template: {metadata: {annotations: {kubectl.kubernetes.io/restartedAt: "2026-01-01T00:00:00Z"}}}}}`).with("metadata.generation"), ready("deployments/web", 2), until("deployments/web", ended(2)...).with("metadata.annotations", "status")}},
	{name: "controllers/a stateful set", steps: []step{
		create("statefulsets", `{metadata: {name: db}, spec: {serviceName: db, replicas: 2, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: `+podSpec+`}}}`), until("statefulsets/db", "status.readyReplicas=2", "status.availableReplicas=2", "status.currentReplicas=2").with("status"), get("pods/db-0").with("metadata.labels[apps.kubernetes.io/pod-index]", "metadata.labels[statefulset.kubernetes.io/pod-name]", "metadata.generateName", "spec.hostname", "spec.subdomain", "metadata.ownerReferences"), get("pods/db-1").with("metadata.labels[apps.kubernetes.io/pod-index]"), get("controllerrevisions").with("items[0].revision", "items[0].metadata.ownerReferences", "items[1]"),
		merge("statefulsets/db/scale", `{spec: {replicas: 1}}`), until("statefulsets/db", "status.replicas=1").with("status.replicas"), gone("pods/db-1"),
	}},
	{name: "controllers/a daemon set", steps: []step{create("daemonsets", `{metadata: {name: log}, spec: {selector: {matchLabels: {app: log}}, template: {metadata: {labels: {app: log}}, spec: `+podSpec+`}}}`), until("daemonsets/log", "status.numberReady=3", "status.numberAvailable=3").with("status"), get("pods").with("items[0].spec.tolerations", "items[0].metadata.labels.app", "items[3]"), get("controllerrevisions").with("items[0].revision", "items[0].metadata.labels", "items[1]")}},
	{name: "controllers/a job", steps: []step{create("jobs", `{metadata: {name: once}, spec: {completions: 2, parallelism: 1, template: {metadata: {annotations: {sim.rutter.dev/complete-after: 1s}}, spec: {restartPolicy: Never, containers: [{name: app, image: "app:1"}]}}}}`), until("jobs/once", "status.conditions[Complete].status=True").with("status.succeeded", "status.active", "status.conditions[Complete].reason", "status.conditions[SuccessCriteriaMet].reason", "status.uncountedTerminatedPods", "status.ready"), get("pods").with("items[0].status.phase", "items[2]")}},
	{name: "controllers/a suspended job", steps: []step{create("jobs", `{metadata: {name: once}, spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: app, image: "app:1"}]}}}}`), until("jobs/once", "status.conditions[Suspended].status=True").with("status.conditions[Suspended].reason", "status.conditions[Suspended].message", "status.startTime"), get("pods").with("items"), merge("jobs/once", `{spec: {suspend: false}}`).with("code"), until("jobs/once", "status.succeeded=1").with("status.succeeded")}},
	{name: "controllers/endpoints of a service", steps: []step{create("services", `{metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}`).with("code"), create("deployments", running("web", 2)).with("code"), ready("deployments/web", 2), until("endpointslices?labelSelector=kubernetes.io/service-name%3Dweb", "items[0].endpoints[1].conditions.ready=true").with("items[0].metadata.labels", "items[0].metadata.generateName", "items[0].ports", "items[0].addressType", "items[0].endpoints[0].conditions", "items[0].endpoints[0].targetRef.kind", "items[1]"), until("endpoints/web", "subsets[0].addresses[1].targetRef.kind=Pod").with("subsets[0].ports", "metadata.labels")}},
	{name: "controllers/a quota", steps: []step{create("resourcequotas", `{metadata: {name: q}, spec: {hard: {pods: "1", count/configmaps: "3"}}}`), until("resourcequotas/q", "status.hard.pods=1", "status.used[count/configmaps]=1").with("status"), create("pods", runningPod("a", "{}")).with("code"), create("pods", runningPod("b", "{}")), create("configmaps", `{metadata: {name: a}}`).with("code"), create("configmaps", `{metadata: {name: b}}`).with("code"), create("configmaps", `{metadata: {name: c}}`)}},
	{name: "controllers/limits", steps: []step{create("limitranges", `{metadata: {name: l}, spec: {limits: [{type: Container, default: {cpu: 200m}, defaultRequest: {cpu: 100m}, max: {cpu: 500m}}]}}`).with("code"), create("pods?dryRun=All", runningPod("a", "{}")).with("code", "spec.containers[0].resources", "metadata.annotations"), create("pods?dryRun=All", `{metadata: {name: b}, spec: {containers: [{name: a, image: b, resources: {limits: {cpu: 2}}}]}}`)}},
	{name: "controllers/adoption", steps: []step{create("replicasets", `{metadata: {name: web, labels: {app: web}}, spec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: `+podSpec+`}}}`), until("replicasets/web", "status.readyReplicas=1").with("status"), create("pods", runningPod("web", "{}")).with("code"), until("replicasets/web", "status.observedGeneration=.metadata.generation", "status.replicas=1").with("status.replicas"), until("pods?labelSelector=app%3Dweb", "items[1]=").with("items[0].metadata.ownerReferences[0].name")}},
}

// budget begins with a Deployment of n ready pods and a budget over it.
func budget(n int, spec string, more ...step) []step {
	return then([]step{
		create("deployments", running("web", n)).with("code"), ready("deployments/web", n),
		create("poddisruptionbudgets", `{metadata: {name: web}, spec: {selector: {matchLabels: {app: web}}`+comma(spec)+`}}`).with("code"),
	}, more...)
}

func allowed(n int) step {
	return until("poddisruptionbudgets/web", "status.observedGeneration=.metadata.generation", fmt.Sprintf("status.disruptionsAllowed=%d", n)).with("status.currentHealthy", "status.desiredHealthy", "status.expectedPods", "status.conditions[DisruptionAllowed].reason", "status.conditions[DisruptionAllowed].status")
}

// first keeps the name of the Deployment's first pod as p0, and so on.
func evictPod(n int, query string) step {
	return evictStep{n, query}
}

type evictStep struct {
	n     int
	query string
}

func (s evictStep) do(r *runner) {
	url, _ := r.expand("pods?labelSelector=app%3Dweb")
	_, data, err := r.send("GET", url, nil, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	obj, err := decode(data)
	if err != nil {
		r.t.Fatal(err)
	}
	r.names.study(obj)
	name, _ := lookup(obj, fmt.Sprintf("items[%d].metadata.name", s.n)).(string)
	if name == "" {
		r.t.Fatalf("%s: there is no pod %d: %s", r.target.name, s.n, data)
	}
	r.kept["name victim"] = name
	create("pods/$name(victim)/eviction"+s.query, `{apiVersion: policy/v1, kind: Eviction, metadata: {name: $name(victim), namespace: $ns}}`).do(r)
}

var evictionCases = []scenario{
	{name: "eviction/allowed, then not", steps: budget(2, "minAvailable: 1", allowed(1), evictPod(0, "?dryRun=All"), allowed(1), evictPod(0, ""), ready("deployments/web", 2), allowed(1))},
	{name: "eviction/forbidden", steps: budget(2, "minAvailable: 2", allowed(0), evictPod(0, ""), evictPod(1, ""), evictPod(0, "?dryRun=All"), get("deployments/web").with("status.readyReplicas"))},
	{name: "eviction/a single replica", steps: budget(1, "minAvailable: 1", allowed(0), evictPod(0, ""))},
	{name: "eviction/by percentage", steps: budget(4, "minAvailable: 50%", allowed(2))},
	{name: "eviction/odd percentage", steps: budget(3, "maxUnavailable: 30%", allowed(1))},
	{name: "eviction/max unavailable zero", steps: budget(2, "maxUnavailable: 0", allowed(0), evictPod(0, ""))},
	{name: "eviction/max unavailable one", steps: budget(3, "maxUnavailable: 1", allowed(1), merge("deployments/web/scale", `{spec: {replicas: 1}}`).with("code"), until("poddisruptionbudgets/web", "status.expectedPods=1", "status.currentHealthy=1").with("status.desiredHealthy", "status.disruptionsAllowed"))},
	{name: "eviction/two budgets", steps: budget(2, "minAvailable: 1", allowed(1), create("poddisruptionbudgets", `{metadata: {name: other}, spec: {minAvailable: 0, selector: {matchLabels: {app: web}}}}`).with("code"), until("poddisruptionbudgets/other", observed...).with("status.disruptionsAllowed"), evictPod(0, ""))},
	{name: "eviction/no budget", steps: []step{create("deployments", running("web", 1)).with("code"), ready("deployments/web", 1), evictPod(0, ""), create("pods/none/eviction", `{apiVersion: policy/v1, kind: Eviction, metadata: {name: none, namespace: $ns}}`)}},
	{name: "eviction/a pod that does not run", steps: []step{create("pods", `{metadata: {name: a, labels: {app: web}}, spec: {schedulerName: nobody, containers: [{name: app, image: x}]}}`).with("code"), create("poddisruptionbudgets", `{metadata: {name: web}, spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}}`).with("code"), until("poddisruptionbudgets/web", observed...).with("status.disruptionsAllowed"), evictPod(0, "")}},
	{name: "eviction/preconditions", steps: []step{create("deployments", running("web", 1)).with("code"), ready("deployments/web", 1), evictPod(0, "?dryRun=All"), create("pods/$name(victim)/eviction", `{apiVersion: policy/v1, kind: Eviction, metadata: {name: $name(victim), namespace: $ns}, deleteOptions: {preconditions: {uid: 11111111-1111-1111-1111-111111111111}}}`), create("pods/$name(victim)/eviction", `{apiVersion: policy/v1, kind: Eviction, metadata: {name: other, namespace: $ns}}`)}},
	{name: "eviction/no selector", steps: []step{create("poddisruptionbudgets", `{metadata: {name: web}, spec: {minAvailable: 1, selector: {}}}`).with("code"), create("deployments", running("web", 1)).with("code"), ready("deployments/web", 1), until("poddisruptionbudgets/web", "status.currentHealthy=1").with("status.disruptionsAllowed", "status.expectedPods"), evictPod(0, "")}},
}
