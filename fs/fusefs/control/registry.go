package control

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Servers are found through a directory per user that holds their sockets:
//
//	/run/lamina/                root
//	$XDG_RUNTIME_DIR/lamina/    other users
//	/tmp/lamina-UID/            users without such a directory
//
// LAMINA_RUNTIME_DIR replaces all of these, for tests and for services that
// keep to a directory of their own.

// RuntimeDir makes and returns the directory for the sockets of this user.
func RuntimeDir() (string, error) {
	var tried []error
	for _, dir := range ownDirs() {
		err := makePrivate(dir)
		if err == nil {
			return dir, nil
		}
		tried = append(tried, err)
	}
	return "", fmt.Errorf("no place for control sockets: %w; set XDG_RUNTIME_DIR to a directory of your own", errors.Join(tried...))
}

// ownDirs lists where the sockets of this user can be, best first.
func ownDirs() []string {
	if dir := os.Getenv("LAMINA_RUNTIME_DIR"); dir != "" {
		return []string{dir}
	}
	var dirs []string
	uid := realUID()
	if uid == 0 {
		dirs = append(dirs, "/run/lamina")
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "lamina"))
	}
	if uid != 0 {
		// Left unset by su, cron and many containers; the mount can then be
		// made under one environment and looked for under another.
		dirs = append(dirs, fmt.Sprintf("/run/user/%d/lamina", uid))
	}
	return append(dirs, fmt.Sprintf("/tmp/lamina-%d", uid))
}

// SearchDirs lists where sockets of servers may be that this user may talk to:
// its own, and for root those of everybody.
func SearchDirs() []string {
	dirs := ownDirs()
	if os.Geteuid() == 0 && os.Getenv("LAMINA_RUNTIME_DIR") == "" {
		for _, pattern := range []string{"/run/user/*/lamina", "/tmp/lamina-[0-9]*"} {
			found, _ := filepath.Glob(pattern) // fails for a bad pattern only
			dirs = append(dirs, found...)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// realUID returns who the effective user is outside of the user namespace that
// this process may live in: unshare -Ur makes everybody uid 0.
var realUID = sync.OnceValue(func() int {
	uid := os.Geteuid()
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return uid
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var inside, outside, length int
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &length); err != nil {
			break
		}
		if uid >= inside && uid-inside < length {
			return outside + uid - inside
		}
	}
	return uid
})

// InUserNamespace reports whether this process lives in a user namespace other
// than the machine's first, which always has this number
// (include/uapi/linux/nsfs.h, USER_NS_INIT_INO).
func InUserNamespace() bool {
	ns, err := os.Readlink("/proc/self/ns/user")
	return err == nil && ns != "user:[4026531837]"
}

// makePrivate makes a directory that nobody else can enter, or finds that dir
// is one. In /tmp anybody could have made it first.
func makePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return &os.PathError{Op: "use", Path: dir, Err: unix.ENOTDIR}
	case st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("use %s: it belongs to uid %d", dir, st.Uid)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("use %s: others may enter it (mode %04o)", dir, st.Mode&0o7777)
	}
	return unix.Access(dir, unix.W_OK|unix.X_OK)
}
