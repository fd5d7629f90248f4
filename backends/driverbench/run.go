package driverbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivers"
	"github.com/laminafs/lamina/backends/tree"
)

// A Config says what is compared, where and how thoroughly.
type Config struct {
	// Dir is an existing directory on the filesystem that is measured. All that is
	// made there is taken away again.
	Dir     string
	Drivers []string        // none: all
	Engines []driver.Engine // none: both
	Options []string        // of drivers, as DRIVER.NAME=VALUE
	Rounds  int             // 3 unless set
	Sizes   Sizes

	Servers    driver.Servers
	PoolServer func(dir string) []string
	// Alone leaves out what all programs of the machine feel: the caches are not
	// emptied, so what the page cache takes is not measured.
	Alone bool

	// Tell is called with what is being done; nil for nobody.
	Tell func(what string)
}

// A subject is one that takes part.
type subject struct {
	Subject
	d       driver.Driver
	root    string // of the driver
	measure string // the directory whose filesystem takes what it stores
	n       int    // of containers so far
	cleanup []func() error
}

// Run makes the comparison. What a subject cannot do is in the report; an error is what
// ended the whole. Containers and images are removed at the end, whatever happened.
func Run(ctx context.Context, cfg Config) (r *Report, err error) {
	if cfg.Rounds == 0 {
		cfg.Rounds = 3
	}
	if cfg.Sizes == (Sizes{}) {
		cfg.Sizes = FullSizes
	}
	if cfg.Tell == nil {
		cfg.Tell = func(string) {}
	}
	dir, err := os.MkdirTemp(cfg.Dir, "lamina-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r = &Report{Sizes: cfg.Sizes, Rounds: cfg.Rounds, Problems: map[string]string{}}
	if r.System, err = system(dir); err != nil {
		return nil, err
	}
	b := &bench{ctx: ctx, cfg: &cfg, report: r, dir: dir}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(); err != nil {
		return nil, err
	}
	for _, w := range workloads {
		if err := b.measure(&w); err != nil {
			return r, err
		}
	}
	return r, nil
}

func system(dir string) (s System, err error) {
	var u unix.Utsname
	var info unix.Sysinfo_t
	if err := errors.Join(unix.Uname(&u), unix.Sysinfo(&info)); err != nil {
		return s, err
	}
	return System{
		Kernel: unix.ByteSliceToString(u.Release[:]), Processors: runtime.NumCPU(), Memory: int64(info.Totalram) * int64(info.Unit),
		Filesystem: filesystemOf(dir), User: os.Geteuid(), At: time.Now().UTC(),
	}, nil
}

type bench struct {
	ctx      context.Context
	cfg      *Config
	report   *Report
	dir      string
	subjects []*subject
}

// open opens all subjects that can be had, and makes their images.
func (b *bench) open() error {
	names, engines := b.cfg.Drivers, b.cfg.Engines
	if len(names) == 0 {
		names = drivers.Names()
	}
	if len(engines) == 0 {
		engines = driver.Engines[1:] // without auto
	}
	for _, name := range names {
		for _, engine := range engines {
			s := &subject{Subject: Subject{Name: name + "/" + string(engine), Driver: name, Engine: string(engine)}}
			b.cfg.Tell(s.Name + ": make the images")
			err := b.prepare(s)
			if b.ctx.Err() != nil {
				return errors.Join(b.ctx.Err(), s.close())
			}
			if err != nil {
				s.Missing = err.Error()
				err = s.close()
			} else {
				b.subjects = append(b.subjects, s)
			}
			b.report.Subjects = append(b.report.Subjects, s.Subject)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
	}
	if len(b.subjects) == 0 {
		return fmt.Errorf("none of the drivers can be had here: %s: %s", b.report.Subjects[0].Name, b.report.Subjects[0].Missing)
	}
	return nil
}

// Layers that each subject has.
const (
	imageLayer = "image"
	deepLayer  = "deep" // and a number: the last one is the top
)

func (b *bench) prepare(s *subject) error {
	s.measure = filepath.Join(b.dir, s.Driver+"-"+s.Engine)
	if err := os.Mkdir(s.measure, 0o711); err != nil {
		return err
	}
	s.cleanup = append(s.cleanup, func() error { return os.RemoveAll(s.measure) })
	if s.Driver == "btrfs" && s.Engine == string(driver.Native) {
		if err := s.onBtrfs(b); err != nil {
			return err
		}
	}
	s.root = filepath.Join(s.measure, "driver")
	var options []string
	for _, o := range b.cfg.Options {
		if len(o) > len(s.Driver) && o[:len(s.Driver)+1] == s.Driver+"." {
			options = append(options, o)
		}
	}
	d, err := drivers.Open(s.Driver, driver.Config{
		Root: s.root, Engine: driver.Engine(s.Engine), Options: options, Servers: b.cfg.Servers, PoolServer: b.cfg.PoolServer,
	})
	if err != nil {
		return err
	}
	s.d = d
	s.cleanup = append(s.cleanup, s.removeAll)
	if err := s.fill(b.ctx, imageLayer, "", func(w io.Writer) error { return writeImage(w, &b.cfg.Sizes) }); err != nil {
		return err
	}
	parent := ""
	for n := range b.cfg.Sizes.Depth {
		id := fmt.Sprint(deepLayer, n)
		if err := s.fill(b.ctx, id, parent, func(w io.Writer) error { return writeStep(w, n) }); err != nil {
			return err
		}
		parent = id
	}
	return nil
}

// fill makes a committed layer from an archive.
func (s *subject) fill(ctx context.Context, id, parent string, write func(io.Writer) error) error {
	if err := s.d.Create(ctx, id, parent, driver.CreateOptions{}); err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	_, err := s.d.Apply(ctx, id, r, tree.ApplyOptions{})
	r.CloseWithError(io.ErrClosedPipe)
	if err == nil {
		err = s.d.Commit(ctx, id)
	}
	return err
}

// removeAll unmounts and removes all layers, children before their parents.
func (s *subject) removeAll() error {
	ctx := context.Background()
	var refused error
	for left := true; left; {
		ids, err := s.d.Layers()
		if err != nil {
			return errors.Join(err, s.d.Close())
		}
		left = false
		refused = nil
		for _, id := range slices.Backward(ids) {
			if at, err := s.d.Mounts(id); err == nil && len(at) > 0 {
				_ = s.d.Unmount(ctx, id, "", false) // removing says what is wrong
			}
			switch err := s.d.Remove(ctx, id); {
			case err == nil:
				left = true
			default:
				refused = err
			}
		}
	}
	return errors.Join(refused, s.d.Close())
}

func (s *subject) close() (err error) {
	for _, f := range slices.Backward(s.cleanup) {
		err = errors.Join(err, f())
	}
	s.cleanup = nil
	return err
}

func (b *bench) close() (err error) {
	for _, s := range b.subjects {
		b.cfg.Tell(s.Name + ": remove everything")
		err = errors.Join(err, s.close())
	}
	return err
}

// measure runs a workload on all subjects, each round beginning with another one.
func (b *bench) measure(w *workload) error {
	for i := range w.rows {
		row := w.rows[i]
		row.Values = map[string][]float64{}
		b.report.Rows = append(b.report.Rows, &row)
	}
	rows := b.report.Rows[len(b.report.Rows)-len(w.rows):]
	for round := range b.cfg.Rounds {
		for i := range b.subjects {
			s := b.subjects[(i+round)%len(b.subjects)]
			if err := b.ctx.Err(); err != nil {
				return err
			}
			b.cfg.Tell(fmt.Sprintf("round %d of %d: %s: %s", round+1, b.cfg.Rounds, w.rows[0].Name, s.Name))
			values, err := w.run(b, s)
			if err != nil {
				b.report.Problems[w.rows[0].Name+": "+s.Name] = err.Error()
				continue
			}
			for n, v := range values {
				if v == v { // not NaN: it could not be measured here
					rows[n].Values[s.Name] = append(rows[n].Values[s.Name], v)
				}
			}
		}
	}
	return nil
}
