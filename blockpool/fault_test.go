package blockpool

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// A failing is a script on a pool in which something fails.
type failing struct {
	*bench
	script *script
	base   []boltFile
	rec    *recording
	bolt   *boltRecorder
}

// newFailing makes a pool whose script is the same for the same seed.
func newFailing(t testing.TB, profile Profile, devices int, metadata Profile, seed uint64) *failing {
	f := &failing{bench: newSmallBench(t, Config{DataProfile: profile, MetadataProfile: metadata}, devices, memdev.NewJournal())}
	f.opts.Tunables.DirtyLimit, f.opts.Tunables.deadPerTxg = 128<<10, 2
	f.rec = &recording{journal: f.journal, opts: f.opts}
	var err error
	f.bolt, err = newBoltRecorder(f.journal, paths(f.dir, 1+int(min(metadata, 1))))
	f.must(err)
	f.base = f.bolt.now
	f.opts.Tunables.commit = f.bolt.commit
	f.script = newScript(f.bench, "a", seed)
	f.rec.scripts = []*script{f.script}
	return f
}

// run does steps until one fails, and what is wrong when none may.
func (f *failing) run(steps int) error {
	for i := range steps {
		if err := f.script.step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// afterwards ends the pool, with and without the power failing, and looks whether
// everything that was acknowledged is there. The failing is of no use after that: its
// devices are memory, which thousands of them cannot keep to the end of a test.
func (f *failing) afterwards(c *crasher) error {
	f.Abandon()
	f.Pool = nil
	defer func() { f.journal, f.opts, f.rec = nil, OpenOptions{}, nil }()
	for _, seed := range []uint64{0, c.rng.Uint64() | 1} {
		s := f.journal.State(f.journal.Len(), seed)
		if err := c.verify(f.rec, s, f.base, s.Marks(), seed != 0, true); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	return nil
}

// failsRightly reports whether an error is what a user may get to see for a
// device that fails with that errno.
func failsRightly(err error, errno unix.Errno) bool {
	return errors.Is(err, errno) || errors.Is(err, ErrNeedsCheck) || errors.Is(err, ErrDamaged) && errno == unix.EIO
}

// TestEachIOThatFailsLosesNothingThatWasFlushed has the first, second, third …
// operation of the devices fail, once, and in every way.
func TestEachIOThatFailsLosesNothingThatWasFlushed(t *testing.T) {
	steps, stride := fromEnv("LAMINA_FAULT_STEPS", 300), fromEnv("LAMINA_FAULT_STRIDE", 40)
	for i, profile := range crashProfiles[:4] {
		t.Run(profile.Profile.String(), func(t *testing.T) {
			counted := newFailing(t, profile.Profile, profile.devices, profile.meta, 77)
			counted.open()
			before := counted.journal.Ops(memdev.AnyOp)
			counted.must(counted.run(steps))
			ops := counted.journal.Ops(memdev.AnyOp) - before
			counted.Abandon()
			counted.Pool = nil
			t.Logf("%d operations", ops)
			each(t, (ops+stride-1)/stride, func(c *crasher, k int) error {
				n := k*stride + i%stride
				f := newFailing(t, profile.Profile, profile.devices, profile.meta, 77)
				f.open()
				errno := []unix.Errno{unix.EIO, unix.ENOSPC}[n/stride%2]
				f.journal.Inject(memdev.Fault{Skip: n, Times: 1, Err: errno, Short: n % 3 * 512})
				err := f.run(steps)
				switch {
				case err == nil:
				case profile.Profile != Single:
					return fmt.Errorf("operation %d: one device failed and others have the rest: %w", n, err)
				case !failsRightly(err, errno):
					return fmt.Errorf("operation %d failed with %v: %w", n, errno, err)
				}
				if err := f.afterwards(c); err != nil {
					return fmt.Errorf("operation %d: %w", n, err)
				}
				return nil
			})
		})
	}
}

// TestEachCommitThatFailsMakesThePoolReadOnly has each commit of the metadata
// fail, without and with its changes being durable.
func TestEachCommitThatFailsMakesThePoolReadOnly(t *testing.T) {
	for n := 1; ; n++ {
		f := newFailing(t, Single, 1, Single, 5)
		commits := 0
		f.opts.Tunables.commit = func(commit func() error) error {
			if commits++; commits != n {
				return f.bolt.commit(commit)
			}
			if n%2 == 0 {
				f.must(f.bolt.commit(commit))
			}
			return unix.EIO
		}
		p, err := Open(f.dir, f.opts)
		f.Pool = p
		if err == nil {
			err = f.run(60)
		}
		if commits < n {
			break
		}
		if n > 1 && !errors.Is(err, ErrNeedsCheck) {
			t.Fatalf("commit %d: %v", n, err)
		}
		if n == 1 { // opening has failed
			if !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
			continue
		}
		for _, i := range f.Volumes() {
			if i.IsDataset() {
				f.see(i.Name)
				tree := f.tree(i.Name)
				if err := tree.Apply(ctx, &Batch{Items: manyItems(1)}); !errors.Is(err, ErrReadOnly) && !errors.Is(err, ErrNeedsCheck) {
					t.Errorf("commit %d: a batch: %v", n, err)
				}
				f.must(tree.Close())
				continue
			}
			v, err := f.Open(i.Name)
			f.must(err)
			if _, err := v.ReadAt(make([]byte, 1), 0); err != nil {
				t.Errorf("commit %d: a read: %v", n, err)
			}
			if _, err := v.WriteAt(make([]byte, 1), 0); !errors.Is(err, ErrReadOnly) && !errors.Is(err, ErrNeedsCheck) {
				t.Errorf("commit %d: a write: %v", n, err)
			}
			v.Close()
		}
		f.must(f.afterwards(&crasher{dir: tempDir(t), rng: rand.New(rand.NewPCG(1, uint64(n)))}))
	}
}

// TestADeviceThatLiesAboutDurabilityNeverGivesWrongBytes loses power on devices
// that acknowledge syncs and do nothing.
func TestADeviceThatLiesAboutDurabilityNeverGivesWrongBytes(t *testing.T) {
	for _, profile := range crashProfiles[:3] {
		t.Run(profile.Profile.String(), func(t *testing.T) {
			f := newFailing(t, profile.Profile, profile.devices, profile.meta, 9)
			f.open()
			f.must(f.run(40))
			f.journal.Inject(memdev.Fault{Ops: memdev.Syncs, Drop: true})
			from := f.journal.Len()
			f.must(f.run(150))
			f.Abandon()
			f.Pool = nil
			refused, damaged := 0, 0
			for i := range uint64(300) {
				s := f.journal.State(from+int(i)*(f.journal.Len()-from)/300, i*2+1)
				n, err := f.neverWrong(s.Journal, boltState(s, f.base))
				switch {
				case errors.Is(err, ErrDamaged) || errors.Is(err, ErrIncomplete):
					refused++
				case err != nil:
					t.Fatalf("%v: %v", s, err)
				}
				damaged += n
			}
			t.Logf("%d pools could not be opened, %d records were damaged", refused, damaged)
		})
	}
}

// neverWrong opens a pool of which something is lost, and returns how many
// records cannot be read. All others are what they were at one time or another.
func (f *failing) neverWrong(j *memdev.Journal, files []boltFile) (damaged int, err error) {
	c := &crasher{dir: tempDir(f)}
	p, err := c.open(j, files, f.rec.opts)
	if err != nil {
		return 0, err
	}
	defer p.Abandon()
	for _, i := range p.Volumes() {
		if i.IsDataset() {
			t, err := p.OpenTree(i.Name)
			if err != nil {
				return damaged, err
			}
			defer t.Close()
			switch seen, err := seeTree(t); {
			case errors.Is(err, ErrDamaged):
				damaged++
			case err != nil:
				return damaged, err
			case !f.everWas(i.Name, sumOfTree(seen), nil):
				return damaged, fmt.Errorf("%s is what it never was", i.Name)
			}
			continue
		}
		v, err := p.Open(i.Name)
		if err != nil {
			return damaged, err
		}
		defer v.Close()
		seen := &sum{size: i.Size, recordSize: i.RecordSize}
		var bad []bool
		for off := int64(0); off < i.Size; off += i.RecordSize {
			b := make([]byte, min(i.RecordSize, i.Size-off))
			_, err := v.ReadAt(b, off)
			if err != nil && !errors.Is(err, ErrDamaged) {
				return damaged, err
			}
			bad = append(bad, err != nil)
			seen.records = append(seen.records, sumOf(b, i.RecordSize).records[0])
			if err != nil {
				damaged++
			}
		}
		if !f.everWas(i.Name, seen, bad) {
			return damaged, fmt.Errorf("%s is what it never was", i.Name)
		}
	}
	return damaged, nil
}

// everWas reports whether a volume, bad records aside, was so after some step.
func (f *failing) everWas(name string, seen *sum, bad []bool) bool {
	for _, state := range f.script.states {
		want := state[name]
		if want == nil || want.size != seen.size || want.recordSize != seen.recordSize {
			continue
		}
		same := want.tree.equal(seen.tree)
		for i := range bad {
			same = same && (bad[i] || seen.records[i] == want.records[i])
		}
		if same {
			return true
		}
	}
	return false
}

// TestAMisdirectedWriteIsFoundByEveryProfile has one write land elsewhere.
func TestAMisdirectedWriteIsFoundByEveryProfile(t *testing.T) {
	for _, profile := range crashProfiles[:4] {
		t.Run(profile.Profile.String(), func(t *testing.T) {
			each(t, fromEnv("LAMINA_MISDIRECTED", 60), func(c *crasher, k int) error {
				f := newFailing(t, profile.Profile, profile.devices, profile.meta, uint64(k%7))
				f.open()
				shift := int64(4096) * (1 + c.rng.Int64N(64))
				f.journal.Inject(memdev.Fault{Ops: memdev.Writes, Skip: c.rng.IntN(300), Times: 1, Shift: shift})
				if err := f.run(80); err != nil {
					if profile.Profile == Single && errors.Is(err, ErrDamaged) {
						return nil
					}
					return err
				}
				if profile.Profile == Single {
					if _, err := f.neverWrongNow(); err != nil {
						return err
					}
					return nil
				}
				seen, err := observe(f.Pool)
				if err == nil && !maps.EqualFunc(seen, f.script.now(), (*sum).equal) {
					err = errors.New("something else is shown than was written")
				}
				return err
			})
		})
	}
}

// neverWrongNow is neverWrong for the pool that is open.
func (f *failing) neverWrongNow() (int, error) {
	f.Abandon()
	f.Pool = nil
	s := f.journal.State(f.journal.Len(), 0)
	n, err := f.neverWrong(s.Journal, boltState(s, f.base))
	if errors.Is(err, ErrDamaged) {
		err = nil
	}
	return n, err
}

// TestAllocationsThatFailChangeNothingElse lets the pool have no space for some
// steps of a script: what is refused is refused cleanly, and later all goes on.
func TestAllocationsThatFailChangeNothingElse(t *testing.T) {
	for k := range fromEnv("LAMINA_ALLOC_FAULTS", 30) {
		b := newSmallBench(t, Config{}, 1, memdev.NewUnrecorded())
		b.opts.Tunables.DirtyLimit = 128 << 10
		b.open()
		m := newModel(b, "v", 3)
		for i := range 60 {
			if i == k%50 {
				b.freeze(true)
			}
			if i == k%50+1+k/50 {
				b.freeze(false)
			}
			if err := m.step(); err != nil && !(b.frozen() && strings.HasPrefix(err.Error(), "create") && errors.Is(err, ErrNoSpace)) {
				m.failed(t, err)
			}
		}
		b.freeze(false)
		if err := errors.Join(m.compareAll(), b.recount()); err != nil {
			m.failed(t, err)
		}
		b.Abandon()
		b.Pool = nil
	}
}

// freeze keeps all chunks from giving out space, or lets them.
func (b *bench) freeze(frozen bool) {
	for _, c := range b.space.all() {
		b.space.freeze(c, frozen)
	}
}

func (b *bench) frozen() bool { return b.space.all()[0].frozen }
