package graph

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/tree"
)

// A Driver is a storage driver that is used as a graph driver. It may be used by
// several goroutines.
type Driver struct {
	lamina driver.Driver
	// rootMode is the mode of the root directory of a layer without a parent, 0 for
	// the one that lamina gives.
	rootMode os.FileMode

	mu    sync.Mutex
	users map[string]int    // of a layer's view
	at    map[string]string // where the view is
	bare  map[string]bool   // layers whose root directory does not have rootMode yet
}

// New makes a graph driver, which owns the storage driver from then on.
func New(d driver.Driver, rootMode os.FileMode) *Driver {
	return &Driver{lamina: d, rootMode: rootMode, users: map[string]int{}, at: map[string]string{}, bare: map[string]bool{}}
}

// Create makes a layer on another, or on none. The only option is size, in bytes or
// with a suffix.
func (d *Driver) Create(id, parent string, options map[string]string) error {
	var o driver.CreateOptions
	for name, value := range options {
		if name != "size" {
			return fmt.Errorf("create %s: option %s is %w", id, name, driver.ErrUnsupported)
		}
		size, err := driver.ParseSize(value)
		if err != nil {
			return fmt.Errorf("create %s: %w", id, err)
		}
		o.Size = size
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if parent != "" {
		if err := d.commitLocked(parent); err != nil {
			return err
		}
	}
	if err := d.lamina.Create(context.Background(), id, parent, o); err != nil {
		return err
	}
	d.bare[id] = parent == "" && d.rootMode != 0
	return nil
}

// commitLocked makes a layer one that others can be built on, whoever uses it.
func (d *Driver) commitLocked(id string) error {
	ctx := context.Background()
	l, err := d.lamina.Layer(id)
	if err != nil || l.Committed {
		return err
	}
	used := d.users[id] > 0
	if used {
		if err := d.lamina.Unmount(ctx, id, "", false); err != nil {
			return err
		}
	}
	if err := d.lamina.Commit(ctx, id); err != nil || !used {
		return err
	}
	d.at[id], err = d.lamina.Mount(ctx, id, driver.MountOptions{})
	return err
}

// Copy makes a layer on a parent that looks like the template, which is built on the
// same parent.
func (d *Driver) Copy(id, template, parent string, options map[string]string, writable bool) error {
	if err := d.Create(id, parent, options); err != nil {
		return err
	}
	diff, err := d.Diff(template, parent)
	if err != nil {
		return err
	}
	defer diff.Close()
	if w, ok := d.lamina.(driver.Writer); ok && writable {
		_, err = w.Write(context.Background(), id, diff, tree.ApplyOptions{})
	} else {
		_, err = d.lamina.Apply(context.Background(), id, diff, tree.ApplyOptions{})
	}
	return err
}

// Remove takes a layer away.
func (d *Driver) Remove(id string) error {
	return d.lamina.Remove(context.Background(), id)
}

// Get returns a directory in which the layer can be seen.
func (d *Driver) Get(id string, mountOptions []string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users[id] > 0 {
		d.users[id]++
		return d.at[id], nil
	}
	l, err := d.lamina.Layer(id)
	if err != nil {
		return "", err
	}
	at, err := d.lamina.Mount(context.Background(), id, driver.MountOptions{ReadOnly: l.Filled, Options: mountOptions})
	if err != nil {
		return "", err
	}
	d.users[id], d.at[id] = 1, at
	if d.bare[id] && !l.Filled && !l.Committed {
		d.bare[id] = false
		err = os.Chmod(at, d.rootMode)
	}
	return at, err
}

// Put ends what Get began.
func (d *Driver) Put(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.users[id]--; {
	case d.users[id] < 0: // graph drivers do not mind
		delete(d.users, id)
	case d.users[id] == 0:
		delete(d.users, id)
		return d.lamina.Unmount(context.Background(), id, "", false)
	}
	return nil
}

// Exists reports whether there is such a layer.
func (d *Driver) Exists(id string) bool {
	_, err := d.lamina.Layer(id)
	return err == nil
}

// Layers returns all, those that are built on others first.
func (d *Driver) Layers() ([]string, error) {
	ids, err := d.lamina.Layers()
	if err != nil {
		return nil, err
	}
	depth := map[string]int{}
	for _, id := range ids {
		l, err := d.lamina.Layer(id)
		if err != nil {
			return nil, err
		}
		depth[id] = len(l.Parents)
	}
	slices.SortStableFunc(ids, func(a, b string) int { return depth[b] - depth[a] })
	return ids, nil
}

// Name is what the driver is called, and Status what it tells of itself.
func (d *Driver) Name() string { return d.lamina.Name() }

// Status tells what people look for.
func (d *Driver) Status() (pairs [][2]string) {
	fields, err := d.lamina.Status(context.Background())
	if err != nil {
		return [][2]string{{"Error", err.Error()}}
	}
	for _, f := range fields {
		pairs = append(pairs, [2]string{f.Name, f.Value})
	}
	return pairs
}

// Usage tells what a layer takes by itself.
func (d *Driver) Usage(id string) (driver.Usage, error) {
	return d.lamina.Usage(context.Background(), id)
}

// Close takes all views away and lets go of the storage driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.users {
		if err := d.lamina.Unmount(context.Background(), id, "", false); err != nil {
			return err
		}
	}
	clear(d.users)
	return d.lamina.Close()
}

// ApplyDiff fills a layer with what an archive says, and returns the bytes of its files.
func (d *Driver) ApplyDiff(id string, archive io.Reader) (int64, error) {
	applied, err := d.lamina.Apply(context.Background(), id, archive, tree.ApplyOptions{})
	return applied.Bytes, err
}
