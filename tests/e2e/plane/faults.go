package plane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
)

// KillAPIServer kills the API server as kill -9 does, and returns when it is
// gone. StartAPIServer brings it back on the same store.
func (p *Plane) KillAPIServer() error { return p.kill(apiServer) }

// FreezeAPIServer stops the API server without ending it: connections stay and
// nothing is answered, until ThawAPIServer.
func (p *Plane) FreezeAPIServer() error { return p.signal(apiServer, syscall.SIGSTOP) }

// ThawAPIServer lets the API server run on.
func (p *Plane) ThawAPIServer() error { return p.signal(apiServer, syscall.SIGCONT) }

// FreezeEtcd stops the store without ending it: the API server answers nothing
// that needs it, until ThawEtcd.
func (p *Plane) FreezeEtcd() error { return p.signal(etcd, syscall.SIGSTOP) }

// ThawEtcd lets the store run on.
func (p *Plane) ThawEtcd() error { return p.signal(etcd, syscall.SIGCONT) }

// KillEtcd kills the store as kill -9 does. StartEtcd brings it back with what
// it held.
func (p *Plane) KillEtcd() error { return p.kill(etcd) }

// StartEtcd starts the store after KillEtcd and waits until it is healthy.
func (p *Plane) StartEtcd(ctx context.Context) error { return p.startEtcd(ctx) }

// FreezeControllers stops the controller-manager: nothing rolls out any more.
func (p *Plane) FreezeControllers() error { return p.signal(controllers, syscall.SIGSTOP) }

// ThawControllers lets the controller-manager run on.
func (p *Plane) ThawControllers() error { return p.signal(controllers, syscall.SIGCONT) }

// AwaitReady waits until the API server is ready (again).
func (p *Plane) AwaitReady(ctx context.Context) error {
	client, err := p.httpClient()
	if err != nil {
		return err
	}
	return p.await(ctx, apiServer, "it is ready", func(ctx context.Context) bool {
		return answers(ctx, client, p.URL()+"/readyz", p.state.Tokens[Admin])
	})
}

func (p *Plane) signal(name string, s syscall.Signal) error {
	proc, err := p.process(name)
	if err != nil {
		return err
	}
	return proc.signal(s)
}

func (p *Plane) kill(name string) error {
	proc, err := p.process(name)
	if err != nil {
		return err
	}
	if err := proc.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return proc.end(stopGrace)
}

// Healthy reports every part of the plane that is not running, and an API
// server that is not ready.
func (p *Plane) Healthy(ctx context.Context) error {
	var errs []error
	for _, name := range []string{etcd, apiServer, controllers, scheduler, kwok, nodesim} {
		proc, err := p.process(name)
		if err == nil && !proc.alive() {
			err = fmt.Errorf("%s: %w\n%s", name, ErrGone, p.logTail(name))
		}
		errs = append(errs, err)
	}
	client, err := p.httpClient()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if !answers(ctx, client, p.URL()+"/readyz", p.state.Tokens[Admin]) {
		errs = append(errs, fmt.Errorf("%s: %s/readyz is not %d", apiServer, p.URL(), http.StatusOK))
	}
	return errors.Join(errs...)
}
