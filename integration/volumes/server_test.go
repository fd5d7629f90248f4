//go:build integration

package volumes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/backends/serve/servetest"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/fusefs/control"
)

// The tests start this binary again as the command that serves.
func TestMain(m *testing.M) {
	target := os.Getenv("LAMINA_TEST_TARGET")
	if target == "" {
		os.Exit(m.Run())
	}
	if err := serveVolumes(target, os.Getenv("LAMINA_TEST_FILES")); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// request is what the tests ask the server for.
type request struct {
	Op   string `json:"op"` // create, remove, resize, stats
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// stats is what the server's volumes have counted.
type stats struct {
	Flushes, Discards, Zeros, Discarded, Opened int64
}

const socketName = "volumes.control"

func serveVolumes(target, files string) error {
	if !fusefs.InBackground() {
		_, err := fusefs.Background()
		return err
	}
	v := servetest.New(files, 64<<10)
	logger := fusefs.NewLogger("server")
	socket, err := control.Listen(filepath.Join(files, socketName), func(line []byte) (any, error) {
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, err
		}
		switch r.Op {
		case "create":
			return nil, v.Create(r.Name, r.Size)
		case "remove":
			return nil, v.Remove(r.Name)
		case "resize":
			return nil, v.Resize(r.Name, r.Size)
		}
		return stats{v.Flushes.Load(), v.Discards.Load(), v.Zeros.Load(), v.Discarded.Load(), v.Opened.Load()}, nil
	}, logger)
	if err != nil {
		return err
	}
	defer socket.Close()
	return fusefs.Serve(fusefs.ServeConfig{
		Mount: func() (fusefs.Mounted, error) {
			return serve.MountVolumes(serve.VolumesConfig{Volumes: v, Target: target, Source: "testpool", Log: logger})
		},
		Log:         logger,
		LogFile:     filepath.Join(files, "log"),
		AutoUnmount: true,
	})
}

// A server is one in another process.
type server struct {
	t      testing.TB
	target string
	files  string
	pid    int
	socket *control.Client
}

// nobody is an ordinary user with an account, as fusermount3 wants it.
const nobody = 65534

// start starts a server as a user and ends it with the test.
func start(t testing.TB, uid uint32) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, also to act as somebody else")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	base, err := os.MkdirTemp("/var/tmp", "lamina-volumes")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, target: filepath.Join(base, "mnt"), files: filepath.Join(base, "files")}
	for _, dir := range []string{base, s.target, s.files, filepath.Join(base, "run")} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, int(uid), int(uid))); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(base, "run"))
	cmd := s.command(uid, "/proc/self/exe")
	cmd.Env = append(os.Environ(), "LAMINA_TEST_TARGET="+s.target, "LAMINA_TEST_FILES="+s.files)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(base)
		t.Fatalf("start the server: %v: %s", err, out)
	}
	t.Cleanup(func() {
		unix.Unmount(s.target, unix.MNT_DETACH)
		if s.socket != nil {
			s.socket.Close()
		}
		eventually(t, "the server to end", func() bool { return !alive(s.pid) })
		if log, _ := os.ReadFile(filepath.Join(s.files, "log")); len(log) > 0 && t.Failed() {
			t.Logf("log of the server:\n%s", log)
		}
		os.RemoveAll(base)
	})
	c, err := fusefs.Dial(s.target)
	if err != nil {
		t.Fatal(err)
	}
	s.pid = c.Info.PID
	c.Close()
	if s.socket, err = control.Dial(filepath.Join(s.files, socketName)); err != nil {
		t.Fatal(err)
	}
	return s
}

// command prepares a program that runs as a user, in a directory of its own.
func (s *server) command(uid uint32, argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = filepath.Dir(s.target)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// run runs a program as a user and returns what it prints; it must succeed.
func (s *server) run(uid uint32, argv ...string) string {
	s.t.Helper()
	cmd := s.command(uid, argv...)
	done := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer done.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// need skips a test for want of a program.
func need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

func (s *server) ask(op, name string, size int64, result any) {
	s.t.Helper()
	if err := s.socket.Call(op, request{op, name, size}, result); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) create(name string, size int64) string {
	s.t.Helper()
	s.ask("create", name, size, nil)
	return filepath.Join(s.target, name)
}

func (s *server) stats() (st stats) {
	s.t.Helper()
	s.ask("stats", "", 0, &st)
	return st
}

// loop attaches a loop device with direct I/O to a file.
func (s *server) loop(file string) string {
	s.t.Helper()
	need(s.t, "losetup")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		s.t.Skipf("no loop devices here: %v", err)
	}
	dev := s.run(0, "losetup", "--find", "--show", "--direct-io=on", file)
	s.t.Cleanup(func() { exec.Command("losetup", "-d", dev).Run() })
	if dio := s.run(0, "losetup", "-n", "-O", "DIO", dev); dio != "1" {
		s.t.Errorf("%s does not do direct I/O (%q)", dev, dio)
	}
	return dev
}

// mount mounts a filesystem and unmounts it with the test at the latest.
func (s *server) mount(dev string) string {
	s.t.Helper()
	dir := filepath.Join(filepath.Dir(s.target), "fs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.run(0, "mount", dev, dir)
	s.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 20 s for %s", what)
		}
	}
}
