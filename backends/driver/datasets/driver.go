package datasets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/rootdir"
)

// A Driver is an open directory whose layers are datasets.
type Driver struct {
	kind   Kind
	root   string
	choice driver.Choice
	steps  func(string)
	pool   connections
}

var (
	_ driver.Driver = (*Driver)(nil)
	_ driver.Writer = (*Driver)(nil)
)

// format is the file lamina.json.
type format struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
	// Layers is "datasets", which tells such a directory from one of package layerdir.
	Layers string `json:"layers"`
	// Pool and Below are where the layers are, Pool "" in ROOT/pool.
	Pool  string `json:"pool,omitempty"`
	Below string `json:"below"`
}

const (
	formatFile = "lamina.json"
	version    = 1
	layersAre  = "datasets"
)

// IsRoot reports whether a directory was made by this package: what a driver with two
// engines has to know before it opens it. A directory that is not there was not.
func IsRoot(root string) (is, made bool, err error) {
	text, err := os.ReadFile(filepath.Join(root, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	var f format
	if err := json.Unmarshal(text, &f); err != nil {
		return false, false, fmt.Errorf("%s: %w: %w", filepath.Join(root, formatFile), driver.ErrDamaged, err)
	}
	return f.Layers == layersAre, true, nil
}

// Open opens the directory of a driver, and makes it, and the pool, if its parent
// exists. choice is what the driver has chosen and why.
func Open(ctx context.Context, kind Kind, cfg driver.Config, choice driver.Choice) (*Driver, error) {
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	d := &Driver{kind: kind, root: root, choice: choice, steps: cfg.Step}
	if d.steps == nil {
		d.steps = func(string) {}
	}
	d.pool.place, d.pool.argv = d.place(), cfg.PoolServer
	if err := d.open(ctx); err != nil {
		return nil, d.fail("open", "", errors.Join(err, d.Close()), "")
	}
	return d, nil
}

// open makes what is missing.
//
// Crash before lamina.json is written: the pool, or a part of it in pool.new, and no
// layer. The next one goes on from there.
func (d *Driver) open(ctx context.Context) error {
	for _, dir := range []string{"", "mnt"} {
		if err := os.Mkdir(filepath.Join(d.root, dir), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	err := d.locked(func() error {
		there, err := d.readFormat()
		if err == nil && !there {
			if err = d.makePool(); err == nil {
				err = d.makeBelow(ctx)
			}
			if err == nil {
				err = d.writeFormat()
			}
		}
		return err
	})
	if err == nil {
		err = d.addDevices(ctx)
	}
	if err == nil {
		_, err = d.Cleanup(ctx)
	}
	return err
}

// readFormat checks what the directory is.
func (d *Driver) readFormat() (there bool, err error) {
	path := d.path(formatFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var f format
	if err := json.Unmarshal(text, &f); err != nil {
		return false, fmt.Errorf("%s: %w: %w", path, driver.ErrDamaged, err)
	}
	switch {
	case f.Version != version:
		return false, fmt.Errorf("%s: version %d, this program knows %d", path, f.Version, version)
	case f.Driver != d.kind.Name || f.Layers != layersAre:
		return false, fmt.Errorf("%s holds the layers of driver %s, and not as datasets", d.root, f.Driver)
	case f.Pool != d.kind.Pool || f.Below != d.kind.Below:
		return false, fmt.Errorf("%s has its layers below %q of pool %q, not below %q of pool %q; take another directory (--root) for others", d.root, f.Below, f.Pool, d.kind.Below, d.kind.Pool)
	}
	return true, nil
}

func (d *Driver) writeFormat() error {
	text, err := json.MarshalIndent(format{version, d.kind.Name, layersAre, d.kind.Pool, d.kind.Below}, "", "\t")
	if err != nil {
		return err
	}
	path := d.path(formatFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Name returns the driver's.
func (d *Driver) Name() string { return d.kind.Name }

// Engine says what shows the layers, and why.
func (d *Driver) Engine() driver.Choice { return d.choice }

// Capabilities says what can be done here. Owners are the inodes' own in the pool;
// what an ordinary user mounts shows all as that user's.
func (d *Driver) Capabilities() driver.Capabilities {
	return driver.Capabilities{Size: true, Inodes: true, Shares: true, KeepsOwners: os.Geteuid() == 0, ArbitraryTargets: true}
}

// Close ends the connections to the pool's server.
func (d *Driver) Close() error { return d.pool.close() }

// Root returns the driver's directory.
func (d *Driver) Root() string { return d.root }

func (d *Driver) path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// fail makes an error of this driver out of a cause.
func (d *Driver) fail(op, id string, err error, next string) error {
	if err == nil {
		return nil
	}
	var known *driver.Error
	if errors.As(err, &known) {
		return err
	}
	return &driver.Error{Driver: d.kind.Name, Op: op, Layer: id, Cause: err, Next: next}
}

// locked runs a step while no other process does one.
func (d *Driver) locked(step func() error) error { return rootdir.Locked(d.path("lock"), step) }
