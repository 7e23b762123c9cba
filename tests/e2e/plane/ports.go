package plane

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// firstPort is where the search for free ports begins unless Options say
// otherwise: below the ports that systems give to outgoing connections, so that
// none of those takes a port between its choice and its use.
const firstPort = 21000

// portSpan is how many ports are looked at.
const portSpan = 1000

// loopback is the address of a port on this machine only.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// reservation keeps free ports occupied until the process that gets them starts.
type reservation struct {
	held map[int]net.Listener
}

// reserve takes n free loopback ports, searched from first.
func reserve(first, n int) (*reservation, []int, error) {
	r, ports := &reservation{held: map[int]net.Listener{}}, []int(nil)
	for port := first; port < first+portSpan && len(ports) < n; port++ {
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue // somebody else's
		}
		r.held[port] = l
		ports = append(ports, port)
	}
	if len(ports) < n {
		return nil, nil, errors.Join(fmt.Errorf("ports: %d of %d are free in %d-%d", len(ports), n, first, first+portSpan-1), r.releaseAll())
	}
	return r, ports, nil
}

// release frees ports for their process.
func (r *reservation) release(ports ...int) error {
	var errs []error
	for _, p := range ports {
		if l := r.held[p]; l != nil {
			errs = append(errs, l.Close())
			delete(r.held, p)
		}
	}
	return errors.Join(errs...)
}

func (r *reservation) releaseAll() error {
	var errs []error
	for p := range r.held {
		errs = append(errs, r.release(p))
	}
	return errors.Join(errs...)
}

// free tells whether nobody listens on a loopback port.
func free(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
