// Package rootdir is what drivers share that keep anything in files of their own
// directory: its lock, files that are replaced as a whole, and notes of mounts.
package rootdir

import (
	"encoding/json"
	"errors"
	"os"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Locked runs a short step while no other process has the lock file (flock(2)), which
// is made if need be.
func Locked(file string, step func() error) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("flock", err)
		}
		return step()
	}
}

// NewSuffix ends the name of what is about to replace a file.
const NewSuffix = ".new"

// ReplaceJSON replaces a file by one rename. When that is on disk is the
// filesystem's business.
func ReplaceJSON(path string, v any) error {
	if err := WriteJSON(path+NewSuffix, v); err != nil {
		return err
	}
	return os.Rename(path+NewSuffix, path)
}

// WriteJSON writes a file that everybody may read.
func WriteJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Mounts reads a note of where something was mounted, and returns the places that the
// kernel confirms. No note is none.
func Mounts(note string) ([]string, error) {
	text, err := os.ReadFile(note)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var noted []string
	if json.Unmarshal(text, &noted) != nil {
		return nil, nil // torn by a power cut, which has ended all mounts too
	}
	var at []string
	_, err = mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		if slices.Contains(noted, m.Mountpoint) && !slices.Contains(at, m.Mountpoint) {
			at = append(at, m.Mountpoint)
		}
		return true, false
	})
	return at, err
}

// NoteMounts writes such a note, or takes it away when there is nothing to note.
func NoteMounts(note string, at []string) error {
	if len(at) > 0 {
		return ReplaceJSON(note, at)
	}
	if err := os.Remove(note); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// SyncDir makes durable which names a directory has.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
