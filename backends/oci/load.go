package oci

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/backends/tree"
)

// LoadOptions say how images come in.
type LoadOptions struct {
	// Names are given to the image in place of those in the archive. A root
	// filesystem needs one; an archive of several images can have none.
	Names []string
	// MaxBytes and MaxEntries bound each layer; 0 is 256 GiB and 20 million.
	MaxBytes, MaxEntries int64
	// Progress is called with the layer that is at work and how many bytes of
	// how many it has read (0 when that is not known); nil for none.
	Progress func(layer string, done, total int64)
}

func (o *LoadOptions) fill() {
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 30
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = 20_000_000
	}
}

// LoadFile loads what a path holds: an archive or an OCI layout directory.
func LoadFile(ctx context.Context, s *store.Store, path string, o LoadOptions) ([]store.Image, error) {
	images, err := loadFile(ctx, s, path, o)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return images, nil
}

func loadFile(ctx context.Context, s *store.Store, path string, o LoadOptions) ([]store.Image, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return load(ctx, s, f, o)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	src := dirSource{root}
	defer src.Close()
	return loadImages(ctx, s, src, o)
}

// Load loads an archive from a stream.
func Load(ctx context.Context, s *store.Store, r io.Reader, o LoadOptions) ([]store.Image, error) {
	images, err := load(ctx, s, r, o)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return images, nil
}

// headBytes is how much of an archive is looked at to tell what it is.
const headBytes = 8 << 10

func load(ctx context.Context, s *store.Store, r io.Reader, o LoadOptions) ([]store.Image, error) {
	o.fill()
	z, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	b := bufio.NewReaderSize(z, 256<<10)
	head, err := b.Peek(headBytes)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) == 0 {
		return nil, errors.New("the archive is empty; whoever was to write it has failed, or stdin is no pipe: name a FILE")
	}
	if !looksLikeImage(head) {
		return loadRootfs(ctx, s, b, o)
	}
	// Which layer comes where is said at the end of most archives, so the archive
	// has to be one in which one can go back.
	f, ok := r.(*os.File)
	if ok {
		// Not by seeking: the stream is read on when this is not the archive itself.
		plain := make([]byte, len(head))
		_, err := f.ReadAt(plain, 0)
		ok = err == nil && bytes.Equal(plain, head)
		if ok {
			if f, err = reopen(f); err != nil {
				return nil, err
			}
		}
	}
	if !ok {
		unpacked := newReadAhead(&bounded{b, o.MaxBytes})
		f, err = spool(s, unpacked)
		if err = errors.Join(err, unpacked.Close()); err != nil {
			return nil, err
		}
	}
	src, err := newTarSource(f)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return loadImages(ctx, s, src, o)
}

func reopen(f *os.File) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) }

// spool keeps a stream in a file without a name.
func spool(s *store.Store, r io.Reader) (*os.File, error) {
	f, err := tempFile(s)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tempFile makes a file that goes when it is closed, on the store's filesystem,
// which has room for images.
func tempFile(s *store.Store) (*os.File, error) {
	f, err := os.CreateTemp(s.Root(), ".spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func loadImages(ctx context.Context, s *store.Store, src source, o LoadOptions) ([]store.Image, error) {
	o.fill()
	list, err := manifests(src)
	if err != nil {
		return nil, err
	}
	if len(o.Names) > 0 && len(list) != 1 {
		return nil, fmt.Errorf("the archive holds %d images, which cannot all be called %s", len(list), o.Names[0])
	}
	l, err := newLoader(ctx, s, o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	var images []store.Image
	for _, m := range list {
		if len(o.Names) > 0 {
			m.names = o.Names
		}
		i := store.Image{ID: digest.FromBytes(m.config).String(), Names: m.names, Config: m.config}
		var chain digest.Digest
		for n, b := range m.layers {
			b := b
			chain = chainID(chain, m.image.RootFS.DiffIDs[n])
			open := func() (io.ReadCloser, int64, error) { return src.open(b.name) }
			if err := l.layer(chain, i.Top(), m.image.RootFS.DiffIDs[n], &b, open); err != nil {
				return nil, fmt.Errorf("layer %d of %d, %s: %w", n+1, len(m.layers), b.name, err)
			}
			i.Layers = append(i.Layers, chain.String())
		}
		if err := s.AddImage(i); err != nil {
			return nil, err
		}
		if i, err = s.Image(i.ID); err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// chainID names a layer by all that it stands on (image-spec, config.md).
func chainID(below, diff digest.Digest) digest.Digest {
	if below == "" {
		return diff
	}
	return digest.FromString(below.String() + " " + diff.String())
}

// loadRootfs makes an image of one layer.
func loadRootfs(ctx context.Context, s *store.Store, r io.Reader, o LoadOptions) ([]store.Image, error) {
	if len(o.Names) == 0 {
		return nil, errors.New("it holds a root filesystem and no name for it; give one: --name NAME")
	}
	l, err := newLoader(ctx, s, o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	open := func() (io.ReadCloser, int64, error) { return io.NopCloser(r), 0, nil }
	diff, err := l.fill("", &blob{name: "root filesystem", size: -1}, "", open)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	config, err := json.Marshal(v1.Image{
		Created:  &now,
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
		History:  []v1.History{{Created: &now, CreatedBy: "lamina image load", Comment: "from a tar of a root filesystem"}},
	})
	if err != nil {
		return nil, err
	}
	i := store.Image{ID: digest.FromBytes(config).String(), Names: o.Names, Config: config, Layers: []string{diff.String()}}
	if err := s.AddImage(i); err != nil {
		return nil, err
	}
	if i, err = s.Image(i.ID); err != nil {
		return nil, err
	}
	return []store.Image{i}, nil
}

// Labels of layers that came from an archive.
const (
	LabelDiffID = "lamina.diff-id" // digest of the uncompressed archive
	LabelSize   = "lamina.size"    // its length in bytes
)

func bounds(o *LoadOptions) tree.ApplyOptions {
	return tree.ApplyOptions{MaxBytes: o.MaxBytes, MaxEntries: o.MaxEntries}
}
