package seal

import (
	"fmt"

	"filippo.io/age"
)

// Ephemeral is a sealer whose key is new and kept nowhere: what it seals can
// be opened by this process only. Tests of runbooks use it.
func Ephemeral() (*Sealer, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return sealerOf(id)
}
