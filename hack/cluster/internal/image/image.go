// Package image builds container images of one layer from files of this machine: the same content gives the same
// digest, whoever builds it and when.
package image

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// DefaultUser is the "nonroot" user of most images without a distribution in them.
const DefaultUser = "65532:65532"

// epoch is the time of every file and image: the format's zero.
var epoch = time.Unix(0, 0).UTC()

// Spec says what an image holds and how it starts.
type Spec struct {
	Tag        string // REPOSITORY:TAG
	Entrypoint []string
	User       string // UID[:GID]
	Files      []File
}

// File is a regular file of this machine (Source) and its place in the image (Target, absolute).
type File struct {
	Source string
	Target string
}

// ParseFile reads SOURCE[:TARGET]. Without a target the file lies in the image's root folder.
func ParseFile(arg string) (File, error) {
	source, target, ok := strings.Cut(arg, ":")
	if !ok {
		target = "/" + filepath.Base(source)
	}
	if source == "" || !path.IsAbs(target) || path.Clean(target) != target || target == "/" {
		return File{}, fmt.Errorf("file %q: write PATH or PATH:/PLACE/IN/IMAGE", arg)
	}
	return File{Source: source, Target: target}, nil
}

// Build makes the image. Files are read when it is written.
func Build(s Spec) (v1.Image, error) {
	if len(s.Files) == 0 {
		return nil, fmt.Errorf("image %s: name at least one file", s.Tag)
	}
	for _, id := range strings.Split(s.User, ":") {
		if id == "" || strings.Trim(id, "0123456789") != "" {
			return nil, fmt.Errorf("image %s: user %q: write UID or UID:GID in digits, since the image has no list of names", s.Tag, s.User)
		}
	}
	files, err := withLibraries(s.Files)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	opener := func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeLayer(w, files)) }()
		return r, nil
	}
	// Not compressed: it goes from this machine to this machine.
	layer, err := tarball.LayerFromOpener(opener, tarball.WithCompression(compression.None))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	built, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	config, err := built.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Tag, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: epoch}
	config.History = nil
	config.Config.Entrypoint = s.Entrypoint
	config.Config.User = s.User
	config.Config.Env = []string{"PATH=/"}
	return mutate.ConfigFile(built, config)
}

// Write writes the image as an archive that containerd and Docker load.
func Write(w io.Writer, s Spec) error {
	built, err := Build(s)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(s.Tag)
	if err != nil {
		return fmt.Errorf("image %q: %w", s.Tag, err)
	}
	if err := tarball.Write(tag, built, w); err != nil {
		return fmt.Errorf("write image %s: %w", s.Tag, err)
	}
	return nil
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
	layer := tar.NewWriter(w)
	for _, target := range names {
		if err := writeEntry(layer, target, sources[target]); err != nil {
			return err
		}
	}
	return layer.Close()
}

// writeEntry writes a file, or a folder where there is no source.
func writeEntry(layer *tar.Writer, target, source string) error {
	if source == "" {
		mode := int64(0o755)
		if target == "tmp" {
			mode = 0o1777
		}
		return layer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: target + "/", Mode: mode, ModTime: epoch})
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
	if err := layer.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.Copy(layer, f); err != nil {
		return fmt.Errorf("copy %s (did it change meanwhile?): %w", source, err)
	}
	return nil
}
