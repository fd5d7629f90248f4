package datasets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/tree"
)

// Create makes a clone of the parent's snapshot, in one transaction group.
func (d *Driver) Create(ctx context.Context, id, parent string, o driver.CreateOptions) error {
	d.steps("record")
	err := d.locked(func() error {
		clone, err := d.newLayer(ctx, id, parent, o)
		if err != nil {
			return err
		}
		d.steps("create")
		_, err = Ask(ctx, d, poolserver.DatasetClone, clone)
		d.steps("created")
		if errors.Is(err, unix.EEXIST) {
			err = driver.ErrExists
		}
		return err
	})
	return d.fail("create", id, err, "")
}

// newLayer checks what was asked for.
func (d *Driver) newLayer(ctx context.Context, id, parent string, o driver.CreateOptions) (clone poolserver.CloneDataset, err error) {
	if err := checkID(id); err != nil {
		return clone, err
	}
	size, inodes := o.Size, o.Inodes
	if size == 0 {
		size = d.kind.Size
	}
	if inodes == 0 {
		inodes = d.kind.Inodes
	}
	switch {
	case size < 0 || inodes < 0:
		return clone, fmt.Errorf("a limit below 0 is %w", driver.ErrUnsupported)
	case size > 0 && size < d.kind.MinSize:
		return clone, fmt.Errorf("a size of %d is %w: the least is %d, which the option min_space says", size, driver.ErrUnsupported, d.kind.MinSize)
	}
	clone = poolserver.CloneDataset{From: d.dataset(emptySnapshot), To: d.dataset(id), Brief: true}
	clone.Properties = map[string]string{propertyCreated: time.Now().UTC().Format(time.RFC3339Nano)}
	if parent != "" {
		p, err := d.record(ctx, parent)
		if err != nil {
			return clone, fmt.Errorf("parent %s: %w", parent, err)
		}
		if !p.Committed {
			return clone, fmt.Errorf("parent %s: %w; commit it first", parent, driver.ErrActive)
		}
		clone.From = d.snapshot(parent)
		clone.Properties[propertyParent] = parent
	}
	if size > 0 || inodes > 0 {
		limits, err := d.limits(ctx, clone.From, size, inodes)
		if err != nil {
			return clone, err
		}
		maps.Copy(clone.Properties, limits)
	}
	return clone, nil
}

// snapshot is what a committed layer is a parent by.
func (d *Driver) snapshot(id string) string { return d.dataset(id) + "@" + committed }

// limits returns the properties that bound a clone of from.
func (d *Driver) limits(ctx context.Context, from string, size, inodes int64) (map[string]string, error) {
	list, err := query(ctx, d, poolserver.DatasetGet, poolserver.GetDatasets{Names: []string{from}, Properties: []string{"referenced", "objects"}})
	if err != nil {
		return nil, err
	}
	has := map[string]int64{}
	for _, p := range list[0].Properties {
		has[p.Name], _ = strconv.ParseInt(p.Value, 10, 64) // the pool has made it
	}
	p := map[string]string{}
	if size > 0 {
		if d.kind.SizeProperty == "refquota" && size < has["referenced"] {
			return nil, fmt.Errorf("a size of %d bytes is %w: the parent takes %d already, which count", size, driver.ErrUnsupported, has["referenced"])
		}
		p[d.kind.SizeProperty], p[propertySize] = fmt.Sprint(size), fmt.Sprint(size)
	}
	if inodes > 0 {
		p["inodes"], p[propertyInodes] = fmt.Sprint(has["objects"]+inodes), fmt.Sprint(inodes)
	}
	return p, nil
}

// active returns the record of a layer that is not committed and not mounted.
func (d *Driver) active(ctx context.Context, id string) (*driver.Layer, error) {
	l, err := d.record(ctx, id)
	if err != nil {
		return nil, err
	}
	if l.Committed {
		return nil, driver.ErrCommitted
	}
	at, err := d.mounts(ctx, id)
	if err == nil && len(at) > 0 {
		err = fmt.Errorf("%w on %s; unmount it first", driver.ErrMounted, at[0])
	}
	return l, err
}

// Apply has the server fill an active layer from an archive.
func (d *Driver) Apply(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	d.steps("fill")
	err := d.locked(func() error {
		l, err := d.active(ctx, id)
		if err == nil && l.Filled {
			err = driver.ErrFilled
		}
		if err != nil {
			return err
		}
		_, err = Ask(ctx, d, poolserver.DatasetSet, poolserver.SetDatasets{Names: []string{d.dataset(id)}, Properties: map[string]string{propertyFilled: "on"}})
		return err
	})
	if err != nil {
		return tree.Applied{}, d.fail("apply", id, err, "")
	}
	d.steps("apply")
	done, err := d.apply(ctx, id, archive, o)
	d.steps("applied")
	return done, d.fail("apply", id, err, "the layer holds a part of it; remove the layer")
}

// Write implements [driver.Writer].
func (d *Driver) Write(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	err := d.locked(func() error {
		l, err := d.active(ctx, id)
		if err == nil && l.Filled {
			err = driver.ErrFilled
		}
		return err
	})
	var done tree.Applied
	if err == nil {
		done, err = d.apply(ctx, id, archive, o)
	}
	return done, d.fail("write", id, err, "the layer may hold a part of it; remove the layer")
}

// apply streams the archive to the server.
func (d *Driver) apply(ctx context.Context, id string, archive io.Reader, o tree.ApplyOptions) (tree.Applied, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return tree.Applied{}, err
	}
	// A longer pipe has the two sides wait less for each other; the user may be
	// allowed no more of it.
	_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	source := &reading{r: archive}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(w, source) // what fails here is the server's end, or source.err
		w.Close()
	}()
	var progress func(poolserver.Progress)
	if o.Entry != nil {
		progress = func(p poolserver.Progress) { o.Entry(p.Text, 0) }
	}
	args := poolserver.ApplyArchive{Name: d.dataset(id), MaxBytes: o.MaxBytes, MaxEntries: o.MaxEntries}
	done, err := ask(ctx, d, poolserver.DatasetApply, args, progress, r)
	r.Close()
	<-copied
	switch {
	case source.err != nil:
		return done.Applied, source.err
	case err != nil:
		return done.Applied, err
	}
	return done.Applied, done.Failed.Err()
}

// reading remembers why a source ended.
type reading struct {
	r   io.Reader
	err error
}

func (s *reading) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Commit keeps what the layer is as a snapshot, in one transaction group, which has
// all that was written before.
func (d *Driver) Commit(ctx context.Context, id string) error {
	err := d.locked(func() error {
		if _, err := d.active(ctx, id); err != nil {
			return err
		}
		d.steps("commit")
		_, err := Ask(ctx, d, poolserver.DatasetSnapshot, poolserver.SnapshotDatasets{Names: []string{d.snapshot(id)}})
		d.steps("committed")
		return err
	})
	return d.fail("commit", id, err, "")
}

// Remove destroys the dataset and its snapshot in one transaction group.
func (d *Driver) Remove(ctx context.Context, id string) error {
	err := d.locked(func() error {
		if err := d.removable(ctx, id); err != nil {
			return err
		}
		d.steps("destroy")
		_, err := Ask(ctx, d, poolserver.DatasetDestroy, poolserver.DestroyDatasets{Names: []string{d.dataset(id)}, Recursive: true, Untold: true})
		d.steps("destroyed")
		if err != nil {
			return err
		}
		return d.removeMountpoint(id)
	})
	return d.fail("remove", id, err, "")
}

// removable reports why a layer cannot be removed.
func (d *Driver) removable(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	layers, err := d.records(ctx)
	if err != nil {
		return err
	}
	if layers[id] == nil {
		return driver.ErrNotFound
	}
	at, err := d.mounts(ctx, id)
	if err != nil {
		return err
	}
	if len(at) > 0 {
		return fmt.Errorf("%w on %s; unmount it first", driver.ErrMounted, at[0])
	}
	for _, l := range layers {
		if l.Parent() == id {
			return fmt.Errorf("%w: %s; remove that first", driver.ErrHasChildren, l.ID)
		}
	}
	return nil
}

// removeMountpoint removes the directory where views of a layer were mounted.
func (d *Driver) removeMountpoint(id string) error {
	err := os.Remove(d.path("mnt", id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Cleanup sweeps directories for mounts whose layer is gone.
func (d *Driver) Cleanup(ctx context.Context) (swept []string, err error) {
	err = d.locked(func() error {
		entries, err := os.ReadDir(d.path("mnt"))
		if err != nil || len(entries) == 0 {
			return err
		}
		layers, err := d.records(ctx)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if layers[e.Name()] != nil {
				continue
			}
			if err := d.removeMountpoint(e.Name()); err != nil {
				return err
			}
			swept = append(swept, "mnt/"+e.Name())
		}
		return nil
	})
	return swept, d.fail("clean up", "", err, "")
}
