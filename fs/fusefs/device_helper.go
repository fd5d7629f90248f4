package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// helperNames are the setuid programs of libfuse 3 and 2 that mount for
// ordinary users. They speak the same protocol.
var helperNames = []string{"fusermount3", "fusermount"}

// findHelper returns the path of fusermount3. The usual places are tried as
// well: services often run with a short PATH.
func findHelper() (string, error) {
	for _, name := range helperNames {
		for _, dir := range []string{"", "/usr/bin/", "/bin/", "/usr/local/bin/", "/run/wrappers/bin/"} {
			if path, err := exec.LookPath(dir + name); err == nil {
				return path, nil
			}
		}
	}
	return "", errors.New("fusermount3 is not installed, and without it only root and user namespaces can mount; " +
		"install it as root with: apt-get install fuse3 (or: dnf install fuse3), or run the command inside of: unshare -Urm")
}

// mountByHelper lets fusermount3 open /dev/fuse and mount it. The descriptor
// comes back over a socket that the helper finds in _FUSE_COMMFD.
func mountByHelper(target string, m MountFlags) (*device, error) {
	if m.Context != "" && selinuxEnabled() {
		return nil, fmt.Errorf("mount on %s: the option context needs the right to mount, which fusermount3 does not lend for it; run as root or inside of: unshare -Urm", target)
	}
	helper, err := findHelper()
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", target, err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", target, err)
	}
	stderr, err := memoryFile("stderr")
	if err != nil {
		ours.Close()
		theirs.Close()
		return nil, fmt.Errorf("mount on %s: %w", target, err)
	}
	defer stderr.Close()
	cmd := exec.Command(helper, "-o", strings.Join(m.helperOptions(), ","), "--", target)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = stderr
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("mount on %s: run %s: %w", target, helper, err)
	}
	fd, err := receiveFD(ours)
	if err != nil {
		ours.Close()
		cmd.Wait() // how it ended is in its stderr
		return nil, explainHelper(target, readAll(stderr), err)
	}
	ours.Close()
	if err := cmd.Wait(); err != nil {
		unix.Close(fd)
		return nil, explainHelper(target, readAll(stderr), err)
	}
	d := &device{fd: fd, via: viaFusermount, target: target, flags: m}
	if err := d.identify(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return d, nil
}

// helperOptions lists the options in the helper's grammar. It adds fd,
// rootmode and the ids itself, and nosuid and nodev for ordinary users.
func (m MountFlags) helperOptions() []string {
	options := []string{"fsname=" + escapeOption(m.FSName), "subtype=" + escapeOption(m.Subtype)}
	for _, o := range []struct {
		set  bool
		name string
	}{
		{m.ReadOnly, "ro"}, {m.NoSuid, "nosuid"}, {m.NoDev, "nodev"}, {m.NoExec, "noexec"},
		{m.NoAtime, "noatime"}, {m.Sync, "sync"}, {m.DirSync, "dirsync"},
		{m.AllowOther, "allow_other"}, {m.DefaultPermissions, "default_permissions"},
		{m.MaxRead != 0, fmt.Sprintf("max_read=%d", m.MaxRead)},
		// Only root is spared nosuid and nodev; all others would read a warning.
		{!m.NoSuid && os.Getuid() == 0, "suid"}, {!m.NoDev && os.Getuid() == 0, "dev"},
	} {
		if o.set {
			options = append(options, o.name)
		}
	}
	return options
}

// escapeOption protects what separates options in fusermount3's grammar.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// explainHelper turns the words of fusermount3 into what happened and what
// mends it.
func explainHelper(target, said string, err error) error {
	said = strings.TrimSpace(said)
	for _, line := range []struct{ has, hint string }{
		{"user_allow_other", "ordinary users may use allow_other and allow_root only after root runs: echo user_allow_other >> /etc/fuse.conf"},
		{"not owned by user", "mount on a directory of your own, or as root run: chown " + fmt.Sprint(os.Getuid()) + " " + shellQuote(target)},
		{"no write access", "you need write permission on the mount point; run: chmod u+w " + shellQuote(target)},
		{"device not found", "as root load the module with: modprobe fuse; in a container pass the device in with: --device " + fuseDevice},
		{"failed to open " + fuseDevice, "as root allow it with: chmod 666 " + fuseDevice + "; in a container pass the device in with: --device " + fuseDevice},
		{"too many FUSE filesystems", "unmount some (see: lamina ps), or raise mount_max in /etc/fuse.conf"},
		{"could not determine username", "fusermount3 mounts only for users with an account; as root run: useradd --uid " + fmt.Sprint(os.Getuid()) + " NAME"},
		{"is forbidden", "this filesystem does not take mounts of ordinary users; choose a mount point elsewhere"},
		{"Operation not permitted", "fusermount3 lacks its setuid bit or runs where setuid programs have no power (no_new_privs, a container); as root run: chmod u+s $(command -v fusermount3), or use: unshare -Urm"},
	} {
		if strings.Contains(said, line.has) {
			return fmt.Errorf("mount on %s: %s; %s", target, said, line.hint)
		}
	}
	if said == "" {
		return fmt.Errorf("mount on %s: fusermount3: %w", target, err)
	}
	return fmt.Errorf("mount on %s: %s", target, said)
}

// socketPair returns two connected sockets.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "fusermount3"), os.NewFile(uintptr(fds[1]), "fusermount3"), nil
}

// receiveFD reads the one descriptor that the helper sends.
func receiveFD(sock *os.File) (int, error) {
	var (
		data [1]byte
		oob  = make([]byte, unix.CmsgSpace(4))
		oobn int
		err  = error(unix.EINTR)
	)
	for err == unix.EINTR {
		_, oobn, _, _, err = unix.Recvmsg(int(sock.Fd()), data[:], oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, errors.New("it sent no descriptor")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("it sent no descriptor")
	}
	return fds[0], nil
}

// memoryFile returns an anonymous file: unlike a pipe nobody needs to drain it.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readAll returns what a child wrote into a memory file.
func readAll(f *os.File) string {
	var b bytes.Buffer
	// A short read only shortens an error message.
	io.Copy(&b, io.NewSectionReader(f, 0, 64<<10))
	return b.String()
}
