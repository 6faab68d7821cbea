package image

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layer is a layer that is not compressed, since it goes from this machine to this machine. It implements v1.Layer,
// as the library's own layers always compress.
type layer struct {
	files []File
	hash  v1.Hash
	size  int64
}

// newLayer reads the files once, for the digest; they are read again when the layer is written.
func newLayer(files []File) (*layer, error) {
	l := &layer{files: files}
	content, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = content.Close() }()
	l.hash, l.size, err = v1.SHA256(content)
	return l, err
}

func (l *layer) Digest() (v1.Hash, error)            { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.hash, nil }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.DockerUncompressedLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)  { return l.Uncompressed() }
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeLayer(w, l.files)) }()
	return r, nil
}

// writeLayer writes the files, the folders above them and a /tmp for everybody, in the order of their names.
func writeLayer(w io.Writer, files []File) error {
	sources := map[string]string{}
	dirs := map[string]bool{"tmp": true}
	for _, f := range files {
		target := strings.TrimPrefix(f.Target, "/")
		if earlier, ok := sources[target]; ok && earlier != f.Source {
			return fmt.Errorf("%s and %s both want to be %s", earlier, f.Source, f.Target)
		}
		sources[target] = f.Source
		for dir := path.Dir(target); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	var names []string
	for target := range sources {
		names = append(names, target)
	}
	for dir := range dirs {
		names = append(names, dir)
	}
	slices.Sort(names)
	archive := tar.NewWriter(w)
	for _, target := range names {
		if err := writeEntry(archive, target, sources[target]); err != nil {
			return err
		}
	}
	return archive.Close()
}

// writeEntry writes a file, or a folder where there is no source.
func writeEntry(archive *tar.Writer, target, source string) error {
	if source == "" {
		mode := int64(0o755)
		if target == "tmp" {
			mode = 0o1777
		}
		return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: target + "/", Mode: mode, ModTime: epoch})
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", source)
	}
	// Only whether it can be run survives: the other bits depend on the umask of whoever built it.
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: target, Size: info.Size(), Mode: mode, ModTime: epoch}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.Copy(archive, f); err != nil {
		return fmt.Errorf("copy %s (did it change meanwhile?): %w", source, err)
	}
	return nil
}
