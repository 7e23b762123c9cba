package nodesim

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Options say what to run and where.
type Options struct {
	Kubeconfig       string // nodesim's own
	IstiodKubeconfig string // what istiods are given
	Dir              string // where istiods' logs, pid files and working directories go
	Socket           string // of the pod network
	FirstPort        int    // ports for istiods are searched from here
	Exe              string // that runs istiod as "EXE pilot-discovery"
}

// Run runs until ctx ends, and ends every istiod before it returns.
func Run(ctx context.Context, o Options) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("nodesim: %w", err)
	}
	cfg.QPS = -1
	n, err := newNode(o, cfg)
	if err != nil {
		return fmt.Errorf("nodesim: %w", err)
	}
	l, err := net.Listen("unix", o.Socket)
	if err != nil {
		return fmt.Errorf("nodesim: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.network.serve(ctx, l) })
	group.Go(func() error { return n.watch(ctx) })
	err = group.Wait()
	n.running.Wait()
	return err
}

func newNode(o Options, cfg *rest.Config) (*node, error) {
	// It follows every pod: that is dear in JSON, for both sides.
	binary := rest.CopyConfig(cfg)
	binary.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	n := &node{opts: o, client: client, objects: objects, network: &network{pods: map[string]routes{}}, istiods: map[string]*istiod{}, nextPort: o.FirstPort}
	n.mesh = &dataPlane{streams: map[string]context.CancelFunc{}, find: n.discoveryOf}
	return n, nil
}

// watch follows all pods.
func (n *node) watch(ctx context.Context) error {
	f := informers.NewSharedInformerFactoryWithOptions(n.client, 0, informers.WithTransform(func(o any) (any, error) {
		if m, ok := o.(metav1.Object); ok {
			m.SetManagedFields(nil)
		}
		return o, nil
	}))
	seen := func(o any, gone bool) {
		if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = t.Obj
		}
		if p, ok := o.(*corev1.Pod); ok {
			n.see(ctx, p, gone)
			n.mesh.see(ctx, p, gone)
		}
	}
	_, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { seen(o, false) },
		UpdateFunc: func(_, o any) { seen(o, false) },
		DeleteFunc: func(o any) { seen(o, true) },
	})
	if err != nil {
		return err
	}
	f.Start(ctx.Done())
	<-ctx.Done()
	f.Shutdown()
	return nil
}

// note says something in nodesim's log.
func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}
