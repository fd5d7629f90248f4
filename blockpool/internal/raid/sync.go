package raid

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// A group stands for all writes since the last sync that went to the same
// columns of a chunk with the same success. There are few, however many writes
// there are.
type group struct {
	chunk    *Chunk
	epoch    uint64 // in which the writes began
	used     uint32 // columns that the records have, as bits
	good     uint32 // those that were written
	shadowed uint32 // those whose shadow was written
}

func (g *group) count(column int, shadow, good bool) {
	g.used |= 1 << column
	switch {
	case good && shadow:
		g.shadowed |= 1 << column
	case good:
		g.good |= 1 << column
	}
}

// places yields the devices that were written, with their columns.
func (g *group) places() iter.Seq2[DeviceID, int] {
	return func(yield func(DeviceID, int) bool) {
		for i := range g.chunk.Columns {
			col := &g.chunk.Columns[i]
			if g.good&(1<<i) != 0 && !yield(col.Device, i) {
				return
			}
			if g.shadowed&(1<<i) != 0 && !yield(col.Shadow.Device, i) {
				return
			}
		}
	}
}

// readable tells whether the records can be read when only some devices hold
// what was written to them.
func (g *group) readable(holds func(DeviceID) bool) bool {
	lost := g.used
	for id, column := range g.places() {
		if holds(id) {
			lost &^= 1 << column
		}
	}
	return bits.OnesCount32(lost) <= g.chunk.tolerance()
}

// dirty is what was written and not synced.
type dirty struct {
	mu     sync.Mutex
	groups map[group]struct{}
	extra  map[DeviceID]struct{} // written, but no record depends on it
}

func (d *dirty) add(g group) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.groups == nil {
		d.groups = map[group]struct{}{}
	}
	d.groups[g] = struct{}{}
}

func (d *dirty) touch(id DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.extra == nil {
		d.extra = map[DeviceID]struct{}{}
	}
	d.extra[id] = struct{}{}
}

// take returns what is dirty, which is nothing then.
func (d *dirty) take() *dirty {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := &dirty{groups: d.groups, extra: d.extra}
	d.groups, d.extra = nil, nil
	return taken
}

// peek returns a copy of what is dirty on some devices.
func (d *dirty) peek(ids []DeviceID) *dirty {
	d.mu.Lock()
	defer d.mu.Unlock()
	some := &dirty{groups: maps.Clone(d.groups)}
	maps.DeleteFunc(some.groups, func(g group, _ struct{}) bool {
		for id := range g.places() {
			if slices.Contains(ids, id) {
				return false
			}
		}
		return true
	})
	return some
}

// putBack undoes a take.
func (d *dirty) putBack(taken *dirty) {
	for g := range taken.groups {
		d.add(g)
	}
	for id := range taken.extra {
		d.touch(id)
	}
}

func (d *dirty) devices() []DeviceID {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := maps.Clone(d.extra)
	if ids == nil {
		ids = map[DeviceID]struct{}{}
	}
	for g := range d.groups {
		for id := range g.places() {
			ids[id] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// Touched returns the devices that were written since they were last synced.
func (a *Array) Touched() []DeviceID { return a.dirty.devices() }

// SyncTouched makes durable every write that returned before the call. Devices
// that fail are faulted; it succeeds when each of those writes can be read from
// what remains. When it fails or ctx ends, nothing is forgotten: the writes are
// part of the next SyncTouched, which fails as well if they are lost.
func (a *Array) SyncTouched(ctx context.Context) error {
	if err := a.beginSync(ctx); err != nil {
		return err
	}
	defer a.endSync()
	taken := a.dirty.take()
	if err := a.sync(ctx, taken.devices(), taken); err != nil {
		a.dirty.putBack(taken)
		return err
	}
	return nil
}

// Sync syncs the given devices and no others. Those that fail are faulted; it
// succeeds when each write since the last [Array.SyncTouched] to one of them
// can be read from devices that have not failed. Those writes remain part of
// the next SyncTouched.
func (a *Array) Sync(ctx context.Context, ids ...DeviceID) error {
	if err := a.beginSync(ctx); err != nil {
		return err
	}
	defer a.endSync()
	return a.sync(ctx, ids, a.dirty.peek(ids))
}

func (a *Array) beginSync(ctx context.Context) error {
	select {
	case a.syncing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sync: %w", ctx.Err())
	}
}

func (a *Array) endSync() { <-a.syncing }

// sync syncs devices in parallel and judges what became of the writes.
func (a *Array) sync(ctx context.Context, ids []DeviceID, of *dirty) error {
	type result struct {
		m   *member
		err error
	}
	results := make(chan result, len(ids)) // takes all, also when nobody waits any more
	running := 0
	for _, id := range ids {
		m, state := a.find(id)
		if state != Online {
			continue // what it held is lost, as the judgement below finds
		}
		if mutant.Breaks(mutant.SyncAllDevices) && running > 0 {
			continue
		}
		running++
		if len(ids) == 1 && ctx.Done() == nil {
			results <- result{m, m.dev.Sync()}
			break
		}
		go func() { results <- result{m, m.dev.Sync()} }()
	}
	var failed []result
	for range running {
		select {
		case r := <-results:
			if r.err != nil {
				failed = append(failed, r)
			}
		case <-ctx.Done():
			return fmt.Errorf("sync: %w", ctx.Err())
		}
	}
	a.mu.Lock()
	for _, r := range failed {
		a.faultLocked(r.m)
	}
	lost := a.firstLostLocked(of)
	a.mu.Unlock()
	var causes []error
	for _, r := range failed {
		a.report(r.m, "sync", r.err)
		causes = append(causes, fmt.Errorf("device %d: %w", r.m.id, r.err))
	}
	if lost == nil {
		return nil
	}
	if causes == nil {
		causes = []error{errNotOnline}
	}
	return fmt.Errorf("sync: writes to %v chunk %d may be lost: %w", lost.Profile, lost.ID, errors.Join(causes...))
}

// firstLostLocked returns a chunk with writes that no set of devices holds any
// more, nil if there is none.
func (a *Array) firstLostLocked(of *dirty) *Chunk {
	for g := range of.groups {
		if !g.readable(a.onlineSinceLocked(g.epoch)) {
			return g.chunk
		}
	}
	return nil
}
