package poolserver

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
)

// becomeOwner has a server that root starts run as the user whose the pool's metadata
// is. As root it would have a socket that keeps the owner out, and if it let the owner
// in, it would open devices, mount and run hooks for somebody who is not root.
//
// Root can talk to it all the same. In a user namespace, whose root is no other user,
// it stays as it is.
func (p Place) becomeOwner() error {
	if os.Geteuid() != 0 || control.InUserNamespace() {
		return nil
	}
	uid, gid, err := p.owner()
	if err != nil || uid == 0 {
		return err
	}
	groups, home := []int{gid}, ""
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil { // else a user without an account
		home = u.HomeDir
		if ids, err := u.GroupIds(); err == nil {
			for _, id := range ids {
				if n, err := strconv.Atoi(id); err == nil {
					groups = append(groups, n)
				}
			}
		}
		if n, err := strconv.Atoi(u.Gid); err == nil {
			gid = n
		}
	}
	become := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("serve pool %s as its owner, uid %d: %s: %w", p.Name(), uid, what, err)
		}
		return nil
	}
	// The package syscall has all threads do it.
	if err := become("setgroups", syscall.Setgroups(groups)); err != nil {
		return err
	}
	if err := become("setgid", syscall.Setgid(gid)); err != nil {
		return err
	}
	if err := become("setuid", syscall.Setuid(uid)); err != nil {
		return err
	}
	// Else /proc/self belongs to root still, by which programs are started again.
	if err := become("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)); err != nil {
		return err
	}
	os.Unsetenv("XDG_RUNTIME_DIR") // root's
	os.Setenv("HOME", home)
	return nil
}

// owner returns whose the metadata is.
func (p Place) owner() (uid, gid int, err error) {
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return 0, 0, fmt.Errorf("look for a pool: %w", err)
	}
	for _, e := range entries {
		if !isReplica(e.Name()) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(p.Dir+"/"+e.Name(), &st) == nil {
			return int(st.Uid), int(st.Gid), nil
		}
	}
	return os.Geteuid(), os.Getegid(), nil // opening it tells what is wrong
}
