package deps

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rutter.dev/rutter/runtime/loader"
)

// Command is one execution of git, never a shell's line.
type Command struct {
	Args  []string
	Env   []string // all of it: nothing is inherited
	Dir   string
	Stdin io.Reader
	// Max bounds what it may print.
	Max int
}

// Runner executes git and gives what it printed. Its error holds what git said.
type Runner func(ctx context.Context, c Command) ([]byte, error)

const (
	fetchTimeout = 5 * time.Minute
	maxListing   = 16 << 20 // bytes of a tree's listing
	maxTalk      = 16 << 10
)

// passed are the variables of the environment by which an operator reaches private
// repositories. Git's configuration is not among them: it could run programs, and
// what is fetched would depend on the machine.
var passed = []string{
	"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSH", "GIT_SSH_VARIANT", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY",
}

// gitEnv is the environment of git: no configuration of the system or the user, no
// prompt, no protocol that runs a helper, no pathspec magic, no attributes.
func gitEnv(getenv func(string) string, dir string) []string {
	env := []string{
		"GIT_DIR=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM=" + os.DevNull, "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=https:ssh:file", "GIT_NO_REPLACE_OBJECTS=1", "GIT_LITERAL_PATHSPECS=1", "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C",
	}
	for _, name := range passed {
		if v := getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// redirected is what git says of a server that sends it elsewhere.
var redirected = regexp.MustCompile(`returned error: 30[12378]\b`)

// repository is a bare git repository of our own, for one fetch: it is made
// without templates, so without hooks, and nothing of the other one's configuration
// gets into it.
type repository struct {
	dir string
	env []string
	run Runner
}

// fetch reads the module in a folder of a repository at a commit.
func (m *Manager) fetch(ctx context.Context, s Source) (_ *Content, err error) {
	if err := errors.Join(ValidURL(s.Git), validPath(s.Folder, false)); err != nil || !validCommit(s.Commit) {
		return nil, fmt.Errorf("%s: is no source: %w", s, err) // the lock file was edited
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("git took longer than %s", fetchTimeout))
	defer cancel()
	dir, err := os.MkdirTemp("", "rutter-git-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &repository{dir: dir, env: gitEnv(m.o.Getenv, dir), run: m.o.Git}
	if err := r.get(ctx, s); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Git, err)
	}
	c, err := r.content(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", s.Git, s.Commit, err)
	}
	return c, nil
}

func (r *repository) git(ctx context.Context, stdin io.Reader, max int, args ...string) ([]byte, error) {
	fixed := []string{
		"-c", "core.hooksPath=" + os.DevNull, "-c", "core.fsmonitor=false", "-c", "core.attributesFile=" + os.DevNull, "-c", "fetch.fsckObjects=true",
		"-c", "transfer.bundleURI=false", "-c", "protocol.version=2", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "credential.helper=",
		"-c", "http.followRedirects=false", "-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60",
	}
	out, err := r.run(ctx, Command{Args: append(fixed, args...), Env: r.env, Dir: r.dir, Stdin: stdin, Max: max})
	if err != nil {
		return nil, fmt.Errorf("git %s: %w", args[0], err)
	}
	return out, nil
}

// get brings the commit here: alone where the server gives it so, else with all
// that its branches and tags have.
func (r *repository) get(ctx context.Context, s Source) error {
	format := "sha1"
	if len(s.Commit) == 64 {
		format = "sha256"
	}
	if _, err := r.git(ctx, nil, maxTalk, "init", "--quiet", "--bare", "--template=", "--object-format="+format); err != nil {
		return err
	}
	fetch := []string{"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"}
	_, err := r.git(ctx, nil, maxTalk, append(fetch, "--depth=1", "--end-of-options", s.Git, s.Commit)...)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		// Servers without protocol 2 refuse what is no branch or tag.
		if _, all := r.git(ctx, nil, maxTalk, append(fetch, "--end-of-options", s.Git, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")...); all != nil {
			if redirected.MatchString(all.Error()) {
				return fmt.Errorf("it leads to another address, which is not followed; name that one in "+loader.ModFile+": %w", all)
			}
			return err
		}
	}
	kind, err := r.git(ctx, nil, maxTalk, "cat-file", "-t", s.Commit)
	if err != nil {
		return fmt.Errorf("the repository has no commit %s: %w", s.Commit, err)
	}
	if got := strings.TrimSpace(string(kind)); got != "commit" {
		return fmt.Errorf("%s is a %s, no commit", s.Commit, got)
	}
	return nil
}

// content reads the regular files of the folder out of the objects. It checks
// nothing out: attributes, filters, links and submodules have no say.
func (r *repository) content(ctx context.Context, s Source) (*Content, error) {
	listing, err := r.git(ctx, nil, maxListing, "ls-tree", "-r", "-z", "-l", "--full-tree", s.Commit)
	if err != nil {
		return nil, err
	}
	prefix := path.Clean(s.Folder) + "/"
	if prefix == "./" {
		prefix = ""
	}
	var names, ids []string
	total := 0
	for entry := range strings.SplitSeq(string(listing), "\x00") {
		meta, name, _ := strings.Cut(entry, "\t")
		f := strings.Fields(meta) // mode, type, object, size
		name, inside := strings.CutPrefix(name, prefix)
		if len(f) != 4 || !inside || !belongs(name) || (f[0] != "100644" && f[0] != "100755") {
			continue
		}
		size, err := strconv.Atoi(f[3])
		if err != nil || size > maxFile {
			return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
		}
		if total += size; len(names) >= 4*maxFiles || total > 4*maxContent {
			return nil, fmt.Errorf("it holds more than a module may (%d files of %d bytes)", maxFiles, maxContent)
		}
		names, ids = append(names, name), append(ids, f[2])
	}
	if len(names) == 0 {
		return nil, errNoModule
	}
	blobs, err := r.git(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), total+len(ids)*200, "cat-file", "--batch")
	if err != nil {
		return nil, err
	}
	files, err := readBatch(blobs, names, ids)
	if err != nil {
		return nil, err
	}
	return newContent(files)
}

// readBatch takes apart what git cat-file --batch prints.
func readBatch(out []byte, names, ids []string) (map[string]*file, error) {
	files := map[string]*file{}
	in := bufio.NewReader(bytes.NewReader(out))
	for i, name := range names {
		head, err := in.ReadString('\n')
		f := strings.Fields(head)
		if err != nil || len(f) != 3 || f[0] != ids[i] || f[1] != "blob" {
			return nil, fmt.Errorf("git gave something else than %s: %q", name, head)
		}
		size, err := strconv.Atoi(f[2])
		if err != nil || size < 0 || size > maxFile {
			return nil, fmt.Errorf("git gave a size of %q for %s", f[2], name)
		}
		data := make([]byte, size+1) // a line end follows
		if _, err := io.ReadFull(in, data); err != nil {
			return nil, fmt.Errorf("git gave less than all of %s: %w", name, err)
		}
		files[name] = &file{data: data[:size]}
	}
	return files, nil
}

// Run is the Runner of the git that is installed.
func Run(ctx context.Context, c Command) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	bin := ""
	for _, e := range c.Env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			bin = find(list)
		}
	}
	if bin == "" {
		return nil, errors.New("there is no git in PATH")
	}
	cmd := exec.CommandContext(ctx, bin, c.Args...) // #nosec G204 -- git, with arguments that were looked at, and no shell between
	cmd.Env, cmd.Dir, cmd.Stdin = c.Env, c.Dir, c.Stdin
	// A session of its own: what git starts to speak to a server ends with it, and
	// nobody prompts at the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	out := &bounded{max: c.Max, full: func() { cancel(fmt.Errorf("it printed more than %d bytes", c.Max)) }}
	said := &bounded{max: maxTalk}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		if cmd.Process != nil { // what heard no SIGTERM
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // there is nobody any more, most often
		}
		return nil, cause
	}
	if err != nil {
		if text := strings.TrimSpace(string(said.kept)); text != "" {
			return nil, errors.New(text)
		}
		return nil, err
	}
	return out.kept, nil
}

// find is the git in the absolute folders of a PATH: never one of the folder that
// somebody happens to be in.
func find(list string) string {
	for _, dir := range strings.Split(list, string(os.PathListSeparator)) {
		if !path.IsAbs(dir) {
			continue
		}
		p := path.Join(dir, "git")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// bounded keeps the first max bytes.
type bounded struct {
	kept []byte
	max  int
	full func()
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	room := max(0, b.max-len(b.kept))
	b.kept = append(b.kept, p[:min(room, len(p))]...)
	if len(p) > room && b.full != nil {
		b.full()
	}
	return len(p), nil
}
