package blockpool

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// catalogue finds volumes by name and id. It holds what is committed: the sync
// goroutine changes it when a txg is durable.
type catalogue struct {
	mu     sync.RWMutex
	byID   map[uint64]*volume
	byName map[string]*volume
	tree   hierarchy
}

func newCatalogue() *catalogue {
	return &catalogue{byID: map[uint64]*volume{}, byName: map[string]*volume{}, tree: hierarchy{branches: map[uint64]*branch{}, promised: map[int64]int64{}}}
}

// hold finds a volume for a handle.
func (c *catalogue) hold(name string) (*volume, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v := c.byName[name]
	switch {
	case v == nil:
		return nil, ErrNotFound
	case v.entry.Load().receiving != nil:
		return nil, fmt.Errorf("it is being received: %w", ErrBusy)
	case v.claimed:
		return nil, fmt.Errorf("it is being destroyed or replaced: %w", ErrBusy)
	}
	v.handles.Add(1)
	return v, nil
}

// find returns the volume of that name, or nil.
func (c *catalogue) find(name string) *volume {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byName[name]
}

// get returns the volume of that id, or nil.
func (c *catalogue) get(id uint64) *volume {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

// entry returns the entry of that id, or nil.
func (c *catalogue) entry(id uint64) *entry {
	if v := c.get(id); v != nil {
		return v.entry.Load()
	}
	return nil
}

// all returns every volume, sorted by name.
func (c *catalogue) all() []*volume {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := make([]*volume, 0, len(c.byID))
	for _, v := range c.byID {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *volume) int { return cmp.Compare(a.entry.Load().name, b.entry.Load().name) })
	return list
}

// set makes e the entry of its volume, which is made if it is new.
func (c *catalogue) set(p *Pool, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.byID[e.id]
	if v == nil {
		v = &volume{pool: p, id: e.id}
		v.pending.tree = &c.tree
		c.byID[e.id] = v
	} else if old := v.entry.Load().name; old != e.name {
		delete(c.byName, old)
	}
	v.entry.Store(e)
	c.byName[e.name] = v
	c.noteSharerLocked(e)
}

// noteSharer notes that what e was taken of shares what it has.
func (c *catalogue) noteSharer(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteSharerLocked(e)
}

func (c *catalogue) noteSharerLocked(e *entry) {
	if o := c.byID[e.origin]; o != nil && e.createdTxg > o.shared.Load() {
		o.shared.Store(e.createdTxg)
	}
}

// remove forgets a volume.
func (c *catalogue) remove(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.byID[id]
	if v == nil {
		return
	}
	e := v.entry.Load()
	delete(c.byID, id)
	delete(c.byName, e.name)
	if o := c.byID[e.origin]; o != nil && o.shared.Load() == e.createdTxg {
		o.shared.Store(0)
		for _, v := range c.byID {
			if e := v.entry.Load(); e.origin == o.id {
				c.noteSharerLocked(e)
			}
		}
	}
}

// claim reports whether no handle is open, and then keeps it so until unclaim.
func (c *catalogue) claim(v *volume) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.handles.Load() != 0 {
		return false
	}
	v.claimed = true
	return true
}

// unclaimAll lets everything be opened again: the txg that was to change it is
// given up.
func (c *catalogue) unclaimAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.byID {
		v.claimed = false
	}
}

// unclaim lets handles be opened again.
func (c *catalogue) unclaim(v *volume) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.claimed = false
}

// VolumeInfo tells of a volume or snapshot. Sizes are in bytes.
type VolumeInfo struct {
	Name       string    `json:"name"`
	ID         uint64    `json:"id"`
	GUID       GUID      `json:"guid"`
	Kind       string    `json:"kind"`             // volume or snapshot
	Type       string    `json:"type"`             // what it holds: volume or dataset
	Origin     string    `json:"origin,omitempty"` // what it was taken of or cloned from, if that is still there
	Size       int64     `json:"size"`             // virtual
	RecordSize int64     `json:"record_size"`
	Referenced int64     `json:"referenced"` // that its map names, whoever else does
	Used       int64     `json:"used"`       // that it has written and that are in use, by itself, snapshots or clones
	Created    time.Time `json:"created"`
	CreatedTxg uint64    `json:"created_txg"`

	Quota       int64  `json:"quota,omitempty"`
	Refquota    int64  `json:"refquota,omitempty"`
	Reservation int64  `json:"reservation,omitempty"`
	Objects     uint64 `json:"objects,omitempty"`     // of a dataset
	Compression string `json:"compression,omitempty"` // of what is written to a dataset

	Receiving bool `json:"receiving,omitempty"` // a stream that has not come to its end
}

// IsDataset reports whether it is a dataset or a snapshot of one, which is no block
// device.
func (i VolumeInfo) IsDataset() bool { return i.Type == "dataset" }

// info returns what is known of v.
func (v *volume) info() VolumeInfo {
	e := v.entry.Load()
	i := VolumeInfo{
		Name: e.name, ID: e.id, GUID: e.guid, Kind: e.kind.String(),
		Size: e.size, RecordSize: e.recordSize, Referenced: e.referenced, Used: e.used,
		Created: e.created, CreatedTxg: e.createdTxg,
		Quota: e.quota, Refquota: e.refquota, Reservation: e.reservation, Receiving: e.receiving != nil,
	}
	i.Type = "volume"
	if e.content == contentObjects {
		i.Type, i.Objects, i.Compression = "dataset", e.objects, e.compression.String()
	}
	if o := v.pool.catalogue.get(e.origin); o != nil {
		i.Origin = o.entry.Load().name
	}
	return i
}

// Volumes returns all volumes and snapshots, sorted by name.
func (p *Pool) Volumes() []VolumeInfo {
	all := p.catalogue.all()
	list := make([]VolumeInfo, len(all))
	for i, v := range all {
		list[i] = v.info()
	}
	return list
}

// Volume returns what is known of one, or [ErrNotFound].
func (p *Pool) Volume(name string) (VolumeInfo, error) {
	v := p.catalogue.find(name)
	if v == nil {
		return VolumeInfo{}, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return v.info(), nil
}
