package zfs

import (
	"cmp"
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
		{Name: "fsname", Accepts: "POOL or POOL/DATASET", Help: "the dataset below which layers lie: of zfs, or in a pool that lamina pool create has made; that of the driver's directory, or a pool below it"},
		{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each mount"},
		{Name: "size", Accepts: "bytes, with k, m, g or t", Help: "how much each layer may take by itself"},
	}, poolOptions()...)
}

// Open opens the directory of a zfs driver. Which engine keeps its layers is decided
// when it is made.
func Open(cfg driver.Config) (driver.Driver, error) { return openOn(system{}, cfg) }

func openOn(h host, cfg driver.Config) (driver.Driver, error) {
	d, err := open(h, cfg)
	if err != nil {
		if _, told := err.(*driver.Error); !told {
			err = &driver.Error{Driver: "zfs", Op: "open", Cause: err}
		}
		return nil, err
	}
	return d, nil
}

func open(h host, cfg driver.Config) (driver.Driver, error) {
	values, err := driver.ParseOptions("zfs", options(), cfg.Options)
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
	var against []string
	parent := ""
	switch {
	case pool:
		against = []string{root + " was made with its layers in a pool of lamina's"}
	case made && cfg.Engine == driver.Userspace:
		return nil, fmt.Errorf("%s was made with its layers in datasets of zfs, which the userspace engine cannot keep: %w; take --engine=native, or another --root", root, driver.ErrUnsupported)
	case cfg.Engine != driver.Userspace:
		parent = cmp.Or(values["fsname"], parentOf(root))
		against = obstacles(h, parent, values)
		if made && len(against) > 0 {
			return nil, fmt.Errorf("%s was made with its layers in datasets of zfs: %s: %w", root, against[0], driver.ErrUnsupported)
		}
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
	d, err := layerdir.Open(&native{host: h, parent: parent, mountOptions: values["mountopt"]}, cfg)
	if err != nil {
		return nil, err
	}
	d.Chosen(choice.Why)
	return d, nil
}
