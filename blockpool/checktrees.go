package blockpool

import (
	"context"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// checkCatalogue looks at the entries of volumes and snapshots.
func (c *checker) checkCatalogue() error {
	names, guids := map[string]uint64{}, map[GUID]*entry{}
	err := c.each(meta.Volumes, func(id uint64, value []byte) {
		e, err := unpackEntry(id, value)
		if err != nil {
			c.r.add(Finding{Kind: FindVolumeEntry, Text: err.Error()})
			return
		}
		c.counter("volume", c.state.nextEntry, id)
		if other, ok := names[e.name]; ok {
			c.r.add(Finding{Kind: FindVolumeName, Volume: e.name, Text: fmt.Sprintf("entries %d and %d have this name", other, id)})
		} else if err := c.wrongName(e); err != nil {
			c.r.add(Finding{Kind: FindVolumeName, Volume: e.name, Text: err.Error()})
		}
		names[e.name] = id
		// Snapshots have that of where they come from, and may have been received twice.
		if other := guids[e.guid]; other != nil && (e.kind != KindSnapshot || other.kind != KindSnapshot || e.origin == other.origin) {
			c.r.add(Finding{Kind: FindVolumeState, Volume: e.name, Text: fmt.Sprintf("it has the guid of %s", other.name)})
		}
		guids[e.guid] = e
		c.checkEntry(e)
		c.entries = append(c.entries, e)
		if e.kind == KindSnapshot {
			c.r.Snapshots++
		} else {
			c.r.Volumes++
		}
	})
	return err
}

// wrongName tells what is wrong with the name of an entry.
func (c *checker) wrongName(e *entry) error {
	_, snap, err := splitSnapshot(e.name)
	if err == nil && (snap != "") != (e.kind == KindSnapshot) {
		err = damagedf("that is no name of a %v", e.kind)
	}
	return err
}

// checkEntry looks at an entry by itself.
func (c *checker) checkEntry(e *entry) {
	bad := func(kind FindingKind, format string, args ...any) {
		c.r.add(Finding{Kind: kind, Volume: e.name, Text: fmt.Sprintf(format, args...)})
	}
	if e.origin == e.id || c.stateOK && e.origin > c.state.nextEntry {
		bad(FindVolumeOrigin, "its origin is entry %d, and it is entry %d of %d", e.origin, e.id, c.state.nextEntry)
	}
	switch {
	case e.createdTxg > c.txg || e.writtenTxg > c.txg:
		bad(FindVolumeState, "it was made in txg %d and written in txg %d, after txg %d", e.createdTxg, e.writtenTxg, c.txg)
	case e.size == 0 && e.content == contentBytes:
		bad(FindVolumeState, "it has no size")
	case e.quota < 0 || e.refquota < 0 || e.reservation < 0 || e.used < 0 || e.referenced < 0:
		bad(FindVolumeState, "a limit or a number of bytes is below zero: used %d, referenced %d", e.used, e.referenced)
	}
}

// checkDead reads what is left of destroyed trees.
func (c *checker) checkDead() error {
	return c.each(meta.Dead, func(n uint64, value []byte) {
		c.counter("destroyed tree", c.state.nextDead, n)
		ids, err := unpackNodeIDs(value)
		if err != nil {
			c.r.add(Finding{Kind: FindDead, Text: fmt.Sprintf("destroyed tree %d: %v", n, err)})
			return
		}
		c.dead = append(c.dead, ids)
		c.r.DeadTrees++
	})
}

// Load implements [btree.Loader] on the metadata.
func (c *checker) Load(id btree.NodeID) (*btree.Node, error) {
	n, err := loadNode(c.src, id)
	if err == nil && n.Birth() > c.txg {
		err = damagedf("node %d of txg %d in txg %d", id, n.Birth(), c.txg)
	}
	c.failed = err
	return n, err
}

// loadNode returns a node from the metadata itself.
func loadNode(src metadata, id btree.NodeID) (*btree.Node, error) {
	b, err := src.Get(meta.Nodes, key64(uint64(id)))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, damagedf("node %d is missing", id)
	}
	return btree.Parse(b)
}

// checkTrees walks over the trees of all volumes and of what is left of destroyed
// ones, each node once, and counts the references to nodes and records.
func (c *checker) checkTrees() error {
	c.tree = btree.NewChecker(c, c.badNode, c.item)
	for i, e := range c.entries {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		c.progress("volume "+e.name, int64(i), int64(len(c.entries)))
		c.walking = e
		totals := c.tree.Tree(e.root)
		c.checkReach(e)
		if totals.Bytes != e.referenced {
			c.r.add(Finding{Kind: FindReferenced, Volume: e.name, Text: fmt.Sprintf("it refers to %d bytes, and is said to refer to %d", totals.Bytes, e.referenced)})
			c.leaks.referenced(e.id, totals.Bytes-e.referenced)
		}
		if totals.Counted != e.objects {
			c.r.add(Finding{Kind: FindObjects, Volume: e.name, Text: fmt.Sprintf("it has %d objects, and is said to have %d", totals.Counted, e.objects)})
			c.leaks.objects(e.id, int64(totals.Counted-e.objects))
		}
	}
	c.walking = nil
	for _, ids := range c.dead {
		for _, id := range ids {
			c.tree.Tree(id)
		}
	}
	return context.Cause(c.ctx)
}

// badNode reports what the tree checker says of a node.
func (c *checker) badNode(id btree.NodeID, err error) {
	f := Finding{Kind: FindTree, Node: uint64(id), Volume: c.volume(), Text: err.Error()}
	if c.failed != nil {
		f.Kind, c.failed = FindNode, nil
	}
	c.r.add(f)
}

func (c *checker) volume() string {
	if c.walking == nil {
		return ""
	}
	return c.walking.name
}

// checkReach looks whether the last record of a volume lies within it.
func (c *checker) checkReach(e *entry) {
	cur := btree.NewCursor(c, e.root)
	if !cur.Last() {
		return // an error was reported with the tree
	}
	if n, err := parseKey64(cur.Key()); err == nil && n >= e.records() && e.content == contentBytes {
		c.r.add(Finding{Kind: FindRecordBeyond, Volume: e.name, Record: number(n), Text: fmt.Sprintf("the volume ends with record %d", int64(e.records())-1)})
	}
}

// item looks at one item of a leaf, and counts the reference that a record is.
func (c *checker) item(id btree.NodeID, key, value []byte) (t btree.Totals) {
	if c.ctx.Err() != nil {
		return t
	}
	if isItem(key) && (c.walking == nil || c.walking.content == contentObjects) {
		if key[0] == ItemCounted {
			t.Counted = 1
		}
		return t
	}
	f := Finding{Kind: FindRecord, Node: uint64(id), Volume: c.volume()}
	bad := func(kind FindingKind, format string, args ...any) {
		f.Kind, f.Text = kind, fmt.Sprintf(format, args...)
		c.r.add(f)
	}
	n, err := parseKey64(key)
	if err != nil {
		bad(FindRecord, "%v", err)
		return t
	}
	f.Record = &n
	rec, err := format.ParseRecord(value)
	if err != nil {
		bad(FindRecord, "%v", err)
		return t
	}
	t.Bytes = stored(rec)
	f.Address, f.Sectors = uint64(rec.Addr), uint64(format.Sectors(int64(rec.Size)))
	if c.walking != nil && !c.walking.fits(rec) {
		bad(FindRecord, "%d bytes of codec %d in a volume of other records", rec.Size, rec.Codec)
		return t
	}
	if rec.Birth > c.txg {
		bad(FindRecordFuture, "it is of txg %d, after txg %d", rec.Birth, c.txg)
	}
	x := c.chunk(rec.Addr)
	if x == nil || x.Class != format.Data || uint64(rec.Addr-x.Base)+uint64(x.Need(int64(rec.Size))) > uint64(x.Sectors) {
		bad(FindRecordPlace, "its address lies in no chunk of data, or not wholly")
		return t
	}
	f.Chunk = x.ID
	first, err := c.sectors.add(x, rec)
	if err != nil {
		bad(FindRecordOverlap, "%v", err)
		return t
	}
	if !first {
		return t
	}
	c.counter("owner", c.state.nextEntry, rec.Owner)
	c.used[rec.Owner] += stored(rec)
	c.r.Records++
	c.r.Bytes += stored(rec)
	if c.r.Records%1024 == 0 {
		c.progress("records", int64(c.r.Records), 0)
	}
	if c.o.Data {
		c.readRecord(x, rec, f)
	}
	return t
}

// checkTotals compares the bytes that volumes are charged with.
func (c *checker) checkTotals() error {
	for _, e := range c.entries {
		if n := c.used[e.id]; n != e.used {
			c.r.add(Finding{Kind: FindUsed, Volume: e.name, Text: fmt.Sprintf("%d bytes are its own, and it is charged with %d", n, e.used)})
			c.leaks.used(e.id, n-e.used)
		}
	}
	return nil
}
