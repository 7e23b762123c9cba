package gate

// pages are what rutter explain says of each gate.
func pages() map[Code]Page {
	return map[Code]Page{
		ClusterPinned: {
			Looks:      "the UID of the namespace kube-system, read anew, and the name of the kubeconfig context",
			Thresholds: []Threshold{{"contexts that are never changed", "none", "protectedContexts"}},
			Verdicts:   []Outcome{{Block, "the UID is not the one that the run began on, or the context is protected"}},
			Mend:       "use --context with the context of the run's cluster",
		},
		LockHeld: {
			Looks:    "the Lease rutter in the mesh's namespace, or what is known of it without a request",
			Verdicts: []Outcome{{Block, "another run holds the mesh, or this run's lock ran out"}},
			Mend:     "wait until the other run is over; rutter unlock frees the lock of one that is dead; rutter resume goes on with a run that lost it",
		},
		VersionPath: {
			Looks:      "the image of the control plane that the effect brings, the version that was installed when the run began, the run's target, the API server's version",
			Thresholds: []Threshold{{"minors in place", "1", ""}, {"minors by revision", "2", ""}, {"Kubernetes versions of each Istio minor", "as Istio supports them", ""}},
			Verdicts: []Outcome{
				{Warn, "which Kubernetes versions the target supports is not known to this rutter"},
				{Block, "a downgrade, too many minors at once, another version than the run's target, an image that names no version, a Kubernetes that the target does not support"},
			},
			Mend: "go by the minors in between, or install the target beside the old control plane as a revision; upgrade Kubernetes first",
		},
		PrecheckPassed: {
			Looks:    "the prechecks that this run made",
			Verdicts: []Outcome{{Warn, "the precheck for the target warned"}, {Block, "there is none for the target since the run began, or it had errors"}},
			Mend:     "call istioctl.precheck(version = …) in an earlier step, and mend what it finds",
		},
		BackupCovers: {
			Looks:    "the backups that this run made and verified, and the object's before-image",
			Verdicts: []Outcome{{Block, "mesh configuration is in no verified backup of this run; anything else in neither a backup nor a before-image; a namespace that the run did not make would be deleted"}},
			Mend:     "take a backup first: backup.create(scope = backup.mesh()), which verifies it",
		},
		DryRun: {
			Looks:    "the API server's answer to the same request with dryRun=All",
			Verdicts: []Outcome{{Block, "the API server refuses it, another manager owns a field, or the body is not for the object that the effect is about"}},
			Mend:     "mend the object; adopt = [manager] moves the fields of another manager to rutter once that was reviewed",
		},
		ReviewedDigest: {
			Looks:    "the diffs that this run showed, the approvals, and the digest of the effect",
			Verdicts: []Outcome{{Ask, "mesh configuration is changed without a manifest that could be reviewed"}, {Block, "a manifest was never shown, shown and not approved, or changed since"}},
			Mend:     "diff.live(…) and approve(…) between the rendering and the step that applies",
		},
		"RUT008": {
			Looks:    "the saved plan that the run was begun with",
			Verdicts: []Outcome{{Block, "the effect is not in the plan, or not at its place"}},
			Mend:     "make a new plan, and have it approved",
		},
		CRDSafe: {
			Looks:    "the definition as it is and as it would be, status.storedVersions, and, only where a schema changed or the CRD goes away, the objects of its kind, page by page: each is pruned, given its defaults and validated as the API server does it, CEL rules included",
			Verdicts: []Outcome{{Warn, "stored objects use a field that the new schema prunes; a version is not served any more"}, {Block, "it is deleted while there are objects, loses a version in which objects are stored, or refuses stored objects that the old schema took"}},
			Mend:     "mend the objects that a finding names; migrate the storage before a version is dropped; leave the CRD where it is",
		},
		WebhookSafe: {
			Looks: "all admission webhooks and their failure policies, the Services that answer them, and the ready pods behind those (their EndpointSlices where a Service selects none); for an injection webhook the labels of all namespaces, and those that Istio's analyzer tries",
			Verdicts: []Outcome{
				{Warn, "the webhook that is written is not answered, and was not before; two injection webhooks would select the same pods of a namespace that does not exist yet"},
				{Ask, "the last ready pod behind a webhook is evicted or deleted"},
				{Block, "a webhook that fails closed would have no ready endpoint: by its own change, or because the Deployment, the Service or the namespace behind it goes away; a webhook of the mesh has none when its control plane is to be changed; two injection webhooks select pods of the same namespace"},
			},
			Mend: "bring what answers first, and take webhooks away before what answers them; a webhook of a control plane that is gone is deleted, or pointed at another",
		},
		InUse: {
			Looks:    "injection webhooks and their selectors, labels of namespaces, pod templates, Gateways by revision label, and a census of the running proxies by the revision that injected them; only where a webhook stops selecting, or a control plane goes away",
			Verdicts: []Outcome{{Block, "namespaces, pod templates, Gateways or running proxies use the revision or tag that goes away"}},
			Mend:     "relabel the namespaces, restart their workloads, and remove the revision then",
		},
		ControlPlaneReady: {
			Looks:    "the Deployments of istiod, their versions and whether they are ready",
			Verdicts: []Outcome{{Block, "there is no control plane of the run's target, or one is not ready"}},
			Mend:     "upgrade the control plane in an earlier step, and wait for it",
		},
		Disruption: {
			Looks: "the workload's rollout strategy, PodDisruptionBudgets and how many of their pods are healthy, and what is restarted at the same time; for a control plane that is upgraded and a tag that moves the Deployments that istiod keeps for Gateways, which roll with it",
			Thresholds: []Threshold{
				{"workloads of one wave", "no bound", "maxWave"},
				{"workloads that may lose their only replica", "none", "singleReplicaLeave"},
			},
			Verdicts: []Outcome{
				{Ask, "the rollout, or that of a Gateway's Deployment, takes all replicas down at once; a gateway is deleted; a pod without an owner is evicted"},
				{Block, "a disruption budget would be broken, or a wave, or the number of gateways that roll with a control plane or tag, is larger than the policy lets it be"},
			},
			Mend: "add replicas, let the rollout surge (maxUnavailable: 0), or make the waves smaller",
		},
		HealthKept: {
			Looks: "the Prometheus of the policy, by HTTP, and the pods of the namespaces that the run changes; before the first write, before each wave, and while it rolls and soaks at every interval. A rehearsal asks nobody",
			Thresholds: []Threshold{
				{"bounds of a query", "each has its own", "prometheus.queries, metrics.query(…, max =, min =)"},
				{"time between two looks", "30s", "prometheus.interval, interval of a query"},
				{"containers that restarted since the last wave", "no bound", "thresholds.maxRestarts"},
				{"pods that are not ready, once a wave has settled", "no bound", "thresholds.maxNotReady"},
			},
			Verdicts: []Outcome{
				{Warn, "a rehearsal assumes that a query is within its bounds"},
				{Block, "a series is out of bounds; there is no data, no number or no answer; more containers restarted or pods are not ready than the policy allows"},
			},
			Mend: "find out what hurts the services; rutter rollback undoes what was done, rutter resume goes on once they are well",
		},
		ChangeWindow: {
			Looks:      "the run's clock and the calendar of the policy",
			Thresholds: []Threshold{{"change windows and freezes", "none: any time", "windows, freezes"}, {"warning before a window closes", "none", "warnBefore"}},
			Verdicts:   []Outcome{{Warn, "the window is about to close"}, {Block, "it is outside of every window, or inside a freeze"}},
			Mend:       "wait for the next window; rutter resume goes on then",
		},
		Scope: {
			Looks: "verb, kind, namespace and name of the effective API request",
			Thresholds: []Threshold{
				{"what the runbook says it touches", "anything", "runbook(scope = …)"},
				{"what the organization allows and denies", "anything", "allow, deny"},
			},
			Verdicts: []Outcome{{Block, "it is outside of what the runbook declares, matches a deny rule, or matches no allow rule where there are some"}},
			Mend:     "widen the scope of the runbook and have that reviewed, or ask the owners of the policy",
		},
		"RUT017": {
			Looks:    "what is known of Istio's versions between the installed one and the target, the manifest, and the mesh's configuration",
			Verdicts: []Outcome{{Warn, "a behaviour changes that this mesh relies on"}, {Ask, "an EnvoyFilter is for proxies of the installed version by its number, and not for those of the target"}, {Block, "a field, an API or an EnvoyFilter is used that the target does not have any more"}},
			Mend:     "rutter knowledge diff FROM TO says what to change first",
		},
		Capacity: {
			Looks:      "requests of all pods against what is allocatable on nodes that take the pod (ready, not cordoned, taints, node selector and required node affinity), ResourceQuotas of the namespace, and the size of the workload's running pods, since injection adds to the template. Affinity between pods, volumes and host ports are not looked at",
			Thresholds: []Threshold{{"age of what is known of nodes and pods", "30s, and anew for each forecast", ""}},
			Verdicts: []Outcome{
				{Warn, "only some of the pods by which a rollout surges find room, or none do and it may go on by taking pods down"},
				{Block, "a rollout that takes no pod down before it adds one finds no room for one; a workload that is new or grows finds none for all of its pods"},
			},
			Mend: "free some room, add nodes, raise the quota, or allow the rollout to go down by one pod (maxUnavailable)",
		},
		RootKept: {
			Looks:    "in a run that upgrades, writes of the Secrets cacerts and istio-ca-secret; of istiod's Deployment the variables that choose its CA; of the injector's values caAddress, caName, pilotCertProvider and certSigners; of the mesh configuration ca, caCertificates and trustDomain. A revision that is installed beside another is held against that",
			Verdicts: []Outcome{{Block, "the CA, the way to it or the trust domain would be another"}},
			Mend:     "keep the values that the mesh was installed with; rotate a CA in a run of its own",
		},
		OrganizationRules: {
			Looks:    "the rules that the organization wrote, as Starlark functions over effect and facts",
			Verdicts: []Outcome{{Warn, "a rule warn_… finds something"}, {Ask, "a rule ask_… does"}, {Block, "a rule deny_… does, or a rule fails"}},
			Mend:     "the rule's message says why; its owners are those of the policy",
		},
	}
}
