package layerdir

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver/rootdir"
)

// locked runs a short step while no other process does one.
func (d *Driver) locked(step func() error) error { return rootdir.Locked(d.path("lock"), step) }

// A Stage is a directory in tmp/ that belongs to this process while it lives.
type Stage struct {
	Dir    string
	lock   *os.File
	delete func(dir string) error
}

// Path returns a path below the stage.
func (s *Stage) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// newStage makes one. A sweeper may come between making and locking it; then it
// is made again.
func (d *Driver) newStage(purpose string) (*Stage, error) {
	for {
		dir, err := os.MkdirTemp(d.path("tmp"), purpose+"-")
		if err != nil {
			return nil, err
		}
		lock, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			lock.Close()
			continue
		}
		if _, err := os.Stat(dir); err == nil {
			return &Stage{dir, lock, d.deleteAll}, nil
		}
		lock.Close()
	}
}

// StageAlive reports whether a process holds the stage of that name.
func (d *Driver) StageAlive(name string) bool {
	f, err := os.Open(d.path("tmp", filepath.Base(name)))
	if err != nil {
		return false // gone, with whoever held it
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// drop removes a stage and what is left in it. What cannot be removed now, the
// next one who opens the driver sweeps.
func (s *Stage) drop() error {
	err := s.delete(s.Dir)
	s.lock.Close()
	return err
}

// publish moves the parts to where they belong, the record last. It runs under
// the lock. What a crashed process has left in the way goes to the stage.
func (d *Driver) publish(s *Stage, id string) error {
	for i, p := range d.kind.Parts(id) {
		d.Step("publish " + p.Staged)
		final := d.path(p.Final)
		err := d.move(s.Path(p.Staged), final)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			if err = d.move(final, s.Path("stale"+string(rune('0'+i)))); err == nil {
				err = d.move(s.Path(p.Staged), final)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unpublish takes the parts to the stage, that with the record first. Parts that
// are not there do not matter.
func (d *Driver) unpublish(s *Stage, id string) error {
	parts := d.kind.Parts(id)
	for i := len(parts) - 1; i >= 0; i-- {
		d.Step("unpublish " + parts[i].Staged)
		err := d.move(d.path(parts[i].Final), s.Path(parts[i].Staged))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d *Driver) move(from, to string) error {
	if m, ok := d.kind.(Mover); ok {
		return m.Move(from, to)
	}
	return os.Rename(from, to)
}

func (d *Driver) deleteAll(dir string) error {
	if m, ok := d.kind.(Mover); ok {
		return m.Delete(dir)
	}
	return os.RemoveAll(dir)
}
