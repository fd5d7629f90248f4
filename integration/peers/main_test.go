//go:build integration

package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// bin holds lamina, the tools and nothing else.
var bin string

func TestMain(m *testing.M) {
	if tool, ok := tools[filepath.Base(os.Args[0])]; ok {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (int, error) {
	var err error
	if bin, err = os.MkdirTemp("/var/tmp", "lamina-peers-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	if err := os.Chmod(bin, 0o755); err != nil {
		return 0, err
	}
	if given := os.Getenv("LAMINA_BINARY"); given != "" {
		err = exec.Command("cp", given, filepath.Join(bin, "lamina")).Run()
	} else {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(bin, "lamina"), "../../cmd/lamina")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("build lamina: %w\n%s", err, out)
		}
	}
	if err != nil {
		return 0, err
	}
	self := filepath.Join(bin, "peers.test")
	own, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := exec.Command("cp", own, self).Run(); err != nil {
		return 0, err
	}
	for name := range tools {
		if err := os.Symlink("peers.test", filepath.Join(bin, name)); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// prelude gives scripts mnt and unmnt, for the directories l (the lower), u and
// w, on the directory m. $P begins the names of marks, $X those of attributes
// that only the privileged have.
const prelude = `set -u
mnt() { timeout 10 lamina mount --engine fuse --lower ${LOWERS:-l} --upper u --work w "$@" m; }
unmnt() { timeout 10 lamina umount m; }
remnt() { unmnt && mnt "$@"; }
request() { lamina stat --json m | tr ',{}' '\n\n\n' | sed -n "s/^ *\"$1\": *//p"; }
mkdir l u w m
`

// An account runs scripts.
type account struct {
	name    string
	prefix  []string
	attrs   *syscall.SysProcAttr
	environ []string
}

func accounts(t *testing.T) []account {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	rootless := account{
		name:    "rootless",
		prefix:  []string{"unshare", "--user", "--map-root-user", "--mount"},
		environ: []string{"P=user.overlay.", "X=user."},
	}
	if os.Geteuid() != 0 {
		return []account{rootless}
	}
	root := account{name: "root", environ: []string{"P=trusted.overlay.", "X=trusted."}}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Log("only as root: ", err)
		return []account{root}
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	rootless.attrs = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return []account{root, rootless}
}

// run runs a script in a new directory and returns what it prints.
func (a account) run(t *testing.T, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "lamina-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What a failed script has left mounted went with its namespace, or is
		// taken away here.
		exec.Command("umount", "-l", filepath.Join(dir, "m")).Run()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if a.attrs != nil {
		if err := os.Chown(dir, int(a.attrs.Credential.Uid), int(a.attrs.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv := append(append([]string{}, a.prefix...), "sh", "-c", prelude+script+"\nunmnt")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = a.attrs
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "XDG_RUNTIME_DIR=" + dir}, a.environ...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	return string(out)
}
