package blockpool

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An Identity is what the label of a device tells of its pool.
type Identity struct {
	GUID     GUID
	Name     string
	Replicas []string // files of the metadata
}

// Identify reads the label of the file or block device at path, whether or not
// its pool is open. A path that leads to no device of a pool is [ErrDamaged] or an
// error of the system.
func Identify(path string) (Identity, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Identity{}, fmt.Errorf("identify device: %w", err)
	}
	if t := st.Mode().Type(); t != 0 && t != os.ModeDevice {
		return Identity{}, fmt.Errorf("identify device: %s is neither a file nor a block device (%v): %w", path, t, ErrInvalid)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Identity{}, fmt.Errorf("identify device: %w", err)
	}
	defer f.Close()
	l, err := readLabel(labelFile{f})
	if err != nil {
		return Identity{}, err
	}
	return Identity{GUID: l.pool, Name: l.name, Replicas: l.replicas}, nil
}

// A labelFile is a device that is only looked at.
type labelFile struct{ *os.File }

func (f labelFile) Path() string { return f.Name() }
