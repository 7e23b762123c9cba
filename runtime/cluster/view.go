package cluster

import "k8s.io/client-go/rest"

// ConfigReader is a Reader that can hand its connection to a library with a
// client of its own. The connection lets through only what changes nothing.
type ConfigReader interface {
	Reader
	ReadOnlyConfig() *rest.Config
}

// View is w with its writing methods taken away, for good: what it returns
// cannot be turned back into a Writer.
func View(w Writer) Reader {
	v := view{Reader: w}
	if c, ok := w.(interface{ ReadOnlyConfig() *rest.Config }); ok {
		return configView{view: v, config: c.ReadOnlyConfig}
	}
	return v
}

type view struct{ Reader }

type configView struct {
	view
	config func() *rest.Config
}

// ReadOnlyConfig implements ConfigReader.
func (v configView) ReadOnlyConfig() *rest.Config { return v.config() }
