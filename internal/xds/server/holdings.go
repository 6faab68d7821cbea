package server

import (
	"maps"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// maxMessageBytes bounds what is kept of a proxy's text.
const maxMessageBytes = 2048

// held is what a proxy holds of one type.
type held struct {
	// accepted are the versions in force, by name.
	accepted map[string]string
	// rejected is what the proxy refused last, by name. The version in accepted stays in force.
	rejected map[string]rejection
}

type rejection struct{ version, message string }

// holdings are what a proxy holds, by type URL.
type holdings map[string]held

func newHeld(accepted map[string]string) held {
	h := held{accepted: map[string]string{}, rejected: map[string]rejection{}}
	maps.Copy(h.accepted, accepted)
	return h
}

// accept takes note of an ACK.
func (h held) accept(versions map[string]string, removed []string) {
	for name, version := range versions {
		h.accepted[name] = version
		delete(h.rejected, name)
	}
	h.forget(removed)
}

// reject takes note of a NACK.
func (h held) reject(versions map[string]string, message string) {
	message = shortened(message)
	for name, version := range versions {
		h.rejected[name] = rejection{version: version, message: message}
	}
}

func shortened(message string) string {
	if len(message) <= maxMessageBytes {
		return message
	}
	const more = " ..."
	return strings.ToValidUTF8(message[:maxMessageBytes-len(more)], "") + more
}

// forget drops what the proxy no longer has or asks for.
func (h held) forget(names []string) {
	for _, name := range names {
		delete(h.accepted, name)
		delete(h.rejected, name)
	}
}

// inSync says whether a proxy holds just what is wanted of a type. Routes that nothing wants are never taken back (a
// proxy drops them with their listener), so that they do not count.
func (h held) inSync(typeURL string, want map[string]string) bool {
	for name, version := range want {
		if h.accepted[name] != version || h.rejected[name].version == version {
			return false
		}
	}
	return typeURL == resource.RouteType || len(h.accepted) == len(want)
}

// rejects are the names of the wanted resources that the proxy refuses in their wanted version, sorted.
func (h held) rejects(want map[string]string) []string {
	var names []string
	for name, r := range h.rejected {
		if version, ok := want[name]; ok && version == r.version {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// synced says whether a proxy holds just the wanted listeners, routes and clusters.
func (h holdings) synced(want wanted) bool {
	for _, typeURL := range judged {
		if !h[typeURL].inSync(typeURL, want[typeURL]) {
			return false
		}
	}
	return true
}

// nack is what the proxy refuses of what is wanted: of the first type in the order of sending, since what follows may be
// wrong only for lack of it.
func (h holdings) nack(want wanted) *NACK {
	for _, typeURL := range order {
		names := h[typeURL].rejects(want[typeURL])
		if len(names) == 0 {
			continue
		}
		var messages []string
		for _, name := range names {
			if text := h[typeURL].rejected[name].message; !slices.Contains(messages, text) {
				messages = append(messages, text)
			}
		}
		return &NACK{TypeURL: typeURL, Message: strings.Join(messages, "; "), Resources: names}
	}
	return nil
}

// proxy is what is reported of a proxy with these holdings.
func (h holdings) proxy(pod string, want wanted) Proxy {
	return Proxy{Pod: pod, Synced: h.synced(want), NACK: h.nack(want)}
}

func (p Proxy) equal(q Proxy) bool {
	if p.Pod != q.Pod || p.Synced != q.Synced || (p.NACK == nil) != (q.NACK == nil) {
		return false
	}
	return p.NACK == nil || p.NACK.TypeURL == q.NACK.TypeURL && p.NACK.Message == q.NACK.Message && slices.Equal(p.NACK.Resources, q.NACK.Resources)
}
