package poolserver

import (
	"fmt"
	"io"

	"github.com/laminafs/lamina/blockpool"
)

// Check are the arguments of [PoolCheck].
type Check struct {
	Data        bool `json:"data,omitempty"`         // read every copy of every record
	RepairLeaks bool `json:"repair_leaks,omitempty"` // free what is leaked
}

// PoolCheck looks at all of the pool while it is in use.
var PoolCheck = Op[Check, *blockpool.Report]{name: "pool.check", run: func(c *call, a Check) (*blockpool.Report, error) {
	return c.pool.Check(c.ctx, blockpool.CheckOptions{Data: a.Data, RepairLeaks: a.RepairLeaks, Progress: func(p blockpool.CheckProgress) {
		c.tell(CheckProgress(p))
	}})
}}

// CheckProgress turns the progress of a check, whose unit depends on the phase, into
// that of the protocol.
func CheckProgress(p blockpool.CheckProgress) Progress {
	return Progress{Done: p.Done, Total: p.Total, Text: p.Phase}
}

// PoolDump writes all metadata as text to the file that comes along.
var PoolDump = Op[None, None]{name: "pool.dump", files: 1, run: func(c *call, _ None) (None, error) {
	if err := c.pool.Sync(c.ctx); err != nil {
		return None{}, err
	}
	return None{}, c.withOutput(0, func(s *stream) error { return c.pool.Dump(c.ctx, s) })
}}

// DumpThin are the arguments of [PoolDumpThin].
type DumpThin struct {
	Names []string `json:"names,omitempty"` // of volumes and snapshots; none: all of 64K records
	Data  bool     `json:"data,omitempty"`  // a second file takes their data
}

// PoolDumpThin writes volumes as a dm-thin pool: mappings as thin_dump prints them
// to the first file that comes along, and data to the second, which is the same file
// when no data is wanted.
var PoolDumpThin = Op[DumpThin, []blockpool.ThinDevice]{name: "pool.dump.thin", files: 2, run: func(c *call, a DumpThin) (list []blockpool.ThinDevice, err error) {
	var data io.WriterAt
	if a.Data {
		data = c.files[1]
	}
	if err := c.pool.Sync(c.ctx); err != nil {
		return nil, err
	}
	err = c.withOutput(0, func(s *stream) (err error) {
		list, err = c.pool.DumpThin(c.ctx, s, data, a.Names...)
		return err
	})
	return list, err
}}

// RestoreThin are the arguments of [PoolRestoreThin].
type RestoreThin struct {
	Names map[uint32]string `json:"names,omitempty"` // of volumes, by dev_id; empty: all, as Prefix and dev_id
	// Prefix begins the names of volumes when Names is empty.
	Prefix string `json:"prefix,omitempty"`
}

// PoolRestoreThin makes volumes from a dm-thin pool: its mappings are the first file
// that comes along, its data device is the second.
var PoolRestoreThin = Op[RestoreThin, None]{name: "pool.restore.thin", files: 2, run: func(c *call, a RestoreThin) (None, error) {
	names := func(id uint32) string { return a.Names[id] }
	if len(a.Names) == 0 {
		names = func(id uint32) string { return fmt.Sprintf("%s%d", a.Prefix, id) }
	}
	return None{}, c.withInput(0, func(r io.Reader) error { return c.pool.RestoreThin(c.ctx, r, c.files[1], names) })
}}

// PoolTrim gives all that is free back to files and devices.
var PoolTrim = Op[None, Moved]{name: "pool.trim", run: func(c *call, _ None) (Moved, error) {
	n, err := c.pool.Trim(c.ctx, func(done, total int64) { c.tell(Progress{Done: done, Total: total}) })
	return Moved{Bytes: n}, err
}}

// PoolCompact writes the metadata anew without what is free in it.
var PoolCompact = Op[None, []blockpool.Compaction]{name: "pool.compact", run: func(c *call, _ None) ([]blockpool.Compaction, error) {
	return c.pool.Compact(c.ctx)
}}

// DeviceRange is a part of a device, in bytes.
type DeviceRange struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
}

// PoolRmap tells which records of which volumes lie in a part of a device: each run
// comes as [Progress.Event], a [blockpool.Mapping].
var PoolRmap = Op[DeviceRange, None]{name: "pool.rmap", run: func(c *call, a DeviceRange) (None, error) {
	return None{}, c.pool.RmapDevice(c.ctx, a.Path, a.Offset, a.Length, func(m blockpool.Mapping) error {
		c.tell(Progress{Event: m})
		return c.ctx.Err()
	})
}}

// Send are the arguments of [VolumeSend].
type Send struct {
	Snapshot    string `json:"snapshot,omitempty"`
	From        string `json:"from,omitempty"`        // snapshot that the receiver has
	Token       string `json:"token,omitempty"`       // instead of both: go on as it says
	Compression int    `json:"compression,omitempty"` // 0 for none, 1 (fastest) to 4 (smallest)
}

// VolumeSend writes a snapshot as a stream to the file that comes along.
var VolumeSend = Op[Send, blockpool.SendProgress]{name: "volume.send", files: 1, run: func(c *call, a Send) (done blockpool.SendProgress, err error) {
	o := blockpool.SendOptions{From: a.From, Compression: a.Compression, Progress: c.records(a.Snapshot)}
	err = c.withOutput(0, func(s *stream) (err error) {
		if a.Token != "" {
			done, err = c.pool.SendResume(c.ctx, s, a.Token, o)
		} else {
			done, err = c.pool.Send(c.ctx, s, a.Snapshot, o)
		}
		return err
	})
	return done, err
}}

// records passes on how far a stream is, counted in the volume's bytes.
func (c *call) records(name string) func(blockpool.SendProgress) {
	size := c.pool.Config().RecordSize
	if v, err := c.pool.Volume(name); err == nil {
		size = v.RecordSize
	}
	return func(p blockpool.SendProgress) {
		if p.End == 0 { // of a dataset, whose records lie far apart
			c.tell(Progress{Done: p.Bytes})
			return
		}
		c.tell(Progress{Done: int64(p.Next) * size, Total: int64(p.End) * size})
	}
}

// Receive are the arguments of [VolumeReceive].
type Receive struct {
	Name  string `json:"name,omitempty"`  // VOLUME or VOLUME@SNAPSHOT; empty: as the stream says
	Force bool   `json:"force,omitempty"` // drop what was written since the snapshot that the stream begins with
	// Origin is the snapshot that the stream begins with and that the new volume or
	// dataset is to be a clone of.
	Origin string `json:"origin,omitempty"`
}

// VolumeReceive makes the snapshot that a stream brings, which is the file that
// comes along.
var VolumeReceive = Op[Receive, blockpool.VolumeInfo]{name: "volume.receive", files: 1, run: func(c *call, a Receive) (v blockpool.VolumeInfo, err error) {
	err = c.withInput(0, func(r io.Reader) (err error) {
		v, err = c.pool.Receive(c.ctx, r, a.Name, blockpool.ReceiveOptions{Force: a.Force, Origin: a.Origin, Progress: c.records(a.Name)})
		return err
	})
	return v, err
}}

// VolumeReceiveToken tells where the sender of a stream that was cut off can go on.
var VolumeReceiveToken = Op[Name, string]{name: "volume.receive.token", run: func(c *call, a Name) (string, error) {
	return c.pool.ReceiveToken(a.Name)
}}

// VolumeReceiveAbort removes what has arrived of a stream that was cut off.
var VolumeReceiveAbort = Op[Name, None]{name: "volume.receive.abort", run: func(c *call, a Name) (None, error) {
	return None{}, c.pool.AbortReceive(c.ctx, a.Name)
}}
