// Command release builds what is released: for each platform a binary and an SBOM
// of what the linker says is in it, and the checksums of all. Building the same
// source with the same Go again, in another folder or on another machine, gives the
// same bytes: cgo is off, paths are trimmed, and nothing comes from the clock or
// from git. --twice builds from two copies of the source and compares.
//
//	go run ./tests/release --version 1.0.0 --out bin/release [OS/ARCH…]
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

var platforms = []string{"darwin/amd64", "darwin/arm64", "linux/amd64", "linux/arm64"}

// release is what is built, from the module in root.
type release struct {
	root, pkg, name, version string
	talk                     io.Writer // what go says
	cache                    string    // Go's build cache; "" for the user's own
}

func main() {
	r := release{talk: os.Stderr, name: "rutter"}
	var out string
	var twice bool
	flag.StringVar(&r.root, "root", ".", "folder of the module")
	flag.StringVar(&r.pkg, "package", "./cmd/rutter", "package of the command")
	flag.StringVar(&r.version, "version", "0.0.0", "version of the release")
	flag.StringVar(&out, "out", "bin/release", "folder to write to; what is in it goes")
	flag.BoolVar(&twice, "twice", false, "build twice, from two copies of the source, and compare; by default for this platform")
	flag.Parse()
	wanted := flag.Args()
	run := r.build
	if twice {
		run = r.twice
		if len(wanted) == 0 {
			wanted = []string{runtime.GOOS + "/" + runtime.GOARCH}
		}
	}
	if len(wanted) == 0 {
		wanted = platforms
	}
	sums, err := run(out, wanted)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(sums)
}

// build writes the release into out, and returns its checksums.
func (r *release) build(out string, wanted []string) (string, error) {
	out, err := filepath.Abs(out)
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return "", err
	}
	var sums strings.Builder
	for _, p := range slices.Sorted(slices.Values(wanted)) {
		system, arch, ok := strings.Cut(p, "/")
		if !ok {
			return "", fmt.Errorf("platform %q, want OS/ARCH, one of %s", p, strings.Join(platforms, ", "))
		}
		bin := filepath.Join(out, strings.Join([]string{r.name, r.version, system, arch}, "-"))
		if err := r.compile(bin, system, arch); err != nil {
			return "", err
		}
		info, err := buildinfo.ReadFile(bin)
		if err != nil {
			return "", err
		}
		sbom, err := sbomOf(info, r.name, r.version)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(bin+".cdx.json", sbom, 0o644); err != nil {
			return "", err
		}
		for _, f := range []string{bin, bin + ".cdx.json"} {
			b, err := os.ReadFile(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), filepath.Base(f))
		}
	}
	return sums.String(), os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

func (r *release) compile(bin, system, arch string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X rutter.dev/rutter/cmd/cli.version="+r.version, "-o", bin, r.pkg)
	cmd.Dir = r.root
	// The last of equal names counts. The levels of the processors are Go's defaults.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOWORK=off")
	if r.cache != "" {
		cmd.Env = append(cmd.Env, "GOCACHE="+r.cache)
	}
	cmd.Stdout, cmd.Stderr = r.talk, r.talk
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build for %s/%s: %w", system, arch, err)
	}
	return nil
}

// twice builds from two copies of the source, of which the second is in out
// afterwards, and says where they differ. The second compiles all anew: with the
// build cache of the first it would compare that one's work with itself.
func (r *release) twice(out string, wanted []string) (string, error) {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }() // what is left of it harms nobody
	var sums [2]string
	for i, at := range []string{"one", filepath.Join("another", "deeper")} {
		again := *r
		again.root = filepath.Join(work, at)
		if i > 0 {
			again.cache = filepath.Join(work, "cache")
		}
		if err := copySource(r.root, again.root); err != nil {
			return "", err
		}
		if sums[i], err = again.build(out, wanted); err != nil {
			return "", err
		}
	}
	if sums[0] != sums[1] {
		return "", fmt.Errorf("not reproducible: the same source gave\n%s\nand from another folder\n%s", sums[0], sums[1])
	}
	return sums[1], nil
}

// copySource copies the files that git knows, or where there is no git, all.
func copySource(from, to string) error {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = from
	list, err := cmd.Output()
	if err != nil {
		return os.CopyFS(to, os.DirFS(from))
	}
	for name := range bytes.SplitSeq(bytes.TrimRight(list, "\x00"), []byte{0}) {
		b, err := os.ReadFile(filepath.Join(from, string(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not yet committed
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, string(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			return err
		}
	}
	return nil
}
