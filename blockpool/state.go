package blockpool

import (
	"fmt"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// What is in the bucket of the configuration, by key.
const (
	keyConfig = "config" // Config
	keyState  = "state"  // state
)

// state is what each txg commits beside the trees: the numbers that are given
// out next.
type state struct {
	nextAddr   format.Addr // base of the next chunk
	nextNode   uint64
	nextEntry  uint64
	nextDevice uint64
	nextChunk  uint64
	nextDead   uint64
}

const stateVersion = 1

func (s *state) numbers() []*uint64 {
	return []*uint64{(*uint64)(&s.nextAddr), &s.nextNode, &s.nextEntry, &s.nextDevice, &s.nextChunk, &s.nextDead}
}

func (s *state) pack() []byte {
	f := format.NewFields(stateVersion)
	for i, p := range s.numbers() {
		f.Uint(byte(i+1), *p)
	}
	return f
}

func unpackState(b []byte) (s state, err error) {
	numbers := s.numbers()
	err = format.ParseFields(b, stateVersion, func(f format.Field) error {
		if f.Tag == 0 || int(f.Tag) > len(numbers) {
			return f.Unknown()
		}
		return f.Uint(numbers[f.Tag-1])
	})
	if err != nil {
		return state{}, fmt.Errorf("state of the pool: %w", err)
	}
	return s, nil
}

const configVersion = 1

// Tags of the configuration's fields on disk.
const (
	configName = iota + 1
	configGUID
	configDataProfile
	configMetadataProfile
	configRecordSize
	configChunkSize
	configMetadataSize
	configWhenFull
	configQueueTimeout
	configLowWater
	configMinFree
	configHook
	configDiscard
	configFeature // one for each feature that a reader must know
)

// featureDatasets is that of datasets and properties. A pool has it from the first of
// them on.
const featureDatasets = "datasets"

// featureConversion is that of conversions: their state, and leaves that are longer
// than others. A pool has it from the first of them on.
const featureConversion = "conversion"

func (c *Config) pack(guid GUID) []byte {
	f := format.NewFields(configVersion)
	f.String(configName, c.Name)
	f.Bytes(configGUID, guid[:])
	f.Uint(configDataProfile, uint64(c.DataProfile))
	f.Uint(configMetadataProfile, uint64(c.MetadataProfile))
	f.Uint(configRecordSize, uint64(c.RecordSize))
	f.Uint(configChunkSize, uint64(c.ChunkSize))
	f.Uint(configMetadataSize, uint64(c.MetadataSize))
	f.Uint(configWhenFull, uint64(c.WhenFull))
	f.Uint(configQueueTimeout, uint64(c.QueueTimeout))
	f.Uint(configLowWater, uint64(c.LowWater))
	f.Uint(configMinFree, uint64(c.MinFree))
	f.String(configHook, c.Hook)
	if c.Discard {
		f.Uint(configDiscard, 1)
	}
	if c.datasets {
		f.String(configFeature, featureDatasets)
	}
	if c.converted {
		f.String(configFeature, featureConversion)
	}
	return f
}

// unpackConfig is the inverse of pack. A version or feature that it does not
// know is ErrNewer.
func unpackConfig(b []byte) (c Config, guid GUID, err error) {
	if len(b) > 0 && b[0] > configVersion {
		return Config{}, GUID{}, fmt.Errorf("pool of format %d, this lamina knows %d: %w", b[0], configVersion, ErrNewer)
	}
	var data, metadata, full, low, least, discard uint64
	err = format.ParseFields(b, configVersion, func(f format.Field) error {
		switch f.Tag {
		case configName:
			c.Name = f.String()
			return nil
		case configGUID:
			return f.Fixed(guid[:])
		case configDataProfile:
			return f.Uint(&data)
		case configMetadataProfile:
			return f.Uint(&metadata)
		case configRecordSize:
			return f.Int(&c.RecordSize)
		case configChunkSize:
			return f.Int(&c.ChunkSize)
		case configMetadataSize:
			return f.Int(&c.MetadataSize)
		case configWhenFull:
			return f.Uint(&full)
		case configQueueTimeout:
			return f.Int((*int64)(&c.QueueTimeout))
		case configLowWater:
			return f.Uint(&low)
		case configMinFree:
			return f.Uint(&least)
		case configHook:
			c.Hook = f.String()
			return nil
		case configDiscard:
			return f.Uint(&discard)
		case configFeature:
			switch f.String() {
			case featureDatasets:
				c.datasets = true
				return nil
			case featureConversion:
				c.converted = true
				return nil
			}
			return fmt.Errorf("feature %q: %w", f.String(), ErrNewer)
		default:
			return f.Unknown()
		}
	})
	if err != nil {
		return Config{}, GUID{}, fmt.Errorf("configuration of the pool: %w", err)
	}
	if data|metadata|full > 255 || low|least > 127 {
		return Config{}, GUID{}, fmt.Errorf("configuration of the pool: a number is out of range: %w", ErrDamaged)
	}
	c.DataProfile, c.MetadataProfile, c.WhenFull = Profile(data), Profile(metadata), FullPolicy(full)
	c.LowWater, c.MinFree, c.Discard = int(low), int(least), discard != 0
	if err := c.check(); err != nil {
		return Config{}, GUID{}, fmt.Errorf("configuration of the pool: %v: %w", err, ErrDamaged)
	}
	return c, guid, nil
}

// A deviceState is what the pool knows of a device besides its label.
type deviceState struct {
	id    uint32
	guid  GUID
	path  string // as it was given, absolute
	size  int64  // in bytes
	away  uint64 // first txg that it has missed; 0: none
	added time.Time

	leaving bool   // gets no new chunks: it is being removed
	heirOf  uint32 // the device whose place it takes: it gets no other chunks before it has; 0: none
}

const deviceVersion = 1

// Tags of a device's fields on disk.
const (
	deviceGUID = iota + 1
	devicePath
	deviceSize
	deviceAway
	deviceAdded
	deviceLeaving
	deviceHeirOf
)

func (d *deviceState) pack() []byte {
	f := format.NewFields(deviceVersion)
	f.Bytes(deviceGUID, d.guid[:])
	f.String(devicePath, d.path)
	f.Uint(deviceSize, uint64(d.size))
	f.Uint(deviceAway, d.away)
	f.Uint(deviceAdded, uint64(d.added.UnixNano()))
	if d.leaving {
		f.Uint(deviceLeaving, 1)
	}
	f.Uint(deviceHeirOf, uint64(d.heirOf))
	return f
}

func unpackDevice(id uint32, b []byte) (*deviceState, error) {
	d := &deviceState{id: id}
	var added int64
	var leaving, heirOf uint64
	err := format.ParseFields(b, deviceVersion, func(f format.Field) error {
		switch f.Tag {
		case deviceGUID:
			return f.Fixed(d.guid[:])
		case devicePath:
			d.path = f.String()
			return nil
		case deviceSize:
			return f.Int(&d.size)
		case deviceAway:
			return f.Uint(&d.away)
		case deviceAdded:
			return f.Int(&added)
		case deviceLeaving:
			return f.Uint(&leaving)
		case deviceHeirOf:
			return f.Uint(&heirOf)
		default:
			return f.Unknown()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("device %d: %w", id, err)
	}
	if heirOf > 1<<32-1 {
		return nil, damagedf("device %d: it takes the place of device %d", id, heirOf)
	}
	d.added, d.leaving, d.heirOf = time.Unix(0, added), leaving != 0, uint32(heirOf)
	return d, nil
}
