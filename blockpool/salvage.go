package blockpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// lostFound is below which repair names what has lost its name.
const lostFound = "lost-found"

// A salvager takes from damaged metadata what makes sense: each tree without the
// nodes and records that do not, counted anew. It changes nothing.
type salvager struct {
	ctx    context.Context
	src    metadata
	guid   GUID
	txg    uint64 // of src
	verify bool   // read every record

	config  Config
	state   state
	states  []*deviceState
	devices []*device
	array   *raid.Array
	chunks  []*raid.Chunk
	entries []*entry
	values  []dumpValue

	memo      map[btree.NodeID]*salvaged
	sectors   *recount
	conflicts bitSet // sectors that several records claim
	gathering bool   // conflicts are being looked for
	used      map[uint64]int64
	latest    uint64 // transaction group that anything says it is of
	walking   *entry // whose tree is walked

	lostLog aLostLog
	newLog  *raid.Chunk     // in the place of a log that is lost
	holds   map[uint32]bool // chunks of which something is in use

	hurt        map[uint64]bool // datasets of whose trees nodes are lost
	losses      []string
	notes       []string // what may be lost, and cannot be known
	lostNodes   int
	lostRecords int
	unnamed     bool // trees may be there that no entry names
}

// salvaged is what became of a node.
type salvaged struct {
	gone         bool
	node         *btree.Node // instead of the one that is stored; nil: that one
	level        int
	btree.Totals // of what is below it

	// What a tree holds says what its records may be, so a node is for trees of one
	// kind.
	content content
	unit    int64
}

func (s *salvager) lose(format string, args ...any) {
	s.losses = append(s.losses, fmt.Sprintf(format, args...))
}

// each calls f with the whole values of a bucket, and says what is lost of it.
func (s *salvager) each(b meta.Bucket, f func(key, value []byte) error) {
	err := s.src.Each(b, func(key, value []byte, damage error) error {
		if damage == nil {
			damage = f(key, value)
		}
		if damage != nil {
			s.lose("%v, key %x: %v", b, key, damage)
		}
		return nil
	})
	if err != nil {
		s.lose("%v: %v", b, err)
	}
}

// read takes everything but trees. The devices that labels tell of are there for
// what the metadata has lost of them.
func (s *salvager) read(labels []*device, storage Storage, search []string) error {
	s.each(meta.Devices, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return err
		}
		st, err := unpackDevice(uint32(id), value)
		if err == nil {
			s.states = append(s.states, st)
		}
		return err
	})
	for _, l := range labels {
		if !slices.ContainsFunc(s.states, func(st *deviceState) bool { return st.id == l.id }) {
			s.states = append(s.states, l.state.Load())
		}
	}
	s.devices = openDevices(s.states, s.guid, storage, search)
	s.array = raid.New(raid.Hooks{})
	for _, d := range s.devices {
		if d.dev != nil {
			s.array.Add(raid.DeviceID(d.id), lookOnly{d.dev})
		}
	}
	s.readChunks()
	s.findLog()
	s.readConfig()
	s.readEntries()
	for _, b := range plainBuckets {
		s.each(b, func(key, value []byte) error {
			if b != meta.Config || string(key) != keyConfig && string(key) != keyState {
				s.values = append(s.values, dumpValue{b.String(), bytes.Clone(key), bytes.Clone(value)})
			}
			return nil
		})
	}
	return nil
}

func (s *salvager) readChunks() {
	logs := 0
	s.each(meta.Chunks, func(key, value []byte) error {
		base, err := parseKey64(key)
		if err != nil {
			return err
		}
		c, err := raid.ParseChunk(value)
		if err != nil {
			return err
		}
		if uint64(c.Base) != base || base%segmentUnits != 0 || c.Sectors%segmentUnits != 0 {
			return damagedf("chunk %d covers %d sectors from %d", c.ID, c.Sectors, c.Base)
		}
		if err := chunkFits(c, s.devices); c.Class == format.Log && err != nil {
			s.lostLog = aLostLog{c, err}
			return nil
		} else if err != nil {
			return err
		}
		if c.Class == format.Log {
			if logs++; logs > 1 {
				return damagedf("chunk %d is a second intent log", c.ID)
			}
		}
		for _, o := range s.chunks {
			if o.ID == c.ID || o.Base < c.Base+format.Addr(c.Sectors) && c.Base < o.Base+format.Addr(o.Sectors) || shareDevice(o, c) {
				return damagedf("chunk %d is in the way of chunk %d", c.ID, o.ID)
			}
		}
		s.chunks = append(s.chunks, c)
		return nil
	})
}

// shareDevice reports whether two chunks take the same bytes of a device.
func shareDevice(a, b *raid.Chunk) bool {
	places := func(c *raid.Chunk) (list []raid.Place) {
		for _, col := range c.Columns {
			list = append(list, col.Place())
			if col.Shadow != nil {
				list = append(list, *col.Shadow)
			}
		}
		return list
	}
	for _, p := range places(a) {
		for _, q := range places(b) {
			if p.Device == q.Device && p.Start < q.Start+b.ColumnBytes() && q.Start < p.Start+a.ColumnBytes() {
				return true
			}
		}
	}
	return false
}

// readConfig takes the configuration, or makes one of what is known elsewhere,
// and numbers above all that are in use.
func (s *salvager) readConfig() {
	value, err := s.src.Get(meta.Config, []byte(keyConfig))
	if err == nil {
		s.config, _, err = unpackConfig(value)
	}
	if err != nil {
		s.lose("the configuration: %v", err)
		c := Config{Name: "recovered"}
		for _, x := range s.chunks {
			if x.Class == format.Data {
				c.DataProfile = x.Profile
				c.ChunkSize = max(c.ChunkSize, x.ColumnBytes()/minChunkSize*minChunkSize)
			}
		}
		for _, d := range s.devices {
			if d.dev == nil {
				continue
			}
			if l, err := readLabel(d.dev); err == nil {
				c.Name = l.name
				if len(l.replicas) > 1 {
					c.MetadataProfile = Mirror
				}
			}
		}
		c.ChunkSize = min(c.ChunkSize, maxChunkSize)
		s.config = c.withDefaults(0)
	}
	if value, err = s.src.Get(meta.Config, []byte(keyState)); err == nil && value != nil {
		s.state, _ = unpackState(value) // without it the numbers in use tell
	}
	for _, c := range s.chunks {
		s.state.nextAddr = max(s.state.nextAddr, c.Base+format.Addr(c.Sectors))
		s.state.nextChunk = max(s.state.nextChunk, uint64(c.ID))
	}
	for _, d := range s.states {
		s.state.nextDevice = max(s.state.nextDevice, uint64(d.id))
	}
}

func (s *salvager) readEntries() {
	before := len(s.losses)
	s.each(meta.Volumes, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return err
		}
		e, err := unpackEntry(id, value)
		if err == nil {
			s.entries = append(s.entries, e)
			s.state.nextEntry = max(s.state.nextEntry, id)
		}
		return err
	})
	s.unnamed = len(s.losses) > before
	slices.SortFunc(s.entries, func(a, b *entry) int { return int(int64(a.id) - int64(b.id)) })
	names := map[string]bool{}
	guids := map[GUID]bool{}
	for _, e := range s.entries {
		if names[e.name] || (&checker{}).wrongName(e) != nil {
			s.losses = append(s.losses, fmt.Sprintf("the name %q of %s %d", e.name, e.noun(), e.id))
			e.name, e.kind = fmt.Sprintf("%s/%s-%d", lostFound, e.noun(), e.id), KindVolume
		}
		if guids[e.guid] {
			e.guid = newGUID()
		}
		names[e.name], guids[e.guid] = true, true
		if e.origin == e.id || e.origin > s.state.nextEntry {
			e.origin = 0
		}
		e.quota, e.refquota, e.reservation = max(e.quota, 0), max(e.refquota, 0), max(e.reservation, 0)
		for _, txg := range []*uint64{&e.createdTxg, &e.writtenTxg} {
			if *txg > s.txg+mostAhead {
				*txg = s.txg
			}
			s.latest = max(s.latest, *txg)
		}
	}
}

// mostAhead is how far behind the metadata's own transaction group a number may be
// that is still believed.
const mostAhead = 1 << 32

// walk goes over the trees of all entries: first to see which sectors several
// records claim, then to keep what is right.
func (s *salvager) walk() error {
	s.conflicts = bitSet{}
	for _, s.gathering = range []bool{true, false} {
		s.holds = map[uint32]bool{}
		s.memo, s.sectors, s.used = map[btree.NodeID]*salvaged{}, newRecount(), map[uint64]int64{}
		s.lostNodes, s.lostRecords, s.hurt = 0, 0, map[uint64]bool{}
		for _, e := range s.entries {
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			s.keepEntry(e)
		}
	}
	return nil
}

// keepEntry keeps what is right of an entry's tree, and sets right what the entry
// says of it.
func (s *salvager) keepEntry(e *entry) {
	nodes, records := s.lostNodes, s.lostRecords
	s.walking = e
	root, below := s.tree(e.root)
	if s.lostNodes > nodes && e.holdsFiles() {
		s.hurt[e.writer()] = true
	}
	if s.gathering {
		return
	}
	if n, r := s.lostNodes-nodes, s.lostRecords-records; n+r > 0 {
		s.lose("%s %s: %d nodes with what is below them, and %d records or items", e.noun(), e.name, n, r)
	} else if below.Bytes < e.referenced {
		s.notes = append(s.notes, fmt.Sprintf("%s %s: perhaps %d bytes, which its entry counts and its tree has not", e.noun(), e.name, e.referenced-below.Bytes))
	}
	e.root, e.referenced, e.objects = root, below.Bytes, below.Counted
	if e.holdsFiles() {
		return
	}
	e.size = max(e.size, e.recordSize)
	if last, err := parseKey64(s.last(root)); err == nil && last >= e.records() {
		e.size = int64(last+1) * e.recordSize
	}
}

// tree keeps what is right of a tree, and returns its root.
func (s *salvager) tree(root btree.NodeID) (btree.NodeID, btree.Totals) {
	if root == 0 {
		return 0, btree.Totals{}
	}
	m := s.fix(root, -1, nil, nil)
	if m.gone {
		return 0, btree.Totals{}
	}
	for m.level > 0 { // a root of one child is not needed
		n := s.load(root)
		if n == nil || n.Len() > 1 {
			break
		}
		root = n.Child(0)
		m = s.memo[root]
	}
	return root, m.Totals
}

// load returns a node as it is kept, nil if it is not.
func (s *salvager) load(id btree.NodeID) *btree.Node {
	m := s.memo[id]
	switch {
	case m == nil || m.gone:
		return nil
	case m.node != nil:
		return m.node
	}
	n, err := loadNode(s.src, id)
	if err != nil {
		return nil // it was read before, so its device fails just now: the check will say
	}
	return n
}

// fix looks at a node that is to have that level, or any if it is -1, and keys from
// low up to and without high, where those are not nil.
func (s *salvager) fix(id btree.NodeID, level int, low, high []byte) *salvaged {
	if m := s.memo[id]; m != nil {
		if !m.gone && (level >= 0 && m.level != level || m.content != s.walking.content || m.unit != s.walking.recordSize) {
			s.lostNodes++
			return &salvaged{gone: true}
		}
		return m
	}
	m := &salvaged{gone: true, content: s.walking.content, unit: s.walking.recordSize}
	s.memo[id] = m
	n, err := loadNode(s.src, id)
	if err != nil || level >= 0 && n.Level() != level || n.Birth() > s.txg+mostAhead || s.ctx.Err() != nil {
		s.lostNodes++
		return m
	}
	s.latest = max(s.latest, n.Birth())
	s.config.converted = s.config.converted || len(n.Bytes()) > btree.MaxNodeSize
	s.state.nextNode = max(s.state.nextNode, uint64(id))
	m.level = n.Level()
	keep := make([]bool, n.Len())
	kept := 0
	for i := range n.Len() {
		if m.level == 0 {
			var one btree.Totals
			if one, keep[i] = s.keepItem(n.AppendKey(nil, i), n.Value(i), low, high); keep[i] {
				m.Add(one)
			}
		} else {
			from, to := low, high
			if i > 0 {
				from = n.AppendKey(nil, i)
			}
			if i+1 < n.Len() {
				to = n.AppendKey(nil, i+1)
			}
			c := s.fix(n.Child(i), m.level-1, from, to)
			keep[i] = !c.gone
			m.Add(c.Totals)
		}
		if keep[i] {
			kept++
		}
	}
	m.gone = kept == 0
	if kept > 0 && kept < n.Len() {
		m.node = btree.Prune(n, func(i int) bool { return keep[i] })
	}
	return m
}

// keepItem tells whether a record or item is to be kept, and what it adds to the
// totals of a tree. A record is counted.
func (s *salvager) keepItem(key, value, low, high []byte) (one btree.Totals, keep bool) {
	if low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
		s.lostRecords++
		return one, false
	}
	one.Items = 1
	if s.walking.holdsFiles() && isItem(key) {
		if keep = len(key) <= MaxItemKey && len(value) <= MaxItemValue; !keep {
			s.lostRecords++
		} else if key[0] == ItemCounted {
			one.Counted = 1
		}
		return one, keep
	}
	rec, ok := s.sound(key, value)
	if !ok || !s.keepRecord(rec) {
		s.lostRecords++
		return one, false
	}
	one.Bytes = stored(rec)
	return one, true
}

// keepRecord counts a reference to a record, unless another one has its sectors or
// it cannot be read where that is asked for.
func (s *salvager) keepRecord(rec format.Record) bool {
	c := s.chunkOf(rec)
	sectors := uint64(c.Need(int64(rec.Size)))
	if s.gathering {
		if _, err := s.sectors.add(c, rec); errors.Is(err, errOverlap) {
			for i := range sectors {
				s.conflicts.add(uint64(rec.Addr) + i)
			}
		}
		return true
	}
	doubtful := s.verify
	for i := range sectors {
		doubtful = doubtful || s.conflicts.has(uint64(rec.Addr)+i)
	}
	if doubtful {
		if _, err := s.contentOf(c, rec, s.walking.recordSize); err != nil {
			return false
		}
	}
	first, err := s.sectors.add(c, rec)
	if err != nil {
		return false
	}
	if first {
		s.holds[c.ID] = true
		s.used[rec.Owner] += stored(rec)
		s.state.nextEntry = max(s.state.nextEntry, rec.Owner)
	}
	s.latest = max(s.latest, rec.Birth)
	return true
}

// contentOf reads a record and unpacks it, to at most size bytes.
func (s *salvager) contentOf(c *raid.Chunk, rec format.Record, size int64) ([]byte, error) {
	b := make([]byte, rec.Size)
	if err := s.array.Read(c, rec.Addr, b, fits(rec)); err != nil || rec.Codec == format.Plain {
		return b, err
	}
	return unpacked(rec.Codec, b, size)
}

// sound returns the record of a key if it means something here.
func (s *salvager) sound(key, value []byte) (format.Record, bool) {
	rec, err := format.ParseRecord(value)
	switch {
	case err != nil || len(key) != 8 || isItem(key):
		return rec, false
	case !s.walking.fits(rec) || rec.Birth > s.txg+mostAhead || rec.Owner > s.state.nextEntry+mostAhead:
		return rec, false
	}
	return rec, s.chunkOf(rec) != nil
}

// chunkOf returns the chunk of data that covers a record, or nil.
func (s *salvager) chunkOf(rec format.Record) *raid.Chunk {
	c := (&checker{chunks: s.chunks}).chunk(rec.Addr)
	if c == nil || c.Class != format.Data || uint64(rec.Addr-c.Base)+uint64(c.Need(int64(rec.Size))) > uint64(c.Sectors) {
		return nil
	}
	return c
}

// first returns the first key of a tree, nil if it has none.
func (s *salvager) first(root btree.NodeID) []byte {
	for n := s.load(root); n != nil; n = s.load(n.Child(0)) {
		if n.Level() == 0 {
			return n.AppendKey(nil, 0)
		}
	}
	return nil
}

// last returns the last key of a tree, nil if it has none.
func (s *salvager) last(root btree.NodeID) []byte {
	for n := s.load(root); n != nil; n = s.load(n.Child(n.Len() - 1)) {
		if n.Level() == 0 {
			return n.AppendKey(nil, n.Len()-1)
		}
	}
	return nil
}
