package poolserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

var ctx = context.Background()

// A bench is a pool and, after start, its server in this process.
type bench struct {
	*testing.T
	place Place
	ended chan error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, place: Place{Dir: t.TempDir()}}
	err := blockpool.Create(blockpool.CreateOptions{
		Config:   blockpool.Config{Name: "tank"},
		Devices:  []blockpool.DeviceSpec{{Path: b.place.File(0), Size: 64 << 20}},
		Metadata: []string{blockpool.ReplicaName(b.place.Dir, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// start serves the pool until the test ends.
func (b *bench) start(idle time.Duration) *Client {
	b.Helper()
	ended := make(chan error, 1)
	b.ended = ended
	go func() {
		ended <- Serve(Config{Place: b.place, Idle: idle, Log: log.New(b.Output(), "", 0), Version: "test"})
	}()
	b.Cleanup(func() {
		if err := b.place.Stopped(ctx, true); err != nil {
			b.Error(err)
		}
	})
	return b.dial()
}

func (b *bench) dial() *Client {
	b.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := b.place.Dial()
		if err == nil {
			b.Cleanup(func() { c.Close() })
			return c
		}
		if !errors.Is(err, ErrNotRunning) || time.Now().After(end) {
			b.Fatal(err)
		}
	}
}

func must[R any](t testing.TB) func(R, error) R {
	return func(r R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func TestServerEndsWhenThereIsNothingToDoAndNotBefore(t *testing.T) {
	b := newBench(t)
	c := b.start(100 * time.Millisecond)
	time.Sleep(300 * time.Millisecond) // a client that says nothing is there all the same
	must[Status](t)(PoolStatus.Call(ctx, c, None{}))
	c.Close()
	select {
	case err := <-b.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it still runs")
	}
	if _, err := b.place.Dial(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := os.Lstat(b.place.socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left (%v)", err)
	}
}

func TestSocketIsAsClosedAsThePool(t *testing.T) {
	b := newBench(t)
	b.start(0)
	st, err := os.Lstat(b.place.socket())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", st.Mode(), err)
	}
}

func TestDataGoesThroughTheFilesOfTheClient(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	must[blockpool.VolumeInfo](t)(VolumeCreate.Call(ctx, c, CreateVolume{Name: "vol", Size: 8 << 20}))
	in := filepath.Join(t.TempDir(), "in")
	data := make([]byte, 3<<20)
	copy(data[1<<20:], strings.Repeat("x", 1<<20))
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f := must[*os.File](t)(os.Open(in))
	defer f.Close()
	if m := must[Moved](t)(VolumeWrite.Call(ctx, c, WriteVolume{Name: "vol", Offset: 1 << 20}, f)); m.Bytes != 3<<20 {
		t.Errorf("%d bytes went in, not %d", m.Bytes, 3<<20)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 1)
	go func() { p, _ := io.ReadAll(r); got <- p }()
	must[Moved](t)(VolumeRead.Call(ctx, c, Range{Name: "vol", Offset: 1 << 20, Length: 3 << 20}, w))
	w.Close()
	if string(<-got) != string(data) {
		t.Error("through a pipe comes something else than went in")
	}
	out := must[*os.File](t)(os.Create(filepath.Join(t.TempDir(), "out")))
	defer out.Close()
	out.WriteString("head")
	must[Moved](t)(VolumeRead.Call(ctx, c, Range{Name: "vol"}, out))
	out.WriteString("tail")
	whole := must[[]byte](t)(os.ReadFile(out.Name()))
	if len(whole) != 8+8<<20 || string(whole[:4]) != "head" || string(whole[len(whole)-4:]) != "tail" || string(whole[4+1<<20:4+4<<20]) != string(data) {
		t.Error("a file does not go on where it was, or has something else")
	}
	var st unix.Stat_t
	if err := unix.Stat(out.Name(), &st); err != nil || st.Blocks*512 > 2<<20 {
		t.Errorf("a file of 8M with 1M of data takes %d bytes (%v)", st.Blocks*512, err)
	}
}

// A server that waits for a pipe whose client is gone would never end.
func TestClientThatGoesAwayEndsItsStream(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	must[blockpool.VolumeInfo](t)(VolumeCreate.Call(ctx, c, CreateVolume{Name: "vol", Size: 8 << 20}))
	r, w, err := os.Pipe() // nobody writes, nobody closes
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	going, leave := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, leave)
	if _, err := VolumeWrite.Call(going, c, WriteVolume{Name: "vol"}, r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	c.Close()
	other := b.dial()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := VolumeDestroy.Call(ctx, other, Name{Name: "vol"}) // refused while it is open
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("its stream still has the volume: %v", err)
		}
	}
}

func TestErrorsArriveWithTheirErrno(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	for _, e := range []struct {
		err   error
		errno unix.Errno
		says  string
	}{
		{second(VolumePromote.Call(ctx, c, Name{Name: "none"})), unix.ENOENT, "promote none"},
		{second(VolumeCreate.Call(ctx, c, CreateVolume{Name: "vol"})), unix.EINVAL, "--size"},
		{second(VolumeCreate.Call(ctx, c, CreateVolume{Name: "@", Size: 1})), unix.EINVAL, "name"},
		{second(VolumeRead.Call(ctx, c, Range{Name: "none"}, os.Stdin)), unix.ENOENT, "open none"},
		{second(VolumeRead.Call(ctx, c, Range{Name: "none"})), unix.EINVAL, "0 files came along"},
		{second(ExportEnd.Call(ctx, c, End{Target: "/none"})), unix.ENOENT, "unexport /none"},
		{second(ExportListen.Call(ctx, c, Listen{Socket: "rel"})), unix.EINVAL, "absolute"},
		{second(ExportMount.Call(ctx, c, Mount{Target: "none"})), unix.EINVAL, "absolute"},
		{second(Op[None, None]{name: "frob"}.Call(ctx, c, None{})), unix.EOPNOTSUPP, "frob"},
	} {
		if !errors.Is(e.err, e.errno) || !strings.Contains(e.err.Error(), e.says) {
			t.Errorf("%v: want %v and %q", e.err, e.errno, e.says)
		}
	}
}

func second[R any](_ R, err error) error { return err }

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	b := newBench(t)
	b.start(0)
	for _, line := range []string{"x\n", "{}\n", `{"op":"volume.create","args":{"name":7}}` + "\n", "[1]\n"} {
		conn := must[net.Conn](t)(net.Dial("unix", b.place.socket()))
		io.WriteString(conn, line)
		var g Greeting
		var a answer
		d := json.NewDecoder(conn)
		if err := errors.Join(d.Decode(&g), d.Decode(&a)); err != nil || a.Error == nil {
			t.Errorf("%q was answered by %+v (%v)", line, a, err)
		}
		conn.Close()
	}
	conn := must[net.Conn](t)(net.Dial("unix", b.place.socket()))
	defer conn.Close()
	go func() {
		for range 40 {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a line without end is read for ever")
	}
}

func TestNBDSocketIsPrivateFromItsBeginning(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "nbd")
	ln := must[net.Listener](t)(listenPrivately(path))
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", st.Mode(), err)
	}
	if _, err := listenPrivately(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("where somebody listens: %v", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if ln, err := listenPrivately(path); err != nil {
		t.Errorf("where nobody does any more: %v", err)
	} else {
		ln.Close()
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenPrivately(path); !errors.Is(err, unix.EEXIST) {
		t.Errorf("where a file is: %v", err)
	}
}

func TestStopIsRefusedWhileAnExportIsInUse(t *testing.T) {
	b := newBench(t)
	c := b.start(0)
	must[blockpool.VolumeInfo](t)(VolumeCreate.Call(ctx, c, CreateVolume{Name: "vol", Size: 8 << 20}))
	socket := filepath.Join(t.TempDir(), "nbd")
	must[ExportInfo](t)(ExportListen.Call(ctx, c, Listen{Socket: socket, Volume: "vol"}))
	if _, err := ExportListen.Call(ctx, c, Listen{Socket: socket}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a second export to one place: %v", err)
	}
	client := must[net.Conn](t)(net.Dial("unix", socket))
	defer client.Close()
	negotiate(t, client)
	if _, err := PoolStop.Call(ctx, c, Stop{}); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("stop under a client: %v, want EBUSY and what to do", err)
	}
	if _, err := ExportEnd.Call(ctx, c, End{Target: socket}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("end the export under a client: %v, want EBUSY", err)
	}
	client.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := PoolStop.Call(ctx, c, Stop{}); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := c.WaitEnd(10 * time.Second); err != nil {
		t.Error(err)
	}
	if err := <-b.ended; err != nil {
		t.Error(err)
	}
}

// negotiate opens the default export by NBD_OPT_EXPORT_NAME (doc/proto.md of NBD).
func negotiate(t *testing.T, conn net.Conn) {
	t.Helper()
	hello := make([]byte, 18)
	if _, err := io.ReadFull(conn, hello); err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte{0, 0, 0, 3})
	conn.Write([]byte("IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"))
	if _, err := io.ReadFull(conn, hello[:10]); err != nil {
		t.Fatal(err)
	}
}

// Each of those who start a server at once must end up with one that has the pool.
func TestSecondServerIsRefused(t *testing.T) {
	b := newBench(t)
	b.start(0)
	err := Serve(Config{Place: b.place, Log: log.New(io.Discard, "", 0)})
	if !errors.Is(err, blockpool.ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
	if _, err := b.place.Dial(); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestHookHearsOfEventsOneAtATime(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	heard, program := filepath.Join(dir, "heard"), filepath.Join(dir, "hook")
	script := fmt.Sprintf("#!/bin/sh\n[ -e %[1]s.busy ] && echo twice >>%[1]s\n: >%[1]s.busy\nread line\necho \"$LAMINA_POOL $LAMINA_EVENT $line\" >>%[1]s\nrm %[1]s.busy\n", heard)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := b.start(0)
	must[ConfigInfo](t)(PoolSet.Call(ctx, c, PoolChange{Hook: &program}))
	full := "a write found no space"
	must[blockpool.VolumeInfo](t)(VolumeCreate.Call(ctx, c, CreateVolume{Name: "vol", Size: 1 << 30}))
	zero := must[*os.File](t)(os.Open("/dev/urandom"))
	defer zero.Close()
	if _, err := VolumeWrite.Call(ctx, c, WriteVolume{Name: "vol"}, zero); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the pool: %v, want ENOSPC", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(heard)
		if strings.Contains(string(text), "tank full {") && strings.Contains(string(text), full) {
			if strings.Contains(string(text), "twice") {
				t.Errorf("two at once: %s", text)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the hook has heard %q", text)
		}
	}
}

func TestHookIsAProgramThatNobodyElseWrites(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "hook")
	for _, h := range []struct {
		mode os.FileMode
		path string
		says string
	}{
		{0o755, "hook", "absolute"}, {0o644, program, "chmod +x"}, {0o777, program, "go-w"}, {0o755, dir, "not a program"}, {0o755, program + "none", "no such file"},
	} {
		os.WriteFile(program, []byte("#!/bin/sh\n"), 0o600)
		os.Chmod(program, h.mode)
		if err := CheckHook(h.path); err == nil || !strings.Contains(err.Error(), h.says) {
			t.Errorf("%s of mode %v: %v, want %q in it", h.path, h.mode, err, h.says)
		}
	}
	os.Chmod(program, 0o755)
	if err := CheckHook(program); err != nil {
		t.Error(err)
	}
}

// What shows volumes to loop devices would keep the server, its mount and its memory for
// good: nobody knows the place, so nobody would end it.
func TestServerEndsWhenTheLastLoopDeviceIsGone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting without fusermount3 needs root")
	}
	b := newBench(t)
	c := b.start(100 * time.Millisecond)
	must[blockpool.VolumeInfo](t)(VolumeCreate.Call(ctx, c, CreateVolume{Name: "v", Size: 1 << 20}))
	e := must[ExportInfo](t)(ExportMount.Call(ctx, c, Mount{}))
	// A device is an open file of the kernel's; so is this.
	fd, err := unix.Open(e.Target+"/v", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case err := <-b.ended:
		unix.Close(fd)
		t.Fatalf("it ended under a device: %v", err)
	case <-time.After(700 * time.Millisecond):
	}
	unix.Close(fd)
	select {
	case err := <-b.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it still runs")
	}
	if there, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(there), e.Target) {
		t.Errorf("%s is still mounted (%v)", e.Target, err)
	}
}
