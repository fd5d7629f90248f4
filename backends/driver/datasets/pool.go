package datasets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// connections are those to the server of the pool.
type connections struct {
	place poolserver.Place
	argv  func(dir string) []string

	mu   sync.Mutex
	idle []*poolserver.Client
}

// connect returns a connection for one request, or a longer one.
func (c *connections) connect(ctx context.Context) (*poolserver.Client, error) {
	c.mu.Lock()
	for len(c.idle) > 0 {
		last := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if last.Alive() {
			c.mu.Unlock()
			return last, nil
		}
		last.Close() // its server is gone
	}
	c.mu.Unlock()
	if c.argv == nil {
		client, err := c.place.Dial()
		if errors.Is(err, poolserver.ErrNotRunning) {
			err = fmt.Errorf("pool %s: %w, and this program has no way to start one: %w", c.place.Dir, err, driver.ErrUnsupported)
		}
		return client, err
	}
	return c.place.Connect(ctx, c.argv(c.place.Dir))
}

// done takes a connection back that nothing is under way on.
func (c *connections) done(client *poolserver.Client) {
	client.Progress = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, client)
}

func (c *connections) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.idle {
		client.Close() // nothing is under way
	}
	c.idle = nil
	return nil
}

// Ask asks the server of the driver's pool.
func Ask[A, R any](ctx context.Context, d *Driver, op poolserver.Op[A, R], args A, files ...*os.File) (R, error) {
	return ask(ctx, d, op, args, nil, files...)
}

// query is Ask for what changes nothing: when the server dies meanwhile the next one is
// asked.
func query[A, R any](ctx context.Context, d *Driver, op poolserver.Op[A, R], args A) (R, error) {
	result, err := Ask(ctx, d, op, args)
	if errors.Is(err, poolserver.ErrServerGone) {
		return Ask(ctx, d, op, args)
	}
	return result, err
}

func ask[A, R any](ctx context.Context, d *Driver, op poolserver.Op[A, R], args A, progress func(poolserver.Progress), files ...*os.File) (result R, err error) {
	client, err := d.pool.connect(ctx)
	if err != nil {
		return result, err
	}
	client.Progress = progress
	result, err = op.Call(ctx, client, args, files...)
	if errors.Is(err, poolserver.ErrServerGone) || ctx.Err() != nil {
		client.Close() // an answer may still be on its way
		return result, err
	}
	d.pool.done(client)
	return result, err
}

// makePool makes the pool unless it is there. It is made beside its place and renamed,
// so that what a crash leaves is never taken for it.
func (d *Driver) makePool() error {
	place := d.place()
	if d.kind.Pool != "" {
		if _, err := os.Stat(blockpool.ReplicaName(place.Dir, 0)); err != nil {
			return fmt.Errorf("pool %s: %w; make it with: lamina pool create", place.Dir, err)
		}
		return nil
	}
	if _, err := os.Stat(place.Dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := poolserver.Place{Dir: place.Dir + ".new"}
	if err := os.RemoveAll(fresh.Dir); err != nil {
		return err
	}
	if err := os.Mkdir(fresh.Dir, 0o700); err != nil {
		return err
	}
	o, err := d.createOptions(fresh)
	if err != nil {
		return err
	}
	if err := blockpool.Create(o); err != nil {
		return err
	}
	return os.Rename(fresh.Dir, place.Dir)
}

func (d *Driver) createOptions(p poolserver.Place) (blockpool.CreateOptions, error) {
	spec := d.kind.Spec
	o := blockpool.CreateOptions{Config: spec.Config}
	o.Config.Name, o.Config.Discard = d.kind.Name, true
	o.Metadata = []string{blockpool.ReplicaName(p.Dir, 0)}
	if o.Config.MetadataProfile == blockpool.Mirror {
		o.Metadata = append(o.Metadata, blockpool.ReplicaName(p.Dir, 1))
	}
	for _, path := range spec.Devices {
		o.Devices = append(o.Devices, blockpool.DeviceSpec{Path: path})
	}
	if len(spec.Devices) > 0 {
		return o, nil
	}
	files, size := o.Config.DataProfile.MinDevices(), spec.Size
	if size == 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(p.Dir, &st); err != nil {
			return o, fmt.Errorf("statfs %s: %w", p.Dir, err)
		}
		free := int64(st.Bavail) * st.Bsize / int64(files)
		size = max(leastSize, min(DefaultSize, free)&^(1<<20-1))
	}
	for i := range files {
		o.Devices = append(o.Devices, blockpool.DeviceSpec{Path: p.File(i), Size: size})
	}
	return o, nil
}

// addDevices adds those of the spec that the pool has not yet.
func (d *Driver) addDevices(ctx context.Context) error {
	if len(d.kind.Spec.Devices) == 0 {
		return nil
	}
	st, err := Ask(ctx, d, poolserver.PoolStatus, poolserver.None{})
	if err != nil {
		return err
	}
	for _, path := range d.kind.Spec.Devices {
		has := slices.ContainsFunc(st.Devices, func(i blockpool.DeviceInfo) bool { return i.Path == path || samePath(i.Path, path) })
		if has {
			continue
		}
		if _, err := Ask(ctx, d, poolserver.PoolAdd, poolserver.Device{Path: path}); err != nil {
			return err
		}
	}
	return nil
}

func samePath(a, b string) bool {
	x, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	y, err := filepath.EvalSymlinks(b)
	return err == nil && x == y
}

// The dataset that a layer without a parent is a clone of, which no id of a layer can
// be called like.
const (
	emptyName     = "lamina:empty"
	emptySnapshot = emptyName + "@empty"
)

// makeBelow makes the dataset below which the layers lie, and the empty one. Each step
// can be done again.
func (d *Driver) makeBelow(ctx context.Context) error {
	if d.kind.Below != "" {
		_, err := Ask(ctx, d, poolserver.DatasetCreate, poolserver.CreateDataset{Name: d.kind.Below, Parents: true})
		if err != nil {
			return err
		}
	}
	if len(d.kind.Properties) > 0 {
		_, err := Ask(ctx, d, poolserver.DatasetSet, poolserver.SetDatasets{Names: []string{d.kind.Below}, Properties: d.kind.Properties})
		if err != nil {
			return err
		}
	}
	empty := poolserver.CreateDataset{Name: d.dataset(emptyName), Parents: true, Root: &poolserver.RootOwner{}}
	if _, err := Ask(ctx, d, poolserver.DatasetCreate, empty); err != nil {
		return err
	}
	_, err := Ask(ctx, d, poolserver.DatasetSnapshot, poolserver.SnapshotDatasets{Names: []string{d.dataset(emptySnapshot)}})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// dataset returns the name of a dataset below that of the layers.
func (d *Driver) dataset(name string) string {
	if d.kind.Below == "" {
		return name
	}
	return d.kind.Below + "/" + name
}

// Below returns the name of the dataset under which the layers lie, "" for the pool.
func (d *Driver) Below() string { return d.kind.Below }
