package fusefs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/mountopt"
)

// MountKernel mounts the union on target by the kernel's own overlayfs instead
// of serving it. It fails where the options ask for what only the server has,
// where the user may not mount, and where the kernel refuses the layers; the
// error tells which.
//
// What the options leave open is chosen so that both engines behave alike:
// directories with lower parts can be renamed, and in a user namespace, which
// cannot write trusted xattrs, the marks are kept in user xattrs.
func MountKernel(o *mountopt.Options, target string) (Info, error) {
	if obstacles := o.KernelObstacles(); len(obstacles) > 0 {
		return Info{}, errors.New(obstacles[0])
	}
	dir, err := openTarget(target)
	if err != nil {
		return Info{}, err
	}
	defer dir.Close()
	path, err := os.Readlink(fdPath(int(dir.Fd())))
	if err != nil {
		return Info{}, fmt.Errorf("find the path of %s: %w; is /proc mounted?", target, err)
	}
	opts := kernelDefaults(*o)
	m := MountFlagsOf(&opts)
	m.FSName = orElse(o.FSName, "overlay")
	d := &device{fd: -1, via: viaMountAPI, target: path, flags: m}
	mfd, err := mountNew("overlay", dir, m, func(fsfd int) error { return configureOverlay(fsfd, &opts, m) })
	switch {
	case wantsOldOverlay(err):
		d.via = viaMount
		err = mountOverlayByData(dir, &opts, m)
		if err == nil {
			err = d.identify(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW)
		}
	case err == nil:
		defer unix.Close(mfd)
		err = d.settle(mfd, m)
	}
	if err != nil {
		return Info{}, explainOverlay(path, err)
	}
	info := d.info()
	info.Type, info.PID = "overlay", 0 // nobody serves it
	return info, nil
}

func kernelDefaults(o mountopt.Options) mountopt.Options {
	if o.Format == mountopt.FormatAuto && control.InUserNamespace() {
		o.UserXattr = true
	}
	if !o.UserXattr && o.Format != mountopt.FormatOverlayUser && o.RedirectDir == mountopt.RedirectDefault && o.Upper != "" {
		o.RedirectDir = mountopt.RedirectOn
	}
	return o
}

// configureOverlay hands over one layer at a time, so that their number and
// the length of their paths is not bound by the page that mount(2) takes.
func configureOverlay(fsfd int, o *mountopt.Options, m MountFlags) error {
	if err := configure(fsfd, []mountParam{{"source", m.FSName}}); err != nil {
		return err
	}
	for _, p := range o.KernelParams() {
		if p.Name == "context" && !selinuxEnabled() {
			continue
		}
		err := configure(fsfd, []mountParam{{p.Name, p.Value}})
		if fail := (*mountError)(nil); errors.As(err, &fail) && len(p.Value) > maxParam {
			err = configureLongPath(fsfd, p, fail)
		}
		if err != nil {
			return err
		}
	}
	return configure(fsfd, m.superblockParams())
}

// maxParam is how long a string fsconfig(2) takes, in bytes.
const maxParam = 255

// configureLongPath names a layer by a descriptor (Linux 6.13).
func configureLongPath(fsfd int, p mountopt.Param, fail *mountError) error {
	if p.Name != "lowerdir+" && p.Name != "datadir+" {
		return fail
	}
	fd, err := unix.Open(p.Value, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open layer", Path: p.Value, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetFd(fsfd, p.Name, fd); err != nil {
		return fail
	}
	return nil
}

// wantsOldOverlay reports whether one string for mount(2) may work instead:
// before Linux 6.7 there is no lowerdir+, and long paths need 6.13.
func wantsOldOverlay(err error) bool {
	fail := (*mountError)(nil)
	if !errors.As(err, &fail) {
		return false
	}
	isLayer := fail.call == "fsconfig lowerdir+" || fail.call == "fsconfig datadir+"
	return fail.errno == unix.ENOSYS || fail.errno == unix.EINVAL && (isLayer || len(fail.value) > maxParam)
}

func mountOverlayByData(dir *os.File, o *mountopt.Options, m MountFlags) error {
	if !selinuxEnabled() {
		plain := *o
		plain.Context = ""
		o = &plain
	}
	data := o.Render()
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("the options take %d bytes and this kernel reads %d; change into the directory above the layers and give short relative paths, or use --engine fuse", len(data), os.Getpagesize()-1)
	}
	err := unix.Mount(m.FSName, fdPath(int(dir.Fd())), "overlay", m.oldFlags(), data)
	if err != nil {
		return &mountError{call: "mount", errno: err.(unix.Errno)}
	}
	return nil
}

// explainOverlay says what to do about a refusal of kernel overlayfs.
func explainOverlay(target string, err error) error {
	fail := (*mountError)(nil)
	if !errors.As(err, &fail) {
		return fmt.Errorf("mount overlayfs on %s: %w", target, err)
	}
	hint := "see the kernel's reason with: dmesg | tail"
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		hint = "only root and the root of a user namespace may mount overlayfs; use --engine fuse"
	case errors.Is(err, unix.ENODEV):
		hint = "this kernel has no overlayfs; as root load it with: modprobe overlay; or use --engine fuse"
	case errors.Is(err, unix.ENOENT):
		hint = "the directory does not exist: " + orElse(fail.value, "one of the layers")
	case errors.Is(err, unix.EBUSY):
		hint = "the upper or work directory is in use by another mount"
	case errors.Is(err, unix.ESTALE):
		hint = "the upper was used with other lower directories; mount it with those, or use index=off"
	case errors.Is(err, unix.ELOOP):
		hint = "layers lie inside of each other or are stacked filesystems themselves; use --engine fuse"
	}
	return fmt.Errorf("mount overlayfs on %s: %w; %s", target, err, hint)
}
