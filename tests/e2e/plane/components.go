package plane

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

//go:embed config
var configs embed.FS

// Names of the processes, as in their logs and pid files.
const (
	etcd        = "etcd"
	apiServer   = "kube-apiserver"
	controllers = "kube-controller-manager"
	scheduler   = "kube-scheduler"
	kwok        = "kwok"
	nodesim     = "nodesim"
)

// issuer is who service account tokens are from, and audiences for whom: the
// API server, and istiod's certificate authority.
const (
	issuer    = "https://kubernetes.default.svc"
	audiences = issuer + ",istio-ca"
)

// ran are the controllers that run: those of workloads, and what admission
// and garbage collection need. A name that the controller-manager doesn't know
// makes it exit while the API server's /readyz stays green, which is why Start
// waits for the default ServiceAccount.
var ran = []string{
	"serviceaccount-token-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller",
	"namespace-controller", "garbage-collector-controller", "pod-garbage-collector-controller",
	"deployment-controller", "replicaset-controller", "replicationcontroller-controller", "daemonset-controller", "statefulset-controller",
	"job-controller", "cronjob-controller", "disruption-controller", "horizontal-pod-autoscaler-controller",
	"endpointslice-controller", "endpoints-controller", "node-lifecycle-controller", "taint-eviction-controller",
	"resourcequota-controller", "clusterrole-aggregation-controller", "ttl-after-finished-controller",
	"validatingadmissionpolicy-status-controller",
}

// writeConfigs fills in the configuration files.
func (p *Plane) writeConfigs() error {
	for name, data := range map[string]any{
		"kwok.yaml": nil, "stages.yaml": nil,
		"audit.yaml":  map[string]string{"Level": p.state.AuditLevel},
		"egress.yaml": map[string]string{"Socket": p.socket()},
	} {
		text, err := configs.ReadFile("config/" + name)
		if err != nil {
			return err
		}
		if data != nil {
			t, err := template.New(name).Parse(string(text))
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := t.Execute(&b, data); err != nil {
				return err
			}
			text = b.Bytes()
		}
		if err := os.WriteFile(p.file(name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plane) etcdCommand() command {
	client, peer := "http://"+loopback(p.state.Ports.Etcd), "http://"+loopback(p.state.Ports.EtcdPeer)
	return p.kubebox(etcd,
		"--name=default", "--data-dir="+p.file("etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--quota-backend-bytes=8589934592", "--log-level=warn",
		// The store has to survive kill -9, not a power cut. What is not in its
		// backend yet is in its log.
		"--unsafe-no-fsync", "--backend-batch-interval=1s")
}

func (p *Plane) apiServerCommand() command {
	args := []string{
		"--etcd-servers=http://" + loopback(p.state.Ports.Etcd),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p.state.Ports.API),
		"--tls-cert-file=" + p.pki().path("apiserver.crt"), "--tls-private-key-file=" + p.pki().path("apiserver.key"),
		"--kubelet-certificate-authority=" + p.pki().ca(), "--kubelet-preferred-address-types=InternalIP",
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=" + serviceRange,
		"--token-auth-file=" + p.pki().tokens(), "--authorization-mode=RBAC", "--anonymous-auth=true",
		"--service-account-issuer=" + issuer, "--api-audiences=" + audiences,
		"--service-account-key-file=" + p.pki().signingKey(), "--service-account-signing-key-file=" + p.pki().signingKey(),
		"--enable-priority-and-fairness=true", "--profiling=false", "--allow-privileged=true",
		// Webhooks are called at the address of a ready pod, through nodesim.
		"--enable-aggregator-routing=true", "--egress-selector-config-file=" + p.file("egress.yaml"),
		"--audit-policy-file=" + p.file("audit.yaml"), "--audit-log-path=" + p.AuditLog(), "--audit-log-mode=blocking",
	}
	return p.kubebox(apiServer, append(args, p.state.APIServerArgs...)...)
}

func (p *Plane) controllersCommand() command {
	args := []string{
		"--kubeconfig=" + p.kubeconfigOf(controllers), "--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--service-account-private-key-file=" + p.pki().signingKey(), "--root-ca-file=" + p.pki().ca(),
		"--controllers=" + strings.Join(ran, ","),
		"--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=10",
		// kwok's heartbeats starve where two cores run three planes, or stop with
		// the API server for as long as a test wants it.
		"--node-monitor-grace-period=5m",
	}
	return p.kubebox(controllers, append(args, p.state.ControllerArgs...)...)
}

func (p *Plane) schedulerCommand() command {
	return p.kubebox(scheduler,
		"--kubeconfig="+p.kubeconfigOf(scheduler), "--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--kube-api-qps=500", "--kube-api-burst=1000")
}

func (p *Plane) kwokCommand() command {
	port := p.state.Ports.Kubelet
	return p.kubebox(kwok,
		"--kubeconfig="+p.kubeconfigOf(kwok), "--config="+p.file("kwok.yaml"), "--config="+p.file("stages.yaml"),
		"--node-ip=127.0.0.1", "--node-port="+strconv.Itoa(port), "--server-address="+loopback(port),
		"--tls-cert-file="+p.pki().path("kubelet.crt"), "--tls-private-key-file="+p.pki().path("kubelet.key"),
		"--enable-crds=PortForward,Logs,Exec")
}

func (p *Plane) nodesimCommand() command {
	return command{
		name: nodesim, exe: p.state.Binaries.Istiobox, dir: p.Dir(), env: []string{shortLived},
		args: []string{
			"nodesim", "--kubeconfig=" + p.kubeconfigOf(nodesim), "--istiod-kubeconfig=" + p.kubeconfigOf("istiod"), "--dir=" + p.Dir(),
			"--socket=" + p.socket(), "--first-port=" + strconv.Itoa(p.state.Ports.Istiod),
		},
	}
}

// shortLived makes a process collect garbage a quarter as often: there is memory
// for it, and a plane lives for minutes on very few cores.
const shortLived = "GOGC=400"

func (p *Plane) kubebox(name string, args ...string) command {
	return command{
		name: name, exe: p.state.Binaries.Kubebox, args: append([]string{name}, args...), dir: p.Dir(),
		// kwok keeps its configuration there, and nothing may reach beyond the plane.
		env: []string{"HOME=" + p.Dir(), "KWOK_WORKDIR=" + p.file("kwok"), shortLived},
	}
}

// socket is nodesim's end of the pod network. A Unix socket's path is limited
// to about 100 bytes, so it lies in the directory itself.
func (p *Plane) socket() string { return p.file("net.sock") }

func (p *Plane) file(name string) string { return filepath.Join(p.Dir(), name) }

// logTail is the end of a process's log, for errors.
func (p *Plane) logTail(name string) string {
	b, err := os.ReadFile(p.file(name + ".log"))
	if err != nil {
		return fmt.Sprintf("its log: %v", err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
