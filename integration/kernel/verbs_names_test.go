//go:build integration

package kernel

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A verb is a kind of operation: how it is chosen, and what it does.
type verb struct {
	weight int // how often it is chosen
	choose func(c *chooser) op
	do     func(s *side, o op) (string, error)
	onSlot bool // works on a descriptor that was kept
}

// verbs are all operations by name. Each file of verbs has those of its topic.
var verbs = func() map[string]verb {
	all := map[string]verb{}
	for _, table := range []map[string]verb{nameVerbs, attrVerbs, dataVerbs, slotVerbs, dirVerbs} {
		maps.Copy(all, table)
	}
	return all
}()

var (
	fileModes = []uint32{0o644, 0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o6777, 0o000, 0o400}
	dirModes  = []uint32{0o755, 0o755, 0o777, 0o2775, 0o1777, 0o700}
)

// nameVerbs make, move and remove names.
var nameVerbs = map[string]verb{
	"create": {weight: 10, choose: func(c *chooser) op {
		flags := pick(c.r, 0, 0, unix.O_EXCL, unix.O_TRUNC, unix.O_NOFOLLOW, unix.O_APPEND)
		return op{A: c.any(), Flags: flags, Mode: pick(c.r, fileModes...), N: c.size()}
	}, do: doCreate},
	"mkdir": {weight: 8, choose: func(c *chooser) op { return op{A: c.any(), Mode: pick(c.r, dirModes...)} }, do: func(s *side, o op) (string, error) {
		if err := unix.Mkdirat(s.fd, rel(o.A), o.Mode); err != nil {
			return "", err
		}
		return s.lstat(o.A)
	}},
	"mknod": {weight: 3, choose: func(c *chooser) op {
		kinds := []uint32{unix.S_IFIFO | 0o644, unix.S_IFIFO | 0o600, unix.S_IFREG | 0o640, unix.S_IFSOCK | 0o755, unix.S_IFCHR | 0o666, unix.S_IFBLK | 0o600}
		return op{A: c.any(), Mode: pick(c.r, kinds...), N: int64(pick(c.r, unix.Mkdev(1, 3), unix.Mkdev(240, 7), 0))}
	}, do: func(s *side, o op) (string, error) {
		if err := unix.Mknodat(s.fd, rel(o.A), o.Mode, int(o.N)); err != nil {
			return "", err
		}
		return s.lstat(o.A)
	}},
	"symlink": {weight: 4, choose: func(c *chooser) op {
		return op{A: c.any(), B: pick(c.r, "f0", "d0", "d0/f0", "../f1", "gone", strings.Repeat("long/", 300))}
	}, do: func(s *side, o op) (string, error) { return "", unix.Symlinkat(o.B, s.fd, rel(o.A)) }},
	"readlink": {weight: 1, choose: func(c *chooser) op { return op{A: c.old()} }, do: func(s *side, o op) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Readlinkat(s.fd, rel(o.A), buf)
		return string(buf[:max(n, 0)]), err
	}},
	"link": {weight: 6, choose: func(c *chooser) op { return op{A: c.old(), B: c.any(), Flags: pick(c.r, 0, 0, unix.AT_SYMLINK_FOLLOW)} }, do: func(s *side, o op) (string, error) {
		if err := unix.Linkat(s.fd, rel(o.A), s.fd, rel(o.B), o.Flags); err != nil {
			return "", err
		}
		return s.lstat(o.B)
	}},
	"unlink": {weight: 8, choose: func(c *chooser) op { return op{A: c.old()} }, do: func(s *side, o op) (string, error) { return "", unix.Unlinkat(s.fd, rel(o.A), 0) }},
	"rmdir": {weight: 4, choose: func(c *chooser) op { return op{A: c.dirOr(c.old)} }, do: func(s *side, o op) (string, error) {
		return "", unix.Unlinkat(s.fd, rel(o.A), unix.AT_REMOVEDIR)
	}},
	"remove all": {weight: 1, choose: func(c *chooser) op { return op{A: c.dirOr(c.old)} }, do: func(s *side, o op) (string, error) {
		if o.A == "" {
			return "", nil // the whole tree would leave nothing to do
		}
		return "", s.removeAll(o.A)
	}},
	"rename": {weight: 16, choose: func(c *chooser) op { return op{A: c.old(), B: c.any()} }, do: doRename},
	"rename flags": {weight: 5, choose: func(c *chooser) op {
		flags := pick(c.r, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE, 8)
		return op{A: c.old(), B: c.any(), Flags: flags}
	}, do: doRename},
	"rename dir": {weight: 6, choose: func(c *chooser) op { return op{A: c.dirOr(c.old), B: c.fresh()} }, do: doRename},
}

func doCreate(s *side, o op) (string, error) {
	fd, err := unix.Openat(s.fd, rel(o.A), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK|o.Flags, o.Mode)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, content(o.A, int(o.N)))
	line, _ := fstat(fd)
	return fmt.Sprintf("%d written, %s", n, line), err
}

func doRename(s *side, o op) (string, error) {
	return "", unix.Renameat2(s.fd, rel(o.A), s.fd, rel(o.B), uint(o.Flags))
}

// removeAll removes a tree as rm -r does.
func (s *side) removeAll(dir string) error {
	fd, err := unix.Openat(s.fd, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	list, err := readEntries(fd, 32<<10)
	unix.Close(fd)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	for _, e := range list {
		name := path.Join(dir, e.name)
		err := unix.Unlinkat(s.fd, name, 0)
		if err == unix.EISDIR {
			err = s.removeAll(name)
		}
		if err != nil && err != unix.ENOENT { // a ghost
			return err
		}
	}
	return unix.Unlinkat(s.fd, dir, unix.AT_REMOVEDIR)
}
