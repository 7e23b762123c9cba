package backup

import (
	"errors"
	"fmt"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"

	"rutter.dev/rutter/runtime/archive"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/mesh"
)

// parallel bounds the lists in flight.
const parallel = 8

type createArgs struct {
	Scope *Scope `star:"scope,positional,optional" doc:"what to back up; backup.mesh() without it"`
}

func createSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[createArgs]{
		Name: "backup.create",
		Doc: "Backs up the mesh, reads the backup back and compares every checksum before it counts as verified.\n" +
			"Secrets are encrypted with the run's age key. Without a key they are left out, named, and not covered: changing one is then refused.",
		Example: `saved = step("back up", backup.create, scope = backup.mesh())`,
		Returns: "backup with count, digest, left_out, sealed, restore",
		Do: func(c *builtin.Call, a *createArgs) (any, error) {
			if a.Scope == nil {
				a.Scope = &Scope{Workloads: true}
			}
			return create(c, a.Scope)
		},
	})
}

func create(c *builtin.Call, scope *Scope) (*archive.Backup, error) {
	objs, err := collect(c, scope)
	if err != nil {
		return nil, err
	}
	uid, err := c.Reader.UID(c.Ctx)
	if err != nil {
		return nil, err
	}
	b, err := archive.Write(objs, uid, c.Run.ID, c.Blobs, c.Run.Secrets)
	if err != nil {
		return nil, err
	}
	for _, ref := range b.Left {
		c.Emit(&event.Log{Level: "warn", Message: ref.String() + ": left out of the backup: the run has no age key to encrypt it"})
	}
	return b, verify(c, b)
}

// verify reads b back and, when all is as it was written, establishes that the
// run has a verified backup.
func verify(c *builtin.Call, b *archive.Backup) error {
	entries, err := archive.Read(b, c.Blobs, c.Run.Secrets)
	if err != nil {
		return err
	}
	covers := make(map[string]string, len(entries))
	for _, e := range entries {
		covers[e.Ref.ID()] = e.Digest
	}
	c.Note(effect.Fact{Backup: &effect.Backup{Digest: b.Digest, Verified: true, Covers: covers}})
	return nil
}

// collect lists everything in the scope, sorted by identity.
func collect(c *builtin.Call, scope *Scope) ([]*cluster.Object, error) {
	all, err := c.Reader.Resources(c.Ctx)
	if err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	sel := &selection{scope: scope, selectors: mesh.BackupScope()}
	if sel.systems, err = systems(c); err != nil {
		return nil, err
	}
	var resources []cluster.Resource
	for _, res := range all {
		if sel.lists(res) {
			resources = append(resources, res)
		}
	}
	var mu sync.Mutex
	found, done := map[string]*cluster.Object{}, 0
	g, ctx := errgroup.WithContext(c.Ctx)
	g.SetLimit(parallel)
	for _, res := range resources {
		g.Go(func() error {
			err := c.Reader.List(ctx, res, cluster.ListOptions{}, func(o *cluster.Object) error {
				if !sel.takes(res, o) {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				found[cluster.RefOf(o).ID()] = o
				return nil
			})
			if err != nil {
				return fmt.Errorf("back up %s: %w", res, err)
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	c.Progress(done, len(resources), fmt.Sprintf("%d objects read", len(found)))
	objs := make([]*cluster.Object, 0, len(found))
	for _, o := range found {
		objs = append(objs, o)
	}
	sort.Slice(objs, func(i, j int) bool { return cluster.RefOf(objs[i]).ID() < cluster.RefOf(objs[j]).ID() })
	return objs, nil
}

// systems finds the namespaces that hold a control plane.
func systems(c *builtin.Call) (map[string]bool, error) {
	out := map[string]bool{"istio-system": true}
	res, err := c.Reader.Resolve(c.Ctx, "deployments.apps")
	if errors.Is(err, cluster.ErrNoKind) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	err = c.Reader.List(c.Ctx, res, cluster.ListOptions{Labels: "app=istiod", MetadataOnly: true}, func(o *cluster.Object) error {
		out[o.GetNamespace()] = true
		return nil
	})
	return out, err
}

type savedArgs struct {
	Saved *archive.Backup `star:"saved,positional" doc:"the backup"`
}

func verifySpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[savedArgs]{
		Name:    "backup.verify",
		Doc:     "Reads a backup back and recomputes every checksum. A damaged one is an error.",
		Example: `backup.verify(saved)`,
		Returns: "int: how many objects it holds",
		Do: func(c *builtin.Call, a *savedArgs) (any, error) {
			return a.Saved.Count, verify(c, a.Saved)
		},
	})
}

func listSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[savedArgs]{
		Name:    "backup.list",
		Doc:     "Lists what a backup holds.",
		Example: `[o.name for o in backup.list(saved) if o.kind == "VirtualService"]`,
		Returns: "list of object with kind, group, namespace, name, digest",
		Do: func(c *builtin.Call, a *savedArgs) (any, error) {
			entries, err := archive.Read(a.Saved, c.Blobs, c.Run.Secrets)
			if err != nil {
				return nil, err
			}
			out := make([]any, len(entries))
			for i, e := range entries {
				out[i] = map[string]any{"kind": e.Ref.Kind, "group": e.Ref.Group, "namespace": e.Ref.Namespace, "name": e.Ref.Name, "digest": e.Digest}
			}
			return out, nil
		},
	})
}
