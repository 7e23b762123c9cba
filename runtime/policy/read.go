package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/signature"
	"rutter.dev/rutter/runtime/toolchain"
)

// Name is what a policy file is called where none is named.
const Name = "rutter.yaml"

// maxFile bounds a policy file, in bytes.
const maxFile = 1 << 20

// Policy is a policy that was read.
type Policy struct {
	gate.Policy
	// Path is the file as it was named.
	Path string
	// Zone is the file's own, by which times are shown; nil where it names none.
	Zone *time.Location
	// Toolchain says from where istioctl may be fetched.
	Toolchain toolchain.Rules
	// Recipients are age's public keys ("age1…") that Secrets in journals and
	// backups are sealed to, beside the key of the machine that runs.
	Recipients []string
	// Rules are the names of the organization's rules, in the order in which
	// they judge.
	Rules []string
	// Files are the policy and everything that its rules consist of: what no
	// runbook may load.
	Files []fs.FileInfo

	signers, planSigners *signature.Signers
}

// Options say how rules are interpreted.
type Options struct {
	// Predeclared are the names that rules have beside Starlark's own: functions
	// of their arguments only.
	Predeclared starlark.StringDict
	Stdlib      fs.FS
	Limits      interp.Limits // of each call of a rule; zero means DefaultSteps
}

// Parse reads the text of a policy without rules: those of a test, which names
// no files. The error joins everything that is wrong, each a *diag.Error with
// its position in name.
func Parse(name, text string) (*Policy, error) {
	p, rules, err := parse(name, text)
	if err == nil && len(rules) > 0 {
		d := newDocument(name, text)
		d.fail(rules[0].at, "rules come with a file only", "a policy file beside which they are")
		err = d.err()
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func parse(name, text string) (*Policy, []named, error) {
	if len(text) > maxFile {
		return nil, nil, diag.Usagef(name, "is larger than %d bytes", maxFile)
	}
	d := newDocument(name, text)
	f := &file{}
	f.policy.Calendar.Warn = defaultWarn
	if root := d.parse(text); root != nil {
		f = d.read(root)
	}
	if err := d.err(); err != nil {
		return nil, nil, err
	}
	f.policy.Digest = digest(text)
	return &Policy{Policy: f.policy, Path: name, Zone: f.zone, Toolchain: f.toolchain, Recipients: f.recipients}, f.rules, nil
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p) // a hash takes everything
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// ReadFile reads a policy file alone, without the rules and signers that it names:
// for what runs no runbook. Every problem of the file is in the error.
func ReadFile(name string) (*Policy, error) {
	text, _, err := readFile(name)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: name, Problem: "cannot read the policy", Err: err, Changed: "nothing"}
	}
	p, _, err := parse(name, text)
	return p, err
}

// Read reads a policy file and its rules, which it finds in the file's folder
// only. Every problem of the file is in the error, which asks for exit code 2.
func Read(ctx context.Context, name string, o Options) (*Policy, error) {
	text, info, err := readFile(name)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: name, Problem: "cannot read the policy", Err: err, Changed: "nothing"}
	}
	p, rules, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	p.Files = []fs.FileInfo{info}
	p.resolve(filepath.Dir(name))
	if err := p.loadSigners(); err != nil {
		return nil, err
	}
	if len(rules) == 0 {
		return p, nil
	}
	if err := p.loadRules(ctx, newDocument(name, text), rules, o); err != nil {
		return nil, err
	}
	return p, nil
}

// readFile reads no pipe, socket or device: opening one may wait for ever for
// somebody at its other end.
func readFile(name string) (text string, info fs.FileInfo, err error) {
	if info, err = os.Stat(name); err != nil {
		return "", nil, err
	}
	if m := info.Mode(); !m.IsRegular() && !m.IsDir() { // a folder says so itself when it is read
		return "", nil, errors.New("it is no file, but a pipe, a socket or a device")
	}
	f, err := os.Open(name)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err = f.Stat(); err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return string(b), info, err
}

// resolve makes the files that the policy names ones that are found from
// anywhere.
func (p *Policy) resolve(dir string) {
	files := []*string{&p.Signers, &p.PlanSigners}
	if p.Prometheus != nil {
		files = append(files, &p.Prometheus.TokenFile, &p.Prometheus.CAFile)
	}
	for i := range p.Notify {
		files = append(files, &p.Notify[i].URLFile)
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
}

// loadRules loads the rules from the policy's folder.
func (p *Policy) loadRules(ctx context.Context, d *document, rules []named, o Options) error {
	dir := filepath.Dir(p.Path)
	all := &organization{limits: o.Limits}
	parts := []string{p.Digest}
	for _, r := range rules {
		if err := reachable(dir, r.text); err != nil {
			d.fail(r.at, fmt.Sprintf("%q can't be read: %v", r.text, err), "a .star file in the policy's folder")
			continue
		}
		m, err := loadRuleFile(ctx, dir, r.text, o)
		if err != nil {
			d.errs = append(d.errs, placed(dir, err))
			continue
		}
		found, err := rulesOf(m)
		if err != nil {
			d.errs = append(d.errs, placed(dir, err))
			continue
		}
		all.rules = append(all.rules, found...)
		parts = append(parts, m.Bundle.Digest())
		files, err := statAll(dir, m.Bundle)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, files...)
	}
	if err := errors.Join(d.errs...); err != nil {
		return err
	}
	for _, r := range all.rules {
		p.Rules = append(p.Rules, r.name)
	}
	p.Organization, p.Digest = all, digest(parts...)
	return nil
}

// reachable looks for a file inside dir, where no link leads out of it.
func reachable(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // read only: nothing can be lost
	_, err = root.Stat(filepath.FromSlash(name))
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err // which file is said already
	}
	return err
}

func loadRuleFile(ctx context.Context, dir, name string, o Options) (*interp.Loaded, error) {
	l, err := loader.Dir(dir, name, o.Stdlib, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }() // read only: nothing can be lost
	return interp.LoadModule(ctx, l, o.Predeclared, o.Limits, nil)
}

// statAll identifies the files of a bundle, those of libraries left out.
func statAll(dir string, b *loader.Bundle) ([]fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // read only: nothing can be lost
	var out []fs.FileInfo
	for label := range b.Files {
		if label[0] == '@' {
			continue
		}
		info, err := root.Stat(filepath.FromSlash(loader.Filename(label)))
		if err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: loader.Filename(label), Problem: "cannot be identified", Err: err}
		}
		out = append(out, info)
	}
	return out, nil
}

// placed makes the position of an error in a rule one that a person can open.
func placed(dir string, err error) error {
	d, ok := err.(*diag.Error)
	if !ok || d.Pos.File == "" || d.Pos.File[0] == '@' {
		return err
	}
	cp := *d
	cp.Pos.File = filepath.Join(dir, filepath.FromSlash(d.Pos.File))
	return &cp
}
