package blockpool

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// A sum is what is known of a volume's content: its size, and a checksum for
// each record; or what a dataset has. It never changes.
type sum struct {
	size, recordSize int64
	records          []uint64
	tree             *seenTree // of a dataset
}

func (s *sum) equal(o *sum) bool {
	return s == o || s.size == o.size && s.recordSize == o.recordSize && slices.Equal(s.records, o.records) && s.tree.equal(o.tree)
}

func sumOfTree(tree *seenTree) *sum { return &sum{recordSize: int64(tree.recordSize), tree: tree} }

func sumOf(data []byte, recordSize int64) *sum {
	s := &sum{size: int64(len(data)), recordSize: recordSize}
	for off := int64(0); off < s.size; off += recordSize {
		s.records = append(s.records, xxhash.Sum64(data[off:min(off+recordSize, s.size)]))
	}
	return s
}

// A script does things to volumes of its own, whose names have a prefix, and
// keeps what they were after each step: after each record of a write, since those
// are what a crash may part, and after each batch of a dataset, which it may not.
type script struct {
	b      *bench
	prefix string
	rng    *rand.Rand
	data   map[string][]byte     // of volumes
	trees  map[string]*treeModel // of datasets
	states []map[string]*sum
	names  int
}

// A progress is a mark in the journal: a script has begun what leads up to a
// step, or was told that it is done; durable if that holds when power fails.
type progress struct {
	script  *script
	step    int
	begun   bool
	durable bool
}

func newScript(b *bench, prefix string, seed uint64) *script {
	return &script{b: b, prefix: prefix, rng: rand.New(rand.NewPCG(seed, 11)), data: map[string][]byte{}, trees: map[string]*treeModel{}, states: []map[string]*sum{{}}}
}

func (s *script) now() map[string]*sum { return s.states[len(s.states)-1] }

// then adds a step after which one volume is as given; nil removes it.
func (s *script) then(name string, v *sum) {
	next := maps.Clone(s.now())
	if v == nil {
		delete(next, name)
	} else {
		next[name] = v
	}
	s.states = append(s.states, next)
}

// thenRecord adds a step after which one record is what data has.
func (s *script) thenRecord(name string, n int64) {
	old, data := s.now()[name], s.data[name]
	v := &sum{size: old.size, recordSize: old.recordSize, records: slices.Clone(old.records)}
	v.records[n] = xxhash.Sum64(data[n*v.recordSize : min((n+1)*v.recordSize, v.size)])
	s.then(name, v)
}

// run does one thing. plan makes the steps, do makes them true.
func (s *script) run(durable bool, plan func(), do func() error) error {
	plan()
	s.b.journal.Mark(progress{s, len(s.states) - 1, true, false})
	if err := do(); err != nil {
		return err
	}
	s.b.journal.Mark(progress{s, len(s.states) - 1, false, durable})
	return nil
}

func (s *script) pick(snapshots bool) string {
	var names []string
	for name := range s.now() {
		if snapshots || !strings.Contains(name, "@") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[s.rng.IntN(len(names))]
}

func (s *script) fresh() string {
	s.names++
	return fmt.Sprintf("%s%d", s.prefix, s.names)
}

func (s *script) with(name string, f func(*Volume) error) error {
	v, err := s.b.Open(name)
	if err != nil {
		return err
	}
	defer v.Close()
	return f(v)
}

// step does a random thing.
func (s *script) step() error {
	name, any := s.pick(false), s.pick(true)
	if name == "" {
		return s.create()
	}
	tree := s.trees[name] != nil
	switch k := s.rng.IntN(100); {
	case k < 50 && tree:
		return s.apply(name)
	case k < 55 && tree:
		return s.shareRecords(name)
	case k < 45:
		return s.write(name)
	case k < 55:
		return s.zero(name)
	case k < 70:
		return s.run(true, func() {}, func() error { return s.flush(any) })
	case k < 75:
		return s.run(true, func() {}, func() error { return s.b.Sync(ctx) })
	case k < 78 && len(s.now()) < 5:
		return s.create()
	case k < 82 && len(s.now()) < 6:
		snap := name + "@" + s.fresh()[len(s.prefix):]
		return s.share(any, snap, func() error { return s.b.Snapshot(ctx, any, snap) })
	case k < 85 && len(s.now()) < 6:
		clone := s.fresh()
		return s.share(any, clone, func() error { return s.b.Clone(ctx, any, clone) })
	case k < 88 && !tree:
		return s.resize(name)
	case k < 91:
		return s.rollback(any)
	case k < 93 && !strings.Contains(any, "@"):
		return s.rename(any)
	case len(s.now()) > 2:
		return s.run(true, func() { s.then(any, nil); delete(s.data, any); delete(s.trees, any) }, func() error { return s.b.Destroy(ctx, any) })
	}
	if tree {
		return s.apply(name)
	}
	return s.write(name)
}

func (s *script) flush(name string) error {
	if s.trees[name] == nil {
		return s.with(name, func(v *Volume) error { return v.Flush(ctx) })
	}
	return s.withTree(name, func(t *Tree) error { return t.Flush(ctx) })
}

func (s *script) withTree(name string, f func(*Tree) error) error {
	t, err := s.b.OpenTree(name)
	if err != nil {
		return err
	}
	defer t.Close()
	return f(t)
}

// thenTree adds a step after which a dataset is what its model says.
func (s *script) thenTree(name string, recordSize int) {
	s.then(name, sumOfTree(s.trees[name].seen(recordSize)))
}

// apply does a batch, which a crash leaves whole or not at all.
func (s *script) apply(name string) error {
	return s.withTree(name, func(t *Tree) error {
		batch := randomBatch(s.rng, t.RecordSize())
		return s.run(false, func() {
			s.trees[name].apply(batch)
			s.thenTree(name, t.RecordSize())
		}, func() error { return t.Apply(ctx, batch) })
	})
}

// shareRecords shares records of one object with another, together with an item.
func (s *script) shareRecords(name string) error {
	return s.withTree(name, func(t *Tree) error {
		share := Share{SrcObject: 1, Src: s.rng.Uint64N(4), DstObject: 2, Dst: s.rng.Uint64N(4), N: 1 + s.rng.Uint64N(3)}
		batch := &Batch{}
		batch.Put(itemKey(99), fill(10, s.rng.Uint64()))
		return s.run(true, func() {
			s.trees[name].share(s.trees[name], share, uint64(t.RecordSize()))
			s.trees[name].apply(batch)
			s.thenTree(name, t.RecordSize())
		}, func() error { return t.ShareRecords(ctx, batch, t, share) })
	})
}

func (s *script) create() error {
	if s.rng.IntN(3) == 0 {
		return s.createDataset()
	}
	name, recordSize := s.fresh(), int64(4096)<<s.rng.IntN(6)
	most := int64(200 << 10)
	if recordSize == 4096 { // with enough records for a tree of several nodes
		most *= 6
	}
	size := 1 + s.rng.Int64N(most)
	return s.run(true, func() {
		s.data[name] = make([]byte, size)
		s.then(name, sumOf(s.data[name], recordSize))
	}, func() error { return s.b.CreateVolume(ctx, name, size, VolumeOptions{RecordSize: recordSize}) })
}

func (s *script) createDataset() error {
	name, recordSize := s.fresh(), 4096<<s.rng.IntN(3)
	compression := []Compression{CompressionOff, CompressionLZ4, CompressionZstd}[s.rng.IntN(3)]
	return s.run(true, func() {
		s.trees[name] = newTreeModel()
		s.thenTree(name, recordSize)
	}, func() error {
		return s.b.CreateDataset(ctx, name, DatasetOptions{RecordSize: int64(recordSize), Compression: compression})
	})
}

// copyModel gives a name what another has.
func (s *script) copyModel(from, to string) {
	if m := s.trees[from]; m != nil {
		s.trees[to] = m.clone()
	} else {
		s.data[to] = slices.Clone(s.data[from])
	}
}

func (s *script) write(name string) error {
	data, recordSize := s.data[name], s.now()[name].recordSize
	n := min(1+s.rng.Int64N([...]int64{64, 5000, 120 << 10}[s.rng.IntN(3)]), int64(len(data)))
	off := s.rng.Int64N(int64(len(data)) - n + 1)
	p := noise(n, s.rng.Uint64())
	return s.run(false, func() {
		copy(data[off:], p)
		for r := off / recordSize; r*recordSize < off+n; r++ {
			s.thenRecord(name, r)
		}
	}, func() error {
		return s.with(name, func(v *Volume) error { _, err := v.WriteAt(p, off); return err })
	})
}

// planZero makes the steps of making a range zeros: the first edge, whole
// records, the last edge.
func (s *script) planZero(name string, off, end int64) {
	data, recordSize := s.data[name], s.now()[name].recordSize
	first, last := (off+recordSize-1)/recordSize, end/recordSize
	if end == int64(len(data)) {
		last = (end + recordSize - 1) / recordSize
	}
	if first >= last {
		first = last + 1
	}
	clear(data[off:end])
	for r := off / recordSize; r*recordSize < end && r < first; r++ {
		s.thenRecord(name, r)
	}
	if first >= last {
		return
	}
	old := s.now()[name]
	v := &sum{size: old.size, recordSize: old.recordSize, records: slices.Clone(old.records)}
	for r := first; r < last; r++ {
		v.records[r] = xxhash.Sum64(data[r*recordSize : min((r+1)*recordSize, v.size)])
	}
	s.then(name, v)
	if last*recordSize < end {
		s.thenRecord(name, last)
	}
}

func (s *script) zero(name string) error {
	size := int64(len(s.data[name]))
	n := 1 + s.rng.Int64N(size)
	off := s.rng.Int64N(size - n + 1)
	return s.run(false, func() { s.planZero(name, off, off+n) }, func() error {
		return s.with(name, func(v *Volume) error { return v.Discard(ctx, off, n) })
	})
}

func (s *script) share(from, name string, do func() error) error {
	return s.run(true, func() {
		s.copyModel(from, name)
		s.then(name, s.now()[from])
	}, do)
}

func (s *script) resize(name string) error {
	size := 1 + s.rng.Int64N(200<<10)
	return s.run(true, func() {
		old := s.now()[name]
		if size < old.size {
			s.planZero(name, size, old.size)
		}
		data := make([]byte, size)
		copy(data, s.data[name])
		s.data[name] = data
		s.then(name, sumOf(data, old.recordSize))
	}, func() error { return s.b.Resize(ctx, name, size) })
}

func (s *script) rollback(snap string) error {
	name, _, ok := strings.Cut(snap, "@")
	v, from := s.now()[name], s.now()[snap]
	if !ok || v == nil || v.recordSize != from.recordSize || (v.tree == nil) != (from.tree == nil) {
		return nil
	}
	return s.run(true, func() {
		s.copyModel(snap, name)
		s.then(name, from)
	}, func() error { return s.b.Rollback(ctx, snap) })
}

func (s *script) rename(name string) error {
	to := s.fresh()
	return s.run(true, func() {
		next := map[string]*sum{}
		for n, v := range s.now() {
			if n == name || strings.HasPrefix(n, name+"@") {
				s.copyModel(n, to+n[len(name):])
				delete(s.data, n)
				delete(s.trees, n)
				n = to + n[len(name):]
			}
			next[n] = v
		}
		s.states = append(s.states, next)
	}, func() error { return s.b.Rename(ctx, name, to) })
}

// between returns from which step to which one the states may be that a crash
// leaves, as the marks before it say.
func (s *script) between(marks []any, power bool) (lo, hi int) {
	for _, m := range marks {
		p := m.(progress)
		switch {
		case p.script != s:
		case p.begun:
			hi = p.step
		case p.durable || !power:
			lo, hi = p.step, max(hi, p.step)
		}
	}
	return lo, hi
}

// observe reads all of a pool.
func observe(p *Pool) (map[string]*sum, error) {
	all := map[string]*sum{}
	for _, i := range p.Volumes() {
		if i.IsDataset() {
			t, err := p.OpenTree(i.Name)
			if err != nil {
				return nil, err
			}
			seen, err := seeTree(t)
			t.Close()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", i.Name, err)
			}
			all[i.Name] = sumOfTree(seen)
			continue
		}
		v, err := p.Open(i.Name)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, i.Size)
		n, err := v.ReadAt(buf, 0)
		v.Close()
		if int64(n) != i.Size {
			return nil, fmt.Errorf("%s: %d of %d bytes: %w", i.Name, n, i.Size, errors.Join(err, io.ErrUnexpectedEOF))
		}
		all[i.Name] = sumOf(buf[:n], i.RecordSize)
	}
	return all, nil
}

// find returns the step in that range after which a script's volumes were as
// observed.
func (s *script) find(seen map[string]*sum, lo, hi int) (int, error) {
	mine := map[string]*sum{}
	for name, v := range seen {
		if strings.HasPrefix(name, s.prefix) {
			mine[name] = v
		}
	}
	for k := lo; k <= hi; k++ {
		if maps.EqualFunc(mine, s.states[k], (*sum).equal) {
			return k, nil
		}
	}
	return 0, fmt.Errorf("%s is as after none of the steps %d to %d%s", s.prefix, lo, hi, s.explain(mine, lo, hi))
}

// explain tells what differs from the first and the last state that may be, and
// which state it is instead, if it is one.
func (s *script) explain(mine map[string]*sum, lo, hi int) (text string) {
	for k := range s.states {
		if maps.EqualFunc(mine, s.states[k], (*sum).equal) {
			text += fmt.Sprintf("; it is as after step %d", k)
		}
	}
	for _, k := range []int{lo, hi} {
		for name, want := range s.states[k] {
			got := mine[name]
			if got == nil {
				text += fmt.Sprintf("; step %d: no %s", k, name)
				continue
			}
			if got.tree != nil && want.tree != nil {
				text += fmt.Sprintf("; step %d: %s%s", k, name, got.tree.explain(want.tree))
				continue
			}
			if got.size != want.size {
				text += fmt.Sprintf("; step %d: %s has %d bytes, not %d", k, name, got.size, want.size)
				continue
			}
			for i := range got.records {
				if got.records[i] != want.records[i] {
					text += fmt.Sprintf("; step %d: %s record %d of %d differs", k, name, i, want.recordSize)
				}
			}
		}
		for name := range mine {
			if s.states[k][name] == nil {
				text += fmt.Sprintf("; step %d: %s is there", k, name)
			}
		}
	}
	return text
}

// A recording is what a pool did under some scripts.
type recording struct {
	journal *memdev.Journal
	base    []boltFile // the metadata where the journal begins
	from    int        // first position at which the pool was whole
	scripts []*script
	opts    OpenOptions
}

// record runs scripts of that many steps side by side.
func record(t testing.TB, profile Profile, devices int, metadata Profile, seed uint64, scripts, steps int) *recording {
	return recordBeside(t, profile, devices, metadata, seed, scripts, steps, nil)
}

// recordBeside is record with something else that goes on beside the scripts.
func recordBeside(t testing.TB, profile Profile, devices int, metadata Profile, seed uint64, scripts, steps int, beside func(*bench) error) *recording {
	j := memdev.NewJournal()
	b := newSmallBench(t, Config{DataProfile: profile, MetadataProfile: metadata}, devices, j)
	var paths []string
	for i := range 1 + int(min(metadata, 1)) {
		paths = append(paths, ReplicaName(b.dir, i))
	}
	r, err := newBoltRecorder(j, paths)
	b.must(err)
	rec := &recording{journal: j, base: r.now, from: j.Len(), opts: b.opts}
	b.opts.Tunables.DirtyLimit = 128 << 10
	b.opts.Tunables.deadPerTxg = 2
	rec.opts = b.opts
	b.opts.Tunables.commit, r.pause = r.commit, time.Millisecond
	b.open()
	errs := make([]error, scripts+1)
	var wg sync.WaitGroup
	if beside == nil {
		b.ballast(900 * scripts * devices)
	} else {
		wg.Go(func() { errs[scripts] = beside(b) })
	}
	for i := range scripts {
		s := newScript(b, fmt.Sprintf("%c", 'a'+i), seed*10+uint64(i))
		rec.scripts = append(rec.scripts, s)
		wg.Go(func() {
			for range steps {
				if errs[i] = s.step(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	b.must(errors.Join(errs...))
	b.Abandon()
	b.must(r.err)
	return rec
}

// ballast takes all but that many sectors, as long as the pool is open: what is
// freed is soon used again then, which is when mistakes show.
func (b *bench) ballast(but int) {
	left := uint64(but)
	for _, c := range b.space.all() {
		if c.Class != format.Data {
			continue
		}
		// Sector by sector, since some may be in use.
		for at := c.Base; at < c.end(); at++ {
			if left > 0 {
				left--
				continue
			}
			_ = b.space.reserve(extent{at, 1}) // fails for one that is in use
		}
	}
}

// A crasher opens states in a directory of its own.
type crasher struct {
	dir string
	rng *rand.Rand
}

// verify opens a state and demands of it what a pool promises. often says how
// thoroughly.
func (c *crasher) verify(rec *recording, s *memdev.State, base []boltFile, marks []any, power, thorough bool) error {
	p, err := c.open(s.Journal, boltState(s, base), rec.opts)
	if err != nil {
		return err
	}
	defer func() { p.Abandon() }()
	if err := c.contents(rec, p, marks, power); err != nil {
		return err
	}
	if err := recountAll(p, false); err != nil || !thorough {
		return err
	}
	return c.goesOn(rec, &p, s.Journal)
}

// contents looks whether each script's volumes are as they may be.
func (c *crasher) contents(rec *recording, p *Pool, marks []any, power bool) error {
	seen, err := observe(p)
	if err != nil {
		return err
	}
	for _, s := range rec.scripts {
		lo, hi := s.between(marks, power)
		if _, err := s.find(seen, lo, hi); err != nil {
			return err
		}
	}
	return nil
}

// goesOn uses a pool that was recovered: it takes changes and keeps them, what was
// recovered stays, and nothing has leaked.
func (c *crasher) goesOn(rec *recording, p **Pool, j *memdev.Journal) error {
	b := &bench{Pool: *p}
	before, err := observe(b.Pool)
	if err != nil {
		return err
	}
	if err := b.CreateVolume(ctx, "z", 100_000, VolumeOptions{}); err != nil {
		return err
	}
	z, err := b.Open("z")
	if err != nil {
		return err
	}
	data := noise(100_000, 3)
	if _, err := z.WriteAt(data, 0); err != nil {
		return err
	}
	z.Close()
	if err := b.recount(); err != nil {
		return err
	}
	b.Abandon()
	o := rec.opts
	o.Storage = j
	if *p, err = Open(c.dir, o); err != nil {
		return fmt.Errorf("open once more: %w", err)
	}
	before["z"] = sumOf(data, 16<<10)
	after, err := observe(*p)
	if err == nil && !maps.EqualFunc(before, after, (*sum).equal) {
		err = errors.New("another opening shows something else")
	}
	return err
}

// open opens a pool after a crash.
func (c *crasher) open(j *memdev.Journal, files []boltFile, o OpenOptions) (*Pool, error) {
	if err := writeBolt(c.dir, files); err != nil {
		return nil, err
	}
	o.Storage = j
	return Open(c.dir, o)
}

// recovery opens a state, crashes again while it recovers, and verifies what is
// left then.
func (c *crasher) recovery(rec *recording, s *memdev.State, times int) error {
	power := s.Seed != 0
	files := boltState(s, rec.base)
	if err := writeBolt(c.dir, files); err != nil {
		return err
	}
	r, err := newBoltRecorder(s.Journal, paths(c.dir, len(files)))
	if err != nil {
		return err
	}
	o := rec.opts
	o.Storage, o.Tunables.commit = s.Journal, r.commit
	p, err := Open(c.dir, o)
	if err != nil {
		return err
	}
	p.Abandon()
	if len(s.Journal.Devices()) == 0 {
		return nil
	}
	// A replica that was rebuilt when the pool was opened is there anew in all of
	// these states: the rename of a whole file is internal/meta's business.
	base := files
	if all := s.Journal.State(s.Journal.Len(), 0).Foreign(); len(all) > 0 {
		base = all[0].(boltMoment).before
	}
	for range times {
		again := s.Journal.State(c.rng.IntN(s.Journal.Len()+1), c.rng.Uint64()|1)
		if err := c.verify(rec, again, base, s.Marks(), power, c.rng.IntN(8) == 0); err != nil {
			return fmt.Errorf("crash again, %v: %w", again, err)
		}
	}
	return nil
}

func paths(dir string, n int) (all []string) {
	for i := range n {
		all = append(all, ReplicaName(dir, i))
	}
	return all
}

// each runs f for n numbers on all processors, in directories in memory, until
// one fails.
func each(t *testing.T, n int, f func(c *crasher, i int) error) {
	t.Helper()
	var next atomic.Int64
	var failure atomic.Pointer[error]
	var wg sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		c := &crasher{dir: tempDir(t), rng: rand.New(rand.NewPCG(uint64(w), uint64(n)))}
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failure.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(c, i); err != nil {
					failure.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failure.Load(); err != nil {
		t.Fatal(*err)
	}
}

var crashProfiles = []struct {
	Profile
	devices int
	meta    Profile
}{{Single, 1, Single}, {Mirror, 2, Mirror}, {RaidZ1, 3, Mirror}, {RaidZ2, 4, Single}, {Single, 2, Single}}

// TestAfterAnyCrashThePoolIsWhatItPromises enumerates what may be on devices and
// in the metadata after the process or the machine ended at any place of some
// scripts, LAMINA_CRASH_STATES of them.
func TestAfterAnyCrashThePoolIsWhatItPromises(t *testing.T) {
	states := fromEnv("LAMINA_CRASH_STATES", 2000)
	const perRecording = 1000
	count := max((states+perRecording-1)/perRecording, 1)
	for i := range count {
		profile := crashProfiles[i%len(crashProfiles)]
		t.Run(fmt.Sprintf("%d, %v", i, profile.Profile), func(t *testing.T) {
			rec := record(t, profile.Profile, profile.devices, profile.meta, uint64(i), 2-i%3/2, 250)
			begin := time.Now()
			each(t, min(perRecording, states), func(c *crasher, k int) error {
				n := rec.journal.Len() - rec.from
				at, seed := rec.from+c.rng.IntN(n+1), c.rng.Uint64()|1
				if k%4 == 0 { // the process was killed
					at, seed = rec.from+k*n/perRecording, 0
				}
				s := rec.journal.State(at, seed)
				if err := c.verify(rec, s, rec.base, s.Marks(), seed != 0, k%8 == 1); err != nil {
					return fmt.Errorf("%v: %w", s, err)
				}
				return nil
			})
			t.Logf("%d entries, %v per state", rec.journal.Len(), time.Since(begin)/time.Duration(min(perRecording, states)))
		})
	}
}

// TestACrashDuringRecoveryLosesNothing crashes while the pool recovers from a
// crash, LAMINA_RECOVERY_STATES times.
func TestACrashDuringRecoveryLosesNothing(t *testing.T) {
	states := fromEnv("LAMINA_RECOVERY_STATES", 500)
	const perState, perRecording = 5, 500
	for i := range max(states/perRecording, 1) {
		profile := crashProfiles[i%len(crashProfiles)]
		t.Run(fmt.Sprintf("%d, %v", i, profile.Profile), func(t *testing.T) {
			rec := record(t, profile.Profile, profile.devices, profile.meta, uint64(1000+i), 1, 120)
			each(t, min(perRecording, states)/perState, func(c *crasher, k int) error {
				s := rec.journal.State(rec.from+c.rng.IntN(rec.journal.Len()-rec.from+1), c.rng.Uint64()*uint64(k%2))
				if err := c.recovery(rec, s, perState); err != nil {
					return fmt.Errorf("%v: %w", s, err)
				}
				return nil
			})
		})
	}
}
