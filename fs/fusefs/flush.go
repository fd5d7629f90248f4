package fusefs

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Flush has the kernel hand over what it holds back of written files: through
// mappings, and with write-back. It does not make anything durable, and cannot reach
// what was unmounted lazily. It must not be called by what answers a request.
func (m *FilesystemMount) Flush() error {
	fd, err := unix.Open(m.info.Target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("flush %s: %w", m.info.Target, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Dev == m.dev.dev {
		if err = unix.Syncfs(fd); err == nil {
			err = m.awaitWrites(fd)
		}
	}
	if err != nil {
		return fmt.Errorf("flush %s: %w", m.info.Target, err)
	}
	return nil
}

// maxBackground is how many requests that nobody waits for the kernel has on their way
// to the server at a time.
const maxBackground = 64

// awaitWrites returns when the writes that syncfs(2) has made necessary are done. The
// kernel (seen with 6.18) does not wait for those of FUSE, since a server might never
// answer; but they are in its queue: a question that comes back has passed those that were on
// their way, and as long as these are fewer than may be there are no others behind
// them. Who has read a request counts it a little later.
func (m *FilesystemMount) awaitWrites(fd int) error {
	for {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
		begun := m.count.ops[opWrite].Load()
		behind := begun-m.count.writesDone.Load() >= maxBackground
		for m.count.writesDone.Load() < begun {
			time.Sleep(100 * time.Microsecond)
		}
		if !behind {
			return nil
		}
	}
}
