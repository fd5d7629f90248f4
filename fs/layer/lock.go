package layer

import "golang.org/x/sys/unix"

// Lockable is what directories can do that several processes may want to write
// to.
type Lockable interface {
	// TryLock takes the advisory lock of the directory (flock(2)) and returns
	// what gives it back. EWOULDBLOCK tells that someone else has it. The
	// kernel gives it back when the process ends, however that happens.
	TryLock() (unlock func(), err error)
}

var _ Lockable = (*hostDir)(nil)

func (d *hostDir) TryLock() (func(), error) {
	fd, err := d.reopen()
	if err != nil {
		return nil, err
	}
	if err := retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}
