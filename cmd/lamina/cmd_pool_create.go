package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// createFlags are the flags of "pool create".
type createFlags struct {
	poolFlags
	size, metadataSize, recordSize, chunkSize, logSize byteSize

	files                    int
	profile, metadataProfile string
	metadata                 []string
	devicemapper, force      bool
	noDiscard                bool
	whenFull                 string
	lowWater, minFree        int
}

func newPoolCreate() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create [flags] POOL [DEVICE...]",
		Short: "Make a pool of files or block devices",
		Long: `Make a pool. Each DEVICE is a block device, or a file that is there and taken as it
is. With --size, a DEVICE that is not there is made as a sparse file of that size,
and without any DEVICE the files are made in the pool's directory.

The metadata lies in the pool's directory; --metadata has further replicas of it
elsewhere, on another disk at best. Give a path as POOL to make the directory there
instead of below --root.

--devicemapper makes what Docker's devicemapper driver made: 100G of data and 2G of
metadata as sparse files, records of 64K, base devices of 10G, writes that wait when
the pool is full, and no new volume when less than 10% is free.`,
		Example: `  lamina pool create --size 10G tank
  lamina pool create --profile mirror --metadata /mnt/b/meta.db tank /dev/sdb /dev/sdc
  lamina pool create --profile raidz1 --files 4 --size 2G tank
  lamina pool create --devicemapper docker`,
		Args: args(1, -1, "POOL, and DEVICEs or --size"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1:]) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.VarP(&f.size, "size", "s", "make files of `SIZE`")
	flags.IntVar(&f.files, "files", 0, "make `N` files in the pool's directory; as many as the profile needs, unless given")
	flags.StringVar(&f.profile, "profile", "single", "how data lies on the devices: `PROFILE` is single, mirror, raidz1 or raidz2")
	flags.StringVar(&f.metadataProfile, "metadata-profile", "", "single or mirror: `PROFILE` of the metadata; mirror unless data is single")
	flags.StringArrayVar(&f.metadata, "metadata", nil, "make a further replica of the metadata at `FILE`; twice at most")
	flags.Var(&f.metadataSize, "metadata-size", "a replica grows to `SIZE` at most; 2G")
	flags.Var(&f.recordSize, "record-size", "records of `SIZE` in volumes that say no other; 16K")
	flags.Var(&f.chunkSize, "chunk-size", "cut devices into chunks of `SIZE`; by size of the pool, 4M to 1G")
	flags.Var(&f.logSize, "log-size", "intent log of `SIZE`; by size of the pool, 12M to 96M")
	flags.StringVar(&f.whenFull, "when-full", "", "error or queue: writes fail or wait when the pool is full, as `POLICY` says")
	flags.IntVar(&f.lowWater, "low-water", 0, "tell when less than `PERCENT` is free; 10")
	flags.IntVar(&f.minFree, "min-free", 0, "make no new volume when less than `PERCENT` is free")
	flags.BoolVar(&f.noDiscard, "no-discard", false, "keep what files and devices take when space becomes free")
	flags.BoolVar(&f.devicemapper, "devicemapper", false, "with Docker's numbers")
	flags.BoolVarP(&f.force, "force", "f", false, "take devices that are part of another pool or not empty")
	cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"single", "mirror", "raidz1", "raidz2"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("metadata-profile", cobra.FixedCompletions([]string{"single", "mirror"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("when-full", cobra.FixedCompletions([]string{"error", "queue"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *createFlags) run(cmd *cobra.Command, name string, devices []string) error {
	root, err := f.dir()
	if err != nil && !poolserver.IsPath(name) {
		return err
	}
	place, err := poolserver.NewPlace(root, name)
	if err != nil {
		return usageError{err}
	}
	o, err := f.options(place, devices)
	if err != nil {
		return usageError{err}
	}
	made, err := makeDirs(place.Dir)
	if err != nil {
		return fmt.Errorf("create pool %s: %w", place.Name(), err)
	}
	if err = blockpool.Create(o); err == nil {
		err = linkMetadata(place, o.Metadata[1:])
	}
	if err != nil {
		for _, dir := range made {
			os.Remove(dir) // ours, unless somebody put something there
		}
		return err
	}
	return f.print(cmd, struct {
		Name string `json:"name"`
		Dir  string `json:"dir"`
	}{place.Name(), place.Dir})
}

// makeDirs makes a directory that nobody else may enter, and those above it, and
// returns what it made, the innermost first.
func makeDirs(dir string) (made []string, err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil, nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if made, err = makeDirs(parent); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return append([]string{dir}, made...), nil
}

// linkMetadata has replicas that lie elsewhere found from the pool's directory.
func linkMetadata(p poolserver.Place, replicas []string) error {
	for i, path := range replicas {
		if name := blockpool.ReplicaName(p.Dir, i+1); path != name {
			if err := os.Symlink(path, name); err != nil {
				return fmt.Errorf("create pool %s: %w", p.Name(), err)
			}
		}
	}
	return nil
}

// options turns flags into what a pool is made of.
func (f *createFlags) options(p poolserver.Place, devices []string) (blockpool.CreateOptions, error) {
	o := blockpool.CreateOptions{Force: f.force, LogSize: int64(f.logSize), Metadata: []string{blockpool.ReplicaName(p.Dir, 0)}}
	config, err := f.config(p.Name())
	if err != nil {
		return o, err
	}
	o.Config = config
	for _, path := range f.metadata {
		path, err := filepath.Abs(path)
		if err != nil {
			return o, err
		}
		o.Metadata = append(o.Metadata, path)
	}
	if config.MetadataProfile == blockpool.Mirror && len(o.Metadata) == 1 {
		o.Metadata = append(o.Metadata, blockpool.ReplicaName(p.Dir, 1))
	}
	size := int64(f.size)
	if f.devicemapper && size == 0 && len(devices) == 0 {
		size = blockpool.DevicemapperDataSize
	}
	for _, path := range devices {
		d := blockpool.DeviceSpec{Path: path}
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			if size == 0 {
				return o, fmt.Errorf("there is no device %s; to make it as a file add --size SIZE", path)
			}
			d.Size = size
		}
		o.Devices = append(o.Devices, d)
	}
	if len(devices) > 0 {
		if f.files > 0 {
			return o, errors.New("--files is for pools without a DEVICE; leave one of them out")
		}
		return o, nil
	}
	if size == 0 {
		return o, errors.New("a pool needs DEVICEs, or --size SIZE to make files in its directory")
	}
	for i := range max(f.files, config.DataProfile.MinDevices()) {
		o.Devices = append(o.Devices, blockpool.DeviceSpec{Path: p.File(i), Size: size})
	}
	return o, nil
}

// config turns flags into the configuration.
func (f *createFlags) config(name string) (c blockpool.Config, err error) {
	c = blockpool.Config{Name: name, Discard: true}
	if f.devicemapper {
		c = blockpool.DevicemapperConfig(name)
	}
	if c.DataProfile, err = blockpool.ParseProfile(f.profile); err != nil {
		return c, err
	}
	switch {
	case f.metadataProfile != "":
		if c.MetadataProfile, err = blockpool.ParseProfile(f.metadataProfile); err != nil {
			return c, err
		}
	case c.DataProfile != blockpool.Single || len(f.metadata) > 0:
		c.MetadataProfile = blockpool.Mirror
	}
	if f.whenFull != "" {
		if c.WhenFull, err = blockpool.ParseFullPolicy(f.whenFull); err != nil {
			return c, err
		}
	}
	for _, s := range []struct {
		to *int64
		v  byteSize
	}{{&c.MetadataSize, f.metadataSize}, {&c.RecordSize, f.recordSize}, {&c.ChunkSize, f.chunkSize}} {
		if s.v != 0 {
			*s.to = int64(s.v)
		}
	}
	if f.lowWater != 0 {
		c.LowWater = f.lowWater
	}
	if f.minFree != 0 {
		c.MinFree = f.minFree
	}
	c.Discard = c.Discard && !f.noDiscard
	return c, nil
}
