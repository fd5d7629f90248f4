//go:build integration

package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stageVar tells a later start of the test binary where it runs: as root in a
// mount namespace, or as the root of a user namespace.
const stageVar = "LAMINA_KERNEL_STAGE"

const (
	stageRoot     = "root"
	stageRootless = "rootless"
)

var (
	// unfit says why the machine cannot run these tests, nil if it can.
	unfit error
	// program is the lamina under test.
	program string
	// memory is a tmpfs, disk a directory on the machine's own filesystem;
	// both have short names, because mount options must fit into a page.
	memory, disk string
	// rootless tells that marks are kept in user.overlay.*.
	rootless bool
)

func TestMain(m *testing.M) {
	stage := os.Getenv(stageVar)
	if stage == "" {
		if status, err := startInside(); err == nil {
			os.Exit(status)
		} else { // a container without CAP_SYS_ADMIN
			unfit = fmt.Errorf("mounting overlayfs needs a mount namespace: %w", err)
		}
	}
	rootless = stage == stageRootless
	status, err := runInside(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// startInside runs this binary again, with the same arguments, in a mount
// namespace where it is root, and returns its exit status; an error means that
// it did not start.
func startInside() (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageVar+"="+stageRoot)
	if os.Geteuid() != 0 {
		cmd = exec.Command("unshare", append([]string{"-Urm", "/proc/self/exe"}, os.Args[1:]...)...)
		cmd.Env = append(os.Environ(), stageVar+"="+stageRootless)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// runInside gives the namespace its scratch directories and runs the tests.
func runInside(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("/var/tmp", "lk")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	memory, disk = filepath.Join(dir, "m"), filepath.Join(dir, "d")
	for _, d := range []string{dir, memory, disk} {
		os.Mkdir(d, 0o755)
		if err := os.Chmod(d, 0o755); err != nil {
			return 0, err
		}
	}
	if unfit == nil {
		if err := unix.Mount("tmpfs", memory, "tmpfs", 0, "mode=755"); err != nil {
			return 0, fmt.Errorf("mount a scratch tmpfs: %w", err)
		}
		defer unix.Unmount(memory, unix.MNT_DETACH)
		if program, err = findProgram(dir); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// findProgram returns the lamina to test: the one that LAMINA_BINARY names, or
// one built from this source into dir.
func findProgram(dir string) (string, error) {
	if given := os.Getenv("LAMINA_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	built := filepath.Join(dir, "lamina")
	cmd := exec.Command("go", "build", "-trimpath", "-o", built, "../../cmd/lamina")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build lamina: %w\n%s", err, out)
	}
	return built, nil
}

// need skips a test on a machine that cannot mount both.
func need(t *testing.T) {
	t.Helper()
	if unfit != nil {
		t.Skip(unfit)
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("%v: chmod 666 /dev/fuse", err)
	}
	f.Close()
	dir := filepath.Join(memory, "probe")
	for _, d := range []string{"l", "u", "w", "t"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	defer os.RemoveAll(dir)
	data := fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", dir)
	if rootless {
		data += ",userxattr"
	}
	if err := unix.Mount("overlay", dir+"/t", "overlay", 0, data); err != nil {
		t.Skipf("no kernel overlayfs to compare with: %v", err)
	}
	if err := unix.Unmount(dir+"/t", 0); err != nil {
		t.Fatal(err)
	}
}

// lockThread keeps a test on one thread of the system, so that it can take on
// the ids of other users and its own umask there, apart from the process.
func lockThread(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%s: want a number", name, s)
	}
	return n
}
