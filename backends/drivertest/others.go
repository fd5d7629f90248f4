package drivertest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asEnv says in a process of [Others] as whom it runs.
const asEnv = "LAMINA_DRIVERTEST_AS"

// othersEnv asks for [Others].
const othersEnv = "LAMINA_DRIVERTEST_OTHERS"

// anybody is the user that root becomes for the tests of ordinary users.
const anybody = 65534

// Others runs TestConformance of the same test binary as an ordinary user and
// as the root of a user namespace.
func Others(t *testing.T) {
	if os.Getenv(asEnv) != "" {
		t.Skip("these are the other users")
	}
	if os.Getenv(othersEnv) == "" {
		t.Skipf("the suite as other users takes minutes; set %s=1, or run make driver-test", othersEnv)
	}
	for _, who := range []struct {
		name string
		attr *syscall.SysProcAttr
	}{
		{"an ordinary user", ordinary()},
		{"root of a user namespace", namespaced()},
	} {
		t.Run(who.name, func(t *testing.T) {
			if who.attr == nil {
				t.Skip("the suite runs as that user already")
			}
			// Not t.TempDir, whose parent nobody else can enter.
			dir, err := os.MkdirTemp("", "drivertest-")
			if err == nil {
				err = os.Chmod(dir, 0o777)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			bin := filepath.Join(dir, "driver.test")
			copyProgram(t, bin)
			cmd := exec.Command(bin, "-test.run=^TestConformance$", "-test.v")
			cmd.SysProcAttr = who.attr
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), asEnv+"="+who.name, "TMPDIR="+dir, "HOME="+dir, "LAMINA_RUNTIME_DIR="+filepath.Join(dir, "run"))
			out, err := cmd.CombinedOutput()
			for l := range strings.Lines(string(out)) {
				if strings.Contains(l, "SKIP") || strings.Contains(l, "no such engine") || err != nil {
					t.Log(strings.TrimRight(l, "\n"))
				}
			}
			if err != nil {
				t.Fatalf("as %s: %v", who.name, err)
			}
		})
	}
}

// ordinary is nil for somebody who is one.
func ordinary() *syscall.SysProcAttr {
	if os.Geteuid() != 0 || !initialNamespace() {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: anybody, Gid: anybody}}
}

// namespaced has many ids when root asks for it, as with subordinate ids, and
// one when somebody else does.
func namespaced() *syscall.SysProcAttr {
	size := 1
	if os.Geteuid() == 0 {
		size = 65536
	}
	if !initialNamespace() {
		return nil
	}
	first := func(id int) int {
		if size > 1 {
			return 100000
		}
		return id
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: first(os.Getuid()), Size: size}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: first(os.Getgid()), Size: size}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: size == 1},
	}
}

func initialNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(data)), " ") == "0 0 4294967295"
}

func copyProgram(t testing.TB, to string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}
