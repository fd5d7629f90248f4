package blockpool

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// The profiles, under the names that zfs and btrfs use.
const (
	Single = format.Single
	Mirror = format.Mirror
	RaidZ1 = format.RaidZ1
	RaidZ2 = format.RaidZ2
)

// A Profile says how data lies on devices.
type Profile = format.Profile

// ParseProfile returns the profile called single, mirror, raidz1 or raidz2.
func ParseProfile(s string) (Profile, error) { return format.ParseProfile(s) }

// Config is what is fixed or set for a pool as a whole. The zero value of a
// field stands for its default.
type Config struct {
	Name string // how people call it; letters, digits and _-.: beginning with a letter or digit

	DataProfile     Profile // how records lie on devices
	MetadataProfile Profile // single or mirror: how many replicas the metadata has
	RecordSize      int64   // of volumes that do not say another, in bytes; 16K
	ChunkSize       int64   // that devices are cut into, in bytes; by size of the pool, 4M to 1G
	MetadataSize    int64   // most that a replica may grow to, in bytes; 2G

	WhenFull     FullPolicy    // what a write does that finds no space
	QueueTimeout time.Duration // how long FullQueue lets it wait; 60 s
	LowWater     int           // percent of space free below which an event says so; 10
	MinFree      int           // percent of space free below which no new volume is made; 0 to 99, 10 in dm-thin's manner
	Hook         string        // program that the pool's server runs for each event
	Discard      bool          // give freed space back to files and devices

	converted bool // data was given another profile: leaves may be longer than most
	datasets  bool // there are datasets or properties, or were: who does not know them must not open the pool
}

// A FullPolicy says what a write does that finds the pool full.
type FullPolicy uint8

// The policies, as dm-thin has them. Their numbers are on disk.
const (
	FullError FullPolicy = iota // fails at once with ErrNoSpace
	FullQueue                   // waits for space, then fails
)

func (p FullPolicy) String() string {
	if p == FullQueue {
		return "queue"
	}
	return "error"
}

// ParseFullPolicy returns the policy called error or queue.
func ParseFullPolicy(s string) (FullPolicy, error) {
	switch s {
	case "error":
		return FullError, nil
	case "queue":
		return FullQueue, nil
	}
	return 0, fmt.Errorf("no policy for a full pool is called %q: take error or queue", s)
}

// Docker's numbers for its devicemapper driver: loop files of that size, the
// size of the base device, and its block size.
const (
	DevicemapperDataSize     = 100 << 30
	DevicemapperMetadataSize = 2 << 30
	DevicemapperBaseSize     = 10 << 30
	DevicemapperRecordSize   = 64 << 10
	DevicemapperMinFree      = 10
)

// DevicemapperConfig returns the configuration that someone expects who knows
// Docker's devicemapper driver (dm.blocksize, dm.loopmetadatasize,
// dm.min_free_space).
func DevicemapperConfig(name string) Config {
	return Config{
		Name: name, RecordSize: DevicemapperRecordSize, MetadataSize: DevicemapperMetadataSize,
		MinFree: DevicemapperMinFree, WhenFull: FullQueue, Discard: true,
	}
}

const (
	minMetadataSize = 16 << 20

	minChunkSize = 4 << 20
	maxChunkSize = 1 << 30
	kept         = 3 // percent of space that only deletes and repairs may use
)

// withDefaults fills what was left out, for devices of that size together.
func (c Config) withDefaults(size int64) Config {
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.RecordSize, 16<<10)
	set(&c.MetadataSize, 2<<30)
	set((*int64)(&c.QueueTimeout), int64(60*time.Second))
	if c.LowWater == 0 {
		c.LowWater = 10
	}
	if c.ChunkSize == 0 {
		c.ChunkSize = minChunkSize
		for c.ChunkSize < maxChunkSize && c.ChunkSize < size/64 {
			c.ChunkSize *= 2
		}
	}
	return c
}

// check refuses what makes no sense.
func (c Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, invalidf(format, args...)) }
	if err := CheckName(c.Name); err != nil || strings.ContainsAny(c.Name, "/@") {
		bad("pool name %q: take letters, digits and _-.: beginning with a letter or digit", c.Name)
	}
	if err := checkRecordSize(c.RecordSize); err != nil {
		errs = append(errs, err)
	}
	if c.ChunkSize < minChunkSize || c.ChunkSize > maxChunkSize || c.ChunkSize%minChunkSize != 0 {
		bad("chunk size %d is no multiple of %d up to %d", c.ChunkSize, minChunkSize, maxChunkSize)
	}
	if c.DataProfile > RaidZ2 {
		bad("data profile %v", c.DataProfile)
	}
	if c.MetadataProfile != Single && c.MetadataProfile != Mirror {
		bad("metadata profile %v: metadata is kept as whole replicas, so take single or mirror", c.MetadataProfile)
	}
	if c.MetadataSize < minMetadataSize {
		bad("metadata size %d is less than %d", c.MetadataSize, minMetadataSize)
	}
	if c.WhenFull > FullQueue {
		bad("policy %d for a full pool", c.WhenFull)
	}
	if c.QueueTimeout < 0 {
		bad("queue timeout %v is negative", c.QueueTimeout)
	}
	if c.LowWater < 0 || c.LowWater > 99 {
		bad("low-water mark %d%% is not between 0 and 99", c.LowWater)
	}
	if c.MinFree < 0 || c.MinFree > 99 {
		bad("minimum free space %d%% is not between 0 and 99", c.MinFree)
	}
	return errors.Join(errs...)
}

// maxName bounds the name of a volume, and what follows the @ of a snapshot, in bytes.
const maxName = 200

// CheckName accepts the name of a volume: parts joined by slashes, each of
// letters, digits and _-.: beginning with a letter or digit, at most 200 bytes
// in all. It is zfs's rule.
func CheckName(name string) error {
	if len(name) > maxName {
		return invalidf("name of %d bytes is longer than %d", len(name), maxName)
	}
	for part := range strings.SplitSeq(name, "/") {
		for i, r := range part {
			alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
			if !alnum && (i == 0 || !strings.ContainsRune("_-.:", r)) {
				return invalidf("name %q: take letters, digits and _-.: beginning with a letter or digit, in parts joined by /", name)
			}
		}
		if part == "" {
			return invalidf("name %q has an empty part", name)
		}
	}
	return nil
}

// splitSnapshot cuts VOLUME@NAME; snap is empty when there is no @.
func splitSnapshot(name string) (volume, snap string, err error) {
	volume, snap, at := strings.Cut(name, "@")
	if err := CheckName(volume); err != nil {
		return "", "", err
	}
	if at {
		if err := CheckName(snap); err != nil || strings.Contains(snap, "/") {
			return "", "", invalidf("snapshot name %q: take letters, digits and _-.: after the @", name)
		}
	}
	return volume, snap, nil
}
