package drivertest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func reads(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}

// A layer is made, written to, committed, built upon, and taken away.
func testLifecycle(t *testing.T, b *bench) {
	b = &bench{b.subject, b.engine, true}
	r := b.rig(t)
	r.committed("base", "", func(dir string) {
		write(t, dir+"/etc/motd", "hello")
		write(t, dir+"/etc/passwd", "root")
	})
	r.create("one", "base")
	r.create("two", "base")
	dir := r.mount("one")
	reads(t, dir+"/etc/motd", "hello")
	time.Sleep(b.subject.TimeUnit)
	write(t, dir+"/etc/motd", "changed")
	r.ok(os.Remove(dir + "/etc/passwd"))
	if at, err := r.Mounts("one"); err != nil || len(at) > 1 || len(at) == 1 && at[0] != dir {
		t.Errorf("mounted on %q, %v; want %s", at, err, dir)
	}
	sibling := r.mount("two")
	reads(t, sibling+"/etc/motd", "hello")
	r.unmount("one")
	r.unmount("two")

	r.reopen(b)
	l, err := r.Layer("one")
	if err != nil || l.Parent() != "base" || l.Committed || l.Created.IsZero() {
		t.Errorf("after reopening: %+v, %v", l, err)
	}
	dir = r.mount("one")
	reads(t, dir+"/etc/motd", "changed")
	r.unmount("one")
	want := []string{"C etc", "C etc/motd", "D etc/passwd"}
	if got := r.changes("one"); !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if got := r.changes("two"); len(got) > 0 {
		t.Errorf("a layer that nobody wrote to has changes: %q", got)
	}

	r.ok(r.Commit(r.ctx, "one"))
	target := filepath.Join(tempDir(t), "view")
	r.ok(os.Mkdir(target, 0o755))
	at, err := r.Mount(r.ctx, "one", driver.MountOptions{Target: target})
	r.ok(err)
	reads(t, at+"/etc/motd", "changed")
	if err := os.WriteFile(at+"/etc/motd", nil, 0o644); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
		t.Errorf("a committed layer can be written to: %v", err)
	}
	r.ok(r.Unmount(r.ctx, "one", target, false))

	r.ok(r.Remove(r.ctx, "one"))
	r.ok(r.Remove(r.ctx, "two"))
	r.ok(r.Remove(r.ctx, "base"))
	if ids, err := r.Layers(); err != nil || len(ids) > 0 {
		t.Errorf("left: %q, %v", ids, err)
	}
}

// changes lists what a layer changes as docker diff prints it.
func (r *rig) changes(id string) (list []string) {
	r.t.Helper()
	r.ok(r.Changes(r.ctx, id, func(c tree.Change) error {
		list = append(list, string(c.Kind)+" "+c.Path)
		return nil
	}))
	return list
}

func (r *rig) diff(id string) []byte {
	r.t.Helper()
	var out bytes.Buffer
	r.ok(r.Diff(r.ctx, id, &out))
	return out.Bytes()
}

func (r *rig) apply(id, parent string, archive []byte) {
	r.t.Helper()
	r.create(id, parent)
	_, err := r.Apply(r.ctx, id, bytes.NewReader(archive), tree.ApplyOptions{})
	r.ok(err)
	r.ok(r.Commit(r.ctx, id))
}

func (r *rig) view(id string, owners bool) dump {
	r.t.Helper()
	v, err := r.View(id)
	r.ok(err)
	defer v.Close()
	return dumpView(r.t, v, owners)
}

// What cannot be done is refused with a cause that programs can tell.
func testErrors(t *testing.T, b *bench) {
	r := b.rig(t)
	create := func(id, parent string) error { return r.Create(r.ctx, id, parent, driver.CreateOptions{}) }
	for _, id := range []string{"", ".", "..", "a/b", "-x", ".x", "a b", "a\x00", "a:b", "ä", "lock", "tmp", strings.Repeat("x", driver.MaxID+1)} {
		r.fails(create(id, ""), driver.ErrBadID)
	}
	r.create("empty", "") // as podman and moby call one
	r.ok(r.Remove(r.ctx, "empty"))
	r.create("active", "")
	r.fails(create("active", ""), driver.ErrExists)
	r.fails(create("child", "active"), driver.ErrActive)
	r.fails(create("child", "missing"), driver.ErrNotFound)
	r.fails(r.Remove(r.ctx, "missing"), driver.ErrNotFound)
	r.fails(r.Commit(r.ctx, "missing"), driver.ErrNotFound)
	r.fails(r.Diff(r.ctx, "missing", io.Discard), driver.ErrNotFound)
	r.fails(r.Unmount(r.ctx, "missing", "", false), driver.ErrNotFound)
	_, err := r.Mount(r.ctx, "missing", driver.MountOptions{})
	r.fails(err, driver.ErrNotFound)
	_, err = r.Usage(r.ctx, "missing")
	r.fails(err, driver.ErrNotFound)

	target := filepath.Join(tempDir(t), "view")
	r.ok(os.Mkdir(target, 0o755))
	_, err = r.Mount(r.ctx, "active", driver.MountOptions{Target: target})
	r.ok(err)
	_, err = r.Mount(r.ctx, "active", driver.MountOptions{})
	r.fails(err, driver.ErrMounted)
	r.fails(r.Commit(r.ctx, "active"), driver.ErrMounted)
	r.fails(r.Remove(r.ctx, "active"), driver.ErrMounted)
	r.fails(r.Unmount(r.ctx, "active", target+"/elsewhere", false), driver.ErrNotMounted)
	open, err := os.Open(target)
	r.ok(err)
	if err := r.Unmount(r.ctx, "active", target, false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmounting what is in use: %v, want EBUSY", err)
	}
	open.Close()
	r.ok(r.Unmount(r.ctx, "active", target, false))

	r.ok(r.Commit(r.ctx, "active"))
	r.fails(r.Commit(r.ctx, "active"), driver.ErrCommitted)
	_, err = r.Apply(r.ctx, "active", strings.NewReader(""), tree.ApplyOptions{})
	r.fails(err, driver.ErrCommitted)
	r.create("child", "active")
	r.fails(r.Remove(r.ctx, "active"), driver.ErrHasChildren)
	r.ok(r.Remove(r.ctx, "child"))
	r.ok(r.Remove(r.ctx, "active"))

	r.create("filled", "")
	_, err = r.Apply(r.ctx, "filled", bytes.NewReader(archive(t, entry{name: "f", data: "x"})), tree.ApplyOptions{})
	r.ok(err)
	_, err = r.Mount(r.ctx, "filled", driver.MountOptions{})
	r.fails(err, driver.ErrFilled)

	if _, err := b.subject.Open(driver.Config{Root: r.root, Engine: "fast"}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("an engine that does not exist: %v", err)
	}
	if _, err := b.subject.Open(driver.Config{Root: r.root, Options: []string{"bogus=1"}}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("an option that does not exist: %v", err)
	}
}

func testStatus(t *testing.T, b *bench) {
	r := b.rig(t)
	fields, err := r.Status(r.ctx)
	r.ok(err)
	for _, name := range []string{"Root Dir", "Backing Filesystem", "Engine"} {
		if !slices.ContainsFunc(fields, func(f driver.Field) bool { return f.Name == name && f.Value != "" }) {
			t.Errorf("status has no %q: %+v", name, fields)
		}
	}
}
