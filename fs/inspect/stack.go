package inspect

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// A Layer is one layer of a stack.
type Layer struct {
	// Name tells users which layer it is: a path, or a digest.
	Name string
	// Note says how the layer came to be where the source knows, such as the
	// command of an image's history.
	Note string
	// Upper tells that it is the layer that takes the changes of a mount.
	Upper bool
	// Open opens the root of the layer. It may be called several times.
	Open func() (layer.Dir, error)
	// Packed is the size in bytes of what the layer is kept in, where that is
	// an archive; 0 else.
	Packed int64
	// View tells how the layer is read where there are several ways, such as from
	// where the owners of files come: layers of different views are not the same.
	View string
	// Problems tells what a reader of the layer has left out because it made no
	// sense, such as archive entries that lead outside.
	Problems []string
}

// A Stack is layers that lie on top of each other.
type Stack struct {
	Name string
	// Layers are what is merged, the top first.
	Layers []Layer
	// DataOnly layers hold nothing but the data of metacopy files.
	DataOnly []Layer
	// NoFollow ignores redirects, as a mount with redirect_dir=nofollow does.
	NoFollow bool
	// Closers are called by Close, for what the source keeps open.
	Closers []func() error

	mu    sync.Mutex
	roots []layer.Dir // of Layers, then of DataOnly; opened once needed
}

// Number returns how users count layer i of Layers: from the bottom, the bottom
// being 1.
func (s *Stack) Number(i int) int { return len(s.Layers) - i }

// Close closes the roots that were opened, and the source.
func (s *Stack) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, r := range s.roots {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	s.roots = nil
	for _, c := range s.Closers {
		errs = append(errs, c())
	}
	s.Closers = nil
	return errors.Join(errs...)
}

// root returns the open root of a layer; those of data-only layers come behind
// the others.
func (s *Stack) root(i int) (layer.Dir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roots == nil {
		s.roots = make([]layer.Dir, len(s.Layers)+len(s.DataOnly))
	}
	if s.roots[i] == nil {
		l := s.layer(i)
		d, err := l.Open()
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Name, err)
		}
		s.roots[i] = d
	}
	return s.roots[i], nil
}

func (s *Stack) layer(i int) *Layer {
	if i < len(s.Layers) {
		return &s.Layers[i]
	}
	return &s.DataOnly[i-len(s.Layers)]
}

// Part returns the stack of some layers only, counted from the bottom as
// [Stack.Number] does, both ends included. It shares the layers, not what is
// open; the source stays with s.
func (s *Stack) Part(from, to int) (*Stack, error) {
	n := len(s.Layers)
	if from < 1 || to > n || from > to {
		return nil, fmt.Errorf("%s has layers 1 to %d, not %d to %d: %w", s.Name, n, from, to, unix.EINVAL)
	}
	return &Stack{
		Name:     fmt.Sprintf("%s#%d-%d", s.Name, from, to),
		Layers:   s.Layers[n-to : n-from+1],
		DataOnly: s.DataOnly,
		NoFollow: s.NoFollow,
	}, nil
}

// Union returns a read-only union of the layers, which must be closed.
func (s *Stack) Union() (*union.FS, error) {
	cfg := union.Config{Options: union.Options{NoFollow: s.NoFollow}}
	add := func(to *[]union.Branch, layers []Layer) error {
		for _, l := range layers {
			d, err := l.Open()
			if err != nil {
				return fmt.Errorf("layer %s: %w", l.Name, err)
			}
			*to = append(*to, union.Branch{Name: l.Name, Root: d})
		}
		return nil
	}
	err := add(&cfg.Lowers, s.Layers)
	if err == nil {
		err = add(&cfg.DataOnly, s.DataOnly)
	}
	if err != nil {
		for _, b := range append(cfg.Lowers, cfg.DataOnly...) {
			b.Root.Close()
		}
		return nil, err
	}
	return union.New(cfg)
}
