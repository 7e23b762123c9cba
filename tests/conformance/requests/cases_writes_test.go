package requests

// Objects that several cases begin with.
const (
	plain = `{metadata: {name: a}, data: {k: v}}`
	// template is a PodTemplate, which no controller acts on: a pod
	// specification that only the requests change.
	template = `{metadata: {name: a}, template: {metadata: {labels: {app: a}}, spec: {
		containers: [
			{name: app, image: "app:1", env: [{name: A, value: "1"}, {name: B, value: "2"}], ports: [{containerPort: 80, name: http}], args: [x, z]},
			{name: side, image: "side:1"}],
		tolerations: [{key: t1, operator: Exists}],
		volumes: [{name: v1, emptyDir: {}}],
		imagePullSecrets: [{name: s1}]}}}`
	idle = `{metadata: {name: a}, spec: {replicas: 0, selector: {matchLabels: {app: a}}, template: ` + podTemplate + `}}`
)

// idleSettled is when the controllers have done what they do for idle.
var idleSettled = until("deployments/a", "status.observedGeneration=.metadata.generation", "status.conditions[Progressing].reason=NewReplicaSetAvailable")

var conflictCases = []scenario{
	{name: "conflicts/create twice", steps: []step{create("configmaps", plain), create("configmaps", plain), create("configmaps?dryRun=All", plain)}},
	{name: "conflicts/update with a stale version", steps: []step{
		create("configmaps", plain).as("first"), merge("configmaps/a", `{data: {k: w}}`),
		update("configmaps/a", `{metadata: {name: a, resourceVersion: "$rv(first)"}, data: {k: x}}`), get("configmaps/a"),
	}},
	{name: "conflicts/update without a version", steps: []step{
		create("configmaps", plain), update("configmaps/a", `{metadata: {name: a}, data: {k: x}}`), get("configmaps/a"),
	}},
	{name: "conflicts/custom object needs a version", steps: []step{
		create("widgets", `{metadata: {name: a}, spec: {size: 3}}`), update("widgets/a", `{metadata: {name: a}, spec: {size: 4}}`),
		update("widgets/a", `{metadata: {name: a, resourceVersion: "$rv(widgets/a)"}, spec: {size: 4}}`),
	}},
	{name: "conflicts/update with another uid", steps: []step{
		create("configmaps", plain), update("configmaps/a", `{metadata: {name: a, uid: 11111111-1111-1111-1111-111111111111}, data: {k: x}}`),
		update("configmaps/a", `{metadata: {name: a, uid: $uid(configmaps/a)}, data: {k: x}}`),
	}},
	{name: "conflicts/update what is not there", steps: []step{update("configmaps/a", plain), update("widgets/a", `{metadata: {name: a}, spec: {}}`), update("deployments/a", idle), update("leases/a", `{metadata: {name: a}}`)}},
	{name: "conflicts/merge patch with a version", steps: []step{
		create("configmaps", plain).as("first"), merge("configmaps/a", `{metadata: {resourceVersion: "$rv(first)"}, data: {k: w}}`),
		merge("configmaps/a", `{metadata: {resourceVersion: "$rv(first)"}, data: {k: x}}`),
		strategic("configmaps/a", `{metadata: {resourceVersion: "$rv(first)"}, data: {k: x}}`),
		merge("configmaps/a", `{metadata: {uid: 11111111-1111-1111-1111-111111111111}}`),
	}},
	{name: "conflicts/apply with a version", steps: []step{
		apply("one", "configmaps/a", plain).as("first"), apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: w}}`),
		apply("one", "configmaps/a", `{metadata: {name: a, resourceVersion: "$rv(first)"}, data: {k: x}}`),
		apply("one", "configmaps/none", `{metadata: {name: none, resourceVersion: "1"}}`),
		apply("one", "configmaps/none", `{metadata: {name: none, uid: 11111111-1111-1111-1111-111111111111}}`),
	}},
	{name: "conflicts/name and namespace", steps: []step{
		create("configmaps", plain), update("configmaps/a", `{metadata: {name: b}}`), merge("configmaps/a", `{metadata: {name: b}}`),
		create("configmaps", `{metadata: {name: b, namespace: other}}`), update("configmaps/a", `{metadata: {name: a, namespace: other}}`),
		merge("configmaps/a", `{metadata: {namespace: other}}`), apply("one", "configmaps/a", `{metadata: {name: b}}`), apply("one", "configmaps/a", `{metadata: {name: a, namespace: other}}`),
		create("/api/v1/namespaces/no-such-namespace/configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`),
	}},
	{name: "conflicts/version on creation", steps: []step{create("configmaps", `{metadata: {name: a, resourceVersion: "7"}}`), create("widgets", `{metadata: {name: a, resourceVersion: "7"}, spec: {}}`)}},
	{name: "conflicts/nothing changes", steps: []step{
		create("configmaps", plain), update("configmaps/a", plain), merge("configmaps/a", `{data: {k: v}}`), strategic("configmaps/a", `{}`),
		jsonPatch("configmaps/a", `[{op: replace, path: /data/k, value: v}]`), apply("one", "configmaps/a", plain), apply("one", "configmaps/a", plain), get("configmaps/a"),
	}},
}

var dryRunCases = []scenario{
	{name: "dry-run/create", steps: []step{create("configmaps?dryRun=All", plain), get("configmaps/a"), create("configmaps?dryRun=Some", plain), create("services?dryRun=All", `{metadata: {name: a}, spec: {ports: [{port: 80}]}}`), get("services/a")}},
	{name: "dry-run/update and patch", steps: []step{
		create("configmaps", plain), update("configmaps/a?dryRun=All", `{metadata: {name: a}, data: {k: x}}`), get("configmaps/a"),
		merge("configmaps/a?dryRun=All", `{data: {k: z}}`), strategic("configmaps/a?dryRun=All", `{data: {k: z}}`), jsonPatch("configmaps/a?dryRun=All", `[{op: remove, path: /data/k}]`), get("configmaps/a"),
	}},
	{name: "dry-run/apply", steps: []step{
		apply("one", "configmaps/a?dryRun=All", plain), get("configmaps/a"), apply("one", "configmaps/a", plain),
		apply("two", "configmaps/a?dryRun=All", `{metadata: {name: a}, data: {k: other}}`), apply("two", "configmaps/a?dryRun=All&force=true", `{metadata: {name: a}, data: {k: other}}`), get("configmaps/a"),
	}},
	{name: "dry-run/delete", steps: []step{create("configmaps", plain), del("configmaps/a?dryRun=All"), delWith("configmaps/a", `{dryRun: [All]}`), get("configmaps/a"), del("configmaps/none?dryRun=All"), del("configmaps?dryRun=All&fieldSelector=metadata.name%3Da"), get("configmaps/a")}},
	{name: "dry-run/invalid", steps: []step{create("deployments?dryRun=All", `{metadata: {name: a}, spec: {selector: {matchLabels: {app: b}}, template: `+podTemplate+`}}`), create("widgets?dryRun=All", `{metadata: {name: a}, spec: {size: 99}}`)}},
	{name: "dry-run/subresources", steps: []step{
		create("widgets", `{metadata: {name: a}, spec: {replicas: 2}}`), merge("widgets/a/status?dryRun=All", `{status: {phase: done}}`),
		get("widgets/a/scale"), merge("widgets/a/scale?dryRun=All", `{spec: {replicas: 5}}`), get("widgets/a"),
	}},
	{name: "dry-run/deployment", steps: []step{
		create("deployments?dryRun=All", idle), create("deployments", idle), idleSettled, merge("deployments/a?dryRun=All", `{spec: {template: {spec: {terminationGracePeriodSeconds: 5}}}}`),
		apply("one", "deployments/a?dryRun=All&force=true", `{metadata: {name: a}, spec: {replicas: 3}}`), get("deployments/a"),
	}},
	{name: "dry-run/custom definition", steps: []step{
		merge("customresourcedefinitions/widgets.conform.rutter.dev?dryRun=All", `{metadata: {labels: {x: z}}}`).with("code", "metadata.labels"),
		get("customresourcedefinitions/widgets.conform.rutter.dev").with("metadata.labels", "metadata.generation", "status.storedVersions"),
	}},
}

var applyCases = []scenario{
	{name: "apply/creates and updates", steps: []step{apply("one", "configmaps/a", plain), apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: w, l: x}}`), get("configmaps/a")}},
	{name: "apply/removes what is left out", steps: []step{apply("one", "configmaps/a", `{metadata: {name: a, labels: {x: z}}, data: {k: v, l: w}}`), apply("one", "configmaps/a", `{metadata: {name: a}, data: {l: w}}`), apply("one", "configmaps/a", `{metadata: {name: a}}`)}},
	{name: "apply/two managers apart", steps: []step{apply("one", "configmaps/a", plain), apply("two", "configmaps/a", `{metadata: {name: a}, data: {l: w}}`), apply("one", "configmaps/a", `{metadata: {name: a}}`), get("configmaps/a")}},
	{name: "apply/two managers share", steps: []step{apply("one", "configmaps/a", plain), apply("two", "configmaps/a", plain), apply("one", "configmaps/a", `{metadata: {name: a}}`), apply("two", "configmaps/a", `{metadata: {name: a}}`)}},
	{name: "apply/conflict and force", steps: []step{
		apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: v, l: v}}`), apply("two", "configmaps/a", `{metadata: {name: a}, data: {k: w, l: w}}`),
		apply("two", "configmaps/a?force=true", `{metadata: {name: a}, data: {k: w}}`), apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: v, l: v}}`),
	}},
	{name: "apply/conflict with an update", steps: []step{create("configmaps", plain), apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: w}}`), apply("one", "configmaps/a?force=true", `{metadata: {name: a}, data: {k: w}}`), merge("configmaps/a", `{data: {k: x}}`), apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: w}}`)}},
	{name: "apply/manager is asked for", steps: []step{
		patchAs("application/apply-patch+yaml", "configmaps/a", plain), patchAs("application/apply-patch+yaml", "configmaps/a?fieldManager=", plain),
		merge("configmaps/a?force=true", `{}`), apply("one", "configmaps/a?force=maybe", plain),
	}},
	{name: "apply/bad bodies", steps: []step{
		patchAs("application/apply-patch+yaml", "configmaps/a?fieldManager=one", `metadata: {name: a}`).verbatim("application/apply-patch+yaml"),
		apply("one", "configmaps/a", `{apiVersion: v1, kind: Secret, metadata: {name: a}}`), apply("one", "configmaps/a", `{apiVersion: v2, kind: ConfigMap, metadata: {name: a}}`),
		apply("one", "configmaps/a", `{metadata: {name: a, managedFields: [{manager: x, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {}}]}}`),
		patchAs("application/apply-patch+yaml", "configmaps/a?fieldManager=one", `{{`).verbatim("application/apply-patch+yaml"),
		apply("one", "configmaps/a", `{metadata: {name: a}, data: {k: {not: text}}}`), apply("one", "configmaps/a", `{metadata: {name: a}, nodata: {}}`),
	}},
	{name: "apply/strict fields", steps: []step{
		apply("one", "configmaps/a?fieldValidation=Strict", `{metadata: {name: a}, nodata: {}}`), apply("one", "configmaps/a?fieldValidation=Ignore", `{metadata: {name: a}, nodata: {}}`),
		patchAs("application/apply-patch+yaml", "configmaps/a?fieldManager=one&fieldValidation=Strict", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\ndata: {k: w}\n").verbatim("application/apply-patch+yaml"),
	}},
	{name: "apply/lists by key", steps: []step{
		apply("one", "podtemplates/a", template),
		apply("two", "podtemplates/a", `{metadata: {name: a}, template: {spec: {containers: [{name: third, image: "third:1"}]}}}`),
		apply("two", "podtemplates/a", `{metadata: {name: a}, template: {spec: {containers: [{name: app, image: "app:2"}]}}}`),
		apply("two", "podtemplates/a?force=true", `{metadata: {name: a}, template: {spec: {containers: [{name: app, image: "app:2", env: [{name: C, value: "3"}]}]}}}`),
		apply("one", "podtemplates/a?force=true", `{metadata: {name: a}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: side, image: "side:2"}]}}}`), get("podtemplates/a"),
	}},
	{name: "apply/ports by port and protocol", steps: []step{
		apply("one", "services/a", `{metadata: {name: a}, spec: {ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}`),
		apply("two", "services/a", `{metadata: {name: a}, spec: {ports: [{name: dnst, port: 53, protocol: TCP}]}}`),
		apply("one", "services/a", `{metadata: {name: a}, spec: {ports: [{name: http, port: 80, targetPort: 8080}]}}`),
	}},
	{name: "apply/duplicate keys", steps: []step{apply("one", "podtemplates/a", `{metadata: {name: a}, template: {spec: {containers: [{name: app, image: x}, {name: app, image: z}]}}}`)}},
	{name: "apply/custom lists and sets", steps: []step{
		apply("one", "widgets/a", `{metadata: {name: a}, spec: {tags: [x, z], parts: [{name: p}], atoms: [a, b], any: {free: [1]}}}`),
		apply("two", "widgets/a", `{metadata: {name: a}, spec: {tags: [z], parts: [{name: q, weight: 2}]}}`),
		apply("two", "widgets/a", `{metadata: {name: a}, spec: {atoms: [c]}}`), apply("one", "widgets/a", `{metadata: {name: a}, spec: {tags: [z]}}`),
		apply("two", "widgets/a?force=true", `{metadata: {name: a}, spec: {atoms: [c], parts: [{name: p, weight: 1}]}}`),
	}},
	{name: "apply/custom object conflicts", steps: []step{apply("one", "fleets/$ns", `{metadata: {name: $ns}, spec: {members: [a]}}`), apply("two", "fleets/$ns", `{metadata: {name: $ns}, spec: {members: [b]}}`), apply("two", "fleets/$ns?force=true", `{metadata: {name: $ns}, spec: {members: [b]}}`), del("fleets/$ns")}},
	{name: "apply/status", steps: []step{
		create("widgets", `{metadata: {name: a}, spec: {size: 2}}`), apply("one", "widgets/a/status", `{apiVersion: conform.rutter.dev/v1, kind: Widget, metadata: {name: a, labels: {nope: nope}}, spec: {size: 5}, status: {phase: up}}`),
		apply("two", "widgets/a/status", `{apiVersion: conform.rutter.dev/v1, kind: Widget, metadata: {name: a}, status: {phase: down}}`), apply("one", "widgets/a", `{metadata: {name: a}, spec: {size: 2}, status: {phase: ignored}}`), get("widgets/a"),
	}},
	{name: "apply/takes over from an update", steps: []step{
		create("deployments?fieldManager=kubectl-client", idle), idleSettled, apply("one", "deployments/a?force=true", idle), idleSettled,
		apply("one", "deployments/a", `{metadata: {name: a}, spec: {selector: {matchLabels: {app: a}}, template: `+podTemplate+`}}`), idleSettled,
	}},
	{name: "apply/older version of a kind", steps: []step{
		apply("one", "gadgets/a", `{metadata: {name: a}, spec: {mode: slow}}`),
		apply("one", "/apis/conform.rutter.dev/v1beta1/namespaces/$ns/gadgets/a", `{apiVersion: conform.rutter.dev/v1beta1, kind: Gadget, metadata: {name: a}, spec: {mode: fast}}`), get("gadgets/a"),
	}},
	{name: "apply/clears managed fields", steps: []step{apply("one", "configmaps/a", plain), merge("configmaps/a", `{metadata: {managedFields: [{}]}}`), apply("two", "configmaps/a", `{metadata: {name: a}, data: {k: w}}`), jsonPatch("configmaps/a", `[{op: replace, path: /metadata/managedFields, value: [{}]}]`), update("configmaps/a", `{metadata: {name: a, managedFields: []}, data: {k: x}}`)}},
	{name: "apply/renames a manager", steps: []step{
		apply("one", "configmaps/a", plain), jsonPatch("configmaps/a", `[{op: test, path: /metadata/managedFields/0/manager, value: one}, {op: replace, path: /metadata/managedFields/0/manager, value: two}]`),
		apply("two", "configmaps/a", `{metadata: {name: a}}`),
	}},
	{name: "apply/null and empty", steps: []step{apply("one", "configmaps/a", `{metadata: {name: a, labels: null, annotations: {}}, data: {}}`), apply("one", "configmaps/a", `{metadata: {name: a}, data: null}`), apply("one", "widgets/a", `{metadata: {name: a}, spec: {note: null, tags: []}}`)}},
	{name: "apply/finalizers and owners", steps: []step{
		create("configmaps", `{metadata: {name: owner}}`),
		apply("one", "configmaps/a", `{metadata: {name: a, finalizers: [x.test/one], ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: $uid(configmaps/owner)}]}}`),
		apply("two", "configmaps/a", `{metadata: {name: a, finalizers: [x.test/two]}}`), apply("one", "configmaps/a", `{metadata: {name: a}}`), apply("two", "configmaps/a", `{metadata: {name: a}}`),
	}},
}
