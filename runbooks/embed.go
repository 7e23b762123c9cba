// Package runbooks is the catalogue that comes with rutter.
package runbooks

import "embed"

// FS holds the runbooks by path, "istio/in-place.star". Files that end in
// _test.star are their tests.
//
//go:embed */*.star
var FS embed.FS
