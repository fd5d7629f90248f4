//go:build integration

package clients

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An engine is what mounts a client's layers.
type engine struct {
	name    string
	program string // to be the client's mount_program; none: the client mounts kernel overlayfs
	magic   int64  // what statfs(2) says of such a mount
}

// fuseOverlayMagic is the type of mounts that clients take for fuse-overlayfs.
const fuseOverlayMagic = 0x65735546

var kernelEngine = engine{"kernel overlayfs", "", unix.OVERLAYFS_SUPER_MAGIC}

func laminaEngine() engine { return engine{"lamina", program, fuseOverlayMagic} }

// A client is podman and buildah of one user over one engine, with a store and
// configuration files of their own.
type client struct {
	*sandbox
	engine engine
}

// newClient writes the files that tell podman and buildah where their store is
// and who mounts it.
func newClient(t *testing.T, a account, e engine) *client {
	t.Helper()
	c := &client{newSandbox(t, a, e.name, e.program), e}
	t.Cleanup(func() { c.tearDown(t) })
	c.useEngine(t, e)
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
	c.env = append(c.env,
		"BUILDAH_ISOLATION=chroot",
		"CONTAINERS_STORAGE_CONF="+c.path("storage.conf"),
		"CONTAINERS_CONF="+c.path("containers.conf"),
		"CONTAINERS_REGISTRIES_CONF="+c.path("registries.conf"))
	return c
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

// checkIdle fails the test if the client left a mount or a server.
func (c *client) checkIdle(t testing.TB) {
	t.Helper()
	if left := c.mounts(t); len(left) > 0 {
		t.Errorf("%s: left mounted:\n%s", c.label, strings.Join(left, "\n"))
	}
	c.checkNoServers(t)
}

// tearDown removes the client's containers, processes and mounts.
func (c *client) tearDown(t *testing.T) {
	if _, err := c.try("podman", "rm", "--all", "--force", "--time=0"); err != nil {
		t.Log(err)
	}
	if !c.account.root() { // ends the process that holds the namespaces
		if _, err := c.try("podman", "system", "migrate"); err != nil {
			t.Log(err)
		}
	}
	unix.Unmount(c.path("store/overlay"), unix.MNT_DETACH) // is mounted for root only
}
