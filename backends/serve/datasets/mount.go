package datasets

import (
	"errors"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Config says which dataset to mount where.
type Config struct {
	Dataset string // DATASET or DATASET@SNAPSHOT, which is mounted read-only
	Target  string // an existing directory
	// Options are those of mount(8), and of a union as far as they mean something
	// for a dataset (mountopt.Options.CheckDataset).
	Options mountopt.Options
	// MaxInodes bounds the objects of the dataset, 0: no bound.
	MaxInodes uint64
	// ShowHidden has listings of the root show .lamina, where the snapshots are.
	ShowHidden bool
}

// Type is the type of these mounts in the mount table.
const Type = "fuse." + subtype

const subtype = "lamina-dataset"

// A Mount is a dataset that is mounted and served. Whoever made it gives it a control
// socket by [fusefs.Attend], or has it made by [fusefs.Serve].
type Mount struct {
	cfg    Config // guarded by Mounts.mu once it is mounted
	target string // absolute
	mounts *Mounts
	fs     filesystem

	reconfiguring sync.Mutex // one at a time
	tree          *tree
	raw           *fusefs.FilesystemMount

	done chan struct{} // closed when everything was given back
	err  error         // of that
}

var _ fusefs.Mounted = (*Mount)(nil)

// Mount mounts a dataset or snapshot and serves it until it is unmounted, by
// whomever. EBUSY tells that the dataset is mounted elsewhere, or part of another
// mount.
func (s *Mounts) Mount(cfg Config) (*Mount, error) {
	if err := cfg.Options.CheckDataset(); err != nil {
		return nil, err
	}
	m := &Mount{cfg: cfg, mounts: s, done: make(chan struct{})}
	var err error
	if m.target, err = filepath.Abs(cfg.Target); err != nil {
		return nil, err
	}
	if m.tree, err = s.open(cfg.Dataset, m); err != nil {
		return nil, err
	}
	o := cfg.datasetOptions()
	o.Views = &views{mounts: s, mount: m, name: m.tree.Name}
	fs, err := dataset.New(m.tree, o)
	if err != nil {
		return nil, err
	}
	m.fs = filesystem{FS: fs}
	if err = m.fs.findSnapshots(); err == nil {
		m.raw, err = fusefs.MountFilesystem(m.config(s))
	}
	if err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	s.add(m)
	m.raw.Start()
	go m.finish()
	return m, nil
}

// datasetOptions are those that the dataset itself carries out.
func (cfg *Config) datasetOptions() dataset.Options {
	o := &cfg.Options
	return dataset.Options{
		ReadOnly:    o.ReadOnly,
		Atime:       o.Atime == mountopt.AtimeRel || o.Atime == mountopt.AtimeAlways,
		StrictAtime: o.Atime == mountopt.AtimeAlways,
		MaxInodes:   cfg.MaxInodes, ShowHidden: cfg.ShowHidden,
	}
}

// config is how the dataset is served.
func (m *Mount) config(s *Mounts) fusefs.FilesystemConfig[*dataset.Node] {
	o := m.cfg.Options
	cfg := fusefs.FilesystemConfig[*dataset.Node]{
		FS:        m.fs,
		Target:    m.cfg.Target,
		Flags:     m.flags(&m.cfg),
		Owners:    fusefs.OwnersOf(&o),
		Writeback: o.Writeback != nil && *o.Writeback,
		NoXattrs:  o.NoXattrs,
		NoACL:     o.NoACL,
		MaxWrite:  int(o.MaxWrite),
		Debug:     o.Debug,
		Log:       s.log,
	}
	if o.Timeout != nil {
		timeout := time.Duration(min(*o.Timeout, aDecade) * float64(time.Second))
		cfg.Timeout = &timeout
	}
	return cfg
}

// flags are what the kernel is told about the mount.
func (m *Mount) flags(cfg *Config) fusefs.MountFlags {
	o := cfg.Options
	if o.FSName == "" {
		o.FSName = cfg.Dataset
	}
	if o.Subtype == "" {
		o.Subtype = subtype
	}
	flags := fusefs.MountFlagsOf(&o)
	flags.ReadOnly = m.fs.ReadOnly()
	return flags
}

// aDecade, in seconds, is as good as for ever.
const aDecade = 10 * 365 * 24 * 60 * 60

// finish gives everything back when the dataset was unmounted and all requests are
// answered.
func (m *Mount) finish() {
	m.raw.Wait()
	m.err = m.fs.Close()
	m.mounts.remove(m)
	close(m.done)
}

// Dataset returns the name of what is mounted, as it is now.
func (m *Mount) Dataset() string { return m.tree.Name() }

// FS returns the dataset. What is changed by it and not by methods of the mount, the
// kernel does not see.
func (m *Mount) FS() *dataset.FS { return m.fs.FS }

// Info says what is mounted where.
func (m *Mount) Info() fusefs.Info { return m.raw.Info() }

// Counters returns what was done since the dataset was mounted.
func (m *Mount) Counters() fusefs.Counters { return m.raw.Counters() }

// TraceEvents implements [fusefs.Traced]. The layer of a file is the dataset, snapshot
// or subvolume that has it, within which the path leads.
func (m *Mount) TraceEvents(after uint64, wait time.Duration) []fusefs.TraceEvent {
	return m.raw.TraceEvents(m.fs.Place, after, wait)
}

// Options returns the options in force.
func (m *Mount) Options() map[string]string {
	opts := m.raw.Options()
	maps.Copy(opts, map[string]string{
		"dataset":   m.Dataset(),
		"read_only": onOff(m.fs.ReadOnly()),
		"atime":     m.atime(),
	})
	return opts
}

// atime says how reads move access times, in the words of mount(8).
func (m *Mount) atime() string {
	switch o := m.fs.FS.Options(); {
	case !o.Atime:
		return string(mountopt.AtimeNever)
	case o.StrictAtime:
		return string(mountopt.AtimeAlways)
	}
	return string(mountopt.AtimeRel)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// Wait returns when the dataset was unmounted, all requests are answered and the tree
// was given back to the pool.
func (m *Mount) Wait() error {
	<-m.done
	return m.err
}

// Unmount takes the mount away; the pool may do with the dataset what it likes when
// it returns. A busy one gives EBUSY. With lazy it goes out of sight at once, and is
// served, and in use, until its last file is closed. So it is when another mount
// namespace has a copy of the mount, which is a [fusefs.ElsewhereError].
func (m *Mount) Unmount(lazy bool) error {
	if err := m.raw.Unmount(lazy); err != nil || lazy {
		return err
	}
	for {
		select {
		case <-m.done:
			return m.err
		case <-time.After(glance):
		}
		if err := fusefs.Elsewhere(m.Info().Dev, m.target); err != nil {
			return err
		}
	}
}

// glance is how long requests have to be answered before somebody else is looked for
// who keeps the mount.
const glance = 250 * time.Millisecond
