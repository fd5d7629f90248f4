//go:build integration

package clients

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ordinaryUser is the account whose containers are rootless; made when missing.
const ordinaryUser = "lamina-ci"

// An account is who runs a client.
type account struct {
	name     string
	uid, gid uint32
}

func (a account) root() bool { return a.uid == 0 }

func (a account) credential() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
}

// rootAccount runs everything in the initial user namespace.
var rootAccount = account{name: "root"}

// rootlessAccount returns a user with subordinate ids, or skips the test with
// what is missing for that.
func rootlessAccount(t *testing.T) account {
	t.Helper()
	need(t, "newuidmap", "fusermount3")
	if st, err := os.Stat("/dev/fuse"); err != nil || st.Mode()&0o006 != 0o006 {
		t.Skip("/dev/fuse is closed to ordinary users: chmod 666 /dev/fuse")
	}
	entry, err := user.Lookup(ordinaryUser)
	if err != nil {
		if out, err := exec.Command("useradd", "-m", ordinaryUser).CombinedOutput(); err != nil {
			t.Skipf("useradd -m %s: %v: %s", ordinaryUser, err, out)
		}
		if entry, err = user.Lookup(ordinaryUser); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"/etc/subuid", "/etc/subgid"} {
		if err := hasRange(table, ordinaryUser); err != nil {
			t.Skipf("%v; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", err, ordinaryUser)
		}
	}
	a := account{name: ordinaryUser, uid: number(t, entry.Uid), gid: number(t, entry.Gid)}
	probe := exec.Command("unshare", "--user", "true")
	probe.SysProcAttr = a.credential()
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("ordinary users may not make user namespaces: %s", out)
	}
	return a
}

// hasRange reports whether a table of subordinate ids has a line for name.
func hasRange(table, name string) error {
	f, err := os.Open(table)
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), name+":") {
			return nil
		}
	}
	return fmt.Errorf("%s has no ids for %s", table, name)
}

func number(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// eachAccount runs a test as root and as the ordinary user.
func eachAccount(t *testing.T, test func(t *testing.T, a account)) {
	t.Run("root", func(t *testing.T) { need(t); test(t, rootAccount) })
	t.Run("rootless", func(t *testing.T) { test(t, rootlessAccount(t)) })
}
