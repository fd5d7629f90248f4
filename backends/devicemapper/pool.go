package devicemapper

import (
	"context"

	"github.com/laminafs/lamina/backends/driver"
)

// A pool keeps thin devices by number. Its methods are called under the lock of the
// root, so one at a time.
type pool interface {
	// firstNumber is a good number for the first device of a root.
	firstNumber() uint32
	// holds tells whether there is a device of a number that this root has not given
	// to any: somebody else's, in a pool that several use.
	holds(ctx context.Context, id uint32) (bool, error)
	// create makes an empty device.
	create(ctx context.Context, id uint32, size int64) error
	// snapshot makes a device that is what another one is now. The other one is not
	// being written to.
	snapshot(ctx context.Context, id, of uint32, size int64) error
	// remove deletes a device. One that is not there is no error; EBUSY tells that
	// somebody has it open.
	remove(ctx context.Context, id uint32, size int64) error
	// activate makes a device one of the kernel's.
	activate(ctx context.Context, id uint32, size int64) (device, error)
	// idle waits a little until nobody has a device open, and makes what was written
	// to it durable. EBUSY tells that somebody has it still.
	idle(ctx context.Context, id uint32, size int64) error

	space(ctx context.Context) (space, error)
	status(ctx context.Context) ([]driver.Field, error)
	close() error
}

// A device is a block device that lives until release is called and nobody else,
// such as a mount, has it open.
type device struct {
	path    string
	release func() error
}

// space is what a pool has, in bytes.
type space struct {
	dataUsed, dataTotal         int64
	metadataUsed, metadataTotal int64 // 0: not counted separately
}

// short tells whether less than a percentage is free, and of what.
func (s space) short(percent int) (what string, free, least int64, short bool) {
	for _, p := range []struct {
		what        string
		used, total int64
	}{{"data", s.dataUsed, s.dataTotal}, {"metadata", s.metadataUsed, s.metadataTotal}} {
		free, least := p.total-p.used, p.total/100*int64(percent)
		if p.total > 0 && free < least {
			return p.what, free, least, true
		}
	}
	return "", 0, 0, false
}
