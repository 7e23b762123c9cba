// Package deps lets runbooks load from other folders and repositories.
//
// A module is a folder with a rutter.mod.star, which names the module and what it
// depends on: folders of the same repository, or git repositories at a commit.
// Lock selects one version of each dependency, the highest of the lowest that
// anybody asks for (minimum version selection), and writes what it is, with a
// digest of its content, into rutter.lock. Open takes what the lock says and
// nothing else, from vendor/, the folder or the cache, without a network: what is
// not there, and what has another digest, is refused.
//
// Nothing of a dependency is executed here, and nothing of it is believed: its
// rutter.mod.star is read as data, its files are read inside of their folder only,
// links are left out, and git is given neither configuration nor a shell.
package deps
