package host

import (
	"errors"

	"go.starlark.net/starlark"
)

// clusterValue is the predeclared name cluster: which cluster the run is on.
// It is filled when the run begins; while the module loads there is none.
type clusterValue struct{ name, uid string }

var _ starlark.HasAttrs = (*clusterValue)(nil)

func (c *clusterValue) set(name, uid string) { c.name, c.uid = name, uid }

// String implements starlark.Value.
func (c *clusterValue) String() string { return "<cluster " + c.name + ">" }

// Type implements starlark.Value.
func (c *clusterValue) Type() string { return "cluster" }

// Freeze implements starlark.Value.
func (c *clusterValue) Freeze() {}

// Truth implements starlark.Value.
func (c *clusterValue) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (c *clusterValue) Hash() (uint32, error) { return 0, errors.New("unhashable type: cluster") }

// AttrNames implements starlark.HasAttrs.
func (c *clusterValue) AttrNames() []string { return []string{"name", "uid"} }

// Attr implements starlark.HasAttrs.
func (c *clusterValue) Attr(name string) (starlark.Value, error) {
	if c.uid == "" {
		return nil, errors.New("cluster: is not known while the module loads; use it inside run(p)")
	}
	switch name {
	case "name":
		return starlark.String(c.name), nil
	case "uid":
		return starlark.String(c.uid), nil
	}
	return nil, nil
}
