package union_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// hostDir makes a directory for layers, beside it what they must not lead to.
func hostDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"l0", "l1", "up", "work", "outside"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"secret", "outside/secret"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// buildHost fills a directory of the host; DIR in the text is the directory.
func buildHost(t *testing.T, dir, text string) {
	t.Helper()
	root, err := layer.OpenHostShared(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := memlayer.Build(root, strings.ReplaceAll(text, "DIR", dir)); err != nil {
		t.Fatal(err)
	}
}

// mountHost mounts the layers of a directory of the host.
func mountHost(t *testing.T, dir string, handles int) *tree {
	t.Helper()
	open := func(name string, openDir func(string) (layer.Dir, error)) union.Branch {
		root, err := openDir(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return union.Branch{Name: name, Root: root}
	}
	up, work := open("up", layer.OpenHostShared), open("work", layer.OpenHostShared)
	fs, err := union.New(union.Config{
		Lowers: []union.Branch{open("l0", layer.OpenHost), open("l1", layer.OpenHost)},
		Upper:  &up, Work: &work,
		Options: union.Options{Self: union.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, MaxHandles: handles},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return &tree{FS: fs}
}

// prefix is the namespace of marks that this process can write.
func prefix() string {
	if os.Geteuid() == 0 {
		return "trusted.overlay."
	}
	return "user.overlay."
}

// TestHostLayersLeadNowhere uses layers on a real filesystem whose links and
// redirects point at files of the host.
func TestHostLayersLeadNowhere(t *testing.T) {
	dir := hostDir(t)
	buildHost(t, dir, strings.ReplaceAll(`
		l0/abs   l DIR/secret
		l0/rel   l ../secret
		l0/dir   l ../outside
		l0/proc  l /proc/self/root
		l1/dir/x f "x"
		l0/r/a   f "a"
		l0/r     d MARKredirect="/../outside"
		l0/s/a   f "a"
		l0/s     d MARKredirect="/dir"
		l0/m     f size=10 MARKmetacopy="" MARKredirect="/rel"
		l0/n     f size=10 MARKmetacopy="" MARKredirect="/dir/secret"
		l1/rel   l ../secret
		l1/n     l DIR/secret
		l1/b     l DIR/outside
		up/e     l DIR/outside
		l0/e/in  f "in"
	`, "MARK", prefix()))
	if err := unix.Setxattr(dir+"/l0/s", "user.overlay.redirect", []byte("/b"), 0); err != nil {
		t.Skipf("no user xattrs in %s: %v", dir, err)
	}
	u := mountHost(t, dir, 0)
	for path, want := range map[string]string{
		"abs": "-> " + dir + "/secret", "rel": "-> ../secret", "dir": "-> ../outside", "dir/secret": "ENOTDIR", "dir/x": "ENOTDIR",
		"proc/etc": "ENOTDIR", "r": "EIO", "s": "dir a", "m": "EIO", "n": "EIO", "e/secret": "ENOTDIR", "e/in": "ENOTDIR",
	} {
		if got := look(u, path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	for _, path := range []string{"dir/new", "e/new", "proc/tmp/new"} {
		if err := create(path, 0o600, uint32(os.Geteuid()))(u); errnoOf(err) != unix.ENOTDIR {
			t.Errorf("making %s: %v, want ENOTDIR", path, err)
		}
	}
	ransack(t, u)
	wantUntouched(t, dir)
}

// wantUntouched fails if anything was written outside of the layers.
func wantUntouched(t *testing.T, dir string) {
	t.Helper()
	for _, file := range []string{"secret", "outside/secret"} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(text) != secret {
			t.Errorf("%s is %q, %v", file, text, err)
		}
	}
	if list, err := os.ReadDir(filepath.Join(dir, "outside")); err != nil || len(list) != 1 {
		t.Errorf("outside of the layers are %v, %v", list, err)
	}
}

// TestLayerThatTurnsIntoALink exchanges directories of mounted layers for links
// while their descriptors are closed: they are opened anew by name.
func TestLayerThatTurnsIntoALink(t *testing.T) {
	dir := hostDir(t)
	buildHost(t, dir, `
		l0/d/secret    f "harmless"
		l0/e/sub/secret f "harmless"
		up/w/secret    f "harmless"
		up/v/x         f "x"
	`)
	u := mountHost(t, dir, 1)
	for _, path := range []string{"d", "e/sub", "w", "v"} {
		look(u, path) // the listing is known from now on
	}
	var held []*union.Node
	for _, name := range []string{"d", "e", "w", "v"} {
		n, _, err := u.Lookup(u.Root(), name)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, n)
	}
	defer func() {
		for _, n := range held {
			u.Forget(n, 1)
		}
	}()
	for k := range 100 { // closes what is open
		if err := mkdir("fill"+strings.Repeat("x", k), 0o755, uint32(os.Geteuid()))(u); err != nil {
			t.Fatal(err)
		}
		look(u, "fill"+strings.Repeat("x", k))
	}
	for _, path := range []string{"l0/d", "l0/e/sub", "up/w", "up/v"} {
		if err := os.Rename(filepath.Join(dir, path), filepath.Join(dir, "work", filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, "outside"), filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"d/secret", "e/sub/secret", "w/secret", "v/secret"} {
		if got := look(u, path); got != "ENOTDIR" { // opened anew: the directory is a link now
			t.Errorf("%s: %s, want ENOTDIR", path, got)
		}
		_ = write(path, "overwritten", 0)(u)
		_ = chmod(path, 0o777)(u)
		_ = unlink(path)(u)
	}
	_ = create("v/new", 0o600, uint32(os.Geteuid()))(u)
	_ = create("d/new", 0o600, uint32(os.Geteuid()))(u)
	ransack(t, u)
	wantUntouched(t, dir)
}

// TestHostLayersAsAnOrdinaryUser runs the two above once more without root's
// privileges.
func TestHostLayersAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: the other tests of host layers have run as an ordinary user already")
	}
	dir, err := os.MkdirTemp("", "lamina-hostile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	for path, mode := range map[string]os.FileMode{dir: 0o755, program: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const uid = 65534
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(tmp, uid, uid); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run", "TestHostLayersLeadNowhere|TestLayerThatTurns", "-test.v")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}
