package inspect

import (
	"errors"
	"syscall"
)

// errnoOf returns the errno inside of err, 0 where there is none.
func errnoOf(err error) (e syscall.Errno) {
	errors.As(err, &e)
	return e
}
