package restart

import (
	"fmt"
	"slices"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

type obstaclesArgs struct {
	Namespaces []string `star:"namespaces" doc:"only these; all if not given"`
}

// obstacle is a workload with a proxy that could not be restarted as it is.
type obstacle struct {
	Workload  string `json:"workload"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Budget    string `json:"budget"`
	Problem   string `json:"problem"`
}

func obstaclesSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[obstaclesArgs]{
		Name: "restart.obstacles", Returns: "list of struct(workload, namespace, name, kind, budget, problem)",
		Doc: `Which workloads with a proxy could not be restarted, whenever they have to be.
A new control plane outdates every proxy. What RUT013 would refuse then, half-way
through an upgrade, can be known before: a rollout that takes more pods down than
a disruption budget bears with all its pods healthy. Nothing is restarted.`,
		Example: `[o.problem for o in restart.obstacles()]`,
		Do: func(c *builtin.Call, a *obstaclesArgs) (any, error) {
			return obstacles(c, a.Namespaces)
		},
	})
}

func obstacles(c *builtin.Call, namespaces []string) ([]obstacle, error) {
	out := []obstacle{}
	owners, err := proxied(c, namespaces)
	if err != nil || len(owners) == 0 {
		return out, err
	}
	budgets, err := mesh.Budgets(c.Ctx, c.Reader, "")
	if err != nil {
		return nil, err
	}
	live := make([]*cluster.Object, len(owners))
	err = each(c, len(owners), func(i int) error {
		o, err := c.Reader.Get(c.Ctx, owners[i])
		if err != nil && !isAbsent(err) {
			return err
		}
		live[i] = o
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, o := range live {
		if o == nil {
			continue
		}
		found, err := held(o, budgets)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// proxied are the workloads with proxies that a restart would roll or evict, in
// the order of the census. ztunnel rolls with its DaemonSet, the gateways that
// istiod keeps with istiod, and nobody brings a bare pod back.
func proxied(c *builtin.Call, namespaces []string) ([]cluster.Ref, error) {
	px, err := mesh.Census(c.Ctx, c.Reader, mesh.CensusOptions{Namespaces: namespaces})
	if err != nil {
		return nil, err
	}
	var out []cluster.Ref
	for _, p := range px {
		rolls := slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "Rollout"}, p.Owner.Kind)
		if rolls && p.Kind != mesh.Ztunnel && p.Labels[mesh.LabelGatewayOwner] == "" && !slices.Contains(out, p.Owner) {
			out = append(out, p.Owner)
		}
	}
	return out, nil
}

// held finds the budgets that do not bear the workload's rollout.
func held(o *cluster.Object, budgets []mesh.Budget) ([]obstacle, error) {
	rollout, err := mesh.RolloutOf(o)
	if err != nil {
		return nil, err
	}
	down := rollout.Unavailable
	if rollout.Manual {
		down = 1 // evicted pod by pod
	}
	var out []obstacle
	ref := cluster.RefOf(o)
	for _, b := range budgets {
		room := max(0, b.Expected-b.Needed)
		if rollout.Replicas == 0 || down <= room || !b.Matches(ref.Namespace, mesh.PodLabels(o)) {
			continue
		}
		out = append(out, obstacle{
			Workload: short(ref), Namespace: ref.Namespace, Name: ref.Name, Kind: ref.Kind, Budget: b.Ref.Name,
			Problem: fmt.Sprintf("%s: its restart takes %d of its pods down, and %s bears %d (%d of %d must stay); add replicas, or let the rollout surge instead (maxUnavailable: 0)",
				ref, down, b.Ref, room, b.Needed, b.Expected),
		})
	}
	return out, nil
}
