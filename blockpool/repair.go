package blockpool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// A RepairSource says what metadata is rebuilt from.
type RepairSource string

// The sources, in the order in which they are preferred when nothing is lost by
// taking them.
const (
	RepairNewest RepairSource = "newest" // the newest state of a replica
	RepairOlder  RepairSource = "older"  // a state before that: bbolt keeps the last one
	RepairPages  RepairSource = "pages"  // values in the pages of replicas, whose structure is gone
)

// RepairOptions say how a pool is repaired.
type RepairOptions struct {
	Source        RepairSource // "" takes the one by which least is lost
	Force         bool         // go back to a state that devices know to be old
	NewLog        bool         // give up an intent log that cannot be read, and make a new one
	Data          bool         // read every record; one that fits no checksum, or does not unpack, becomes a hole
	Storage       Storage      // nil: files and block devices
	SearchDevices []string     // where to look for devices that are not where they were
}

// A RepairPlan says what a repair would do. It is made without changing anything.
type RepairPlan struct {
	Pool    string       `json:"pool"`
	GUID    GUID         `json:"guid"`
	Report  *Report      `json:"report"` // what is wrong
	Needed  bool         `json:"needed"` // there is something to do
	Source  RepairSource `json:"source,omitempty"`
	Replica string       `json:"replica,omitempty"` // that is read
	Txg     uint64       `json:"txg"`               // of what is read
	Newest  uint64       `json:"newest"`            // that anything knows of
	Force   bool         `json:"force"`             // it needs force
	NewLog  bool         `json:"new_log"`           // the intent log is lost: it needs to be told that a new one is wanted
	Steps   []string     `json:"steps"`             // in words
	Losses  []string     `json:"losses"`            // what will not come back
	Volumes []Recovered  `json:"volumes"`

	o     *RepairOptions
	path  string   // that was given
	paths []string // of the replicas
}

// A Recovered is a volume as it would be.
type Recovered struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`       // volume, dataset or snapshot
	Referenced int64  `json:"referenced"` // bytes
	Lost       bool   `json:"lost_found"` // no entry of the catalogue named it
}

// WriteText writes the plan for people to read.
func (p *RepairPlan) WriteText(w io.Writer) error {
	b := fmt.Appendf(nil, "pool %s (%s)\n", p.Pool, p.GUID)
	if !p.Needed {
		b = fmt.Appendf(b, "nothing is damaged: there is nothing to repair\n")
	}
	for i, s := range p.Steps {
		b = fmt.Appendf(b, "%d. %s\n", i+1, s)
	}
	for _, l := range p.Losses {
		b = fmt.Appendf(b, "lost: %s\n", l)
	}
	for _, v := range p.Volumes {
		b = fmt.Appendf(b, "%s %s: %d bytes\n", v.Kind, v.Name, v.Referenced)
	}
	if p.NewLog {
		b = fmt.Appendf(b, "the intent log cannot be read: find its device, or give up what it holds; that needs to be said (new log)\n")
	}
	if p.Force {
		b = fmt.Appendf(b, "devices know txg %d, and this goes back to %d: it needs force\n", p.Newest, p.Txg)
	}
	_, err := w.Write(b)
	return err
}

// PlanRepair finds out what of a pool that is not open can be had back, and how.
// Nothing is changed. The path is what [Open] takes.
func PlanRepair(ctx context.Context, path string, o RepairOptions) (*RepairPlan, error) {
	if o.Storage == nil {
		o.Storage = Files
	}
	p := &RepairPlan{o: &o, path: path}
	err := p.plan(ctx)
	if err != nil {
		return nil, fmt.Errorf("plan the repair of %s: %w", path, err)
	}
	return p, nil
}

func (p *RepairPlan) plan(ctx context.Context) error {
	var err error
	if p.Report, err = checkOffline(ctx, p.path, &CheckOptions{Data: p.o.Data, Storage: p.o.Storage, SearchDevices: p.o.SearchDevices}); err != nil {
		return err
	}
	p.Pool, p.GUID, p.Txg = p.Report.Pool, p.Report.GUID, p.Report.Txg
	if !p.Report.Damaged() {
		return nil // leaks are check's, and what is degraded mends itself
	}
	p.Needed = true
	s, done, err := p.choose(ctx)
	defer done()
	if err != nil {
		return err
	}
	p.describe(s)
	return nil
}

// Do carries the plan out. The new metadata is written to a file beside the first
// replica and takes the replicas' place only when it checks clean; the old files
// are kept, with .damaged-TXG at their names. It returns what the check of the new
// metadata found. A plan that needs force is refused without it, and one that makes
// a new intent log unless that was asked for.
func (p *RepairPlan) Do(ctx context.Context) (*Report, error) {
	switch {
	case !p.Needed:
		return p.Report, nil
	case p.Force && !p.o.Force:
		return nil, fmt.Errorf("repair: devices know txg %d, and the best that is found is %d: find the newer replicas, or use force: %w", p.Newest, p.Txg, ErrIncomplete)
	case p.NewLog && !p.o.NewLog:
		return nil, fmt.Errorf("repair: the intent log cannot be read: find its device, or ask for a new log, which gives up what it holds: %w", ErrIncomplete)
	}
	r, err := p.do(ctx)
	if err != nil {
		return nil, fmt.Errorf("repair pool %s: %w", p.Pool, err)
	}
	return r, nil
}

// A candidate is a state that metadata may be rebuilt from.
type candidate struct {
	source  RepairSource
	replica string
	txg     uint64
	src     metadata
	s       *salvager
}

// choose salvages what each source has, and returns the best. done closes what
// was opened.
func (p *RepairPlan) choose(ctx context.Context) (s *salvager, done func(), err error) {
	var wrecks []*meta.Wreck
	var tried []*salvager
	done = func() {
		for _, s := range tried {
			closeDevices(s.devices)
		}
		for _, w := range wrecks {
			w.Close() // it was only read
		}
		wrecks = nil
	}
	labels, err := p.find()
	if err != nil {
		return nil, done, err
	}
	var list []candidate
	for _, path := range p.paths {
		w, err := meta.OpenWreck(path, p.GUID)
		if errors.Is(err, meta.ErrInUse) {
			return nil, done, err
		}
		if err != nil {
			p.Losses = append(p.Losses, fmt.Sprintf("replica %s: %v", path, err))
			continue
		}
		wrecks = append(wrecks, w)
		p.GUID = w.GUID()
		for _, st := range w.States() {
			if st.Txg > 0 {
				list = append(list, candidate{source: RepairNewest, replica: path, txg: st.Txg, src: st})
				p.Newest = max(p.Newest, st.Txg)
			}
		}
	}
	if p.GUID == (GUID{}) {
		return nil, done, fmt.Errorf("no replica (%v) tells which pool it belongs to: restore a dump: %w", p.paths, ErrDamaged)
	}
	highest := uint64(0)
	for _, c := range list {
		highest = max(highest, c.txg)
	}
	for i := range list {
		if list[i].txg < highest {
			list[i].source = RepairOlder
		}
	}
	var best *candidate
	try := func(c candidate) error {
		if p.o.Source != "" && p.o.Source != c.source {
			return nil
		}
		c.s = &salvager{ctx: ctx, src: c.src, guid: p.GUID, txg: c.txg, latest: c.txg, verify: p.o.Data}
		tried = append(tried, c.s)
		c.s.unnamed = c.source == RepairPages
		err := c.s.all(labels, p.o)
		closeDevices(c.s.devices)
		if err != nil {
			p.Losses = append(p.Losses, fmt.Sprintf("%s of %s: %v", c.source, c.replica, err))
			return context.Cause(ctx)
		}
		if best == nil || c.better(best) {
			best = &c
		}
		return nil
	}
	for _, c := range list {
		if best != nil && len(best.s.losses) == 0 && best.txg >= c.txg {
			continue
		}
		if err := try(c); err != nil {
			return nil, done, err
		}
	}
	// Pages may have an older value where the newest is broken, which is worse than
	// a hole: they are for when there is nothing else.
	if best == nil || best.s.kept() == 0 {
		src, err := carve(wrecks)
		if err == nil && src.txg > 0 {
			err = try(candidate{source: RepairPages, replica: "all replicas", txg: src.txg, src: src})
		}
		if err != nil {
			return nil, done, err
		}
	}
	if best == nil {
		return nil, done, fmt.Errorf("nothing that a pool could be made of is left (%v): restore a dump: %w", p.Losses, ErrDamaged)
	}
	p.Source, p.Replica, p.Txg = best.source, best.replica, best.txg
	p.Losses = best.s.losses
	p.readLabels(best.s)
	return best.s, done, nil
}

// better reports whether more is left with c than with the other: a state without
// losses before one with some, then a later one, then fewer losses.
func (c *candidate) better(o *candidate) bool {
	whole, otherWhole := len(c.s.losses) == 0, len(o.s.losses) == 0
	switch {
	case c.source == RepairPages:
		return c.s.kept() > o.s.kept()
	case whole != otherWhole:
		return whole
	case c.txg != o.txg:
		return c.txg > o.txg
	}
	return len(c.s.losses) < len(o.s.losses)
}

// kept returns how many bytes the volumes refer to that an entry names.
func (s *salvager) kept() (n int64) {
	for _, e := range s.entries {
		n += e.referenced
	}
	return n
}

// all salvages everything.
func (s *salvager) all(labels []*device, o *RepairOptions) error {
	unnamed := s.unnamed
	if err := s.read(labels, o.Storage, o.SearchDevices); err != nil {
		return err
	}
	s.unnamed = s.unnamed || unnamed && len(s.entries) == 0
	if err := s.walk(); err != nil {
		return err
	}
	if err := s.findLost(); err != nil {
		return err
	}
	return s.makeLog()
}

// find finds the replicas, and the devices of which a label can be read.
func (p *RepairPlan) find() (labels []*device, err error) {
	path, err := absolute(p.path)
	if err != nil {
		return nil, err
	}
	paths, lab, err := findReplicas(path, p.o.Storage)
	if err != nil {
		return nil, err
	}
	p.paths = paths
	look := p.o.SearchDevices
	if lab != nil {
		p.Pool, p.GUID = lab.name, lab.pool
		look = append([]string{path}, look...)
	}
	for _, path := range look {
		dev, err := p.o.Storage.Open(path)
		if err != nil {
			continue
		}
		l, err := readLabel(dev)
		if err == nil && (p.GUID == (GUID{}) || l.pool == p.GUID) {
			labels = append(labels, newDevice(deviceState{id: l.device, guid: l.deviceGUID, path: path, size: l.size}, nil))
			p.Newest = max(p.Newest, l.txg)
		}
		dev.Close() // nothing was written to it
	}
	return labels, nil
}

// describe puts into words what would be done.
func (p *RepairPlan) describe(s *salvager) {
	if p.Pool == "" {
		p.Pool = s.config.Name
	}
	p.Losses = append(p.Losses, s.notes...)
	step := func(format string, args ...any) { p.Steps = append(p.Steps, fmt.Sprintf(format, args...)) }
	switch p.Source {
	case RepairNewest:
		step("read txg %d from %s", p.Txg, p.Replica)
	case RepairOlder:
		step("go back to txg %d, which %s still has", p.Txg, p.Replica)
		p.Losses = append(p.Losses, fmt.Sprintf("all that was changed after txg %d, up to %d, and what the intent log has", p.Txg, p.Newest))
	case RepairPages:
		step("gather values from the pages of %v; of each the newest, of txg %d or before", p.paths, p.Txg)
		p.Losses = append(p.Losses, "what the intent log has; parts of volumes may be as they were earlier, and volumes that were destroyed may be there again")
	}
	if p.NewLog = s.newLog != nil; p.NewLog {
		step("make a new intent log of %d bytes", s.newLog.ColumnBytes())
	}
	step("leave out nodes and records that mean nothing, and count everything anew")
	for _, e := range s.entries {
		v := Recovered{Name: e.name, Kind: e.word(), Referenced: e.referenced, Lost: strings.HasPrefix(e.name, lostFound+"/")}
		p.Volumes = append(p.Volumes, v)
	}
	step("write new metadata to %s.repair, and check it", p.paths[0])
	step("put it in the place of %v, whose files are kept as *%s, and write the labels", p.paths, p.suffix())
}

// readLabels learns from the labels how new the pool was, and which replicas there
// were beside those that were found.
func (p *RepairPlan) readLabels(s *salvager) {
	devices := openDevices(s.states, s.guid, p.o.Storage, p.o.SearchDevices)
	defer closeDevices(devices)
	for _, d := range devices {
		if d.dev == nil {
			continue
		}
		l, err := readLabel(d.dev)
		if err != nil {
			continue
		}
		p.Force = p.Force || l.txg > p.Txg
		p.Newest = max(p.Newest, l.txg)
		for _, path := range l.replicas {
			if len(p.paths) < 3 && !slices.Contains(p.paths, path) && filepath.Dir(path) == filepath.Dir(p.paths[0]) {
				p.paths = append(p.paths, path)
			}
		}
	}
}

func (p *RepairPlan) suffix() string { return fmt.Sprintf(".damaged-%d", p.Txg) }

// do salvages again, as planned, and writes what comes of it.
func (p *RepairPlan) do(ctx context.Context) (*Report, error) {
	o := *p.o
	o.Source = p.Source
	again := &RepairPlan{o: &o, GUID: p.GUID, Pool: p.Pool, path: p.path}
	s, done, err := again.choose(ctx)
	defer done()
	if err != nil {
		return nil, err
	}
	if again.Txg != p.Txg {
		return nil, fmt.Errorf("the metadata has changed since the repair was planned: %w", ErrBusy)
	}
	s.devices = openDevices(s.states, s.guid, o.Storage, o.SearchDevices)
	last := max(lastTxg(s.devices, s.chunks, s.guid), s.latest, p.Newest)
	if s.newLog != nil {
		last += logAhead // as far as the old one may have come
	}
	err = s.formatLog(ctx)
	closeDevices(s.devices)
	if err != nil {
		return nil, err
	}
	b, err := newRebuilder(p.paths[0]+".repair", s.guid, last+1, s.config.MetadataSize)
	if err != nil {
		return nil, err
	}
	used := false
	defer func() {
		b.close()
		if !used {
			os.Remove(b.path)
		}
	}()
	if err := s.write(b); err != nil {
		return nil, err
	}
	r, err := b.check(ctx, &CheckOptions{Data: o.Data, Storage: o.Storage, SearchDevices: o.SearchDevices})
	if err != nil {
		return nil, err
	}
	for _, f := range r.Findings {
		if f.Kind != FindDeviceMissing && f.Kind != FindDeviceSize && f.Kind != FindLabelDiffers && f.Kind != FindDataLost && (f.Severity == Damage || f.Severity == Leak) {
			return r, fmt.Errorf("%v: %w", f, errNotClean)
		}
	}
	s.devices = openDevices(s.states, s.guid, o.Storage, o.SearchDevices)
	used = true // from here on it may be the pool's
	done()      // the old files are let go
	return r, b.install(p.paths, p.suffix(), s.devices, s.config.Name, s.config.MetadataSize)
}

// write writes everything that was salvaged.
func (s *salvager) write(b *rebuilder) error {
	for _, e := range s.entries {
		s.config.datasets = s.config.datasets || e.holdsFiles() || e.props != nil
	}
	b.put(meta.Config, []byte(keyConfig), s.config.pack(s.guid))
	for _, v := range s.values {
		for _, bucket := range meta.Buckets() {
			if bucket.String() == v.bucket {
				b.put(bucket, v.key, v.data)
			}
		}
	}
	for _, st := range s.states {
		b.put(meta.Devices, key64(uint64(st.id)), st.pack())
	}
	for _, c := range s.chunks {
		if err := b.chunk(c); err != nil {
			return err
		}
	}
	written := bitSet{}
	for _, e := range s.entries {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if e.root != 0 {
			if err := s.writeNode(b, e.root, written); err != nil {
				return err
			}
		}
		e.used = s.used[e.id]
		b.put(meta.Volumes, key64(e.id), e.pack())
	}
	return b.finish(s.state)
}

// writeNode counts a reference to a node, and writes the node with the first one.
func (s *salvager) writeNode(b *rebuilder, id btree.NodeID, written bitSet) error {
	if err := b.refNode(id); err != nil || !written.add(uint64(id)) {
		return err
	}
	n := s.load(id)
	if n == nil {
		return damagedf("node %d could be read before", id)
	}
	if err := b.put(meta.Nodes, key64(uint64(id)), n.Bytes()); err != nil {
		return err
	}
	for i := range n.Len() {
		if n.Level() > 0 {
			if err := s.writeNode(b, n.Child(i), written); err != nil {
				return err
			}
			continue
		}
		if isItem(n.AppendKey(nil, i)) {
			return nil // so are all behind it
		}
		rec, err := format.ParseRecord(n.Value(i))
		if err != nil {
			return err
		}
		if err := b.refRecord(rec); err != nil {
			return err
		}
	}
	return nil
}
