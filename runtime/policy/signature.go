package policy

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/signature"
)

// What signatures are made for: ssh-keygen -Y sign -n.
const (
	Namespace     = "rutter-runbook"
	PlanNamespace = "rutter-plan"
)

// ToSign is the text whose signature vouches for a runbook: it names every
// source that the runbook reaches, those of its dependencies included; the standard
// library comes with rutter.
func ToSign(b *loader.Bundle) string {
	own := &loader.Bundle{Entry: b.Entry, Files: maps.Clone(b.Files)}
	maps.DeleteFunc(own.Files, func(label, _ string) bool { return loader.InStdlib(label) })
	return "rutter runbook " + own.Digest() + "\n"
}

// Signed finds out who of the policy's signers vouches for a runbook, by an
// armored SSH signature over ToSign. Without a trusted one that is an error.
func (p *Policy) Signed(b *loader.Bundle, armored []byte, now time.Time) (string, error) {
	who, err := p.signers.Verify([]byte(ToSign(b)), armored, now)
	if errors.Is(err, signature.ErrOther) {
		return "", fmt.Errorf("its signature is not of this runbook and what it loads: %w", err)
	}
	return who, err
}

// PlanSigned finds out who of the policy's planSigners vouches for a saved plan, by
// an armored SSH signature over the bytes of its file. Without a trusted one that is
// an error.
func (p *Policy) PlanSigned(plan, armored []byte, now time.Time) (string, error) {
	who, err := p.planSigners.Verify(plan, armored, now)
	if errors.Is(err, signature.ErrOther) {
		return "", fmt.Errorf("its signature is not of this plan: %w", err)
	}
	return who, err
}

// loadSigners reads the keys by which runbooks and saved plans must be signed.
func (p *Policy) loadSigners() (err error) {
	if p.signers, err = p.signersIn(p.Signers, Namespace); err != nil {
		return err
	}
	p.planSigners, err = p.signersIn(p.PlanSigners, PlanNamespace)
	return err
}

// signersIn reads a file of signers, which is part of the policy.
func (p *Policy) signersIn(name, namespace string) (*signature.Signers, error) {
	if name == "" {
		return nil, nil
	}
	text, info, err := readFile(name)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: name, Problem: "cannot read the allowed signers", Err: err, Changed: "nothing"}
	}
	s, err := signature.ParseSigners(name, text, namespace)
	if err != nil {
		return nil, err
	}
	p.Files, p.Digest = append(p.Files, info), digest(p.Digest, text)
	return s, nil
}
