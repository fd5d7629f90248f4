//go:build integration

package datasets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/serve/datasets"
	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/fusefs/control"
	"github.com/laminafs/lamina/fs/mountopt"
)

// The tests start this binary again as the process that owns the pool, and as
// programs of the user who has mounted.
func TestMain(m *testing.M) {
	if pool := os.Getenv("LAMINA_TEST_POOL"); pool != "" {
		if err := serve(pool); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if name := os.Getenv("LAMINA_TEST_CLIENT"); name != "" {
		client := clients[name]
		if client == nil {
			client = endless[name]
		}
		if err := client(os.Getenv("LAMINA_TEST_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// request is what the tests ask the server for.
type request struct {
	Op string   `json:"op"`
	A  []string `json:"a"`
}

const socketName = "datasets.control"

// serve owns a pool until its input ends.
func serve(dir string) error {
	ctx := context.Background()
	pool, err := blockpool.Open(dir, blockpool.OpenOptions{})
	if err != nil {
		return err
	}
	defer pool.Close()
	mounts := datasets.New(pool, fusefs.NewLogger("server"))
	ops := map[string]func(a []string) (any, error){
		"create": func(a []string) (any, error) {
			return nil, pool.CreateDataset(ctx, a[0], blockpool.DatasetOptions{RecordSize: 16 << 10})
		},
		"mount": func(a []string) (any, error) {
			o, err := mountopt.Parse(a[2])
			if err != nil {
				return nil, err
			}
			_, err = mounts.Mount(datasets.Config{Dataset: a[0], Target: a[1], Options: o})
			return nil, err
		},
		"umount": func(a []string) (any, error) {
			m := mounts.On(a[0])
			if m == nil {
				return nil, fmt.Errorf("%s: %w", a[0], unix.EINVAL)
			}
			return nil, m.Unmount(len(a) > 1)
		},
		"snapshot": func(a []string) (any, error) {
			if err := mounts.Flush(a[0], false); err != nil {
				return nil, err
			}
			err := pool.Snapshot(ctx, a[0], a[0]+"@"+a[1])
			mounts.SnapshotsChanged(a[0])
			return nil, err
		},
		"destroy": func(a []string) (any, error) {
			if err := mounts.LetGo(a[0]); err != nil {
				return nil, err
			}
			err := pool.Destroy(ctx, a[0])
			mounts.SnapshotsChanged(a[0])
			return nil, err
		},
		"plain-destroy": func(a []string) (any, error) { return nil, pool.Destroy(ctx, a[0]) },
		"rollback": func(a []string) (any, error) {
			return nil, mounts.Offline(a[0], func() error { return pool.Rollback(ctx, a[0]+"@"+a[1]) })
		},
		"limit": func(a []string) (any, error) {
			var quota int64
			fmt.Sscan(a[1], &quota)
			return nil, pool.SetLimits(ctx, a[0], 0, quota, 0)
		},
		"add-subvolume":    func(a []string) (any, error) { return nil, mounts.On(a[0]).AddSubvolume(a[1], a[2], a[3]) },
		"remove-subvolume": func(a []string) (any, error) { return mounts.On(a[0]).RemoveSubvolume(a[1], a[2]) },
		"check":            func([]string) (any, error) { return nil, checkAll(ctx, pool) },
		"counters":         func(a []string) (any, error) { return mounts.On(a[0]).Counters(), nil },
		"options":          func(a []string) (any, error) { return mounts.On(a[0]).Options(), nil },
		"pid":              func([]string) (any, error) { return os.Getpid(), nil },
	}
	socket, err := control.Listen(filepath.Join(dir, socketName), func(line []byte) (any, error) {
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, err
		}
		return ops[r.Op](r.A)
	}, fusefs.NewLogger("server"))
	if err != nil {
		return err
	}
	defer socket.Close()
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	if err := mounts.Close(false); err != nil {
		return errors.Join(err, mounts.Close(true))
	}
	return checkAll(ctx, pool)
}

// checkAll checks the pool and everything in it: nothing that the programs of a test
// have done may leave damage.
func checkAll(ctx context.Context, pool *blockpool.Pool) error {
	var damage []error
	for _, i := range pool.Volumes() {
		t, err := pool.OpenTree(i.Name)
		if err != nil {
			return err
		}
		err = dataset.Check(dataset.PoolTree(t), func(object uint64, problem string) error {
			damage = append(damage, fmt.Errorf("%s: object %d: %s", i.Name, object, problem))
			return nil
		})
		if err = errors.Join(err, t.Close()); err != nil {
			return err
		}
	}
	report, err := pool.Check(ctx, blockpool.CheckOptions{Data: true})
	if err == nil && len(report.Findings) > 0 {
		err = fmt.Errorf("the pool: %v", report.Findings)
	}
	return errors.Join(append(damage, err)...)
}

// nobody is an ordinary user with an account, as fusermount3 wants it.
const nobody = 65534

// A server is a pool and the process that owns it.
type server struct {
	t       testing.TB
	uid     uint32
	base    string
	pool    string
	options string // that the dataset is mounted with
	cmd     *exec.Cmd
	stop    *os.File
	socket  *control.Client
}

// newServer makes a pool with a dataset "set" and starts a server as a user.
func newServer(t testing.TB, uid uint32) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, also to act as somebody else")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	base, err := os.MkdirTemp("/var/tmp", "lamina-datasets")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, uid: uid, base: base, pool: filepath.Join(base, "pool")}
	t.Cleanup(func() {
		s.end()
		os.RemoveAll(base)
	})
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(s.pool, 0o755)); err != nil {
		t.Fatal(err)
	}
	err = blockpool.Create(blockpool.CreateOptions{
		Config:   blockpool.Config{Name: "tank"},
		Devices:  []blockpool.DeviceSpec{{Path: filepath.Join(s.pool, "disk"), Size: 4 << 30}},
		Metadata: []string{blockpool.ReplicaName(s.pool, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(base, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(uid), int(uid)))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ask("create", "set")
	return s
}

// start starts the process.
func (s *server) start() {
	s.t.Helper()
	s.cmd = s.command(s.uid, "/proc/self/exe")
	s.cmd.Env = append(os.Environ(), "LAMINA_TEST_POOL="+s.pool)
	s.cmd.Stderr = os.Stderr
	in, stop, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	s.cmd.Stdin, s.stop = in, stop
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 16))
	}
	if err != nil {
		s.t.Fatalf("start the server: %v", err)
	}
	if s.socket, err = control.Dial(filepath.Join(s.pool, socketName)); err != nil {
		s.t.Fatal(err)
	}
}

// end stops the process in order.
func (s *server) end() {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	s.socket.Close()
	s.stop.Close()
	stuck := time.AfterFunc(time.Minute, func() { s.cmd.Process.Kill() })
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server ended with: %v", err)
	}
	stuck.Stop()
	s.cmd = nil
}

// kill kills the process with everything that it has mounted.
func (s *server) kill(targets ...string) {
	s.t.Helper()
	s.socket.Close()
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.stop.Close()
	s.cmd = nil
	for _, dir := range targets {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			s.t.Errorf("unmount %s: %v", dir, err)
		}
	}
}

// try asks the server.
func (s *server) try(op string, a ...string) error { return s.socket.Call(op, request{op, a}, nil) }

// ask is try for what must succeed.
func (s *server) ask(op string, a ...string) {
	s.t.Helper()
	if err := s.try(op, a...); err != nil {
		s.t.Fatalf("%s %s: %v", op, strings.Join(a, " "), err)
	}
}

// mount mounts a dataset in a directory of its own.
func (s *server) mount(dataset, options string) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.base, "mnt")
	if err == nil {
		err = os.Chown(dir, int(s.uid), int(s.uid))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.ask("mount", dataset, dir, options)
	return dir
}

// mounted starts a server and mounts its dataset.
func mounted(t testing.TB, uid uint32, options string) (*server, string) {
	t.Helper()
	s := newServer(t, uid)
	s.options = options
	return s, s.mount("set", options)
}

// command prepares a program that runs as a user.
func (s *server) command(uid uint32, argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = s.base
	cmd.Env = append(os.Environ(), "HOME="+s.base, "GIT_CONFIG_NOSYSTEM=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// run runs a program as the user who has mounted, and returns what it prints; it must
// succeed.
func (s *server) run(argv ...string) string {
	s.t.Helper()
	cmd := s.command(s.uid, argv...)
	done := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
	defer done.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// client runs one of clients in a directory, as the user who has mounted.
func (s *server) client(name, dir string) error {
	cmd := s.command(s.uid, "/proc/self/exe")
	cmd.Env = append(cmd.Env, "LAMINA_TEST_CLIENT="+name, "LAMINA_TEST_DIR="+dir)
	done := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
	defer done.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %s", err, out)
	}
	return nil
}

// need skips a test for want of a program.
func need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// modes runs a test as root and as an ordinary user, with and without write-back.
func modes(t *testing.T, f func(t *testing.T, s *server, dir string)) {
	for _, c := range []struct {
		name    string
		uid     uint32
		options string
	}{
		{"root", 0, "writeback=0"}, {"root, write-back", 0, "writeback=1"},
		{"user", nobody, "writeback=0"}, {"user, write-back", nobody, "writeback=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dir := mounted(t, c.uid, c.options)
			f(t, s, dir)
		})
	}
}
