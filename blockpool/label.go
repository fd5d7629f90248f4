package blockpool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// A device begins with its labels: labelCopies of them, labelSpacing apart, in
// the first labelSpace bytes, which no chunk takes. The copies are written in
// two halves with a flush between, so that a crash leaves at least one whole
// (as zfs does it).
const (
	labelCopies  = 4
	labelSpacing = 256 << 10
	labelSpace   = labelCopies * labelSpacing
	labelSize    = 64 << 10
	labelMagic   = "lamina pool\x00"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A label says which pool a device belongs to and where the rest of it is.
type label struct {
	version    uint64
	pool       GUID
	name       string
	device     uint32
	deviceGUID GUID
	size       int64    // of the device, when it was written
	txg        uint64   // last one that was durable when it was written: metadata older than it is not the pool's
	replicas   []string // paths of the metadata replicas
	failed     []string // those of them that have missed a txg
}

// labelVersion is the newest version of a pool that this package knows.
const labelVersion = 1

// Tags of a label's fields on disk.
const (
	labelPool = iota + 1
	labelName
	labelDevice
	labelDeviceGUID
	labelDeviceSize
	labelTxg
	labelReplica
	labelFailed
)

// pack returns magic, length, crc32c of what follows, and the fields.
func (l *label) pack() ([]byte, error) {
	f := format.NewFields(labelVersion)
	f.Bytes(labelPool, l.pool[:])
	f.String(labelName, l.name)
	f.Uint(labelDevice, uint64(l.device))
	f.Bytes(labelDeviceGUID, l.deviceGUID[:])
	f.Uint(labelDeviceSize, uint64(l.size))
	f.Uint(labelTxg, l.txg)
	for _, r := range l.replicas {
		f.String(labelReplica, r)
	}
	for _, r := range l.failed {
		f.String(labelFailed, r)
	}
	const head = len(labelMagic) + 8
	if head+len(f) > labelSize {
		return nil, invalidf("label: paths of the metadata replicas are too long")
	}
	b := make([]byte, labelSize)
	copy(b, labelMagic)
	binary.LittleEndian.PutUint32(b[len(labelMagic):], uint32(len(f)))
	copy(b[head:], f)
	binary.LittleEndian.PutUint32(b[len(labelMagic)+4:], crc32.Checksum(b[head:], castagnoli))
	return b, nil
}

// unpackLabel is the inverse of pack.
func unpackLabel(b []byte) (*label, error) {
	const head = len(labelMagic) + 8
	if len(b) != labelSize || string(b[:len(labelMagic)]) != labelMagic {
		return nil, fmt.Errorf("not a label: %w", ErrDamaged)
	}
	n := binary.LittleEndian.Uint32(b[len(labelMagic):])
	if crc32.Checksum(b[head:], castagnoli) != binary.LittleEndian.Uint32(b[len(labelMagic)+4:]) || n == 0 || int(n) > labelSize-head {
		return nil, fmt.Errorf("label does not fit its checksum: %w", ErrDamaged)
	}
	f := b[head : head+int(n)]
	if f[0] > labelVersion {
		return nil, fmt.Errorf("pool of version %d, this lamina knows %d: %w", f[0], labelVersion, ErrNewer)
	}
	l := &label{version: uint64(f[0])}
	var device uint64
	err := format.ParseFields(f, labelVersion, func(f format.Field) error {
		switch f.Tag {
		case labelPool:
			return f.Fixed(l.pool[:])
		case labelName:
			l.name = f.String()
			return nil
		case labelDevice:
			return f.Uint(&device)
		case labelDeviceGUID:
			return f.Fixed(l.deviceGUID[:])
		case labelDeviceSize:
			return f.Int(&l.size)
		case labelTxg:
			return f.Uint(&l.txg)
		case labelReplica:
			l.replicas = append(l.replicas, f.String())
			return nil
		case labelFailed:
			l.failed = append(l.failed, f.String())
			return nil
		default:
			return f.Unknown()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("label: %w", err)
	}
	if device > 1<<32-1 {
		return nil, fmt.Errorf("label: device %d: %w", device, ErrDamaged)
	}
	l.device = uint32(device)
	return l, nil
}

// writeLabel writes all copies. A crash leaves the old label or the new one.
func writeLabel(dev vdev.Device, l *label) error {
	b, err := l.pack()
	if err != nil {
		return err
	}
	for half := range 2 {
		// Crash here: the copies of the other half are whole.
		for i := half; i < labelCopies; i += 2 {
			if _, err := dev.WriteAt(b, int64(i)*labelSpacing); err != nil {
				return fmt.Errorf("label of %s: %w", dev.Path(), err)
			}
		}
		if err := dev.Sync(); err != nil {
			return fmt.Errorf("label of %s: %w", dev.Path(), err)
		}
	}
	return nil
}

// A labelled is what may carry a label.
type labelled interface {
	io.ReaderAt
	Path() string
}

// readLabel returns the newest whole copy.
func readLabel(dev labelled) (*label, error) {
	var best *label
	var errs []error
	b := make([]byte, labelSize)
	for i := range labelCopies {
		if _, err := dev.ReadAt(b, int64(i)*labelSpacing); err != nil {
			errs = append(errs, err)
			continue
		}
		l, err := unpackLabel(b)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if best == nil || l.txg > best.txg {
			best = l
		}
	}
	if best == nil {
		for _, err := range errs {
			if errors.Is(err, ErrNewer) {
				return nil, fmt.Errorf("%s: %w", dev.Path(), err)
			}
		}
		return nil, fmt.Errorf("%s carries no label of a pool: %w", dev.Path(), errs[0])
	}
	return best, nil
}

// clearLabel makes the device no pool's.
func clearLabel(dev vdev.Device) error {
	b := make([]byte, labelSize)
	for i := range labelCopies {
		if _, err := dev.WriteAt(b, int64(i)*labelSpacing); err != nil {
			return fmt.Errorf("label of %s: %w", dev.Path(), err)
		}
	}
	return dev.Sync()
}
