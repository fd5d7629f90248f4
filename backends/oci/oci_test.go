package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/laminafs/lamina/backends/drivers"
	"github.com/laminafs/lamina/backends/drivertest"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/backends/tree"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	drivertest.BeServer()
	os.Exit(m.Run())
}

func newStore(t testing.TB, driver string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Root: t.TempDir(), Driver: driver, Volatile: true, PoolServer: drivertest.PoolCommand})
	ok(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// layerTar is an archive whose bytes nobody who merely knows its tree would
// write: odd order, owners' names, and padding behind the end.
func layerTar(t testing.TB, files ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range files {
		data := ""
		if h.Typeflag == tar.TypeReg && !strings.Contains(h.Name, ".wh.") {
			data = "content of " + h.Name
			h.Size = int64(len(data))
		}
		h.Uname, h.Gname, h.Format = "somebody", "staff", tar.FormatGNU
		h.ModTime = time.Unix(1700000000, 0)
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		ok(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, data)
		ok(t, err)
	}
	ok(t, w.Close())
	out.Write(make([]byte, 10240))
	return out.Bytes()
}

func layers(t testing.TB) [][]byte {
	busybox, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		busybox = bytes.Repeat([]byte("not busybox "), 1000)
	}
	var base bytes.Buffer
	w := tar.NewWriter(&base)
	for _, h := range []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o4755, Size: int64(len(busybox))},
		{Name: "bin/sh", Typeflag: tar.TypeLink, Linkname: "bin/busybox"},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/old", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		h.ModTime = time.Unix(1700000000, 0)
		ok(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := w.Write(busybox)
			ok(t, err)
		}
	}
	ok(t, w.Close())
	return [][]byte{base.Bytes(), layerTar(t,
		tar.Header{Name: "./z", Typeflag: tar.TypeReg},
		tar.Header{Name: "./etc/.wh.old", Typeflag: tar.TypeReg},
		tar.Header{Name: "./a/", Typeflag: tar.TypeDir},
		tar.Header{Name: "./a/dev", Typeflag: tar.TypeFifo},
	)}
}

// dockerArchive packs an image as docker save did for years: the layers first.
func dockerArchive(t testing.TB, names []string, layers [][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, data []byte) {
		ok(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(data)), Mode: 0o644}))
		_, err := w.Write(data)
		ok(t, err)
	}
	created := time.Unix(1700000000, 0)
	config := v1.Image{Created: &created, Platform: v1.Platform{Architecture: "amd64", OS: "linux"}, RootFS: v1.RootFS{Type: "layers"},
		History: []v1.History{{CreatedBy: "first"}, {CreatedBy: "second"}}}
	entry := dockerEntry{RepoTags: names}
	for _, l := range layers {
		d := digest.FromBytes(l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d)
		entry.Layers = append(entry.Layers, d.Encoded()+"/layer.tar")
		add(d.Encoded()+"/layer.tar", l)
	}
	text, err := json.Marshal(config)
	ok(t, err)
	entry.Config = digest.FromBytes(text).Encoded() + ".json"
	add(entry.Config, text)
	manifest, err := json.Marshal([]dockerEntry{entry})
	ok(t, err)
	add("manifest.json", manifest)
	ok(t, w.Close())
	return out.Bytes()
}

func TestImageGoesThroughEveryDriverAndFormatUnchanged(t *testing.T) {
	ctx := context.Background()
	all := layers(t)
	archive := dockerArchive(t, []string{"example.org/app:1"}, all)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(archive)
	ok(t, z.Close())
	for _, name := range drivers.Names() {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, name)
			images, err := Load(ctx, s, bytes.NewReader(zipped.Bytes()), LoadOptions{})
			ok(t, err)
			i := images[0]
			if len(images) != 1 || len(i.Layers) != 2 || !slices.Equal(i.Names, []string{"example.org/app:1"}) {
				t.Fatalf("loaded %+v", images)
			}
			for n, want := range all {
				l, err := s.Layer(i.Layers[n])
				ok(t, err)
				var got bytes.Buffer
				ok(t, Archive(ctx, s, &l, &got))
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("layer %d comes out as other bytes: %s, want %s", n, digest.FromBytes(got.Bytes()), digest.FromBytes(want))
				}
			}
			top, err := s.Layer(i.Top())
			ok(t, err)
			v, err := s.Driver.View(top.ID)
			ok(t, err)
			defer v.Close()
			if n, err := v.Find("etc/old"); err == nil {
				n.Close()
				t.Error("what the second layer deletes is still there")
			}
			for _, save := range []struct{ format, compression string }{
				{DockerArchive, None}, {OCIArchive, Gzip}, {OCILayout, Zstd},
			} {
				to := newStore(t, "vfs")
				path := filepath.Join(t.TempDir(), "saved")
				o := SaveOptions{Format: save.format, Compression: save.compression}
				if save.format == OCILayout {
					ok(t, SaveLayout(ctx, s, path, images, o))
				} else {
					f, err := os.Create(path)
					ok(t, err)
					ok(t, Save(ctx, s, f, images, o))
					ok(t, f.Close())
				}
				again, err := LoadFile(ctx, to, path, LoadOptions{})
				if err != nil || len(again) != 1 || again[0].ID != i.ID || !slices.Equal(again[0].Layers, i.Layers) || !slices.Equal(again[0].Names, i.Names) {
					t.Errorf("saved as %s with %s and loaded: %+v, %v; want %+v", save.format, save.compression, again, err, i)
				}
			}
		})
	}
}

func TestLoadingAgainSharesLayers(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, "overlay2")
	all := layers(t)
	_, err := Load(ctx, s, bytes.NewReader(dockerArchive(t, []string{"one"}, all[:1])), LoadOptions{})
	ok(t, err)
	_, err = Load(ctx, s, bytes.NewReader(dockerArchive(t, []string{"two"}, all)), LoadOptions{})
	ok(t, err)
	list, err := s.Layers()
	if err != nil || len(list) != 2 {
		t.Errorf("%d layers, %v; the two images share one of two", len(list), err)
	}
	ok(t, s.RemoveImage("two"))
	c, err := s.GC(ctx, nil)
	if err != nil || len(c.Layers) != 1 {
		t.Errorf("collected %q, %v", c.Layers, err)
	}
	if left, err := filepath.Glob(s.Root() + "/blobs/*"); err != nil || len(left) != 1 {
		t.Errorf("kept of archives: %q, %v", left, err)
	}
}

func TestRootFilesystem(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, "overlay2")
	rootfs := layers(t)[0]
	if _, err := Load(ctx, s, bytes.NewReader(rootfs), LoadOptions{}); err == nil {
		t.Error("a root filesystem was loaded without a name")
	}
	images, err := Load(ctx, s, bytes.NewReader(rootfs), LoadOptions{Names: []string{"rootfs"}})
	ok(t, err)
	l, err := s.Layer(images[0].Top())
	ok(t, err)
	v, err := s.Driver.View(l.ID)
	ok(t, err)
	defer v.Close()
	n, err := v.Find("bin/sh")
	ok(t, err)
	defer n.Close()
	if n.Stat.Mode&0o7777 != 0o4755 || n.Stat.Nlink != 2 {
		t.Errorf("bin/sh: mode %o, %d links", n.Stat.Mode, n.Stat.Nlink)
	}
}

// Whatever is wrong with an archive, the store is as it was before.
func TestBadArchivesLeaveTheStoreAlone(t *testing.T) {
	ctx := context.Background()
	good := layers(t)
	hostile := layerTar(t, tar.Header{Name: "../../escape", Typeflag: tar.TypeReg})
	archive := dockerArchive(t, []string{"x"}, good)
	flipped := bytes.Clone(archive)
	flipped[bytes.Index(flipped, []byte("content of ./z"))] ^= 1
	for _, c := range []struct {
		what    string
		archive []byte
		cause   error
	}{
		{"a layer that was changed", flipped, ErrDigest},
		{"a hostile layer", dockerArchive(t, []string{"x"}, [][]byte{good[0], hostile}), tree.ErrRefused},
		{"an archive cut short", archive[:len(archive)/2], io.ErrUnexpectedEOF},
		{"a manifest of another image", bytes.Replace(archive, []byte("amd64"), []byte("arm64"), 1), ErrDigest},
		{"too much", archive, tree.ErrRefused},
	} {
		s := newStore(t, "overlay2")
		o := LoadOptions{}
		if c.what == "too much" {
			o.MaxEntries = 4
		}
		if _, err := Load(ctx, s, bytes.NewReader(c.archive), o); !errors.Is(err, c.cause) {
			t.Errorf("%s: %v, want %v", c.what, err, c.cause)
		}
		images, err := s.Images()
		if err != nil || len(images) > 0 {
			t.Errorf("%s: images %v, %v", c.what, images, err)
		}
		_, err = s.GC(ctx, nil)
		ok(t, err)
		list, err := s.Layers()
		if err != nil || len(list) > 0 {
			t.Errorf("%s: layers %v, %v", c.what, list, err)
		}
		if problems, err := s.Check(ctx, false); err != nil || len(problems) > 0 {
			t.Errorf("%s: %+v, %v", c.what, problems, err)
		}
		if left, err := filepath.Glob(s.Root() + "/blobs/*"); err != nil || len(left) > 0 {
			t.Errorf("%s: blobs %q, %v", c.what, left, err)
		}
	}
}

func FuzzManifests(f *testing.F) {
	f.Add([]byte(`[{"Config":"c","RepoTags":["a"],"Layers":["l"]}]`), []byte(`{"rootfs":{"diff_ids":["sha256:00"]}}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:00"}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		for _, name := range []string{"manifest.json", v1.ImageIndexFile} {
			list, err := manifests(memSource{name: manifest, "c": config})
			for _, m := range list {
				if err == nil && len(m.layers) != len(m.image.RootFS.DiffIDs) {
					t.Errorf("%d layers and %d diff ids", len(m.layers), len(m.image.RootFS.DiffIDs))
				}
			}
		}
	})
}

type memSource map[string][]byte

func (m memSource) open(name string) (io.ReadCloser, int64, error) {
	data, there := m[name]
	if !there {
		return nil, 0, fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

func (m memSource) Close() error { return nil }

// An archive that docker save has written and gzip packed is longer than what is looked
// at to tell what it is.
func TestALongPackedArchiveFromAFile(t *testing.T) {
	ctx := context.Background()
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	var long bytes.Buffer
	w := tar.NewWriter(&long)
	ok(t, w.WriteHeader(&tar.Header{Name: "noise", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(noise))}))
	_, err := w.Write(noise)
	ok(t, errors.Join(err, w.Close()))
	archive := dockerArchive(t, []string{"example.org/long:1"}, [][]byte{long.Bytes()})
	for _, how := range []string{None, Gzip, Zstd} {
		path := filepath.Join(t.TempDir(), "archive")
		f, err := os.Create(path)
		ok(t, err)
		z, err := compress(f, how)
		ok(t, err)
		_, err = z.Write(archive)
		ok(t, errors.Join(err, z.Close(), f.Close()))
		images, err := LoadFile(ctx, newStore(t, "vfs"), path, LoadOptions{})
		if err != nil || len(images) != 1 || len(images[0].Layers) != 1 {
			t.Errorf("%s: %+v, %v", how, images, err)
		}
	}
}
