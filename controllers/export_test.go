package controllers

// Files is how many ConfigMaps the world remembers.
func (w *World) Files() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.files)
}
