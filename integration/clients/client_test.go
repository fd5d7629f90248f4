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

	"golang.org/x/sys/unix"
)

// patience is how long one command of a client may take. The slowest takes a
// few seconds; more is a hang.
const patience = 90 * time.Second

// An engine is what mounts a client's layers.
type engine struct {
	name    string
	program string // to be the client's mount_program; none: the client mounts kernel overlayfs
	magic   int64  // what statfs(2) says of such a mount
}

var kernelEngine = engine{"kernel overlayfs", "", unix.OVERLAYFS_SUPER_MAGIC}

func laminaEngine() engine { return engine{"lamina", program, 0x65735546} }

// A client is podman and buildah of one user over one engine, with a store and
// configuration files of their own.
type client struct {
	account account
	engine  engine
	dir     string // everything of this client; closed to nobody
	home    string // belongs to the account
	env     []string
}

// newClient writes the files that tell podman and buildah where their store is
// and who mounts it. What the client leaves behind is cleaned up, and told.
func newClient(t *testing.T, a account, e engine) *client {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "lamina-c-") // podman takes no runroot of more than 50 bytes
	if err != nil {
		t.Fatal(err)
	}
	c := &client{account: a, engine: e, dir: dir, home: filepath.Join(dir, "home")}
	t.Cleanup(func() { c.tearDown(t) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(c.home, 0o700), os.Mkdir(c.path("xdg"), 0o700), c.installProgram()); err != nil {
		t.Fatal(err)
	}
	c.env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + c.home,
		"TMPDIR=/var/tmp",
		"XDG_RUNTIME_DIR=" + c.path("xdg"),
		"BUILDAH_ISOLATION=chroot",
	}, c.configure(t)...)
	return c
}

// path returns where a file of the client's user is.
func (c *client) path(name string) string { return filepath.Join(c.home, name) }

// mountProgram is the link by which the client calls the program under test.
// Processes of it are told from all others by the directory.
func (c *client) mountProgram() string { return filepath.Join(c.dir, "fuse-overlayfs") }

func (c *client) installProgram() error {
	if c.engine.program == "" {
		return nil
	}
	text, err := os.ReadFile(c.engine.program)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(c.dir, "lamina"), text, 0o755),
		os.Symlink("lamina", c.mountProgram()))
}

// configure writes the configuration files into the client's home, gives that to
// its user and returns the variables that name the files.
func (c *client) configure(t *testing.T) []string {
	t.Helper()
	c.useEngine(t, c.engine)
	// Limits as low as those of any machine, and nothing that needs a network,
	// a delegated cgroup or a journal.
	c.write(t, "containers.conf", `[containers]
cgroups = "disabled"
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "`+c.path("tmp")+`"
`)
	c.write(t, "registries.conf", "unqualified-search-registries = []\n")
	c.write(t, ".config/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	give := func(path string, _ os.DirEntry, _ error) error {
		return os.Lchown(path, int(c.account.uid), int(c.account.gid))
	}
	if err := filepath.WalkDir(c.home, give); err != nil {
		t.Fatal(err)
	}
	return []string{
		"CONTAINERS_STORAGE_CONF=" + c.path("storage.conf"),
		"CONTAINERS_CONF=" + c.path("containers.conf"),
		"CONTAINERS_REGISTRIES_CONF=" + c.path("registries.conf"),
	}
}

// useEngine makes podman and buildah mount the layers of their store by another
// engine from now on.
func (c *client) useEngine(t testing.TB, e engine) {
	t.Helper()
	text := fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrootless_storage_path = %[2]q\nrunroot = %q\n", "overlay", c.path("store"), c.path("run"))
	if e.program != "" {
		text += fmt.Sprintf("[storage.options.overlay]\nmount_program = %q\n", c.mountProgram())
	}
	c.write(t, "storage.conf", text)
	c.engine = e
	// A store notes that it has a mount_program, and then takes any fuse-overlayfs
	// of the machine when the configuration names none.
	if note := c.path("store/overlay/.has-mount-program"); e.program == "" && exists(note) {
		if err := os.WriteFile(note, []byte("false"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// write makes a file in the client's home, which belongs to its user.
func (c *client) write(t testing.TB, name, text string) {
	t.Helper()
	path := c.path(name)
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(path), 0o755),
		os.WriteFile(path, []byte(text), 0o644),
		os.Lchown(path, int(c.account.uid), int(c.account.gid)),
	); err != nil {
		t.Fatal(err)
	}
}

// command prepares a command of the client's user. It ends when ctx does.
func (c *client) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.home, c.env, c.account.credential()
	cmd.WaitDelay = time.Second // then complain of whoever keeps the pipes open
	return cmd
}

// try runs a command and returns what it printed; the error has what it
// complained of.
func (c *client) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := c.command(ctx, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s, %s: %q: %w\n%s%s", c.account.name, c.engine.name, argv, errors.Join(err, ctx.Err()), &stdout, &stderr)
	}
	return stdout.String(), nil
}

// ok runs a command that must succeed and returns what it printed, without the
// last line end.
func (c *client) ok(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := c.try(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// inside returns the command that runs argv where the client's mounts are: in
// its user and mount namespace when it is rootless.
func (c *client) inside(argv ...string) []string {
	if c.account.root() {
		return argv
	}
	return append([]string{"podman", "unshare"}, argv...)
}

// mounts returns the lines of mountinfo that lie below the store and serve
// layers. (The store is mounted on itself while it is in use.)
func (c *client) mounts(t testing.TB) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(c.ok(t, c.inside("cat", "/proc/self/mountinfo")...)) {
		if target := strings.Fields(line)[4]; strings.HasPrefix(target, c.path("store/overlay")+"/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// servers returns the processes of the program under test.
func (c *client) servers() []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well formed
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.TrimSuffix(exe, " (deleted)") == filepath.Join(c.dir, "lamina") {
			var pid int
			fmt.Sscanf(link, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// checkIdle fails the test if the client left a mount, or a server five seconds
// after its last unmount.
func (c *client) checkIdle(t testing.TB) {
	t.Helper()
	if left := c.mounts(t); len(left) > 0 {
		t.Errorf("%s, %s: left mounted:\n%s", c.account.name, c.engine.name, strings.Join(left, "\n"))
	}
	for end := time.Now().Add(5 * time.Second); len(c.servers()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: servers run on without a mount: %v", c.account.name, c.servers())
			return
		}
	}
}

// tearDown removes the client's containers, processes, mounts and files.
func (c *client) tearDown(t *testing.T) {
	if _, err := c.try("podman", "rm", "--all", "--force", "--time=0"); err != nil {
		t.Log(err)
	}
	if !c.account.root() { // ends the process that holds the namespaces
		if _, err := c.try("podman", "system", "migrate"); err != nil {
			t.Log(err)
		}
	}
	for _, pid := range c.servers() {
		syscall.Kill(pid, syscall.SIGKILL) // gone by now, or its mount is broken anyway
	}
	unix.Unmount(c.path("store/overlay"), unix.MNT_DETACH) // is mounted for root only
	if err := os.RemoveAll(c.dir); err != nil {
		t.Log(err)
	}
}
