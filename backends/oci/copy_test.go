package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivers"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/backends/tree"
)

// written makes an active layer with changes.
func written(t *testing.T, s *store.Store, name, parent string) store.Layer {
	t.Helper()
	ctx := context.Background()
	l, err := s.Create(ctx, name, parent, store.CreateOptions{Labels: map[string]string{"of": name}})
	ok(t, err)
	w, can := s.Driver.(driver.Writer)
	if !can {
		t.Skip("this driver writes through a mount only")
	}
	_, err = w.Write(ctx, l.ID, bytes.NewReader(layerTar(t,
		tar.Header{Name: "etc/", Typeflag: tar.TypeDir},
		tar.Header{Name: "etc/" + name, Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "bin/", Typeflag: tar.TypeDir},
		tar.Header{Name: "bin/.wh.busybox", Typeflag: tar.TypeReg},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "etc/" + name},
	)), tree.ApplyOptions{})
	ok(t, err)
	return l
}

func second[T any](_ T, err error) error { return err }

// shown lists all that a layer shows, but for the time of its root, which is that of
// the layer's making.
func shown(t *testing.T, s *store.Store, name string) (list []string) {
	t.Helper()
	l, err := s.Layer(name)
	ok(t, err)
	v, err := s.Driver.View(l.ID)
	ok(t, err)
	defer v.Close()
	var out bytes.Buffer
	ok(t, tree.WriteAll(context.Background(), &out, v))
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		ok(t, err)
		data, err := io.ReadAll(r)
		ok(t, err)
		if h.Name == "./" {
			h.ModTime = time.Time{}
			delete(h.PAXRecords, "mtime")
		}
		list = append(list, fmt.Sprintf("%+v %s", *h, digest.FromBytes(data)))
	}
}

func diff(t *testing.T, s *store.Store, name string) []byte {
	t.Helper()
	l, err := s.Layer(name)
	ok(t, err)
	var out bytes.Buffer
	ok(t, Archive(context.Background(), s, &l, &out))
	return out.Bytes()
}

// Who changes the driver keeps images by their ids, and containers with what was
// written in them.
func TestLayersMoveBetweenDrivers(t *testing.T) {
	ctx := context.Background()
	all := layers(t)
	from := newStore(t, "overlay2")
	images, err := Load(ctx, from, bytes.NewReader(dockerArchive(t, []string{"app"}, all)), LoadOptions{})
	ok(t, err)
	written(t, from, "step", images[0].Top())
	ok(t, second(from.Commit(ctx, "step", "done", store.Committed, nil)))
	written(t, from, "work", "done")
	for _, name := range drivers.Names() {
		t.Run(name, func(t *testing.T) {
			if name == "overlay2" {
				name = "aufs" // and back
			}
			to, back := newStore(t, name), newStore(t, "overlay2")
			for _, s := range [][2]*store.Store{{from, to}, {to, back}} {
				i, err := Copy(ctx, s[0], s[1], images[0], LoadOptions{})
				if err != nil || i.ID != images[0].ID || !slices.Equal(i.Layers, images[0].Layers) || !slices.Equal(i.Names, images[0].Names) {
					t.Fatalf("the copy is %+v, %v; want %+v", i, err, images[0])
				}
				l, err := CopyLayer(ctx, s[0], s[1], "work", "", LoadOptions{})
				if err != nil || l.Kind != store.Active || l.Name != "work" || l.Parent != "done" || l.Labels["of"] != "work" || l.Lease != "" {
					t.Fatalf("the copy is %+v, %v", l, err)
				}
				for n, layer := range images[0].Layers {
					if got := diff(t, s[1], layer); !bytes.Equal(got, all[n]) {
						t.Errorf("layer %d of the image changed", n)
					}
				}
				for _, layer := range []string{"done", "work"} {
					if !slices.Equal(shown(t, s[1], layer), shown(t, from, layer)) {
						t.Errorf("%s shows another tree", layer)
					}
				}
				// All is there now, and one that is not the same is not taken for it.
				ok(t, second(CopyLayer(ctx, s[0], s[1], "done", "", LoadOptions{})))
				if _, err := CopyLayer(ctx, s[0], s[1], "work", "done", LoadOptions{}); !errors.Is(err, driver.ErrExists) {
					t.Errorf("a copy under a name that is taken: %v", err)
				}
				if list, err := s[1].Layers(); err != nil || len(list) != 4 {
					t.Errorf("%d layers, %v", len(list), err)
				}
				if leases, err := s[1].Leases(); err != nil || len(leases) > 0 {
					t.Errorf("left leases: %v, %v", leases, err)
				}
			}
		})
	}
}

// What fails on the way leaves no half of it.
func TestFailedCopyLeavesNothing(t *testing.T) {
	ctx := context.Background()
	from, to := newStore(t, "overlay2"), newStore(t, "vfs")
	images, err := Load(ctx, from, bytes.NewReader(dockerArchive(t, []string{"app"}, layers(t))), LoadOptions{})
	ok(t, err)
	written(t, from, "work", images[0].Top())
	stopped, stop := context.WithCancel(ctx)
	_, err = CopyLayer(stopped, from, to, "work", "", LoadOptions{Progress: func(layer string, done, _ int64) {
		if layer == "work" && done > 0 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a copy that was stopped: %v", err)
	}
	list, err := to.Layers()
	ok(t, err)
	for _, l := range list {
		if l.Kind != store.ImageKind {
			t.Errorf("left: %+v", l)
		}
	}
	ok(t, second(CopyLayer(ctx, from, to, "work", "mine", LoadOptions{})))
	if !slices.Equal(shown(t, to, "mine"), shown(t, from, "work")) {
		t.Error("the second try shows another tree")
	}
}
