package requests

// family is an owner with two dependents, one of which has a dependent too.
func family(more ...step) []step {
	return then([]step{
		create("configmaps", `{metadata: {name: owner}}`),
		create("configmaps", `{metadata: {name: child, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: $uid(configmaps/owner), blockOwnerDeletion: true}]}}`),
		create("secrets", `{metadata: {name: child, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: $uid(configmaps/owner), blockOwnerDeletion: true}]}}`),
		create("configmaps", `{metadata: {name: grandchild, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: child, uid: $uid(configmaps/child), blockOwnerDeletion: true}]}}`),
	}, more...)
}

func gone(path string) step { return get(path).untilGone() }

var deletionCases = []scenario{
	{name: "deletion/a finalizer holds", steps: []step{
		create("configmaps", `{metadata: {name: a, finalizers: [x.test/one, x.test/two]}}`), del("configmaps/a"), get("configmaps/a"), del("configmaps/a"), merge("configmaps/a", `{data: {k: v}}`), merge("configmaps/a", `{metadata: {finalizers: [x.test/one, x.test/new]}}`),
		merge("configmaps/a", `{metadata: {finalizers: [x.test/one]}}`), create("configmaps", plain), merge("configmaps/a", `{metadata: {finalizers: []}}`), get("configmaps/a"),
	}},
	{name: "deletion/a finalizer holds a custom object", steps: []step{create("widgets", `{metadata: {name: a, finalizers: [x.test/one]}, spec: {}}`), del("widgets/a"), merge("widgets/a", `{spec: {size: 4}}`), merge("widgets/a/status", `{status: {phase: going}}`), jsonPatch("widgets/a", `[{op: remove, path: /metadata/finalizers}]`), get("widgets/a")}},
	{name: "deletion/finalizer names", steps: []step{create("configmaps", `{metadata: {name: a, finalizers: [plain]}}`), create("configmaps", `{metadata: {name: a, finalizers: [""]}}`), create("configmaps", `{metadata: {name: b, finalizers: [foregroundDeletion, orphan]}}`)}},
	{name: "deletion/background", steps: family(delWith("configmaps/owner", `{propagationPolicy: Background}`), gone("configmaps/child"), gone("secrets/child"), gone("configmaps/grandchild"))},
	{name: "deletion/the default is background", steps: family(del("configmaps/owner"), gone("configmaps/child"), gone("configmaps/grandchild"))},
	{name: "deletion/foreground", steps: family(delWith("configmaps/owner", `{propagationPolicy: Foreground}`), gone("configmaps/owner"), get("configmaps/child"), get("secrets/child"), get("configmaps/grandchild"))},
	{name: "deletion/foreground waits for a blocked dependent", steps: family(
		merge("configmaps/child", `{metadata: {finalizers: [x.test/hold]}}`), delWith("configmaps/owner", `{propagationPolicy: Foreground}`), gone("secrets/child"), until("configmaps/child", "metadata.deletionTimestamp!=", "metadata.finalizers=[x.test/hold]"), get("configmaps/owner"),
		merge("configmaps/child", `{metadata: {finalizers: null}}`).with("code"), gone("configmaps/owner"), gone("configmaps/child"))},
	{name: "deletion/orphan", steps: family(delWith("configmaps/owner", `{propagationPolicy: Orphan}`), gone("configmaps/owner"), until("configmaps/child", "metadata.ownerReferences="), until("secrets/child", "metadata.ownerReferences="), get("configmaps/grandchild"))},
	{name: "deletion/orphan by the old option", steps: family(delWith("configmaps/owner", `{orphanDependents: true}`), gone("configmaps/owner"), until("configmaps/child", "metadata.ownerReferences="))},
	{name: "deletion/propagation by parameter", steps: family(del("configmaps/owner?propagationPolicy=Orphan"), gone("configmaps/owner"), until("configmaps/child", "metadata.ownerReferences="))},
	{name: "deletion/bad options", steps: []step{
		create("configmaps", plain), delWith("configmaps/a", `{propagationPolicy: Sideways}`), delWith("configmaps/a", `{propagationPolicy: Orphan, orphanDependents: true}`), delWith("configmaps/a", `{gracePeriodSeconds: -1}`), delWith("configmaps/a", `{dryRun: [Some]}`), delWith("configmaps/a", `{"propagationPolicy": 1}`), delWith("configmaps/a", `{{`).verbatim("application/json"), del("configmaps/a?gracePeriodSeconds=x"), get("configmaps/a"),
	}},
	{name: "deletion/preconditions", steps: []step{
		create("configmaps", plain).as("first"), merge("configmaps/a", `{data: {k: w}}`), delWith("configmaps/a", `{preconditions: {uid: 11111111-1111-1111-1111-111111111111}}`), delWith("configmaps/a", `{preconditions: {resourceVersion: "$rv(first)"}}`), delWith("configmaps/a", `{dryRun: [All], preconditions: {resourceVersion: "$rv(first)"}}`), delWith("configmaps/a", `{preconditions: {uid: $uid(first), resourceVersion: "$rv(configmaps/a)"}}`), get("configmaps/a"),
	}},
	{name: "deletion/preconditions of custom objects", steps: []step{create("widgets", `{metadata: {name: a}, spec: {}}`).as("first"), delWith("widgets/a", `{preconditions: {uid: 11111111-1111-1111-1111-111111111111}}`), merge("widgets/a", `{spec: {size: 3}}`), delWith("widgets/a", `{preconditions: {resourceVersion: "$rv(first)"}}`), delWith("widgets/a", `{preconditions: {uid: $uid(first)}}`)}},
	{name: "deletion/one of two owners", steps: []step{
		create("configmaps", `{metadata: {name: one}}`), create("configmaps", `{metadata: {name: two}}`),
		create("secrets", `{metadata: {name: child, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: one, uid: $uid(configmaps/one)}, {apiVersion: v1, kind: ConfigMap, name: two, uid: $uid(configmaps/two)}]}}`),
		del("configmaps/one"), until("secrets/child", "metadata.ownerReferences[1]="), del("configmaps/two"), gone("secrets/child"),
	}},
	{name: "deletion/an owner that never was", steps: []step{create("configmaps", `{metadata: {name: a, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: none, uid: 11111111-1111-1111-1111-111111111111}]}}`), gone("configmaps/a")}},
	{name: "deletion/owner references that are refused", steps: []step{
		create("configmaps", `{metadata: {name: a, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x}]}}`), create("configmaps", `{metadata: {name: a, ownerReferences: [{apiVersion: "", kind: "", name: "", uid: ""}]}}`),
		create("configmaps", `{metadata: {name: a, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: u, controller: true}, {apiVersion: v1, kind: ConfigMap, name: z, uid: v, controller: true}]}}`), create("configmaps", `{metadata: {name: a, ownerReferences: [{apiVersion: v1, kind: Event, name: x, uid: u}]}}`),
	}},
	{name: "deletion/a deployment and all below it", steps: []step{
		create("deployments", running("web", 2)).with("code"), ready("deployments/web", 2), delWith("deployments/web", `{propagationPolicy: Foreground}`).with("code", "metadata.finalizers", "metadata.generation"), gone("deployments/web"), get("replicasets"), get("pods?labelSelector=app%3Dweb"),
	}},
	{name: "deletion/a deployment and nothing below it", steps: []step{
		create("deployments", running("web", 2)).with("code"), ready("deployments/web", 2), delWith("deployments/web", `{propagationPolicy: Orphan}`).with("code", "metadata.finalizers"), gone("deployments/web"), get("replicasets").with("items[0].metadata.ownerReferences", "items[0].spec.replicas", "items[1]"), create("deployments", running("web", 2)).with("code"), ready("deployments/web", 2), get("replicasets").with("items[0].metadata.ownerReferences[0].name", "items[1]"),
	}},
	{name: "deletion/a pod with grace", steps: []step{
		create("pods", `{metadata: {name: a, finalizers: [x.test/hold]}, spec: `+podSpec+`}`).with("code"), until("pods/a", "status.phase=Running").with("code"), del("pods/a").with("code", "kind", "metadata.deletionGracePeriodSeconds"), delWith("pods/a", `{gracePeriodSeconds: 50}`).with("code", "metadata.deletionGracePeriodSeconds"), delWith("pods/a", `{gracePeriodSeconds: 5}`).with("code", "metadata.deletionGracePeriodSeconds"), delWith("pods/a", `{gracePeriodSeconds: 0}`).with("code", "metadata.deletionGracePeriodSeconds"), merge("pods/a", `{metadata: {finalizers: null}}`).with("code"), gone("pods/a"),
	}},
	{name: "deletion/a pod that was not scheduled", steps: []step{create("pods", `{metadata: {name: a}, spec: {schedulerName: nobody, containers: [{name: app, image: x}]}}`).with("code"), del("pods/a").with("code", "kind", "metadata.deletionGracePeriodSeconds"), get("pods/a")}},
	{name: "deletion/a collection", steps: then(several("a", "x: z", "b", "x: z"), merge("configmaps/b", `{metadata: {finalizers: [x.test/y]}}`), delWith("configmaps?labelSelector=x", `{propagationPolicy: Background}`), get("configmaps?labelSelector=x"), merge("configmaps/b", `{metadata: {finalizers: null}}`).with("code"))},
}

var namespaceCases = []scenario{
	{name: "namespaces/what a new one has", steps: []step{create("namespaces", `{metadata: {name: $ns-x}}`), until("/api/v1/namespaces/$ns-x/serviceaccounts/default", "metadata.name=default"), until("/api/v1/namespaces/$ns-x/configmaps/kube-root-ca.crt", "metadata.name=kube-root-ca.crt").with("metadata.annotations", "metadata.managedFields"), get("namespaces/$ns-x"), del("namespaces/$ns-x").with("code", "status.phase", "metadata.generation", "spec.finalizers")}},
	{name: "namespaces/deletion empties it", steps: []step{
		create("namespaces", `{metadata: {name: $ns-x}}`).with("code"), create("/api/v1/namespaces/$ns-x/configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`).with("code"), create("/apis/conform.rutter.dev/v1/namespaces/$ns-x/widgets", `{apiVersion: conform.rutter.dev/v1, kind: Widget, metadata: {name: a}, spec: {}}`).with("code"),
		del("namespaces/$ns-x").with("code", "kind", "status.phase"), gone("namespaces/$ns-x"), get("/api/v1/namespaces/$ns-x/configmaps/a"), get("/apis/conform.rutter.dev/v1/namespaces/$ns-x/widgets/a"),
	}},
	{name: "namespaces/terminating", steps: []step{
		create("namespaces", `{metadata: {name: $ns-x}}`).with("code"), create("/api/v1/namespaces/$ns-x/configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, finalizers: [x.test/y]}}`).with("code"), del("namespaces/$ns-x").with("code"),
		until("namespaces/$ns-x", "status.conditions[NamespaceFinalizersRemaining].status=True").with("status.phase", "spec.finalizers", "status.conditions[NamespaceFinalizersRemaining].reason", "status.conditions[NamespaceFinalizersRemaining].message", "status.conditions[NamespaceContentRemaining].message", "status.conditions[NamespaceDeletionContentFailure].status"),
		create("/api/v1/namespaces/$ns-x/configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}`), apply("one", "/api/v1/namespaces/$ns-x/configmaps/b", `{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}`), merge("/api/v1/namespaces/$ns-x/configmaps/a", `{data: {k: v}}`).with("code", "data"),
		create("namespaces", `{metadata: {name: $ns-x}}`), del("namespaces/$ns-x"), merge("/api/v1/namespaces/$ns-x/configmaps/a", `{metadata: {finalizers: null}}`).with("code"), gone("namespaces/$ns-x"),
	}},
	{name: "namespaces/their own finalizer", steps: []step{create("namespaces", `{metadata: {name: $ns-x}, spec: {finalizers: [x.test/y]}}`), update("/api/v1/namespaces/$ns-x/finalize", `{apiVersion: v1, kind: Namespace, metadata: {name: $ns-x}, spec: {finalizers: [kubernetes]}}`), get("namespaces/$ns-x"), del("namespaces/$ns-x").with("code"), gone("namespaces/$ns-x")}},
	{name: "namespaces/a metadata finalizer", steps: []step{create("namespaces", `{metadata: {name: $ns-x, finalizers: [x.test/y]}}`).with("code"), del("namespaces/$ns-x").with("code"), until("namespaces/$ns-x", "spec.finalizers=").with("status.phase", "metadata.finalizers"), merge("namespaces/$ns-x", `{metadata: {finalizers: null}}`).with("code"), gone("namespaces/$ns-x")}},
	{name: "namespaces/names and labels", steps: []step{create("namespaces", `{metadata: {name: Bad_Name}}`), create("namespaces", `{metadata: {name: a.b}}`), merge("namespaces/$ns", `{metadata: {labels: {kubernetes.io/metadata.name: other}}}`), merge("namespaces/$ns", `{metadata: {labels: {kubernetes.io/metadata.name: null}}}`), del("namespaces/kube-system"), del("namespaces/default"), del("namespaces/kube-public")}},
	{name: "namespaces/a deleted service account comes back", steps: []step{del("serviceaccounts/default").with("code"), until("serviceaccounts/default", "metadata.name=default").with("metadata.name"), del("configmaps/kube-root-ca.crt").with("code"), until("configmaps/kube-root-ca.crt", "metadata.name=kube-root-ca.crt").with("metadata.name")}},
}
