package dataset

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// damagedf makes an error that says what of a tree makes no sense: EIO to whoever
// asks for the errno, and [blockpool.ErrDamaged].
func damagedf(format string, args ...any) error {
	return fmt.Errorf("%w: %w: "+format, append([]any{unix.EIO, blockpool.ErrDamaged}, args...)...)
}

// failed says which operation on which object an error stopped. What has no errno
// is EIO.
func failed(op string, object uint64, err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		return fmt.Errorf("dataset: %s, object %d: %w", op, object, err)
	}
	return fmt.Errorf("dataset: %s, object %d: %w: %w", op, object, unix.EIO, err)
}

// isErrno tells whether an error is of a kind.
func isErrno(err error, e syscall.Errno) bool { return errors.Is(err, e) }

// noRoom tells whether an error says that space, or the right to it, is short.
func noRoom(err error) bool { return isErrno(err, unix.ENOSPC) || isErrno(err, unix.EDQUOT) }

// newerf says what of a tree only a newer lamina understands: EOPNOTSUPP, and
// [blockpool.ErrNewer].
func newerf(format string, args ...any) error {
	return fmt.Errorf("%w: %w: "+format, append([]any{unix.EOPNOTSUPP, blockpool.ErrNewer}, args...)...)
}
