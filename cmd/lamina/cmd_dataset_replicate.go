package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/replication"
	"github.com/laminafs/lamina/blockpool"
)

// sendMany writes a replication stream to w.
func sendMany(ctx context.Context, c *poolserver.Client, want replication.Wanted, compression int, w io.Writer) error {
	list, err := poolserver.DatasetGet.Call(ctx, c, poolserver.GetDatasets{Names: []string{want.Top}, Depth: -1})
	if err != nil {
		return err
	}
	steps, err := replication.NewPlan(sourcesOf(list), want)
	if err != nil {
		return err
	}
	out, err := replication.NewWriter(w, replication.Header{Top: want.Top})
	if err != nil {
		return err
	}
	for _, s := range steps {
		a := poolserver.Send{Snapshot: s.To, From: s.From, Compression: compression}
		if err := through(func(pipe *os.File) error {
			_, err := poolserver.VolumeSend.Call(ctx, c, a, pipe)
			return err
		}, func(pipe io.Reader) error { return out.Stream(s.Entry, pipe) }); err != nil {
			return fmt.Errorf("send %s: %w", s.To, err)
		}
	}
	return out.Close()
}

// through has what write writes to a pipe read by read. When one fails the other one
// ends too, and the error is that of the first.
func through(write func(*os.File) error, read func(io.Reader) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		if err := write(w); err != nil {
			failed <- err
			// The reader must not take what there is for all.
			r.SetReadDeadline(time.Unix(1, 0))
		}
		w.Close()
	}()
	if err := read(r); err != nil {
		failed <- err
	}
	r.Close()
	<-wrote
	close(failed)
	return <-failed // the first, or nil
}

// sourcesOf sorts what the pool has told.
func sourcesOf(list []poolserver.Dataset) (sources []replication.Source) {
	at := map[string]int{}
	for _, d := range list {
		of, snap, is := strings.Cut(d.Name, "@")
		if !is {
			at[of] = len(sources)
			sources = append(sources, replication.Source{Name: of})
			s := &sources[at[of]]
			s.Properties = map[string]string{}
			for _, p := range d.Properties {
				switch {
				case p.Name == "origin" && p.Value != "-":
					s.Origin = p.Value
				case p.Source == blockpool.SourceLocal && p.Name != "recordsize": // the stream has it
					s.Properties[p.Name] = p.Value
				}
			}
			continue
		}
		i, known := at[of]
		if !known {
			continue // a pool has none, and their datasets come first
		}
		x := replication.Snapshot{Name: snap}
		for _, p := range d.Properties {
			switch p.Name {
			case "guid":
				x.GUID = p.Value
			case "createtxg":
				x.Txg, _ = strconv.ParseUint(p.Value, 10, 64) // the pool has made it
			}
		}
		sources[i].Snapshots = append(sources[i].Snapshots, x)
	}
	return sources
}

// receiving is what comes with a stream besides its name.
type receiving struct {
	force   bool
	set     map[string]string // properties of the topmost dataset, whatever the stream says
	exclude []string          // properties that are left as they are here
}

// receivedWith puts together what the options of receive say.
func receivedWith(a *poolserver.Receive, pool string, set, exclude []string) (receiving, error) {
	r := receiving{force: a.Force, set: map[string]string{}, exclude: exclude}
	for _, s := range set {
		name, value, is := strings.Cut(s, "=")
		if !is || name == "" {
			return r, usageError{fmt.Errorf("%q is no PROPERTY=VALUE", s)}
		}
		if name != "origin" {
			r.set[name] = value
			continue
		}
		in, origin, err := splitDataset(value)
		if err != nil {
			return r, err
		}
		if in != pool {
			return r, usageError{fmt.Errorf("%s is in another pool than what is made", value)}
		}
		a.Origin = origin
	}
	return r, nil
}

// receive makes what a stream brings, be it one or many.
func receive(ctx context.Context, c *poolserver.Client, a poolserver.Receive, stdin *os.File, r receiving, told func(blockpool.VolumeInfo) error) error {
	many, stdin, done, err := isReplication(stdin)
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	defer done()
	switch {
	case many && strings.Contains(a.Name, "@"):
		return usageError{fmt.Errorf("the stream brings many snapshots, whose names it says: name the dataset only, not %s", a.Name)}
	case many && a.Origin != "":
		return usageError{errors.New("the stream brings many snapshots, and says itself which are of clones: leave -o origin out")}
	case many:
		in, err := replication.NewReader(stdin)
		if err != nil {
			return err
		}
		return receiveMany(ctx, c, a.Name, in, r, told)
	}
	info, err := poolserver.VolumeReceive.Call(ctx, c, a, stdin)
	if err != nil {
		return err
	}
	if len(r.set) > 0 {
		of := volumeOf(info.Name)
		if _, err := poolserver.DatasetSet.Call(ctx, c, poolserver.SetDatasets{Names: []string{of}, Properties: r.set}); err != nil {
			return fmt.Errorf("%s was received, but: %w", info.Name, err)
		}
	}
	return told(info)
}

// receiveMany makes what a replication stream brings, below a dataset. A snapshot that
// is there already is left out.
func receiveMany(ctx context.Context, c *poolserver.Client, top string, in *replication.Reader, r receiving, told func(blockpool.VolumeInfo) error) error {
	if top == "" {
		top = in.Header.Top
	}
	place := func(below string) string { // DATASET or DATASET@SNAPSHOT
		if below == "" || below[0] == '@' {
			return top + below
		}
		return top + "/" + below
	}
	topSet := false
	for {
		e, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := place(e.Dataset) + "@" + e.Snapshot
		there, err := hasSnapshot(ctx, c, name, e.GUID)
		if err != nil {
			return err
		}
		if !there {
			a := poolserver.Receive{Name: name, Force: r.force}
			if e.Origin != "" {
				a.Origin = place(e.Origin)
			}
			var info blockpool.VolumeInfo
			err := through(func(pipe *os.File) error {
				_, err := io.Copy(pipe, in)
				return err
			}, func(pipe io.Reader) (err error) {
				info, err = poolserver.VolumeReceive.Call(ctx, c, a, pipe.(*os.File))
				return err
			})
			if err != nil {
				return fmt.Errorf("receive %s: %w; what has arrived stays: send the same once more, and it is left out", name, err)
			}
			if err := told(info); err != nil {
				return err
			}
		}
		set := r.propertiesOf(e)
		if e.Dataset == "" && !topSet {
			topSet = true
			maps.Copy(set, r.set)
		}
		if len(set) > 0 {
			if _, err := poolserver.DatasetSet.Call(ctx, c, poolserver.SetDatasets{Names: []string{place(e.Dataset)}, Properties: set}); err != nil {
				return fmt.Errorf("set the properties of %s: %w; leave one out with -x", place(e.Dataset), err)
			}
		}
	}
}

// propertiesOf returns what is to be set with an entry, as the stream says it.
func (r *receiving) propertiesOf(e replication.Entry) map[string]string {
	set := map[string]string{}
	for name, value := range e.Properties {
		if _, ours := r.set[name]; !ours && !slices.Contains(r.exclude, name) {
			set[name] = value
		}
	}
	return set
}

// hasSnapshot reports whether a snapshot is here, and fails where another one has its
// name.
func hasSnapshot(ctx context.Context, c *poolserver.Client, name, guid string) (bool, error) {
	list, err := poolserver.DatasetGet.Call(ctx, c, poolserver.GetDatasets{Names: []string{name}, Properties: []string{"guid"}})
	switch {
	case errors.Is(err, blockpool.ErrNotFound), errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	case list[0].Properties[0].Value != guid:
		return false, fmt.Errorf("%s is here and is another snapshot (guid %s, not %s): rename or destroy it first: %w", name, list[0].Properties[0].Value, guid, unix.EEXIST)
	}
	return true, nil
}

// isReplication looks at how a stream begins, which it leaves as it was, or returns one
// that is.
func isReplication(in *os.File) (is bool, again *os.File, done func(), err error) {
	done = func() {}
	head := make([]byte, len(replication.Magic))
	if at, err := in.Seek(0, io.SeekCurrent); err == nil {
		n, err := in.ReadAt(head, at)
		if err != nil && err != io.EOF {
			return false, nil, done, err
		}
		return string(head[:n]) == replication.Magic, in, done, nil
	}
	n, err := io.ReadFull(in, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, nil, done, err
	}
	// Somebody else has to hand over what was read.
	r, w, err := os.Pipe()
	if err != nil {
		return false, nil, done, err
	}
	go func() {
		defer w.Close()
		if _, err := w.Write(head[:n]); err == nil {
			_, _ = io.Copy(w, in) // a reader of a part tells that it is one
		}
	}()
	return string(head[:n]) == replication.Magic, r, func() { r.Close() }, nil
}
