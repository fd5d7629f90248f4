package oci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/backends/tree"
)

// The formats of saved images.
const (
	DockerArchive = "docker-archive" // docker load takes it; an oci-archive too
	OCIArchive    = "oci-archive"
	OCILayout     = "oci-layout" // a directory
)

// SaveOptions say how images go out.
type SaveOptions struct {
	Format      string // DockerArchive unless set
	Compression string // of layers: None unless set
	// Progress is called with the layer that is at work, as in [LoadOptions].
	Progress func(layer string, done, total int64)
}

// Save writes images as an archive.
func Save(ctx context.Context, s *store.Store, w io.Writer, images []store.Image, o SaveOptions) error {
	if o.Format == "" {
		o.Format = DockerArchive
	}
	if o.Format != DockerArchive && o.Format != OCIArchive {
		return fmt.Errorf("save: format %q of a stream is %w; accepted: docker-archive, oci-archive", o.Format, driver.ErrUnsupported)
	}
	b := bufio.NewWriterSize(w, 1<<20)
	tw := tar.NewWriter(b)
	if err := save(ctx, s, tarSink{tw}, images, o); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return errors.Join(tw.Close(), b.Flush())
}

// SaveLayout writes images into a directory as an OCI layout. It is made when
// its parent exists, and must be empty otherwise.
func SaveLayout(ctx context.Context, s *store.Store, dir string, images []store.Image, o SaveOptions) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("save: %w", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		return fmt.Errorf("save: %w", errors.Join(err, fmt.Errorf("%s is not empty; name a new directory", dir)))
	}
	o.Format = OCILayout
	if err := save(ctx, s, dirSink{dir}, images, o); err != nil {
		return fmt.Errorf("save to %s: %w", dir, err)
	}
	return nil
}

// A sink takes the files of an image archive.
type sink interface {
	file(name string, size int64, r io.Reader) error
}

type tarSink struct{ w *tar.Writer }

func (t tarSink) file(name string, size int64, r io.Reader) error {
	// One time for all, so that the same images give the same bytes.
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t.w, r)
	return err
}

type dirSink struct{ dir string }

func (d dirSink) file(name string, _ int64, r io.Reader) error {
	to := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// dockerEntry is an image in manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// A saver remembers what was written: images share layers.
type saver struct {
	ctx     context.Context
	s       *store.Store
	to      sink
	o       SaveOptions
	written map[digest.Digest]bool
	layers  map[string]v1.Descriptor // by name of the layer
}

func save(ctx context.Context, s *store.Store, to sink, images []store.Image, o SaveOptions) error {
	w := saver{ctx, s, to, o, map[digest.Digest]bool{}, map[string]v1.Descriptor{}}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	var docker []dockerEntry
	for _, i := range images {
		d, entry, err := w.image(&i)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.ID, err)
		}
		docker = append(docker, entry)
		index.Manifests = append(index.Manifests, named(d, i.Names)...)
	}
	if o.Format == DockerArchive {
		if err := w.json("manifest.json", docker); err != nil {
			return err
		}
	}
	return errors.Join(w.json(v1.ImageIndexFile, index), w.json(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}))
}

// named lists a manifest once for each name of its image.
func named(d v1.Descriptor, names []string) (list []v1.Descriptor) {
	for _, name := range names {
		called := d
		called.Annotations = map[string]string{v1.AnnotationRefName: name, "io.containerd.image.name": name}
		list = append(list, called)
	}
	if len(list) == 0 {
		list = []v1.Descriptor{d}
	}
	return list
}

func (w *saver) image(i *store.Image) (v1.Descriptor, dockerEntry, error) {
	entry := dockerEntry{RepoTags: i.Names}
	var config v1.Image
	if err := json.Unmarshal(i.Config, &config); err != nil {
		return v1.Descriptor{}, entry, err
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	for n, name := range i.Layers {
		d, err := w.layer(name, config.RootFS.DiffIDs[n])
		if err != nil {
			return v1.Descriptor{}, entry, fmt.Errorf("layer %s: %w", name, err)
		}
		m.Layers = append(m.Layers, d)
		entry.Layers = append(entry.Layers, blobPath(d.Digest))
	}
	var err error
	if m.Config, err = w.blob(v1.MediaTypeImageConfig, i.Config); err != nil {
		return v1.Descriptor{}, entry, err
	}
	entry.Config = blobPath(m.Config.Digest)
	text, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, entry, err
	}
	d, err := w.blob(v1.MediaTypeImageManifest, text)
	d.Platform = &v1.Platform{Architecture: config.Architecture, OS: config.OS, Variant: config.Variant}
	return d, entry, err
}

func (w *saver) json(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.to.file(name, int64(len(text)), bytes.NewReader(text))
}

func (w *saver) blob(mediaType string, text []byte) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if w.written[d.Digest] {
		return d, nil
	}
	w.written[d.Digest] = true
	return d, w.to.file(blobPath(d.Digest), d.Size, bytes.NewReader(text))
}

// layer writes one layer, and checks on the way that it is still what it was.
func (w *saver) layer(name string, want digest.Digest) (v1.Descriptor, error) {
	if d, ok := w.layers[name]; ok {
		return d, nil
	}
	l, err := w.s.Layer(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	// The length and the digest come before the bytes.
	f, err := tempFile(w.s)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	whole := digest.SHA256.Digester()
	z, err := compress(io.MultiWriter(f, whole.Hash()), w.o.Compression)
	if err != nil {
		return v1.Descriptor{}, err
	}
	plain := digest.SHA256.Digester()
	out := io.MultiWriter(z, plain.Hash(), &told{name: name, tell: w.o.Progress})
	if err := errors.Join(Archive(w.ctx, w.s, &l, out), z.Close()); err != nil {
		return v1.Descriptor{}, err
	}
	if got := plain.Digest(); got != want {
		return v1.Descriptor{}, mismatch("its content", want, got)
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: whole.Digest()}
	switch w.o.Compression {
	case Gzip:
		d.MediaType = v1.MediaTypeImageLayerGzip
	case Zstd:
		d.MediaType = v1.MediaTypeImageLayerZstd
	}
	if d.Size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return d, err
	}
	w.layers[name] = d
	if w.written[d.Digest] {
		return d, nil
	}
	w.written[d.Digest] = true
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return d, err
	}
	return d, w.to.file(blobPath(d.Digest), d.Size, bufio.NewReaderSize(f, 1<<20))
}

// Archive writes what a layer changes as an uncompressed archive: the very bytes
// that it came from, if it came from an archive.
func Archive(ctx context.Context, s *store.Store, l *store.Layer, w io.Writer) error {
	f, err := os.Open(s.Blob(l, "tar-split.gz"))
	if errors.Is(err, os.ErrNotExist) {
		return s.Driver.Diff(ctx, l.ID, w)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", f.Name(), driver.ErrDamaged, err)
	}
	defer z.Close()
	v, err := s.Driver.View(l.ID)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := asm.WriteOutputTarStream(files{v}, storage.NewJSONUnpacker(z), w); err != nil {
		return fmt.Errorf("put the archive of layer %s together: %w", l.Name, err)
	}
	return ctx.Err()
}

// files are those of a layer, as tar-split asks for them.
type files struct{ v *tree.View }

func (f files) Get(name string) (io.ReadCloser, error) {
	n, err := f.v.Find(path.Clean("/" + name)[1:])
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return &nodeReader{n: n}, nil
}

type nodeReader struct {
	n   *tree.Node
	off int64
}

func (r *nodeReader) Read(p []byte) (int, error) {
	n, err := r.n.ReadAt(p, r.off)
	r.off += int64(n)
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

func (r *nodeReader) Close() error {
	r.n.Close()
	return nil
}

// told tells how much was written.
type told struct {
	name string
	n    int64
	tell func(string, int64, int64)
}

func (t *told) Write(p []byte) (int, error) {
	t.n += int64(len(p))
	if t.tell != nil {
		t.tell(t.name, t.n, 0)
	}
	return len(p), nil
}
