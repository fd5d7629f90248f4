package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrProtocol is behind the error of a connection whose client did what the
// protocol forbids in a way that leaves nothing to answer.
var ErrProtocol = errors.New("nbd: protocol violated")

// An Errno is an error value of the protocol. The numbers are those of Linux.
type Errno uint32

const (
	EPERM     Errno = 1   // the export is read-only
	EIO       Errno = 5   // anything not listed here
	ENOMEM    Errno = 12  // the Block has no memory for it
	EINVAL    Errno = 22  // a range, flag or command that does not exist
	ENOSPC    Errno = 28  // full, over quota, or a write past the end
	EOVERFLOW Errno = 75  // larger than the block size information allows
	ENOTSUP   Errno = 95  // FAST_ZERO would not be fast
	ESHUTDOWN Errno = 108 // the server is about to end
)

// Error returns the text of errno(3).
func (e Errno) Error() string { return unix.Errno(e).Error() }

// A failure is an error to be sent as it is, with a text for people.
type failure struct {
	errno Errno
	text  string
}

func (f *failure) Error() string { return f.text }

func fail(e Errno, format string, args ...any) error {
	return &failure{e, fmt.Sprintf(format, args...)}
}

// errnoOf chooses the error value that tells a client of err.
func errnoOf(err error) Errno {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.errno
	}
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(unix.ENOSPC, unix.EDQUOT, unix.EFBIG):
		return ENOSPC
	case is(fs.ErrPermission, unix.EROFS):
		return EPERM
	case is(unix.EINVAL, errors.ErrUnsupported):
		// ENOTSUP is for FAST_ZERO alone.
		return EINVAL
	case is(unix.ENOMEM):
		return ENOMEM
	case is(unix.EOVERFLOW):
		return EOVERFLOW
	case is(unix.ESHUTDOWN, context.Canceled, fs.ErrClosed, net.ErrClosed):
		return ESHUTDOWN
	}
	return EIO
}

// displayText returns the text of an error as the protocol allows strings to be.
func displayText(err error) string {
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "?"), "\x00", "?")
	if len(text) > maxString {
		text = strings.ToValidUTF8(text[:maxString], "")
	}
	return text
}
