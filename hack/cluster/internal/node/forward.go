package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dialTimeout bounds the connection to a forward's target, which is on this machine.
const dialTimeout = 5 * time.Second

// Forward is a port on the machine's loopback, and the address in the node that it leads to.
type Forward struct {
	Port   int    `json:"port"`   // 0: any that is free
	Target string `json:"target"` // HOST:PORT; HOST is an IP address or a name that the cluster's DNS knows
}

func (f Forward) String() string { return fmt.Sprintf("127.0.0.1:%d -> %s", f.Port, f.Target) }

// ParseForward reads [PORT:]HOST:PORT.
func ParseForward(arg string) (Forward, error) {
	malformed := fmt.Errorf("forward %q: write PORT:HOST:PORT, for example 8443:10.96.0.20:443 or 0:gateway.edge.svc.cluster.local:443 (0: any free port)", arg)
	local, target, ok := strings.Cut(arg, ":")
	if !ok {
		return Forward{}, malformed
	}
	port, err := strconv.ParseUint(local, 10, 16)
	if err != nil {
		return Forward{}, malformed
	}
	host, targetPort, err := net.SplitHostPort(target)
	if err != nil || host == "" {
		return Forward{}, malformed
	}
	if n, err := strconv.ParseUint(targetPort, 10, 16); err != nil || n == 0 {
		return Forward{}, malformed
	}
	return Forward{Port: int(port), Target: target}, nil
}

// forwarder accepts on sockets of the machine's network and dials in the node's. A socket belongs for ever to the
// network namespace that it was made in, wherever the process is that holds it: this is all that crosses.
type forwarder struct {
	dialer *net.Dialer

	mu  sync.Mutex
	all []Forward
}

func (f *forwarder) add(forward Forward, socket *os.File) error {
	if socket == nil {
		return fmt.Errorf("forward %s came without a socket", forward)
	}
	listener, err := net.FileListener(socket)
	if err := errors.Join(err, socket.Close()); err != nil {
		return fmt.Errorf("forward %s: %w", forward, err)
	}
	f.mu.Lock()
	f.all = append(f.all, forward)
	f.mu.Unlock()
	go f.serve(listener, forward)
	return nil
}

func (f *forwarder) list() []Forward {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

// serve ends with the node, or with a socket that accepts no more, which then is listed no more.
func (f *forwarder) serve(listener net.Listener, forward Forward) {
	for {
		client, err := listener.Accept()
		if err != nil {
			fmt.Fprintf(os.Stderr, "forward %s has ended: %v\n", forward, err)
			_ = listener.Close()
			f.mu.Lock()
			defer f.mu.Unlock()
			f.all = slices.DeleteFunc(f.all, func(other Forward) bool { return other == forward })
			return
		}
		go f.relay(client.(*net.TCPConn), forward.Target)
	}
}

func (f *forwarder) relay(client *net.TCPConn, target string) {
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := f.dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		fmt.Fprintf(os.Stderr, "forward to %s: %v\n", target, err)
		// A reset says "refused" to the client; an orderly end would look like an answer without content.
		_ = client.SetLinger(0)
		return
	}
	server := conn.(*net.TCPConn)
	defer func() { _ = server.Close() }()
	var both sync.WaitGroup
	both.Go(func() { pump(server, client) })
	both.Go(func() { pump(client, server) })
	both.Wait()
}

// pump copies one direction and passes its end on, so that the other direction can still finish.
func pump(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.SetLinger(0)
		_ = to.Close()
		return
	}
	_ = to.CloseWrite()
}
