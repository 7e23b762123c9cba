package deps

import (
	"context"
	"fmt"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lockfile"
)

// candidate is a version of a dependency that somebody asks for.
type candidate struct {
	Locked
	content *Content
	file    *File
	by      string // who asks, as a person reads it
}

// selection is a minimum version selection under way: every version that anybody
// asks for is looked at, and of each module the highest of them stays. No newer one
// than asked for is ever looked for.
type selection struct {
	m       *Manager
	mod     *Module
	old     Lock
	chosen  map[string]candidate
	visited map[string]candidate // by name and source
}

// LockAll selects a version of everything that the module depends on and writes it,
// with digests, into its lock file. What is not here is fetched; an entry of the old
// lock that stands for the same version must have the same content. It returns the
// old lock and the new.
func (m *Manager) LockAll(ctx context.Context, mod *Module) (was, is Lock, err error) {
	if was, err = ReadLock(mod.LockPath()); err != nil {
		return nil, nil, err
	}
	if is, err = m.selectAll(ctx, mod, was); err != nil {
		return was, nil, err
	}
	if mod.File == nil && len(was) == 0 {
		return was, is, nil
	}
	if err := writeLock(mod.LockPath(), is); err != nil {
		return was, nil, &diag.Error{Subject: mod.LockPath(), Problem: "can't be written", Err: err}
	}
	return was, is, nil
}

func (m *Manager) selectAll(ctx context.Context, mod *Module, old Lock) (Lock, error) {
	out := Lock{}
	if mod.File == nil {
		return out, nil
	}
	if err := m.usable(mod.File); err != nil {
		return nil, err
	}
	s := &selection{m: m, mod: mod, old: old, chosen: map[string]candidate{}, visited: map[string]candidate{}}
	type asked struct {
		by   Source
		name string
		d    Dependency
	}
	var queue []asked
	for _, d := range mod.File.Dependencies {
		queue = append(queue, asked{Source{Path: "."}, loader.ModFile, d})
	}
	for ; len(queue) > 0; queue = queue[1:] {
		a := queue[0]
		c, fresh, err := s.ask(ctx, a.by, a.name, a.d)
		if err != nil {
			return nil, err
		}
		if !fresh {
			continue
		}
		for _, d := range c.file.Dependencies {
			queue = append(queue, asked{c.Source, fmt.Sprintf("@%s %s", c.Name, c.Version), d})
		}
	}
	for _, name := range s.reached() {
		c := s.chosen[name]
		if err := m.usable(c.file); err != nil {
			return nil, err
		}
		if c.Source.Git != "" {
			if err := m.keep(c.content); err != nil {
				return nil, err
			}
		}
		out[name] = c.Locked
	}
	return out, nil
}

// reached are the names that the module comes to through versions that were chosen:
// what only a version that was passed over asks for is not needed.
func (s *selection) reached() []string {
	queue, seen := names(s.mod.File), map[string]bool{}
	var out []string
	for ; len(queue) > 0; queue = queue[1:] {
		if name := queue[0]; !seen[name] {
			seen[name] = true
			out = append(out, name)
			queue = append(queue, names(s.chosen[name].file)...)
		}
	}
	return out
}

// ask takes in what one module asks for. fresh says that this version was not
// looked at before.
func (s *selection) ask(ctx context.Context, by Source, who string, d Dependency) (c candidate, fresh bool, err error) {
	wrong := func(format string, args ...any) (candidate, bool, error) {
		return candidate{}, false, &diag.Error{Code: diag.Usage, Pos: d.Pos, Problem: "dependency " + d.Name + " " + fmt.Sprintf(format, args...), Changed: "nothing"}
	}
	if d.Name == s.mod.File.Name {
		return wrong("is the module that is run, which nothing it depends on may depend on")
	}
	if by != (Source{Path: "."}) && s.mod.replaces(d.Name) {
		by, d.Path, d.Git = Source{Path: "."}, s.mod.path(d.Name), ""
	}
	src, err := s.mod.source(by, d)
	if err != nil {
		return candidate{}, false, err
	}
	key := d.Name + " " + src.String()
	c, seen := s.visited[key]
	if !seen {
		if len(s.visited) >= 3*maxModules {
			return wrong("is more than one can look through: there are %d versions of modules so far", len(s.visited))
		}
		if c, err = s.look(ctx, d, src); err != nil {
			return candidate{}, false, at(d.Pos, err)
		}
		c.by, s.visited[key] = who, c
	}
	switch {
	case src.Git != "" && d.Path == "" && !c.Version.Equal(d.Version):
		return wrong("is of version %s at commit %s, not %s", c.Version, src.Commit, d.Version)
	case d.Version != nil && !compatible(d.Version, c.Version):
		return wrong("is of version %s, and %s asks for %s", c.Version, who, d.Version)
	}
	now, has := s.chosen[d.Name]
	switch {
	case !has:
		if len(s.chosen) >= maxModules {
			return wrong("is one too many: there are more than %d", maxModules)
		}
		s.chosen[d.Name] = c
	case now.Source.origin() != src.origin():
		return wrong("is asked for from two places: %s by %s, %s by %s; %s can settle it by dependency(%q, path = …)", now.Source, now.by, src, who, loader.ModFile, d.Name)
	case !compatible(now.Version, c.Version) && !compatible(c.Version, now.Version):
		return wrong("is asked for in versions that don't go together: %s by %s, %s by %s", now.Version, now.by, c.Version, who)
	case c.Version.Equal(now.Version) && c.Digest != now.Digest:
		return wrong("has the version %s twice, with different content: %s by %s, %s by %s", c.Version, now.Source, now.by, src, who)
	case c.Version.GreaterThan(now.Version):
		s.chosen[d.Name] = c
	}
	return c, !seen, nil
}

// look reads a version: from this machine where the old lock has it, else from its
// folder or repository.
func (s *selection) look(ctx context.Context, d Dependency, src Source) (candidate, error) {
	c := candidate{}
	old, known := s.old[d.Name]
	var err error
	switch {
	case src.Git == "":
		c.content, err = s.mod.folder(src)
	case known && old.Source == src:
		c.content, err = s.m.near(ctx, s.mod, old)
	default:
		c.content, err = s.m.fetch(ctx, src)
	}
	if err != nil {
		code := diag.ExitCode(err)
		if src.Git == "" {
			code = diag.Usage
		}
		return c, &diag.Error{Code: code, Subject: "dependency " + d.Name, Problem: src.String() + " can't be taken", Err: err, Changed: "nothing"}
	}
	if c.file, err = own(d.Name, c.content); err != nil {
		return c, err
	}
	c.Locked = Locked{Name: d.Name, Version: c.file.Version, Digest: c.content.Digest(), Source: src}
	if known && src.Git != "" && old.Version.Equal(c.Version) && old.Digest != c.Digest {
		return c, &diag.Error{
			Code: diag.Usage, Subject: fmt.Sprintf("dependency %s %s", d.Name, c.Version),
			Problem: fmt.Sprintf("is in %s with other content: a version's content does not change", lockfile.Name),
			Expect:  old.Digest + ", not " + c.Digest, Changed: "nothing",
			Next: fmt.Sprintf("find out why; a line that is gone from %s is written anew", lockfile.Name),
		}
	}
	return c, nil
}
