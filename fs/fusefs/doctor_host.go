package fusefs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
)

// layers tries out on the filesystem of the directory what an upper needs.
func (e *examination) layers() {
	dir, err := os.MkdirTemp(e.dir, ".lamina-doctor-")
	if err != nil {
		e.add(StatusNote, "layers in "+e.dir, err.Error()+": nothing was tried there", "")
		return
	}
	defer os.RemoveAll(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && st.Type == 0x65735546 {
		e.add(StatusNote, "layers in "+e.dir, "they lie on another FUSE filesystem: slower, and not below kernel overlayfs", "")
	}
	for _, ability := range []struct {
		name, without string
		try           func(dir string) error
	}{
		{"user xattrs", "an upper cannot keep its marks there, except as .wh. files (format=aufs)", tryUserXattr},
		{"whiteouts (mknod 0:0)", "deletions are marked by xattrs", tryWhiteout},
		{"unnamed files (O_TMPFILE)", "copying up takes one more rename", tryTmpfile},
		{"RENAME_EXCHANGE", "replacing directories is not atomic", tryExchange},
		{"shared extents (FICLONE)", "copying up copies data", tryClone},
		{"file handles", "hard links are not tied together over a remount", tryHandle},
	} {
		name := "layers in " + e.dir + ": " + ability.name
		if err := ability.try(dir); err != nil {
			e.add(StatusNote, name, fmt.Sprintf("%v: %s", err, ability.without), "")
		} else {
			e.add(StatusOK, name, "works", "")
		}
	}
}

func tryUserXattr(dir string) error { return unix.Setxattr(dir, "user.overlay.doctor", []byte("y"), 0) }

func tryWhiteout(dir string) error {
	return unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0)
}

func tryTmpfile(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func tryExchange(dir string) error {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.Mkdir(a, 0o700), os.Mkdir(b, 0o700)); err != nil {
		return err
	}
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

func tryClone(dir string) error {
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
		return err
	}
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		return err
	}
	defer dst.Close()
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

func tryHandle(dir string) error {
	_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	return err
}

func (e *examination) limits() {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		const wanted = 65536
		if files.Max < wanted {
			e.add(StatusNote, "open files", fmt.Sprintf("at most %d: a server re-opens more often than it needs to", files.Max),
				"sudo sh -c 'echo \"* hard nofile 1048576\" > /etc/security/limits.d/nofile.conf' # then log in again")
		} else {
			e.add(StatusOK, "open files", fmt.Sprintf("at most %d", files.Max), "")
		}
	}
	used, max := mountCount(), 0
	max, _ = strconv.Atoi(readLine("/proc/sys/fs/mount-max")) // 0 when unreadable: not shown
	switch {
	case max == 0:
	case used > max*9/10:
		e.add(StatusNote, "mounts", fmt.Sprintf("%d of at most %d in this namespace", used, max), "sudo sysctl fs.mount-max="+strconv.Itoa(max*4))
	default:
		e.add(StatusOK, "mounts", fmt.Sprintf("%d of at most %d", used, max), "")
	}
}

func mountCount() int {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	return bytes.Count(text, []byte("\n"))
}

func (e *examination) sockets() {
	dir, err := control.RuntimeDir()
	if err != nil {
		e.add(StatusNote, "control sockets", err.Error()+" (lamina ps will show nothing)", "export XDG_RUNTIME_DIR=/run/user/$(id -u)")
		return
	}
	e.add(StatusOK, "control sockets", dir, "")
}

// crashes points to what servers left that died of a bug.
func (e *examination) crashes() {
	for _, dir := range control.SearchDirs() {
		left, _ := filepath.Glob(filepath.Join(dir, "*"+daemon.CrashSuffix)) // fails for a bad pattern only
		for _, path := range left {
			if st, err := os.Stat(path); err == nil && st.Size() > 0 {
				e.add(StatusNote, "crashed server", path+" tells why, please report it; remove it when done", "rm "+shellQuote(path))
			}
		}
	}
}

// A Probe is what was found inside of a namespace: empty for what works, else
// what the kernel said.
type Probe struct {
	FUSE    string `json:"fuse"`
	Overlay string `json:"overlay"`
}

// ProbeNamespace tries to mount in the mount namespace of this process, which
// is to be a new one. Everything goes onto a tmpfs that ends with it.
func ProbeNamespace() Probe {
	trouble := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return Probe{trouble(err), trouble(err)}
	}
	if err := unix.Mount("lamina", "/tmp", "tmpfs", 0, ""); err != nil {
		return Probe{trouble(err), trouble(err)}
	}
	defer unix.Unmount("/tmp", unix.MNT_DETACH)
	return Probe{FUSE: trouble(probeFUSE()), Overlay: trouble(probeOverlay())}
}

func probeFUSE() error {
	if err := os.Mkdir("/tmp/fuse", 0o700); err != nil {
		return err
	}
	dir, err := openTarget("/tmp/fuse")
	if err != nil {
		return err
	}
	defer dir.Close()
	d, err := mountDirectly(dir, "/tmp/fuse", MountFlags{FSName: "lamina", Subtype: "lamina"})
	if err != nil {
		return err
	}
	unix.Close(d.fd)
	return unix.Unmount(d.target, unix.MNT_DETACH)
}

func probeOverlay() error {
	for _, name := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir("/tmp/"+name, 0o700); err != nil {
			return err
		}
	}
	data := "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w"
	if control.InUserNamespace() {
		data += ",userxattr"
	}
	if err := unix.Mount("lamina", "/tmp/m", "overlay", 0, data); err != nil {
		return err
	}
	return unix.Unmount("/tmp/m", unix.MNT_DETACH)
}

func kernelVersion() (major, minor int) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return 0, 0
	}
	// What does not scan stays 0: an unknown kernel gets no credit.
	fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor)
	return major, minor
}

func atLeast(major, minor int) bool {
	haveMajor, haveMinor := kernelVersion()
	return haveMajor > major || haveMajor == major && haveMinor >= minor
}

// kernelConfig returns a setting of the running kernel's build, where it is
// published.
func kernelConfig(name string) (value string, known bool) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", false
	}
	text, err := os.ReadFile("/boot/config-" + unix.ByteSliceToString(uts.Release[:]))
	if err != nil {
		if text, err = readGzip("/proc/config.gz"); err != nil {
			return "", false
		}
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return v, true
		}
	}
	return "", true
}

func readGzip(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// readLine returns the trimmed content of a small file of /proc or /sys, empty
// where there is none.
func readLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func hasLine(text, line string) bool {
	return slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == line })
}

func noNewPrivs() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && set == 1
}
