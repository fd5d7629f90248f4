package blockpool

import (
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
)

// counted returns what an encoded segment counts per unit.
func counted(seg uint64, value []byte) (count func(u uint64) uint64, err error) {
	m := spacemap.New(func(uint64) ([]byte, error) { return value, nil })
	if _, err := m.Bits(seg); err != nil {
		return nil, err
	}
	return func(u uint64) uint64 {
		n, _ := m.Count(seg*segmentUnits + u) // the segment is loaded
		return n
	}, nil
}

// checkNodes compares the references to nodes with their counts, and finds nodes
// that nothing refers to.
func (c *checker) checkNodes() error {
	segments := map[uint64]bool{}
	isCounted := map[uint64]*spacemap.Bits{}
	err := c.each(meta.NodeMap, func(seg uint64, value []byte) {
		segments[seg] = true
		count, err := counted(seg, value)
		if err != nil || seg > uint64(btree.MaxNodeID)/segmentUnits {
			c.r.add(Finding{Kind: FindSegment, Text: fmt.Sprintf("segment %d of the counts of nodes: %v", seg, err)})
			return
		}
		bits := &spacemap.Bits{}
		isCounted[seg] = bits
		for u := range uint64(segmentUnits) {
			n := count(u)
			if n > 0 {
				setBit(bits, u)
			}
			c.compareNode(seg*segmentUnits+u, n, c.tree.Count(btree.NodeID(seg*segmentUnits+u)))
		}
	})
	if err != nil {
		return err
	}
	for id := range c.tree.Refs() {
		c.r.Nodes++
		c.counter("node", c.state.nextNode, uint64(id))
		if seg := uint64(id) / segmentUnits; !segments[seg] {
			segments[seg] = true
			c.r.add(Finding{Kind: FindSegment, Node: uint64(id), Text: fmt.Sprintf("segment %d of the counts of nodes is missing", seg)})
		}
	}
	return c.eachKey(meta.Nodes, func(id uint64) {
		if c.tree.Count(btree.NodeID(id)) > 0 {
			return
		}
		if bits := isCounted[id/segmentUnits]; bits == nil || !hasBit(bits, id%segmentUnits) {
			c.r.add(Finding{Kind: FindNodeStray, Node: id, Text: "it is stored, and nothing counts it or refers to it"})
			c.leaks.strayNodes = append(c.leaks.strayNodes, id)
		}
	})
}

// eachKey calls f with the keys of a bucket, whatever their values.
func (c *checker) eachKey(b meta.Bucket, f func(n uint64)) error {
	err := c.src.Each(b, func(key, _ []byte, _ error) error {
		if n, err := parseKey64(key); err == nil {
			f(n)
		}
		return c.ctx.Err()
	})
	if c.ctx.Err() != nil {
		return err
	}
	return nil // what cannot be read was met in the trees, or nothing needs it
}

func (c *checker) compareNode(id, have, want uint64) {
	if have == want {
		return
	}
	f := Finding{Node: id, Text: fmt.Sprintf("%d references, counted as %d", want, have)}
	switch {
	case have == 0:
		f.Kind = FindNodeFree
	case want == 0:
		f.Kind = FindNodeLeaked
	case have < want:
		f.Kind = FindNodeCountLow
	default:
		f.Kind = FindNodeCountHigh
	}
	if have > want {
		c.leaks.nodes = append(c.leaks.nodes, surplus{id, have - want})
	}
	c.r.add(f)
}

// checkSectors compares the references to records with the counts of sectors.
// Segments and chunks come in the same order.
func (c *checker) checkSectors() error {
	want := c.segmentsOfChunks()
	next, more := want()
	var lost Finding // neighbouring segments that are missing
	report := func() {
		if lost.Sectors > 0 {
			lost.Text = fmt.Sprintf("%d segments of the counts of sectors are missing, from %d on", lost.Sectors/segmentUnits, lost.Address/segmentUnits)
			c.r.add(lost)
		}
		lost = Finding{}
	}
	missing := func() {
		if at := next * segmentUnits; lost.Sectors == 0 || lost.Address+lost.Sectors != at || lost.Chunk != c.chunkID(next) {
			report()
			lost = Finding{Kind: FindSegment, Chunk: c.chunkID(next), Address: at}
		}
		lost.Sectors += segmentUnits
	}
	var run sectorRun
	done := int64(0)
	err := c.each(meta.Space, func(seg uint64, value []byte) {
		for more && next < seg {
			missing()
			next, more = want()
		}
		if done++; done%64 == 0 {
			c.progress("space", done, 0)
		}
		if !more || next != seg {
			c.r.add(Finding{Kind: FindSegmentStray, Address: seg * segmentUnits, Sectors: segmentUnits, Text: fmt.Sprintf("segment %d of the counts of sectors is that of no chunk", seg)})
			c.leaks.straySegments = append(c.leaks.straySegments, seg)
			return
		}
		next, more = want()
		count, err := counted(seg, value)
		if err != nil {
			c.r.add(Finding{Kind: FindSegment, Chunk: c.chunkID(seg), Address: seg * segmentUnits, Sectors: segmentUnits, Text: fmt.Sprintf("segment %d of the counts of sectors: %v", seg, err)})
			return
		}
		recounted := c.sectors.segments[seg]
		for u := range uint64(segmentUnits) {
			run.compare(c, seg*segmentUnits+u, count(u), recounted.count(u))
		}
	})
	run.report(c)
	for ; err == nil && more; next, more = want() {
		missing()
	}
	report()
	return err
}

func (c *checker) chunkID(seg uint64) uint32 {
	if x := c.chunk(format.Addr(seg * segmentUnits)); x != nil {
		return x.ID
	}
	return 0
}

// segmentsOfChunks returns what yields the segments that there must be, ascending.
func (c *checker) segmentsOfChunks() func() (uint64, bool) {
	i, seg := 0, uint64(0)
	return func() (uint64, bool) {
		for i < len(c.chunks) {
			x := c.chunks[i]
			first, end := uint64(x.Base)/segmentUnits, (uint64(x.Base)+uint64(x.Sectors))/segmentUnits
			seg = max(seg, first)
			if seg < end {
				seg++
				return seg - 1, true
			}
			i++
		}
		return 0, false
	}
}

// A sectorRun gathers neighbours that are wrong in the same way into one finding.
type sectorRun struct {
	kind       FindingKind
	at, n      uint64
	have, want uint64
	chunk      *raid.Chunk
}

// compare looks at one sector.
func (r *sectorRun) compare(c *checker, at, have, want uint64) {
	kind := FindingKind("")
	switch {
	case have == want:
	case have == 0:
		kind = FindSectorsFree
	case want == 0:
		kind = FindSectorsLeaked
	case have < want:
		kind = FindSectorsLow
	default:
		kind = FindSectorsHigh
	}
	if kind == r.kind && (kind == "" || at == r.at+r.n && have == r.have && want == r.want && at < uint64(r.chunk.Base)+uint64(r.chunk.Sectors)) {
		r.n++
		return
	}
	r.report(c)
	*r = sectorRun{kind, at, 1, have, want, c.chunk(format.Addr(at))}
}

func (r *sectorRun) report(c *checker) {
	if r.kind == "" || r.n == 0 {
		return
	}
	f := Finding{Kind: r.kind, Address: r.at, Sectors: r.n, Text: fmt.Sprintf("%d references, counted as %d", r.want, r.have)}
	if r.chunk != nil {
		f.Chunk = r.chunk.ID
		f.Device, f.Offset = c.where(r.chunk, format.Addr(r.at))
	}
	c.r.add(f)
	if r.have > r.want {
		c.leaks.sectors = append(c.leaks.sectors, sectorLeak{r.at, r.n, r.have - r.want, r.want == 0})
	}
}
