package blockpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// A DeviceSpec says where data is to lie.
type DeviceSpec struct {
	Path string
	Size int64 // of a file that is to be made, in bytes; 0: the file or block device is there and is taken whole
}

// CreateOptions are what a new pool is made of.
type CreateOptions struct {
	Config   Config
	Devices  []DeviceSpec // at least as many as the profiles need
	Metadata []string     // files to be made for the metadata: one with a single profile, two or three with a mirror
	Force    bool         // take devices that carry the label of another pool
	LogSize  int64        // of the intent log in bytes; by size of the pool, 12M to 96M
	Storage  Storage      // nil: files and block devices
}

// minDeviceSize is the least that a device may have, in bytes.
const minDeviceSize = 32 << 20

// Create makes a pool. Nothing of it is left when it fails. It returns the pool
// closed: see [Open].
func Create(o CreateOptions) (err error) {
	if o.Storage == nil {
		o.Storage = Files
	}
	total := int64(0)
	for _, d := range o.Devices {
		total += d.Size
	}
	b := &builder{o: o, guid: newGUID()}
	defer func() {
		err = errors.Join(err, b.close(err != nil))
		if err != nil {
			err = fmt.Errorf("create pool %s: %w", o.Config.Name, err)
		}
	}()
	if err := b.check(); err != nil {
		return err
	}
	if err := b.openDevices(); err != nil {
		return err
	}
	return b.build()
}

// A builder makes a pool.
type builder struct {
	o       CreateOptions
	guid    GUID
	config  Config
	devices []*device
	made    []string // files to be removed when it fails
	meta    *meta.Store

	labelled bool // labels were begun to be written
}

// check refuses what no pool can be made of.
func (b *builder) check() error {
	c := b.o.Config.withDefaults(0)
	if err := c.check(); err != nil {
		return err
	}
	for _, p := range []Profile{c.DataProfile, c.MetadataProfile} {
		if len(b.o.Devices) < p.MinDevices() && p == c.DataProfile {
			return invalidf("profile %v needs %d devices, %d were given", p, p.MinDevices(), len(b.o.Devices))
		}
	}
	replicas := len(b.o.Metadata)
	switch {
	case replicas == 0 || replicas > 3:
		return invalidf("%d files for the metadata: give 1 to 3", replicas)
	case c.MetadataProfile == Mirror && replicas < 2:
		return invalidf("mirrored metadata needs 2 or 3 files, 1 was given")
	case c.MetadataProfile == Single && replicas > 1:
		return invalidf("%d files for metadata of profile single: take the profile mirror", replicas)
	}
	seen := map[string]bool{}
	for i, d := range b.o.Devices {
		path, err := absolute(d.Path)
		if err != nil {
			return err
		}
		if seen[path] {
			return invalidf("device %s is given twice", path)
		}
		seen[path], b.o.Devices[i].Path = true, path
	}
	for i, m := range b.o.Metadata {
		path, err := absolute(m)
		if err != nil {
			return err
		}
		if seen[path] {
			return invalidf("%s is given twice", path)
		}
		seen[path], b.o.Metadata[i] = true, path
	}
	return nil
}

// openDevices opens or makes the devices.
func (b *builder) openDevices() error {
	total := int64(0)
	for i, spec := range b.o.Devices {
		dev, err := b.openDevice(spec)
		if err != nil {
			return err
		}
		id := uint32(i + 1)
		b.devices = append(b.devices, newDevice(deviceState{
			id: id, guid: newGUID(), path: spec.Path, size: dev.Size(), added: time.Now(),
		}, dev))
		if dev.Size() < minDeviceSize {
			return invalidf("%s has %d bytes, a device needs %d at least", spec.Path, dev.Size(), minDeviceSize)
		}
		total += dev.Size()
	}
	b.config = b.o.Config.withDefaults(total)
	return nil
}

func (b *builder) openDevice(spec DeviceSpec) (vdev.Device, error) {
	if spec.Size > 0 {
		dev, err := b.o.Storage.Create(spec.Path, spec.Size)
		if err == nil {
			b.made = append(b.made, spec.Path)
		}
		return dev, err
	}
	dev, err := b.o.Storage.Open(spec.Path)
	if err != nil {
		return nil, err
	}
	if err := inUse(dev); err != nil && !b.o.Force {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// inUse says what a device is used for, if its first bytes tell of a use.
func inUse(dev vdev.Device) error {
	if l, err := readLabel(dev); err == nil {
		return fmt.Errorf("%s belongs to pool %s (%s): destroy that pool or use force: %w", dev.Path(), l.name, l.pool, ErrExists)
	}
	b := make([]byte, min(labelSpace, dev.Size()))
	if _, err := dev.ReadAt(b, 0); err != nil {
		return err
	}
	for i, c := range b {
		if c != 0 {
			return fmt.Errorf("%s is not empty: byte %d is %#x: wipe it or use force: %w", dev.Path(), i, c, ErrExists)
		}
	}
	return nil
}

// build writes an empty pool: a log chunk, metadata, and labels, in this order. A
// device without a label is no pool's, so a crash leaves no pool.
func (b *builder) build() error {
	p := &Pool{guid: b.guid, space: newSpace()}
	p.config.Store(&b.config)
	p.tune = Tunables{}.withDefaults()
	p.devices.list = b.devices
	p.newCounts()
	p.array = newArray(p)
	var err error
	if p.meta, err = meta.Create(b.o.Metadata, b.guid, meta.Options{}); err != nil {
		return err
	}
	b.meta, b.made = p.meta, append(b.made, b.o.Metadata...)
	s := &pass{p: p, g: newTxg(1), state: state{nextAddr: segmentUnits, nextDevice: uint64(len(b.devices))}}
	logSize, total := b.o.LogSize, int64(0)
	for _, d := range b.devices {
		total += d.state.Load().size
		s.saveDevice(d, *d.state.Load())
	}
	if logSize == 0 {
		logSize = defaultLogSize(total)
	}
	c, err := s.makeLog(logSize)
	if err != nil {
		return err
	}
	p.space.add(c)
	if err := s.makeChunks(); err != nil {
		return err
	}
	p.logArea = &logArea{p: p}
	p.logArea.chunk.Store(c)
	if err := intent.Format(context.Background(), p.logArea); err != nil {
		return fmt.Errorf("intent log: %w", err)
	}
	p.counts.TakeDirty(s.saveSegment(meta.Space))
	s.batch.Put(meta.Config, []byte(keyConfig), b.config.pack(b.guid))
	s.batch.Put(meta.Config, []byte(keyState), s.state.pack())
	if err := p.meta.Commit(1, &s.batch); err != nil {
		return err
	}
	b.labelled = true
	return p.writeLabels(1)
}

// makeLog makes the chunk of the intent log.
func (s *pass) makeLog(size int64) (*chunk, error) {
	place, err := s.p.placeLog(&s.state, size, s.allChunks())
	if err != nil {
		return nil, err
	}
	c := &chunk{Chunk: *place}
	if err := s.p.counts.AddSegments(uint64(c.Base)/segmentUnits, uint64(c.Sectors)/segmentUnits); err != nil {
		return nil, err
	}
	if c.free, err = s.p.counts.Allocator(uint64(c.Base), uint64(c.Sectors)); err != nil {
		return nil, err
	}
	s.saveChunk(c)
	return c, nil
}

// close lets go of everything, and removes what was made when the pool was not.
func (b *builder) close(failed bool) error {
	var errs []error
	if b.meta != nil {
		errs = append(errs, b.meta.Close())
	}
	for _, d := range b.devices {
		if failed && b.labelled {
			errs = append(errs, clearLabel(d.dev))
		}
		errs = append(errs, d.dev.Close())
	}
	if failed {
		for _, path := range b.made {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// ReplicaName returns the file of metadata replica number i of a pool that lies
// in a directory.
func ReplicaName(dir string, i int) string {
	return filepath.Join(dir, fmt.Sprintf("meta-%d.db", i))
}
