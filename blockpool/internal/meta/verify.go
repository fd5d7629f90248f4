package meta

import (
	"fmt"
)

// Verify reads all of each replica that is in use, as of the last commit, and
// returns what is wrong with those that are damaged, by path. What it finds the
// event hook learns too, and such a replica should be recopied. It holds a view
// while it runs, one replica after the other.
func (s *Store) Verify() (bad map[string]error, err error) {
	p, err := s.hold()
	if err != nil {
		return nil, err
	}
	defer s.release(p)
	bad = map[string]error{}
	for _, sn := range p.snaps {
		err := guarded(func() error { return sn.verify(p.rec) })
		if err != nil {
			err = fmt.Errorf("meta: %s: %w", sn.r.path, err)
			p.doubt(sn, err)
			bad[sn.r.path] = err
		}
	}
	return bad, nil
}

// verify walks every bucket: pages, order of keys, seals, and the digest, which
// proves that no entry is missing or stale.
func (sn *snapshot) verify(rec record) error {
	f := finding{rec: rec}
	limit := uint64(sn.tx.Size()) / pageSize
	c := checker{finding: &f, guid: rec.guid, used: make([]bool, limit)}
	for _, b := range Buckets() {
		if b == Txg || sn.trees[b].root == 0 && sn.trees[b].inline == nil {
			continue
		}
		if err := c.walk(sn.trees[b], func(leaf page, i int) error { return c.entry(b, leaf, i) }); err != nil {
			return fmt.Errorf("bucket %v: %w", b, err)
		}
	}
	if f.values != nil {
		return f.values
	}
	if c.sum.entries != rec.entries || c.sum.digest != rec.digest {
		return damaged("%d entries with digest %016x, where %d with %016x were committed",
			c.sum.entries, c.sum.digest, rec.entries, rec.digest)
	}
	return nil
}
