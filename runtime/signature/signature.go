// Package signature makes and judges SSH signatures of texts, as ssh-keygen -Y
// sign and verify do: the format is PROTOCOL.sshsig of OpenSSH, and who is trusted
// stands in a file of allowed signers (ssh-keygen(1), ALLOWED SIGNERS). It reads no
// files and reaches no agent; its functions are safe for concurrent use.
package signature

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// What a signature fails for.
var (
	ErrUnreadable = errors.New("its signature can't be read")
	ErrOther      = errors.New("the signature is of something else")
	ErrStranger   = errors.New("it is signed by a key that the policy's signers don't have")
	ErrExpired    = errors.New("it is signed with a key that is not valid now")
)

// maxSize bounds a signature, in bytes.
const maxSize = 64 << 10

// Verify finds out which of the signers vouches for a message by an armored
// signature. Without a trusted one the error says why, and is one of the above.
func (s *Signers) Verify(message, armored []byte, now time.Time) (string, error) {
	sig, err := read(armored, s.namespace)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if err := sshsig.Verify(bytes.NewReader(message), sig, sig.PublicKey, sig.HashAlgorithm, s.namespace); err != nil {
		return "", fmt.Errorf("%w: %w", ErrOther, err)
	}
	why := fmt.Errorf("%w: %s", ErrStranger, ssh.FingerprintSHA256(sig.PublicKey))
	for _, k := range s.keys {
		switch {
		case !bytes.Equal(k.key.Marshal(), sig.PublicKey.Marshal()):
		case !k.after.IsZero() && now.Before(k.after), !k.before.IsZero() && !now.Before(k.before):
			why = fmt.Errorf("%w: %s's", ErrExpired, k.who)
		default:
			return k.who, nil
		}
	}
	return "", why
}

func read(armored []byte, namespace string) (*sshsig.Signature, error) {
	if len(armored) > maxSize {
		return nil, errors.New("it is too large")
	}
	sig, err := sshsig.Unarmor(bytes.TrimSpace(armored))
	if err != nil {
		return nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	if sig.Namespace != namespace {
		return nil, fmt.Errorf("it was made for %q, want %q", sig.Namespace, namespace)
	}
	if err := sig.HashAlgorithm.Supported(); err != nil {
		return nil, err
	}
	return sig, nil
}

// Sign makes the armored signature of a message, as ssh-keygen -Y sign -n namespace
// does.
func Sign(key ssh.Signer, namespace string, message []byte) ([]byte, error) {
	sig, err := sshsig.Sign(bytes.NewReader(message), key, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, err
	}
	return sshsig.Armor(sig), nil
}

// Key reads what ssh-keygen -Y sign -f takes: a private key or, with the keys of an
// agent, a public one, or a private one that is encrypted. held asks the agent; it
// is asked only where it is needed, and may be nil.
func Key(data []byte, held func() ([]ssh.Signer, error)) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey(data)
	if err == nil {
		return key, nil
	}
	var public ssh.PublicKey
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		if public = encrypted.PublicKey; public == nil {
			return nil, errors.New("is an encrypted key of an old format, which does not say whose it is")
		}
	} else if public, _, _, _, err = ssh.ParseAuthorizedKey(data); err != nil {
		return nil, errors.New("is no SSH key")
	}
	if held == nil {
		return nil, ErrNoAgent
	}
	keys, err := held()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if bytes.Equal(k.PublicKey().Marshal(), public.Marshal()) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNotHeld, ssh.FingerprintSHA256(public))
}

// Why a key needs an agent and can't be had from one.
var (
	ErrNoAgent = errors.New("is public or encrypted, so that an agent has to sign, and there is none")
	ErrNotHeld = errors.New("is public or encrypted, and the agent does not hold it")
)
