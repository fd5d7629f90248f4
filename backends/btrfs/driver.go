package btrfs

import (
	"context"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/datasets"
)

// options are those of both engines.
func options() []driver.Option {
	return append([]driver.Option{
		{Name: "size", Accepts: "bytes, with k, m, g or t", Help: "how much each layer may refer to, with what it has of its parents"},
		{Name: "min_space", Accepts: "bytes, with k, m, g or t", Help: "the least size that may be asked for"},
		{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each view"},
	}, poolOptions()...)
}

// Open opens the directory of a btrfs driver. Which engine keeps its layers is decided
// when it is made.
func Open(cfg driver.Config) (driver.Driver, error) {
	values, err := driver.ParseOptions("btrfs", options(), cfg.Options)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (driver.Driver, error) {
		return nil, &driver.Error{Driver: "btrfs", Op: "open", Cause: err}
	}
	choice, err := driver.Choose(cfg.Engine, "not yet")
	if err != nil {
		return fail(err)
	}
	kind, err := kindOf(values)
	if err != nil {
		return fail(err)
	}
	d, err := datasets.Open(context.Background(), kind, cfg, choice)
	if err != nil {
		return nil, err
	}
	return d, nil
}
