package blockpool

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// VolumeOptions are what may be said of a new volume; zero values stand for the
// pool's or for no limit. Sizes are in bytes.
type VolumeOptions struct {
	RecordSize  int64 // 4K to 128K, a power of two
	Quota       int64 // limit of what it and its snapshots use
	Refquota    int64 // limit of what it references
	Reservation int64 // kept free for it
}

// maxVolumeSize bounds a virtual size, in bytes, so that no sum of them overflows.
const maxVolumeSize = 1 << 60

// CreateVolume makes a volume of that virtual size, which takes no space yet. It
// fails with [ErrExists], and with [ErrNoSpace] when less of the pool is free
// than its minimum.
func (p *Pool) CreateVolume(ctx context.Context, name string, size int64, o VolumeOptions) error {
	if o.RecordSize == 0 {
		o.RecordSize = p.Config().RecordSize
	}
	err := checkRecordSize(o.RecordSize)
	switch {
	case CheckName(name) != nil:
		err = CheckName(name)
	case size <= 0 || size > maxVolumeSize:
		err = invalidf("size of %d bytes", size)
	case o.Quota < 0 || o.Refquota < 0 || o.Reservation < 0:
		err = invalidf("a limit below 0")
	}
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error {
			if err := s.mayCreate(name, KindVolume, false); err != nil {
				return err
			}
			if err := s.mayReserve(&entry{name: name, recordSize: o.RecordSize}, o.Reservation); err != nil {
				return err
			}
			e := s.newEntry(name, KindVolume)
			e.size, e.recordSize = size, o.RecordSize
			e.quota, e.refquota, e.reservation = o.Quota, o.Refquota, o.Reservation
			return nil
		}})
	}
	return failed("create", name, err)
}

// Snapshot keeps the content of a volume, or of another snapshot, as it is now.
// The name is VOLUME@NAME of a volume that exists. Everything that was written
// before the call is in it.
func (p *Pool) Snapshot(ctx context.Context, from, name string) error {
	volume, snap, err := splitSnapshot(name)
	if err == nil && snap == "" {
		err = invalidf("a snapshot's name is VOLUME@NAME")
	}
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error {
			if s.peekNamed(volume) == nil {
				return fmt.Errorf("volume %s: %w", volume, ErrNotFound)
			}
			return s.share(from, name, KindSnapshot)
		}})
	}
	return failed("snapshot", name, err)
}

// Clone makes a volume with the content that from, a volume or snapshot, has
// now. The two depend on each other in nothing.
func (p *Pool) Clone(ctx context.Context, from, name string) error {
	err := CheckName(name)
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error { return s.share(from, name, KindVolume) }})
	}
	return failed("clone", name, err)
}

// Rollback makes a volume what its snapshot is. Other snapshots stay. It fails
// with [ErrBusy] while the volume is open, and with [ErrInvalid] when the snapshot
// was taken of something with records of another size.
func (p *Pool) Rollback(ctx context.Context, snapshot string) error {
	name, snap, err := splitSnapshot(snapshot)
	if err == nil && snap == "" {
		err = invalidf("a snapshot's name is VOLUME@NAME")
	}
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error { return s.rollback(snapshot, name) }})
	}
	return failed("roll back to", snapshot, err)
}

func (s *pass) rollback(snapshot, name string) error {
	from, e, err := s.pair(snapshot, name)
	if err != nil {
		return err
	}
	if from.content != e.content {
		return invalidf("it is of a %s, and %s is a %s", from.noun(), name, e.noun())
	}
	if from.recordSize != e.recordSize {
		return invalidf("its records have %d bytes, those of the volume %d", from.recordSize, e.recordSize)
	}
	if err := s.unused(e); err != nil {
		return err
	}
	if err := s.nodes.share(from.root); err != nil {
		return err
	}
	s.p.dead.add(s, e.root)
	e.root, e.size, e.referenced, e.objects, e.writtenTxg = from.root, from.size, from.referenced, from.objects, s.g.number
	s.after = append(s.after, func() { s.p.changedAll(e.id) })
	return nil
}

// Promote makes a clone what its origin was: the snapshots of the origin's volume
// up to the origin become the clone's, and that volume becomes a clone of the
// newest of them. Only names change. It fails with [ErrInvalid] for what is not a
// clone of a snapshot.
func (p *Pool) Promote(ctx context.Context, name string) error {
	err := p.do(ctx, &task{run: func(s *pass) error {
		e := s.named(name)
		if e == nil {
			return ErrNotFound
		}
		origin := s.peek(e.origin)
		if origin == nil || origin.kind != KindSnapshot {
			return invalidf("it is no clone of a snapshot")
		}
		parent, _, _ := splitSnapshot(origin.name)
		var moved []*entry
		for _, v := range s.p.catalogue.all() {
			snap := s.peek(v.id)
			if snap == nil || snap.kind != KindSnapshot || !strings.HasPrefix(snap.name, parent+"@") || snap.createdTxg > origin.createdTxg {
				continue
			}
			if s.peekNamed(name+strings.TrimPrefix(snap.name, parent)) != nil {
				return fmt.Errorf("snapshot %s%s: %w", name, strings.TrimPrefix(snap.name, parent), ErrExists)
			}
			moved = append(moved, snap)
		}
		for _, snap := range moved {
			snap = s.change(snap.id)
			snap.name = name + strings.TrimPrefix(snap.name, parent)
		}
		if old := s.named(parent); old != nil {
			e.origin, old.origin = old.origin, origin.id
		} else {
			e.origin = 0
		}
		return nil
	}})
	return failed("promote", name, err)
}

// Rename gives a volume or dataset another name, its snapshots and all that lies below
// along with it, or a snapshot another name of the same volume.
func (p *Pool) Rename(ctx context.Context, from, to string) error {
	oldVolume, oldSnap, err := splitSnapshot(from)
	volume, snap, err2 := splitSnapshot(to)
	switch {
	case err != nil:
	case err2 != nil:
		err = err2
	case (oldSnap == "") != (snap == "") || snap != "" && volume != oldVolume:
		err = invalidf("a snapshot stays one of its volume")
	default:
		err = p.do(ctx, &task{run: func(s *pass) error {
			e := s.named(from)
			if e == nil {
				return ErrNotFound
			}
			return s.rename(e, to)
		}})
	}
	return failed("rename", from, err)
}

// Resize changes the virtual size. What lies beyond a smaller size is gone. It
// fails with [ErrReadOnly] for a snapshot.
func (p *Pool) Resize(ctx context.Context, name string, size int64) error {
	err := p.resize(ctx, name, size)
	return failed("resize", name, err)
}

func (p *Pool) resize(ctx context.Context, name string, size int64) error {
	if size <= 0 || size > maxVolumeSize {
		return invalidf("size of %d bytes", size)
	}
	v, err := p.catalogue.hold(name)
	if err != nil {
		return err
	}
	defer v.handles.Add(-1)
	if v.entry.Load().content != contentBytes {
		return invalidf("it is a dataset: set its refquota")
	}
	if e := v.entry.Load(); e.kind == KindVolume && size < e.size && !mutant.Breaks(mutant.ShrinkZeroes) {
		if err := v.zero(ctx, size, e.size-size); err != nil {
			return err
		}
	}
	return p.do(ctx, &task{run: func(s *pass) error {
		e := s.change(v.id)
		switch {
		case e == nil:
			return ErrNotFound
		case e.kind == KindSnapshot:
			return fmt.Errorf("a snapshot is %w", ErrReadOnly)
		}
		e.size = size
		tree := btree.Open(s.nodes, s, e.root)
		// What was written beyond the new size after it was made zeros above.
		err := s.cut(tree, e, e.records(), math.MaxUint64)
		e.root = tree.Root()
		s.after = append(s.after, func() { p.changedAll(v.id) })
		return s.fatal(err)
	}})
}

// SetLimits changes the limits of a volume; a negative one stays as it is, zero
// is none. A limit below what is in use refuses new data only.
func (p *Pool) SetLimits(ctx context.Context, name string, quota, refquota, reservation int64) error {
	err := p.do(ctx, &task{run: func(s *pass) error {
		e := s.named(name)
		switch {
		case e == nil:
			return ErrNotFound
		case e.kind == KindSnapshot:
			return fmt.Errorf("a snapshot is %w", ErrReadOnly)
		}
		if reservation > e.reservation {
			if err := s.mayReserve(e, reservation); err != nil {
				return err
			}
		}
		for _, l := range []struct {
			p *int64
			v int64
		}{{&e.quota, quota}, {&e.refquota, refquota}, {&e.reservation, reservation}} {
			if l.v >= 0 {
				*l.p = l.v
			}
		}
		return nil
	}})
	return failed("set limits of", name, err)
}

// Destroy removes a volume or snapshot; snapshots and clones of it stay. The
// space comes back in the background. It fails with [ErrBusy] while the volume
// is open, and for a dataset that has others below it.
func (p *Pool) Destroy(ctx context.Context, name string) error {
	err := p.do(ctx, &task{run: func(s *pass) error {
		e := s.named(name)
		if e == nil {
			return ErrNotFound
		}
		if below := s.namesBelow(name); len(below) > 0 {
			return &DependentsError{Name: name, Children: below}
		}
		if err := s.unused(e); err != nil {
			return err
		}
		s.discardEntry(e)
		return nil
	}})
	return failed("destroy", name, err)
}

// share makes a second entry for the content of one. Only the count of its root
// changes.
func (s *pass) share(from, name string, kind Kind) error {
	o := s.peekNamed(from)
	switch {
	case o == nil:
		return fmt.Errorf("%s: %w", from, ErrNotFound)
	case o.receiving != nil:
		return fmt.Errorf("%s is being received: %w", from, ErrBusy)
	}
	if err := s.mayCreate(name, kind, o.holdsFiles()); err != nil {
		return err
	}
	if err := s.nodes.share(o.root); err != nil {
		return err
	}
	e := s.newEntry(name, kind)
	e.origin, e.root, e.size, e.recordSize, e.referenced = o.id, o.root, o.size, o.recordSize, o.referenced
	e.content, e.objects, e.compression = o.content, o.objects, o.compression
	e.writtenTxg = o.writtenTxg
	return nil
}

// named returns the entry of that name as this txg has it, to be changed, or
// nil.
func (s *pass) named(name string) *entry {
	if e := s.peekNamed(name); e != nil {
		return s.change(e.id)
	}
	return nil
}

// peekNamed is named for who only looks.
func (s *pass) peekNamed(name string) *entry {
	for _, e := range s.entries {
		if e != nil && e.name == name {
			return e
		}
	}
	if v := s.p.catalogue.find(name); v != nil {
		if e := s.peek(v.id); e != nil && e.name == name {
			return e
		}
	}
	return nil
}

// peek returns the entry of a volume as this txg has it, for who only looks, or
// nil.
func (s *pass) peek(id uint64) *entry {
	if e, ok := s.entries[id]; ok {
		return e
	}
	if v := s.p.catalogue.get(id); v != nil {
		return v.entry.Load()
	}
	return nil
}

// pair returns a snapshot and its volume.
func (s *pass) pair(snapshot, volume string) (from, e *entry, err error) {
	if from = s.peekNamed(snapshot); from == nil {
		return nil, nil, ErrNotFound
	}
	if e = s.named(volume); e == nil {
		return nil, nil, fmt.Errorf("volume %s: %w", volume, ErrNotFound)
	}
	return from, e, nil
}

// newEntry adds an entry to the catalogue.
func (s *pass) newEntry(name string, kind Kind) *entry {
	s.state.nextEntry++
	e := &entry{id: s.state.nextEntry, guid: newGUID(), name: name, kind: kind, created: time.Now(), createdTxg: s.g.number}
	s.entries[e.id] = e
	return e
}

// mayCreate refuses a name that is taken, and anything new when the pool is
// nearly full.
func (s *pass) mayCreate(name string, kind Kind, files bool) error {
	if err := s.mayName(name, kind, files); err != nil {
		return err
	}
	if !s.p.metadataFits(1) {
		return s.p.noSpace(format.Data)
	}
	free, total := s.p.space.available(format.Data), s.p.space.total(format.Data)
	if least := int64(s.p.Config().MinFree); least > 0 && free*100 < total*least {
		return fmt.Errorf("%d%% of the pool is free, less than the minimum of %d%%: %w", free*100/max(total, 1), least, ErrNoSpace)
	}
	return nil
}

// unused refuses what is open, and keeps it from being opened until this txg is
// durable.
func (s *pass) unused(e *entry) error {
	v := s.p.catalogue.get(e.id)
	if v == nil {
		return nil
	}
	if !s.p.catalogue.claim(v) {
		return fmt.Errorf("it is open: %w", ErrBusy)
	}
	s.after = append(s.after, func() { s.p.catalogue.unclaim(v) })
	return nil
}

// failed says what was to be done to what.
func failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		name = strconv.Quote(name) // it is nothing's name
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}
