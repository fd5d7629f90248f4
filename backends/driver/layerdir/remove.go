package layerdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
)

// Remove takes a layer out of sight by one rename and deletes it then.
func (d *Driver) Remove(_ context.Context, id string) error {
	s, err := d.newStage("remove")
	if err != nil {
		return d.fail("remove", id, err, "")
	}
	err = d.locked(func() error {
		if err := d.removable(id); err != nil {
			return err
		}
		// Crash before the first rename: the layer. Behind it: parts without a
		// record, and what belongs to them, swept.
		r, beside := d.kind.(Remover)
		if beside {
			if err := r.Removable(d, id); err != nil {
				return err
			}
		}
		if err := d.unpublish(s, id); err != nil || !beside {
			return err
		}
		d.Step("removed")
		return r.Removed(d, id)
	})
	if err == nil {
		d.Step("delete")
		_ = os.Remove(d.mountsFile(id)) // none counts any more
	}
	return d.fail("remove", id, errors.Join(err, s.drop()), "")
}

// removable reports why a layer cannot be removed. A damaged one can.
func (d *Driver) removable(id string) error {
	if _, err := d.record(id); err != nil && !errors.Is(err, driver.ErrDamaged) {
		return err
	}
	if err := d.own(id); err != nil {
		return err
	}
	at, err := d.mounts(id)
	if err != nil {
		return err
	}
	if len(at) > 0 {
		return fmt.Errorf("%w on %s; unmount it first", driver.ErrMounted, at[0])
	}
	child, err := d.child(id)
	if err != nil {
		return err
	}
	if child != "" {
		return fmt.Errorf("%w: %s; remove that first", driver.ErrHasChildren, child)
	}
	return nil
}

// Cleanup sweeps what crashes have left.
func (d *Driver) Cleanup(context.Context) ([]string, error) {
	var swept []string
	s, err := d.newStage("sweep")
	if err != nil {
		return nil, d.fail("clean up", "", err, "")
	}
	defer s.drop()
	err = d.locked(func() error {
		parts, err := d.strayParts()
		if err != nil {
			return err
		}
		for i, p := range parts {
			if err := d.move(d.path(p), s.Path(fmt.Sprint(i))); err != nil {
				return err
			}
		}
		layers, err := d.records()
		if err != nil {
			return err
		}
		for _, l := range layers {
			if l.Committed {
				err = errors.Join(err, d.kind.Tidy(d, l))
			}
		}
		if err != nil {
			return err
		}
		beside, err := d.kind.Sweep(d)
		swept = append(parts, beside...)
		return err
	})
	if err == nil {
		var stages []string
		stages, err = d.sweepStages()
		swept = append(swept, stages...)
	}
	return swept, d.fail("clean up", "", err, "")
}

// strayParts lists the parts, below the root, that belong to no layer.
func (d *Driver) strayParts() ([]string, error) {
	var stray []string
	for _, part := range d.kind.Parts("*") {
		before, after, _ := strings.Cut(part.Final, "*")
		entries, err := os.ReadDir(d.path(filepath.Dir(part.Final)))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			id, ok := strings.CutSuffix(e.Name(), after)
			if !ok || checkID(id) != nil {
				continue
			}
			if _, err := os.Lstat(d.path(d.kind.Record(id))); errors.Is(err, os.ErrNotExist) {
				stray = append(stray, before+id+after)
			}
		}
	}
	slices.Sort(stray)
	return slices.Compact(stray), nil
}

// sweepStages removes the stages whose process is gone.
func (d *Driver) sweepStages() ([]string, error) {
	entries, err := os.ReadDir(d.path("tmp"))
	if err != nil {
		return nil, err
	}
	var swept []string
	for _, e := range entries {
		path := d.path("tmp", e.Name())
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return swept, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			swept = append(swept, "tmp/"+e.Name())
			err = d.deleteAll(path)
		}
		f.Close()
		if err != nil {
			return swept, err
		}
	}
	return swept, nil
}
