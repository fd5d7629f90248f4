//go:build integration

package kernel

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ordinaryUser is the account whose unions are rootless; made when missing.
const ordinaryUser = "lamina-ci"

// The same holds for the root of a user namespace that an ordinary user made:
// the tests of this package run again in one.
func TestRootless(t *testing.T) {
	if rootless {
		t.Skip("this is the run that it starts")
	}
	need(t)
	uid, gid := account(t)
	dir := filepath.Join(memory, "rootless")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "test") // where everybody may read it
	copyFile(t, "/proc/self/exe", self)
	copyFile(t, program, filepath.Join(dir, "lamina"))
	credential := &syscall.Credential{Uid: uid, Gid: gid}
	namespace := []string{"unshare", "--user", "--map-root-user", "--map-auto", "--mount"}
	for _, argv := range [][]string{namespace, {"unshare", "-Urm"}} {
		probe := exec.Command(argv[0], append(argv[1:], "true")...)
		probe.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		out, err := probe.CombinedOutput()
		if err == nil {
			namespace = argv
			break
		}
		t.Logf("%s: %v: %s", strings.Join(argv, " "), err, out)
		namespace = nil
	}
	if namespace == nil {
		t.Skip("ordinary users may not make user namespaces here")
	}
	args := append(namespace[1:], self, "-test.v", "-test.run=LockStep|Interchange|Sequences", "-test.timeout=6h")
	cmd := exec.Command(namespace[0], args...)
	cmd.Env = append(os.Environ(), stageVar+"="+stageRootless, "LAMINA_BINARY="+filepath.Join(dir, "lamina"), "HOME=/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a user namespace: %v", err)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Errorf("skipped in a user namespace, where root's run was not")
	}
	t.Logf("in a user namespace:\n%s", out)
}

// account returns a user, with subordinate ids if the machine's useradd gives
// some.
func account(t *testing.T) (uid, gid uint32) {
	t.Helper()
	entry, err := user.Lookup(ordinaryUser)
	if err != nil {
		if out, err := exec.Command("useradd", "-m", ordinaryUser).CombinedOutput(); err != nil {
			t.Skipf("useradd -m %s: %v: %s", ordinaryUser, err, out)
		}
		if entry, err = user.Lookup(ordinaryUser); err != nil {
			t.Fatal(err)
		}
	}
	u, err := strconv.ParseUint(entry.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	g, err := strconv.ParseUint(entry.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat("/dev/fuse"); err != nil || st.Mode()&0o006 != 0o006 {
		t.Skip("/dev/fuse is closed to ordinary users: chmod 666 /dev/fuse")
	}
	return uint32(u), uint32(g)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
