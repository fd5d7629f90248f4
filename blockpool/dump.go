package blockpool

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// Dump writes all of the pool's metadata as text, as of the last durable
// transaction group: what [Restore] needs when every replica is lost. A node that
// trees share is written once, and so is a record. The pool stays in use; what the
// intent log has is not in it, so call [Pool.Sync] before.
func (p *Pool) Dump(ctx context.Context, w io.Writer) error {
	e := p.epochs.hold()
	defer e.release()
	d := newDumper(ctx, e.view, w)
	if err := d.dump(p.guid, e.txg); err != nil {
		return fmt.Errorf("dump pool %s: %w", p.Config().Name, err)
	}
	return nil
}

// A dumper writes a dump. The first error stays.
type dumper struct {
	ctx   context.Context
	src   *meta.View
	w     *bufio.Writer
	hash  *xxhash.Digest
	lines uint64
	line  []byte
	err   error

	counts  *spacemap.Map
	written bitSet // nodes
	again   bitSet // addresses of shared records that were written
}

func newDumper(ctx context.Context, src *meta.View, w io.Writer) *dumper {
	d := &dumper{ctx: ctx, src: src, w: bufio.NewWriterSize(w, 1<<16), hash: xxhash.New(), written: bitSet{}, again: bitSet{}}
	d.counts = spacemap.New(func(seg uint64) ([]byte, error) { return src.Get(meta.Space, key64(seg)) })
	return d
}

// put writes a line.
func (d *dumper) put(word string, attrs []attr) {
	d.line = appendLine(d.line[:0], word, attrs)
	d.lines++
	d.hash.Write(d.line)
	if _, err := d.w.Write(d.line); err != nil && d.err == nil {
		d.err = err
	}
}

func (d *dumper) dump(guid GUID, txg uint64) error {
	version, err := d.version()
	if err != nil {
		return err
	}
	d.put("lamina-dump", []attr{num("version", &version)})
	d.put("pool", poolAttrs(&dumpPool{guid, txg}))
	for _, part := range []func() error{d.config, d.devices, d.chunks, d.rest, d.volumes, d.dead} {
		if err := part(); err != nil {
			return err
		}
		if d.err != nil {
			return d.err
		}
	}
	end := dumpEnd{d.lines, d.hash.Sum64()}
	d.put("end", endAttrs(&end))
	if d.err != nil {
		return d.err
	}
	return d.w.Flush()
}

// version returns the lowest version that has what the pool has, so that a lamina
// that knows of no datasets can restore a pool that never had any.
func (d *dumper) version() (uint64, error) {
	value, err := d.src.Get(meta.Config, []byte(keyConfig))
	if err != nil {
		return 0, err
	}
	c, _, err := unpackConfig(value)
	if err != nil || !c.datasets {
		return 1, err
	}
	return dumpVersion, nil
}

func (d *dumper) config() error {
	value, err := d.src.Get(meta.Config, []byte(keyConfig))
	if err != nil {
		return err
	}
	c, _, err := unpackConfig(value)
	if err != nil {
		return err
	}
	d.put("config", configAttrs(&c))
	if value, err = d.src.Get(meta.Config, []byte(keyState)); err != nil {
		return err
	}
	s, err := unpackState(value)
	if err != nil {
		return err
	}
	d.put("state", stateAttrs(&s))
	return nil
}

func (d *dumper) devices() error {
	return d.src.Scan(meta.Devices, nil, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return err
		}
		st, err := unpackDevice(uint32(id), value)
		if err == nil {
			d.put("device", deviceAttrs(st))
		}
		return err
	})
}

func (d *dumper) chunks() error {
	return d.src.Scan(meta.Chunks, nil, func(_, value []byte) error {
		c, err := raid.ParseChunk(value)
		if err == nil {
			d.put("chunk", chunkAttrs(c))
		}
		return err
	})
}

// plainBuckets have values that nothing else in the metadata refers to; those of
// the configuration that have a line of their own aside, they go over as they are.
var plainBuckets = []meta.Bucket{meta.Config, meta.Events, meta.Props}

// rest writes what has no line of its own.
func (d *dumper) rest() error {
	for _, b := range plainBuckets {
		err := d.src.Scan(b, nil, func(key, value []byte) error {
			if b != meta.Config || string(key) != keyConfig && string(key) != keyState {
				d.put("value", valueAttrs(&dumpValue{b.String(), key, value}))
			}
			return d.err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) volumes() error {
	return scanEntries(d.src, func(e *entry) error {
		if err := d.tree(e.root); err != nil {
			return fmt.Errorf("volume %s: %w", e.name, err)
		}
		d.put("volume", entryAttrs(e))
		return d.err
	})
}

// scanEntries calls f with each entry of the catalogue, by id.
func scanEntries(view *meta.View, f func(e *entry) error) error {
	return view.Scan(meta.Volumes, nil, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return err
		}
		e, err := unpackEntry(id, value)
		if err != nil {
			return err
		}
		return f(e)
	})
}

func (d *dumper) dead() error {
	return d.src.Scan(meta.Dead, nil, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return err
		}
		ids, err := unpackNodeIDs(value)
		if err != nil {
			return err
		}
		for _, node := range ids {
			if err := d.tree(node); err != nil {
				return fmt.Errorf("destroyed tree %d: %w", id, err)
			}
		}
		d.put("dead", deadAttrs(&dumpDead{id, ids}))
		return d.err
	})
}

// tree writes those nodes of a tree that were not written yet.
func (d *dumper) tree(id btree.NodeID) error {
	if id == 0 || !d.written.add(uint64(id)) {
		return nil
	}
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	n, err := loadNode(d.src, id)
	if err != nil {
		return err
	}
	head := dumpNode{id, n.Level(), n.Len(), n.Birth()}
	if n.Level() == 0 {
		d.put("leaf", nodeAttrs(&head))
		return d.items(n)
	}
	for i := range n.Len() {
		if err := d.tree(n.Child(i)); err != nil {
			return err
		}
	}
	d.put("inner", nodeAttrs(&head))
	for i := range n.Len() {
		d.put("child", childAttrs(&dumpItem{child: n.Child(i), key: n.AppendKey(nil, i)}))
	}
	return d.err
}

func (d *dumper) items(n *btree.Node) error {
	for i := range n.Len() {
		key := n.AppendKey(nil, i)
		if isItem(key) {
			d.put("item", itemAttrs(&dumpItem{key: key, value: n.Value(i)}))
			continue
		}
		number, err := parseKey64(key)
		if err != nil {
			return err
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil {
			return err
		}
		refs, err := d.counts.Count(uint64(rec.Addr))
		if err != nil {
			return err
		}
		item := dumpItem{n: number, rec: rec}
		switch {
		case refs < 2:
			d.put("record", recordAttrs(&item))
		case d.again.add(uint64(rec.Addr)):
			d.put("shared", recordAttrs(&item))
		default:
			d.put("again", againAttrs(&item))
		}
	}
	d.counts.Evict(1 << 10)
	return d.err
}

// A bitSet is a set of numbers that lie near each other.
type bitSet map[uint64]*spacemap.Bits

// add puts n into the set, and reports whether it is new there.
func (s bitSet) add(n uint64) bool {
	seg, u := n/segmentUnits, n%segmentUnits
	b := s[seg]
	if b == nil {
		b = &spacemap.Bits{}
		s[seg] = b
	}
	if hasBit(b, u) {
		return false
	}
	setBit(b, u)
	return true
}

// has reports whether n is in the set.
func (s bitSet) has(n uint64) bool {
	b := s[n/segmentUnits]
	return b != nil && hasBit(b, n%segmentUnits)
}
