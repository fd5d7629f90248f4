package blockpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// A Change tells what became of a record.
type Change uint8

// The changes.
const (
	Written Change = iota + 1 // written, or written anew
	Hole                      // reads as zeros now
)

func (c Change) String() string {
	switch c {
	case Written:
		return "written"
	case Hole:
		return "hole"
	default:
		return fmt.Sprintf("change(%d)", uint8(c))
	}
}

// Delta calls f with the records that are not the same in b as in a, two volumes or
// snapshots, in order: count of them from first on. An a of "" is an empty volume.
// A record that was written anew with what it had is different. What lies behind
// the end of the smaller one counts too. An error of f ends the walk.
//
// The cost is that of the difference: what the two share is not looked at. Volumes
// are looked at as they are on disk, in steps; only a snapshot stays as it is
// meanwhile. It fails with [ErrInvalid] when the record sizes differ, and for datasets,
// of which "lamina dataset diff" tells what differs.
func (p *Pool) Delta(ctx context.Context, a, b string, f func(first, count uint64, c Change) error) error {
	if err := p.delta(ctx, a, b, f); err != nil {
		return fmt.Errorf("delta from %s to %s: %w", a, b, err)
	}
	return nil
}

func (p *Pool) delta(ctx context.Context, a, b string, f func(first, count uint64, c Change) error) error {
	var from *volume
	if a != "" {
		v, err := p.catalogue.hold(a)
		if err != nil {
			return err
		}
		defer v.handles.Add(-1)
		from = v
	}
	to, err := p.catalogue.hold(b)
	if err != nil {
		return err
	}
	defer to.handles.Add(-1)
	for _, v := range []*volume{from, to} {
		if v == nil {
			continue
		}
		if e := v.entry.Load(); e.holdsFiles() {
			return invalidf("%s is a dataset, whose records say little: lamina dataset diff tells which files differ", e.name)
		}
	}
	var run change // not yet told, since it may go on
	tell := func() error {
		if run.count == 0 {
			return nil
		}
		return f(run.first, run.count, run.Change)
	}
	for next := uint64(0); ; {
		var step []change
		step, next, err = p.changes(from, to, next, deltaStep)
		if err != nil {
			return err
		}
		for _, c := range step {
			if c.Change == run.Change && c.first == run.first+run.count {
				run.count += c.count
				continue
			}
			if err := tell(); err != nil {
				return err
			}
			run = c
		}
		if next == 0 {
			return tell()
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// deltaStep is how many differences one step of a walk takes, and with them how
// long it keeps an epoch.
const deltaStep = 8 << 10

// A change is count records from first on that became different in the same way.
type change struct {
	Change
	first, count uint64
	records      []format.Record // where they are now, if they were written
}

// changes returns what is different in to, from record next on: at most that many
// records, and the record to go on with, which is 0 at the end. A from of nil is an
// empty volume.
func (p *Pool) changes(from, to *volume, next uint64, most int) (list []change, rest uint64, err error) {
	x, y := p.pair(from, to)
	defer y.release()
	if x.recordSize != y.entry.recordSize {
		return nil, 0, invalidf("records of %d and of %d bytes cannot be compared", x.recordSize, y.entry.recordSize)
	}
	seen := 0
	err = btree.DiffFrom(y.epoch, x.root, y.entry.root, recordKey(next), func(key, _, now []byte) error {
		n, err := parseKey64(key)
		if err != nil {
			return err
		}
		if seen++; seen > most {
			rest = n
			return errEnough
		}
		c := change{Change: Hole, first: n, count: 1}
		if now != nil {
			rec, err := format.ParseRecord(now)
			if err != nil {
				return fmt.Errorf("record %d: %w", n, err)
			}
			c.Change, c.records = Written, []format.Record{rec}
		}
		if i := len(list) - 1; i >= 0 && list[i].Change == c.Change && list[i].first+list[i].count == n {
			list[i].count++
			list[i].records = append(list[i].records, c.records...)
			return nil
		}
		list = append(list, c)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, rest, err
}

// pair returns the entries of two volumes as they are in one committed state.
func (p *Pool) pair(from, to *volume) (*entry, stand) {
	p.view.RLock()
	defer p.view.RUnlock()
	s := stand{epoch: p.epochs.hold(), entry: to.entry.Load()}
	if from == nil {
		return &entry{recordSize: s.entry.recordSize}, s
	}
	return from.entry.Load(), s
}
