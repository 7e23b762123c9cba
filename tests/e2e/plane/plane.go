package plane

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"rutter.dev/rutter/tests/e2e/child"
)

// Options say what plane to start. The zero value of everything but Binaries
// is a plane of three nodes in a directory that Stop removes.
type Options struct {
	Binaries Binaries
	// Dir holds the plane's state; it must be empty or absent. Its path is
	// limited to 90 bytes (see socket). Empty means a new temporary directory.
	Dir string
	// Nodes is how many nodes there are; 3 when 0.
	Nodes int
	// FirstPort is where the search for free ports begins; 21000 when 0.
	FirstPort int
	// Detached processes outlive this process; by default they die with it.
	Detached bool
	// AuditLevel is Metadata (the default), Request or RequestResponse.
	AuditLevel string
	// Bare leaves everything out but the store and the API server: nodes, pods
	// and what controllers bring about are what Fill puts there.
	Bare bool
	// APIServerArgs and ControllerArgs are further flags.
	APIServerArgs, ControllerArgs []string
}

// Plane is a running control plane. Its methods may be called by several
// goroutines, but those that stop or start something only by one at a time.
type Plane struct {
	state   state
	dir     string
	temp    bool // dir was made by Start
	starter child.Starter

	mu       sync.Mutex // guards what follows
	started  map[string]*process
	stopping bool // nothing is started again
}

// state is what another process has to know to stop the plane or to use it.
type state struct {
	Binaries                      Binaries
	Ports                         ports
	Nodes                         int
	Detached, Bare                bool
	AuditLevel                    string
	APIServerArgs, ControllerArgs []string
	Tokens                        map[string]string // by user
}

type ports struct {
	Etcd, EtcdPeer, API, Kubelet int
	Istiod                       int // the first of those that nodesim chooses from
}

// Users of a plane, beside its own parts. Admin is of system:masters: RBAC and
// priority and fairness don't hold it up. Operator is who runbooks are run as:
// bound to cluster-admin by RBAC, fairly queued, and audited.
const (
	Admin    = "admin"
	Operator = "operator"
)

const operatorGroup = "rutter:operators"

func groups() map[string]string {
	return map[string]string{
		Admin: "system:masters", Operator: operatorGroup,
		controllers: "system:masters", scheduler: "system:masters", kwok: "system:masters", nodesim: "system:masters", "istiod": "system:masters",
	}
}

// Start starts a plane and waits until it can be used: the API server is
// ready, nodes are, and the controllers have made the default ServiceAccount.
// After an error nothing is left running; the error names the part that failed
// and the end of its log.
func Start(ctx context.Context, o Options) (*Plane, error) {
	p := &Plane{dir: o.Dir, started: map[string]*process{}}
	if err := p.begin(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("plane: %w", err), p.Stop())
	}
	return p, nil
}

func (p *Plane) begin(ctx context.Context, o Options) error {
	if err := p.makeDir(); err != nil {
		return err
	}
	reserved, free, err := reserve(cmp.Or(o.FirstPort, firstPort), 4)
	if err != nil {
		return err
	}
	p.state = state{
		Binaries: o.Binaries, Nodes: cmp.Or(o.Nodes, 3), Detached: o.Detached, Bare: o.Bare, AuditLevel: cmp.Or(o.AuditLevel, "Metadata"),
		Ports:         ports{Etcd: free[0], EtcdPeer: free[1], API: free[2], Kubelet: free[3], Istiod: free[3] + 1},
		APIServerArgs: o.APIServerArgs, ControllerArgs: o.ControllerArgs, Tokens: map[string]string{},
	}
	if err := p.prepare(); err != nil {
		return errors.Join(err, reserved.releaseAll())
	}
	if err := reserved.releaseAll(); err != nil {
		return err
	}
	return p.bringUp(ctx)
}

func (p *Plane) makeDir() error {
	if p.dir == "" {
		dir, err := os.MkdirTemp("", "rutter-e2e-")
		p.dir, p.temp = dir, true
		return err
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return err
	}
	p.dir = dir
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		return fmt.Errorf("directory %s is not empty; stop the plane that is in it first", dir)
	}
	if len(p.socket()) > 100 {
		return fmt.Errorf("directory %s: its name is too long for a socket in it", dir)
	}
	return os.MkdirAll(dir, 0o700)
}

// prepare writes keys, configuration, kubeconfigs and the state.
func (p *Plane) prepare() error {
	var users []user
	for name, group := range groups() {
		token, err := randomToken()
		if err != nil {
			return err
		}
		p.state.Tokens[name] = token
		users = append(users, user{name, group, token})
	}
	if err := p.pki().create(users); err != nil {
		return err
	}
	for name, token := range p.state.Tokens {
		if err := p.writeKubeconfig(p.kubeconfigOf(name), name, token); err != nil {
			return err
		}
	}
	if err := p.writeConfigs(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(p.state, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(p.file("plane.json"), b, 0o600)
}

// Open returns the plane that another process started in dir and left running.
func Open(dir string) (*Plane, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &Plane{dir: dir, started: map[string]*process{}}
	b, err := os.ReadFile(p.file("plane.json"))
	if err != nil {
		return nil, fmt.Errorf("plane: no plane in %s: %w", dir, err)
	}
	if err := json.Unmarshal(b, &p.state); err != nil {
		return nil, fmt.Errorf("plane: %s: %w", p.file("plane.json"), err)
	}
	return p, nil
}

// Dir is where the plane keeps its state and the logs of its processes.
func (p *Plane) Dir() string { return p.dir }

// URL is the API server's.
func (p *Plane) URL() string { return "https://" + loopback(p.state.Ports.API) }

// EtcdURL is the store's client address, for tests that compact its history.
func (p *Plane) EtcdURL() string { return "http://" + loopback(p.state.Ports.Etcd) }

// Kubeconfig is the path of a kubeconfig for the Operator, for what is tested.
func (p *Plane) Kubeconfig() string { return p.kubeconfigOf(Operator) }

// AdminKubeconfig is the path of a kubeconfig for Admin, for what tests do
// themselves.
func (p *Plane) AdminKubeconfig() string { return p.kubeconfigOf(Admin) }

func (p *Plane) kubeconfigOf(user string) string { return p.file(user + ".kubeconfig") }

// KubeconfigFor writes a kubeconfig with a token and returns its path. The
// name, that of a file, is also its user's.
func (p *Plane) KubeconfigFor(name, token string) (string, error) {
	path := p.kubeconfigOf(name)
	return path, p.writeKubeconfig(path, name, token)
}

func (p *Plane) writeKubeconfig(path, name, token string) error {
	ca, err := os.ReadFile(p.pki().ca())
	if err != nil {
		return err
	}
	return clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "e2e",
		Clusters:       map[string]*clientcmdapi.Cluster{"e2e": {Server: p.URL(), CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"e2e": {Cluster: "e2e", AuthInfo: name}},
	}, path)
}

// Config is Admin's client configuration, without client-side throttling.
func (p *Plane) Config() *rest.Config {
	return &rest.Config{
		Host: p.URL(), BearerToken: p.state.Tokens[Admin], QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: p.pki().ca()},
		UserAgent:       "rutter-e2e",
	}
}

func (p *Plane) pki() pki { return pki{p.file("pki")} }

// launch starts one of the plane's processes.
func (p *Plane) launch(c command) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	proc, err := start(&p.starter, p.dir, c, p.state.Detached)
	if err != nil {
		return err
	}
	p.started[c.name] = proc
	if p.toKeep(c.name) {
		go p.keep(c, proc)
	}
	return nil
}

// process is one of the plane's processes, whoever started it.
func (p *Plane) process(name string) (*process, error) {
	p.mu.Lock()
	proc := p.started[name]
	p.mu.Unlock()
	if proc != nil {
		return proc, nil
	}
	return findProcess(p.dir, name)
}

// stopGrace is how long processes have to end by themselves.
const stopGrace = 5 * time.Second
