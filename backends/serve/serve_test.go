package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// memVolumes are volumes in memory.
type memVolumes struct {
	mu     sync.Mutex
	infos  map[string]VolumeInfo
	blocks map[uint64]*memBlock
	broken error // what every method gives
}

func newMemVolumes(names ...string) *memVolumes {
	m := &memVolumes{infos: map[string]VolumeInfo{}, blocks: map[uint64]*memBlock{}}
	for i, name := range names {
		id := uint64(i + 1)
		m.infos[name] = VolumeInfo{ID: id, Name: name, Size: 1 << 16, ReadOnly: strings.Contains(name, "@")}
		m.blocks[id] = &memBlock{data: make([]byte, 1<<16)}
	}
	return m
}

func (m *memVolumes) List() ([]VolumeInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []VolumeInfo
	for _, info := range m.infos {
		out = append(out, info)
	}
	return out, m.broken
}

func (m *memVolumes) Stat(name string) (VolumeInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, ok := m.infos[name]
	if !ok && m.broken == nil {
		return info, fmt.Errorf("stat %s: %w", name, unix.ENOENT)
	}
	return info, m.broken
}

func (m *memVolumes) Open(name string) (Block, error) {
	info, err := m.Stat(name)
	if err != nil {
		return nil, err
	}
	b := m.blocks[info.ID]
	b.opens++
	return b, nil
}

// memBlock is a volume whose zero bytes are holes, and which notes what is done
// to it.
type memBlock struct {
	data          []byte
	did           []string
	opens, closes int
	flushErr      error
}

func (b *memBlock) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b.data[off:])
	if off+int64(n) == int64(len(b.data)) {
		return n, io.EOF // as io.ReaderAt may at the end
	}
	return n, nil
}

func (b *memBlock) WriteAt(p []byte, off int64) (int, error) { return copy(b.data[off:], p), nil }

func (b *memBlock) note(what string, off, n int64) error {
	b.did = append(b.did, fmt.Sprint(what, " ", off, " ", n))
	clear(b.data[off : off+n])
	return nil
}

func (b *memBlock) Zero(_ context.Context, off, n int64) error    { return b.note("zero", off, n) }
func (b *memBlock) Discard(_ context.Context, off, n int64) error { return b.note("discard", off, n) }
func (b *memBlock) Size() int64                                   { return int64(len(b.data)) }
func (b *memBlock) Close() error                                  { b.closes++; return nil }

func (b *memBlock) Flush(ctx context.Context) error {
	b.did = append(b.did, "flush")
	return errors.Join(b.flushErr, ctx.Err())
}

// Allocated tells of at most 4096 bytes at a time.
func (b *memBlock) Allocated(off, n int64) (int64, bool, error) {
	hole := b.data[off] == 0
	k := int64(0)
	for k < min(n, 4096) && (b.data[off+k] == 0) == hole {
		k++
	}
	return k, hole, nil
}

func testFS(m *memVolumes) (*volumeFS, *bytes.Buffer) {
	var said bytes.Buffer
	return newVolumeFS(m, log.New(&said, "", 0)), &said
}

// lookup walks a path and returns the node at its end.
func lookup(t *testing.T, v *volumeFS, path string) (id uint64, out fuse.EntryOut, st fuse.Status) {
	t.Helper()
	id = fuse.FUSE_ROOT_ID
	for name := range strings.SplitSeq(path, "/") {
		out = fuse.EntryOut{}
		if st = v.Lookup(nil, &fuse.InHeader{NodeId: id}, name, &out); st != fuse.OK {
			return 0, out, st
		}
		id = out.NodeId
	}
	return id, out, fuse.OK
}

// open looks up and opens a volume for reading and writing.
func open(t *testing.T, v *volumeFS, path string) fuse.InHeader {
	t.Helper()
	id, _, st := lookup(t, v, path)
	if st == fuse.OK {
		in := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}, Flags: unix.O_RDWR}
		st = v.Open(nil, &in, &fuse.OpenOut{})
	}
	if st != fuse.OK {
		t.Fatalf("open %s: %v", path, st)
	}
	return fuse.InHeader{NodeId: id}
}

func TestNamesBecomeFilesAndDirectories(t *testing.T) {
	var volumes []VolumeInfo
	for i, name := range []string{"b", "a", "a@s", "a/hidden", "d/x", "d/y/z", "/abs", "e//f", "..", "g/./h", "nul\x00", strings.Repeat("n", 256)} {
		volumes = append(volumes, VolumeInfo{ID: uint64(i), Name: name})
	}
	for dir, want := range map[string]string{"": "a a@s b d/", "d": "x y/", "d/y": "z", "none": "", "e": ""} {
		var got []string
		for _, c := range childrenOf(volumes, dir) {
			name := c.name
			if c.isDir {
				name += "/"
			}
			got = append(got, name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q holds %q, want %q", dir, got, want)
		}
		if exists := isDir(volumes, dir); exists != (want != "") {
			t.Errorf("%q is a directory: %v", dir, exists)
		}
	}
}

func TestANodeStaysTheSameVolume(t *testing.T) {
	m := newMemVolumes("vol", "other")
	v, _ := testFS(m)
	id, first, _ := lookup(t, v, "vol")
	m.infos["vol"] = m.infos["other"] // destroyed, and the other one renamed
	delete(m.infos, "other")
	if st := v.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: id}}, &fuse.AttrOut{}); st != stale {
		t.Errorf("the old node: %v, want ESTALE", st)
	}
	if st := v.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}, &fuse.OpenOut{}); st != stale {
		t.Errorf("opening the old node: %v, want ESTALE", st)
	}
	if now, second, st := lookup(t, v, "vol"); st != fuse.OK || now == id || second.Ino == first.Ino {
		t.Errorf("the name leads to node %d, inode %d again (%v)", now, second.Ino, st)
	}
	v.Forget(id, 1)
	if v.nodes.get(id) != nil {
		t.Error("a forgotten node is kept")
	}
}

func TestVolumeIsClosedWithItsLastDescriptor(t *testing.T) {
	m := newMemVolumes("vol")
	v, _ := testFS(m)
	h := open(t, v, "vol")
	open(t, v, "vol")
	v.Release(nil, &fuse.ReleaseIn{InHeader: h})
	if b := m.blocks[1]; b.opens != 1 || b.closes != 0 {
		t.Errorf("with one descriptor left: %d opens, %d closes", b.opens, b.closes)
	}
	v.Release(nil, &fuse.ReleaseIn{InHeader: h})
	if b := m.blocks[1]; b.closes != 1 {
		t.Errorf("at the end: %d closes", b.closes)
	}
	open(t, v, "vol")
	if err := v.nodes.get(h.NodeId).abandon(); err != nil || m.blocks[1].closes != 2 {
		t.Errorf("when the mount is gone: %d closes (%v)", m.blocks[1].closes, err)
	}
}

func TestSnapshotCannotBeOpenedForWriting(t *testing.T) {
	m := newMemVolumes("vol@1")
	v, _ := testFS(m)
	id, out, _ := lookup(t, v, "vol@1")
	if out.Mode != unix.S_IFREG|0o400 {
		t.Errorf("mode %o", out.Mode)
	}
	in := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}, Flags: unix.O_WRONLY}
	if st := v.Open(nil, &in, &fuse.OpenOut{}); st != fuse.EROFS || m.blocks[1].opens != m.blocks[1].closes {
		t.Errorf("%v, %d opens, %d closes", st, m.blocks[1].opens, m.blocks[1].closes)
	}
}

func TestReadsAndWritesEndWithTheVolume(t *testing.T) {
	m := newMemVolumes("vol")
	v, _ := testFS(m)
	h := open(t, v, "vol")
	write := func(off uint64, n int) (uint32, fuse.Status) {
		return v.Write(nil, &fuse.WriteIn{InHeader: h, Offset: off}, bytes.Repeat([]byte("x"), n))
	}
	if n, st := write(1<<16-10, 100); n != 10 || st != fuse.OK {
		t.Errorf("writing over the end: %d, %v; want 10 bytes", n, st)
	}
	for _, off := range []uint64{1 << 16, 1<<63 + 1} {
		if n, st := write(off, 1); n != 0 || st != fuse.Status(unix.ENOSPC) {
			t.Errorf("writing at %d: %d, %v; want ENOSPC", off, n, st)
		}
	}
	read := func(off uint64) int {
		r, st := v.Read(nil, &fuse.ReadIn{InHeader: h, Offset: off, Size: 100}, make([]byte, 100))
		if st != fuse.OK {
			t.Fatalf("read at %d: %v", off, st)
		}
		return r.Size()
	}
	if read(0) != 100 || read(1<<16-10) != 10 || read(1<<16) != 0 || read(1<<63+1) != 0 {
		t.Error("reads do not end with the volume")
	}
}

func TestFallocate(t *testing.T) {
	const keep = unix.FALLOC_FL_KEEP_SIZE
	for name, c := range map[string]struct {
		mode        uint32
		off, length uint64
		want        fuse.Status
		did         string
	}{
		"punch":              {unix.FALLOC_FL_PUNCH_HOLE | keep, 512, 4096, fuse.OK, "discard 512 4096"},
		"punch over the end": {unix.FALLOC_FL_PUNCH_HOLE | keep, 1<<16 - 1, 10, fuse.OK, "discard 65535 1"},
		"punch behind it":    {unix.FALLOC_FL_PUNCH_HOLE | keep, 1 << 20, 10, fuse.OK, ""},
		"zero":               {unix.FALLOC_FL_ZERO_RANGE, 0, 10, fuse.OK, "zero 0 10"},
		"zero, keep size":    {unix.FALLOC_FL_ZERO_RANGE | keep, 0, 10, fuse.OK, "zero 0 10"},
		"zero over the end":  {unix.FALLOC_FL_ZERO_RANGE | keep, 1<<16 - 1, 10, fuse.Status(unix.ENOSPC), ""},
		"allocate":           {0, 0, 1 << 16, fuse.OK, ""},
		"allocate more":      {keep, 0, 1<<16 + 1, fuse.Status(unix.ENOSPC), ""},
		"huge":               {0, 1, 1<<64 - 1, fuse.Status(unix.ENOSPC), ""},
		"collapse":           {unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096, fuse.Status(unix.EOPNOTSUPP), ""},
	} {
		m := newMemVolumes("vol")
		v, _ := testFS(m)
		in := fuse.FallocateIn{InHeader: open(t, v, "vol"), Mode: c.mode, Offset: c.off, Length: c.length}
		if st := v.Fallocate(nil, &in); st != c.want || strings.Join(m.blocks[1].did, ",") != c.did {
			t.Errorf("%s: %v, did %q; want %v, %q", name, st, m.blocks[1].did, c.want, c.did)
		}
	}
}

func TestSeekFindsDataAndHoles(t *testing.T) {
	m := newMemVolumes("vol")
	for i := 20000; i < 30000; i++ {
		m.blocks[1].data[i] = 1
	}
	v, _ := testFS(m)
	h := open(t, v, "vol")
	const nothing = -1
	for _, c := range []struct {
		whence    uint32
		off, want int64
	}{
		{unix.SEEK_DATA, 0, 20000}, {unix.SEEK_DATA, 25000, 25000}, {unix.SEEK_DATA, 30000, nothing},
		{unix.SEEK_HOLE, 0, 0}, {unix.SEEK_HOLE, 20000, 30000}, {unix.SEEK_HOLE, 1<<16 - 1, 1<<16 - 1},
		{unix.SEEK_HOLE, 1 << 16, nothing}, {unix.SEEK_DATA, 1 << 20, nothing},
	} {
		var out fuse.LseekOut
		st := v.Lseek(nil, &fuse.LseekIn{InHeader: h, Offset: uint64(c.off), Whence: c.whence}, &out)
		if got := int64(out.Offset); c.want == nothing && st != fuse.Status(unix.ENXIO) || c.want != nothing && (st != fuse.OK || got != c.want) {
			t.Errorf("whence %d from %d: %d, %v; want %d", c.whence, c.off, got, st, c.want)
		}
	}
}

func TestErrorsKeepTheirNumberAndAreLogged(t *testing.T) {
	m := newMemVolumes("vol")
	v, said := testFS(m)
	h := open(t, v, "vol")
	fsync := func(cancel <-chan struct{}, err error) fuse.Status {
		m.blocks[1].flushErr = err
		return v.Fsync(cancel, &fuse.FsyncIn{InHeader: h})
	}
	if st := fsync(nil, fmt.Errorf("the pool is full: %w", unix.ENOSPC)); st != fuse.Status(unix.ENOSPC) || said.Len() > 0 {
		t.Errorf("a full pool: %v, logged %q", st, said)
	}
	if st := fsync(nil, errors.New("wrong checksum")); st != fuse.EIO || !strings.Contains(said.String(), "flush volume vol: wrong checksum") {
		t.Errorf("damage: %v, logged %q", st, said)
	}
	gone := make(chan struct{})
	close(gone)
	if st := fsync(gone, nil); st != fuse.OK {
		t.Errorf("a signal while the disk is waited for: %v, want OK: fsync knows no EINTR", st)
	}
	m.broken = unix.EIO
	if _, _, st := lookup(t, v, "vol"); st != fuse.EIO {
		t.Errorf("a pool that cannot be asked: %v, want EIO and not ENOENT", st)
	}
}

func TestSyncWritesFlush(t *testing.T) {
	m := newMemVolumes("vol")
	v, _ := testFS(m)
	h := open(t, v, "vol")
	for flags, want := range map[uint32]int{0: 0, unix.O_DSYNC: 1, unix.O_SYNC: 1} {
		m.blocks[1].did = nil
		if _, st := v.Write(nil, &fuse.WriteIn{InHeader: h, Flags: flags}, []byte("x")); st != fuse.OK || len(m.blocks[1].did) != want {
			t.Errorf("flags %#x: %v, did %q", flags, st, m.blocks[1].did)
		}
	}
}

func TestAttributesCannotBeChanged(t *testing.T) {
	v, _ := testFS(newMemVolumes("vol"))
	id, _, _ := lookup(t, v, "vol")
	for name, in := range map[string]fuse.SetAttrInCommon{
		"truncate": {Valid: fuse.FATTR_SIZE, Size: 0},
		"grow":     {Valid: fuse.FATTR_SIZE, Size: 1 << 17},
		"chmod":    {Valid: fuse.FATTR_MODE, Mode: 0o644},
		"chown":    {Valid: fuse.FATTR_UID, Owner: fuse.Owner{Uid: 4711}},
		"touch":    {Valid: fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW},
	} {
		in.NodeId = id
		if st := v.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: in}, &fuse.AttrOut{}); st != fuse.EPERM {
			t.Errorf("%s: %v, want EPERM", name, st)
		}
	}
	same := fuse.SetAttrInCommon{InHeader: fuse.InHeader{NodeId: id}, Valid: fuse.FATTR_SIZE | fuse.FATTR_MODE, Size: 1 << 16, Mode: 0o600}
	if st := v.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: same}, &fuse.AttrOut{}); st != fuse.OK {
		t.Errorf("setting what is so already: %v", st)
	}
}
