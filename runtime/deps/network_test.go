package deps

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// served has git's own server give repositories out over https on loopback, with a
// certificate of its own CA. around may stand before it.
func served(t *testing.T, r *gitRepo, around func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + r.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "PATH=" + os.Getenv("PATH")},
	}
	if around != nil {
		h = around(h)
	}
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s
}

// trust has git believe the server's certificate.
func (w *world) trust(s *httptest.Server) {
	w.t.Helper()
	ca := filepath.Join(w.home, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.env["GIT_SSL_CAINFO"] = ca
}

// asks makes the module depend on the commit of a repository at an address.
func (w *world) asks(url, commit string) {
	w.t.Helper()
	w.write(map[string]string{
		"rutter.mod.star": module("main", "1.0.0") + needs("ops", "1.0.0", url, commit),
		"up.star":         "load(\"@ops//ops.star\", \"v\")\n",
	})
}

func (w *world) lockFails(want ...string) error {
	w.t.Helper()
	_, _, err := w.m.LockAll(w.t.Context(), w.module())
	if err == nil {
		w.t.Fatal("locked")
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			w.t.Errorf("got %v, want it to say %q", err, text)
		}
	}
	return err
}

const nowhere = "0123456789abcdef0123456789abcdef01234567"

func TestHTTPS(t *testing.T) {
	r := newRepo(t)
	first := r.version("ops", "1.0.0")
	r.version("ops", "1.1.0") // so that the first is no branch
	s := served(t, r, nil)
	w := newWorld(t)
	url := s.URL + "/.git"

	w.asks(url, first)
	w.lockFails(url, "certificate")

	w.trust(s)
	w.lock()
	files, err := w.load()
	if err != nil || files["@ops//ops.star"] == "" {
		t.Fatalf("got %v: %v", files, err)
	}

	// What the lock has is what it must be, whoever serves it.
	lock := filepath.Join(w.dir, "rutter.lock")
	text, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(text), "sha256:") + len("sha256:")
	other := slices.Clone(text)
	copy(other[at:], strings.Repeat("0", 16))
	if err := os.WriteFile(lock, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = w.m.Fetch(t.Context(), w.module()); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("with another hash: %v", err)
	}
	if err := os.WriteFile(lock, text, 0o600); err != nil {
		t.Fatal(err)
	}

	w.asks(url, nowhere)
	w.lockFails(url, "the repository has no commit "+nowhere)
	w.asks(s.URL+"/none.git", first)
	w.lockFails(s.URL+"/none.git", "not found")
}

// A server of files alone can't give one commit; all of the repository comes then.
func TestHTTPSOfFilesAlone(t *testing.T) {
	r := newRepo(t)
	first := r.version("ops", "1.0.0")
	r.version("ops", "1.1.0")
	r.git("update-server-info")
	s := served(t, r, func(http.Handler) http.Handler { return http.FileServer(http.Dir(r.dir)) })
	w := newWorld(t)
	w.trust(s)
	w.asks(s.URL+"/.git", first)
	w.lock()
	if files, err := w.load(); err != nil || files["@ops//ops.star"] == "" {
		t.Fatalf("got %v: %v", files, err)
	}
}

func TestHTTPSWithCredentials(t *testing.T) {
	r := newRepo(t)
	first := r.version("ops", "1.0.0")
	s := served(t, r, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
			if user, password, _ := q.BasicAuth(); user != "ci" || password != "s3cret" {
				rw.Header().Set("WWW-Authenticate", "Basic realm=git")
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(rw, q)
		})
	})
	w := newWorld(t)
	w.trust(s)
	w.asks(s.URL+"/.git", first)
	w.lockFails("could not read Username") // and asked nobody

	write(t, w.home, map[string]string{".netrc": "machine 127.0.0.1 login ci password s3cret\n"})
	w.lock()
	if _, err := w.load(); err != nil {
		t.Fatal(err)
	}
}

// A repository is where the module says, not where that place sends one.
func TestHTTPSThatLeadsElsewhere(t *testing.T) {
	r := newRepo(t)
	first := r.version("ops", "1.0.0")
	asked := false
	other := served(t, r, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) { asked = true; next.ServeHTTP(rw, q) })
	})
	s := served(t, r, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
			http.Redirect(rw, q, other.URL+q.URL.RequestURI(), http.StatusFound)
		})
	})
	w := newWorld(t)
	w.trust(s)
	w.asks(s.URL+"/.git", first)
	err := w.lockFails(s.URL+"/.git", "leads to another address, which is not followed")
	if asked || !strings.Contains(err.Error(), "302") {
		t.Errorf("the other server was asked: %v; %v", asked, err)
	}
}

// A server that says nothing more is left when the run is, with all that git started.
func TestHTTPSThatHangs(t *testing.T) {
	r := newRepo(t)
	first := r.version("ops", "1.0.0")
	reached, gone := make(chan struct{}), make(chan struct{})
	s := served(t, r, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
			close(reached) // a second request would be a second try
			<-q.Context().Done()
			close(gone)
		})
	})
	w := newWorld(t)
	w.trust(s)
	w.asks(s.URL+"/.git", first)
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-reached; cancel(stop) }()
	_, _, err := w.m.LockAll(ctx, w.module())
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		s.CloseClientConnections() // else its end would be waited for
		t.Error("git's connection is still there")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "rutter.lock")); !os.IsNotExist(err) {
		t.Errorf("a lock file was written: %v", err)
	}
}

// ssh is played by a script that gives what is asked for to a shell, as sshd does.
const standIn = `#!/bin/sh
echo "$@" >> "$HOME/asked"
for last; do :; done
cd "$HOME"
exec sh -c "$last"
`

func TestSSH(t *testing.T) {
	for name, given := range map[string]bool{"of the operator": true, "of PATH": false} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			first := r.version("ops", "1.0.0")
			r.version("ops", "1.1.0")
			w := newWorld(t)
			write(t, w.home, map[string]string{"bin/ssh": standIn})
			if err := os.Chmod(filepath.Join(w.home, "bin/ssh"), 0o700); err != nil {
				t.Fatal(err)
			}
			var want string
			if given {
				w.env["GIT_SSH_COMMAND"] = filepath.Join(w.home, "bin/ssh") + " -i deploy.key"
				want = "-i deploy.key"
			} else {
				w.env["PATH"] = filepath.Join(w.home, "bin") + ":" + w.env["PATH"]
				want = "git.example.com"
			}
			w.asks("ssh://git@git.example.com"+r.dir+"/.git", first)
			w.lock()
			if _, err := w.load(); err != nil {
				t.Fatal(err)
			}
			asked, err := os.ReadFile(filepath.Join(w.home, "asked"))
			if err != nil || !strings.Contains(string(asked), want) || !strings.Contains(string(asked), "git@git.example.com") {
				t.Errorf("ssh was asked %q: %v", asked, err)
			}
			from, err := filepath.Rel(w.home, r.dir)
			if err != nil {
				t.Fatal(err)
			}
			w.asks("git@git.example.com:"+from+"/.git", nowhere)
			if _, _, err := w.m.LockAll(t.Context(), w.module()); err == nil || !strings.Contains(err.Error(), "the repository has no commit "+nowhere) {
				t.Errorf("got %v", err)
			}
		})
	}
}
