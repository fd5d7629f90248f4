package fusefs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ElsewhereError tells that a mount was taken away where it was asked for, and that
// another mount namespace has a copy of it: one that was made (clone(2), CLONE_NEWNS)
// while the filesystem was mounted, and whose mounts do not follow those of the first
// (mount_namespaces(7), MS_PRIVATE). The server goes on for that one.
type ElsewhereError struct {
	Target  string // where it was mounted
	PID     int    // of a process in the other namespace
	Command string // its name
}

func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("%s is unmounted here; the mount namespace of process %d (%s) has a copy, and the server goes on until that ends", e.Target, e.PID, e.Command)
}

// Unwrap tells that what was mounted is in use.
func (e *ElsewhereError) Unwrap() error { return unix.EBUSY }

// Elsewhere looks for a mount namespace with a copy of the filesystem with that device
// number ([Info].Dev), which has been unmounted from target, and has the kernel write out
// what it keeps back for that copy. It returns an [ElsewhereError], or nil when there is
// no such namespace that this user may look into.
func Elsewhere(dev, target string) error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{own: true}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		ns, err := os.Readlink("/proc/" + p.Name() + "/ns/mnt")
		if err != nil || seen[ns] {
			continue // it has ended, or is somebody else's
		}
		seen[ns] = true
		at, found := mountedFor(p.Name(), dev)
		if !found {
			continue
		}
		writeOut("/proc/"+p.Name()+"/root"+at, dev)
		name, _ := os.ReadFile("/proc/" + p.Name() + "/comm")
		return &ElsewhereError{Target: target, PID: pid, Command: strings.TrimSpace(string(name))}
	}
	return nil
}

// mountedFor returns where a process sees a filesystem.
func mountedFor(pid, dev string) (target string, found bool) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return "", false
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, func(m *mountinfo.Info) (skip, stop bool) {
		is := devName(m) == dev
		return !is, is
	})
	if err != nil || len(mounts) == 0 {
		return "", false
	}
	return mounts[0].Mountpoint, true
}

// wayPatience is how long a way through somebody else's mounts may take.
const wayPatience = 2 * time.Second

// writeOut does what unmounting would have done. Where the place cannot be opened, the
// kernel does it by itself in time (vm.dirty_expire_centisecs). The way there leads
// through mounts of whoever made the namespace, whose servers may never answer, and may
// lead somewhere else by now.
func writeOut(path, dev string) {
	opened := make(chan int, 1)
	go func() { opened <- openOn(path, dev) }()
	select {
	case fd := <-opened:
		if fd >= 0 {
			_ = unix.Syncfs(fd) // errors stay with the files that have them
			unix.Close(fd)
		}
	case <-time.After(wayPatience):
		go func() {
			if fd := <-opened; fd >= 0 {
				unix.Close(fd)
			}
		}()
	}
}

// openOn opens a directory of a filesystem, -1 if it is not there.
func openOn(path, dev string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)) != dev {
		unix.Close(fd)
		return -1
	}
	return fd
}
