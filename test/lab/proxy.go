package lab

import (
	"net"
	"sync"
)

// Proxy is a TCP proxy in front of a server, for what networks do to connections.
type Proxy struct {
	// Address is where it listens.
	Address string

	target string
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	count  int
	// silent is the last connection that swallows everything, by number.
	silent int
	// refusing closes new connections at once.
	refusing bool
}

// StartProxy starts a proxy in front of target (host:port).
func StartProxy(t T, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	p := &Proxy{Address: listener.Addr().String(), target: target, open: map[net.Conn]struct{}{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		serving.Wait()
	})
	return p
}

// Cut severs every open connection, whatever is under way on it.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.Close()
	}
}

// Silence makes the open connections swallow everything from now on, as a peer does whose node lost power. New
// connections work.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = p.count
}

// Refuse severs every open connection, and has new ones severed at once, as long as refuse is true: the server is away.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	p.refusing = refuse
	p.mu.Unlock()
	p.Cut()
}

// Connections is how many connections there have been.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target) //nolint:noctx // loopback
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	if p.refusing {
		p.mu.Unlock()
		_, _ = client.Close(), server.Close()
		return
	}
	p.count++
	number := p.count
	p.open[client], p.open[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var copying sync.WaitGroup
	copying.Go(func() { p.copy(number, client, server) })
	copying.Go(func() { p.copy(number, server, client) })
	copying.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, client)
	delete(p.open, server)
}

// copy passes bytes on until either side closes.
func (p *Proxy) copy(number int, from, to net.Conn) {
	defer from.Close() //nolint:errcheck // a proxy has nobody to tell
	defer to.Close()   //nolint:errcheck // as above
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		silent := number <= p.silent
		p.mu.Unlock()
		if silent {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
