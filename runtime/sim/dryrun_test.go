package sim_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/sim"
)

// Clients say in the body of a deletion, not in the address, that it is a dry
// run: the log must know, and a fault that is for live requests must let it pass.
func TestDryRunOfADeletion(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	must(t)(cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	c.ClearRequests()
	c.Inject(sim.Fault{Verb: "delete", Kind: sim.FaultConflict, LiveOnly: true})
	if err := cm.Delete(ctx, "a", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("the dry run was struck: %v", err)
	}
	if err := cm.Delete(ctx, "a", metav1.DeleteOptions{}); err == nil {
		t.Error("the live request was not struck")
	}
	log := c.Requests()
	if len(log) != 2 || !log[0].DryRun || log[1].DryRun {
		t.Errorf("request log: %+v", log)
	}
}
