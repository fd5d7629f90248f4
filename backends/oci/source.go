package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/laminafs/lamina/backends/tree"
)

// A source holds the files of an image archive by name.
type source interface {
	// open returns a file and its size; os.ErrNotExist for none.
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// A dirSource is an OCI layout directory.
type dirSource struct{ root *os.Root }

func (d dirSource) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func (d dirSource) Close() error { return d.root.Close() }

// A tarSource is an archive in a file, of which it is known where its entries lie.
type tarSource struct {
	f       *os.File
	entries map[string]tarEntry
}

type tarEntry struct {
	offset, size int64
	link         string // of a symbolic or hard link
}

// entriesMax bounds the files of an image archive, layers of layers not counted.
const entriesMax = 100000

// newTarSource finds the entries. It owns the file, also when it fails.
func newTarSource(f *os.File) (*tarSource, error) {
	s := &tarSource{f, map[string]tarEntry{}}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return s, nil
		}
		if err == nil && len(s.entries) == entriesMax {
			err = fmt.Errorf("%w: more than %d entries", tree.ErrRefused, entriesMax)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("image archive: %w", err), f.Close())
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			s.entries[name] = tarEntry{offset: at, size: h.Size}
		case tar.TypeSymlink:
			s.entries[name] = tarEntry{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			s.entries[name] = tarEntry{link: path.Clean(h.Linkname)}
		}
	}
}

func (s *tarSource) open(name string) (io.ReadCloser, int64, error) {
	at := path.Clean(name)
	for range 10 { // as docker save links equal layers to each other
		e, ok := s.entries[at]
		if !ok {
			break
		}
		if e.link == "" {
			return io.NopCloser(io.NewSectionReader(s.f, e.offset, e.size)), e.size, nil
		}
		at = e.link
	}
	return nil, 0, &os.PathError{Op: "open in the archive", Path: name, Err: os.ErrNotExist}
}

func (s *tarSource) Close() error { return s.f.Close() }

// small reads a file that describes others.
func small(s source, name string) ([]byte, error) {
	f, size, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 16 << 20
	if size > most {
		return nil, fmt.Errorf("%s: %w: %d bytes, %d at most", name, tree.ErrRefused, size, most)
	}
	return io.ReadAll(f)
}

// firstOfImage are names that archives of images begin with, and root
// filesystems do not.
var firstOfImage = regexp.MustCompile(`^(\./)?(blobs(/.*)?|manifest\.json|index\.json|oci-layout|repositories|[0-9a-f]{64}(/.*|\.tar|\.json)?)$`)

// looksLikeImage tells an archive of an image from a root filesystem by the name of its
// first entry. head is how it begins.
func looksLikeImage(head []byte) bool {
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil && firstOfImage.MatchString(strings.TrimSuffix(h.Name, "/"))
}
