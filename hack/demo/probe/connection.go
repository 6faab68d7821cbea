package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	dialTimeout = 3 * time.Second
	// again is how often a port is tried that is waited for.
	again = 200 * time.Millisecond
)

// dial says whether a TCP port takes connections.
func dial(ctx context.Context, args []string, out io.Writer) error {
	set := flag.NewFlagSet("probe dial", flag.ContinueOnError)
	wait := set.Duration("wait", 0, "How long to try again while it is not open.")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() != 1 {
		return errors.New("dial: name one HOST:PORT")
	}
	state, err := reach(ctx, set.Arg(0), *wait)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "dial %s: %s\n", set.Arg(0), state)
	return nil
}

// reach is what became of a connection: open, refused, unreachable or timeout. The error is for what is none of these.
func reach(ctx context.Context, address string, wait time.Duration) (string, error) {
	end := time.Now().Add(wait)
	for {
		state, err := tryOnce(ctx, address)
		if err != nil || state == "open" || !time.Now().Before(end) {
			return state, err
		}
		select {
		case <-ctx.Done():
			return state, nil
		case <-time.After(again):
		}
	}
}

func tryOnce(ctx context.Context, address string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(limited, "tcp", address)
	var network net.Error
	switch {
	case err == nil:
		return "open", conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", nil
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable", nil
	case errors.As(err, &network) && network.Timeout():
		return "timeout", nil
	}
	return "", err
}

// shown is what of a server's certificate is printed.
type shown struct {
	SPIFFEID  string    `json:"spiffeID"`
	DNSNames  []string  `json:"dnsNames,omitempty"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Issuer    string    `json:"issuer"`
	Protocol  string    `json:"protocol"`
	Cipher    string    `json:"cipher"`
	ALPN      string    `json:"alpn,omitempty"`
}

// certificate prints what a server shows in the handshake, to anybody and before it asks who is there. It is not verified.
func certificate(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("certificate: name one HOST:PORT")
	}
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	conn, err := dialer.DialContext(limited, "tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	state := conn.(*tls.Conn).ConnectionState()
	leaf := state.PeerCertificates[0]
	s := shown{
		DNSNames: leaf.DNSNames, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Issuer: leaf.Issuer.String(),
		Protocol: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), ALPN: state.NegotiatedProtocol,
	}
	if len(leaf.URIs) > 0 {
		s.SPIFFEID = leaf.URIs[0].String()
	}
	return json.NewEncoder(out).Encode(s)
}
