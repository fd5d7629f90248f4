package blockpool

import "sync"

// recordLocks orders the changes of each record: what the intent log has first,
// memory has first. Records share locks; who needs several takes them in
// ascending order, and nobody takes more while holding some.
type recordLocks [256]sync.Mutex

// lock locks records first to end-1 of a volume.
func (l *recordLocks) lock(volume, first, end uint64) (unlock func()) {
	if end-first == 1 {
		m := &l[l.index(volume, first)]
		m.Lock()
		return m.Unlock
	}
	return l.lockAll(volume, span{first, end})
}

// lockAll locks the records of several spans.
func (l *recordLocks) lockAll(volume uint64, spans ...span) (unlock func()) {
	n := uint64(len(l))
	var wanted [len(l)]bool
	for _, s := range spans {
		for i := s.first; i < s.end && i-s.first < n; i++ {
			wanted[l.index(volume, i)] = true // neighbours have different locks, so n of them have all
		}
	}
	for i, w := range wanted {
		if w {
			l[i].Lock()
		}
	}
	return func() {
		for i, w := range wanted {
			if w {
				l[i].Unlock()
			}
		}
	}
}

func (l *recordLocks) index(volume, record uint64) uint64 {
	return (volume*0x9E3779B97F4A7C15 + record) % uint64(len(l))
}

// buffers are spare slices of whole records.
type buffers struct{ pool sync.Pool }

// get returns n bytes of anything.
func (b *buffers) get(n int64) []byte {
	if p, _ := b.pool.Get().(*[]byte); p != nil && int64(cap(*p)) >= n {
		return (*p)[:n]
	}
	return make([]byte, n)
}

// put takes back what get gave.
func (b *buffers) put(p []byte) { b.pool.Put(&p) }
