package seal

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// How a commitment is made. scrypt, as age has it for passphrases, so that whoever
// reads one can't try a dictionary on it; 2^15 takes some 0.1 s and 32 MiB.
const (
	commitScheme = "scrypt"
	commitCost   = 15 // as a power of two
	mostCost     = 18 // of one that is read: more would be an attack on who reads it
	saltSize     = 16
	sumSize      = 32
	blockSize    = 8
)

// ErrCommitment is wrapped by Committed's error about a commitment that is none.
var ErrCommitment = errors.New("is no digest of a secret")

// Commit is a salted digest of secret, by which Committed knows it again, and from
// which nobody else learns it or can tell it from another's that is the same.
func Commit(secret string, random io.Reader) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	sum, err := scrypt.Key([]byte(secret), salt, 1<<commitCost, blockSize, 1, sumSize)
	if err != nil {
		return "", err
	}
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("%s:%d:%s:%s", commitScheme, commitCost, enc(salt), enc(sum)), nil
}

// stretchCost is less than commitCost: a plan's effects are asked for more often.
const stretchCost = 13

// Stretch is a digest of text that takes its time, so that whoever reads it can't
// try a dictionary on what little of text he does not know. about is what it is of,
// and no secret: of another the same text has another.
func Stretch(about, text string) string {
	sum, err := scrypt.Key([]byte(text), []byte(about), 1<<stretchCost, blockSize, 1, sumSize)
	if err != nil {
		panic("seal: scrypt refuses what it costs, which is constant: " + err.Error())
	}
	return commitScheme + ":" + hex.EncodeToString(sum)
}

// Committed reports whether commitment was made of secret.
func Committed(commitment, secret string) (bool, error) {
	f := strings.Split(commitment, ":")
	if len(f) != 4 || f[0] != commitScheme {
		return false, ErrCommitment
	}
	cost, err := strconv.Atoi(f[1])
	if err != nil || cost < 1 || cost > mostCost {
		return false, ErrCommitment
	}
	salt, err := base64.RawStdEncoding.DecodeString(f[2])
	if err != nil || len(salt) != saltSize {
		return false, ErrCommitment
	}
	want, err := base64.RawStdEncoding.DecodeString(f[3])
	if err != nil || len(want) != sumSize {
		return false, ErrCommitment
	}
	sum, err := scrypt.Key([]byte(secret), salt, 1<<cost, blockSize, 1, sumSize)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, want) == 1, nil
}
