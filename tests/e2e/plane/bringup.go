package plane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// upTimeout bounds each wait while a plane starts; on a quiet machine all of
// it takes six seconds.
const (
	upTimeout = 2 * time.Minute
	pollEvery = 50 * time.Millisecond
)

func (p *Plane) bringUp(ctx context.Context) error {
	if err := p.startEtcd(ctx); err != nil {
		return err
	}
	if err := p.StartAPIServer(ctx); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(p.Config())
	if err != nil {
		return err
	}
	if p.state.Bare {
		return p.letOperatorIn(ctx, client)
	}
	for _, c := range []command{p.controllersCommand(), p.schedulerCommand(), p.nodesimCommand()} {
		if err := p.launch(c); err != nil {
			return err
		}
	}
	if err := p.letOperatorIn(ctx, client); err != nil {
		return err
	}
	if err := p.installKwok(ctx); err != nil {
		return err
	}
	if err := p.makeNodes(ctx, client); err != nil {
		return err
	}
	if err := p.launch(p.kwokCommand()); err != nil {
		return err
	}
	return p.awaitUsable(ctx, client)
}

func (p *Plane) startEtcd(ctx context.Context) error {
	if err := p.launch(p.etcdCommand()); err != nil {
		return err
	}
	return p.await(ctx, etcd, "it is healthy", func(ctx context.Context) bool {
		return answers(ctx, http.DefaultClient, "http://"+loopback(p.state.Ports.Etcd)+"/health", "")
	})
}

// StartAPIServer starts the API server on the plane's store and waits until it
// is ready. It must not be running.
func (p *Plane) StartAPIServer(ctx context.Context) error {
	if err := p.launch(p.apiServerCommand()); err != nil {
		return err
	}
	client, err := p.httpClient()
	if err != nil {
		return err
	}
	return p.await(ctx, apiServer, "it is ready", func(ctx context.Context) bool {
		return answers(ctx, client, p.URL()+"/readyz", p.state.Tokens[Admin])
	})
}

func (p *Plane) httpClient() (*http.Client, error) {
	pem, err := os.ReadFile(p.pki().ca())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: 5 * time.Second}, nil
}

// answers tells whether a GET is answered with 200.
func answers(ctx context.Context, client *http.Client, url, token string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close() //nolint:errcheck // read or not, it's done with
	return resp.StatusCode == http.StatusOK
}

// await polls until a condition holds that one of the plane's processes brings
// about, and gives up at once when that process ends.
func (p *Plane) await(ctx context.Context, name, what string, holds func(context.Context) bool) error {
	proc, err := p.process(name)
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, pollEvery, upTimeout, true, func(ctx context.Context) (bool, error) {
		if holds(ctx) {
			return true, nil
		}
		if !proc.alive() {
			return false, fmt.Errorf("%s ended: %w", name, ErrGone)
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%s: waiting until %s: %w\n%s", name, what, err, p.logTail(name))
	}
	return nil
}

// letOperatorIn binds the operators' group to cluster-admin.
func (p *Plane) letOperatorIn(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: operatorGroup},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: operatorGroup}},
	}, metav1.CreateOptions{})
	return err
}

func (p *Plane) installKwok(ctx context.Context) error {
	crds, err := exec.CommandContext(ctx, p.state.Binaries.Kubebox, "kwok-crds").Output()
	if err != nil {
		return fmt.Errorf("kwok's CRDs: %w", err)
	}
	objs, err := Parse(crds)
	if err != nil {
		return fmt.Errorf("kwok's CRDs: %w", err)
	}
	if err := p.Apply(ctx, "kwok", objs...); err != nil {
		return err
	}
	return p.AwaitCRDs(ctx, objs...)
}

func (p *Plane) makeNodes(ctx context.Context, client kubernetes.Interface) error {
	for i := range p.state.Nodes {
		name := fmt.Sprintf("node-%d", i+1)
		_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
			"topology.kubernetes.io/zone": "zone-" + string(rune('a'+i%3)),
		}}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitUsable waits for what the parts behind the API server bring about.
func (p *Plane) awaitUsable(ctx context.Context, client kubernetes.Interface) error {
	err := p.await(ctx, kwok, "all nodes are ready", func(ctx context.Context) bool {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false
		}
		ready := 0
		for _, n := range nodes.Items {
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return ready == p.state.Nodes
	})
	if err != nil {
		return err
	}
	err = p.await(ctx, controllers, "the default ServiceAccount is there", func(ctx context.Context) bool {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	if err != nil {
		return err
	}
	return p.await(ctx, nodesim, "it listens", func(context.Context) bool {
		_, err := os.Stat(p.socket())
		return err == nil
	})
}
