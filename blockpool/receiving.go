package blockpool

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// receivingSuffix is behind the name of a volume in the name of the entry that a
// stream for it is received into. Nobody can give a volume or snapshot such a name,
// and it follows the volume when that is renamed.
const receivingSuffix = "@%receiving"

// receiving is what an entry keeps of the stream that is received into it. All
// records below the token's cursor have arrived, in the txg that says so.
type receiving struct {
	token    stream.Token
	target   uint64 // volume that the stream continues; 0 makes a new one
	snapshot string // name that the snapshot will have, without the volume's
	force    bool   // what was written to the volume since is given up
	clone    bool   // the volume is made as a clone of what the stream begins with
}

const receivingVersion = 1

// Tags of its fields on disk.
const (
	receivingToken = iota + 1
	receivingTarget
	receivingSnapshot
	receivingForce
	receivingClone
)

// pack returns the value of an entry's field.
func (r receiving) pack() []byte {
	f := format.NewFields(receivingVersion)
	f.String(receivingToken, r.token.String())
	f.Uint(receivingTarget, r.target)
	f.String(receivingSnapshot, r.snapshot)
	if r.force {
		f.Uint(receivingForce, 1)
	}
	if r.clone {
		f.Uint(receivingClone, 1)
	}
	return f
}

// unpackReceiving is the inverse of pack.
func unpackReceiving(b []byte) (r receiving, err error) {
	var force, clone uint64
	err = format.ParseFields(b, receivingVersion, func(f format.Field) (err error) {
		switch f.Tag {
		case receivingToken:
			if r.token, err = stream.ParseToken(f.String()); err != nil {
				err = damagedf("%v", err)
			}
			return err
		case receivingTarget:
			return f.Uint(&r.target)
		case receivingSnapshot:
			r.snapshot = f.String()
			return nil
		case receivingForce:
			return f.Uint(&force)
		case receivingClone:
			return f.Uint(&clone)
		default:
			return f.Unknown()
		}
	})
	r.force, r.clone = force != 0, clone != 0
	if err == nil && (r.token == stream.Token{} || r.snapshot == "") {
		err = damagedf("no token or name")
	}
	if err != nil {
		return receiving{}, fmt.Errorf("state of a stream that is received: %w", err)
	}
	return r, nil
}

// ReceiveToken returns the token with which the sender goes on with a stream for a
// volume that was cut off, see [Pool.SendResume]. It fails with [ErrNotFound] when
// there is none.
func (p *Pool) ReceiveToken(volume string) (string, error) {
	v := p.catalogue.find(volume + receivingSuffix)
	if v == nil {
		return "", fmt.Errorf("stream for %s that was cut off: %w", volume, ErrNotFound)
	}
	r, err := unpackReceiving(v.entry.Load().receiving)
	return r.token.String(), err
}

// AbortReceive gives up what has arrived of a stream for a volume that was cut off.
// It fails with [ErrNotFound] when there is none, and with [ErrBusy] while it is
// arriving.
func (p *Pool) AbortReceive(ctx context.Context, volume string) error {
	err := p.do(ctx, &task{run: func(s *pass) error {
		e := s.named(volume + receivingSuffix)
		if e != nil {
			if err := s.unused(e); err != nil {
				return err
			}
		}
		return s.giveUp(e)
	}})
	return failed("abort receiving", volume, err)
}

// giveUp removes what was received into; e may be nil.
func (s *pass) giveUp(e *entry) error {
	if e == nil {
		return ErrNotFound
	}
	s.p.dead.add(s, e.root)
	s.entries[e.id] = nil
	return nil
}

// receiveInto makes the entry that a stream is received into, unless a part of the
// stream is there already.
func (s *pass) receiveInto(h stream.Header, volume, snap string, o ReceiveOptions) error {
	if e := s.peekNamed(volume + receivingSuffix); e != nil {
		return continues(e, h)
	}
	if h.Resume != 0 {
		return fmt.Errorf("the stream goes on at record %d, and nothing of it is here: %w", h.Resume, ErrNotFound)
	}
	target, base, err := s.receiveBase(h.Token(0), h.FromName, volume, o)
	if err == nil {
		err = s.mayName(volume+"@"+snap, KindSnapshot, h.Dataset)
	}
	if err == nil {
		err = s.mayCreate(volume+receivingSuffix, KindSnapshot, h.Dataset)
	}
	if err != nil {
		return err
	}
	r := receiving{token: h.Token(0), snapshot: snap, force: o.Force, clone: base != nil && target == nil}
	if base != nil {
		if err := s.nodes.share(base.root); err != nil {
			return err
		}
	}
	e := s.newEntry(volume+receivingSuffix, KindVolume)
	e.size, e.recordSize = int64(h.Size), int64(h.RecordSize)
	if h.Dataset {
		e.content = contentObjects
	}
	if target == nil {
		e.quota, e.refquota = o.Quota, o.Refquota
	} else {
		r.target = target.id
	}
	if base != nil {
		e.origin, e.root, e.referenced, e.objects, e.writtenTxg = base.id, base.root, base.referenced, base.objects, base.writtenTxg
		if err := s.fatal(s.cutBehind(e)); err != nil {
			return err
		}
	}
	// Crash from here on: an entry that nobody can open, to go on with or to give up.
	e.receiving = r.pack()
	return nil
}

// continues refuses a stream that is not the rest of what has arrived. One that
// begins earlier brings the same once more.
func continues(e *entry, h stream.Header) error {
	r, err := unpackReceiving(e.receiving)
	if err == nil && (h.Resume > r.token.Cursor || h.Token(r.token.Cursor) != r.token) {
		err = fmt.Errorf("a stream was cut off at record %d: go on with it there, or give it up first: %w", r.token.Cursor, ErrBusy)
	}
	return err
}

// receiveBase returns the volume that a stream continues and the snapshot that it
// begins with, which must be as the sender knows it: nothing for a full stream.
func (s *pass) receiveBase(t stream.Token, fromName, volume string, o ReceiveOptions) (target, base *entry, err error) {
	target = s.peekNamed(volume)
	switch {
	case o.Origin != "":
		base, err = s.receiveOrigin(t, target, volume, o.Origin)
		return nil, base, err
	case t.From == stream.ID{} && target != nil:
		return nil, nil, fmt.Errorf("%s %s: a full stream makes a new one: %w", target.noun(), volume, ErrExists)
	case t.From == stream.ID{}:
		return nil, nil, s.mayReceiveNew(volume, t.Dataset)
	case target == nil:
		return nil, nil, fmt.Errorf("%s %s, which must have snapshot %s (guid %v): %w", nounOf(t.Dataset), volume, fromName, GUID(t.From), ErrNotFound)
	case target.holdsFiles() != t.Dataset:
		return nil, nil, invalidf("%s is a %s, and the stream is of a %s", volume, target.noun(), nounOf(t.Dataset))
	case target.recordSize != int64(t.RecordSize):
		return nil, nil, invalidf("the stream has records of %d bytes and %s %s of %d", t.RecordSize, target.noun(), volume, target.recordSize)
	}
	if err := s.still(target); err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", target.noun(), volume, err)
	}
	var newest *entry
	for _, e := range s.snapshotsOf(volume) {
		if e.guid == GUID(t.From) {
			base = e
		}
		if newest == nil || e.createdTxg > newest.createdTxg || e.createdTxg == newest.createdTxg && e.id > newest.id {
			newest = e
		}
	}
	switch {
	case base == nil:
		err = fmt.Errorf("%s %s lacks snapshot %s (guid %v), with which the stream begins: %w", target.noun(), volume, fromName, GUID(t.From), ErrNotFound)
	case o.Force:
	case base != newest:
		err = fmt.Errorf("the stream begins with %s (guid %v), and the newest snapshot is %s: %w", base.name, base.guid, newest.name, ErrExists)
	case target.root != base.root || target.size != base.size:
		err = fmt.Errorf("%s %s has changed since snapshot %s: %w", target.noun(), volume, base.name, ErrBusy)
	}
	return target, base, err
}

// receiveOrigin returns the snapshot of which a stream makes a clone.
func (s *pass) receiveOrigin(t stream.Token, target *entry, volume, origin string) (*entry, error) {
	base := s.peekNamed(origin)
	switch {
	case t.From == stream.ID{}:
		return nil, invalidf("the stream is a full one: what it makes is no clone of %s", origin)
	case target != nil:
		return nil, fmt.Errorf("%s %s: a clone is a new one: %w", target.noun(), volume, ErrExists)
	case base == nil || base.kind != KindSnapshot:
		return nil, fmt.Errorf("snapshot %s: %w", origin, ErrNotFound)
	case base.guid != GUID(t.From):
		return nil, fmt.Errorf("the stream begins with the snapshot that has guid %v, and %s has %v: %w", GUID(t.From), origin, base.guid, ErrNotFound)
	case base.holdsFiles() != t.Dataset || base.recordSize != int64(t.RecordSize):
		return nil, invalidf("%s is of a %s with records of %d bytes, and the stream of a %s with %d", origin, base.noun(), base.recordSize, nounOf(t.Dataset), t.RecordSize)
	}
	return base, s.mayReceiveNew(volume, t.Dataset)
}

// mayReceiveNew refuses a name that a stream cannot make a volume or dataset of.
func (s *pass) mayReceiveNew(name string, files bool) error {
	if err := s.mayName(name, KindVolume, files); err != nil || !files {
		return err
	}
	missing, err := s.missingAbove(name)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s, above it: %w", missing[len(missing)-1], ErrNotFound)
	}
	return err
}

// still refuses a volume that is open, or has changes that are for the next txg.
func (s *pass) still(e *entry) error {
	if err := s.unused(e); err != nil {
		return err
	}
	v := s.p.catalogue.get(e.id)
	if v == nil {
		return nil
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.open != nil {
		return fmt.Errorf("it was written to a moment ago: %w", ErrBusy)
	}
	return nil
}

// snapshotsOf returns the snapshots of a volume as this txg has them.
func (s *pass) snapshotsOf(volume string) (list []*entry) {
	for _, e := range s.all() {
		if e.kind == KindSnapshot && strings.HasPrefix(e.name, volume+"@") {
			list = append(list, e)
		}
	}
	return list
}

// cutBehind removes records behind the size of a volume.
func (s *pass) cutBehind(e *entry) error {
	if e.holdsFiles() {
		return nil
	}
	tree := btree.Open(s.nodes, s, e.root)
	err := s.cut(tree, e, e.records(), math.MaxUint64)
	e.root = tree.Root()
	return err
}

// publishReceived makes what has arrived a snapshot, and its volume what the
// snapshot is, in one txg.
func (s *pass) publishReceived(id uint64) error {
	e := s.change(id)
	if e == nil {
		return ErrNotFound
	}
	r, err := unpackReceiving(e.receiving)
	if err != nil {
		return err
	}
	volume := strings.TrimSuffix(e.name, receivingSuffix)
	var target *entry
	if !r.clone {
		target, _, err = s.receiveBase(r.token, "", volume, ReceiveOptions{Force: r.force})
	} else if err = s.mayReceiveNew(volume, r.token.Dataset); err == nil && s.peekNamed(volume) != nil {
		err = fmt.Errorf("%s: a clone is a new one: %w", volume, ErrExists)
	}
	switch {
	case err != nil:
		return err
	case target != nil && target.id != r.target:
		return fmt.Errorf("%s %s is another one now: %w", target.noun(), volume, ErrExists)
	}
	if err := s.mayName(volume+"@"+r.snapshot, KindSnapshot, r.token.Dataset); err != nil {
		return err
	}
	if err := s.nodes.share(e.root); err != nil {
		return err
	}
	snap := e
	if target == nil {
		snap = s.newEntry(volume+"@"+r.snapshot, KindSnapshot)
		snap.root, snap.size, snap.recordSize, snap.referenced, snap.writtenTxg = e.root, e.size, e.recordSize, e.referenced, e.writtenTxg
		snap.content, snap.objects, snap.origin = e.content, e.objects, e.id
		e.name = volume
		s.refresh(volume)
		snap.compression = e.compression
	} else {
		target = s.change(target.id)
		s.p.dead.add(s, target.root)
		target.root, target.size, target.referenced, target.objects, target.writtenTxg = e.root, e.size, e.referenced, e.objects, s.g.number
		s.after = append(s.after, func() { s.p.changedAll(target.id) })
		e.name, e.kind, e.origin, e.compression = volume+"@"+r.snapshot, KindSnapshot, target.id, target.compression
		e.created, e.createdTxg = time.Now(), s.g.number
	}
	e.receiving, snap.guid = nil, GUID(r.token.To)
	return nil
}
