package btrfs

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/datasets"
	"github.com/laminafs/lamina/backends/driver/layerdir"
)

// options are those of both engines.
func options() []driver.Option {
	return append([]driver.Option{
		{Name: "size", Accepts: "bytes, with k, m, g or t", Help: "how much each layer may refer to, with what it has of its parents"},
		{Name: "min_space", Accepts: "bytes, with k, m, g or t", Help: "the least size that may be asked for"},
	}, poolOptions()...)
}

// Open opens the directory of a btrfs driver. Which engine keeps its layers is decided
// when it is made: subvolumes of the kernel's btrfs and those of a pool are not the
// same thing.
func Open(cfg driver.Config) (driver.Driver, error) {
	d, err := open(cfg)
	if err != nil {
		if _, told := err.(*driver.Error); !told {
			err = &driver.Error{Driver: "btrfs", Op: "open", Cause: err}
		}
		return nil, err
	}
	return d, nil
}

func open(cfg driver.Config) (driver.Driver, error) {
	values, err := driver.ParseOptions("btrfs", options(), cfg.Options)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	pool, made, err := datasets.IsRoot(root)
	if err != nil {
		return nil, err
	}
	against := obstacles(root, values)
	switch {
	case pool:
		against = append([]string{root + " was made with its layers in a pool"}, against...)
	case made && cfg.Engine == driver.Userspace:
		return nil, fmt.Errorf("%s was made with its layers in subvolumes of the kernel's btrfs, which the userspace engine cannot keep: %w; take --engine=native, or another --root", root, driver.ErrUnsupported)
	case made && len(against) > 0:
		return nil, fmt.Errorf("%s was made with its layers in subvolumes of the kernel's btrfs: %s: %w", root, against[0], driver.ErrUnsupported)
	}
	choice, err := driver.Choose(cfg.Engine, against...)
	if err != nil {
		return nil, err
	}
	if choice.Engine == driver.Userspace {
		kind, err := kindOf(values)
		if err != nil {
			return nil, err
		}
		return datasets.Open(context.Background(), kind, cfg, choice)
	}
	cfg.Engine = driver.Native
	d, err := layerdir.Open(&native{}, cfg)
	if err != nil {
		return nil, err
	}
	d.Chosen(choice.Why)
	return d, nil
}
