package diff

import (
	"errors"
	"fmt"

	"rutter.dev/rutter/runtime/archive"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/event"
)

type backupArgs struct {
	Saved *archive.Backup `star:"saved,positional" doc:"the backup"`
}

func backupSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[backupArgs]{
		Name:    "diff.backup",
		Doc:     "Compares a backup with the cluster as it is: what changed since, and what is gone. Objects that came later are not looked for.",
		Example: `diff.backup(saved).changed`,
		Returns: "diff",
		Do: func(c *builtin.Call, a *backupArgs) (any, error) {
			entries, err := archive.Read(a.Saved, c.Blobs, c.Run.Secrets)
			if err != nil {
				return nil, err
			}
			var items []Item
			for i, e := range entries {
				live, err := c.Reader.Get(c.Ctx, e.Ref)
				if err != nil && !errors.Is(err, cluster.ErrNotFound) && !errors.Is(err, cluster.ErrNoKind) {
					return nil, fmt.Errorf("%s: %w", e.Ref, err)
				}
				it, err := compared(e.Ref, e.Object, live)
				if err != nil {
					return nil, err
				}
				if it != nil {
					items = append(items, *it)
				}
				if i%100 == 99 {
					c.Progress(i+1, len(entries), "comparing with the backup")
				}
			}
			r := finish("since the backup", items, nil)
			c.Emit(&event.Diff{ID: r.ID, Title: r.Title, Text: r.Text})
			return r, nil
		},
	})
}
