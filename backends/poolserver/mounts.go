package poolserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/backends/serve/datasets"
	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// A datasetMount is a mount of this server as the control socket shows it: with the
// pool, so that a command that knows a path finds who to ask.
type datasetMount struct {
	*datasets.Mount
	place Place
}

// Options of a mount that tell of its pool.
const (
	optionPool    = "pool"     // its name
	optionPoolDir = "pool_dir" // the directory of the pool
)

// Options implements [fusefs.Mounted].
func (m datasetMount) Options() map[string]string {
	o := m.Mount.Options()
	o[optionPool], o[optionPoolDir] = m.place.Name(), m.place.Dir
	return o
}

// PlaceOf returns the pool whose dataset is mounted on a directory, and the dataset's
// name, by what the mount's server tells of its options.
func PlaceOf(options map[string]string) (p Place, dataset string, ok bool) {
	p, dataset = Place{Dir: options[optionPoolDir]}, options["dataset"]
	return p, dataset, p.Dir != "" && dataset != ""
}

// mountOf returns the export that is a mount of a dataset or snapshot, or nil.
func (s *Server) mountOf(name string) *export {
	for _, e := range s.exports.all() {
		if e.mount != nil && e.mount.Dataset() == name {
			return e
		}
	}
	return nil
}

// mountsOf returns the exports that are mounts of a dataset or snapshot.
func (s *Server) mountsOf(name string) []*export {
	return slices.DeleteFunc(s.exports.all(), func(e *export) bool { return e.mount == nil || e.mount.Dataset() != name })
}

// mountDataset mounts a dataset or snapshot, as its properties say and then as the
// options do.
func (s *Server) mountDataset(name, target string, options ...string) error {
	return s.mountFor(false, name, target, options...)
}

// mountFor is mountDataset; private tells that the directory is the server's own and
// goes with the mount.
func (s *Server) mountFor(private bool, name, target string, options ...string) error {
	cfg, err := s.mountConfig(name, target, options)
	if err != nil {
		return err
	}
	s.awaitUnmounted(name, target)
	if err := s.mayMount(name, target); err != nil {
		return err
	}
	return s.export(&export{kind: ExportDataset, target: target, volume: name, private: private, options: options}, func(e *export) error {
		m, err := s.datasets.Mount(cfg)
		if err != nil {
			return err
		}
		info := m.Info()
		info.Version = s.cfg.Version
		e.dev = info.Dev
		leave, err := fusefs.Attend(datasetMount{m, s.cfg.Place}, info, s.log, true)
		if err != nil {
			err = errors.Join(err, m.Unmount(true), m.Wait())
			leave()
			return err
		}
		e.mount = m
		e.inUse, e.loops = func() int { return 0 }, func() []serve.Loop { return nil }
		e.close = m.Unmount
		go func() {
			if err := m.Wait(); err != nil {
				s.log.Printf("%s: %v", target, err)
			}
			leave()
			if private {
				os.Remove(target) // fails where somebody has mounted something over it
			}
			close(e.ended)
		}()
		return nil
	})
}

// mountConfig returns how a dataset or snapshot is mounted, as its properties say and
// then as the options do.
func (s *Server) mountConfig(name, target string, options []string) (datasets.Config, error) {
	cfg := datasets.Config{Dataset: name, Target: target}
	words, err := s.mountWords(name, &cfg)
	if err != nil {
		return cfg, err
	}
	cfg.Options, err = mountopt.Parse(append([]string{strings.Join(words, ",")}, options...)...)
	if cfg.Options.FSName == "" {
		cfg.Options.FSName = s.cfg.Place.Name() + "/" + name
	}
	return cfg, err
}

// reconfigureMounts has all that is mounted do what its properties say by now.
func (s *Server) reconfigureMounts() error {
	var failed []error
	for _, e := range s.exports.all() {
		if e.mount == nil {
			continue
		}
		name := e.mount.Dataset()
		cfg, err := s.mountConfig(name, e.target, e.options)
		if err == nil {
			err = e.mount.Reconfigure(cfg)
		}
		if _, gone := s.pool.Volume(name); err != nil && gone == nil {
			failed = append(failed, fmt.Errorf("the properties are set, but: %w", err))
		}
	}
	return errors.Join(failed...)
}

// mountWords returns the options of mount(8) that the properties of a dataset stand
// for.
func (s *Server) mountWords(name string, cfg *datasets.Config) (words []string, err error) {
	of, _, snapshot := strings.Cut(name, "@")
	list, err := s.pool.Properties(s.ctx, of, "readonly", "atime", "exec", "setuid", "devices", "inodes", "snapdir")
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		switch p.Name + "=" + p.Value {
		case "readonly=on":
			words = append(words, "ro")
		case "atime=off":
			words = append(words, "noatime")
		case "atime=on":
			words = append(words, "strictatime")
		case "atime=relatime":
			words = append(words, "relatime")
		case "exec=off":
			words = append(words, "noexec")
		case "setuid=off":
			words = append(words, "nosuid")
		case "devices=off":
			words = append(words, "nodev")
		case "snapdir=visible":
			cfg.ShowHidden = true
		}
		if p.Name == "inodes" && !snapshot {
			cfg.MaxInodes, _ = strconv.ParseUint(p.Value, 10, 64) // the pool has made it
		}
	}
	return words, nil
}

// awaitUnmounted waits for mounts to end that somebody has taken away, by umount(8) as
// much as by us: of a dataset, or on a directory. The kernel tells the server later
// than whoever called umount(2), who may mount again at once.
func (s *Server) awaitUnmounted(name, target string) {
	for _, e := range s.exports.all() {
		if e.mount == nil || e.mount.Dataset() != name && e.target != target {
			continue
		}
		pause := 5 * time.Millisecond
		for end := time.Now().Add(closeTime); s.exports.get(e.target) == e && !e.inPlace() && time.Now().Before(end); pause *= 2 {
			select {
			case <-e.gone:
			case <-time.After(pause):
			}
			if pause > 100*time.Millisecond && fusefs.Elsewhere(e.dev, e.target) != nil {
				break // it ends when that one does
			}
		}
	}
}

// inPlace reports whether an export that is a mount can be seen: it is not once it was
// unmounted lazily, or while only another mount namespace has it.
func (e *export) inPlace() bool {
	there, err := fusefs.IsMounted(e.dev, e.mount.Info().Target)
	return there || err != nil
}

// mayMount refuses what would fail, and says what to do.
func (s *Server) mayMount(name, target string) error {
	if e := s.mountOf(name); e != nil && !strings.Contains(name, "@") { // nothing changes a snapshot
		if !e.inPlace() {
			if err := fusefs.Elsewhere(e.dev, e.target); err != nil {
				return fmt.Errorf("mount %s: %w", name, err)
			}
			return fmt.Errorf("%s was unmounted from %s, and is still in use: %w; by a process that has files in it open or works in it, or by another user's mount namespace that has a copy of the mount", name, e.target, unix.EBUSY)
		}
		return fmt.Errorf("%s is mounted already, on %s: %w; to have it in another place too: mount --bind %s %s", name, e.target, unix.EBUSY, e.target, target)
	}
	if !strings.Contains(name, "@") {
		p, err := s.pool.Properties(s.ctx, name, "canmount")
		switch {
		case err != nil:
			return err
		case p[0].Value == "off":
			return fmt.Errorf("mount %s: its property canmount is off: %w", name, unix.EPERM)
		}
	}
	st, err := os.Stat(target)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("mount %s: %s is not there: %w; make it with: mkdir -p %s", name, target, unix.ENOENT, target)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("mount %s: the server of the pool, which is uid %d, may not look into %s: %w", name, os.Geteuid(), target, unix.EACCES)
	case err != nil:
		return fmt.Errorf("mount %s: %w", name, err)
	case !st.IsDir():
		return fmt.Errorf("mount %s: %s: %w", name, target, unix.ENOTDIR)
	}
	if inside := s.cfg.Place.Dir; target == inside || strings.HasPrefix(target, inside+"/") {
		return fmt.Errorf("mount %s: %s lies in the directory of the pool itself: %w", name, target, unix.EINVAL)
	}
	return nil
}

// MountInfo tells of a dataset that is mounted.
type MountInfo struct {
	Dataset  string            `json:"dataset"`
	Target   string            `json:"target"`
	Options  map[string]string `json:"options,omitempty"`
	ReadOnly bool              `json:"read_only"`
	// Private tells that the server chose the place, for a look.
	Private bool `json:"private,omitempty"`
	// Hidden tells that it was unmounted and is in use: by open files, or by a mount
	// namespace that has a copy.
	Hidden bool `json:"hidden,omitempty"`
}

func (e *export) mountInfo() MountInfo {
	return MountInfo{
		Dataset: e.mount.Dataset(), Target: e.target, Options: e.mount.Options(), ReadOnly: e.mount.FS().ReadOnly(),
		Private: e.private,
	}
}

// MountDataset are the arguments of [DatasetMount].
type MountDataset struct {
	Name   string `json:"name"`
	Target string `json:"target,omitempty"` // absolute; empty: where the property mountpoint says
	// Options are those of mount(8), joined by commas; they win over properties.
	Options string `json:"options,omitempty"`
}

// DatasetMount mounts a dataset or snapshot.
var DatasetMount = Op[MountDataset, MountInfo]{name: "dataset.mount", run: func(c *call, a MountDataset) (MountInfo, error) {
	if a.Target == "" {
		target, err := c.mountpoint(a.Name)
		if err != nil {
			return MountInfo{}, err
		}
		a.Target = target
	}
	a.Target = filepath.Clean(a.Target)
	options := []string{}
	if a.Options != "" {
		options = append(options, a.Options)
	}
	if err := c.server.mountDataset(a.Name, a.Target, options...); err != nil {
		return MountInfo{}, err
	}
	e := c.server.exports.get(a.Target)
	if e == nil || e.mount == nil {
		return MountInfo{}, fmt.Errorf("mount %s: it was unmounted already: %w", a.Name, unix.ENOENT)
	}
	return e.mountInfo(), nil
}}

// mountpoint returns where a dataset is to be mounted.
func (c *call) mountpoint(name string) (string, error) {
	if strings.Contains(name, "@") {
		return "", fmt.Errorf("mount %s: a snapshot has no mountpoint: say where: %w", name, unix.EINVAL)
	}
	p, err := c.pool.Properties(c.ctx, name, "mountpoint")
	switch {
	case err != nil:
		return "", err
	case p[0].Value == "none" || p[0].Value == "-":
		return "", fmt.Errorf("mount %s: it has no mountpoint: say where, or set one with: lamina dataset set mountpoint=DIR %s/%s: %w", name, c.server.cfg.Place.Name(), name, unix.EINVAL)
	}
	return p[0].Value, nil
}

// UnmountDataset are the arguments of [DatasetUnmount].
type UnmountDataset struct {
	Name   string `json:"name,omitempty"`   // of the dataset or snapshot
	Target string `json:"target,omitempty"` // or where it is mounted
	Force  bool   `json:"force,omitempty"`  // also while it is in use: it goes out of sight
}

// Unmounted is what [DatasetUnmount] has done.
type Unmounted struct {
	// Elsewhere tells of a mount namespace that has a copy of the mount, and the
	// dataset in use until it ends; empty without one.
	Elsewhere string `json:"elsewhere,omitempty"`
}

// DatasetUnmount ends the mount of a dataset.
var DatasetUnmount = Op[UnmountDataset, Unmounted]{name: "dataset.unmount", run: func(c *call, a UnmountDataset) (u Unmounted, err error) {
	var e *export
	if a.Target != "" {
		a.Name = a.Target
		if e = c.server.exports.get(filepath.Clean(a.Target)); e != nil && e.mount == nil {
			e = nil
		}
	} else {
		e = c.server.mountOf(a.Name)
	}
	if e == nil {
		if a.Target == "" && !c.exists(a.Name) {
			return u, fmt.Errorf("unmount %s: %w", a.Name, blockpool.ErrNotFound)
		}
		return u, fmt.Errorf("unmount %s: it is not mounted: %w", a.Name, unix.EINVAL)
	}
	err = e.unmount(a.Force)
	if elsewhere := (*fusefs.ElsewhereError)(nil); errors.As(err, &elsewhere) {
		return Unmounted{Elsewhere: elsewhere.Error()}, nil
	}
	return u, err
}}

// unmount is end for a dataset, and says who uses it.
func (e *export) unmount(force bool) error {
	err := e.end(force)
	if elsewhere := (*fusefs.ElsewhereError)(nil); !errors.As(err, &elsewhere) && errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("unmount %s: %w; see who uses it with: fuser -vm %s", e.target, unix.EBUSY, e.target)
	}
	return err
}

// DatasetMounts returns the datasets that are mounted, by target.
var DatasetMounts = Op[None, []MountInfo]{name: "dataset.mounts", run: func(c *call, _ None) ([]MountInfo, error) {
	list := []MountInfo{}
	inPlace, err := fusefs.MountTable()
	if err != nil {
		return nil, err
	}
	for _, e := range c.server.exports.all() {
		if e.mount != nil {
			m := e.mountInfo()
			m.Hidden = !inPlace(e.dev, e.mount.Info().Target)
			list = append(list, m)
		}
	}
	return list, nil
}}

// offline calls do while a dataset is not mounted, and mounts it again as it was.
func (s *Server) offline(name string, do func() error) error {
	e := s.mountOf(name)
	if e == nil {
		return do()
	}
	target, options := e.target, e.options
	if err := e.unmount(false); err != nil {
		return err
	}
	err := do()
	if again := s.mountDataset(name, target, options...); again != nil {
		err = errors.Join(err, fmt.Errorf("mount %s again: %w", name, again))
	}
	return err
}
