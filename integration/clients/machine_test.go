//go:build integration

package clients

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVar tells the second start of the test binary that it is in its own
// mount namespace; what it is set to does not matter.
const insideVar = "LAMINA_CLIENTS_INSIDE"

// unfit says why the machine cannot run these tests, nil if it can.
var unfit error

// program is the lamina under test.
var program string

func TestMain(m *testing.M) {
	switch {
	case os.Geteuid() != 0:
		unfit = errors.New("clients are tested as root and as a user made by root: run as root")
	case os.Getenv(insideVar) == "":
		if status, err := startInside(); err == nil {
			os.Exit(status)
		} else { // a container without CAP_SYS_ADMIN
			unfit = fmt.Errorf("start in a mount namespace: %w", err)
		}
	default:
		unfit = settle()
	}
	dir, err := os.MkdirTemp("/var/tmp", "lamina-bin-")
	if err == nil && unfit == nil {
		program, err = findProgram(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// startInside runs this binary again, with the same arguments, in a mount
// namespace of its own, and returns its exit status; an error means that it did
// not start.
func startInside() (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// settle gives the namespace what clients keep outside their store, so that they
// share nothing with the machine's, and the cgroup hierarchy that crun asks for.
func settle() error {
	for _, dir := range []string{"/run", "/dev/shm", "/var/lib/containers"} {
		if !exists(dir) {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
			return fmt.Errorf("mount a private %s: %w", dir, err)
		}
	}
	if err := os.Mkdir("/run/lock", 0o1777); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount one cgroup2 hierarchy, as crun wants it: %w", err)
	}
	return nil
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

// need skips a test unless the machine has all these programs.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if unfit != nil {
		t.Skip(unfit)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}
