//go:build integration

package kernel

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

func (c *chooser) slot() int { return c.r.IntN(slots) }

// onSlot makes a verb of a function of a kept descriptor.
func onSlot(weight int, fill func(c *chooser, o *op), do func(f *openFile, o op) (string, error)) verb {
	return verb{weight: weight, choose: func(c *chooser) op {
		o := op{Slot: c.slot()}
		if fill != nil {
			fill(c, &o)
		}
		return o
	}, do: func(s *side, o op) (string, error) {
		f, err := s.slot(o.Slot)
		if err != nil {
			return "", err
		}
		return do(f, o)
	}, onSlot: true}
}

// slotVerbs use descriptors that stay open while names come and go.
var slotVerbs = map[string]verb{
	"open": {weight: 9, choose: func(c *chooser) op {
		flags := pick(c.r, unix.O_RDONLY, unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR|unix.O_APPEND, unix.O_RDWR|unix.O_TRUNC)
		return op{A: c.old(), Slot: c.slot(), Flags: flags}
	}, do: func(s *side, o op) (string, error) {
		fd, err := unix.Openat(s.fd, rel(o.A), o.Flags|quiet, 0)
		if err != nil {
			return "", err
		}
		return s.keep(o.Slot, fd)
	}},
	"open temporary": {weight: 1, choose: func(c *chooser) op { return op{A: c.dirOr(c.old), Slot: c.slot(), Mode: pick(c.r, fileModes...)} }, do: func(s *side, o op) (string, error) {
		fd, err := unix.Openat(s.fd, rel(o.A), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, o.Mode)
		if err != nil {
			return "", err
		}
		return s.keep(o.Slot, fd)
	}},
	"close": {weight: 2, choose: func(c *chooser) op { return op{Slot: c.slot()} }, do: func(s *side, o op) (string, error) {
		s.closeSlot(o.Slot)
		return "", nil
	}},
	"flink": {weight: 1, choose: func(c *chooser) op { return op{Slot: c.slot(), A: c.any()} }, do: func(s *side, o op) (string, error) {
		f, err := s.slot(o.Slot)
		if err != nil {
			return "", err
		}
		return "", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/thread-self/fd/%d", f.fd), s.fd, rel(o.A), unix.AT_SYMLINK_FOLLOW)
	}},
	"fstat": onSlot(3, nil, func(f *openFile, o op) (string, error) { return fstat(f.fd) }),
	"fread": onSlot(5, func(c *chooser, o *op) { o.Off, o.N = c.offset(), c.size()+6000 }, func(f *openFile, o op) (string, error) {
		buf := make([]byte, o.N)
		n, err := unix.Pread(f.fd, buf, o.Off)
		return digest(buf[:max(n, 0)]), err
	}),
	"fwrite": onSlot(5, func(c *chooser, o *op) { o.Off, o.N = c.offset(), c.size() }, func(f *openFile, o op) (string, error) {
		n, err := unix.Pwrite(f.fd, content(fmt.Sprint(o.Off, o.N), int(o.N)), o.Off)
		return fmt.Sprint(n), err
	}),
	"ftruncate": onSlot(2, func(c *chooser, o *op) { o.N = pick[int64](c.r, 0, 77, 5000) }, func(f *openFile, o op) (string, error) {
		var st unix.Stat_t
		unix.Fstat(f.fd, &st)
		if err := unix.Ftruncate(f.fd, o.N); err != nil || st.Size != o.N {
			return "", err
		}
		return "", unix.UtimesNanoAt(f.fd, "", times(now), unix.AT_EMPTY_PATH) // as truncate
	}),
	"fchmod": onSlot(2, func(c *chooser, o *op) { o.Mode = pick(c.r, fileModes...) }, func(f *openFile, o op) (string, error) {
		if err := unix.Fchmod(f.fd, o.Mode); err != nil {
			return "", err
		}
		return fstat(f.fd)
	}),
	"fchown": onSlot(2, func(c *chooser, o *op) { o.UID, o.GID = c.id(), c.id() }, func(f *openFile, o op) (string, error) {
		if err := unix.Fchown(f.fd, o.UID, o.GID); err != nil {
			return "", err
		}
		return fstat(f.fd)
	}),
	"futimens": onSlot(2, func(c *chooser, o *op) { o.Off = c.time() }, func(f *openFile, o op) (string, error) {
		if err := unix.UtimesNanoAt(f.fd, "", times(o.Off), unix.AT_EMPTY_PATH); err != nil {
			return "", err
		}
		var st unix.Stat_t
		err := unix.Fstat(f.fd, &st)
		return mtimeText(&st), err
	}),
	"fsetxattr": onSlot(2, func(c *chooser, o *op) { o.Value = c.value() }, func(f *openFile, o op) (string, error) {
		return "", unix.Fsetxattr(f.fd, "user.f", o.Value, 0)
	}),
	"fsync": onSlot(1, nil, func(f *openFile, o op) (string, error) { return "", unix.Fsync(f.fd) }),
	"fholes": onSlot(1, nil, func(f *openFile, o op) (string, error) {
		if line, err := fstat(f.fd); err != nil || !strings.HasPrefix(line, "file") {
			return "no regular file", err // the kernel's FUSE side seeks in directories
		}
		return holes(f.fd)
	}),
	"ffallocate": onSlot(1, func(c *chooser, o *op) {
		o.Flags, o.Off, o.N = pick(c.r, 0, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE), c.offset(), 5000
	}, func(f *openFile, o op) (string, error) {
		return "", unix.Fallocate(f.fd, uint32(o.Flags), o.Off, o.N)
	}),
	"lock": onSlot(3, func(c *chooser, o *op) {
		o.Flags, o.Mode = pick(c.r, unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN), uint32(c.r.IntN(2))
		o.Off, o.N = pick[int64](c.r, 0, 100), pick[int64](c.r, 0, 50, 200)
	}, doLock),
	"map": onSlot(3, nil, func(f *openFile, o op) (string, error) {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil || f.mem != nil || st.Size == 0 {
			return "", err
		}
		mem, err := unix.Mmap(f.fd, 0, int(min(st.Size, 1<<17)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		f.mem = mem
		return "", err
	}),
	"poke": onSlot(3, func(c *chooser, o *op) { o.Off = c.offset() }, func(f *openFile, o op) (string, error) {
		if f.mem == nil {
			return "not mapped", nil
		}
		at := int(o.Off) % len(f.mem)
		copy(f.mem[at:], "poked into memory")
		line, err := fstat(f.fd)
		return line, err
	}),
	"peek": onSlot(3, nil, func(f *openFile, o op) (string, error) { return digest(append([]byte{}, f.mem...)), nil }),
	"msync": onSlot(1, nil, func(f *openFile, o op) (string, error) {
		if f.mem == nil {
			return "not mapped", nil
		}
		return "", unix.Msync(f.mem, unix.MS_SYNC)
	}),
	"fcreate": {weight: 1, choose: func(c *chooser) op {
		return op{Slot: c.slot(), B: pick(c.r, allNames...), Mode: pick(c.r, fileModes...)}
	}, do: func(s *side, o op) (string, error) {
		f, err := s.slot(o.Slot)
		if err != nil {
			return "", err
		}
		fd, err := unix.Openat(f.fd, o.B, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, o.Mode)
		if err == nil {
			err = unix.Close(fd)
		}
		return "", err
	}},
	"fcopy range": {weight: 2, choose: func(c *chooser) op { return op{Slot: c.slot(), Other: c.slot(), Off: c.offset(), N: c.size() + 1} }, do: func(s *side, o op) (string, error) {
		from, err := s.slot(o.Slot)
		if err != nil {
			return "", err
		}
		to, err := s.slot(o.Other)
		if err != nil {
			return "", err
		}
		n, err := s.copyRange(from.fd, to.fd, o)
		return fmt.Sprint(n), err
	}},
}

func (s *side) keep(slot, fd int) (string, error) {
	s.closeSlot(slot)
	s.files[slot] = &openFile{fd: fd}
	return fstat(fd)
}

// doLock takes a lock without waiting: flock(2) or one of the open file
// description.
func doLock(f *openFile, o op) (string, error) {
	if o.Mode == 0 {
		return "", unix.Flock(f.fd, o.Flags|unix.LOCK_NB)
	}
	kind := map[int]int16{unix.LOCK_SH: unix.F_RDLCK, unix.LOCK_EX: unix.F_WRLCK, unix.LOCK_UN: unix.F_UNLCK}[o.Flags]
	return "", unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: o.Off, Len: o.N})
}
