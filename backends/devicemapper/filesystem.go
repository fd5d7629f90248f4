package devicemapper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
)

// The filesystems that devices can have.
const (
	xfs  = "xfs"
	ext4 = "ext4"
)

// rootDir is the directory of a device's filesystem that holds the layer.
const rootDir = "rootfs"

// chooseFilesystem returns what a base device gets that nobody has chosen for: xfs where
// the machine has it, as Docker does, else ext4. Over a volume of lamina's it is ext4:
// xfs stamps its log ahead of where it begins at each first mount, some 2 MB that a
// snapshot shared before (xlog_clear_stale_blocks).
func chooseFilesystem(engine driver.Engine) string {
	if engine == driver.Native && filesystemObstacle(xfs) == "" {
		return xfs
	}
	return ext4
}

// filesystemObstacle says why a filesystem cannot be had, "" when it can.
func filesystemObstacle(name string) string {
	if _, err := lookProgram("mkfs." + name); err != nil {
		return fmt.Sprintf("mkfs.%s is missing (Debian: %s)", name, map[string]string{xfs: "xfsprogs", ext4: "e2fsprogs"}[name])
	}
	if hasFilesystem(name) {
		return ""
	}
	if modprobe, err := lookProgram("modprobe"); err == nil {
		_ = exec.Command(modprobe, name).Run() // what it has done is looked at
	}
	if hasFilesystem(name) {
		return ""
	}
	return "the kernel has no " + name
}

func hasFilesystem(name string) bool {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 1 && f[0] == name {
			return true
		}
	}
	return false
}

// lookProgram finds a program also where ordinary users do not look.
func lookProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if st, e := os.Stat(filepath.Join(dir, name)); e == nil && st.Mode()&0o111 != 0 {
			return filepath.Join(dir, name), nil
		}
	}
	return "", err
}

// makeFilesystem makes one on an empty thin device. Nothing is discarded or zeroed:
// nothing is allocated.
func makeFilesystem(fstype, device string, further []string) error {
	var args []string
	switch fstype {
	case ext4:
		args = []string{"-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"}
	case xfs:
		args = []string{"-q", "-f", "-K"}
	}
	mkfs, err := lookProgram("mkfs." + fstype)
	if err != nil {
		return err
	}
	args = append(append(args, further...), device)
	if out, err := exec.Command(mkfs, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.%s %s: %w: %s", fstype, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountFlags are the options of mount(8) that are flags of the call.
var mountFlags = map[string]struct{ set, clear uintptr }{
	"ro": {set: unix.MS_RDONLY}, "rw": {clear: unix.MS_RDONLY}, "nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
	"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV}, "noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
	"noatime": {set: unix.MS_NOATIME}, "atime": {clear: unix.MS_NOATIME}, "relatime": {set: unix.MS_RELATIME}, "nodiratime": {set: unix.MS_NODIRATIME},
	"sync": {set: unix.MS_SYNCHRONOUS}, "async": {clear: unix.MS_SYNCHRONOUS}, "strictatime": {set: unix.MS_STRICTATIME}, "lazytime": {set: unix.MS_LAZYTIME},
	"volatile": {}, "defaults": {}, // nothing is synced beyond what the filesystem does
}

// mountDevice mounts a device on dir. What the options name and the call has no flag
// for is the filesystem's.
func mountDevice(dev, dir, fstype string, readOnly bool, options ...string) error {
	data := map[string][]string{
		// The tables of inodes stay unwritten until they are used: to write them in the
		// background would unshare them in every layer.
		ext4: {"noinit_itable"},
		// All devices are copies of one.
		xfs: {"nouuid"},
	}[fstype]
	var flags uintptr
	for _, list := range options {
		for o := range strings.SplitSeq(list, ",") {
			f, known := mountFlags[o]
			flags = flags&^f.clear | f.set
			if !known && o != "" {
				data = append(data, o)
			}
		}
	}
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(dev, dir, fstype, flags, strings.Join(data, ",")); err != nil {
		if errors.Is(err, unix.EINVAL) && len(data) > 1 {
			return fmt.Errorf("mount %s as %s with %s: %w; an option may be one that %s does not have: %w", dev, fstype, strings.Join(data, ","), err, fstype, driver.ErrUnsupported)
		}
		return fmt.Errorf("mount %s as %s: %w", dev, fstype, err)
	}
	return nil
}

// growFilesystem has a mounted filesystem take all of its device, of size bytes.
func growFilesystem(fstype, dir string, size int64) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	blocks := uint64(size) / uint64(st.Bsize)
	switch fstype {
	case ext4:
		// EXT4_IOC_RESIZE_FS (fs/ext4/ext4.h)
		err = ioctl(f, 0x40086610, unsafe.Pointer(&blocks))
	case xfs:
		// XFS_IOC_FSGROWFSDATA with struct xfs_growfs_data (fs/xfs/libxfs/xfs_fs.h)
		grow := struct {
			blocks uint64
			maxpct uint32
			_      uint32
		}{blocks: blocks, maxpct: 25}
		err = ioctl(f, 0x4010586e, unsafe.Pointer(&grow))
	}
	if err != nil {
		return fmt.Errorf("grow %s to %d bytes: %w", fstype, size, err)
	}
	return nil
}

// growUnmounted has an ext4 that is not mounted take all of its device.
func growUnmounted(dev string) error {
	for _, argv := range [][]string{{"e2fsck", "-f", "-p", dev}, {"resize2fs", dev}} {
		program, err := lookProgram(argv[0])
		if err != nil {
			return err
		}
		out, err := exec.Command(program, argv[1:]...).CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && argv[0] == "e2fsck" && exit.ExitCode() == 1 {
			continue // it has corrected something
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func ioctl(f *os.File, number uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), number, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// setRetries bounds how often xfs tries to write metadata while the pool is full,
// where the kernel has such a bound.
func setRetries(dev, retries string) error {
	if retries == "" {
		return nil
	}
	name, err := filepath.EvalSymlinks(dev)
	if err != nil {
		return err
	}
	return os.WriteFile("/sys/fs/xfs/"+filepath.Base(name)+"/error/metadata/ENOSPC/max_retries", []byte(retries), 0)
}
