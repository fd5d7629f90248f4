package meta

// Stats says how much room the metadata takes.
type Stats struct {
	Txg     uint64
	Entries uint64 // keys in all buckets
	MaxSize int64  // that the pages of a file may reach, in bytes: a step below Options.MaxSize
	// Largest is that of the replica with the least room left: a commit fails
	// when one of them is full.
	Largest  ReplicaStats
	Replicas []ReplicaStats // those in use
}

// ReplicaStats is about one file, in bytes.
type ReplicaStats struct {
	Path    string
	Size    int64 // of the file
	Used    int64 // by pages that hold something
	Free    int64 // in pages that can be used again
	Pending int64 // in pages that can be used again when open views are closed
}

// Room returns how much the file can take before it reaches its greatest size.
// A commit takes the pages on the way to each changed key: count a page of
// 4096 bytes for each change, and as many again for branches.
func (s Stats) Room() int64 {
	return max(0, s.MaxSize-s.Largest.Used-s.Largest.Pending)
}

// Stats returns how much room the metadata takes.
func (s *Store) Stats() (Stats, error) {
	p, err := s.hold()
	if err != nil {
		return Stats{}, err
	}
	defer s.release(p)
	st := Stats{Txg: p.rec.txg, Entries: p.rec.entries, MaxSize: s.opts.MaxSize - int64(s.opts.GrowStep)}
	for _, sn := range p.snaps {
		r := ReplicaStats{Path: sn.r.path}
		if info, err := sn.r.file.Stat(); err == nil {
			r.Size = info.Size()
		}
		bolt := sn.r.db.Stats()
		r.Free = int64(bolt.FreePageN) * pageSize
		r.Pending = int64(bolt.PendingPageN) * pageSize
		r.Used = max(0, sn.tx.Size()-r.Free-r.Pending)
		if r.Used+r.Pending >= st.Largest.Used+st.Largest.Pending {
			st.Largest = r
		}
		st.Replicas = append(st.Replicas, r)
	}
	return st, nil
}
