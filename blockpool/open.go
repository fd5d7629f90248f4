package blockpool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
	"github.com/laminafs/lamina/blockpool/internal/spacemap"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// OpenOptions say how a pool is opened. The zero value will do.
type OpenOptions struct {
	Tunables
	Storage       Storage  // nil: files and block devices
	SearchDevices []string // where to look for devices that are not where they were
	ReadOnly      bool     // change nothing, not even to recover: what only the intent log has is not shown
	Listen        func(Event)
}

// Open opens the pool that a path leads to: a directory with its metadata, a
// replica of the metadata, or one of its devices. It brings back what the intent log
// has, so after a crash it needs no help.
//
// It fails with [ErrIncomplete] when what is there does not suffice, naming what is
// missing, with [ErrNewer] for a pool of a newer format, and with [ErrDamaged].
func Open(path string, o OpenOptions) (_ *Pool, err error) {
	if o.Storage == nil {
		o.Storage = Files
	}
	p := &Pool{
		tune: o.Tunables.withDefaults(), storage: o.Storage, jobs: jobs{moving: make(chan struct{}, 1)}, space: newSpace(), catalogue: newCatalogue(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), stopped: make(chan struct{}),
	}
	p.nodes = newNodeCache(p.tune.NodeCache)
	p.readCache = newReadCache(p.tune.ReadCache)
	p.epochs.after = p.releaseFreed
	if o.Listen != nil {
		p.Listen(o.Listen)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open pool %s: %w", path, errors.Join(err, p.letGo()))
		}
	}()
	if err := p.openMetadata(path, &o); err != nil {
		return nil, err
	}
	view, err := p.meta.View()
	if err != nil {
		return nil, err
	}
	p.epochs.advance(&epoch{txg: p.meta.Txg(), view: view, pool: p}, nil)
	if err := p.load(view, &o); err != nil {
		return nil, err
	}
	if err := p.measureMetadata(); err != nil {
		return nil, err
	}
	if o.ReadOnly {
		p.failure.Store(new(error(ErrReadOnly)))
		p.open = newTxg(p.meta.Txg() + 1)
		close(p.stopped)
		return p, nil
	}
	if err := p.replay(); err != nil {
		return nil, err
	}
	if p.log, err = intent.Open(p.logArea, p.guid, p.meta.Txg()); err != nil {
		return nil, err
	}
	go p.syncLoop()
	p.continueScrub()
	p.continueMoves()
	return p, nil
}

// openMetadata finds the replicas and opens them.
func (p *Pool) openMetadata(path string, o *OpenOptions) error {
	replicas, lab, err := findReplicas(path, o.Storage)
	if err != nil {
		return err
	}
	guid := meta.GUID{}
	if lab != nil {
		guid = lab.pool
	}
	p.meta, err = meta.Open(replicas, guid, meta.Options{ReadOnly: o.ReadOnly, Event: p.replicaEvent})
	if errors.Is(err, meta.ErrInUse) {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}

// findReplicas returns the metadata replicas of the pool that a path leads to, and
// the label that named them, if one did. In a directory they may be links: a
// replica that lies elsewhere is known, and written anew, where it lies.
func findReplicas(path string, storage Storage) ([]string, *label, error) {
	path, err := absolute(path)
	if err != nil {
		return nil, nil, err
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		found, err := filepath.Glob(filepath.Join(path, "meta-*.db"))
		if err != nil || len(found) == 0 {
			return nil, nil, fmt.Errorf("no meta-*.db in %s: give a replica of the metadata, or a device of the pool: %w", path, ErrNotFound)
		}
		for i, name := range found {
			if to, err := os.Readlink(name); err == nil {
				if !filepath.IsAbs(to) {
					to = filepath.Join(path, to)
				}
				found[i] = to
			}
		}
		return found, nil, nil
	}
	dev, err := storage.Open(path)
	if errors.Is(err, vdev.ErrInUse) {
		return nil, nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer dev.Close()
	l, err := readLabel(dev)
	switch {
	case errors.Is(err, ErrNewer):
		return nil, nil, err
	case err != nil:
		return []string{path}, nil, nil // a replica, or nothing: meta.Open says
	}
	return l.replicas, l, nil
}

// replicaEvent passes on what happens to the metadata.
func (p *Pool) replicaEvent(e meta.Event) {
	p.events.add(Event{Kind: EventReplica, Object: e.Path, Text: fmt.Sprintf("replica %v: %v", e.Kind, e.Err)})
}

// load reads everything but the trees.
func (p *Pool) load(view *meta.View, o *OpenOptions) error {
	if err := p.events.load(view); err != nil {
		return err
	}
	if err := p.loadConfig(view); err != nil {
		return err
	}
	value, err := view.Get(meta.Config, []byte(keyState))
	if err != nil {
		return err
	}
	if p.state, err = unpackState(value); err != nil {
		return err
	}
	p.tours.lastNode.Store(p.state.nextNode)
	p.newCounts()
	if err := p.loadDevices(view, o); err != nil {
		return err
	}
	if err := p.loadChunks(view); err != nil {
		return err
	}
	if err := p.checkChunks(); err != nil {
		return err
	}
	if err := p.loadProperties(view); err != nil {
		return err
	}
	if err := p.loadCatalogue(view); err != nil {
		return err
	}
	if err := p.loadScrub(view); err != nil {
		return err
	}
	if err := p.loadConvert(view); err != nil {
		return err
	}
	return p.dead.load(view)
}

// loadConfig reads what the pool is called and how it is set.
func (p *Pool) loadConfig(view *meta.View) error {
	value, err := view.Get(meta.Config, []byte(keyConfig))
	if err != nil {
		return err
	}
	config, guid, err := unpackConfig(value)
	if err != nil {
		return err
	}
	p.guid = guid
	p.config.Store(&config)
	return nil
}

// newCounts makes the space maps, which read their segments when they need them.
func (p *Pool) newCounts() {
	load := func(b meta.Bucket) func(uint64) ([]byte, error) {
		return func(seg uint64) ([]byte, error) {
			if p.epochs.empty() {
				return nil, nil // a pool that is being made
			}
			return p.epochs.current().view.Get(b, key64(seg))
		}
	}
	p.counts, p.nodeCounts = spacemap.New(load(meta.Space)), spacemap.New(load(meta.NodeMap))
}

// newArray makes the array of the pool's devices.
func newArray(p *Pool) *raid.Array {
	a := raid.New(raid.Hooks{
		Fault: p.faulted,
		Heal:  p.healed,
	})
	for _, d := range p.devices.all() {
		if d.dev != nil {
			a.Add(raid.DeviceID(d.id), d.dev)
		}
	}
	return a
}

// healed is told by the array that it has mended wrong bytes.
func (p *Pool) healed(id raid.DeviceID, off, n int64) {
	path := fmt.Sprintf("device %d", id)
	if d := p.devices.get(uint32(id)); d != nil {
		path = d.state.Load().path
	}
	p.events.add(Event{Kind: EventHealed, Object: path, Text: fmt.Sprintf("%d bytes at %d were wrong and are mended", n, off)})
}

// loadDevices opens the devices that are there.
func (p *Pool) loadDevices(view *meta.View, o *OpenOptions) error {
	txg := p.meta.Txg()
	err := view.Scan(meta.Devices, nil, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return fmt.Errorf("device: %w", err)
		}
		st, err := unpackDevice(uint32(id), value)
		if err != nil {
			return err
		}
		dev, err := o.deviceAt(st, p.guid)
		p.devices.add(newDevice(*st, dev))
		if err != nil {
			p.events.add(Event{Kind: EventDevice, Object: st.path, Text: fmt.Sprintf("device is missing: %v", err)})
			p.later(p.noteAway(st.id, txg+1)) // it misses even what the intent log brings back
			return nil
		}
		l, err := readLabel(dev)
		if err != nil {
			return err
		}
		if l.txg > txg {
			return fmt.Errorf("device %s knows txg %d, and the newest metadata found (%s) is of %d: find the other replicas (%v): %w",
				st.path, l.txg, p.replicaPaths(), txg, l.replicas, ErrIncomplete)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.array = newArray(p)
	return nil
}

// checkChunks refuses a pool whose chunks lack more devices than they may.
func (p *Pool) checkChunks() error {
	var missing []string
	for _, c := range p.space.all() {
		lost := 0
		for _, col := range c.Columns {
			if d := p.devices.get(uint32(col.Device)); d == nil || d.dev == nil {
				lost++
				if d != nil && !slices.Contains(missing, d.state.Load().path) {
					missing = append(missing, d.state.Load().path)
				}
			}
		}
		may := c.Profile.Parity()
		if c.Profile == Mirror {
			may = len(c.Columns) - 1
		}
		if lost > may {
			next := "find them"
			if c.Class == format.Log {
				next += ", or have repair make a new log, which gives up what is in this one"
			}
			return fmt.Errorf("chunk %d (%v, %v) lacks %d of %d devices, missing are %v: %s: %w", c.ID, c.Class, c.Profile, lost, len(c.Columns), missing, next, ErrIncomplete)
		}
		if c.Class == format.Log {
			p.logArea = &logArea{p: p}
			p.logArea.chunk.Store(c)
		}
	}
	if p.logArea == nil {
		return damagedf("the pool has no intent log: have repair make a new one")
	}
	return nil
}

// loadCatalogue reads the entries of volumes and snapshots.
func (p *Pool) loadCatalogue(view *meta.View) error {
	err := view.Scan(meta.Volumes, nil, func(key, value []byte) error {
		id, err := parseKey64(key)
		if err != nil {
			return fmt.Errorf("catalogue: %w", err)
		}
		e, err := unpackEntry(id, value)
		if err != nil {
			return err
		}
		if other := p.catalogue.find(e.name); other != nil {
			return damagedf("catalogue: entries %d and %d are both called %s", other.id, id, e.name)
		}
		p.catalogue.set(p, e)
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range p.catalogue.all() {
		p.catalogue.noteSharer(v.entry.Load())
	}
	p.space.promise(p.catalogue.countAnew())
	return nil
}
