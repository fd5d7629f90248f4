package blockpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/thinxml"
)

// RestoreThin makes volumes of 64K records from a dm-thin pool: its mappings as
// thin_dump prints them, and its data device. What devices share they share here.
// names says what the volume of a dev_id is to be called, "" to leave it out. A
// volume ends with its last mapped block, since the XML does not know the size of a
// device: see [Pool.Resize].
//
// On an error the volumes that were made stay; the error names the one that is not
// whole, which is removed.
func (p *Pool) RestoreThin(ctx context.Context, xml io.Reader, data io.ReaderAt, names func(devID uint32) string) (err error) {
	t := &thinRestorer{ctx: ctx, p: p, data: data, names: names, holders: map[uint64]holder{}}
	if err := t.run(xml); err != nil {
		return fmt.Errorf("restore from dm-thin: %w", err)
	}
	return nil
}

// A thinRestorer reads one device after the other.
type thinRestorer struct {
	ctx   context.Context
	p     *Pool
	data  io.ReaderAt
	names func(uint32) string

	per     uint64 // records of a block
	done    []*thinVolume
	holders map[uint64]holder // of each block, the first that has it
	buf     []byte
}

// A thinVolume is a device that was read, with its mappings in order.
type thinVolume struct {
	name string
	runs []thinxml.Mapping
	size uint64 // blocks mapped
}

// A holder is a place where a block is.
type holder struct {
	volume *thinVolume
	origin uint64
}

func (t *thinRestorer) run(xml io.Reader) error {
	r, err := thinxml.NewReader(xml, thinxml.Options{})
	if err != nil {
		return err
	}
	sb := r.Superblock()
	if sb.Flags&thinxml.NeedsCheck != 0 {
		return invalidf("the pool needs a check: run thin_check and thin_repair on its metadata first")
	}
	if n := uint64(sb.DataBlockSize) * 512; n == 0 || n%thinBlock != 0 {
		return invalidf("blocks of %d bytes are no multiple of %d", n, thinBlock)
	}
	t.per = uint64(sb.DataBlockSize) * 512 / thinBlock
	t.buf = make([]byte, sb.DataBlockSize*512)
	for {
		dev, err := r.NextDevice()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		v := &thinVolume{name: t.names(dev.ID)}
		for {
			m, err := r.NextMapping()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			v.add(m)
		}
		if v.name == "" {
			continue
		}
		if err := t.volume(v); err != nil {
			return fmt.Errorf("device %d, volume %s: %w", dev.ID, v.name, err)
		}
		t.done = append(t.done, v)
	}
}

// add appends a mapping, to the one before if it goes on there.
func (v *thinVolume) add(m thinxml.Mapping) {
	v.size += m.Length
	if n := len(v.runs); n > 0 {
		if l := &v.runs[n-1]; l.Origin+l.Length == m.Origin && l.Data+l.Length == m.Data {
			l.Length += m.Length
			return
		}
	}
	v.runs = append(v.runs, m)
}

// find returns the data block at origin.
func (v *thinVolume) find(origin uint64) (data uint64, ok bool) {
	i, found := slices.BinarySearchFunc(v.runs, origin, func(m thinxml.Mapping, at uint64) int { return cmp.Compare(m.Origin, at) })
	if !found {
		i--
	}
	if i < 0 || origin-v.runs[i].Origin >= v.runs[i].Length {
		return 0, false
	}
	return v.runs[i].Data + origin - v.runs[i].Origin, true
}

// blocks calls f with each mapping of one block.
func (v *thinVolume) blocks(f func(origin, data uint64) error) error {
	for _, m := range v.runs {
		for i := range m.Length {
			if err := f(m.Origin+i, m.Data+i); err != nil {
				return err
			}
		}
	}
	return nil
}

// volume makes one volume.
func (t *thinRestorer) volume(v *thinVolume) error {
	base := t.base(v)
	end := uint64(1)
	if n := len(v.runs); n > 0 {
		end = v.runs[n-1].Origin + v.runs[n-1].Length
	}
	size := int64(end*t.per) * thinBlock
	var err error
	if base == nil {
		err = t.p.CreateVolume(t.ctx, v.name, size, VolumeOptions{RecordSize: thinBlock})
	} else if err = t.p.Clone(t.ctx, base.name, v.name); err == nil {
		err = t.p.Resize(t.ctx, v.name, size)
		if err == nil {
			err = t.forget(v, base)
		}
	}
	if err != nil {
		if errors.Is(err, ErrExists) {
			return err
		}
		return t.undo(v, err)
	}
	if err := t.fill(v, base); err != nil {
		return t.undo(v, err)
	}
	return nil
}

// undo removes a volume that is not whole.
func (t *thinRestorer) undo(v *thinVolume, err error) error {
	if gone := t.p.Destroy(context.WithoutCancel(t.ctx), v.name); gone != nil && !errors.Is(gone, ErrNotFound) {
		return errors.Join(err, gone)
	}
	return err
}

// base returns the volume with which v shares the most blocks at the same place,
// if those are more than half of what either has: then a clone of it is nearly
// there. Only volumes that hold a block of v, and the last one, are looked at.
func (t *thinRestorer) base(v *thinVolume) (best *thinVolume) {
	candidates := map[*thinVolume]bool{}
	_ = v.blocks(func(_, data uint64) error { // f does not fail
		if h, ok := t.holders[data]; ok {
			candidates[h.volume] = true
		}
		return nil
	})
	if n := len(t.done); n > 0 {
		candidates[t.done[n-1]] = true
	}
	most := uint64(0)
	for _, o := range t.done { // in their order, so that each run chooses alike
		if !candidates[o] {
			continue
		}
		same := uint64(0)
		_ = v.blocks(func(origin, data uint64) error {
			if d, ok := o.find(origin); ok && d == data {
				same++
			}
			return nil
		})
		if same > most && 2*same > min(v.size, o.size) {
			best, most = o, same
		}
	}
	return best
}

// forget discards what a clone has and v has not.
func (t *thinRestorer) forget(v, base *thinVolume) error {
	w, err := t.p.Open(v.name)
	if err != nil {
		return err
	}
	defer w.Close()
	size := int64(t.per) * thinBlock
	return base.blocks(func(origin, _ uint64) error {
		if _, ok := v.find(origin); ok || int64(origin)*size >= w.Size() {
			return nil
		}
		return w.Discard(t.ctx, int64(origin)*size, size)
	})
}

// sharedPerTxg bounds how many records one task takes over from another volume.
const sharedPerTxg = 4096

// fill gives v the blocks that it has not from base: from the volume that holds
// one, else from the data.
func (t *thinRestorer) fill(v, base *thinVolume) error {
	w, err := t.p.Open(v.name)
	if err != nil {
		return err
	}
	defer w.Close()
	var take []reflink
	flush := func() error {
		err := t.p.reflink(t.ctx, v.name, take)
		take = take[:0]
		return err
	}
	size := int64(t.per) * thinBlock
	err = v.blocks(func(origin, data uint64) error {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		if base != nil {
			if d, ok := base.find(origin); ok && d == data {
				return nil
			}
		}
		if h, ok := t.holders[data]; ok {
			for i := range t.per {
				take = append(take, reflink{h.volume.name, h.origin*t.per + i, origin*t.per + i})
			}
			if len(take) >= sharedPerTxg {
				return flush()
			}
			return nil
		}
		t.holders[data] = holder{v, origin}
		if _, err := t.data.ReadAt(t.buf, int64(data)*size); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("data block %d: %w", data, err)
		} else if err != nil {
			return damagedf("data block %d lies beyond the end of the data", data)
		}
		_, err := w.Write(t.ctx, t.buf, int64(origin)*size)
		return err
	})
	if err != nil {
		return err
	}
	return flush()
}

// A reflink is a record that is to be another one's too.
type reflink struct {
	from   string // volume
	record uint64 // of that volume
	to     uint64 // record
}

// reflink gives a volume records that others have, without copying them, in one
// transaction group. The volumes have records of one size.
func (p *Pool) reflink(ctx context.Context, to string, list []reflink) error {
	if len(list) == 0 {
		return nil
	}
	return p.do(ctx, &task{run: func(s *pass) error {
		e := s.named(to)
		if e == nil {
			return ErrNotFound
		}
		for _, l := range list { // before anything is changed
			o := s.peekNamed(l.from)
			if o == nil || o.recordSize != e.recordSize {
				return fmt.Errorf("%s has gone meanwhile: %w", l.from, ErrNotFound)
			}
			if _, ok, err := btree.Get(s.nodes, o.root, recordKey(l.record)); err != nil || !ok {
				return fmt.Errorf("record %d of %s has gone meanwhile: %w", l.record, l.from, cmp.Or(err, ErrBusy))
			}
		}
		tree := btree.Open(s.nodes, s, e.root)
		for _, l := range list {
			o := s.peekNamed(l.from)
			value, ok, err := btree.Get(s.nodes, o.root, recordKey(l.record))
			if o.id == e.id {
				value, ok, err = tree.Get(recordKey(l.record))
			}
			if err == nil && !ok {
				err = damagedf("record %d of %s was there just now", l.record, l.from)
			}
			if err != nil {
				return s.fatal(err)
			}
			if err := s.link(tree, e, l.to, slices.Clone(value)); err != nil {
				return s.fatal(err)
			}
			e.root = tree.Root()
		}
		e.root, e.writtenTxg = tree.Root(), s.g.number
		return nil
	}})
}

// link makes a record that is in use record n of a tree as well.
func (s *pass) link(tree *btree.Tree, e *entry, n uint64, value []byte) error {
	rec, err := format.ParseRecord(value)
	if err != nil {
		return err
	}
	if err := s.p.counts.Retain(uint64(rec.Addr)); err != nil {
		return err
	}
	e.referenced += stored(rec)
	old, err := tree.Put(recordKey(n), value)
	if err != nil || old == nil {
		return err
	}
	return s.drop(e, old)
}
