package blockpool

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// syncOpen closes the open txg and makes it durable. After an error nothing of
// it is, what was flushed is in the log, and the pool must not go on.
func (p *Pool) syncOpen() error {
	if p.idle() && !p.dead.pending() {
		return nil
	}
	g := p.closeOpen() // from here changes go to the next txg
	s := p.newPass(g)
	// Crash up to commit: the txg before, whole, and the log.
	if err := s.writeRecords(); err != nil {
		return fmt.Errorf("txg %d: write records: %w", g.number, err)
	}
	if !mutant.Breaks(mutant.SyncBeforeCommit) {
		if err := p.array.SyncTouched(context.Background()); err != nil {
			return fmt.Errorf("txg %d: flush devices: %w", g.number, err)
		}
	}
	if err := s.apply(); err != nil {
		return fmt.Errorf("txg %d: %w", g.number, err)
	}
	if mutant.Breaks(mutant.CommitBeforePublish) {
		close(g.done)
		time.Sleep(time.Millisecond)
	}
	if err := s.commit(); err != nil {
		return fmt.Errorf("txg %d: commit: %w", g.number, err)
	}
	// Crash from here on: this txg, whole.
	return s.publish()
}

// closeOpen sends new changes to the next txg.
func (p *Pool) closeOpen() *txg {
	p.gate.Lock()
	defer p.gate.Unlock()
	g := p.open
	g.tasks = append(g.tasks, p.takeLater()...)
	p.syncingRecords.Store(g.records.Load())
	p.open = newTxg(g.number + 1)
	for _, v := range g.volumes {
		v.mu.Lock()
		v.syncing, v.open = v.open, nil
		v.mu.Unlock()
	}
	close(g.closed)
	return g
}

// A pass makes one txg durable. It changes copies of its own, which readers do
// not see before publish.
type pass struct {
	p     *Pool
	g     *txg
	batch meta.Batch
	state state
	nodes *nodePass

	entries map[uint64]*entry      // changed; nil: removed
	changed *Config                // nil: unchanged
	props   local                  // the pool's own properties; nil: unchanged
	used    map[uint64]int64       // change of the bytes in use, by owner
	freed   []extent               // that the txg before named and this one does not
	chunks  []*chunk               // made
	moved   []*chunk               // lie elsewhere: in place of those of the same base
	gone    []*chunk               // removed
	after   []func()               // run when readers see the txg
	over    []func()               // run when nobody knows the state before any more
	into    []btree.NodeID         // leaves that older records have moved to
	devices map[uint32]deviceState // changed
	left    []uint32               // devices that the pool has no more
	broken  error                  // a task has left a tree or count half changed
}

func (p *Pool) newPass(g *txg) *pass {
	s := &pass{p: p, g: g, state: p.state, entries: map[uint64]*entry{}, used: map[uint64]int64{}}
	s.nodes = newNodePass(s)
	return s
}

// writeRecords writes what is only in memory to the addresses that it was
// given, in their order.
func (s *pass) writeRecords() error {
	var jobs []*recordJob
	for _, v := range s.g.volumes {
		for _, r := range v.syncing.records {
			if r.buf != nil {
				jobs = append(jobs, &recordJob{v: v, r: r})
			}
		}
	}
	slices.SortFunc(jobs, func(a, b *recordJob) int { return cmp.Compare(a.r.at, b.r.at) })
	for some := range slices.Chunk(jobs, packedTogether) {
		encodeAll(some)
		for _, j := range some {
			if err := s.writeRecord(j); err != nil {
				return err
			}
		}
	}
	return nil
}

// packedTogether is how many records are packed side by side before they are
// written: it bounds the memory for what was packed.
const packedTogether = 64

// A recordJob is a record that is to be written.
type recordJob struct {
	v *volume
	r *dirtyRecord
	packedRecord
}

func (j *recordJob) encode() { j.codec, j.stored = j.v.entry.Load().encode(j.r.buf) }

// encodeAll packs records.
func encodeAll(jobs []*recordJob) {
	packs := slices.ContainsFunc(jobs, func(j *recordJob) bool { return j.v.entry.Load().compression != CompressionOff })
	sideBySide(packs, len(jobs), func(i int) { jobs[i].encode() })
}

func (s *pass) writeRecord(j *recordJob) error {
	r := j.r
	r.rec = j.v.record(r.at, j.codec, j.stored)
	r.rec.Birth = s.g.number
	if err := s.p.writeStored(r.rec, j.stored); err != nil {
		return err
	}
	if mutant.Breaks(mutant.KeepCodec) {
		r.rec.Codec = format.Plain
	}
	if rest := s.p.space.surplus(r.at, r.admitted, int64(len(j.stored))); rest.n > 0 && !mutant.Breaks(mutant.FreeSurplus) {
		s.g.supersede(rest)
	}
	return nil
}

// apply brings trees, maps and catalogue up to date, and gathers what is to be
// committed.
func (s *pass) apply() error {
	if mutant.Breaks(mutant.WritesBeforeTasks) {
		s.runTasks()
		s.g.tasks = nil
	}
	for _, v := range s.g.volumes {
		if err := s.applyVolume(v); err != nil {
			return fmt.Errorf("volume %s: %w", v.entry.Load().name, err)
		}
	}
	s.runTasks()
	if mutant.Breaks(mutant.ItemsBeforeTasks) {
		for _, v := range s.g.volumes {
			if err := s.applyItems(v); err != nil {
				return err
			}
		}
	}
	if s.broken != nil {
		return s.broken
	}
	if err := s.bury(); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	if err := s.makeChunks(); err != nil {
		return fmt.Errorf("make chunks: %w", err)
	}
	return s.gather()
}

func (s *pass) runTasks() {
	for _, t := range s.g.tasks {
		t.err = t.run(s)
	}
}

// applyVolume puts what a volume has changed into its tree.
func (s *pass) applyVolume(v *volume) error {
	e := s.change(v.id)
	if e == nil { // destroyed since
		for _, r := range v.syncing.records {
			s.g.superseded = append(s.g.superseded, s.p.space.extent(r.at, int64(r.rec.Size)))
		}
		return nil
	}
	tree := btree.Open(s.nodes, s, e.root)
	holes := func() error {
		for _, h := range v.syncing.holes {
			if err := s.cut(tree, e, h.first, h.end); err != nil {
				return err
			}
		}
		return nil
	}
	if !mutant.Breaks(mutant.HolesBeforeRecords) {
		if err := holes(); err != nil {
			return err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(v.syncing.records)) {
		r := v.syncing.records[n]
		if n >= e.records() { // the volume has shrunk since
			s.g.superseded = append(s.g.superseded, s.p.space.extent(r.at, int64(r.rec.Size)))
			continue
		}
		if err := s.put(tree, e, n, r.rec); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
	}
	if mutant.Breaks(mutant.HolesBeforeRecords) {
		if err := holes(); err != nil {
			return err
		}
	}
	e.root, e.writtenTxg = tree.Root(), s.g.number
	if mutant.Breaks(mutant.ItemsBeforeTasks) {
		return nil
	}
	return s.applyItems(v)
}

// applyItems puts the items that a dataset has changed into its tree.
func (s *pass) applyItems(v *volume) error {
	e := s.change(v.id)
	if e == nil || v.syncing.items.Len() == 0 {
		return nil
	}
	tree := btree.Open(s.nodes, s, e.root)
	if err := s.putItems(tree, e, &v.syncing.items); err != nil {
		return err
	}
	e.root = tree.Root()
	return nil
}

// put makes rec the record n of a tree.
func (s *pass) put(tree *btree.Tree, e *entry, n uint64, rec format.Record) error {
	x := s.p.space.extent(rec.Addr, int64(rec.Size))
	if err := s.p.counts.Set(uint64(x.at), uint64(x.n)); err != nil {
		return err
	}
	s.used[rec.Owner] += stored(rec)
	e.referenced += stored(rec)
	old, err := tree.Put(recordKey(n), format.AppendRecord(nil, rec))
	if err != nil || old == nil {
		return err
	}
	return s.drop(e, old)
}

// cut removes records first to end-1 of a tree.
func (s *pass) cut(tree *btree.Tree, e *entry, first, end uint64) error {
	return tree.DeleteRange(recordKey(first), recordKey(end), func(_, value []byte) error { return s.drop(e, value) })
}

// change returns the entry of a volume to be changed, or nil when there is none.
func (s *pass) change(id uint64) *entry {
	if e, ok := s.entries[id]; ok {
		return e
	}
	v := s.p.catalogue.get(id)
	if v == nil {
		return nil
	}
	e := *v.entry.Load()
	s.entries[id] = &e
	return &e
}

// gather puts what has changed into the batch.
func (s *pass) gather() error {
	for id, n := range s.used {
		if e := s.change(id); e != nil && n != 0 {
			e.used += n
		}
	}
	for id, e := range s.entries {
		if e == nil {
			s.batch.Delete(meta.Volumes, key64(id))
		} else {
			s.batch.Put(meta.Volumes, key64(id), e.pack())
		}
	}
	s.noteFeatures()
	s.nodes.gather(&s.batch)
	s.p.counts.TakeDirty(s.saveSegment(meta.Space))
	s.batch.Put(meta.Config, []byte(keyState), s.state.pack())
	s.noteFaulted()
	s.p.tours.gather(s)
	s.p.events.gather(s)
	return nil
}

// commit hands the batch to the replicas. One that fails is left behind; the
// labels say so before anything that this txg freed is used again, so that it is
// never taken for the pool's metadata.
func (s *pass) commit() error {
	before := len(s.p.meta.Failed())
	err := s.p.tune.commit(func() error { return s.p.meta.Commit(s.g.number, &s.batch) })
	if err != nil {
		return err
	}
	if len(s.p.meta.Failed()) != before && !mutant.Breaks(mutant.LabelsAfterReplicaLost) {
		return s.p.writeLabels(s.g.number)
	}
	return nil
}

// publish lets readers see the txg, and gives back what it has freed when the
// last reader of the state before is done.
func (s *pass) publish() error {
	p := s.p
	view, err := p.meta.View()
	if err != nil {
		return fmt.Errorf("txg %d: read what was committed: %w", s.g.number, err)
	}
	p.nodes.install(s.nodes)
	p.state = s.state
	for _, c := range s.chunks {
		p.space.add(c)
	}
	s.publishMoves()
	if len(s.chunks)+len(s.moved)+len(s.gone) > 0 {
		p.updateRoom()
	}
	p.tours.lastNode.Store(s.state.nextNode)
	p.view.Lock()
	for id, e := range s.entries {
		if e == nil {
			p.catalogue.remove(id)
		} else {
			p.catalogue.set(p, e)
		}
	}
	p.space.promise(p.catalogue.settle(s.entries))
	for _, v := range s.g.volumes {
		v.mu.Lock()
		v.pending.Add(-v.syncing.admitted())
		v.syncing = nil
		v.mu.Unlock()
	}
	freed := append(s.freed, s.g.superseded...)
	if mutant.Breaks(mutant.FreeSuperseded) {
		freed = s.freed
	}
	if mutant.Breaks(mutant.FreeAfterReaders) {
		p.releaseFreed(freed)
		freed = nil
	}
	over := p.epochs.advance(&epoch{txg: s.g.number, view: view, pool: p}, freed, s.over...)
	p.view.Unlock()
	p.tours.note(s.into)
	p.epochs.end(over)
	if p.log != nil {
		p.log.Release(s.g.number)
	}
	for _, f := range s.after {
		f()
	}
	for _, t := range s.g.tasks {
		if t.err == nil && t.then != nil {
			t.then()
		}
	}
	if err := p.measureMetadata(); err != nil {
		return fmt.Errorf("txg %d: measure the metadata: %w", s.g.number, err)
	}
	if !mutant.Breaks(mutant.CommitBeforePublish) {
		close(s.g.done)
	}
	p.events.watermarks(p)
	return nil
}

// fatal notes an error that leaves something half changed: the txg is given up.
func (s *pass) fatal(err error) error {
	if err != nil && s.broken == nil {
		s.broken = err
	}
	return err
}

// key64 is a number as key: big-endian, so that keys sort as numbers do.
func key64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// parseKey64 is the inverse of key64.
func parseKey64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, damagedf("key of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// saveSegment returns what puts a segment of a space map into the batch, or takes
// it out when it is nil.
func (s *pass) saveSegment(b meta.Bucket) func(seg uint64, value []byte) {
	return func(seg uint64, value []byte) {
		if value == nil {
			s.batch.Delete(b, key64(seg))
		} else {
			s.batch.Put(b, key64(seg), value)
		}
	}
}
