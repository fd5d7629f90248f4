package layertest

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

var handleTests = []test{
	{"Handle/IdentifiesTheInode", testHandle},
	{"Filesystem/StatfsAndUUID", testStatfs},
	{"Filesystem/ManyAtOnce", testConcurrent},
}

func testHandle(e *env) {
	types := makeAll(e)
	seen := make(map[string]string)
	for name := range types {
		o := e.lookup(e.root, name)
		h, err := o.Handle()
		if !e.able(e.Handles, "handle of "+name, err, unix.EOPNOTSUPP) {
			continue
		}
		key := fmt.Sprint(h)
		e.same("handle of "+name+" is also that of", seen[key], "")
		seen[key] = name
		e.ok("rename", e.root.Rename(name, e.root, "moved", 0))
		again, err := e.lookup(e.root, "moved").Handle()
		e.ok("handle", err)
		e.same("handle of "+name+" after a rename", fmt.Sprint(again), key)
		e.ok("rename", e.root.Rename("moved", e.root, name, 0))
	}
	if e.Handles {
		f := e.open(e.root, "file", unix.O_RDONLY)
		h, err := f.Handle()
		e.ok("handle of an open file", err)
		e.same("handle of an open file", seen[fmt.Sprint(h)], "file")
		h, err = e.opendir(e.root, "dir").Handle()
		e.ok("handle of an open directory", err)
		e.same("handle of an open directory", seen[fmt.Sprint(h)], "dir")
	}
}

func testStatfs(e *env) {
	sub := e.mkdir(e.root, "d")
	a, err := e.root.Statfs()
	e.ok("statfs", err)
	b, err := sub.Statfs()
	e.ok("statfs", err)
	e.same("longest name", a.NameLen, uint32(layer.NameMax))
	e.same("type", a.Type, b.Type)
	e.same("size", a.Blocks, b.Blocks)
	e.same("block size is there", a.Bsize > 0 && a.Frsize > 0, true)
	e.same("free is at most all", a.Bavail <= a.Bfree && a.Bfree <= a.Blocks && a.Ffree <= a.Files, true)
	x, y := e.root.UUID(), sub.UUID()
	e.same("UUID below", bytes.Equal(x[:], y[:]), true)
}

// testConcurrent lets goroutines work in one directory, each on its own names
// and all on a common one; what is left must add up.
func testConcurrent(e *env) {
	const workers, rounds = 6, 40
	d := e.mkdir(e.root, "d")
	e.file(d, "common", "")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			name := fmt.Sprint("own", w)
			for range rounds {
				if err := d.Mknod(name, unix.S_IFREG|0o600, 0); err != nil {
					e.Errorf("mknod: %v", err)
					return
				}
				obj, err := d.Lookup("common")
				if err != nil {
					e.Errorf("lookup: %v", err)
					return
				}
				err = d.Link(obj, name+"link")
				obj.Close()
				if err != nil {
					e.Errorf("link: %v", err)
					return
				}
				if _, err := d.ReadDir(); err != nil {
					e.Errorf("read directory: %v", err)
				}
				if err := d.Rename(name, d, name+"link", 0); err != nil {
					e.Errorf("rename: %v", err)
				}
				if err := d.Unlink(name + "link"); err != nil {
					e.Errorf("unlink: %v", err)
				}
			}
		})
	}
	wg.Wait()
	e.same("names", e.names(d), "common")
	e.same("links", e.statAt(d, "common").Nlink, uint32(1))
}
