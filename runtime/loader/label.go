package loader

import (
	"fmt"
	"path"
	"strings"
)

// stdlib is the prefix of the standard library's labels.
const stdlib = "@stdlib"

// InStdlib reports whether a label is of the standard library, which comes with
// rutter; every other one is of the runbook or what it depends on.
func InStdlib(label string) bool { return strings.HasPrefix(label, stdlib+"//") }

// splitLabel cuts "//a/b.star" into "" and "a/b.star", and
// "@stdlib//x.star" into "@stdlib" and "x.star".
func splitLabel(label string) (library, file string) {
	library, file, _ = strings.Cut(label, "//")
	return library, file
}

// Filename is how positions name a label: the path below the root, or the
// label itself for a library.
func Filename(label string) string { return strings.TrimPrefix(label, "//") }

// IsName reports whether a dependency can be called so: lower-case letters and
// digits, in parts that a dash joins, up to 64 of them.
func IsName(name string) bool {
	if name == "" || len(name) > 64 || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for i, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && name[i-1] != '-' && i < len(name)-1:
		default:
			return false
		}
	}
	return true
}

// Resolve is the label that load(module) means in the module from. It looks at
// no file.
func Resolve(from, module string) (string, error) {
	library, file := splitLabel(from)
	target := ""
	switch {
	case strings.ContainsAny(module, "\\\x00"):
		return "", fmt.Errorf("load path %q holds a character that no module path has", module)
	case strings.HasPrefix(module, "@"):
		lib, rest, ok := strings.Cut(module, "//")
		if !ok || !IsName(lib[1:]) {
			return "", fmt.Errorf("there can be no library %q; a load from one is written \"@name//file.star\", as in load(\"@stdlib//validate.star\", …)", lib)
		}
		library, target = lib, rest
	case strings.HasPrefix(module, "//"):
		target = module[2:]
	case strings.HasPrefix(module, "./"), strings.HasPrefix(module, "../"):
		target = path.Join(path.Dir(file), module)
	case strings.HasPrefix(module, "/"):
		return "", fmt.Errorf("load path %q is absolute; use \"//dir/file.star\" from the runbook root, or \"./file.star\"", module)
	case strings.Contains(module, "://"):
		return "", fmt.Errorf("load path %q is a URL; modules come from the runbook root, @stdlib, or what a dependency(…) in rutter.mod.star declares", module)
	default:
		return "", fmt.Errorf("load path %q does not say where it starts; use \"./%s\" for a file beside this one, or \"//%s\" from the runbook root", module, module, module)
	}
	clean := path.Clean(target)
	switch {
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", fmt.Errorf("load path %q leads outside %s", module, where(library))
	case path.IsAbs(clean) || target == "":
		return "", fmt.Errorf("load path %q names no file", module)
	case !strings.HasSuffix(clean, ".star"):
		return "", fmt.Errorf("load path %q does not end in .star", module)
	}
	return library + "//" + clean, nil
}

func where(library string) string {
	if library == "" {
		return "the runbook root"
	}
	return library
}
