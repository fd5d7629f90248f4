package fusefs

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Live mounts are found through a directory per user that holds one control
// socket per server, named by the device number of its mount:
//
//	/run/lamina/0:53.sock                root
//	$XDG_RUNTIME_DIR/lamina/0:53.sock    other users
//	/tmp/lamina-UID/0:53.sock            users without such a directory
//
// LAMINA_RUNTIME_DIR replaces all of these, for tests and for services that
// keep to a directory of their own.
//
// There is no list beside the sockets that could disagree with them: a socket
// that nobody listens on is what a server left behind that was killed, and
// whoever comes across it removes it. Device numbers of live filesystems are
// unique over all namespaces of a machine, pids are not.

const socketSuffix = ".sock"

// runtimeDir makes and returns the directory for the sockets of this user.
func runtimeDir() (string, error) {
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

// searchDirs lists where sockets of servers may be that this user may talk to:
// its own, and for root those of everybody.
func searchDirs() []string {
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

// inUserNamespace reports whether this process lives in a user namespace other
// than the machine's first, which always has this number
// (include/uapi/linux/nsfs.h, USER_NS_INIT_INO).
func inUserNamespace() bool {
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

// Live returns a connection to every server that this user may talk to, in
// order of their mount points, and sweeps the sockets of dead ones. The caller
// closes the clients.
func Live() ([]*Client, error) {
	var clients []*Client
	var failed []error
	for _, dir := range searchDirs() {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
			continue // nothing of ours
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, entry := range entries {
			if !strings.HasSuffix(entry.Name(), socketSuffix) {
				continue
			}
			c, err := dialSocket(filepath.Join(dir, entry.Name()))
			if err == nil {
				clients = append(clients, c)
			} else if !errors.Is(err, errDeadServer) {
				failed = append(failed, err)
			}
		}
	}
	slices.SortFunc(clients, func(a, b *Client) int {
		return cmp.Or(strings.Compare(a.Info.Target, b.Info.Target), a.Info.Started.Compare(b.Info.Started))
	})
	return clients, errors.Join(failed...)
}

// Dial connects to the server of the union that is mounted on target. Where
// several lie on top of each other it is the topmost.
func Dial(target string) (*Client, error) {
	path, err := mountPath(target)
	if err != nil {
		return nil, err
	}
	live, failed := Live()
	mounts, err := mountsOn(path)
	if err != nil {
		return nil, err
	}
	found := pick(live, path, mounts)
	for _, c := range live {
		if c != found {
			c.Close()
		}
	}
	switch {
	case found != nil:
		return found, nil
	case failed != nil:
		return nil, fmt.Errorf("%s: no server found, and some did not answer: %w", target, failed)
	case len(mounts) == 0:
		return nil, fmt.Errorf("%s is not mounted; see what is with: lamina ps", target)
	case mounts[len(mounts)-1].FSType == "overlay":
		return nil, fmt.Errorf("%s is served by kernel overlayfs, which has no counters and cannot change its layers; mount with --engine fuse for those", target)
	default:
		return nil, fmt.Errorf("%s is mounted as %s, but no lamina server of yours serves it; see those with: lamina ps", target, mounts[len(mounts)-1].FSType)
	}
}
