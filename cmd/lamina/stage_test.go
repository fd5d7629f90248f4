package main

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A role is a kind of user; the program must work for each in its own way.
type role struct {
	name string
	uid  int // who runs the commands
}

// roles returns those that this machine can play.
func roles(t *testing.T) []role {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("playing root and an ordinary user needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	list := []role{{"root", 0}}
	if st, err := os.Stat("/dev/fuse"); err != nil || st.Mode()&0o006 != 0o006 {
		t.Log("no ordinary user: /dev/fuse is closed to others")
		return list
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Logf("no ordinary user: %v", err)
		return list
	}
	account, err := user.Lookup("daemon") // fusermount3 serves users with an account only
	if err != nil {
		t.Logf("no ordinary user: %v", err)
		return list
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return append(list, role{"user through fusermount3", uid})
}

// stage is a directory tree with layers, and a copy of the program, for one role.
type stage struct {
	t    *testing.T
	role role
	dir  string // belongs to the role
	bin  string // under any name: a directory of links
}

func newStage(t *testing.T, r role) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lamina-stage-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t, r, filepath.Join(dir, "home"), filepath.Join(dir, "bin")}
	t.Cleanup(func() {
		unix.Unmount(filepath.Join(s.dir, "mnt"), unix.MNT_DETACH)
		os.RemoveAll(dir)
	})
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Mkdir(s.dir, 0o755), os.Mkdir(s.bin, 0o755),
		os.WriteFile(filepath.Join(s.bin, "lamina"), self, 0o755),
		os.Symlink("lamina", filepath.Join(s.bin, "fuse-overlayfs")),
		os.Symlink("lamina", filepath.Join(s.bin, "mount.lamina")),
		os.Symlink("lamina", filepath.Join(s.bin, "umount.lamina")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"base", "app", "upper", "work", "mnt", "run"} {
		path := filepath.Join(s.dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.write("base/both", "base")
	s.write("base/base-only", "base")
	s.write("app/both", "app")
	if err := filepath.Walk(s.dir, func(path string, _ os.FileInfo, _ error) error { return os.Chown(path, r.uid, r.uid) }); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command of the stage's user in its directory. The first word may
// be a name of the program.
func (s *stage) run(argv ...string) result {
	s.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	if path := filepath.Join(s.bin, argv[0]); cmd.Err != nil || exists(path) {
		cmd.Path, cmd.Err = path, nil
	}
	cmd.Dir = s.dir
	cmd.Env = []string{"LAMINA_TEST_ACT=1", "XDG_RUNTIME_DIR=" + filepath.Join(s.dir, "run"), "XDG_DATA_HOME=" + filepath.Join(s.dir, "data"), "PATH=" + s.bin + ":/usr/bin:/bin:/usr/sbin:/sbin"}
	if s.role.uid == 0 {
		cmd.Env = append(cmd.Env, "LAMINA_RUNTIME_DIR="+filepath.Join(s.dir, "run", "lamina"), "LAMINA_POOL_ROOT="+filepath.Join(s.dir, "data", "lamina", "pools"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.role.uid), Gid: uint32(s.role.uid)}}
	return finish(s.t, cmd)
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// ok runs a command that must succeed and returns what it printed.
func (s *stage) ok(argv ...string) string {
	s.t.Helper()
	got := s.run(argv...)
	if got.status != 0 {
		s.t.Fatalf("%s: %q: status %d: %s", s.role.name, argv, got.status, got.stderr)
	}
	return got.stdout
}

// sh runs a shell script that must succeed.
func (s *stage) sh(script string) string { s.t.Helper(); return s.ok("sh", "-ec", script) }

func (s *stage) mounts() string {
	s.t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		s.t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if strings.Fields(line)[1] == filepath.Join(s.dir, "mnt") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "\n")
}

// each runs a test for every role.
func each(t *testing.T, test func(t *testing.T, s *stage)) {
	for _, r := range roles(t) {
		t.Run(r.name, func(t *testing.T) { test(t, newStage(t, r)) })
	}
}
