package poolserver

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// Name is the argument of what needs to know one volume or snapshot only.
type Name struct {
	Name string `json:"name"`
}

// FromTo are the arguments of what makes one thing from another.
type FromTo struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// VolumeList returns all volumes and snapshots of volumes, by name.
var VolumeList = Op[None, []blockpool.VolumeInfo]{name: "volume.list", run: func(c *call, _ None) ([]blockpool.VolumeInfo, error) {
	list := append([]blockpool.VolumeInfo{}, c.pool.Volumes()...)
	return slices.DeleteFunc(list, blockpool.VolumeInfo.IsDataset), nil
}}

// CreateVolume are the arguments of [VolumeCreate]. Sizes are in bytes, and 0
// stands for a default or no limit.
type CreateVolume struct {
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	RecordSize  int64  `json:"record_size,omitempty"`
	Quota       int64  `json:"quota,omitempty"`
	Refquota    int64  `json:"refquota,omitempty"`
	Reservation int64  `json:"reservation,omitempty"`
}

// VolumeCreate makes a volume. In a pool like that of Docker's devicemapper driver
// the default size is that of its base devices.
var VolumeCreate = Op[CreateVolume, blockpool.VolumeInfo]{name: "volume.create", run: func(c *call, a CreateVolume) (blockpool.VolumeInfo, error) {
	if a.Size == 0 {
		if p := c.pool.Config(); p.RecordSize != blockpool.DevicemapperRecordSize || p.MinFree != blockpool.DevicemapperMinFree {
			return blockpool.VolumeInfo{}, fmt.Errorf("create %s: a volume needs a size: add --size SIZE: %w", a.Name, unix.EINVAL)
		}
		a.Size = blockpool.DevicemapperBaseSize
	}
	return c.volume(a.Name, c.pool.CreateVolume(c.ctx, a.Name, a.Size, blockpool.VolumeOptions{
		RecordSize: a.RecordSize, Quota: a.Quota, Refquota: a.Refquota, Reservation: a.Reservation,
	}))
}}

// volume returns what is known of a volume after something that may have failed.
func (c *call) volume(name string, err error) (blockpool.VolumeInfo, error) {
	if err != nil {
		return blockpool.VolumeInfo{}, err
	}
	return c.pool.Volume(name)
}

// VolumeSnapshot makes the snapshot To of the volume or snapshot From.
var VolumeSnapshot = Op[FromTo, blockpool.VolumeInfo]{name: "volume.snapshot", run: func(c *call, a FromTo) (blockpool.VolumeInfo, error) {
	return c.volume(a.To, c.pool.Snapshot(c.ctx, a.From, a.To))
}}

// VolumeClone makes the volume To of the volume or snapshot From.
var VolumeClone = Op[FromTo, blockpool.VolumeInfo]{name: "volume.clone", run: func(c *call, a FromTo) (blockpool.VolumeInfo, error) {
	return c.volume(a.To, c.pool.Clone(c.ctx, a.From, a.To))
}}

// VolumePromote makes a clone what its origin was.
var VolumePromote = Op[Name, blockpool.VolumeInfo]{name: "volume.promote", run: func(c *call, a Name) (blockpool.VolumeInfo, error) {
	return c.volume(a.Name, c.pool.Promote(c.ctx, a.Name))
}}

// VolumeRollback makes a volume what its snapshot is.
var VolumeRollback = Op[Name, None]{name: "volume.rollback", run: func(c *call, a Name) (None, error) {
	return None{}, c.pool.Rollback(c.ctx, a.Name)
}}

// VolumeRename gives a volume or snapshot another name.
var VolumeRename = Op[FromTo, blockpool.VolumeInfo]{name: "volume.rename", run: func(c *call, a FromTo) (blockpool.VolumeInfo, error) {
	return c.volume(a.To, c.pool.Rename(c.ctx, a.From, a.To))
}}

// ResizeVolume are the arguments of [VolumeResize].
type ResizeVolume struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`             // in bytes
	Shrink bool   `json:"shrink,omitempty"` // what lies beyond a smaller size may be lost
}

// VolumeResize changes the virtual size of a volume.
var VolumeResize = Op[ResizeVolume, blockpool.VolumeInfo]{name: "volume.resize", run: func(c *call, a ResizeVolume) (blockpool.VolumeInfo, error) {
	i, err := c.pool.Volume(a.Name)
	if err == nil && a.Size < i.Size && !a.Shrink {
		err = fmt.Errorf("resize %s: what lies between %d and %d bytes would be lost: make the filesystem smaller first and use --shrink: %w", a.Name, a.Size, i.Size, unix.EINVAL)
	}
	if err == nil {
		err = c.pool.Resize(c.ctx, a.Name, a.Size)
	}
	return c.volume(a.Name, err)
}}

// Limits are the arguments of [VolumeSet], in bytes: what is nil stays, 0 is no
// limit.
type Limits struct {
	Name        string `json:"name"`
	Quota       *int64 `json:"quota,omitempty"`
	Refquota    *int64 `json:"refquota,omitempty"`
	Reservation *int64 `json:"reservation,omitempty"`
}

// VolumeSet changes the limits of a volume.
var VolumeSet = Op[Limits, blockpool.VolumeInfo]{name: "volume.set", run: func(c *call, a Limits) (blockpool.VolumeInfo, error) {
	quota, refquota, reservation := int64(-1), int64(-1), int64(-1)
	set(&quota, a.Quota)
	set(&refquota, a.Refquota)
	set(&reservation, a.Reservation)
	return c.volume(a.Name, c.pool.SetLimits(c.ctx, a.Name, quota, refquota, reservation))
}}

// VolumeDestroy removes a volume or snapshot.
var VolumeDestroy = Op[Name, None]{name: "volume.destroy", run: func(c *call, a Name) (None, error) {
	return None{}, c.pool.Destroy(c.ctx, a.Name)
}}

// A Range is a part of a volume, in bytes.
type Range struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length,omitempty"` // 0: all that is behind Offset
}

// Moved tells how many bytes went through a stream.
type Moved struct {
	Bytes int64 `json:"bytes"`
}

// streamSize is how many bytes are read or written at once.
const streamSize = 1 << 20

// VolumeRead writes a part of a volume to the file that comes along. A regular
// file gets holes where there are zeros.
var VolumeRead = Op[Range, Moved]{name: "volume.read", files: 1, run: func(c *call, a Range) (moved Moved, err error) {
	v, end, err := c.openRange(a)
	if err != nil {
		return moved, err
	}
	defer v.Close()
	err = c.withOutput(0, func(s *stream) error {
		w := newSparseWriter(s)
		buf := make([]byte, streamSize)
		for off := a.Offset; off < end; {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			n, hole, err := v.Allocated(off, min(end-off, 64*streamSize))
			if err != nil {
				return err
			}
			if hole {
				err = w.zeros(n)
			} else {
				n = min(n, streamSize)
				if _, err := v.ReadAt(buf[:n], off); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				_, err = w.Write(buf[:n])
			}
			if err != nil {
				return fmt.Errorf("read %s: write what was read: %w", a.Name, err)
			}
			off += n
			moved.Bytes += n
			c.tell(Progress{Done: moved.Bytes, Total: end - a.Offset})
		}
		return w.close()
	})
	return moved, err
}}

// openRange opens a volume and returns where the range ends.
func (c *call) openRange(a Range) (v *blockpool.Volume, end int64, err error) {
	if v, err = c.pool.Open(a.Name); err != nil {
		return nil, 0, err
	}
	size := v.Size()
	end = size
	if a.Length > 0 && a.Offset <= size {
		end = a.Offset + a.Length
	}
	if a.Offset < 0 || a.Length < 0 || a.Offset > size || end > size || end < a.Offset {
		v.Close()
		return nil, 0, fmt.Errorf("%d bytes at %d of %s: it has %d: %w", a.Length, a.Offset, a.Name, size, unix.EINVAL)
	}
	return v, end, nil
}

// WriteVolume are the arguments of [VolumeWrite].
type WriteVolume struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset,omitempty"`
}

// VolumeWrite writes the file that comes along to a volume, and returns when it
// would survive a crash of the machine.
var VolumeWrite = Op[WriteVolume, Moved]{name: "volume.write", files: 1, run: func(c *call, a WriteVolume) (moved Moved, err error) {
	v, _, err := c.openRange(Range{Name: a.Name, Offset: a.Offset})
	if err != nil {
		return moved, err
	}
	defer v.Close()
	err = c.withInput(0, func(r io.Reader) error {
		buf := make([]byte, streamSize)
		for {
			n, err := io.ReadFull(r, buf)
			if n > 0 {
				if _, err := v.Write(c.ctx, buf[:n], a.Offset+moved.Bytes); err != nil {
					return err
				}
				moved.Bytes += int64(n)
				c.tell(Progress{Done: moved.Bytes})
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("write %s: read what to write: %w", a.Name, err)
			}
		}
	})
	if err == nil {
		err = v.Flush(c.ctx)
	}
	return moved, err
}}

// VolumeDiscard gives a part of a volume back to the pool: it reads as zeros.
var VolumeDiscard = Op[Range, None]{name: "volume.discard", run: func(c *call, a Range) (None, error) {
	v, end, err := c.openRange(a)
	if err != nil {
		return None{}, err
	}
	defer v.Close()
	if err := v.Discard(c.ctx, a.Offset, end-a.Offset); err != nil {
		return None{}, err
	}
	return None{}, v.Flush(c.ctx)
}}

// VolumeTrim looks for records of zeros and gives their space back. What the volume
// has stays as it is.
var VolumeTrim = Op[Name, Moved]{name: "volume.trim", run: func(c *call, a Name) (Moved, error) {
	v, err := c.pool.Open(a.Name)
	if err != nil {
		return Moved{}, err
	}
	defer v.Close()
	n, err := v.Trim(c.ctx)
	return Moved{Bytes: n}, err
}}

// VolumeUsage tells what destroying volumes and snapshots would bring back, all of
// them together, and for one what it shares.
var VolumeUsage = Op[Names, UsageInfo]{name: "volume.usage", run: func(c *call, a Names) (u UsageInfo, err error) {
	if len(a.Names) == 1 {
		u.Usage, err = c.pool.Usage(c.ctx, a.Names[0])
		return u, err
	}
	freed, err := c.pool.UsageOf(c.ctx, a.Names...)
	if err != nil {
		return u, err
	}
	u.Exclusive, u.Records, u.Nodes = freed.Bytes, freed.Records, freed.Nodes
	for _, name := range a.Names {
		v, err := c.pool.Volume(name)
		if err != nil {
			return u, err
		}
		u.Referenced += v.Referenced
	}
	return u, nil
}}

// Names are the arguments of what needs to know several volumes only.
type Names struct {
	Names []string `json:"names"`
}

// UsageInfo is what [VolumeUsage] tells. Of several volumes Referenced is the sum, and
// Shared is not told.
type UsageInfo struct{ blockpool.Usage }

// Delta are the arguments of [VolumeDelta].
type Delta struct {
	From string `json:"from,omitempty"` // volume or snapshot; empty: an empty volume
	To   string `json:"to"`
}

// A Difference is a part of a volume that is not as it is in another.
type Difference struct {
	Offset int64  `json:"offset"` // in bytes
	Length int64  `json:"length"`
	Kind   string `json:"kind"` // written or hole
}

// VolumeDelta tells what differs between two volumes or snapshots: each part comes
// as [Progress.Event].
var VolumeDelta = Op[Delta, None]{name: "volume.delta", run: func(c *call, a Delta) (None, error) {
	v, err := c.pool.Volume(a.To)
	if err != nil {
		return None{}, err
	}
	return None{}, c.pool.Delta(c.ctx, a.From, a.To, func(first, count uint64, change blockpool.Change) error {
		c.tell(Progress{Event: Difference{int64(first) * v.RecordSize, int64(count) * v.RecordSize, change.String()}})
		return c.ctx.Err()
	})
}}
