package fusefs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// needMount skips a test where this process may not mount by itself.
func needMount(t *testing.T) {
	t.Helper()
	if fd, err := openFuse(); err != nil {
		t.Skipf("mounting needs %s: %v", fuseDevice, err)
	} else {
		unix.Close(fd)
	}
	fd, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("mounting needs root or a user namespace: fsopen: %v", err)
	}
	unix.Close(fd)
}

// mountNobody mounts a device that nobody serves, and takes it away again at
// the end of the test.
func mountNobody(t *testing.T, target string, m MountFlags) *device {
	t.Helper()
	d, err := openDevice(target, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(d.fd) // aborts the connection, so that nothing can hang
		unix.Unmount(d.target, unix.MNT_DETACH)
	})
	return d
}

func TestMountShowsSourceTypeAndFlagsThatCallersLookFor(t *testing.T) {
	needMount(t)
	for _, c := range []struct {
		name   string
		mount  func(*device, *os.File, MountFlags) error
		via    string
		flags  MountFlags
		source string
		fstype string
		mnt    []string
		super  []string
	}{
		{
			"mount API", (*device).mountByAPI, viaMountAPI,
			MountFlags{FSName: "fuse-overlayfs", Subtype: "fuse-overlayfs", NoAtime: true, NoDev: true, AllowOther: true, DefaultPermissions: true},
			"fuse-overlayfs", "fuse.fuse-overlayfs", []string{"rw", "nodev", "noatime"}, []string{"rw", "default_permissions", "allow_other"},
		},
		{
			"mount(2)", (*device).mountByData, viaMount,
			MountFlags{FSName: "a, b", Subtype: "lamina", ReadOnly: true, NoSuid: true, NoExec: true, Propagation: "rprivate", MaxRead: 4096},
			"a, b", "fuse.lamina", []string{"ro", "nosuid", "noexec", "relatime"}, []string{"ro", "max_read=4096"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := openTarget(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			fd, err := openFuse()
			if err != nil {
				t.Fatal(err)
			}
			d := &device{fd: fd, via: c.via, target: dir.Name()}
			defer unix.Unmount(d.target, unix.MNT_DETACH)
			defer unix.Close(fd)
			if err := c.mount(d, dir, c.flags); err != nil {
				t.Fatal(err)
			}
			mounts, err := mountsOn(d.target)
			if err != nil || len(mounts) != 1 {
				t.Fatalf("the mount table has %d mounts on %s (%v), want one", len(mounts), d.target, err)
			}
			m := mounts[0]
			if m.Source != c.source || m.FSType != c.fstype {
				t.Errorf("mounted as %q of type %q, want %q of type %q", m.Source, m.FSType, c.source, c.fstype)
			}
			if devName(m) != d.devName() || uint64(m.ID) != d.mountID {
				t.Errorf("the mount table says dev %s id %d, the device says %s id %d", devName(m), m.ID, d.devName(), d.mountID)
			}
			for _, want := range c.mnt {
				if !slices.Contains(strings.Split(m.Options, ","), want) {
					t.Errorf("mount options %s lack %s", m.Options, want)
				}
			}
			for _, want := range c.super {
				if !slices.Contains(strings.Split(m.VFSOptions, ","), want) {
					t.Errorf("superblock options %s lack %s", m.VFSOptions, want)
				}
			}
			if err := d.unmount(true); err != nil {
				t.Error(err)
			}
			if again := d.unmount(true); again != nil {
				t.Errorf("unmounting twice: %v", again)
			}
		})
	}
}

func TestMountOnSymlinkAndRelativePath(t *testing.T) {
	needMount(t)
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(base, "m"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("m", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(base)
	for _, target := range []string{"m", "./link", filepath.Join(base, "link")} {
		d := mountNobody(t, target, MountFlags{FSName: "x", Subtype: "lamina"})
		if d.target != filepath.Join(base, "m") {
			t.Errorf("mounted %s on %s, want %s", target, d.target, filepath.Join(base, "m"))
		}
		if err := Unmount(target, false); err != nil {
			t.Error(err)
		}
	}
}

// A user whose mount point cannot be used must read why, and what to type.
func TestBadTargetsAreExplained(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target, says string
		errno        error
	}{
		{filepath.Join(dir, "no thing"), "mkdir -p '" + filepath.Join(dir, "no thing") + "'", nil},
		{file, "mounted on a directory", unix.ENOTDIR},
		{filepath.Join(file, "x"), file, unix.ENOTDIR},
	} {
		d, err := openDevice(c.target, MountFlags{})
		if err == nil {
			d.unmount(true)
			t.Fatalf("mounted on %s", c.target)
		}
		if !strings.Contains(err.Error(), c.says) || c.errno != nil && !errors.Is(err, c.errno) {
			t.Errorf("%s: got %q, want an error that says %q", c.target, err, c.says)
		}
	}
}

func TestUnmountSparesTheMountAboveOurs(t *testing.T) {
	needMount(t)
	dir := t.TempDir()
	ours := mountNobody(t, dir, MountFlags{FSName: "below", Subtype: "lamina"})
	// Mounting over it by path: opening the mount point would ask its server.
	if err := unix.Mount("above", ours.target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := ours.unmount(false); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "over it") {
		t.Errorf("unmounting a covered mount: %v, want EBUSY that tells of the cover", err)
	}
	mounts, err := mountsOn(ours.target)
	if err != nil || len(mounts) != 2 {
		t.Errorf("%d mounts left (%v), want both", len(mounts), err)
	}
	if err := unix.Unmount(ours.target, 0); err != nil {
		t.Error(err)
	}
	if err := ours.unmount(false); err != nil {
		t.Error(err)
	}
}

func TestDeadMountIsExplained(t *testing.T) {
	needMount(t)
	dir := t.TempDir()
	d := mountNobody(t, dir, MountFlags{FSName: "dead", Subtype: "lamina"})
	unix.Close(d.fd)
	_, err := openDevice(dir, MountFlags{FSName: "x", Subtype: "lamina"})
	d.fd, _ = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // for the cleanup
	if !errors.Is(err, unix.ENOTCONN) || !strings.Contains(err.Error(), "fusermount3 -u") {
		t.Errorf("got %v, want ENOTCONN and the command that removes the dead mount", err)
	}
	if err := d.unmount(false); err != nil {
		t.Errorf("a dead mount must be removable: %v", err)
	}
}

func TestHelperMounts(t *testing.T) {
	needMount(t)
	if _, err := findHelper(); err != nil {
		t.Skip(err)
	}
	d, err := mountByHelper(t.TempDir(), MountFlags{FSName: `odd, \ name`, Subtype: "lamina", NoAtime: true, NoDev: true, DefaultPermissions: true})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(d.fd)
	mounts, err := mountsOn(d.target)
	if err != nil || len(mounts) != 1 || mounts[0].Source != `odd, \ name` || mounts[0].FSType != "fuse.lamina" {
		t.Errorf("mount table: %+v (%v)", mounts, err)
	}
	if err := unmountByHelper(d.target, false); err != nil {
		t.Error(err)
	}
	if err := unmountByHelper(d.target, false); err == nil || !strings.Contains(err.Error(), "no mount of yours") {
		t.Errorf("unmounting what is not mounted: %v", err)
	}
}

// What fusermount3 prints is for people who know it; the command that mends
// the trouble must be in ours.
func TestEveryComplaintOfTheHelperHasARemedy(t *testing.T) {
	for said, remedy := range map[string]string{
		"fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf": "echo user_allow_other >> /etc/fuse.conf",
		"fusermount3: mountpoint /m not owned by user":                                                "chown",
		"fusermount3: user has no write access to mountpoint /m":                                      "chmod u+w /m",
		"fusermount3: fuse device not found, try 'modprobe fuse' first":                               "modprobe fuse",
		"fusermount3: failed to open /dev/fuse: Permission denied":                                    "chmod 666 /dev/fuse",
		"fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf":    "mount_max",
		"fusermount3: mounting over filesystem type 0x01021994 is forbidden":                          "elsewhere",
		"fusermount3: mount failed: Operation not permitted":                                          "chmod u+s",
		"fusermount3: could not determine username":                                                   "useradd",
		"fusermount3: something new":                                                                  "something new",
	} {
		err := explainHelper("/m", said+"\n", errors.New("exit status 1"))
		if !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: the error gives no %q: %v", said, remedy, err)
		}
	}
	if err := explainHelper("/m", "", errors.New("exit status 1")); !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("a silent helper: %v", err)
	}
}

func TestMountFlagsFollowTheOptions(t *testing.T) {
	for list, want := range map[string]MountFlags{
		"": {NoAtime: true, DefaultPermissions: true, ReadOnly: true},
		"upperdir=u,workdir=w,nosuid,nodev,noexec,relatime,allow_root,default_permissions=off": {NoSuid: true, NoDev: true, NoExec: true, AllowOther: true},
		"upperdir=u,ro,strictatime,nodiratime,sync,dirsync,lazytime,nosymfollow,private,max_read=9,context=c,allow_other": {
			ReadOnly: true, StrictAtime: true, NoDirAtime: true, Sync: true, DirSync: true, LazyTime: true, NoSymFollow: true,
			Propagation: "private", MaxRead: 9, Context: "c", AllowOther: true, DefaultPermissions: true},
	} {
		o, err := mountopt.Parse(list)
		if err != nil {
			t.Fatal(err)
		}
		want.FSName, want.Subtype = "lamina", "lamina"
		if got := MountFlagsOf(&o); !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v\nwant %+v", list, got, want)
		}
	}
}

func TestShellQuoteSurvivesTheShell(t *testing.T) {
	for _, s := range []string{"/a/b.c", "", "a b", "it's", "$HOME", "a;b", "ä", "-n"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellQuote(s)).Output()
		if s != "-n" && (err != nil || string(out) != s) {
			t.Errorf("%q is quoted as %s, which the shell reads as %q (%v)", s, shellQuote(s), out, err)
		}
	}
	if shellQuote("/plain/path-1.2") != "/plain/path-1.2" {
		t.Error("a plain path needs no quotes")
	}
}

// eventually waits for what another process does, at most ten seconds.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited ten seconds for %s", what)
		}
	}
}
