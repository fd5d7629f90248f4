package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// unmount removes the mount. A lazy one takes it out of sight at once and lets
// open files go on. EBUSY tells that files are open or processes have their
// working directory there.
//
// A mount that is gone already is no error: whoever was faster had the same
// wish.
func (d *device) unmount(lazy bool) error {
	switch on, err := d.onTop(); {
	case err != nil:
		return err
	case !on:
		return nil
	}
	return Unmount(d.target, lazy)
}

// onTop reports whether the mount is still there, and fails when another one
// covers it: unmounting by path would hit that one.
func (d *device) onTop() (bool, error) {
	now := &device{target: d.target}
	switch err := now.identify(unix.AT_FDCWD, d.target, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOTCONN):
		return true, nil // ours, aborted
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	}
	if now.dev == d.dev && (now.mountID == d.mountID || d.mountID == 0) {
		return true, nil
	}
	covered, err := IsMounted(d.devName(), d.target)
	if err != nil || !covered {
		return false, err
	}
	return false, fmt.Errorf("unmount %s: another filesystem is mounted over it (%w); unmount that one first", d.target, unix.EBUSY)
}

// Unmount removes the topmost mount on target, as umount(8) does, by itself or
// with the help of fusermount3.
func Unmount(target string, lazy bool) error {
	path, err := mountPath(target)
	if err != nil {
		return err
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	switch err := unix.Unmount(path, flags); err {
	case nil:
		return nil
	case unix.EPERM:
		return unmountByHelper(path, lazy)
	case unix.EINVAL:
		return fmt.Errorf("unmount %s: it is not a mount point (%w); see what is mounted with: lamina ps", target, err)
	case unix.EBUSY:
		return fmt.Errorf("unmount %s: %w; see who uses it with: fuser -vm %s, or detach it with: lamina umount -l %s", target, err, shellQuote(path), shellQuote(path))
	default:
		return fmt.Errorf("unmount %s: %w", target, err)
	}
}

// mountPath makes a path absolute and resolves the symbolic links that lead to
// a mount point, the last one too. It never steps onto the mount itself, which
// may not answer any more.
func mountPath(target string) (string, error) {
	path, err := filepath.Abs(target)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", target, err)
	}
	for range 40 { // as many links as the kernel follows
		parent, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", fmt.Errorf("find %s: %w", target, err)
		}
		path = filepath.Join(parent, filepath.Base(path))
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link: a mount point, or nothing at all
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(parent, link)
		}
		path = link
	}
	return "", fmt.Errorf("find %s: %w", target, unix.ELOOP)
}

func unmountByHelper(path string, lazy bool) error {
	helper, err := findHelper()
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	cmd := exec.Command(helper, append(args, "--", path)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	said := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return nil
	case strings.Contains(said, "busy"):
		return fmt.Errorf("unmount %s: %w; see who uses it with: fuser -vm %s, or detach it with: lamina umount -l %s", path, unix.EBUSY, shellQuote(path), shellQuote(path))
	case strings.Contains(said, "not found in"), strings.Contains(said, "not mounted"), strings.Contains(said, "Invalid argument"):
		return fmt.Errorf("unmount %s: no mount of yours is there (%w: %s); see what is mounted with: lamina ps", path, unix.EINVAL, said)
	case said == "":
		return fmt.Errorf("unmount %s: fusermount3: %w", path, err)
	default:
		return fmt.Errorf("unmount %s: %s", path, said)
	}
}

// shellQuote writes a path so that the command in a message can be pasted.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
