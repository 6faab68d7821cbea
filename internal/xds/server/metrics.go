package server

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Why streams are refused, as paymesh_xds_refused_streams_total counts it.
const (
	reasonHandshake   = "handshake"        // no certificate, an expired one, another trust domain, no TLS at all
	reasonNodeID      = "node_id"          // none, or not kind/namespace/name/pod
	reasonNodeChanged = "node_id_changed"  // on an open stream
	reasonIdentity    = "identity"         // the object of the node ID has another SPIFFE ID
	reasonType        = "type"             // secrets, and whatever else is not served
	reasonNames       = "too_many_names"   // of one type, or of one SPIFFE ID
	reasonStreams     = "too_many_streams" // at once or in a row, of one SPIFFE ID
	reasonUnbound     = "unknown_object"   // waited for too long, or never said whose it is
	reasonNotOperator = "not_the_operator" // status is for the manager's replicas
	reasonPanic       = "panic"            // a bug here, which the stream has run into
)

type metrics struct {
	objects   prometheus.Gauge
	connected prometheus.Gauge
	pushes    *prometheus.CounterVec
	acks      *prometheus.CounterVec
	nacks     *prometheus.CounterVec
	refused   *prometheus.CounterVec
}

// newMetrics makes the metrics of a server; a second server with the same registerer is a mistake of the program.
func newMetrics(registerer prometheus.Registerer) metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := metrics{
		objects: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paymesh_xds_objects", Help: "MeshServices and MeshGateways that this replica has config for.",
		}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paymesh_xds_connected_proxies", Help: "xDS streams of proxies whose identity is that of their object.",
		}),
		pushes:  counter("paymesh_xds_pushes_total", "xDS responses sent, by resource type.", "type"),
		acks:    counter("paymesh_xds_acks_total", "xDS responses that a proxy accepted, by resource type.", "type"),
		nacks:   counter("paymesh_xds_nacks_total", "xDS responses that a proxy rejected, by resource type.", "type"),
		refused: counter("paymesh_xds_refused_streams_total", "Connections and streams that were refused or ended, by reason.", "reason"),
	}
	if registerer != nil {
		registerer.MustRegister(m.objects, m.connected, m.pushes, m.acks, m.nacks, m.refused)
	}
	return m
}

// bound counts a stream that is answered now, or no longer.
func (m metrics) bound(now bool) {
	if now {
		m.connected.Inc()
	} else {
		m.connected.Dec()
	}
}

// typeName is the last part of a type URL: Cluster, Listener.
func typeName(typeURL string) string {
	return typeURL[strings.LastIndexByte(typeURL, '.')+1:]
}
