package blockpool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// recountAll walks everything that the last durable txg of a pool names, counts all
// references anew, and returns what does not fit. It shares no code with the space
// maps and as little as possible with the pool, so that one mistake is not made
// twice.
//
// Changes of the pool while it runs confuse it: the caller has made them durable.
// With quiet nobody reads either, so that what may be given out must be exactly
// what is free on disk.
func recountAll(p *Pool, quiet bool) error {
	view, err := p.meta.View()
	if err != nil {
		return err
	}
	defer view.Close()
	c := &recounter{
		view: view, p: p,
		nodeRefs: map[uint64]uint64{},
		extents:  map[uint64]*tally{}, usedBy: map[uint64]int64{},
	}
	c.chunks()
	c.catalogue()
	c.used()
	c.nodes()
	c.sectors()
	if quiet {
		c.allocators()
	}
	return errors.Join(c.wrong...)
}

type recounter struct {
	view  *meta.View
	p     *Pool
	wrong []error

	chunkList []*raid.Chunk
	nodeRefs  map[uint64]uint64
	extents   map[uint64]*tally // by first sector
	usedBy    map[uint64]int64  // bytes by owner, each record once
	inUse     map[uint64]bool   // sectors that the space map has in use
}

// tally is a record and the references to it.
type tally struct {
	rec  format.Record
	refs uint64
}

func (c *recounter) bad(format string, args ...any) {
	if len(c.wrong) < 20 {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

// scan calls f with all of a bucket whose keys are numbers.
func (c *recounter) scan(b meta.Bucket, f func(key uint64, value []byte)) {
	err := c.view.Scan(b, nil, func(key, value []byte) error {
		f(binary.BigEndian.Uint64(key), value)
		return nil
	})
	if err != nil {
		c.bad("bucket %v: %w", b, err)
	}
}

// chunks reads the chunks: they overlap neither as addresses nor on devices.
func (c *recounter) chunks() {
	type piece struct{ from, to int64 }
	on := map[raid.DeviceID][]piece{}
	end := format.Addr(0)
	c.scan(meta.Chunks, func(key uint64, value []byte) {
		chunk, err := raid.ParseChunk(value)
		if err != nil {
			c.bad("chunk at %d: %w", key, err)
			return
		}
		if chunk.Base < end || uint64(chunk.Base) != key {
			c.bad("chunk %d begins at %d, under key %d, the one before ends at %d", chunk.ID, chunk.Base, key, end)
		}
		end = chunk.Base + format.Addr(chunk.Sectors)
		c.chunkList = append(c.chunkList, chunk)
		for _, col := range chunk.Columns {
			at := piece{col.Start, col.Start + chunk.ColumnBytes()}
			for _, o := range append(on[col.Device], piece{0, labelSpace}) {
				if at.from < o.to && o.from < at.to {
					c.bad("chunk %d takes bytes %d to %d of device %d, which are taken from %d to %d", chunk.ID, at.from, at.to, col.Device, o.from, o.to)
				}
			}
			on[col.Device] = append(on[col.Device], at)
		}
	})
}

// catalogue walks the tree of each entry.
func (c *recounter) catalogue() {
	names := map[string]bool{}
	c.scan(meta.Volumes, func(id uint64, value []byte) {
		e, err := unpackEntry(id, value)
		if err != nil {
			c.bad("%w", err)
			return
		}
		if names[e.name] {
			c.bad("two entries are called %s", e.name)
		}
		names[e.name] = true
		var referenced int64
		var objects uint64
		c.items(e.root, func(key, value []byte) {
			if !e.holdsFiles() || len(key) > MaxItemKey || len(value) > MaxItemValue {
				c.bad("%s: item %x with a value of %d bytes", e.name, key, len(value))
			}
			if key[0] == ItemCounted {
				objects++
			}
		})
		if objects != e.objects {
			c.bad("%s has %d objects and says %d", e.name, objects, e.objects)
		}
		c.tree(e.root, func(key []byte, rec format.Record) {
			wrong := int64(rec.Size) != e.recordSize || rec.Codec != format.Plain
			if e.holdsFiles() {
				wrong = int64(rec.Size) > e.recordSize
			}
			if n := binary.BigEndian.Uint64(key); n >= e.records() || wrong {
				c.bad("%s: record %d of %d bytes, in %d records of %d", e.name, n, rec.Size, e.records(), e.recordSize)
			}
			referenced += (int64(rec.Size) + 4095) / 4096 * 4096
		})
		if referenced != e.referenced {
			c.bad("%s references %d bytes and says %d", e.name, referenced, e.referenced)
		}
	})
	for id := range c.nodeRefs {
		c.nodeRefs[id] = 0
	}
	// Each node counts once, however many trees it is in.
	seen := map[uint64]bool{}
	c.scan(meta.Volumes, func(id uint64, value []byte) {
		if e, err := unpackEntry(id, value); err == nil {
			c.refer(uint64(e.root), seen)
		}
	})
	c.scan(meta.Dead, func(number uint64, value []byte) {
		ids, err := unpackNodeIDs(value)
		if err != nil {
			c.bad("destroyed tree %d: %w", number, err)
		}
		for _, id := range ids {
			c.refer(uint64(id), seen)
		}
	})
}

// items calls f with each item of a dataset's tree.
func (c *recounter) items(root btree.NodeID, f func(key, value []byte)) {
	if root == 0 {
		return
	}
	n := c.node(uint64(root))
	if n == nil {
		return
	}
	for i := range n.Len() {
		if n.Level() > 0 {
			c.items(n.Child(i), f)
		} else if key := n.AppendKey(nil, i); key[0] >= ItemCounted {
			f(key, n.Value(i))
		}
	}
}

// tree calls f with each record of a tree, in order.
func (c *recounter) tree(root btree.NodeID, f func([]byte, format.Record)) {
	if root == 0 {
		return
	}
	n := c.node(uint64(root))
	if n == nil {
		return
	}
	for i := range n.Len() {
		if n.Level() > 0 {
			c.tree(n.Child(i), f)
			continue
		}
		if n.AppendKey(nil, i)[0] >= ItemCounted {
			continue
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil {
			c.bad("node %d: item %d: %w", root, i, err)
			continue
		}
		f(n.AppendKey(nil, i), rec)
	}
}

// refer counts a reference to a node, and once those that it has itself.
func (c *recounter) refer(id uint64, seen map[uint64]bool) {
	if id == 0 {
		return
	}
	c.nodeRefs[id]++
	if seen[id] {
		return
	}
	seen[id] = true
	n := c.node(id)
	if n == nil {
		return
	}
	if n.Len() == 0 {
		c.bad("node %d is empty", id)
	}
	for i := range n.Len() {
		if n.Level() > 0 {
			if child := c.node(uint64(n.Child(i))); child != nil && child.Level() != n.Level()-1 {
				c.bad("node %d of level %d is below node %d of level %d", n.Child(i), child.Level(), id, n.Level())
			}
			c.refer(uint64(n.Child(i)), seen)
			continue
		}
		if n.AppendKey(nil, i)[0] >= ItemCounted {
			continue
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil {
			c.bad("node %d: item %d: %w", id, i, err)
			continue
		}
		x := c.extents[uint64(rec.Addr)]
		if x == nil {
			x = &tally{rec: rec}
			c.extents[uint64(rec.Addr)] = x
			c.usedBy[rec.Owner] += (int64(rec.Size) + 4095) / 4096 * 4096
		}
		if x.rec != rec {
			c.bad("sector %d is said to hold %+v and %+v", rec.Addr, x.rec, rec)
		}
		x.refs++
	}
}

func (c *recounter) node(id uint64) *btree.Node {
	b, err := c.view.Get(meta.Nodes, binary.BigEndian.AppendUint64(nil, id))
	if err == nil && b == nil {
		err = errors.New("missing")
	}
	if err == nil {
		var n *btree.Node
		if n, err = btree.Parse(b); err == nil {
			return n
		}
	}
	c.bad("node %d: %w", id, err)
	return nil
}

// used checks that used bytes are what the owners' records take, those of
// destroyed trees included.
func (c *recounter) used() {
	c.scan(meta.Volumes, func(id uint64, value []byte) {
		if e, err := unpackEntry(id, value); err == nil && c.usedBy[id] != e.used {
			c.bad("%s uses %d bytes and says %d", e.name, c.usedBy[id], e.used)
		}
	})
}

// segment decodes a segment of a space map on its own.
func (c *recounter) segment(b []byte, f func(unit, count uint64)) {
	if len(b) < 129 || b[0] != 1 {
		c.bad("segment of %d bytes, version %x", len(b), b[:min(1, len(b))])
		return
	}
	counts, next := map[uint64]uint64{}, uint64(0)
	for rest := b[129:]; len(rest) > 0; {
		skip, n := binary.Uvarint(rest)
		more, m := binary.Uvarint(rest[n:])
		counts[next+skip], next, rest = more+2, next+skip+1, rest[n+m:]
	}
	for u := range uint64(1024) {
		if b[1+u/8]>>(u%8)&1 == 0 {
			continue
		}
		if n := counts[u]; n > 0 {
			f(u, n)
		} else {
			f(u, 1)
		}
	}
}

// nodes compares the references to nodes with their counts, and the nodes that
// are there with those that something refers to.
func (c *recounter) nodes() {
	said := map[uint64]uint64{}
	c.scan(meta.NodeMap, func(seg uint64, value []byte) {
		c.segment(value, func(unit, count uint64) { said[seg*1024+unit] = count })
	})
	there := map[uint64]bool{}
	c.scan(meta.Nodes, func(id uint64, _ []byte) { there[id] = true })
	for id, refs := range c.nodeRefs {
		if said[id] != refs {
			c.bad("node %d has %d references and is counted %d", id, refs, said[id])
		}
	}
	for id, count := range said {
		if c.nodeRefs[id] == 0 {
			c.bad("node %d is counted %d and nothing refers to it", id, count)
		}
	}
	for id := range there {
		if c.nodeRefs[id] == 0 {
			c.bad("node %d is stored and nothing refers to it", id)
		}
	}
}

// sectors compares the references to records with the counts of their sectors.
func (c *recounter) sectors() {
	said, segments := map[uint64]uint64{}, map[uint64]bool{}
	c.scan(meta.Space, func(seg uint64, value []byte) {
		segments[seg] = true
		c.segment(value, func(unit, count uint64) { said[seg*1024+unit] = count })
	})
	for _, chunk := range c.chunkList {
		for at := uint64(chunk.Base); at < uint64(chunk.Base)+uint64(chunk.Sectors); at += 1024 {
			if !segments[at/1024] {
				c.bad("chunk %d has no counts at %d", chunk.ID, at)
			}
			delete(segments, at/1024)
		}
	}
	for seg := range segments {
		c.bad("segment %d belongs to no chunk", seg)
	}
	owner := map[uint64]uint64{}
	for at, x := range c.extents {
		i := slices.IndexFunc(c.chunkList, func(k *raid.Chunk) bool {
			return at >= uint64(k.Base) && at < uint64(k.Base)+uint64(k.Sectors)
		})
		if i < 0 || c.chunkList[i].Class != format.Data {
			c.bad("a record lies at %d, outside of data chunks", at)
			continue
		}
		for u := at; u < at+uint64(c.chunkList[i].Need(int64(x.rec.Size))); u++ {
			if o, taken := owner[u]; taken {
				c.bad("sector %d belongs to the records at %d and at %d", u, o, at)
			}
			owner[u] = at
			want := uint64(1)
			if u == at {
				want = x.refs
			}
			if said[u] != want {
				c.bad("sector %d of the record at %d has %d references and is counted %d", u, at, want, said[u])
			}
		}
	}
	c.inUse = map[uint64]bool{}
	for u, count := range said {
		c.inUse[u] = true
		if _, ok := owner[u]; !ok {
			c.bad("sector %d is counted %d and nothing refers to it", u, count)
		}
	}
}

// allocators compares what may be given out with what is free on disk.
func (c *recounter) allocators() {
	var free [format.Log + 1]int64
	for _, chunk := range c.p.space.all() {
		used := int64(0)
		for at := uint64(chunk.Base); at < uint64(chunk.end()); at++ {
			if c.inUse[at] {
				used++
			}
		}
		if got := int64(chunk.free.Free()); got != chunk.Sectors-used {
			c.bad("chunk %d (%v): %d sectors are free on disk and %d to be given out", chunk.ID, chunk.Class, chunk.Sectors-used, got)
		}
		if !chunk.frozen {
			free[chunk.Class] += chunk.Sectors - used
		}
	}
	s := c.p.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if free != s.free {
		c.bad("%v sectors are free by class and %v are said to be", free, s.free)
	}
	bySize := map[int64]int64{}
	for _, v := range c.p.catalogue.all() {
		e := v.entry.Load()
		if n := v.pending.Load(); n != 0 {
			c.bad("%s has %d bytes pending", e.name, n)
		}
		if b, want := &v.pending, c.usedBelow(e.name); b.e != e || b.below != want || b.all.Load() != 0 {
			c.bad("what is below %s counts for %d bytes, %d are said and %d are pending; its entry is there: %v", e.name, want, b.below, b.all.Load(), b.e == e)
		}
		bySize[e.recordSize] += format.Sectors(max(e.reservation-e.used-c.usedBelow(e.name), 0))
	}
	shapes := c.p.shapes(s.chunks)
	var promised int64
	for n, sectors := range bySize {
		worst := sectors
		for _, f := range shapes {
			whole := format.Sectors(n)
			worst = max(worst, (sectors*f.need(n)+whole-1)/whole)
		}
		promised += worst
	}
	if promised != s.reserved {
		c.bad("%d sectors are promised and %d are said to be", promised, s.reserved)
	}
	room := c.p.devices.room(c.p.profile(format.Data), s.chunks)
	if room != s.room[format.Data] {
		c.bad("devices have room for %d sectors and %d are said to be", room, s.room[format.Data])
	}
}

// usedBelow returns the bytes that what lies below a name counts for: what is used,
// or what is reserved if that is more.
func (c *recounter) usedBelow(name string) (sum int64) {
	list := c.p.catalogue.all()
	for _, v := range list {
		e := v.entry.Load()
		nearest := ""
		for _, o := range list {
			if n := o.entry.Load().name; isBelow(e.name, n) && len(n) > len(nearest) {
				nearest = n
			}
		}
		if nearest == name {
			sum += max(e.used+c.usedBelow(e.name), e.reservation)
		}
	}
	return sum
}

// recountNodes returns the ids of all nodes that are stored.
func recountNodes(p *Pool) (ids []uint64) {
	view, err := p.meta.View()
	if err != nil {
		return nil
	}
	defer view.Close()
	c := &recounter{view: view, p: p}
	c.scan(meta.Nodes, func(id uint64, _ []byte) { ids = append(ids, id) })
	return ids
}
