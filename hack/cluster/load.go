package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/image"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

func load(ctx context.Context, o options, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	var spec image.Spec
	var entrypoint list
	flags.StringVar(&spec.Tag, "tag", "", "build an image of this `NAME:TAG` from the files; without it, the files are archives")
	flags.Var(&entrypoint, "entrypoint", "the `PROGRAM` that the image runs; given again, its arguments (default: the first file)")
	flags.StringVar(&spec.User, "user", image.DefaultUser, "the `UID[:GID]` that it runs as")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if flags.NArg() == 0 {
		return errors.New("name at least one file: cluster load --tag paymesh/manager:dev bin/manager")
	}
	if spec.Tag == "" {
		for _, archive := range flags.Args() {
			if err := loadArchive(ctx, o.folder, archive, out); err != nil {
				return err
			}
		}
		return nil
	}
	for _, arg := range flags.Args() {
		file, err := image.ParseFile(arg)
		if err != nil {
			return err
		}
		spec.Files = append(spec.Files, file)
	}
	spec.Entrypoint = entrypoint
	if len(entrypoint) == 0 {
		spec.Entrypoint = []string{spec.Files[0].Target}
	}
	return loadImage(ctx, o.folder, spec, out)
}

// loadImage streams the image into containerd while it is built.
func loadImage(ctx context.Context, f state.Folder, spec image.Spec, out io.Writer) error {
	began := time.Now()
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(image.Write(writer, spec)) }()
	defer func() { _ = reader.Close() }()
	if err := importArchive(ctx, f, reader); err != nil {
		return fmt.Errorf("load image %s: %w", spec.Tag, err)
	}
	fmt.Fprintf(out, "%s is loaded, in %.1f s\n", spec.Tag, time.Since(began).Seconds())
	return nil
}

func loadArchive(ctx context.Context, f state.Folder, path string, out io.Writer) error {
	archive, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	defer func() { _ = archive.Close() }()
	if err := importArchive(ctx, f, archive); err != nil {
		return fmt.Errorf("load images from %s: %w", path, err)
	}
	fmt.Fprintf(out, "%s is loaded\n", path)
	return nil
}

func importArchive(ctx context.Context, f state.Folder, archive io.Reader) error {
	cmd, err := inside(ctx, f, "ctr", "images", "import", "--local", "-")
	if err != nil {
		return err
	}
	source := &source{Reader: archive}
	cmd.Stdin = source
	out, err := cmd.CombinedOutput()
	if source.err != nil {
		return source.err // why there was too little to read says more than that there was
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// source remembers why reading failed.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		s.err = err
	}
	return n, err
}
