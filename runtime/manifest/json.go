package manifest

import (
	"bufio"
	"fmt"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"rutter.dev/rutter/runtime/cluster"
)

func newReader(text string) *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }

// decodeObject decodes without requiring a kind, so that validate can name
// what is missing; integers become int64, as everywhere in Kubernetes' own code.
func decodeObject(j []byte, o *cluster.Object) error {
	var x any
	if err := utiljson.Unmarshal(j, &x); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	m, ok := x.(map[string]any)
	if !ok {
		return fmt.Errorf("got %T, want an object with apiVersion and kind: %w", x, ErrInput)
	}
	o.Object = m
	return nil
}
