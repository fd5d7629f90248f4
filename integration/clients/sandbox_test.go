//go:build integration

package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long one command may take. The slowest takes half a minute on
// a slow machine; more is a hang.
const patience = 90 * time.Second

// A sandbox is a directory in which one user runs commands, with a copy of the
// program under test whose processes can be told from all others.
type sandbox struct {
	account account
	label   string // for messages
	dir     string // closed to nobody
	home    string // belongs to the account
	env     []string
}

// newSandbox makes a sandbox with a program, or none. Its directory and the
// processes of the program end with the test.
func newSandbox(t *testing.T, a account, label, program string) *sandbox {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "lamina-c-") // podman takes no runroot of more than 50 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &sandbox{account: a, label: a.name + ", " + label, dir: dir, home: filepath.Join(dir, "home")}
	t.Cleanup(func() {
		for _, pid := range s.servers() {
			syscall.Kill(pid, syscall.SIGKILL) // gone by now, or its mount is broken anyway
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Log(err)
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o755), s.install(program)); err != nil {
		t.Fatal(err)
	}
	for _, private := range []string{s.home, s.path("xdg"), s.path("scratch")} {
		if err := os.Mkdir(private, 0o700); err != nil {
			t.Fatal(err)
		}
		s.own(t, private)
	}
	s.env = []string{
		"PATH=" + dir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + s.home,
		"TMPDIR=" + s.path("scratch"),
		"XDG_RUNTIME_DIR=" + s.path("xdg"),
	}
	return s
}

// path returns where a file of the sandbox's user is.
func (s *sandbox) path(name string) string { return filepath.Join(s.home, name) }

// mountProgram is the link by which others call the program under test.
func (s *sandbox) mountProgram() string { return filepath.Join(s.dir, "fuse-overlayfs") }

func (s *sandbox) install(program string) error {
	if program == "" {
		return nil
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.dir, "lamina"), text, 0o755),
		os.Symlink("lamina", s.mountProgram()))
}

func (s *sandbox) own(t testing.TB, path string) {
	t.Helper()
	if err := os.Lchown(path, int(s.account.uid), int(s.account.gid)); err != nil {
		t.Fatal(err)
	}
}

// write makes a file in the sandbox's home. It and the directories that it needs
// belong to the user.
func (s *sandbox) write(t testing.TB, name, text string) {
	t.Helper()
	path := s.path(name)
	for dir := filepath.Dir(path); !exists(dir); dir = filepath.Dir(dir) {
		defer s.own(t, dir)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	s.own(t, path)
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// try runs a command of the user in its home and returns what it printed, read
// to the end: a background process that keeps the pipe makes it fail. The error
// has what the command complained of.
func (s *sandbox) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.home, s.env, s.account.credential()
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %q: %w\n%s%s", s.label, argv, errors.Join(err, ctx.Err()), &stdout, &stderr)
	}
	return stdout.String(), nil
}

// ok runs a command that must succeed and returns what it printed, without the
// last line end.
func (s *sandbox) ok(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := s.try(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// servers returns the processes of the program under test.
func (s *sandbox) servers() []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well formed
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.TrimSuffix(exe, " (deleted)") == filepath.Join(s.dir, "lamina") {
			var pid int
			fmt.Sscanf(link, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// checkNoServers fails the test if a server runs five seconds after the last
// unmount.
func (s *sandbox) checkNoServers(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); len(s.servers()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: servers run on without a mount: %v", s.label, s.servers())
			return
		}
	}
}
