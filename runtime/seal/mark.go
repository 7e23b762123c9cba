package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// markScheme begins a digest that Mark made, and is what its key is derived for.
const markScheme = "hmac-sha256"

// Mark is a digest of text under a key that comes from the one of the state folder:
// for what must be known again in a journal that others may read. The same text has
// the same, of the same about; without the key nobody can try a guess on it.
func (s *Sealer) Mark(about, text string) string {
	h := hmac.New(sha256.New, s.markKey)
	_, _ = fmt.Fprintf(h, "%d %s%s", len(about), about, text) // a hash takes everything
	return markScheme + ":" + hex.EncodeToString(h.Sum(nil))
}
