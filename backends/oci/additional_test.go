package oci

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/store"
)

// An administrator loads images once, for everybody: nobody's own store holds them
// again, and nobody can change them.
func TestAdditionalStoreIsReadAndNeverChanged(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"overlay2", "aufs", "vfs"} {
		t.Run(name, func(t *testing.T) {
			shared := newStore(t, name)
			images, err := Load(ctx, shared, bytes.NewReader(dockerArchive(t, []string{"app"}, layers(t))), LoadOptions{})
			ok(t, err)
			image := images[0]
			written(t, shared, "step", image.Top())
			ok(t, second(shared.Commit(ctx, "step", "", store.Committed, nil)))
			written(t, shared, "unfinished", image.Top())
			before := listing(t, shared.Root())

			open := func(additional ...string) *store.Store {
				s, err := store.Open(ctx, store.Config{Root: filepath.Join(filepath.Dir(shared.Root()), "own"), Driver: name, Volatile: true, Additional: additional})
				ok(t, err)
				t.Cleanup(func() { s.Close() })
				return s
			}
			s := open(shared.Root())
			if i, err := s.Image("app"); err != nil || i.ID != image.ID || i.Store != shared.Root() {
				t.Errorf("the image is %+v, %v", i, err)
			}
			for n, l := range image.Layers {
				if !bytes.Equal(diff(t, s, l), layers(t)[n]) {
					t.Errorf("layer %d is saved as other bytes", n)
				}
			}
			written(t, s, "work", "step")
			if got, want := shown(t, s, "step"), shown(t, shared, "step"); !slices.Equal(got, want) {
				t.Errorf("step shows %q, want %q", got, want)
			}
			ok(t, second(s.Commit(ctx, "work", "", store.Committed, nil)))
			ok(t, second(s.Create(ctx, "next", "work", store.CreateOptions{})))
			// Loading what is there costs nothing, and makes an image of one's own.
			ok(t, second(Load(ctx, s, bytes.NewReader(dockerArchive(t, []string{"mine"}, layers(t))), LoadOptions{})))
			if list, err := s.Layers(); err != nil || len(list) != 2 {
				t.Errorf("%d layers of its own, %v; want work and next", len(list), err)
			}
			if problems, err := s.Check(ctx, false); err != nil || len(problems) > 0 {
				t.Errorf("check: %+v, %v", problems, err)
			}

			for what, err := range map[string]error{
				"remove a layer":  s.Remove(ctx, "step"),
				"commit a layer":  second(s.Commit(ctx, "step", "", store.Committed, nil)),
				"label a layer":   second(s.SetLabels("step", map[string]string{"a": "b"})),
				"remove an image": s.RemoveImage("app"),
			} {
				if !errors.Is(err, store.ErrOnlyRead) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if _, err := s.Create(ctx, "on", "unfinished", store.CreateOptions{}); !errors.Is(err, driver.ErrNotFound) {
				t.Errorf("building on a layer that may still change: %v", err)
			}
			l, err := s.Layer("step")
			ok(t, err)
			for what, err := range map[string]error{
				"remove": s.Driver.Remove(ctx, l.ID), "commit": s.Driver.Commit(ctx, l.ID), "create": s.Driver.Create(ctx, l.ID, "", driver.CreateOptions{}),
			} {
				if !errors.Is(err, driver.ErrElsewhere) && !errors.Is(err, driver.ErrCommitted) && !errors.Is(err, driver.ErrExists) {
					t.Errorf("the driver: %s: %v", what, err)
				}
			}

			// Without it nothing is lost, and check says what is missing.
			alone := open()
			problems, err := alone.Check(ctx, true)
			if err != nil || len(problems) != 2 {
				t.Errorf("without the additional store check finds %+v, %v", problems, err)
			}
			ok(t, s.Remove(ctx, "next"))
			ok(t, s.Remove(ctx, "work"))
			if problems, err := s.Check(ctx, false); err != nil || len(problems) > 0 {
				t.Errorf("check: %+v, %v", problems, err)
			}
			if after := listing(t, shared.Root()); !slices.Equal(after, before) {
				t.Errorf("the additional store changed: %q, before %q", after, before)
			}
		})
	}
}

// What its trees cannot do is refused, and so is what would be read as something else.
func TestAdditionalStoresThatDoNotFitAreRefused(t *testing.T) {
	ctx := context.Background()
	made := func(driver string, options ...string) string {
		s, err := store.Open(ctx, store.Config{Root: t.TempDir(), Driver: driver, Volatile: true, Options: options})
		ok(t, err)
		ok(t, second(s.NewLease(0))) // with the first change there is a file
		ok(t, s.Close())
		return s.Root()
	}
	open := func(driver, additional string) error {
		s, err := store.Open(ctx, store.Config{Root: t.TempDir(), Driver: driver, Volatile: true, Additional: []string{additional}})
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := open("overlay", made("overlay")); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("hard links into another store: %v", err)
	}
	if err := open("vfs", made("overlay2")); err != nil {
		t.Errorf("a store that has nothing for the driver: %v", err)
	}
	if err := open("vfs", t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is no store: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := open("overlay2", made("overlay2", "userxattr=true")); !errors.Is(err, driver.ErrUnsupported) {
			t.Errorf("marks in other xattrs: %v", err)
		}
	}
}

// listing tells of every file what would change if it did.
func listing(t testing.TB, root string) (list []string) {
	t.Helper()
	ok(t, filepath.Walk(root, func(path string, st os.FileInfo, err error) error {
		if err == nil {
			list = append(list, path+" "+st.Mode().String()+" "+st.ModTime().String())
		}
		return err
	}))
	return list
}
