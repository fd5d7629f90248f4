package fusefs

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountDirectly mounts without help. That needs CAP_SYS_ADMIN in the user
// namespace that owns the mount namespace: root has it, and so has the root of
// a container or of unshare -Urm.
func mountDirectly(dir *os.File, path string, m MountFlags) (*device, error) {
	fd, err := openFuse()
	if err != nil {
		return nil, err
	}
	d := &device{fd: fd, via: viaMountAPI, target: path, flags: m}
	err = d.mountByAPI(dir, m)
	if wantsOldMount(err) {
		d.via = viaMount
		err = d.mountByData(dir, m)
	}
	if err != nil {
		unix.Close(fd)
		return nil, explainMount(path, err)
	}
	return d, nil
}

// wantsOldMount reports whether mount(2) may succeed where the mount API did
// not: kernels before 5.2 lack it, seccomp profiles of containers forbid it
// with ENOSYS or EPERM, and its strings end at 255 bytes.
func wantsOldMount(err error) bool {
	fail, ok := err.(*mountError)
	if !ok {
		return false
	}
	switch fail.errno {
	case unix.ENOSYS:
		return true
	case unix.EPERM:
		return fail.call == "fsopen"
	case unix.EINVAL:
		return strings.HasPrefix(fail.call, "fsconfig ") && len(fail.value) > maxParam
	}
	return false
}

// A mountError is a system call that failed while mounting.
type mountError struct {
	call, value string
	errno       unix.Errno
	log         string // what the kernel said about it
}

func (e *mountError) Error() string {
	text := e.call + ": " + e.errno.Error()
	if e.log != "" {
		text += " (" + e.log + ")"
	}
	return text
}

func (e *mountError) Unwrap() error { return e.errno }

// mountByAPI is the way of fsopen(2), since Linux 5.2.
func (d *device) mountByAPI(dir *os.File, m MountFlags) error {
	mfd, err := mountNew("fuse", dir, m, func(fsfd int) error { return configure(fsfd, m.params(d.fd)) })
	if err != nil {
		return err
	}
	defer unix.Close(mfd)
	if err := d.settle(mfd, m); err != nil {
		unix.Unmount(d.target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		return err
	}
	return nil
}

// mountNew makes a filesystem and its mount out of sight and then moves it onto
// dir, so that nobody sees it with half of its flags. It returns a descriptor
// of the mount.
func mountNew(fstype string, dir *os.File, m MountFlags, configure func(fsfd int) error) (int, error) {
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, &mountError{call: "fsopen", errno: err.(unix.Errno)}
	}
	defer unix.Close(fsfd)
	if err := configure(fsfd); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, kernelError(fsfd, "fsconfig create", "", err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, m.attributes())
	if err != nil {
		return -1, kernelError(fsfd, "fsmount", "", err)
	}
	if err := unix.MoveMount(mfd, "", int(dir.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		unix.Close(mfd)
		return -1, kernelError(fsfd, "move_mount", "", err)
	}
	return mfd, nil
}

// configure hands parameters to a filesystem that is being made.
func configure(fsfd int, params []mountParam) error {
	for _, p := range params {
		var err error
		if p.value == "" {
			err = unix.FsconfigSetFlag(fsfd, p.name)
		} else {
			err = unix.FsconfigSetString(fsfd, p.name, p.value)
		}
		if err != nil {
			return kernelError(fsfd, "fsconfig "+p.name, p.value, err)
		}
	}
	return nil
}

// settle does what can only be done to a mount that is in place.
func (d *device) settle(mfd int, m MountFlags) error {
	if err := setPropagation(mfd, m.Propagation); err != nil {
		return err
	}
	return d.identify(mfd, "", unix.AT_EMPTY_PATH)
}

func setPropagation(mfd int, kind string) error {
	if kind == "" {
		return nil
	}
	attr := unix.MountAttr{Propagation: uint64(propagationFlags[strings.TrimPrefix(kind, "r")])}
	if err := unix.MountSetattr(mfd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &mountError{call: "mount_setattr " + kind, errno: err.(unix.Errno)}
	}
	return nil
}

// propagationFlags are those of mount_namespaces(7). There is nothing below a
// new mount, so that the recursive forms ("rprivate") mean the same.
var propagationFlags = map[string]uintptr{
	"private":    unix.MS_PRIVATE,
	"shared":     unix.MS_SHARED,
	"slave":      unix.MS_SLAVE,
	"unbindable": unix.MS_UNBINDABLE,
}

type mountParam struct{ name, value string }

// params lists what the filesystem itself is told (fs/fuse/inode.c,
// fuse_fs_parameters).
func (m MountFlags) params(fd int) []mountParam {
	list := []mountParam{
		{"source", m.FSName},
		{"subtype", m.Subtype},
		{"fd", strconv.Itoa(fd)},
		{"rootmode", strconv.FormatUint(unix.S_IFDIR, 8)},
		{"user_id", strconv.Itoa(os.Geteuid())},
		{"group_id", strconv.Itoa(os.Getegid())},
	}
	add := func(set bool, name, value string) {
		if set {
			list = append(list, mountParam{name, value})
		}
	}
	add(m.DefaultPermissions, "default_permissions", "")
	add(m.AllowOther, "allow_other", "")
	add(m.MaxRead != 0, "max_read", strconv.FormatUint(uint64(m.MaxRead), 10))
	add(m.Context != "" && selinuxEnabled(), "context", m.Context)
	return append(list, m.superblockParams()...)
}

// superblockParams are the flags of a superblock, the same for every
// filesystem.
func (m MountFlags) superblockParams() []mountParam {
	var list []mountParam
	for _, f := range []struct {
		set  bool
		name string
	}{{m.ReadOnly, "ro"}, {m.Sync, "sync"}, {m.DirSync, "dirsync"}, {m.LazyTime, "lazytime"}} {
		if f.set {
			list = append(list, mountParam{name: f.name})
		}
	}
	return list
}

// selinuxEnabled reports whether the kernel knows SELinux labels. Where it does
// not, it refuses the option instead of ignoring it.
func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// attributes are the flags of the mount in the terms of fsmount(2).
func (m MountFlags) attributes() int {
	return m.bits([]int{
		unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NODEV, unix.MOUNT_ATTR_NOEXEC,
		unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR_NODIRATIME,
		0, 0, 0, // superblock flags, see params
	})
}

// oldFlags are the same in the terms of mount(2).
func (m MountFlags) oldFlags() uintptr {
	return uintptr(m.bits([]int{
		unix.MS_RDONLY, unix.MS_NOSUID, unix.MS_NODEV, unix.MS_NOEXEC,
		unix.MS_NOSYMFOLLOW, unix.MS_NOATIME, unix.MS_STRICTATIME, unix.MS_NODIRATIME,
		unix.MS_SYNCHRONOUS, unix.MS_DIRSYNC, unix.MS_LAZYTIME,
	}))
}

func (m MountFlags) bits(values []int) int {
	set := []bool{
		m.ReadOnly, m.NoSuid, m.NoDev, m.NoExec,
		m.NoSymFollow, m.NoAtime, m.StrictAtime, m.NoDirAtime,
		m.Sync, m.DirSync, m.LazyTime,
	}
	flags := 0
	for i, value := range values {
		if set[i] {
			flags |= value
		}
	}
	return flags
}

// mountByData is the way of mount(2): one string of options.
func (d *device) mountByData(dir *os.File, m MountFlags) error {
	var data []string
	for _, p := range m.params(d.fd) {
		switch p.name {
		case "source", "subtype", "ro", "sync", "dirsync", "lazytime":
		case "context":
			data = append(data, `context="`+p.value+`"`)
		default:
			data = append(data, strings.TrimSuffix(p.name+"="+p.value, "="))
		}
	}
	target := fdPath(int(dir.Fd()))
	if err := unix.Mount(m.FSName, target, "fuse."+m.Subtype, m.oldFlags(), strings.Join(data, ",")); err != nil {
		return &mountError{call: "mount", errno: err.(unix.Errno)}
	}
	if m.Propagation != "" {
		// By path: the descriptor stands for what is now below the mount.
		flag := propagationFlags[strings.TrimPrefix(m.Propagation, "r")]
		if err := unix.Mount("", d.target, "", flag, ""); err != nil {
			unix.Unmount(d.target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			return &mountError{call: "mount " + m.Propagation, errno: err.(unix.Errno)}
		}
	}
	return d.identify(unix.AT_FDCWD, d.target, unix.AT_SYMLINK_NOFOLLOW)
}

// kernelError adds the kernel's own words, which fs_context keeps for readers
// of the descriptor.
func kernelError(fsfd int, call, value string, err error) error {
	fail := &mountError{call: call, value: value, errno: err.(unix.Errno)}
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			return fail
		}
		line := strings.TrimSpace(string(buf[:n]))
		if len(line) > 2 && line[1] == ' ' { // "e fuse: Bad value for 'fd'"
			line = line[2:]
		}
		fail.log = strings.TrimPrefix(fail.log+"; "+line, "; ")
	}
}

// explainMount adds what a user can do about a mount that the kernel refused.
func explainMount(target string, err error) error {
	fail, ok := err.(*mountError)
	if !ok {
		return err
	}
	hint := ""
	switch fail.errno {
	case unix.ENODEV:
		hint = "this kernel has no FUSE; as root load it with: modprobe fuse"
	case unix.ENOSPC:
		hint = "too many mounts in this namespace; as root raise the limit with: sysctl fs.mount-max=200000"
	case unix.EMFILE:
		hint = "no free device number for one more filesystem; unmount some (see: lamina ps)"
	case unix.ELOOP:
		hint = "the mount point lies too deep in stacked filesystems; choose one outside of them"
	case unix.EBUSY:
		hint = "the mount point is in use by the mount itself; choose another directory"
	}
	if hint == "" {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	return fmt.Errorf("mount on %s: %w; %s", target, err, hint)
}
