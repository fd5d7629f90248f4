//go:build integration

package pool

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
)

// program is lamina, built once for all tests.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lamina-pool")
	if err != nil {
		panic(err)
	}
	os.Chmod(dir, 0o755)
	program = filepath.Join(dir, "lamina")
	build := exec.Command("go", "build", "-o", program, "github.com/laminafs/lamina/cmd/lamina")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// A stage is a pool called tank of one user.
type stage struct {
	*testing.T
	uid   uint32
	dir   string   // the user's
	loops []string // devices that were made
}

// daemonUID is an ordinary user with an account, as fusermount3 wants it.
const daemonUID = 1

func newStage(t *testing.T, uid uint32) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, also to act as somebody else")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "lamina-pool") // not tmpfs, which has no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{T: t, uid: uid, dir: dir}
	for _, d := range []string{dir, s.path("run"), s.path("fs"), s.path("volumes")} {
		if err := errors.Join(os.MkdirAll(d, 0o700), os.Chown(d, int(uid), int(uid))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for range 4 { // filesystems above loop devices, each perhaps twice
			unix.Unmount(s.path("fs"), unix.MNT_DETACH)
		}
		s.dropLoops()
		s.try("lamina", "pool", "stop", "--force", "tank")
		if log, err := os.ReadFile(s.path("pools/tank/server.log")); err == nil && t.Failed() {
			t.Logf("log of the server:\n%s", log)
		}
		unix.Unmount(s.path("volumes"), unix.MNT_DETACH)
		os.RemoveAll(dir)
	})
	s.lamina("pool", "create", "--size", "4G", "tank")
	return s
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

// command prepares a program of the stage's user.
func (s *stage) command(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	if argv[0] == "lamina" {
		cmd.Path, cmd.Err = program, nil
	}
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LAMINA_RUNTIME_DIR="+s.path("run"), "LAMINA_POOL_ROOT="+s.path("pools"), "HOME="+s.dir,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.uid}}
	return cmd
}

// try runs a program, for two minutes at most.
func (s *stage) try(argv ...string) (string, error) {
	cmd := s.command(argv...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	done := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer done.Stop()
	err := cmd.Wait()
	return strings.TrimSpace(out.String()), err
}

// run runs a program that must succeed and returns what it prints.
func (s *stage) run(argv ...string) string {
	s.Helper()
	out, err := s.try(argv...)
	if err != nil {
		s.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

func (s *stage) lamina(argv ...string) string {
	s.Helper()
	return s.run(append([]string{"lamina"}, argv...)...)
}

// server returns the pid of the pool's server.
func (s *stage) server() int {
	s.Helper()
	var st poolserver.Status
	if err := json.Unmarshal([]byte(s.lamina("pool", "status", "--json", "tank")), &st); err != nil {
		s.Fatal(err)
	}
	return st.Server.PID
}

// kill ends the server as a crash would, and takes away what lies above it.
func (s *stage) kill(pid int) {
	s.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		s.Fatal(err)
	}
	eventually(s, "the server to be gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH || zombie(pid) })
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// loop exports a volume as a loop device. Where its server was killed the kernel
// no longer knows the file by its path, so the stage remembers the devices.
func (s *stage) loop(volume string) string {
	s.Helper()
	device := s.lamina("volume", "export", "--loop", "tank", volume)
	s.loops = append(s.loops, device)
	return device
}

// dropLoops takes the loop devices away.
func (s *stage) dropLoops() {
	for _, device := range s.loops {
		s.try("losetup", "-d", device)
	}
	s.loops = nil
}

// need skips a test for want of a program.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

func needLoop(t *testing.T) {
	t.Helper()
	need(t, "losetup")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}
