package zfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/datasets"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// poolOptions are those of the userspace engine alone.
func poolOptions() []driver.Option {
	const only = "; only the userspace engine has it"
	return append(datasets.PoolOptions(),
		driver.Option{Name: "vdev", Accepts: "single, mirror, raidz1, raidz2", Help: "how a new pool lies on its devices" + only},
		driver.Option{Name: "property", Accepts: "NAME=VALUE joined by commas", Help: "properties of the parent dataset, which layers inherit: compression, checksum, recordsize, …" + only},
	)
}

// userspaceOnly are the names of options that zpool and zfs are told otherwise.
var userspaceOnly = []string{"poolsize", "devices", "inodes", "vdev", "property"}

// defaultParent is the dataset below which layers lie in a pool of the driver's own.
const defaultParent = "layers"

// kindOf makes the userspace driver's kind of the options.
func kindOf(options map[string]string) (k datasets.Kind, err error) {
	k = datasets.Kind{Name: "zfs", Below: defaultParent, SizeProperty: "quota", Status: status}
	for name, to := range map[string]*int64{"size": &k.Size, "inodes": &k.Inodes, "poolsize": &k.Spec.Size} {
		if text, set := options[name]; set {
			if *to, err = driver.ParseSize(text); err != nil {
				return k, fmt.Errorf("option %s: %w", name, err)
			}
		}
	}
	if name := options["fsname"]; name != "" {
		for _, other := range []string{"poolsize", "devices", "vdev"} {
			if options[other] != "" {
				return k, fmt.Errorf("option %s is %w together with fsname: the pool is there already", other, driver.ErrUnsupported)
			}
		}
		pool, parent, _ := strings.Cut(name, "/")
		place, err := findPool(pool)
		if err != nil {
			return k, fmt.Errorf("option fsname=%s: %w", name, err)
		}
		k.Pool, k.Below = place.Dir, parent
	}
	if list := options["devices"]; list != "" {
		k.Spec.Devices = strings.Split(list, ",")
	}
	if word := options["vdev"]; word != "" {
		if k.Spec.Config.DataProfile, err = blockpool.ParseProfile(word); err != nil {
			return k, fmt.Errorf("option vdev: %w", err)
		}
		if k.Spec.Config.DataProfile != blockpool.Single {
			k.Spec.Config.MetadataProfile = blockpool.Mirror
		}
	}
	if list := options["property"]; list != "" {
		k.Properties = map[string]string{}
		for said := range strings.SplitSeq(list, ",") {
			name, value, ok := strings.Cut(said, "=")
			if !ok {
				return k, fmt.Errorf("option property: %q is %w; accepted: NAME=VALUE", said, driver.ErrUnsupported)
			}
			k.Properties[name] = value
		}
		if err := blockpool.CheckProperties(k.Properties); err != nil {
			return k, fmt.Errorf("option property: %w", err)
		}
	}
	if o := options["mountopt"]; o != "" {
		k.MountOptions = []string{o}
	}
	return k, nil
}

// findPool finds a pool of this user's by its name.
func findPool(name string) (poolserver.Place, error) {
	root, err := poolserver.DefaultRoot()
	if err != nil {
		return poolserver.Place{}, err
	}
	return poolserver.Locate(root, name)
}

// status are the lines of docker info.
func status(ctx context.Context, d *datasets.Driver) ([]driver.Field, error) {
	st, err := datasets.Ask(ctx, d, poolserver.PoolStatus, poolserver.None{})
	if err != nil {
		return nil, err
	}
	parent := d.Below()
	list, err := datasets.Ask(ctx, d, poolserver.DatasetGet, poolserver.GetDatasets{
		Names: []string{parent}, Properties: []string{"used", "available", "quota", "compression", "checksum"},
	})
	if err != nil {
		return nil, err
	}
	value := map[string]string{}
	for _, p := range list[0].Properties {
		value[p.Name] = p.Value
	}
	if value["quota"] == "0" || value["quota"] == "-" {
		value["quota"] = "no"
	}
	return []driver.Field{
		{Name: "Zpool", Value: st.Name},
		{Name: "Zpool Health", Value: strings.ToUpper(st.State)},
		{Name: "Parent Dataset", Value: strings.TrimSuffix(st.Name+"/"+parent, "/")},
		{Name: "Space Used By Parent", Value: value["used"]},
		{Name: "Space Available", Value: value["available"]},
		{Name: "Parent Quota", Value: value["quota"]},
		{Name: "Compression", Value: value["compression"]},
		{Name: "Checksum", Value: value["checksum"]},
		{Name: "Vdev", Value: st.DataProfile},
	}, nil
}
