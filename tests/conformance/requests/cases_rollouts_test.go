package requests

import "fmt"

// rolled are the conditions under which a Deployment of n has rolled out.
func rolled(n int) []string {
	return []string{
		"status.observedGeneration=.metadata.generation", fmt.Sprintf("status.updatedReplicas=%d", n),
		fmt.Sprintf("status.replicas=%d", n), fmt.Sprintf("status.availableReplicas=%d", n), "status.conditions[Progressing].reason=NewReplicaSetAvailable",
	}
}

// deployed is a rollout of a Deployment of n replicas to another image.
func deployed(name string, n int, strategy string, more ...step) scenario {
	return scenario{name: "rollouts/" + name, steps: then([]step{
		create("deployments", workload("web", fmt.Sprintf("replicas: %d, strategy: %s", n, strategy))).with("code"), settled("deployments/web", rolled(n)...),
		strategic("deployments/web", image("app:2")).with("code"), follow("deployments/web", rolled(n)...),
	}, more...)}
}

func rolling(surge, unavailable string) string {
	return `{rollingUpdate: {maxSurge: ` + surge + `, maxUnavailable: ` + unavailable + `}}`
}

// stuck is when a rollout to a bad image has got as far as it can.
func stuck(n, updated int) []string {
	return []string{"status.observedGeneration=.metadata.generation", fmt.Sprintf("status.updatedReplicas=%d", updated), fmt.Sprintf("status.unavailableReplicas=%d", n)}
}

var rolloutCases = []scenario{
	{name: "rollouts/a first one", steps: []step{create("deployments", workload("web", "replicas: 3")).with("code"), follow("deployments/web", rolled(3)...)}},
	deployed("one replica", 1, `{}`),
	deployed("surge one of three", 3, rolling("1", "0")),
	deployed("no surge", 3, rolling("0", "1")),
	deployed("no surge two at a time", 4, rolling("0", "2")),
	deployed("the default of four", 4, `{}`),
	deployed("the default of ten", 10, `{}`),
	deployed("surge all", 3, rolling("100%", "0")),
	deployed("surge and unavailable", 5, rolling("2", "1")),
	deployed("percentages round", 3, rolling("30%", "30%")),
	deployed("half and half", 4, rolling("50%", "50%")),
	deployed("recreate", 2, `{type: Recreate}`),
	{name: "rollouts/scaled in the middle", steps: []step{
		create("deployments", workload("web", "replicas: 4, strategy: "+rolling("1", "0"))).with("code"), settled("deployments/web", rolled(4)...), strategic("deployments/web", image("app:2")).with("code"), follow("deployments/web", "status.updatedReplicas=2"),
		merge("deployments/web", `{spec: {replicas: 6}}`).with("code"), follow("deployments/web", rolled(6)...),
	}},
	{name: "rollouts/minimum ready time", steps: []step{
		create("deployments", workload("web", "replicas: 2, minReadySeconds: 2, strategy: "+rolling("1", "0"))).with("code"), settled("deployments/web", rolled(2)...), strategic("deployments/web", image("app:2")).with("code"), follow("deployments/web", rolled(2)...),
	}},
	{name: "rollouts/a bad image stops", steps: []step{
		create("deployments", workload("web", "replicas: 3, strategy: "+rolling("1", "0"))).with("code"), settled("deployments/web", rolled(3)...), strategic("deployments/web", image("app-bad")).with("code"), until("deployments/web", stuck(1, 1)...).with("status.readyReplicas", "status.replicas", "status.conditions[Available].status"),
		until("pods?labelSelector=app%3Dweb", "items[3].kind=").with("items[4]"), strategic("deployments/web", image("app:1")).with("code"), follow("deployments/web", rolled(3)...), get("deployments/web").with("metadata.annotations", "status.conditions[Progressing].reason"),
	}},
	{name: "rollouts/a bad image by the default", steps: []step{
		create("deployments", workload("web", "replicas: 4")).with("code"), settled("deployments/web", rolled(4)...), strategic("deployments/web", image("app-bad")).with("code"), until("deployments/web", stuck(2, 2)...).with("status.readyReplicas", "status.replicas", "status.availableReplicas"),
	}},
	{name: "rollouts/progress deadline", steps: []step{
		create("deployments", workload("web", "replicas: 1, progressDeadlineSeconds: 4")).with("code"), settled("deployments/web", rolled(1)...), strategic("deployments/web", image("app-bad")).with("code"), until("deployments/web", "status.conditions[Progressing].reason=ProgressDeadlineExceeded").with("status.conditions[Progressing].status", "status.conditions[Progressing].message", "status.conditions[Available].status"),
		strategic("deployments/web", image("app:3")).with("code"), follow("deployments/web", rolled(1)...), get("deployments/web").with("status.conditions[Progressing].status", "status.conditions[Progressing].reason"),
	}},
	{name: "rollouts/undone halfway", steps: []step{
		create("deployments", workload("web", "replicas: 3, strategy: "+rolling("1", "0"))).with("code"), settled("deployments/web", rolled(3)...), strategic("deployments/web", image("app:2")).with("code"), follow("deployments/web", "status.updatedReplicas=2"), strategic("deployments/web", image("app:1")).with("code"), follow("deployments/web", rolled(3)...), get("deployments/web").with("metadata.annotations"),
	}},
	{name: "rollouts/paused halfway", steps: []step{
		create("deployments", workload("web", "replicas: 3, strategy: "+rolling("1", "0"))).with("code"), settled("deployments/web", rolled(3)...), strategic("deployments/web", `{spec: {paused: true, template: {spec: {containers: [{name: app, image: "app:2"}]}}}}`).with("code"), until("deployments/web", "status.observedGeneration=.metadata.generation", "status.updatedReplicas=").with("status.replicas"), merge("deployments/web", `{spec: {paused: false}}`).with("code"), follow("deployments/web", rolled(3)...),
	}},
	{name: "rollouts/never ready", steps: []step{
		create("deployments", workload("web", "replicas: 2, strategy: "+rolling("1", "0"))).with("code"), settled("deployments/web", rolled(2)...), strategic("deployments/web", image("app:2")).with("code"), until("deployments/web", stuck(1, 1)...).with("status.readyReplicas", "status.availableReplicas"),
	}},
	{name: "rollouts/a stateful set", steps: []step{create("statefulsets", workload("db", "replicas: 3, serviceName: db")).with("code"), follow("statefulsets/db", rolledSet(3)...), strategic("statefulsets/db", image("app:2")).with("code"), follow("statefulsets/db", rolledSet(3)...)}},
	{name: "rollouts/a stateful set in parallel", steps: []step{create("statefulsets", workload("db", "replicas: 3, serviceName: db, podManagementPolicy: Parallel")).with("code"), follow("statefulsets/db", rolledSet(3)...), strategic("statefulsets/db", image("app:2")).with("code"), follow("statefulsets/db", rolledSet(3)...)}},
	{name: "rollouts/a stateful set with a partition", steps: []step{
		create("statefulsets", workload("db", "replicas: 3, serviceName: db, updateStrategy: {rollingUpdate: {partition: 2}}")).with("code"), settled("statefulsets/db", rolledSet(3)...), strategic("statefulsets/db", image("app:2")).with("code"), follow("statefulsets/db", "status.updatedReplicas=1", "status.readyReplicas=3"), get("statefulsets/db").with("status.currentReplicas"), get("pods/db-2").with("spec.containers[0].image"), get("pods/db-1").with("spec.containers[0].image"), merge("statefulsets/db", `{spec: {updateStrategy: {rollingUpdate: {partition: 0}}}}`).with("code"), follow("statefulsets/db", rolledSet(3)...), until("statefulsets/db", "status.currentReplicas=3").with("status.currentReplicas"),
	}},
	{name: "rollouts/a stateful set on delete", steps: []step{
		create("statefulsets", workload("db", "replicas: 2, serviceName: db, updateStrategy: {type: OnDelete}")).with("code"), settled("statefulsets/db", "status.readyReplicas=2", "status.observedGeneration=.metadata.generation"), strategic("statefulsets/db", image("app:2")).with("code"), until("statefulsets/db", "status.observedGeneration=.metadata.generation").with("status.updatedReplicas", "status.currentReplicas"), del("pods/db-0").with("code"), until("pods/db-0", "spec.containers[0].image=app:2", "status.phase=Running").with("status.phase"), follow("statefulsets/db", "status.updatedReplicas=1", "status.readyReplicas=2"), get("pods/db-1").with("spec.containers[0].image"),
	}},
	{name: "rollouts/a stateful set with a bad image", steps: []step{
		create("statefulsets", workload("db", "replicas: 2, serviceName: db")).with("code"), settled("statefulsets/db", rolledSet(2)...), strategic("statefulsets/db", image("app-bad")).with("code"), until("statefulsets/db", "status.observedGeneration=.metadata.generation", "status.updatedReplicas=1", "status.readyReplicas=1").with("status.replicas", "status.currentReplicas"), get("pods/db-0").with("spec.containers[0].image"), strategic("statefulsets/db", image("app:3")).with("code"), until("statefulsets/db", "status.observedGeneration=.metadata.generation").with("status.readyReplicas"),
	}},
	{name: "rollouts/a daemon set", steps: []step{create("daemonsets", workload("log", "")).with("code"), settled("daemonsets/log", rolledDaemons...), strategic("daemonsets/log", image("app:2")).with("code"), follow("daemonsets/log", rolledDaemons...)}},
	{name: "rollouts/a daemon set two at a time", steps: []step{create("daemonsets", workload("log", "updateStrategy: {rollingUpdate: {maxUnavailable: 2}}")).with("code"), settled("daemonsets/log", rolledDaemons...), strategic("daemonsets/log", image("app:2")).with("code"), follow("daemonsets/log", rolledDaemons...)}},
	// How many nodes get their second pod at once depends on what of the first
	// one's the controller has seen yet.
	{name: "rollouts/a daemon set with surge", steps: []step{create("daemonsets", workload("log", "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}")).with("code"), settled("daemonsets/log", rolledDaemons...), later{}, strategic("daemonsets/log", image("app:2")).with("code"), followEnds("daemonsets/log", rolledDaemons...)}},
	{name: "rollouts/a daemon set on delete", steps: []step{create("daemonsets", workload("log", "updateStrategy: {type: OnDelete}")).with("code"), settled("daemonsets/log", "status.numberAvailable=3"), strategic("daemonsets/log", image("app:2")).with("code"), until("daemonsets/log", "status.observedGeneration=.metadata.generation", "status.updatedNumberScheduled=").with("status.numberReady")}},
	{name: "rollouts/a daemon set with a bad image", steps: []step{create("daemonsets", workload("log", "")).with("code"), settled("daemonsets/log", rolledDaemons...), strategic("daemonsets/log", image("app-bad")).with("code"), until("daemonsets/log", "status.observedGeneration=.metadata.generation", "status.updatedNumberScheduled=1", "status.numberUnavailable=1").with("status.numberReady")}},
}

// rolledSet are the conditions under which a StatefulSet of n has rolled out.
func rolledSet(n int) []string {
	return []string{"status.observedGeneration=.metadata.generation", fmt.Sprintf("status.updatedReplicas=%d", n), fmt.Sprintf("status.availableReplicas=%d", n), "status.currentRevision=.status.updateRevision"}
}

var rolledDaemons = []string{"status.observedGeneration=.metadata.generation", "status.updatedNumberScheduled=3", "status.numberAvailable=3", "status.currentNumberScheduled=3"}
