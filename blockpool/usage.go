package blockpool

import (
	"context"
	"fmt"
	"strings"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// Usage tells what a volume or snapshot takes, in bytes. What is written and not
// yet durable is left aside, and so is redundancy.
type Usage struct {
	Referenced int64 `json:"referenced"` // that its map names
	Exclusive  int64 `json:"exclusive"`  // of them, those that would come back if it were destroyed
	Shared     int64 `json:"shared"`     // of them, those that others name too

	Records uint64 `json:"records"` // that would come back
	Nodes   uint64 `json:"nodes"`   // of the metadata that would come back
}

// Freed tells what destroying would bring back.
type Freed struct {
	Bytes   int64  `json:"bytes"`
	Records uint64 `json:"records"`
	Nodes   uint64 `json:"nodes"` // of the metadata
}

// Usage returns what a volume or snapshot takes. The cost is that of what only it
// has. What was destroyed and has not come back yet counts as shared. While it is
// written to, the figures are those of several moments.
func (p *Pool) Usage(ctx context.Context, name string) (Usage, error) {
	freed, err := p.UsageOf(ctx, name)
	if err != nil {
		return Usage{}, err
	}
	info, err := p.Volume(name)
	if err != nil {
		return Usage{}, fmt.Errorf("usage of %w", err)
	}
	return Usage{
		Referenced: info.Referenced, Exclusive: freed.Bytes, Shared: info.Referenced - freed.Bytes,
		Records: freed.Records, Nodes: freed.Nodes,
	}, nil
}

// UsageOf returns what destroying all of several volumes and snapshots together
// would bring back, as zfs destroy -nv does: also what they share among each other.
func (p *Pool) UsageOf(ctx context.Context, names ...string) (Freed, error) {
	freed, err := p.usageOf(ctx, names)
	if err != nil {
		return Freed{}, fmt.Errorf("usage of %s: %w", strings.Join(names, ", "), err)
	}
	return freed, nil
}

func (p *Pool) usageOf(ctx context.Context, names []string) (sum Freed, err error) {
	var volumes []*volume
	seen := map[uint64]bool{}
	for _, name := range names {
		v, err := p.catalogue.hold(name)
		if err != nil {
			return Freed{}, fmt.Errorf("%s: %w", name, err)
		}
		defer v.handles.Add(-1)
		if !seen[v.id] {
			seen[v.id] = true
			volumes = append(volumes, v)
		}
	}
	err = inWindows(ctx, func(w window) (*walk, int, uint64, error) {
		d, end, err := p.wouldDrop(volumes, w)
		if err == nil {
			sum.Bytes += d.freed.Bytes
			sum.Records += d.freed.Records
			sum.Nodes += d.freed.Nodes
		}
		return &d.walk, len(volumes), end, err
	})
	if err != nil {
		return Freed{}, err
	}
	return sum, nil
}

// wouldDrop sees what dropping some volumes would free within a window, and returns
// where the last of their trees ends.
func (p *Pool) wouldDrop(volumes []*volume, w window) (d *dropping, end uint64, err error) {
	p.view.RLock()
	e := p.epochs.hold()
	entries := make([]*entry, len(volumes))
	for i, v := range volumes {
		entries[i] = v.entry.Load()
	}
	p.view.RUnlock()
	defer e.release()
	counts := func(b meta.Bucket) *spacemap.Map {
		return spacemap.New(func(seg uint64) ([]byte, error) { return e.view.Get(b, key64(seg)) })
	}
	d = &dropping{
		walk:  walk{Loader: e, window: w, most: mostNodes + treeNodes*len(volumes)},
		nodes: counts(meta.NodeMap), records: counts(meta.Space),
		nodesTaken: map[btree.NodeID]uint64{}, recordsTaken: map[format.Addr]uint64{},
	}
	for _, e := range entries {
		end = max(end, e.end())
		if e.root == 0 {
			continue
		}
		if err := d.drop(e.root, anyLevel); err != nil {
			return d, 0, err
		}
	}
	return d, end, nil
}

// A dropping plays through what dropping references would free, within a range of
// keys: references that were taken away are subtracted from the counts that the
// metadata has. A node lies in the range if what refers to it does, so each range
// can be looked at by itself.
type dropping struct {
	walk
	nodes, records *spacemap.Map
	nodesTaken     map[btree.NodeID]uint64 // of those that have others left
	recordsTaken   map[format.Addr]uint64
	freed          Freed
}

// drop takes a reference to a node away.
func (d *dropping) drop(id btree.NodeID, level int) error {
	refs, err := d.nodes.Count(uint64(id))
	if err != nil {
		return fmt.Errorf("count of node %d: %w", id, err)
	}
	if !takeLast(d.nodesTaken, id, refs) {
		return nil
	}
	n, err := d.load(id, level)
	if err != nil {
		return err
	}
	at, err := d.position(n)
	if err != nil {
		return err
	}
	if d.has(at) {
		d.freed.Nodes++
	}
	if err := d.below(n, d.drop, d.dropRecord); err != nil {
		return fmt.Errorf("node %d: %w", id, err)
	}
	return nil
}

func (d *dropping) dropRecord(_ uint64, rec format.Record) error {
	refs, err := d.records.Count(uint64(rec.Addr))
	if err != nil {
		return fmt.Errorf("count of the record at %d: %w", rec.Addr, err)
	}
	if takeLast(d.recordsTaken, rec.Addr, refs) {
		d.freed.Records++
		d.freed.Bytes += stored(rec)
	}
	return nil
}

// takeLast takes one of refs references away and reports whether it was the last
// one.
func takeLast[K comparable](taken map[K]uint64, key K, refs uint64) bool {
	if refs <= 1 {
		return true
	}
	if taken[key]++; taken[key] < refs {
		return false
	}
	delete(taken, key)
	return true
}
