package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// distance is how long an answer of a server that is elsewhere is on its way, there
// and back: between regions of one continent it is about that, and from a desk more.
const distance = 20 * time.Millisecond

// afar makes the server of a kubeconfig one that is distance away, until the
// returned function is called, and gives the kubeconfig of that.
func afar(ctx context.Context, kubeconfig string) (path string, end func() error, err error) {
	c, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return "", nil, err
	}
	current := c.Contexts[c.CurrentContext]
	if current == nil || c.Clusters[current.Cluster] == nil {
		return "", nil, fmt.Errorf("%s: no cluster in its current context", kubeconfig)
	}
	at := c.Clusters[current.Cluster]
	server, err := url.Parse(at.Server)
	if err != nil {
		return "", nil, fmt.Errorf("%s: server: %w", kubeconfig, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var conns sync.WaitGroup
	conns.Go(func() { accept(l, server.Host, &conns) })
	at.Server = server.Scheme + "://" + l.Addr().String()
	f, err := os.CreateTemp("", "rutter-bench-*.kubeconfig")
	if err != nil {
		return "", nil, errors.Join(err, l.Close())
	}
	end = func() error {
		err := errors.Join(l.Close(), os.Remove(f.Name()))
		conns.Wait() // clients are gone by now, and with them their connections
		return err
	}
	if err := errors.Join(f.Close(), clientcmd.WriteToFile(*c, f.Name())); err != nil {
		return "", nil, errors.Join(err, end())
	}
	return f.Name(), end, nil
}

// accept hands every connection on, until l is closed.
func accept(l net.Listener, to string, conns *sync.WaitGroup) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer from.Close()
			server, err := net.Dial("tcp", to)
			if err != nil {
				return // which its client hears of
			}
			defer server.Close()
			var both sync.WaitGroup
			both.Go(func() { late(server, from) })
			both.Go(func() { late(from, server) })
			both.Wait()
		})
	}
}

// chunk is what was read, and when it may arrive.
type chunk struct {
	data []byte
	due  time.Time
}

// late copies what comes from src to dst half a distance later: as much at a time as
// there is, so that only the way takes longer. It ends both where either ends.
func late(dst, src net.Conn) {
	way := make(chan chunk, 1024)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, 64<<10)
			n, err := src.Read(buf)
			if n > 0 {
				way <- chunk{buf[:n], time.Now().Add(distance / 2)}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range way {
		time.Sleep(time.Until(c.due))
		if _, err := dst.Write(c.data); err != nil {
			break
		}
	}
	_ = dst.Close() // its reader ends, and the other way with it
	_ = src.Close()
	for range way {
	}
}
