package btrfs

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
		driver.Option{Name: "data", Accepts: "single, raid1, raid5, raid6", Help: "how the chunks of a new pool lie on its devices that hold data, as mkfs.btrfs -d says" + only},
		driver.Option{Name: "metadata", Accepts: "single, raid1", Help: "the same of metadata, as mkfs.btrfs -m says; raid1 unless data is single" + only},
		driver.Option{Name: "mountopt", Accepts: "mount options joined by commas", Help: "further options of each view" + only},
		driver.Option{Name: "compression", Accepts: "off, lz4, zstd, zstd-1 to zstd-19", Help: "of what layers write; lz4" + only},
	)
}

// userspaceOnly are the names of options that the kernel's btrfs has set when it was
// made, or does not have.
var userspaceOnly = []string{"poolsize", "devices", "inodes", "data", "metadata", "compression", "mountopt"}

// profiles are btrfs's words for how chunks lie on devices.
var profiles = map[string]blockpool.Profile{
	"single": blockpool.Single, "raid1": blockpool.Mirror, "raid5": blockpool.RaidZ1, "raid6": blockpool.RaidZ2,
}

// otherProfiles are those that a pool does not have, and why.
var otherProfiles = map[string]string{
	"dup":    "a pool keeps copies on different devices: take raid1",
	"raid0":  "single spreads chunks over the devices already, and a chunk that is striped would be lost with each of them",
	"raid10": "raid1 places the two copies of each chunk on any two devices",
}

func parseProfile(option, word string) (blockpool.Profile, error) {
	if p, ok := profiles[word]; ok {
		return p, nil
	}
	if why := otherProfiles[word]; why != "" {
		return 0, fmt.Errorf("option %s=%s is %w: %s", option, word, driver.ErrUnsupported, why)
	}
	return 0, fmt.Errorf("option %s=%s is %w; accepted: single, raid1, raid5, raid6", option, word, driver.ErrUnsupported)
}

// kindOf makes the userspace driver's kind of the options.
func kindOf(options map[string]string) (k datasets.Kind, err error) {
	k = datasets.Kind{Name: "btrfs", Below: "subvolumes", SizeProperty: "refquota", Status: status}
	for name, to := range map[string]*int64{"size": &k.Size, "min_space": &k.MinSize, "inodes": &k.Inodes, "poolsize": &k.Spec.Size} {
		if text, set := options[name]; set {
			if *to, err = driver.ParseSize(text); err != nil {
				return k, fmt.Errorf("option %s: %w", name, err)
			}
		}
	}
	if list := options["devices"]; list != "" {
		k.Spec.Devices = strings.Split(list, ",")
	}
	if word := options["data"]; word != "" {
		if k.Spec.Config.DataProfile, err = parseProfile("data", word); err != nil {
			return k, err
		}
		if k.Spec.Config.DataProfile != blockpool.Single {
			k.Spec.Config.MetadataProfile = blockpool.Mirror
		}
	}
	if word := options["metadata"]; word != "" {
		if k.Spec.Config.MetadataProfile, err = parseProfile("metadata", word); err != nil {
			return k, err
		}
		if p := k.Spec.Config.MetadataProfile; p != blockpool.Single && p != blockpool.Mirror {
			return k, fmt.Errorf("option metadata=%s is %w: metadata has whole copies, take raid1", word, driver.ErrUnsupported)
		}
	}
	if word := options["compression"]; word != "" {
		k.Properties = map[string]string{"compression": word}
	}
	if o := options["mountopt"]; o != "" {
		k.MountOptions = []string{o}
	}
	return k, nil
}

// status are the lines of docker info, and what btrfs filesystem usage tells.
func status(ctx context.Context, d *datasets.Driver) ([]driver.Field, error) {
	st, err := datasets.Ask(ctx, d, poolserver.PoolStatus, poolserver.None{})
	if err != nil {
		return nil, err
	}
	return []driver.Field{
		{Name: "Build Version", Value: "lamina " + st.Server.Version},
		{Name: "Library Version", Value: fmt.Sprint(poolserver.ProtocolVersion)},
		{Name: "Devices", Value: fmt.Sprint(len(st.Devices))},
		{Name: "Data Profile", Value: wordOf(st.DataProfile)},
		{Name: "Metadata Profile", Value: wordOf(st.MetadataProfile)},
		{Name: "Data Space Used", Value: datasets.SizeText(st.Usable.Used)},
		{Name: "Data Space Total", Value: datasets.SizeText(st.Usable.Size)},
		{Name: "Data Space Available", Value: datasets.SizeText(st.Usable.Free)},
		{Name: "Metadata Space Used", Value: datasets.SizeText(st.Metadata.Used)},
	}, nil
}

// wordOf returns btrfs's word for a profile.
func wordOf(profile string) string {
	for word, p := range profiles {
		if p.String() == profile {
			return word
		}
	}
	return profile
}
