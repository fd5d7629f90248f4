package blockpool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// RestoreOptions say how metadata is restored.
type RestoreOptions struct {
	Metadata      []string // files that the replicas are to be; nil: as the path says
	Force         bool     // also when replicas are there, which are kept under another name, or when the pool has changed since the dump
	Storage       Storage  // nil: files and block devices
	SearchDevices []string // where to look for devices that are not where they were
}

// Restore makes the metadata of a pool from a dump, when every replica of it is
// lost. The devices are there still. The path is one of them, whose label says
// where the replicas were, or the directory where they are to be.
//
// What was changed since the dump is lost; a record whose place was given to
// another one since is found by its checksum when it is read. Nothing is changed
// before the new metadata is whole and checks clean. It fails with [ErrExists] when
// a replica is there, with [ErrDamaged] for a text that is not all of a dump, and
// with [ErrNewer] for one of a later version.
func Restore(ctx context.Context, path string, r io.Reader, o RestoreOptions) error {
	if o.Storage == nil {
		o.Storage = Files
	}
	s := &restorer{ctx: ctx, o: &o, r: bufio.NewReaderSize(r, 1<<16), hash: xxhash.New(), shared: map[format.Addr]format.Record{}, nodes: bitSet{}}
	err := s.where(path)
	if err == nil {
		err = s.run()
	}
	if err = errors.Join(err, s.end(err != nil)); err != nil {
		return fmt.Errorf("restore %s: %w", path, err)
	}
	return nil
}

// A restorer reads a dump and builds metadata from it.
type restorer struct {
	ctx   context.Context
	o     *RestoreOptions
	r     *bufio.Reader
	hash  *xxhash.Digest
	lines uint64

	dir     string   // where replicas are to be, if that is what was given
	paths   []string // of the replicas
	pool    dumpPool
	config  Config
	state   state
	states  []*deviceState
	devices []*device
	chunks  []*raid.Chunk
	build   *rebuilder // nil until the first line that needs it

	node   *btree.Node // whose items come next
	head   dumpNode
	left   int // how many of them
	nodes  bitSet
	shared map[format.Addr]format.Record
	done   bool
}

// where finds out where the replicas are to be.
func (s *restorer) where(path string) error {
	path, err := absolute(path)
	if err != nil {
		return err
	}
	s.paths = slices.Clone(s.o.Metadata)
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		s.dir = path
		return nil
	}
	dev, err := s.o.Storage.Open(path)
	if err != nil {
		return err
	}
	defer dev.Close()
	l, err := readLabel(dev)
	if err != nil {
		return err
	}
	if s.paths == nil {
		s.paths = l.replicas
	}
	return nil
}

// run reads the dump to its end, checks what came of it, and puts it in place.
func (s *restorer) run() error {
	for !s.done {
		line, err := s.next()
		if err != nil {
			return err
		}
		if err := s.take(line); err != nil {
			return fmt.Errorf("line %d: %w", s.lines, err)
		}
	}
	if err := s.begin(); err != nil {
		return err
	}
	if err := s.build.finish(s.state); err != nil {
		return err
	}
	closeDevices(s.devices) // the check opens them
	r, err := s.build.check(s.ctx, &CheckOptions{Storage: s.o.Storage, SearchDevices: s.o.SearchDevices})
	if err != nil {
		return err
	}
	for _, f := range r.Findings {
		if f.Severity == Damage || f.Severity == Leak {
			return fmt.Errorf("%v: %w", f, errNotClean)
		}
	}
	s.devices = openDevices(s.states, s.pool.guid, s.o.Storage, s.o.SearchDevices)
	return s.build.install(s.paths, fmt.Sprintf(".before-%d", s.build.txg), s.devices, s.config.Name, s.config.MetadataSize)
}

// end lets go of everything, and of the new file if it was not used.
func (s *restorer) end(failed bool) error {
	closeDevices(s.devices)
	if s.build == nil {
		return nil
	}
	err := s.build.close()
	if failed {
		if rm := os.Remove(s.build.path); rm != nil && !errors.Is(rm, os.ErrNotExist) {
			err = errors.Join(err, rm)
		}
	}
	return err
}

// next returns a line without its end.
func (s *restorer) next() (string, error) {
	if s.lines%1024 == 0 && s.ctx.Err() != nil {
		return "", context.Cause(s.ctx)
	}
	var line []byte
	for {
		part, err := s.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
		case errors.Is(err, bufio.ErrBufferFull) && len(line) < maxDumpLine:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return "", damagedf("line %d is longer than %d bytes", s.lines+1, maxDumpLine)
		case errors.Is(err, io.EOF):
			return "", damagedf("the dump ends after line %d, without its last line", s.lines)
		default:
			return "", err
		}
		break
	}
	s.lines++
	text := string(line[:len(line)-1])
	if !strings.HasPrefix(text, "end ") {
		s.hash.Write(line)
	}
	return text, nil
}

// take does what a line says.
func (s *restorer) take(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case s.lines == 1:
		return s.takeVersion(word, rest)
	case s.lines == 2:
		if word != "pool" {
			return damagedf("%.40q, where the pool belongs", word)
		}
		return parseAttrs(rest, poolAttrs(&s.pool))
	case s.left > 0:
		return s.takeItem(word, rest)
	}
	switch word {
	case "config", "state", "device", "chunk":
		if s.build != nil {
			return damagedf("%s, behind what needs it", word)
		}
		return s.takeHead(word, rest)
	case "value", "leaf", "inner", "volume", "dead":
		if err := s.begin(); err != nil {
			return err
		}
		return s.takeBody(word, rest)
	case "end":
		return s.takeEnd(rest)
	}
	return damagedf("%.40q is not known", word)
}

func (s *restorer) takeVersion(word, rest string) error {
	var version uint64
	if word != "lamina-dump" {
		return damagedf("this is no dump of a pool: it begins with %.40q", word)
	}
	if err := parseAttrs(rest, []attr{num("version", &version)}); err != nil {
		return err
	}
	if version > dumpVersion {
		return fmt.Errorf("a dump of version %d, this lamina knows %d: %w", version, dumpVersion, ErrNewer)
	}
	if version == 0 {
		return damagedf("a dump of no version")
	}
	return nil
}

// takeHead takes what comes before trees.
func (s *restorer) takeHead(word, rest string) error {
	switch word {
	case "config":
		if err := parseAttrs(rest, configAttrs(&s.config)); err != nil {
			return err
		}
		return s.config.check()
	case "state":
		return parseAttrs(rest, stateAttrs(&s.state))
	case "device":
		d := &deviceState{}
		s.states = append(s.states, d)
		return parseAttrs(rest, deviceAttrs(d))
	default:
		c := &raid.Chunk{}
		s.chunks = append(s.chunks, c)
		if err := parseAttrs(rest, chunkAttrs(c)); err != nil {
			return err
		}
		return c.Check()
	}
}

// begin makes the new file, when devices and chunks are known.
func (s *restorer) begin() error {
	if s.build != nil {
		return nil
	}
	if s.pool.guid == (GUID{}) || s.config.Name == "" || len(s.states) == 0 {
		return damagedf("the dump lacks the pool, its configuration or its devices")
	}
	s.devices = openDevices(s.states, s.pool.guid, s.o.Storage, s.o.SearchDevices)
	if err := s.choosePaths(); err != nil {
		return err
	}
	last := lastTxg(s.devices, s.chunks, s.pool.guid)
	if last > s.pool.txg && !s.o.Force {
		return fmt.Errorf("the dump is of txg %d and the pool went on to %d: what was changed since would be lost; use force if there is no later dump: %w", s.pool.txg, last, ErrExists)
	}
	var err error
	s.build, err = newRebuilder(s.paths[0]+".restore", s.pool.guid, max(last, s.pool.txg)+1, s.config.MetadataSize)
	if err != nil {
		return err
	}
	s.build.put(meta.Config, []byte(keyConfig), s.config.pack(s.pool.guid))
	for _, d := range s.states {
		s.build.put(meta.Devices, key64(uint64(d.id)), d.pack())
	}
	for _, c := range s.chunks {
		if err := chunkFits(c, s.devices); err != nil {
			return err
		}
		if err := s.build.chunk(c); err != nil {
			return err
		}
	}
	return s.build.failed
}

// choosePaths says where the replicas are to be, and refuses to take the place of
// one.
func (s *restorer) choosePaths() error {
	if s.paths == nil {
		n := 1
		for _, d := range s.devices {
			if d.dev == nil {
				continue
			}
			if l, err := readLabel(d.dev); err == nil {
				n = max(n, len(l.replicas))
			}
		}
		for i := range n {
			s.paths = append(s.paths, ReplicaName(s.dir, i))
		}
	}
	for _, path := range s.paths {
		if _, err := os.Lstat(path); err == nil && !s.o.Force {
			return fmt.Errorf("%s is there: repair the pool, or use force: %w", path, ErrExists)
		}
		if st, err := os.Stat(filepath.Dir(path)); err != nil || !st.IsDir() {
			return fmt.Errorf("%s: no directory for a replica of the metadata: %w", filepath.Dir(path), ErrNotFound)
		}
	}
	return nil
}

// takeBody takes trees and what they belong to.
func (s *restorer) takeBody(word, rest string) error {
	switch word {
	case "value":
		var v dumpValue
		if err := parseAttrs(rest, valueAttrs(&v)); err != nil {
			return err
		}
		for _, b := range plainBuckets {
			if b.String() == v.bucket && len(v.key) > 0 {
				return s.build.put(b, v.key, v.data)
			}
		}
		return damagedf("a value of bucket %q", v.bucket)
	case "leaf", "inner":
		return s.takeNode(word, rest)
	case "volume":
		var e entry
		if err := parseAttrs(rest, entryAttrs(&e)); err != nil {
			return err
		}
		if e.root != 0 {
			if err := s.refer(e.root); err != nil {
				return err
			}
		}
		return s.build.put(meta.Volumes, key64(e.id), e.pack())
	default:
		var d dumpDead
		if err := parseAttrs(rest, deadAttrs(&d)); err != nil {
			return err
		}
		for _, id := range d.nodes {
			if err := s.refer(id); err != nil {
				return err
			}
		}
		return s.build.put(meta.Dead, key64(d.id), packNodeIDs(d.nodes))
	}
}

// refer counts a reference to a node that must have come.
func (s *restorer) refer(id btree.NodeID) error {
	if !s.nodes.has(uint64(id)) {
		return damagedf("node %d has not come", id)
	}
	return s.build.refNode(id)
}

func (s *restorer) takeNode(word, rest string) error {
	s.head = dumpNode{}
	if err := parseAttrs(rest, nodeAttrs(&s.head)); err != nil {
		return err
	}
	h := &s.head
	switch {
	case (word == "leaf") != (h.level == 0) || h.level > btree.MaxLevel || h.items == 0:
		return damagedf("%s of level %d with %d items", word, h.level, h.items)
	case h.id == 0 || h.id > btree.MaxNodeID || !s.nodes.add(uint64(h.id)):
		return damagedf("node %d comes twice, or cannot be", h.id)
	}
	s.node, s.left = btree.NewNode(h.level, h.birth), h.items
	return nil
}

// takeItem takes an item of the node whose line came before.
func (s *restorer) takeItem(word, rest string) error {
	var i dumpItem
	ok := false
	switch {
	case word == "child" && s.head.level > 0:
		if err := parseAttrs(rest, childAttrs(&i)); err != nil {
			return err
		}
		if err := s.refer(i.child); err != nil {
			return err
		}
		ok = s.node.AppendChild(i.key, i.child)
	case s.head.level == 0 && word == "item":
		if err := parseAttrs(rest, itemAttrs(&i)); err != nil {
			return err
		}
		if len(i.key) > MaxItemKey || !isItem(i.key) || len(i.value) > MaxItemValue {
			return damagedf("item with a key of %d bytes and a value of %d", len(i.key), len(i.value))
		}
		ok = s.node.AppendItem(i.key, i.value)
	case s.head.level == 0 && (word == "record" || word == "shared" || word == "again"):
		rec, err := s.takeRecord(word, rest, &i)
		if err != nil {
			return err
		}
		ok = s.node.AppendItem(recordKey(i.n), format.AppendRecord(nil, rec))
	default:
		return damagedf("%.40q within node %d", word, s.head.id)
	}
	if !ok {
		return damagedf("an item of node %d that is out of order or does not fit", s.head.id)
	}
	if s.left--; s.left == 0 {
		return s.build.put(meta.Nodes, key64(uint64(s.head.id)), s.node.Bytes())
	}
	return nil
}

func (s *restorer) takeRecord(word, rest string, i *dumpItem) (format.Record, error) {
	attrs := recordAttrs
	if word == "again" {
		attrs = againAttrs
	}
	if err := parseAttrs(rest, attrs(i)); err != nil {
		return i.rec, err
	}
	if word == "again" {
		rec, ok := s.shared[i.rec.Addr]
		if !ok {
			return rec, damagedf("no shared record at %d has come", i.rec.Addr)
		}
		return rec, s.build.refRecord(rec)
	}
	if i.rec.Size == 0 || i.rec.Size > format.MaxRecordSize {
		return i.rec, damagedf("record of %d bytes", i.rec.Size)
	}
	n, err := s.build.counts.Count(uint64(i.rec.Addr))
	if err != nil || n > 0 {
		return i.rec, damagedf("record at %d comes twice, or lies in no chunk", i.rec.Addr)
	}
	if word == "shared" {
		s.shared[i.rec.Addr] = i.rec
	}
	return i.rec, s.build.refRecord(i.rec)
}

func (s *restorer) takeEnd(rest string) error {
	var e dumpEnd
	if err := parseAttrs(rest, endAttrs(&e)); err != nil {
		return err
	}
	if e.lines != s.lines-1 || e.sum != s.hash.Sum64() {
		return damagedf("the dump does not fit its checksum")
	}
	s.done = true
	return nil
}
