package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs/control"
)

// fakeUnion is a union without a filesystem.
type fakeUnion struct {
	mu        sync.Mutex
	lowers    []string
	unmounted chan bool // receives lazy
	busy      bool
}

func (u *fakeUnion) Counters() Counters {
	return Counters{Requests: map[string]uint64{"LOOKUP": 3, "WRITE": 4}, CopyUps: 2}
}

func (u *fakeUnion) Layers() []LayerInfo {
	u.mu.Lock()
	defer u.mu.Unlock()
	layers := []LayerInfo{{Role: RoleUpper, Path: "/upper", Format: "overlay"}}
	for i, path := range u.lowers {
		layers = append(layers, LayerInfo{Role: RoleLower, Index: i, Path: path})
	}
	return layers
}

func (u *fakeUnion) AddLower(index int, path string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Contains(u.lowers, path) {
		return fmt.Errorf("add %s: it is a layer already: %w", path, unix.EBUSY)
	}
	u.lowers = slices.Insert(u.lowers, index, path)
	return nil
}

func (u *fakeUnion) DelLower(path string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.Index(u.lowers, path)
	if i < 0 {
		return fmt.Errorf("remove %s: no lower has that path: %w", path, unix.ENOENT)
	}
	u.lowers = slices.Delete(u.lowers, i, i+1)
	return nil
}

func (u *fakeUnion) Options() map[string]string { return map[string]string{"volatile": "on"} }

func (u *fakeUnion) Unmount(lazy bool) error {
	if u.busy && !lazy {
		return fmt.Errorf("unmount: %w", unix.EBUSY)
	}
	u.unmounted <- lazy
	return nil
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// listen starts a control server whose socket nobody else sees.
func listen(t *testing.T, u *fakeUnion, info Info) *ControlServer {
	t.Helper()
	if os.Getenv("LAMINA_RUNTIME_DIR") == "" {
		t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	}
	if u.unmounted == nil {
		u.unmounted = make(chan bool, 1)
	}
	s, err := ListenControl(u, info, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestOwnerSeesAndChangesALiveMount(t *testing.T) {
	dir := t.TempDir()
	u := &fakeUnion{lowers: []string{"/a", "/b"}}
	info := Info{Target: dir, Source: "lamina", Type: "fuse.lamina", Dev: "0:4095", PID: os.Getpid(), Started: time.Now().Round(0)}
	listen(t, u, info)
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.Info.Started.Equal(info.Started) || c.Info.Target != dir || c.Info.Dev != info.Dev {
		t.Errorf("info is %+v, want %+v", c.Info, info)
	}
	if got, err := c.Counters(); err != nil || !reflect.DeepEqual(got, u.Counters()) {
		t.Errorf("counters %+v (%v), want %+v", got, err, u.Counters())
	}
	if got, err := c.Options(); err != nil || got["volatile"] != "on" {
		t.Errorf("options %v (%v)", got, err)
	}
	if err := c.AddLower(1, "/new"); err != nil {
		t.Error(err)
	}
	if want := []string{"/a", "/new", "/b"}; !slices.Equal(u.lowers, want) {
		t.Errorf("lowers %q, want %q", u.lowers, want)
	}
	if err := c.AddLower(0, "/new"); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "already") {
		t.Errorf("the server's refusal arrives as %v, want its words and EBUSY", err)
	}
	if err := c.DelLower("/a"); err != nil {
		t.Error(err)
	}
	if err := c.DelLower("/a"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("removing what is no layer: %v", err)
	}
	if got, err := c.Layers(); err != nil || !reflect.DeepEqual(got, u.Layers()) {
		t.Errorf("layers %+v (%v), want %+v", got, err, u.Layers())
	}
	if err := c.Unmount(true); err != nil || !<-u.unmounted {
		t.Errorf("lazy unmount: %v", err)
	}
}

func TestDelLowerFindsTheSameDirectoryUnderAnotherName(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	u := &fakeUnion{lowers: []string{"/a", dir}}
	s := listen(t, u, Info{Target: "/x", Dev: "0:4095"})
	if err := s.delLower(link); err != nil || len(u.lowers) != 1 {
		t.Errorf("%v, lowers left: %q", err, u.lowers)
	}
}

func TestBadRequestsGetAnAnswer(t *testing.T) {
	s := listen(t, &fakeUnion{}, Info{Target: "/x", Dev: "0:4095"})
	for line, says := range map[string]string{
		`not json`:                             "JSON object",
		`{"op":"format-c:"}`:                   "known: info",
		`{}`:                                   "unknown operation",
		`{"op":"add-lower","path":"relative"}`: "absolute",
		`{"op":"mod"}`:                         "remount /x",
	} {
		if _, err := s.answer([]byte(line)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want an error that says %q", line, err, says)
		}
	}
	conn, err := net.Dial("unix", s.socket.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go conn.Write(bytes.Repeat([]byte("x"), control.MaxLine+1)) // no newline in sight
	if rest, err := io.ReadAll(conn); err != nil && !errors.Is(err, unix.ECONNRESET) || len(rest) != 0 {
		t.Errorf("a request without end: answer %q, %v; want the connection closed", rest, err)
	}
}

// lamina ps must show what lives and nothing that died.
func TestLiveSweepsSocketsOfKilledServers(t *testing.T) {
	s := listen(t, &fakeUnion{}, Info{Target: "/alive", Dev: "0:1"})
	dir := filepath.Dir(s.socket.Path())
	dead := filepath.Join(dir, "0:2.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	crash, full := filepath.Join(dir, "0:2.crash"), filepath.Join(dir, "0:3.crash")
	for path, text := range map[string]string{crash: "", full: "panic: …"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	clients, err := Live()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		defer c.Close()
	}
	if len(clients) != 1 || clients[0].Info.Target != "/alive" {
		t.Errorf("%d live mounts, want the one that lives", len(clients))
	}
	for path, kept := range map[string]bool{dead: false, crash: false, full: true, s.socket.Path(): true} {
		if _, err := os.Lstat(path); (err == nil) != kept {
			t.Errorf("%s: %v, kept must be %v", path, err, kept)
		}
	}
	s.Close()
	if clients, err := Live(); err != nil || len(clients) != 0 {
		t.Errorf("after the server ended: %d live mounts, %v", len(clients), err)
	}
}

func TestSocketsWorkInDirectoriesWithLongNames(t *testing.T) {
	long := t.TempDir() + "/" + strings.Repeat("d", 200)
	t.Setenv("LAMINA_RUNTIME_DIR", long)
	listen(t, &fakeUnion{}, Info{Target: "/far", Dev: "0:1"})
	c, err := Dial("/far")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestDialTellsWhatIsThereInstead(t *testing.T) {
	t.Setenv("LAMINA_RUNTIME_DIR", t.TempDir())
	for target, says := range map[string]string{
		"/proc":               "is mounted as proc",
		t.TempDir():           "is not mounted",
		"/no/such/directory/": "no such file",
	} {
		if c, err := Dial(target); err == nil {
			c.Close()
			t.Errorf("%s: connected to %+v", target, c.Info)
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", target, err, says)
		}
	}
}

// Another user must not control a mount, not even when the directory that
// keeps others out is gone.
func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as another user needs root")
	}
	base, err := os.MkdirTemp("/tmp", "lamina")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(base, "run"))
	s := listen(t, &fakeUnion{}, Info{Target: "/x", Dev: "0:1"})
	for path, mode := range map[string]os.FileMode{base: 0o755, filepath.Dir(s.socket.Path()): 0o755, s.socket.Path(): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(uid int) string {
		answer := make(chan string)
		go func() {
			// The thread acts as the user and, locked, ends with this function.
			runtime.LockOSThread()
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				answer <- errno.Error()
				return
			}
			answer <- askInfo(s.socket.Path())
		}()
		return <-answer
	}
	if got := ask(0); !strings.Contains(got, "target") {
		t.Errorf("root got %s", got)
	}
	if got := ask(4711); got != "refused" {
		t.Errorf("another user got %s", got)
	}
}

// askInfo connects on the calling thread, whose user the server then sees.
func askInfo(path string) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err.Error()
	}
	unix.Write(fd, []byte(`{"op":"info"}`+"\n")) // fails when the server was faster to hang up
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if n <= 0 || err != nil {
		return "refused"
	}
	return string(buf[:n])
}

func TestRuntimeDirOfSomebodyElseIsNotUsed(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"open to others": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a symlink":      func(dir string) error { return os.Symlink("/tmp", dir) },
		"a file":         func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		dir := filepath.Join(t.TempDir(), "run")
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		t.Setenv("LAMINA_RUNTIME_DIR", dir)
		if got, err := control.RuntimeDir(); err == nil {
			t.Errorf("%s: used %s", name, got)
		}
	}
}

func TestCountersAsText(t *testing.T) {
	text := (&fakeUnion{}).Counters().String()
	for _, line := range []string{"copy_ups             2\n", "requests             7\n", "  LOOKUP             3\n  WRITE              4\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}
