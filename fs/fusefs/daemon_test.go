package fusefs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// emptyUnion is a mounted filesystem that holds nothing.
type emptyUnion struct {
	fakeUnion
	dev *device
	srv *fuse.Server
}

// emptyFS answers statfs(2); all else is not there.
type emptyFS struct{ fuse.RawFileSystem }

func (emptyFS) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status { return fuse.OK }

func mountEmpty(target string) (Mounted, error) {
	d, err := openDevice(target, MountFlags{FSName: "empty", Subtype: "lamina"})
	if err != nil {
		return nil, err
	}
	srv, err := fuse.NewServer(emptyFS{fuse.NewDefaultRawFileSystem()}, fmt.Sprintf("/dev/fd/%d", d.fd), &fuse.MountOptions{})
	if err != nil {
		return nil, err
	}
	go srv.Serve()
	return &emptyUnion{dev: d, srv: srv}, nil
}

func (u *emptyUnion) Info() Info              { return u.dev.info() }
func (u *emptyUnion) Wait() error             { u.srv.Wait(); return nil }
func (u *emptyUnion) Unmount(lazy bool) error { return u.dev.unmount(lazy) }

// The tests below start this test binary again to act as the command: it
// serves the directory in LAMINA_TEST_MOUNT.
func TestMain(m *testing.M) {
	if probe := os.Getenv("LAMINA_TEST_PROBE"); probe != "" && len(os.Args) == 1 {
		fmt.Println(probe) // what Examine's child prints
		os.Exit(0)
	}
	target := os.Getenv("LAMINA_TEST_MOUNT")
	if target == "" {
		os.Exit(m.Run())
	}
	if err := actAsCommand(target); err != nil {
		fmt.Fprintln(os.Stderr, "command:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func actAsCommand(target string) error {
	if !InBackground() && os.Getenv("LAMINA_TEST_FOREGROUND") == "" {
		info, err := Background()
		if err == nil {
			fmt.Println("mounted", info.Target)
		}
		return err
	}
	return Serve(ServeConfig{
		Mount: func() (Mounted, error) {
			if os.Getenv("LAMINA_TEST_DIE") != "" {
				unix.Kill(os.Getpid(), unix.SIGKILL)
			}
			return mountEmpty(target)
		},
		Log:     NewLogger("command"),
		LogFile: os.Getenv("LAMINA_TEST_LOG"),
		Version: "9.9",

		AutoUnmount: os.Getenv("LAMINA_TEST_AUTO") != "",
	})
}

// command prepares a run of the command on target.
func command(t *testing.T, target string, env ...string) *exec.Cmd {
	t.Helper()
	needMount(t)
	if os.Getenv("LAMINA_RUNTIME_DIR") == "" {
		t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"fuse-overlayfs", "-o", "upperdir=/seen/by/callers", target}
	cmd.Env = append(append(os.Environ(), "LAMINA_TEST_MOUNT="+target), env...)
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	return cmd
}

// alive reports whether a process runs. One that ended and that its parent has
// not asked about yet does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestCommandReturnsWithAUsableMountAndClosedStderr(t *testing.T) {
	target := t.TempDir()
	logFile := filepath.Join(t.TempDir(), "log")
	cmd := command(t, target, "LAMINA_TEST_LOG="+logFile)
	done := time.AfterFunc(20*time.Second, func() { panic("the caller waits for EOF of stderr for ever") })
	out, err := cmd.CombinedOutput() // waits for EOF
	done.Stop()
	if err != nil || string(out) != "mounted "+target+"\n" {
		t.Fatalf("%v: %s", err, out)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil || st.Type != 0x65735546 {
		t.Errorf("statfs right after the command: type %#x, %v", st.Type, err)
	}
	c, err := Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pid := c.Info.PID
	if c.Info.Version != "9.9" || c.Info.Source != "empty" {
		t.Errorf("info %+v", c.Info)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if want := strings.Join(cmd.Args, "\x00") + "\x00"; err != nil || string(cmdline) != want {
		t.Errorf("callers find the server by its arguments: %q, want %q (%v)", cmdline, want, err)
	}
	for what, want := range map[string]string{"cwd": "/", "fd/0": os.DevNull, "fd/1": os.DevNull, "fd/2": os.DevNull} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, what)); err != nil || got != want {
			t.Errorf("%s of the server is %s (%v), want %s", what, got, err, want)
		}
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("the server is in session %d (%v), want one of its own", sid, err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(strings.TrimPrefix(line, "Max open files")); strings.HasPrefix(line, "Max open files") && f[0] != f[1] {
			t.Errorf("open files: soft limit %s, hard limit %s", f[0], f[1])
		}
	}
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the counters in the log", func() bool {
		text, err := os.ReadFile(logFile)
		return err == nil && strings.Contains(string(text), "counters of "+target)
	})
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to end", func() bool { return !alive(pid) })
	if mounts, err := mountsOn(target); err != nil || len(mounts) != 0 {
		t.Errorf("%d mounts left after SIGTERM (%v)", len(mounts), err)
	}
	if left, err := os.ReadDir(os.Getenv("LAMINA_RUNTIME_DIR")); err != nil || len(left) != 0 {
		t.Errorf("left beside the socket: %v (%v)", left, err)
	}
}

func TestErrorsOfTheServerReachTheCaller(t *testing.T) {
	for name, c := range map[string]struct {
		target string
		env    []string
		says   string
	}{
		"mount point missing": {filepath.Join(t.TempDir(), "none"), nil, "mkdir -p"},
		"killed at once":      {t.TempDir(), []string{"LAMINA_TEST_DIE=1"}, "before it was ready: signal: killed"},
		"bad log file":        {t.TempDir(), []string{"LAMINA_TEST_LOG=/no/such/dir/log"}, "option logfile"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := command(t, c.target, c.env...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit status 1", err)
			}
			if text := string(out); !strings.Contains(text, c.says) || strings.Count(text, "\n") != 1 {
				t.Errorf("printed %q, want one line that says %q", text, c.says)
			}
			if mounts, err := mountsOn(c.target); err != nil || len(mounts) != 0 {
				t.Errorf("%d mounts left (%v)", len(mounts), err)
			}
		})
	}
}

func TestAutoUnmountRemovesTheMountOfAKilledServerOnly(t *testing.T) {
	target := t.TempDir()
	serve := func() int {
		if out, err := command(t, target, "LAMINA_TEST_AUTO=1").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c, err := Dial(target)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Info.PID
	}
	pid := serve()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the guard to unmount", func() bool { m, err := mountsOn(target); return err == nil && len(m) == 0 })
	// A mount that somebody else took away is followed by another one, which
	// the guard of the first must leave alone.
	pid = serve()
	if err := Unmount(target, false); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("other", target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to end", func() bool { return !alive(pid) })
	time.Sleep(100 * time.Millisecond)
	if m, err := mountsOn(target); err != nil || len(m) != 1 {
		t.Errorf("%d mounts on the target (%v), want the other one", len(m), err)
	}
}

// Ctrl-C while mounting must not leave a mount behind that nobody knows of.
func TestInterruptedCommandLeavesNoMount(t *testing.T) {
	target := t.TempDir()
	logFile := filepath.Join(t.TempDir(), "log")
	cmd := command(t, target, "LAMINA_READY_FD=3", "LAMINA_TEST_LOG="+logFile)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{w}
	r.Close()
	defer w.Close()
	if err := cmd.Run(); err == nil {
		t.Error("the server reports success")
	}
	if m, err := mountsOn(target); err != nil || len(m) != 0 {
		t.Errorf("%d mounts left (%v)", len(m), err)
	}
	if text, err := os.ReadFile(logFile); err != nil || !strings.Contains(string(text), "was killed") {
		t.Errorf("logged %q (%v), want the reason", text, err)
	}
}

func TestForegroundServesUntilInterruptedAlsoWhenBusy(t *testing.T) {
	target := t.TempDir()
	cmd := command(t, target, "LAMINA_TEST_FOREGROUND=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	eventually(t, "the mount", func() bool { m, err := mountsOn(target); return err == nil && len(m) == 1 })
	eventually(t, "the server's socket", func() bool {
		c, err := Dial(target)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	busy, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mount to go out of sight", func() bool { m, err := mountsOn(target); return err == nil && len(m) == 0 })
	if !alive(cmd.Process.Pid) {
		t.Error("the server ended while a file was open")
	}
	unix.Close(busy)
	said, _ := io.ReadAll(stderr) // ends with the process
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(said), "is in use") {
		t.Errorf("printed %q, want a word about the busy mount", said)
	}
}
