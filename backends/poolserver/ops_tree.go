package poolserver

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/laminafs/lamina/backends/serve/datasetlayer"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/fusefs/control"
)

// Datasets as trees: archives in and out, and what two of them differ in. All of it is
// done here, where the pool is: no message of the kernel for each file, and owners and
// devices that the user who runs the server may not make elsewhere.

// LookPrefix begins the names of snapshots that requests take of datasets which may
// change while they are looked at. Those of a server that was killed are swept by the
// next one.
const LookPrefix = "lamina-look-"

// frozen returns the name of a snapshot of what a dataset is now, and what gives it
// back. A snapshot stands for itself.
func (c *call) frozen(name string) (snapshot string, release func() error, err error) {
	if strings.Contains(name, "@") {
		return name, func() error { return nil }, nil
	}
	if err := c.server.datasets.Flush(name, false); err != nil {
		return "", nil, err
	}
	snapshot = name + "@" + LookPrefix + strings.ToLower(rand.Text()[:12])
	if _, err := c.pool.SnapshotAll(c.ctx, []string{snapshot}, false, nil); err != nil {
		return "", nil, err
	}
	return snapshot, func() error {
		_, err := c.pool.DestroyAll(context.WithoutCancel(c.ctx), []string{snapshot}, false)
		return err
	}, nil
}

// sweepLooks destroys what a server that was killed has left, before anything is asked
// of this one.
func (s *Server) sweepLooks() {
	for _, v := range s.pool.Volumes() {
		if _, snapshot, _ := strings.Cut(v.Name, "@"); strings.HasPrefix(snapshot, LookPrefix) {
			if _, err := s.pool.DestroyAll(s.ctx, []string{v.Name}, false); err != nil {
				s.log.Printf("%v", err)
			}
		}
	}
}

// ApplyArchive are the arguments of [DatasetApply].
type ApplyArchive struct {
	Name       string `json:"name"` // of a dataset that is not mounted
	MaxBytes   int64  `json:"max_bytes,omitempty"`
	MaxEntries int64  `json:"max_entries,omitempty"`
}

// An Application is what became of an archive.
type Application struct {
	tree.Applied
	Failed *ApplyFailure `json:"failed,omitempty"`
}

// An ApplyFailure says where an archive ended before its end, so that the other side
// of the socket can tell causes apart.
type ApplyFailure struct {
	Entry   string        `json:"entry,omitempty"` // "": it is no entry's fault
	Message string        `json:"message"`
	Refused bool          `json:"refused,omitempty"` // [tree.ErrRefused]
	Short   bool          `json:"short,omitempty"`   // [io.ErrUnexpectedEOF]
	Errno   syscall.Errno `json:"errno,omitempty"`
}

// Err returns the failure as package tree would have returned it.
func (f *ApplyFailure) Err() error {
	if f == nil {
		return nil
	}
	e := farError{message: f.Message}
	if f.Refused {
		e.is = append(e.is, tree.ErrRefused)
	}
	if f.Short {
		e.is = append(e.is, io.ErrUnexpectedEOF)
	}
	if f.Errno != 0 {
		e.is = append(e.is, f.Errno)
	}
	if f.Entry == "" {
		return &e
	}
	return &tree.EntryError{Entry: f.Entry, Cause: &e}
}

// A farError has the words of an error on the other side, and its causes.
type farError struct {
	message string
	is      []error
}

func (e *farError) Error() string   { return e.message }
func (e *farError) Unwrap() []error { return e.is }

func applyFailure(err error) *ApplyFailure {
	f := &ApplyFailure{Message: err.Error(), Refused: errors.Is(err, tree.ErrRefused), Short: errors.Is(err, io.ErrUnexpectedEOF)}
	errors.As(err, &f.Errno)
	var e *tree.EntryError
	if errors.As(err, &e) {
		f.Entry, f.Message = e.Entry, e.Cause.Error()
	}
	return f
}

// DatasetApply carries an uncompressed layer archive out in a dataset, see
// [tree.Apply]. The archive is the file that comes along.
//
// Crash on the way: a dataset with a part of it.
var DatasetApply = Op[ApplyArchive, Application]{name: "dataset.apply", files: 1, run: func(c *call, a ApplyArchive) (done Application, err error) {
	fs, err := c.server.datasets.Open(a.Name, dataset.Options{})
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	o := tree.ApplyOptions{MaxBytes: a.MaxBytes, MaxEntries: a.MaxEntries}
	o.Entry = func(name string, _ int64) { c.tell(Progress{Text: name}) }
	archive := bufio.NewReaderSize(c.files[0], 1<<20)
	done.Applied, err = tree.Apply(c.ctx, tree.Target{Root: datasetlayer.Root(fs), Format: tree.Full}, archive, o)
	if err != nil {
		done.Failed = applyFailure(err)
	}
	return done, nil
}}

// A TreePair names two trees to compare.
type TreePair struct {
	From string `json:"from,omitempty"` // the older one; "": nothing, so that all of To is new
	To   string `json:"to"`
}

// compare calls use with views of both trees and what is known of how they differ, at
// the cost of the difference.
func (c *call) compare(a TreePair, use func(old, new *tree.View, o tree.CompareOptions) error) (err error) {
	var o tree.CompareOptions
	now, done, err := c.view(a.To)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if a.From == "" {
		return use(nil, now.view, o)
	}
	old, oldDone, err := c.view(a.From)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, oldDone()) }()
	delta, err := c.delta(old.name, now.name)
	if err != nil {
		return err
	}
	o.Names = append([]string{}, delta.Names...)
	return use(old.view, now.view, o)
}

// A shown tree is a snapshot and the view of it.
type shown struct {
	name string
	view *tree.View
}

// view opens a dataset as it is now, or a snapshot.
func (c *call) view(name string) (s shown, done func() error, err error) {
	snapshot, release, err := c.frozen(name)
	if err != nil {
		return s, nil, err
	}
	fs, err := c.server.datasets.Open(snapshot, dataset.Options{ReadOnly: true})
	if err != nil {
		return s, nil, errors.Join(err, release())
	}
	v, err := tree.NewView([]tree.Branch{{Name: name, Root: datasetlayer.Root(fs)}})
	if err != nil {
		return s, nil, errors.Join(err, fs.Close(), release())
	}
	return shown{snapshot, v}, func() error { return errors.Join(v.Close(), fs.Close(), release()) }, nil
}

// delta compares two snapshots.
func (c *call) delta(from, to string) (d dataset.Delta, err error) {
	old, err := c.pool.OpenTree(from)
	if err != nil {
		return d, err
	}
	defer old.Close() // it was only read
	now, err := c.pool.OpenTree(to)
	if err != nil {
		return d, err
	}
	defer now.Close()
	d, err = dataset.DiffNames(dataset.PoolTree(old), dataset.PoolTree(now))
	if err != nil {
		err = fmt.Errorf("compare %s with %s: %w", to, from, err)
	}
	return d, err
}

// DatasetArchive writes how two trees differ as a layer archive, see [tree.Write], to
// the file that comes along.
var DatasetArchive = Op[TreePair, None]{name: "dataset.archive", files: 1, run: func(c *call, a TreePair) (None, error) {
	return None{}, c.compare(a, func(old, new *tree.View, o tree.CompareOptions) error {
		w := bufio.NewWriterSize(c.files[0], 1<<20)
		if err := tree.Write(c.ctx, w, old, new, o); err != nil {
			return err
		}
		return w.Flush()
	})
}}

// A TreeChange is a [tree.Change] as it goes over the socket: paths need not be text.
type TreeChange struct {
	Path []byte    `json:"path"`
	Kind tree.Kind `json:"kind"`
	Link []byte    `json:"link,omitempty"`
}

// DatasetChanges tells how two trees differ, see [tree.Compare]: each name comes as
// [Progress.Event].
var DatasetChanges = Op[TreePair, None]{name: "dataset.changes", run: func(c *call, a TreePair) (None, error) {
	return None{}, c.compare(a, func(old, new *tree.View, o tree.CompareOptions) error {
		return tree.Compare(c.ctx, old, new, o, func(t tree.Change) error {
			c.tell(Progress{Event: TreeChange{[]byte(t.Path), t.Kind, []byte(t.Link)}})
			return nil
		})
	})
}}

// A TreeDelta tells what a tree takes that an older one has not.
type TreeDelta struct {
	Bytes   int64 `json:"bytes"`   // of records, redundancy aside
	Objects int64 `json:"objects"` // that are new or have changed
}

// DatasetDelta measures what a tree has that an older one has not. From must be named.
var DatasetDelta = Op[TreePair, TreeDelta]{name: "dataset.delta", run: func(c *call, a TreePair) (d TreeDelta, err error) {
	var names [2]string
	for i, name := range []string{a.From, a.To} {
		snapshot, release, err := c.frozen(name)
		if err != nil {
			return d, err
		}
		defer release() // a snapshot that stays is swept
		names[i] = snapshot
	}
	delta, err := c.delta(names[0], names[1])
	return TreeDelta{delta.Bytes, delta.Objects}, err
}}

// A Look is where a tree can be looked at.
type Look struct {
	Target string `json:"target"`
}

// DatasetLook shows a dataset as it is now, or a snapshot, in a directory of the
// server's own, which comes as [Progress.Event], until that is unmounted or the client
// goes away. Nothing is mapped and nothing is checked there: the user who runs the
// server can read everything. (With ACLs the kernel would check modes whatever it is
// told: fs/fuse/inode.c, process_init_reply.)
var DatasetLook = Op[Named, None]{name: "dataset.look", run: func(c *call, a Named) (_ None, err error) {
	snapshot, release, err := c.frozen(a.Name)
	if err != nil {
		return None{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	target, err := lookTarget()
	if err != nil {
		return None{}, err
	}
	if err := c.server.mountFor(true, snapshot, target, "ro,noatime,default_permissions=off,noacl"); err != nil {
		os.Remove(target) // empty
		return None{}, err
	}
	e := c.server.exports.get(target)
	if e == nil {
		return None{}, nil // unmounted already
	}
	c.tell(Progress{Event: Look{target}})
	select {
	case <-c.ctx.Done():
		err := e.unmount(true)
		return None{}, err
	case <-e.ended:
		return None{}, nil
	}
}}

// Named are the arguments of what needs a name.
type Named struct {
	Name string `json:"name"`
}

// lookTarget makes a directory for a look.
func lookTarget() (string, error) {
	dir, err := control.RuntimeDir()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, "look-")
}
