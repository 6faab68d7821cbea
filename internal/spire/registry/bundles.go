package registry

import (
	"context"
	"slices"
)

// Bundles are the trust domains of which the server was last seen to have a bundle, sorted, without its own.
func (r *Registry) Bundles() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bundles)
}

// NotifyBundles adds a listener, which is called with the trust domains whose bundle has come or gone. It may not block for long.
func (r *Registry) NotifyBundles(turned func(trustDomains []string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bundleListeners = append(r.bundleListeners, turned)
}

// ReadBundles reads which bundles the server has, and tells where that changed. The audit does so in each pass; it is also
// for when the server refuses an entry, which may be since a bundle has just gone.
func (r *Registry) ReadBundles(ctx context.Context) error {
	now, err := r.api.Bundles(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	before, listeners := r.bundles, slices.Clone(r.bundleListeners)
	r.bundles = now
	r.mu.Unlock()
	turned := slices.Concat(without(now, before), without(before, now))
	if len(turned) == 0 {
		return nil
	}
	r.options.Logger.Info("bundles have come to the SPIRE server or gone", "trustDomains", turned, "has", now)
	for _, listener := range listeners {
		listener(turned)
	}
	return nil
}

func without(list, those []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(item string) bool { return slices.Contains(those, item) })
}
