package fusefs

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// slowFS answers Fsync and GetAttr when it is told to.
type slowFS struct {
	fuse.RawFileSystem
	fsync, getattr chan struct{}
}

func (f *slowFS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { <-f.fsync; return fuse.OK }

func (f *slowFS) GetAttr(<-chan struct{}, *fuse.GetAttrIn, *fuse.AttrOut) fuse.Status {
	<-f.getattr
	return fuse.OK
}

// kernelEnd plays the kernel's part over a socket that keeps messages apart.
type kernelEnd struct {
	t  *testing.T
	fd int
}

func newKernelEnd(t *testing.T, fs fuse.RawFileSystem) (kernelEnd, *conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k := kernelEnd{t, fds[0]}
	k.ask(opcodeInit, 1, 7, 40, 0, 0) // major, minor, readahead, flags
	c, err := newConn(fds[1], fs, &fuse.MountOptions{MaxWrite: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if id, status := k.reply(); id != 1 || status != 0 {
		t.Fatalf("INIT: reply to %d with status %d", id, status)
	}
	return k, c
}

// ask sends a request of 32-bit fields.
func (k kernelEnd) ask(op uint32, id uint64, fields ...uint32) {
	k.t.Helper()
	msg := make([]byte, inHeaderSize)
	for _, f := range fields {
		msg = binary.NativeEndian.AppendUint32(msg, f)
	}
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint32(msg[4:], op)
	binary.NativeEndian.PutUint64(msg[8:], id)
	binary.NativeEndian.PutUint64(msg[16:], 1)
	if _, err := unix.Write(k.fd, msg); err != nil {
		k.t.Fatal(err)
	}
}

func (k kernelEnd) reply() (id uint64, status int32) {
	k.t.Helper()
	buf := make([]byte, 8192)
	fds := []unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 10_000); err != nil || n == 0 {
		k.t.Fatalf("no reply within ten seconds (%v)", err)
	}
	n, err := unix.Read(k.fd, buf)
	if err != nil || n < outHeaderSize {
		k.t.Fatalf("a reply of %d bytes (%v)", n, err)
	}
	return binary.NativeEndian.Uint64(buf[8:]), int32(binary.NativeEndian.Uint32(buf[4:]))
}

const (
	opcodeGetattr = 3
	opcodeStatfs  = 17
)

// Nobody waits for another one's slow disk: neither behind a request that is
// known to take long nor behind one that is not.
func TestSlowRequestsDoNotHoldUpOthers(t *testing.T) {
	fs := &slowFS{fuse.NewDefaultRawFileSystem(), make(chan struct{}), make(chan struct{})}
	k, c := newKernelEnd(t, fs)
	served := make(chan struct{})
	go func() { c.serve(); close(served) }()

	const slow = 40
	for id := uint64(100); id < 100+slow; id++ {
		k.ask(opcodeFsync, id, 0, 0, 0, 0)
		k.ask(opcodeGetattr, id+1000, 0, 0, 0, 0)
	}
	for id := uint64(1); id < 50; id++ {
		k.ask(opcodeStatfs, id)
		if got, _ := k.reply(); got != id {
			t.Fatalf("reply to %d, want %d", got, id)
		}
	}
	close(fs.fsync)
	close(fs.getattr)
	seen := map[uint64]bool{}
	for range 2 * slow {
		id, _ := k.reply()
		if seen[id] {
			t.Errorf("two replies to %d", id)
		}
		seen[id] = true
	}
	unix.Close(k.fd)
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not end with its connection")
	}
}

// One client is served by one worker; the crowd that a rush has called goes home.
func TestCrewShrinksAfterARush(t *testing.T) {
	fs := &slowFS{fuse.NewDefaultRawFileSystem(), make(chan struct{}), make(chan struct{})}
	close(fs.fsync)
	k, c := newKernelEnd(t, fs)
	crew := newCrew(c)
	var done sync.WaitGroup
	done.Go(crew.serve)
	const requests = 5000
	asked := make(chan struct{}, 64) // a socket, unlike the kernel, makes the server wait when it is full
	done.Go(func() {
		for id := range uint64(requests) {
			asked <- struct{}{}
			k.ask(opcodeStatfs, id)
		}
	})
	for range requests {
		k.reply()
		<-asked
	}
	crew.mu.Lock()
	if len(crew.all) < 2 {
		t.Errorf("%d worker in a rush of requests", len(crew.all))
	}
	crew.mu.Unlock()
	eventually(t, "the crew to shrink to one leader", func() bool {
		k.ask(opcodeStatfs, 7)
		k.reply()
		crew.mu.Lock()
		defer crew.mu.Unlock()
		return crew.leaders == 1 && crew.wanted == 1
	})
	unix.Close(k.fd)
	done.Wait()
}

// A request that makes no sense is refused and does not end the server.
func TestMalformedRequests(t *testing.T) {
	fs := &slowFS{fuse.NewDefaultRawFileSystem(), nil, nil}
	k, c := newKernelEnd(t, fs)
	var done sync.WaitGroup
	done.Go(c.serve)
	k.ask(opcodeRead, 5) // without its fields
	if id, status := k.reply(); id != 5 || status >= 0 {
		t.Errorf("READ without fields: reply to %d with status %d", id, status)
	}
	k.ask(9999, 6)
	if id, status := k.reply(); id != 6 || status != -int32(unix.ENOSYS) {
		t.Errorf("unknown operation: reply to %d with status %d", id, status)
	}
	k.ask(opcodeStatfs, 7)
	if id, _ := k.reply(); id != 7 {
		t.Errorf("reply to %d", id)
	}
	unix.Close(k.fd)
	done.Wait()
}

// A request that is wrongly taken for a short one holds up those behind it.
func TestWhichRequestsAreHandledBesideOthers(t *testing.T) {
	message := func(op, size uint32, length int) []byte {
		msg := make([]byte, max(length, inHeaderSize+40))
		binary.NativeEndian.PutUint32(msg[4:], op)
		binary.NativeEndian.PutUint32(msg[inHeaderSize+16:], size)
		return msg
	}
	for name, c := range map[string]struct {
		request                []byte
		fromCache, dataOnDisks bool
	}{
		"short read":  {message(opcodeRead, 4096, 0), false, true},
		"long read":   {message(opcodeRead, 1<<20, 0), true, true},
		"short write": {message(opcodeWrite, 4096, 4096+80), false, true},
		"long write":  {message(opcodeWrite, 1<<20, 1<<20), true, true},
		"fsync":       {message(opcodeFsync, 0, 0), true, true},
		"setattr":     {message(opcodeSetattr, 0, 0), false, false},
	} {
		if got := takesLong(c.request, false); got != c.fromCache {
			t.Errorf("%s: %v", name, got)
		}
		if got := takesLong(c.request, true); got != c.dataOnDisks {
			t.Errorf("%s where data waits: %v", name, got)
		}
	}
}
