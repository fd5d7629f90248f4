package blockpool

import (
	"context"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// leaks is what a check found to be counted and not used. Nothing that a pool does
// changes by how much a count is too high, so what was found in one transaction
// group can be freed in a later one.
type leaks struct {
	nodes         []surplus
	strayNodes    []uint64
	sectors       []sectorLeak
	straySegments []uint64
	usedBy        map[uint64]int64 // what the bytes in use are to change by
	referencedBy  map[uint64]int64
	objectsBy     map[uint64]int64
}

// surplus is by how many references a node is counted too often.
type surplus struct{ id, n uint64 }

// A sectorLeak is n sectors from at of which each is counted surplus times too
// often; whole says that nothing refers to them.
type sectorLeak struct {
	at, n, surplus uint64
	whole          bool
}

func (l *leaks) used(id uint64, delta int64) {
	if l.usedBy == nil {
		l.usedBy = map[uint64]int64{}
	}
	l.usedBy[id] += delta
}

func (l *leaks) referenced(id uint64, delta int64) {
	if l.referencedBy == nil {
		l.referencedBy = map[uint64]int64{}
	}
	l.referencedBy[id] += delta
}

func (l *leaks) objects(id uint64, delta int64) {
	if l.objectsBy == nil {
		l.objectsBy = map[uint64]int64{}
	}
	l.objectsBy[id] += delta
}

// freeLeaks frees what a check found, in one transaction group: after a crash all
// of it is free, or none.
func (p *Pool) freeLeaks(ctx context.Context, l *leaks, r *Report) error {
	return p.do(ctx, &task{run: func(s *pass) error { return s.fatal(s.freeLeaks(l, r)) }})
}

func (s *pass) freeLeaks(l *leaks, r *Report) error {
	for _, n := range l.nodes {
		for range n.n {
			if err := s.nodes.Release(btree.NodeID(n.id)); err != nil {
				return fmt.Errorf("node %d: %w", n.id, err)
			}
		}
		r.FreedNodes++
	}
	for _, id := range l.strayNodes {
		s.nodes.private[btree.NodeID(id)] = nil
		r.FreedNodes++
	}
	for _, x := range l.sectors {
		if err := s.freeSectors(x); err != nil {
			return fmt.Errorf("sectors %d+%d: %w", x.at, x.n, err)
		}
		if x.whole {
			r.FreedBytes += int64(x.n) * format.SectorSize
		}
	}
	for _, seg := range l.straySegments {
		s.batch.Delete(meta.Space, key64(seg))
	}
	for id, n := range l.usedBy {
		if e := s.change(id); e != nil {
			e.used += n
		}
	}
	for id, n := range l.referencedBy {
		if e := s.change(id); e != nil {
			e.referenced += n
		}
	}
	for id, n := range l.objectsBy {
		if e := s.change(id); e != nil {
			e.objects += uint64(n)
		}
	}
	return nil
}

// freeSectors takes the surplus off each sector. A surplus at one that is in use
// can have become the last reference meanwhile.
func (s *pass) freeSectors(x sectorLeak) error {
	for at := x.at; at < x.at+x.n; at++ {
		for range x.surplus {
			left, err := s.p.counts.Release(at, 1)
			if err != nil {
				return err
			}
			if left == 0 {
				s.freed = append(s.freed, extent{format.Addr(at), 1})
			}
		}
	}
	return nil
}
