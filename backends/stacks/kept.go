package stacks

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/oci"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/tarlayer"
)

// Stacks of the layer store and of pools. Layers that are directories are looked at
// where they are. What a driver or a pool keeps otherwise is written out as the archive
// of what each layer changes, into a file without a name, and read from there.

// A kept layer is one whose keeper can write what it changes as a layer archive.
type kept struct {
	name, note string
	write      func(io.Writer) error
}

// fromArchives makes a stack of kept layers, the bottom first.
func fromArchives(name string, layers []kept, o *Options) (*inspect.Stack, error) {
	s := &inspect.Stack{Name: name}
	for _, k := range slices.Backward(layers) {
		l, closer, err := k.spool(o)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("%s: layer %s: %w", name, k.name, err)
		}
		s.Layers = append(s.Layers, l)
		s.Closers = append(s.Closers, closer)
	}
	return s, nil
}

func (k *kept) spool(o *Options) (l inspect.Layer, closer func() error, err error) {
	f, err := os.CreateTemp(o.TempDir, "lamina-layer-")
	if err != nil {
		return l, nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err = os.Remove(f.Name()); err != nil {
		return l, nil, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err = errors.Join(k.write(w), w.Flush()); err != nil {
		return l, nil, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return l, nil, err
	}
	fs, err := tarlayer.Open(k.name, f, size, o.tar(k.name, false))
	if err != nil {
		return l, nil, err
	}
	l = inspect.Layer{Name: k.name, Note: k.note, Problems: fs.Problems(), Open: func() (layer.Dir, error) { return fs.Root(), nil }}
	return l, func() error { return errors.Join(fs.Close(), f.Close()) }, nil
}

// ErrNoStore tells that there is none to look into.
var ErrNoStore = errors.New("there is no layer store")

func (o *Options) openStore() (*store.Store, error) {
	if o.Store == nil {
		return nil, ErrNoStore
	}
	return o.Store()
}

// openStoreImage looks into an image of the store.
func openStoreImage(text string, o *Options) (*inspect.Stack, error) {
	s, err := o.openStore()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	defer s.Close()
	i, err := s.Image(text)
	if err != nil {
		return nil, err
	}
	if i.Top() == "" {
		return nil, fmt.Errorf("image %s has no layers", text)
	}
	var config imageConfig
	_ = json.Unmarshal(i.Config, &config) // without its history the image is shown all the same
	return storeStack(s, text, i.Top(), config.notes(), o)
}

// openStoreLayer looks into a layer of the store, with all that it is built on.
func openStoreLayer(text string, o *Options) (*inspect.Stack, error) {
	s, err := o.openStore()
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", text, err)
	}
	defer s.Close()
	l, err := s.Layer(text)
	if err != nil {
		return nil, err
	}
	return storeStack(s, text, l.Name, nil, o)
}

// storeStack returns the stack below a layer. notes are of the lowest layers.
func storeStack(s *store.Store, name, top string, notes []string, o *Options) (*inspect.Stack, error) {
	var chain []store.Layer // the bottom first
	for next := top; next != ""; {
		l, err := s.Layer(next)
		if err != nil {
			return nil, err
		}
		chain = append(chain, l)
		next = l.Parent
	}
	slices.Reverse(chain)
	note := func(i int) string {
		if i < len(notes) {
			return notes[i]
		}
		return ""
	}
	if d, ok := s.Driver.(driver.Stacker); ok {
		options, whole, err := d.Stack(chain[len(chain)-1].ID)
		if err != nil {
			return nil, err
		}
		if whole {
			stack := FromOptions(name, &options)
			for i := range stack.Layers {
				n := len(chain) - 1 - i
				stack.Layers[i].Name, stack.Layers[i].Note = chain[n].Name, note(n)
			}
			return stack, nil
		}
	}
	var layers []kept
	for i := range chain {
		layers = append(layers, kept{chain[i].Name, note(i), func(w io.Writer) error { return oci.Archive(context.Background(), s, &chain[i], w) }})
	}
	return fromArchives(name, layers, o)
}

// openDataset takes the history of a dataset for a stack: what each of its snapshots
// has changed, the oldest at the bottom, up to the one that is named or to what the
// dataset is now.
func openDataset(text string, o *Options) (*inspect.Stack, error) {
	if o.Pool == nil {
		return nil, fmt.Errorf("dataset %s: there are no pools", text)
	}
	ctx := context.Background()
	c, name, err := o.Pool(ctx, text)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	states, err := datasetStates(ctx, c, name)
	if err != nil {
		return nil, fmt.Errorf("dataset %s: %w", text, err)
	}
	pool := strings.TrimSuffix(text, name)
	var layers []kept
	for i, state := range states {
		pair := poolserver.TreePair{To: state}
		if i > 0 {
			pair.From = states[i-1]
		}
		layers = append(layers, kept{pool + state, "", func(w io.Writer) error { return datasetArchive(ctx, c, pair, w) }})
	}
	return fromArchives(text, layers, o)
}

// datasetStates returns the snapshots of a dataset, the oldest first, and the dataset,
// or all up to the snapshot that is named.
func datasetStates(ctx context.Context, c *poolserver.Client, name string) ([]string, error) {
	dataset, snapshot, _ := strings.Cut(name, "@")
	list, err := poolserver.DatasetGet.Call(ctx, c, poolserver.GetDatasets{Names: []string{dataset}, Depth: 1, Properties: []string{"type", "createtxg"}})
	if err != nil {
		return nil, err
	}
	made := map[string]int{}
	var states []string
	for _, d := range list {
		of, at, snap := strings.Cut(d.Name, "@")
		switch {
		case of == dataset && !snap && d.Properties[0].Value != "filesystem":
			return nil, fmt.Errorf("it is no filesystem but a %s", d.Properties[0].Value)
		case of == dataset && snap && !strings.HasPrefix(at, poolserver.LookPrefix):
			made[d.Name], _ = strconv.Atoi(d.Properties[1].Value) // the pool has made it
			states = append(states, d.Name)
		}
	}
	slices.SortStableFunc(states, func(a, b string) int { return made[a] - made[b] })
	if snapshot == "" {
		return append(states, dataset), nil
	}
	n := slices.Index(states, name)
	if n < 0 {
		return nil, fmt.Errorf("it has no snapshot %s", snapshot)
	}
	return states[:n+1], nil
}

func datasetArchive(ctx context.Context, c *poolserver.Client, pair poolserver.TreePair, w io.Writer) error {
	r, far, err := os.Pipe()
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, r)
		r.Close()
		copied <- err
	}()
	_, err = poolserver.DatasetArchive.Call(ctx, c, pair, far)
	return errors.Join(err, far.Close(), <-copied)
}

// openKept looks for text among what stores and pools keep, for what is neither file
// nor directory. It returns nil for what nobody has.
func openKept(text string, o *Options) (*inspect.Stack, error) {
	switch s, err := o.openStore(); {
	case err == nil:
		_, noImage := s.Image(text)
		_, noLayer := s.Layer(text)
		s.Close()
		switch {
		case noImage == nil:
			return openStoreImage(text, o)
		case !errors.Is(noImage, store.ErrNoImage):
			return nil, noImage
		case noLayer == nil:
			return openStoreLayer(text, o)
		case !errors.Is(noLayer, driver.ErrNotFound):
			return nil, noLayer
		}
	case !errors.Is(err, ErrNoStore):
		return nil, err
	}
	pool, name, ok := strings.Cut(text, "/")
	if !ok || name == "" || pool == "" || strings.HasPrefix(pool, ".") || pool == "~" || o.Pool == nil {
		return nil, nil // a path
	}
	c, _, err := o.Pool(context.Background(), text)
	if errors.Is(err, poolserver.ErrNoPool) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.Close()
	return openDataset(text, o)
}
