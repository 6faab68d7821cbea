package server

import (
	"errors"
	"strings"

	"github.com/go-logr/logr"
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

func newMetrics(registerer prometheus.Registerer, log logr.Logger) metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return registered(registerer, log, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label}))
	}
	return metrics{
		objects: registered(registerer, log, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paymesh_xds_objects", Help: "MeshServices and MeshGateways that this replica has config for.",
		})),
		connected: registered(registerer, log, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paymesh_xds_connected_proxies", Help: "xDS streams of proxies whose identity is that of their object.",
		})),
		pushes:  counter("paymesh_xds_pushes_total", "xDS responses sent, by resource type.", "type"),
		acks:    counter("paymesh_xds_acks_total", "xDS responses that a proxy accepted, by resource type.", "type"),
		nacks:   counter("paymesh_xds_nacks_total", "xDS responses that a proxy rejected, by resource type.", "type"),
		refused: counter("paymesh_xds_refused_streams_total", "Connections and streams that were refused or ended, by reason.", "reason"),
	}
}

// registered registers a collector, or takes the one that another server registered before.
func registered[C prometheus.Collector](registerer prometheus.Registerer, log logr.Logger, collector C) C {
	if registerer == nil {
		return collector
	}
	err := registerer.Register(collector)
	if taken := (prometheus.AlreadyRegisteredError{}); errors.As(err, &taken) {
		if same, ok := taken.ExistingCollector.(C); ok {
			return same
		}
	}
	if err != nil {
		log.Error(err, "a metric of the xDS server is not shown")
	}
	return collector
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
