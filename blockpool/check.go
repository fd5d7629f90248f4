package blockpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// CheckOptions say what a check looks at, beyond all metadata.
type CheckOptions struct {
	Data        bool // read every copy of every record, parity included, and compare its checksum
	RepairLeaks bool // free what is leaked, if nothing is damaged
	Progress    func(CheckProgress)

	Storage       Storage  // nil: files and block devices; for [Check] alone, like the next
	SearchDevices []string // where to look for devices that are not where they were
}

// CheckProgress tells how far a check is.
type CheckProgress struct {
	Phase string // what is being looked at
	Done  int64  // records or segments
	Total int64  // about as many as there are; 0 if that is not known
}

// Check looks at all of a pool that is not open, and changes nothing, save with
// RepairLeaks. The path is what [Open] takes. The error says why it could not
// look; what is wrong with the pool is in the report.
func Check(ctx context.Context, path string, o CheckOptions) (*Report, error) {
	if o.Storage == nil {
		o.Storage = Files
	}
	r, err := checkOffline(ctx, path, &o)
	if err == nil && o.RepairLeaks && r.Class == ClassLeaks {
		r, err = freeLeaksOffline(ctx, path, &o)
	}
	if err != nil {
		return nil, fmt.Errorf("check pool %s: %w", path, err)
	}
	return r, nil
}

func freeLeaksOffline(ctx context.Context, path string, o *CheckOptions) (*Report, error) {
	p, err := Open(path, OpenOptions{Storage: o.Storage, SearchDevices: o.SearchDevices})
	if err != nil {
		return nil, err
	}
	r, err := p.Check(ctx, *o)
	return r, errors.Join(err, p.Close())
}

// Check looks at all of the pool as of the last durable transaction group, while
// the pool is in use. It keeps that state from being overwritten until it is
// done, so space that is freed meanwhile comes back only then, and the metadata
// may grow. What it finds wrong of a copy of a record is mended, as by any read.
func (p *Pool) Check(ctx context.Context, o CheckOptions) (*Report, error) {
	e := p.epochs.hold()
	defer e.release()
	c := newChecker(ctx, e.view, p.guid, e.txg, &o)
	defer c.end()
	c.online = p
	for _, i := range p.meta.Replicas() {
		c.replica(i, e.txg, true)
	}
	if err := c.run(); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if o.RepairLeaks && c.r.Class == ClassLeaks {
		if err := p.freeLeaks(ctx, &c.leaks, c.r); err != nil {
			return nil, fmt.Errorf("check: free what is leaked: %w", err)
		}
	}
	return c.r, nil
}

// metadata is one state of a pool's metadata, whole or not.
type metadata interface {
	Get(b meta.Bucket, key []byte) ([]byte, error)
	Each(b meta.Bucket, f func(key, value []byte, damage error) error) error
}

var (
	_ metadata = (*meta.View)(nil)
	_ metadata = meta.State{}
)

// A checker looks at one state of a pool. It reads everything from the metadata
// itself, nothing from what an open pool has in memory.
type checker struct {
	ctx    context.Context
	o      *CheckOptions
	r      *Report
	start  time.Time
	src    metadata
	txg    uint64
	online *Pool // nil: the pool is not open

	config  Config
	state   state
	stateOK bool
	devices map[uint32]*checkedDevice
	chunks  []*raid.Chunk // by base, without overlap
	entries []*entry      // by id
	dead    [][]btree.NodeID

	array   *raid.Array // of the devices, for reading; nil when the pool is open
	heals   healed
	tree    *btree.Checker
	walking *entry // whose tree is being walked; nil: a destroyed one's
	failed  error  // why the last node could not be loaded
	sectors *recount
	used    map[uint64]int64 // bytes of records, by owner
	leaks   leaks
}

func newChecker(ctx context.Context, src metadata, guid GUID, txg uint64, o *CheckOptions) *checker {
	return &checker{
		ctx: ctx, o: o, src: src, txg: txg, start: time.Now(),
		r:       &Report{GUID: guid, Txg: txg, Class: ClassClean, Findings: []Finding{}},
		devices: map[uint32]*checkedDevice{}, sectors: newRecount(), used: map[uint64]int64{},
	}
}

// run looks at everything below the replicas. An error says that it was ended.
func (c *checker) run() error {
	for _, part := range []func() error{
		c.checkConfig, c.checkDevices, c.checkChunks, c.checkLog, c.checkCatalogue, c.checkDead,
		c.checkTrees, c.checkNodes, c.checkSectors, c.checkTotals, c.checkRest,
	} {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		if err := part(); err != nil {
			return err
		}
	}
	c.r.Duration = time.Since(c.start)
	return nil
}

// end closes what was opened.
func (c *checker) end() {
	for _, d := range c.devices {
		if d.dev != nil && c.online == nil {
			d.dev.Close() // nothing was written to it
		}
	}
}

func (c *checker) progress(phase string, done, total int64) {
	if c.o.Progress != nil {
		c.o.Progress(CheckProgress{phase, done, total})
	}
}

// checkOffline opens what is needed for reading.
func checkOffline(ctx context.Context, path string, o *CheckOptions) (*Report, error) {
	paths, lab, err := findReplicas(path, o.Storage)
	if err != nil {
		return nil, err
	}
	guid := GUID{}
	if lab != nil {
		guid = lab.pool
	}
	store, err := meta.Open(paths, guid, meta.Options{ReadOnly: true})
	var diverged error
	if errors.Is(err, meta.ErrDiverged) {
		diverged = err
		store, err = meta.Open(paths[:1], guid, meta.Options{ReadOnly: true}) // one of them, for the rest
	}
	if errors.Is(err, ErrDamaged) || err != nil && anyExists(paths) && !errors.Is(err, meta.ErrInUse) && !errors.Is(err, meta.ErrForeign) {
		r := &Report{GUID: guid, Class: ClassClean}
		if lab != nil {
			r.Pool = lab.name
		}
		r.add(Finding{Kind: FindMetadataMissing, Replica: paths[0], Text: err.Error()})
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	view, err := store.View()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	c := newChecker(ctx, view, store.GUID(), view.Txg(), o)
	defer c.end()
	if diverged != nil {
		c.r.add(Finding{Kind: FindReplicaDiffers, Replica: paths[0], Text: diverged.Error()})
	}
	c.checkReplicas(store)
	if err := c.run(); err != nil {
		return nil, err
	}
	return c.r, nil
}

// number is a pointer to a number, for a finding.
func number[T uint64 | int64](n T) *T { return &n }

// value reports a value that does not fit its checksum.
func (c *checker) value(b meta.Bucket, key []byte, damage error) {
	c.r.add(Finding{Kind: FindValue, Text: fmt.Sprintf("%v, key %x: %v", b, key, damage)})
}

// each calls f with the whole values of a bucket whose keys are numbers.
func (c *checker) each(b meta.Bucket, f func(n uint64, value []byte)) error {
	err := c.src.Each(b, func(key, value []byte, damage error) error {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		n, err := parseKey64(key)
		switch {
		case damage != nil:
			c.value(b, key, damage)
		case err != nil:
			c.r.add(Finding{Kind: FindValue, Text: fmt.Sprintf("%v, key %x: %v", b, key, err)})
		default:
			f(n, value)
		}
		return nil
	})
	if errors.Is(err, ErrDamaged) {
		c.r.add(Finding{Kind: FindValue, Text: fmt.Sprintf("%v: %v", b, err)})
		return nil
	}
	return err
}

// chunk returns the chunk that covers an address, or nil.
func (c *checker) chunk(at format.Addr) *raid.Chunk {
	i, found := slices.BinarySearchFunc(c.chunks, at, func(x *raid.Chunk, at format.Addr) int {
		switch {
		case x.Base > at:
			return 1
		case x.Base < at:
			return -1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 || uint64(at-c.chunks[i].Base) >= uint64(c.chunks[i].Sectors) {
		return nil
	}
	return c.chunks[i]
}

// checkConfig looks at the configuration and the numbers given out next.
func (c *checker) checkConfig() error {
	value, err := c.src.Get(meta.Config, []byte(keyConfig))
	var guid GUID
	if err == nil {
		c.config, guid, err = unpackConfig(value)
	}
	switch {
	case errors.Is(err, ErrNewer):
		return err
	case err != nil:
		c.r.add(Finding{Kind: FindConfig, Text: err.Error()})
	case guid != c.r.GUID:
		c.r.add(Finding{Kind: FindConfig, Text: fmt.Sprintf("the configuration is that of pool %s, the metadata that of %s", guid, c.r.GUID)})
	}
	c.r.Pool = c.config.Name
	if value, err = c.src.Get(meta.Config, []byte(keyState)); err == nil {
		c.state, err = unpackState(value)
	}
	if err != nil || value == nil {
		c.r.add(Finding{Kind: FindState, Text: fmt.Sprintf("the numbers that are given out next: %v", err)})
		return nil
	}
	c.stateOK = true
	return nil
}

// counter reports a number that is to be given out again.
func (c *checker) counter(what string, next, used uint64) {
	if c.stateOK && used > next {
		c.r.add(Finding{Kind: FindCounter, Text: fmt.Sprintf("%s %d is in use, and the last one given out is %d", what, used, next)})
	}
}

// checkRest reports values of the other buckets that do not fit their checksum.
func (c *checker) checkRest() error {
	for _, b := range plainBuckets {
		err := c.src.Each(b, func(key, _ []byte, damage error) error {
			if known := b == meta.Config && (string(key) == keyConfig || string(key) == keyState); damage != nil && !known {
				c.value(b, key, damage)
			}
			return nil
		})
		if err != nil {
			c.r.add(Finding{Kind: FindValue, Text: fmt.Sprintf("%v: %v", b, err)})
		}
	}
	return nil
}
