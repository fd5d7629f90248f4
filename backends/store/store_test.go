package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
)

// crashAt makes this process a client that does one thing and dies in the
// driver's n-th step of it.
const crashEnv = "LAMINA_STORETEST"

func TestMain(m *testing.M) {
	if act := os.Getenv(crashEnv); act != "" {
		actAndDie(strings.Split(act, "\n"))
	}
	os.Exit(m.Run())
}

// dying is a driver that dies before or behind one operation.
type dying struct {
	driver.Driver
	at string
}

func (d dying) die(at string) {
	if d.at == at {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}

func (d dying) Create(ctx context.Context, id, parent string, o driver.CreateOptions) error {
	d.die("before create")
	err := d.Driver.Create(ctx, id, parent, o)
	d.die("behind create")
	return err
}

func (d dying) Commit(ctx context.Context, id string) error {
	d.die("before commit")
	err := d.Driver.Commit(ctx, id)
	d.die("behind commit")
	return err
}

func (d dying) Remove(ctx context.Context, id string) error {
	d.die("before remove")
	err := d.Driver.Remove(ctx, id)
	d.die("behind remove")
	return err
}

func actAndDie(args []string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Root: args[0], Driver: "vfs", Volatile: true})
	if err != nil {
		panic(err)
	}
	s.Driver = dying{s.Driver, args[1]}
	switch {
	case strings.HasSuffix(args[1], "create"):
		_, err = s.Create(ctx, "made", "base", CreateOptions{})
	case strings.HasSuffix(args[1], "commit"):
		_, err = s.Commit(ctx, "work", "done", Committed, nil)
	default:
		err = s.Remove(ctx, "work")
	}
	panic(err)
}

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{Root: root, Driver: "vfs", Volatile: true})
	ok(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func committed(t *testing.T, s *Store, name, parent string, kind Kind) Layer {
	t.Helper()
	ctx := context.Background()
	_, err := s.Create(ctx, name+".work", parent, CreateOptions{Labels: map[string]string{"a": "1"}})
	ok(t, err)
	l, err := s.Commit(ctx, name+".work", name, kind, map[string]string{"b": "2"})
	ok(t, err)
	return l
}

func names(t *testing.T, s *Store) (list []string) {
	t.Helper()
	layers, err := s.Layers()
	ok(t, err)
	for _, l := range layers {
		list = append(list, l.Name)
	}
	return list
}

func sound(t *testing.T, s *Store) {
	t.Helper()
	problems, err := s.Check(context.Background(), false)
	if err != nil || len(problems) > 0 {
		t.Errorf("the store is not sound: %+v, %v", problems, err)
	}
}

func TestLayersKeepTheirNamesAndLabels(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	s := open(t, root)
	base := committed(t, s, "base", "", Committed)
	_, err := s.Create(ctx, "work", "base", CreateOptions{})
	ok(t, err)
	ok(t, s.Close())
	s = open(t, root)
	l, err := s.Layer("base")
	ok(t, err)
	if l.Kind != Committed || l.Labels["a"] != "1" || l.Labels["b"] != "2" || l.Usage == nil || l.Created.IsZero() || l.ID != base.ID {
		t.Errorf("after reopening: %+v", l)
	}
	if l, err := s.Layer(base.ID[:8]); err != nil || l.Name != "base" {
		t.Errorf("by the beginning of its id: %+v, %v", l, err)
	}
	for _, c := range []struct {
		what  string
		err   error
		cause error
	}{
		{"create a taken name", second(s.Create(ctx, "base", "", CreateOptions{})), driver.ErrExists},
		{"create on an active layer", second(s.Create(ctx, "x", "work", CreateOptions{})), driver.ErrActive},
		{"create on nothing", second(s.Create(ctx, "x", "none", CreateOptions{})), driver.ErrNotFound},
		{"commit to a taken name", second(s.Commit(ctx, "work", "base", Committed, nil)), driver.ErrExists},
		{"commit twice", second(s.Commit(ctx, "base", "", Committed, nil)), driver.ErrCommitted},
		{"remove a parent", s.Remove(ctx, "base"), driver.ErrHasChildren},
		{"remove nothing", s.Remove(ctx, "none"), driver.ErrNotFound},
	} {
		if !errors.Is(c.err, c.cause) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.cause)
		}
	}
	if got := names(t, s); !slices.Equal(got, []string{"base", "work"}) {
		t.Errorf("after what was refused: %q", got)
	}
	sound(t, s)
	_, err = s.SetLabels("work", map[string]string{"x": "y"})
	ok(t, err)
	l, err = s.SetLabels("work", map[string]string{"x": "", "z": "1"})
	if _, there := l.Labels["x"]; err != nil || there || l.Labels["z"] != "1" {
		t.Errorf("labels %v, %v", l.Labels, err)
	}
	ok(t, s.Remove(ctx, "work"))
	ok(t, s.Remove(ctx, "base"))
	sound(t, s)
}

func second[T any](_ T, err error) error { return err }

// An image whose layer went away could not be started any more.
func TestGCKeepsWhatIsNeeded(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	committed(t, s, "i1", "", ImageKind)
	committed(t, s, "i2", "i1", ImageKind)
	committed(t, s, "i3", "i2", ImageKind)
	committed(t, s, "own", "i1", Committed)
	committed(t, s, "leased", "", ImageKind)
	ok(t, s.AddImage(Image{ID: "sha256:aaaa", Names: []string{"app:latest", "app:1"}, Layers: []string{"i1", "i2"}, Config: []byte("{}")}))
	lease, err := s.NewLease(time.Hour)
	ok(t, err)
	ok(t, s.Hold(lease.ID, "leased"))
	if err := s.Remove(ctx, "i2"); !errors.Is(err, driver.ErrHasChildren) {
		t.Errorf("removing a parent: %v", err)
	}
	c, err := s.GC(ctx, nil)
	if err != nil || !slices.Equal(c.Layers, []string{"i3"}) {
		t.Errorf("collected %q, %v; want i3", c.Layers, err)
	}
	if err := s.Remove(ctx, "i2"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing a layer of an image: %v", err)
	}
	ok(t, s.Release(lease.ID))
	ok(t, s.RemoveImage("app:1"))
	if i, err := s.Image("app"); err != nil || !slices.Equal(i.Names, []string{"app:latest"}) {
		t.Errorf("after removing one of two names: %+v, %v", i, err)
	}
	ok(t, s.RemoveImage("app"))
	if _, err := s.Image("sha256:aa"); !errors.Is(err, ErrNoImage) {
		t.Errorf("the image is still there: %v", err)
	}
	c, err = s.GC(ctx, nil)
	slices.Sort(c.Layers)
	if err != nil || !slices.Equal(c.Layers, []string{"i2", "leased"}) {
		t.Errorf("collected %q, %v; want i2 and leased", c.Layers, err)
	}
	if got := names(t, s); !slices.Equal(got, []string{"i1", "own"}) {
		t.Errorf("left: %q", got)
	}
	sound(t, s)
}

func TestLeasesRunOut(t *testing.T) {
	s := open(t, t.TempDir())
	committed(t, s, "l", "", ImageKind)
	lease, err := s.NewLease(time.Hour)
	ok(t, err)
	ok(t, s.Hold(lease.ID, "l"))
	if err := s.Remove(context.Background(), "l"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing what is leased: %v", err)
	}
	lease.Expires = time.Now().Add(-time.Second)
	ok(t, s.update(func(x *tx) error { return x.put("leases", lease.ID, lease) }))
	if err := s.Hold(lease.ID, "l"); !errors.Is(err, ErrNoLease) {
		t.Errorf("holding by a lease that ran out: %v", err)
	}
	c, err := s.GC(context.Background(), nil)
	if err != nil || len(c.Layers) != 1 {
		t.Errorf("collected %q, %v", c.Layers, err)
	}
}

// What a killed load was filling would stay for good: nobody knows its name.
func TestLayersBeingFilledGoWithTheirProcess(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	s := open(t, root)
	committed(t, s, "base", "", Committed)
	dying := open(t, root)
	lease, err := dying.OwnLease()
	ok(t, err)
	for _, name := range []string{"filling", "done", "named"} {
		_, err := dying.Create(ctx, name, "base", CreateOptions{Lease: lease.ID})
		ok(t, err)
	}
	_, err = dying.Commit(ctx, "done", "", ImageKind, nil)
	ok(t, err)
	_, err = dying.Rename("named", "kept")
	ok(t, err)
	ok(t, dying.Hold(lease.ID, "done"))
	if err := s.Remove(ctx, "done"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing what a living process holds: %v", err)
	}
	open(t, root)
	if got := names(t, s); !slices.Equal(got, []string{"base", "done", "filling", "kept"}) {
		t.Errorf("while the process lives: %q", got)
	}
	ok(t, dying.life.Close()) // which is what the kernel does
	s = open(t, root)
	if got := names(t, s); !slices.Equal(got, []string{"base", "done", "kept"}) {
		t.Errorf("when it is dead: %q", got)
	}
	if leases, err := s.Leases(); err != nil || len(leases) > 0 {
		t.Errorf("left leases: %v, %v", leases, err)
	}
	sound(t, s)
}

// Killed anywhere, the store knows no layer that the driver has not, and the other
// way round.
func TestKilledStoreIsSound(t *testing.T) {
	for _, at := range []string{"before create", "behind create", "before commit", "behind commit", "before remove", "behind remove"} {
		t.Run(at, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, root)
			committed(t, s, "base", "", Committed)
			_, err := s.Create(context.Background(), "work", "base", CreateOptions{})
			ok(t, err)
			ok(t, s.Close())
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), crashEnv+"="+root+"\n"+at)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("it was not killed: %v: %s", err, out)
			}
			s = open(t, root)
			sound(t, s)
			want := map[string][]string{
				"before create": {"base", "work"}, "behind create": {"base", "work"}, "before commit": {"base", "work"},
				"behind commit": {"base", "done"}, "before remove": {"base"}, "behind remove": {"base"},
			}[at]
			if got := names(t, s); !slices.Equal(got, want) {
				t.Errorf("layers %q, want %q", got, want)
			}
			if left, err := filepath.Glob(root + "/run/*.lock"); err != nil || len(left) != 1 {
				t.Errorf("locks of the dead: %q, %v", left, err)
			}
		})
	}
}

func TestCheckRepairsWhatWasLost(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	s := open(t, root)
	base := committed(t, s, "base", "", ImageKind)
	committed(t, s, "lost", "base", ImageKind)
	committed(t, s, "above", "lost", ImageKind)
	ok(t, s.AddImage(Image{ID: "sha256:bbbb", Names: []string{"broken"}, Layers: []string{"base", "lost"}, Config: []byte("{}")}))
	lost, err := s.Layer("lost")
	ok(t, err)
	ok(t, os.Remove(filepath.Join(root, "vfs/layers", lost.ID+".json")))
	ok(t, s.Driver.Create(ctx, "nameless", base.ID, driver.CreateOptions{}))
	problems, err := s.Check(ctx, false)
	ok(t, err)
	var objects []string
	for _, p := range problems {
		objects = append(objects, p.Object)
		if p.Repaired || p.Problem == "" || p.Repair == "" {
			t.Errorf("only looking: %+v", p)
		}
	}
	for _, want := range []string{"layer lost", "image broken", "layer id nameless"} {
		if !slices.Contains(objects, want) {
			t.Errorf("%s was not found: %+v", want, problems)
		}
	}
	_, err = s.Check(ctx, true)
	ok(t, err)
	if _, err := s.Image("broken"); !errors.Is(err, ErrNoImage) {
		t.Errorf("an image without one of its layers is still there: %v", err)
	}
	if ids, err := s.Driver.Layers(); err != nil || slices.Contains(ids, "nameless") {
		t.Errorf("driver has %q, %v", ids, err)
	}
	if _, err := s.Layer("base"); err != nil {
		t.Errorf("a sound layer is gone: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lamina.toml")
	t.Setenv("LAMINA_CONFIG", file)
	if _, err := ReadConfig(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a configuration that was named and is not there: %v", err)
	}
	ok(t, os.WriteFile(file, []byte("root = \"/x\"\ndriver = \"vfs\"\noptions = [\"vfs.size=1g\", \"overlay2.size=2g\"]\n"), 0o644))
	c, err := ReadConfig()
	if err != nil || c.Root != "/x" || c.Driver != "vfs" || c.Engine != driver.Auto {
		t.Errorf("%+v, %v", c, err)
	}
	if got := optionsOf("vfs", c.Options); !slices.Equal(got, []string{"vfs.size=1g"}) {
		t.Errorf("options of vfs: %q", got)
	}
	ok(t, os.WriteFile(file, []byte("root = \"/x\"\ndrivr = \"vfs\"\n"), 0o644))
	if _, err := ReadConfig(); err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "drivr") {
		t.Errorf("a setting that does not exist: %v", err)
	}
	t.Setenv("LAMINA_CONFIG", "")
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("XDG_DATA_HOME", dir)
	if root, err := DefaultRoot(); err != nil || unix.Geteuid() != 0 && root != dir+"/lamina" {
		t.Errorf("default root %s, %v", root, err)
	}
}

// One root serves several drivers; what one has is nothing that another has lost.
func TestDriversKeepApart(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	s := open(t, root)
	committed(t, s, "base", "", Committed)
	other, err := Open(ctx, Config{Root: root, Driver: "aufs", Volatile: true})
	ok(t, err)
	defer other.Close()
	if problems, err := other.Check(ctx, true); err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
	if _, err := other.Create(ctx, "base", "", CreateOptions{}); err != nil {
		t.Errorf("a name that another driver has: %v", err)
	}
	if got := names(t, s); !slices.Equal(got, []string{"base"}) {
		t.Errorf("left: %q", got)
	}
	sound(t, s)
	sound(t, other)
}
