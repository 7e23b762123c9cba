package nodesim

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"rutter.dev/rutter/tests/e2e/child"
)

// node runs the istiod pods.
type node struct {
	opts     Options
	client   kubernetes.Interface
	objects  dynamic.Interface
	network  *network
	mesh     *dataPlane
	running  sync.WaitGroup
	children child.Starter

	mu       sync.Mutex
	istiods  map[string]*istiod // by pod UID
	nextPort int
	nextIP   int
}

// istiod is one pod with its process.
type istiod struct {
	pod      *corev1.Pod
	ip       string
	ports    map[int]int // of the pod, to those on loopback
	revision string
	stop     context.CancelFunc
	restarts int32

	mu    sync.Mutex
	ready bool
}

// The ports of istiod's container (charts/istio-control/istio-discovery).
const (
	portHTTP       = 8080
	portGRPC       = 15010
	portSecureGRPC = 15012
	portMonitoring = 15014
	portWebhooks   = 15017
)

// isIstiod tells istiod's pods, and leaves to kwok those that a test wants to
// fail.
func isIstiod(p *corev1.Pod) bool {
	if p.Labels["app"] != "istiod" || p.Spec.NodeName == "" {
		return false
	}
	for key := range p.Annotations {
		if key == "sim.rutter.dev/never-ready" || key == "sim.rutter.dev/crash-loop" {
			return false
		}
	}
	return !slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return strings.HasSuffix(c.Image, "-bad") })
}

// see brings the processes in line with a pod's new state.
func (n *node) see(ctx context.Context, p *corev1.Pod, gone bool) {
	if p.Labels["app"] != "istiod" {
		return
	}
	if gone || p.DeletionTimestamp != nil {
		n.end(ctx, p, gone)
		return
	}
	if !isIstiod(p) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.istiods[string(p.UID)] != nil || ctx.Err() != nil {
		return
	}
	i, err := n.place(p)
	if err != nil {
		note("istiod %s: %v", p.Name, err)
		return
	}
	inner, stop := context.WithCancel(ctx)
	i.stop = stop
	n.istiods[string(p.UID)] = i
	n.running.Go(func() { n.keep(inner, i) })
}

// end stops a pod's process; the pod goes when the process has.
func (n *node) end(ctx context.Context, p *corev1.Pod, gone bool) {
	n.mu.Lock()
	i := n.istiods[string(p.UID)]
	delete(n.istiods, string(p.UID))
	n.mu.Unlock()
	switch {
	case i != nil:
		i.stop() // keep removes the pod
	case !gone:
		n.running.Go(func() { n.remove(context.WithoutCancel(ctx), p) })
	}
}

// place gives a pod its address and its ports on loopback.
func (n *node) place(p *corev1.Pod) (*istiod, error) {
	n.nextIP++
	i := &istiod{
		pod: p, ip: fmt.Sprintf("10.80.%d.%d", n.nextIP/250, 1+n.nextIP%250), ports: map[int]int{},
		revision: revision(p),
	}
	r := routes{}
	for _, port := range []int{portHTTP, portGRPC, portSecureGRPC, portMonitoring, portWebhooks} {
		local, err := n.freePort()
		if err != nil {
			return nil, err
		}
		i.ports[port], r[port] = local, loopback(local)
	}
	n.network.add(i.ip, r)
	return i, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (n *node) freePort() (int, error) {
	for range 1000 {
		port := n.nextPort
		n.nextPort++
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port below %d", n.nextPort)
}

func revision(p *corev1.Pod) string {
	if rev := p.Labels["istio.io/rev"]; rev != "" {
		return rev
	}
	return "default"
}

// keep runs a pod's istiod until its context ends, and starts it again when it
// ends by itself.
func (n *node) keep(ctx context.Context, i *istiod) {
	for ctx.Err() == nil {
		err := n.once(ctx, i)
		if ctx.Err() != nil {
			break
		}
		note("istiod %s ended: %v", i.pod.Name, err)
		i.restarts++
		n.report(ctx, i, false, "CrashLoopBackOff")
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
	n.network.remove(i.ip)
	n.remove(context.WithoutCancel(ctx), i.pod)
}

// once runs istiod and reports its readiness until it ends.
func (n *node) once(ctx context.Context, i *istiod) error {
	cmd, err := n.command(ctx, i)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(n.opts.Dir, i.pod.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	if err := n.children.Start(cmd); err != nil {
		return err
	}
	note("istiod %s: pid %d, revision %s, webhooks at %d", i.pod.Name, cmd.Process.Pid, i.revision, i.ports[portWebhooks])
	pidFile := filepath.Join(n.opts.Dir, i.pod.Name+".pid")
	if err := os.WriteFile(pidFile, fmt.Appendf(nil, "%d\n%s\n", cmd.Process.Pid, n.opts.Exe), 0o600); err != nil {
		note("istiod %s: %v", i.pod.Name, err)
	}
	defer os.Remove(pidFile) //nolint:errcheck // gone is what it should be
	probing, stop := context.WithCancel(ctx)
	probed := make(chan struct{})
	go func() { defer close(probed); n.probe(probing, i) }()
	err = cmd.Wait()
	stop()
	<-probed
	i.setReady(false)
	return err
}

// command is istiod with the pod's arguments, its environment, and addresses
// on loopback.
func (n *node) command(ctx context.Context, i *istiod) (*exec.Cmd, error) {
	at := slices.IndexFunc(i.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "discovery" })
	if at < 0 {
		return nil, fmt.Errorf("pod %s has no container discovery", i.pod.Name)
	}
	c := i.pod.Spec.Containers[at]
	dir := filepath.Join(n.opts.Dir, "work-"+i.pod.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := append([]string{"pilot-discovery"}, c.Args...)
	args = append(args,
		"--kubeconfig="+n.opts.IstiodKubeconfig, "--namespace="+i.pod.Namespace,
		"--httpAddr="+loopback(i.ports[portHTTP]), "--httpsAddr="+loopback(i.ports[portWebhooks]),
		"--grpcAddr="+loopback(i.ports[portGRPC]), "--secureGRPCAddr="+loopback(i.ports[portSecureGRPC]),
		"--monitoringAddr="+loopback(i.ports[portMonitoring]), "--ctrlz_port=0", "--ctrlz_address=127.0.0.1", "--shutdownDuration=1s",
	)
	cmd := exec.CommandContext(ctx, n.opts.Exe, args...)
	cmd.Dir, cmd.Env = dir, append(environment(i.pod, c), "GOGC="+os.Getenv("GOGC"), "HOME="+dir, "PATH="+os.Getenv("PATH"), "ISTIOBOX_VERSION="+imageTag(c.Image))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// environment is the container's, as a kubelet gives it. What stands for
// resources is left out: this process shares its machine with others.
func environment(p *corev1.Pod, c corev1.Container) []string {
	fields := map[string]string{
		"metadata.name": p.Name, "metadata.namespace": p.Namespace, "metadata.uid": string(p.UID),
		"spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.nodeName": p.Spec.NodeName,
	}
	var out []string
	for _, e := range c.Env {
		switch {
		case e.Name == "KUBECONFIG":
			// A file that is mounted for remote clusters only.
		case e.ValueFrom == nil:
			out = append(out, e.Name+"="+e.Value)
		case e.ValueFrom.FieldRef != nil:
			out = append(out, e.Name+"="+fields[e.ValueFrom.FieldRef.FieldPath])
		}
	}
	return out
}

func imageTag(image string) string { return image[strings.LastIndex(image, ":")+1:] }

// probe asks the pod's readiness probe.
func (n *node) probe(ctx context.Context, i *istiod) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Timeout: 2 * time.Second}
	url := "http://" + loopback(i.ports[portHTTP]) + "/ready"
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		resp, err := client.Get(url)
		ready := err == nil && resp.StatusCode == http.StatusOK
		if err == nil {
			_ = resp.Body.Close()
		}
		if ready != i.isReady() {
			n.report(ctx, i, ready, "")
		}
	}
}

func (i *istiod) isReady() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ready
}

func (i *istiod) setReady(ready bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ready = ready
}
