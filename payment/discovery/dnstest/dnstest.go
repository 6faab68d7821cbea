// Package dnstest is a DNS server on loopback for tests: records go in, and a net.Resolver that finds them comes out. What
// asks it is the real resolver, over UDP.
package dnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// SRV is one SRV record.
type SRV struct {
	Target           string
	Port             uint16
	Priority, Weight uint16
}

// Records are what the server knows. Names have no dot at the end.
type Records struct {
	// Hosts are A and AAAA records.
	Hosts map[string][]netip.Addr
	// SRV are records like those of _grpc._tcp.contact-service.people.svc.
	SRV map[string][]SRV
	// Broken makes each question fail with SERVFAIL.
	Broken bool
}

// Server answers for its records, and with NXDOMAIN for all others.
type Server struct {
	conn    net.PacketConn
	running sync.WaitGroup
	mu      sync.Mutex
	records Records
}

// Start starts a server; Close it.
func Start(records Records) (*Server, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		return nil, fmt.Errorf("start a DNS server: %w", err)
	}
	s := &Server{conn: conn, records: records}
	s.running.Go(s.serve)
	return s, nil
}

// Set replaces the records.
func (s *Server) Set(records Records) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = records
}

// Resolver asks this server.
func (s *Server) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// Close ends the server and waits for it.
func (s *Server) Close() error {
	err := s.conn.Close()
	s.running.Wait()
	return err
}

func (s *Server) serve() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		if answer, err := s.answer(buffer[:n]); err == nil {
			_, _ = s.conn.WriteTo(answer, from)
		}
	}
}

func (s *Server) answer(question []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(question); err != nil {
		return nil, err
	}
	if len(message.Questions) != 1 {
		return nil, errors.New("want one question")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := message.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	message.Response, message.Authoritative, message.Additionals = true, true, nil
	hosts, isHost := s.records.Hosts[name]
	services, isService := s.records.SRV[name]
	switch {
	case s.records.Broken:
		message.RCode = dnsmessage.RCodeServerFailure
	case !isHost && !isService:
		message.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeSRV:
		for _, record := range services {
			target, err := dnsmessage.NewName(strings.TrimSuffix(record.Target, ".") + ".")
			if err != nil {
				return nil, err
			}
			message.Answers = append(message.Answers, resource(q, &dnsmessage.SRVResource{Target: target, Port: record.Port, Priority: record.Priority, Weight: record.Weight}))
		}
	default:
		for _, address := range hosts {
			if q.Type == dnsmessage.TypeA && address.Is4() {
				message.Answers = append(message.Answers, resource(q, &dnsmessage.AResource{A: address.As4()}))
			}
			if q.Type == dnsmessage.TypeAAAA && address.Is6() {
				message.Answers = append(message.Answers, resource(q, &dnsmessage.AAAAResource{AAAA: address.As16()}))
			}
		}
	}
	return message.Pack()
}

func resource(q dnsmessage.Question, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: body}
}
