package blockpool

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// The causes that errors of this package wrap. errors.Is also finds the errno
// behind those that have one.
var (
	// ErrDamaged says that bytes on disk do not fit their checksum or mean
	// nothing, and that no other copy helps.
	ErrDamaged error = format.ErrDamaged
	// ErrNotFound names a volume, snapshot or device that the pool has not.
	ErrNotFound error = errnoError{"not found", syscall.ENOENT}
	// ErrExists names one that it has already.
	ErrExists error = errnoError{"exists already", syscall.EEXIST}
	// ErrInvalid is an argument that makes no sense.
	ErrInvalid error = errnoError{"invalid", syscall.EINVAL}
	// ErrReadOnly refuses a change of a snapshot or of a pool that is read-only.
	ErrReadOnly error = errnoError{"read-only", syscall.EROFS}
	// ErrNoSpace says that the pool's devices are full.
	ErrNoSpace error = errnoError{"no space left in the pool", syscall.ENOSPC}
	// ErrQuota says that a limit of the volume is reached.
	ErrQuota error = errnoError{"quota exceeded", syscall.EDQUOT}
	// ErrBusy refuses what cannot be done while the thing is in use.
	ErrBusy error = errnoError{"in use", syscall.EBUSY}
	// ErrInUse says that another process has the pool open.
	ErrInUse error = errnoError{"another process has it open", syscall.EBUSY}
	// ErrNeedsCheck says that metadata could not be committed: the pool is
	// read-only until it was opened anew.
	ErrNeedsCheck error = errnoError{"metadata could not be committed: the pool is read-only and needs a check", syscall.EROFS}
	// ErrClosed says that the pool or volume was closed.
	ErrClosed error = errnoError{"closed", syscall.EBADF}
	// ErrNewer refuses a pool that a newer lamina made or changed.
	ErrNewer = errors.New("needs a newer lamina")
	// ErrIncomplete refuses to open a pool when devices or replicas that it
	// cannot do without are missing.
	ErrIncomplete = errors.New("incomplete")
)

// An errnoError is a cause that a system call would have reported as errno.
type errnoError struct {
	text  string
	errno syscall.Errno
}

func (e errnoError) Error() string { return e.text }
func (e errnoError) Unwrap() error { return e.errno }

// invalidf makes an ErrInvalid that says what was wrong.
func invalidf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrInvalid)...)
}

// damagedf makes an ErrDamaged that says what was wrong.
func damagedf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrDamaged)...)
}
