//go:build integration

package kernel

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// quiet are the flags of opens that must not wait for a FIFO or follow a link.
const quiet = unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC

// dataVerbs read and write files that they open by name.
var dataVerbs = map[string]verb{
	"write": {weight: 9, choose: func(c *chooser) op {
		return op{A: c.old(), Flags: pick(c.r, unix.O_APPEND, unix.O_APPEND, unix.O_TRUNC, 0), N: c.size()}
	}, do: func(s *side, o op) (string, error) {
		fd, err := unix.Openat(s.fd, rel(o.A), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|o.Flags, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		n, err := unix.Write(fd, content(o.A, int(o.N)))
		line, _ := fstat(fd)
		return fmt.Sprintf("%d written, %s", n, line), err
	}},
	"read": {weight: 4, choose: func(c *chooser) op { return op{A: c.old(), Off: c.offset(), N: c.size() + 5000} }, do: func(s *side, o op) (string, error) {
		return s.withFile(o.A, unix.O_RDONLY, func(fd int) (string, error) {
			buf := make([]byte, o.N)
			n, err := unix.Pread(fd, buf, o.Off)
			return digest(buf[:max(n, 0)]), err
		})
	}},
	"truncate": {weight: 5, choose: func(c *chooser) op { return op{A: c.old(), N: pick[int64](c.r, 0, 1, 50, 4096, 100000)} }, do: func(s *side, o op) (string, error) {
		var st unix.Stat_t
		unix.Stat(s.path(o.A), &st)
		if err := unix.Truncate(s.path(o.A), o.N); err != nil {
			return "", err
		}
		if st.Size == o.N {
			// With write-back the kernel's FUSE side leaves the mtime then.
			unix.UtimesNanoAt(s.fd, rel(o.A), times(now), 0)
		}
		return s.lstat(o.A)
	}},
	"fallocate": {weight: 4, choose: func(c *chooser) op {
		modes := []int{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE,
			unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE}
		return op{A: c.old(), Flags: pick(c.r, modes...), Off: c.offset(), N: pick[int64](c.r, 1, 4096, 8192, 50000)}
	}, do: func(s *side, o op) (string, error) {
		return s.withFile(o.A, unix.O_RDWR, func(fd int) (string, error) {
			err := unix.Fallocate(fd, uint32(o.Flags), o.Off, o.N)
			if err == unix.EOPNOTSUPP {
				// The kernel's FUSE side has set the mtime before it asks.
				unix.UtimesNanoAt(fd, "", times(now), unix.AT_EMPTY_PATH)
			}
			line, _ := fstat(fd)
			return line, err
		})
	}},
	"holes": {weight: 2, choose: func(c *chooser) op { return op{A: c.old()} }, do: func(s *side, o op) (string, error) { return s.withFile(o.A, unix.O_RDONLY, holes) }},
	"copy range": {weight: 3, choose: func(c *chooser) op { return op{A: c.old(), B: c.old(), Off: c.offset(), N: c.size() + 1} }, do: func(s *side, o op) (string, error) {
		return s.withFile(o.A, unix.O_RDONLY, func(from int) (string, error) {
			return s.withFile(o.B, unix.O_RDWR, func(to int) (string, error) {
				n, err := s.copyRange(from, to, o)
				if err != nil {
					return "", err
				}
				line, err := fstat(to)
				return fmt.Sprintf("%d copied, %s", n, line), err
			})
		})
	}},
	"unlinked": {weight: 3, choose: func(c *chooser) op { return op{A: c.old(), Flags: pick(c.r, unix.O_RDONLY, unix.O_RDWR)} }, do: func(s *side, o op) (string, error) {
		return s.withFile(o.A, o.Flags, func(fd int) (string, error) { return s.useUnlinked(fd, o) })
	}},
	"temporary": {weight: 3, choose: func(c *chooser) op {
		return op{A: c.dirOr(c.old), B: pick(c.r, "", c.any()), Mode: pick(c.r, fileModes...), N: c.size()}
	}, do: doTemporary},
	"direct": {weight: 1, choose: func(c *chooser) op { return op{A: c.old(), Off: 4096 * c.r.Int64N(3), Value: []byte("direct")} }, do: func(s *side, o op) (string, error) {
		return s.withFile(o.A, unix.O_RDWR|unix.O_DIRECT, func(fd int) (string, error) {
			page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				return "", err
			}
			defer unix.Munmap(page)
			copy(page, content(o.A, len(page)))
			if _, err := unix.Pwrite(fd, page, o.Off); err != nil {
				return "", err
			}
			n, err := unix.Pread(fd, page, 0)
			return digest(page[:max(n, 0)]), err
		})
	}},
}

// withFile opens a regular file for a function.
func (s *side) withFile(path string, flags int, use func(fd int) (string, error)) (string, error) {
	fd, err := unix.Openat(s.fd, rel(path), flags|quiet, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "no regular file", nil
	}
	return use(fd)
}

// copyRange copies from the start of one file into another. Between layers on
// several filesystems kernel overlayfs says EXDEV, and its callers copy for
// themselves; FUSE does that for them.
func (s *side) copyRange(from, to int, o op) (int, error) {
	start, at := int64(0), o.Off
	n, err := unix.CopyFileRange(from, &start, to, &at, int(o.N), 0)
	if err == unix.EXDEV && s.name == "kernel" {
		buf := make([]byte, o.N)
		if n, err = unix.Pread(from, buf, 0); err == nil {
			n, err = unix.Pwrite(to, buf[:n], o.Off)
		}
	}
	return n, err
}

// holes lists where the data of a file is.
func holes(fd int) (string, error) {
	var line []string
	for at, n := int64(0), 0; n < 20; n++ {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		} else if err != nil {
			return "", err
		}
		if at, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
			return "", err
		}
		line = append(line, fmt.Sprintf("%d-%d", data, at))
	}
	return strings.Join(line, " "), nil
}

// useUnlinked removes a file's name and goes on using the descriptor.
func (s *side) useUnlinked(fd int, o op) (string, error) {
	if err := unix.Unlinkat(s.fd, rel(o.A), 0); err != nil {
		return "", err
	}
	var done []string
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"pwrite", func() error { _, err := unix.Pwrite(fd, content(o.A, 50), 10); return err }},
		{"fchmod", func() error { return unix.Fchmod(fd, 0o640) }},
		{"ftruncate", func() error { return unix.Ftruncate(fd, 30) }},
		{"fchown", func() error { return unix.Fchown(fd, 1, 1) }},
		{"fsetxattr", func() error { return unix.Fsetxattr(fd, "user.z", []byte("1"), 0) }},
		{"futimens", func() error { return unix.UtimesNanoAt(fd, "", times(5), unix.AT_EMPTY_PATH) }},
		{"fsync", func() error { return unix.Fsync(fd) }},
	} {
		if err := step.do(); err != nil {
			done = append(done, step.name+" "+unix.ErrnoName(err.(unix.Errno)))
		}
	}
	buf := make([]byte, 1<<17)
	n, err := unix.Pread(fd, buf, 0)
	line, _ := fstat(fd)
	return strings.Join(append(done, digest(buf[:max(n, 0)]), line), ", "), err
}

func doTemporary(s *side, o op) (string, error) {
	fd, err := unix.Openat(s.fd, rel(o.A), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, o.Mode)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, content(o.A, int(o.N))); err != nil {
		return "", err
	}
	if o.B != "" {
		if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/thread-self/fd/%d", fd), s.fd, o.B, unix.AT_SYMLINK_FOLLOW); err != nil {
			return "linkat", err
		}
	}
	return fstat(fd)
}
