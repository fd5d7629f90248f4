package fusefs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// fuseDevice is what a server reads its requests from.
const fuseDevice = "/dev/fuse"

// How a device got mounted.
const (
	viaMountAPI   = "fsmount"     // fsopen(2), fsmount(2), move_mount(2)
	viaMount      = "mount"       // mount(2)
	viaFusermount = "fusermount3" // the setuid helper
)

// MountFlags are what the kernel is told about a mount; the layers and the
// server's own options are no business of it.
type MountFlags struct {
	FSName  string // the source in the mount table
	Subtype string // "lamina" shows as the type fuse.lamina

	ReadOnly, NoSuid, NoDev, NoExec, NoSymFollow bool
	NoAtime, StrictAtime, NoDirAtime, LazyTime   bool
	Sync, DirSync                                bool

	AllowOther         bool // let users in that did not mount it
	DefaultPermissions bool // the kernel checks modes, not the server
	MaxRead            uint32
	Context            string // SELinux label, ignored where SELinux is off
	Propagation        string // see propagationFlags, empty leaves the kernel's choice
}

// MountFlagsOf picks the flags out of the options of a union; whether it can be
// written to depends on more than the options where something else is mounted.
//
// Where the options leave it open, a mount has what mount(8) calls defaults:
// setuid programs and devices work when the mounter is privileged. The kernel
// and fusermount3 take them away from everybody else.
func MountFlagsOf(o *mountopt.Options) MountFlags {
	return MountFlags{
		FSName:             orElse(o.FSName, "lamina"),
		Subtype:            orElse(o.Subtype, "lamina"),
		ReadOnly:           o.ReadOnly || o.Upper == "",
		NoSuid:             !o.Suid.Or(true),
		NoDev:              !o.Dev.Or(true),
		NoExec:             !o.Exec.Or(true),
		NoSymFollow:        o.NoSymFollow,
		NoAtime:            o.Atime == mountopt.AtimeNever || o.Atime == mountopt.AtimeDefault,
		StrictAtime:        o.Atime == mountopt.AtimeAlways,
		NoDirAtime:         o.NoDirAtime,
		LazyTime:           o.LazyTime,
		Sync:               o.Sync,
		DirSync:            o.DirSync,
		AllowOther:         o.AllowOther || o.AllowRoot,
		DefaultPermissions: o.DefaultPermissions.Or(true),
		MaxRead:            o.MaxRead,
		Context:            o.Context,
		Propagation:        o.Propagation,
	}
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// A device is a mounted filesystem that nobody serves yet, or that was handed
// to a server.
type device struct {
	fd      int    // of /dev/fuse, close-on-exec; whoever serves it closes it
	via     string // viaMountAPI, viaMount or viaFusermount
	target  string // absolute, without symbolic links
	mountID uint64 // as in mountinfo, 0 where the kernel does not tell
	dev     uint64 // st_dev of the mounted filesystem
	flags   MountFlags
}

// info describes the mount to those who ask over the control socket.
func (d *device) info() Info {
	return Info{
		Target:  d.target,
		Source:  d.flags.FSName,
		Type:    "fuse." + d.flags.Subtype,
		Dev:     d.devName(),
		Via:     d.via,
		PID:     os.Getpid(),
		UID:     os.Geteuid(),
		Started: time.Now().UTC(),
	}
}

// openDevice opens /dev/fuse and mounts it on the directory target, itself
// where it may and through fusermount3 elsewhere. Requests queue up from then
// on: until they are served, whoever touches target waits.
//
// The error says what stands in the way and which command mends it.
func openDevice(target string, m MountFlags) (*device, error) {
	dir, err := openTarget(target)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path, err := os.Readlink(fdPath(int(dir.Fd())))
	if err != nil {
		return nil, fmt.Errorf("find the path of %s: %w; is /proc mounted?", target, err)
	}
	d, err := mountDirectly(dir, path, m)
	if err == nil || !isNotAllowed(err) {
		return d, err
	}
	return mountByHelper(path, m)
}

// openTarget opens the directory to mount on, following symbolic links.
func openTarget(target string) (*os.File, error) {
	fd, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
	case unix.ENOENT:
		return nil, fmt.Errorf("mount point %s does not exist; make it with: mkdir -p %s", target, shellQuote(target))
	case unix.ENOTCONN:
		return nil, fmt.Errorf("mount point %s still has the mount of a server that died (%w); remove it with: fusermount3 -u %s", target, err, shellQuote(target))
	default:
		return nil, fmt.Errorf("open mount point %s: %w", target, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), target), nil
	case unix.ENOTCONN:
		err = fmt.Errorf("mount point %s still has the mount of a server that died (%w); remove it with: fusermount3 -u %s", target, err, shellQuote(target))
	case unix.ENOTDIR:
		err = fmt.Errorf("mount point %s: %w; a filesystem is mounted on a directory", target, err)
	default:
		err = fmt.Errorf("look at mount point %s: %w", target, err)
	}
	unix.Close(fd)
	return nil, err
}

// openFuse opens a new connection to the kernel.
func openFuse() (int, error) {
	for {
		fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
		switch err {
		case unix.EINTR:
			continue
		case nil:
			return fd, nil
		case unix.ENOENT, unix.ENODEV, unix.ENXIO:
			return -1, fmt.Errorf("open %s: %w; as root load the module with: modprobe fuse; in a container pass the device in with: --device %s", fuseDevice, err, fuseDevice)
		case unix.EACCES, unix.EPERM:
			return -1, fmt.Errorf("open %s: %w; as root allow it with: chmod 666 %s", fuseDevice, err, fuseDevice)
		}
		return -1, fmt.Errorf("open %s: %w", fuseDevice, err)
	}
}

// identify fills in how the kernel calls the mount, without asking the server
// that may not run yet: the request mask is empty and nothing is synchronized.
func (d *device) identify(dirfd int, path string, flags int) error {
	var st unix.Statx_t
	err := unix.Statx(dirfd, path, flags|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err != nil {
		return fmt.Errorf("look at the new mount on %s: %w", d.target, err)
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		d.mountID = st.Mnt_id
	}
	d.dev = unix.Mkdev(st.Dev_major, st.Dev_minor)
	return nil
}

// devName returns major:minor as mountinfo writes it.
func (d *device) devName() string {
	return fmt.Sprintf("%d:%d", unix.Major(d.dev), unix.Minor(d.dev))
}

// isNotAllowed reports whether a direct mount failed for want of rights, so
// that the setuid helper may still do it.
func isNotAllowed(err error) bool {
	return slices.ContainsFunc([]error{unix.EPERM, unix.EACCES, unix.ENOSYS},
		func(e error) bool { return errors.Is(err, e) })
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
