package blockpool

import (
	"bytes"
	"context"
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
