package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// A poolStage is a directory of pools and the program that works on them.
type poolStage struct {
	*testing.T
	root string
}

func newPoolStage(t *testing.T) *poolStage {
	t.Helper()
	dir := t.TempDir()
	s := &poolStage{t, filepath.Join(dir, "pools")}
	t.Setenv("LAMINA_POOL_ROOT", s.root)
	t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(dir, "run"))
	t.Setenv("LAMINA_TEST_ACT", "1") // for servers that this process starts itself
	t.Cleanup(func() {
		places, _ := poolserver.List(s.root)
		for _, p := range places {
			if err := p.Stopped(context.Background(), true); err != nil {
				t.Errorf("stop %s: %v", p.Name(), err)
			}
			if log, err := os.ReadFile(filepath.Join(p.Dir, "server.log")); err == nil && t.Failed() {
				t.Logf("log of the server:\n%s", log)
			}
		}
	})
	return s
}

// pool makes a pool of 256M called tank.
func (s *poolStage) pool(flags ...string) poolserver.Place {
	s.Helper()
	s.ok(append([]string{"pool", "create", "--size", "256M", "tank"}, flags...)...)
	return poolserver.Place{Dir: filepath.Join(s.root, "tank")}
}

func (s *poolStage) ok(argv ...string) string {
	s.Helper()
	got := lamina(s.T, argv...)
	if got.status != 0 || got.stderr != "" {
		s.Fatalf("lamina %q: status %d: %s", argv, got.status, got.stderr)
	}
	return got.stdout
}

// feed runs a command with that on stdin.
func (s *poolStage) feed(data []byte, argv ...string) result {
	s.Helper()
	cmd := command(s.T, append([]string{"lamina"}, argv...)...)
	cmd.Stdin = bytes.NewReader(data) // comes through a pipe
	return finish(s.T, cmd)
}

// status returns what "pool status --json" tells.
func (s *poolStage) status() (st poolserver.Status) {
	s.Helper()
	if err := json.Unmarshal([]byte(s.ok("pool", "status", "--json", "tank")), &st); err != nil {
		s.Fatal(err)
	}
	return st
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

func TestPoolFromBeginningToEnd(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	if got := lamina(t, "pool", "list"); !strings.Contains(got.stdout, "tank  stopped") {
		t.Errorf("before the first use: %+v", got)
	}
	s.ok("volume", "create", "--size", "64M", "tank", "base")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if got := s.feed(data, "volume", "write", "--offset", "1M", "tank", "base"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	s.ok("volume", "snapshot", "tank", "base@clean")
	s.ok("volume", "clone", "tank", "base@clean", "work")
	if got := s.feed([]byte("changed"), "volume", "write", "--offset", "1M", "tank", "work"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	if got := s.ok("volume", "read", "--offset", "1M", "--length", "1M", "tank", "base"); got != string(data) {
		t.Error("writing to a clone has changed what it was cloned from, or reading gives something else")
	}
	if got := s.ok("volume", "read", "--offset", "1M", "--length", "9", "tank", "work"); got != "changed78" {
		t.Errorf("the clone reads %q", got)
	}
	s.ok("volume", "promote", "tank", "work")
	s.ok("volume", "rename", "tank", "work", "new/work")
	s.ok("volume", "resize", "tank", "new/work", "128M")
	s.ok("volume", "rollback", "tank", "new/work@clean")
	s.ok("volume", "set", "--quota", "32M", "tank", "new/work")
	s.ok("volume", "discard", "--offset", "1M", "--length", "512K", "tank", "base")
	if got := s.ok("volume", "read", "--offset", "1M", "--length", "1M", "tank", "base"); strings.Trim(got[:512<<10], "\x00") != "" || got[512<<10:] != string(data[512<<10:]) {
		t.Error("discard has taken too much or too little")
	}
	var list []blockpool.VolumeInfo
	if err := json.Unmarshal([]byte(s.ok("volume", "list", "--json", "tank")), &list); err != nil || len(list) != 3 {
		t.Fatalf("%d volumes (%v): %+v", len(list), err, list)
	}
	if v := list[1]; v.Name != "new/work" || v.Size != 64<<20 || v.Quota != 32<<20 || v.Referenced != 1<<20 {
		t.Errorf("after a rollback: %+v", v)
	}
	if table := s.ok("volume", "list", "tank"); !strings.HasPrefix(table, "NAME") || !strings.Contains(table, "new/work@clean") {
		t.Errorf("volume list:\n%s", table)
	}
	for _, v := range []string{"base", "new/work", "new/work@clean"} { // in any order
		s.ok("volume", "rm", "tank", v)
	}
	s.ok("pool", "destroy", "tank")
	if _, err := os.Stat(place.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("destroying has left %s (%v)", place.Dir, err)
	}
	if got := lamina(t, "pool", "list"); got.stdout != "" || !strings.Contains(got.stderr, "no pool in "+s.root) {
		t.Errorf("pool list without any: %+v", got)
	}
}

// Someone who knows zpool must find what they look for.
func TestStatusLooksLikeZpoolStatus(t *testing.T) {
	s := newPoolStage(t)
	s.pool("--profile", "mirror")
	text := s.ok("pool", "status", "tank")
	var table []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "\t") {
			table = append(table, line)
		}
	}
	if !strings.HasPrefix(text, "  pool: tank\n state: ONLINE\n") || !strings.Contains(text, "errors: No known data errors") || len(table) < 5 {
		t.Errorf("status:\n%s", text)
	}
	for i, want := range []string{"NAME STATE READ WRITE CKSUM SIZE ALLOC", "tank ONLINE 0 0 0", "mirror ONLINE", filepath.Join(s.root, "tank/data-0.img") + " ONLINE 0 0 0 256M", filepath.Join(s.root, "tank/data-1.img") + " ONLINE 0 0 0 256M"} {
		if i < len(table) && !strings.HasPrefix(strings.Join(strings.Fields(table[i]), " "), want) {
			t.Errorf("row %d: %q, want %q", i, table[i], want)
		}
	}
	if st := s.status(); st.State != "online" || len(st.Devices) != 2 || st.Config.MetadataProfile != "mirror" {
		t.Errorf("%+v", st)
	}
}

func TestStatusNamesADeviceThatIsGone(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool("--profile", "mirror")
	s.ok("pool", "stop", "tank")
	if err := os.Remove(place.File(1)); err != nil {
		t.Fatal(err)
	}
	if text := s.ok("pool", "status", "tank"); !strings.Contains(text, " state: DEGRADED") || !strings.Contains(text, place.File(1)+"  MISSING") {
		t.Errorf("status:\n%s", text)
	}
	if text := s.ok("pool", "events", "tank"); !strings.Contains(text, place.File(1)) {
		t.Errorf("events:\n%s", text)
	}
	s.ok("pool", "stop", "tank")
	if err := os.Remove(place.File(0)); err != nil {
		t.Fatal(err)
	}
	if got := lamina(t, "pool", "status", "tank"); got.status != exitFailure || !strings.Contains(got.stderr, place.File(0)) {
		t.Errorf("without any device: %+v", got)
	}
	if got := lamina(t, "pool", "destroy", "tank"); got.status != exitFailure || !strings.Contains(got.stderr, "--force") {
		t.Errorf("destroy: %+v", got)
	}
	s.ok("pool", "destroy", "--force", "tank")
	if exists(place.Dir) {
		t.Errorf("%s is left", place.Dir)
	}
}

func TestDockersNumbers(t *testing.T) {
	s := newPoolStage(t)
	s.ok("pool", "create", "--devicemapper", "tank")
	s.ok("volume", "create", "tank", "base")
	var list []blockpool.VolumeInfo
	if err := json.Unmarshal([]byte(s.ok("volume", "list", "--json", "tank")), &list); err != nil || list[0].Size != 10<<30 || list[0].RecordSize != 64<<10 {
		t.Errorf("the base device: %+v (%v)", list, err)
	}
	st := s.status()
	if st.Devices[0].Size != 100<<30 || st.Config.MetadataSize != 2<<30 || st.Config.MinFree != 10 || st.Config.WhenFull != "queue" {
		t.Errorf("%+v", st)
	}
	var f unix.Stat_t
	if err := unix.Stat(st.Devices[0].Path, &f); err != nil || f.Size != 100<<30 || f.Blocks*512 > 1<<30 {
		t.Errorf("the data file has %d bytes and takes %d (%v)", f.Size, f.Blocks*512, err)
	}
}

// A pool can be moved as a directory, and named by whatever of it is at hand.
func TestPoolByPath(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool("--metadata", filepath.Join(t.TempDir(), "copy.db"))
	s.ok("volume", "create", "--size", "1M", "tank", "vol")
	for _, path := range []string{place.Dir, place.File(0), blockpool.ReplicaName(place.Dir, 0)} {
		if got := s.ok("volume", "list", path); !strings.Contains(got, "vol") {
			t.Errorf("%s: %s", path, got)
		}
	}
	s.ok("pool", "stop", place.File(0))
	moved := poolserver.Place{Dir: filepath.Join(t.TempDir(), "moved")}
	if err := os.Rename(place.Dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	if got := s.ok("volume", "list", moved.Dir); !strings.Contains(got, "vol") {
		t.Errorf("after a move: %s", got)
	}
	s.ok("pool", "stop", moved.Dir)
}

func TestSettingsOfAPool(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("pool", "set", "tank", "low_water=25%", "when_full=queue", "queue_timeout=5s", "record_size=64K", "discard=off")
	if c := s.status().Config; c.LowWater != 25 || c.WhenFull != "queue" || c.QueueTimeout != "5s" || c.RecordSize != 64<<10 || c.Discard {
		t.Errorf("%+v", c)
	}
	s.ok("pool", "stop", "tank")
	if c := s.status().Config; c.LowWater != 25 {
		t.Errorf("after a restart: %+v", c)
	}
}

// Whoever uses a pool at the same time as others shares a server with them.
func TestManyCommandsStartOneServer(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	var all sync.WaitGroup
	pids := make([]int, 8)
	for i := range pids {
		cmd := command(t, "lamina", "pool", "status", "--json", "tank")
		all.Go(func() {
			out, err := cmd.Output()
			var st poolserver.Status
			if err = errors.Join(err, json.Unmarshal(out, &st)); err != nil {
				t.Errorf("status: %v", err)
			}
			pids[i] = st.Server.PID
		})
	}
	all.Wait()
	slices.Sort(pids)
	if pids[0] == 0 || pids[0] != pids[len(pids)-1] {
		t.Errorf("servers: %v, want one", pids)
	}
}

func TestServerEndsByItself(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	t.Setenv("LAMINA_POOL_IDLE", "200ms")
	pid := s.status().Server.PID
	eventually(t, "the server to end", func() bool { return unix.Kill(pid, 0) != nil || !exists(filepath.Join(place.Dir, "server.control")) })
	if got := s.ok("pool", "list"); !strings.Contains(got, "stopped") {
		t.Error(got)
	}
	s.ok("volume", "create", "--size", "1M", "tank", "vol") // and comes again
}

func TestSignalEndsTheServer(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	s.ok("volume", "create", "--size", "1M", "tank", "vol")
	pid := s.status().Server.PID
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to end", func() bool { return !exists(filepath.Join(place.Dir, "server.control")) })
	if got := s.ok("volume", "list", "tank"); !strings.Contains(got, "vol") {
		t.Error(got)
	}
}

// A client that is killed must leave nothing open.
func TestKilledClientEndsItsStream(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("volume", "create", "--size", "64M", "tank", "vol")
	cmd := command(t, "lamina", "volume", "write", "tank", "vol")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() // the other end stays open, as that of a program that hangs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if got := lamina(t, "volume", "rm", "tank", "vol"); got.status != exitFailure || !strings.Contains(got.stderr, "vol: it is open: in use") {
		t.Errorf("while it is written to: %+v", got)
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "the volume to be closed", func() bool { return lamina(t, "volume", "rm", "tank", "vol").status == 0 })
}

// Nobody else may reach a pool, neither its files nor its server.
func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to be somebody else needs root")
	}
	for _, r := range roles(t)[1:] {
		stage := newStage(t, r)
		s := newPoolStage(t)
		place := s.pool()
		s.ok("volume", "create", "--size", "1M", "tank", "vol")
		for path := place.Dir; strings.HasPrefix(path, os.TempDir()+"/"); path = filepath.Dir(path) {
			os.Chmod(path, 0o755) // so that only the socket's own mode is in the way
		}
		for _, argv := range [][]string{{"volume", "list"}, {"pool", "stop"}, {"pool", "status"}} {
			if got := stage.run("lamina", argv[0], argv[1], place.Dir); got.status != exitFailure || !strings.Contains(got.stderr, "permission denied: only its owner and root may use it") {
				t.Errorf("%v: %+v", argv, got)
			}
		}
		os.Chmod(filepath.Dir(place.Dir), 0o700)
		if got := stage.run("lamina", "volume", "list", place.Dir); got.status != exitFailure || !strings.Contains(got.stderr, "permission denied") {
			t.Errorf("below a closed directory: %+v", got)
		}
	}
}

// Scripts tell failures apart, and people need to know what to do.
func TestPoolErrorsSayWhatToDo(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	s.ok("volume", "create", "--size", "1M", "tank", "vol")
	s.ok("volume", "snapshot", "tank", "vol@a")
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		argv   string
		status int
		says   string
	}{
		{"pool", 0, ""},
		{"pool frob", exitUsage, "no such command: frob"},
		{"pool status", exitUsage, "needs POOL"},
		{"pool status none", exitFailure, "no such pool called none in " + s.root + "; see: lamina pool list"},
		{"pool status " + dir, exitFailure, dir + ": no such pool there"},
		{"pool status " + dir + "/none", exitFailure, dir + "/none: no such pool there"},
		{"pool status " + plain, exitFailure, plain + " carries no label of a pool"},
		{"pool create tank2", exitUsage, "--size SIZE"},
		{"pool create --size 1M tank2", exitFailure, "a device needs 33554432 at least"},
		{"pool create --size 64Q tank2", exitUsage, `"64Q" is no size; accepted: bytes, or a number with K, M, G, T or P, such as 10G`},
		{"pool create --size 64M -x", exitUsage, "see: lamina pool create --help"},
		{"pool create --size 64M --profile raid6 tank2", exitUsage, "raid6"},
		{"pool create --size 64M --when-full wait tank2", exitUsage, "error or queue"},
		{"pool create --size 64M @tank", exitUsage, "letters, digits"},
		{"pool create tank2 " + dir + "/none", exitUsage, "add --size SIZE"},
		{"pool create tank2 " + plain, exitFailure, "is not empty: byte 0 is 0x78: wipe it or use force"},
		{"pool create tank2 " + place.File(0), exitFailure, "in use by another process"},
		{"pool create --size 64M tank", exitFailure, "exists"},
		{"pool create --size 64M --files 1 --profile mirror tank2", 0, ""}, // at least two
		{"pool create --files 2 --size 64M tank3 " + plain, exitUsage, "leave one of them out"},
		{"pool set tank", exitUsage, "at least one NAME=VALUE"},
		{"pool set tank frob=1", exitUsage, "accepted: NAME=VALUE with a name of: record_size"},
		{"pool set tank low_water=much", exitUsage, "low_water=much"},
		{"pool set tank low_water=100", exitFailure, "between 0 and 99"},
		{"pool set tank when_full=wait", exitFailure, "take error or queue"},
		{"pool set tank discard=1", exitUsage, "neither on nor off"},
		{"pool set tank hook=relative", exitFailure, "not an absolute path"},
		{"pool set tank hook=" + plain, exitFailure, "chmod +x"},
		{"pool destroy tank", exitFailure, "has 2 volumes and snapshots, which would be lost: use --force"},
		{"volume create tank big", exitFailure, "add --size SIZE"},
		{"volume create --size 1M tank vol", exitFailure, "create vol: vol: exists already"},
		{"volume create --size 1M tank a//b", exitFailure, "empty part"},
		{"volume create --size 1M --record-size 3K tank x", exitFailure, "no power of two"},
		{"volume create --size 1M --reservation 1T tank x", exitFailure, "are free"},
		{"volume snapshot tank vol@a", exitFailure, "snapshot vol@a: vol@a: exists already"},
		{"volume snapshot tank none@a", exitFailure, "volume none: not found"},
		{"volume snapshot tank vol", exitFailure, "VOLUME@NAME"},
		{"volume clone tank none new", exitFailure, "none: not found"},
		{"volume promote tank vol", exitFailure, "no clone"},
		{"volume rollback tank vol", exitFailure, "VOLUME@NAME"},
		{"volume rename tank vol@a x@a", exitFailure, "stays one of its volume"},
		{"volume resize tank vol big", exitUsage, "no size"},
		{"volume resize tank vol 4K", exitFailure, "use --shrink"},
		{"volume set tank vol", exitUsage, "quota"},
		{"volume rm tank", exitUsage, "at least one VOLUME"},
		{"volume rm tank none", exitFailure, "destroy none: not found"},
		{"volume read tank none", exitFailure, "open none: not found"},
		{"volume read --offset 2M tank vol", exitFailure, "it has 1048576"},
		{"volume read --length 2M tank vol", exitFailure, "it has 1048576"},
		{"volume discard --offset 0 --length 2M tank vol", exitFailure, "it has 1048576"},
		{"volume discard tank vol", exitUsage, "discard loses data"},
		{"volume write tank vol@a", exitFailure, "read-only"},
		{"volume export --raw tank", exitUsage, "take one VOLUME"},
		{"volume export --loop --raw tank vol", exitUsage, "one at a time"},
		{"volume export --fuse x tank vol", exitUsage, "leave VOLUME out"},
		{"volume export tank vol", exitUsage, "say how"},
		{"volume export --fuse " + dir + "/none tank", exitFailure, "mkdir -p"},
		{"volume export --nbd " + plain + " tank vol", exitFailure, "no socket"},
		{"volume export --nbd " + dir + "/s tank none", exitFailure, "none: not found"},
		{"volume unexport tank " + dir, exitFailure, "the pool is not exported there"},
		{"volume unexport tank /dev/loop99", exitFailure, "no loop device of the pool"},
	} {
		cmd := command(t, append([]string{"lamina"}, strings.Fields(c.argv)...)...)
		cmd.Stdin = strings.NewReader("data")
		got := finish(t, cmd)
		if got.status != c.status || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: status %d, want %d; stderr %q, want %q in it", c.argv, got.status, c.status, got.stderr, c.says)
		}
		if c.status != 0 && (!strings.HasPrefix(got.stderr, "lamina: ") || strings.Count(got.stderr, "\n") != 1 || got.stdout != "") {
			t.Errorf("%s: stdout %q, stderr %q; want one line on stderr", c.argv, got.stdout, got.stderr)
		}
	}
	if exists(filepath.Join(s.root, "tank3")) {
		t.Error("a pool that was not made has left its directory")
	}
}

func TestEventsCanBeFollowed(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("volume", "create", "--size", "1G", "tank", "vol")
	cmd := command(t, "lamina", "pool", "events", "--follow", "--json", "tank")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	write := command(t, "lamina", "volume", "write", "tank", "vol")
	write.Stdin = fill
	if got := finish(t, write); got.status != exitFailure || !strings.Contains(got.stderr, "no space left in the pool") {
		t.Fatalf("filling the pool: %+v", got)
	}
	lines := json.NewDecoder(out)
	for {
		var e blockpool.Event
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Kind == blockpool.EventFull {
			break
		}
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func TestNamesOfPoolsAndVolumesAreCompleted(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	if got := s.complete("volume", "rm", "tank", ""); strings.Contains(got, "vol") || len(s.servers()) != 0 {
		t.Errorf("completing has started a server: %q", got)
	}
	s.ok("volume", "create", "--size", "1M", "tank", "vol")
	if got := s.complete("volume", "list", ""); !strings.Contains(got, "tank\n") {
		t.Errorf("pools: %q", got)
	}
	if got := s.complete("volume", "rm", "tank", ""); !strings.Contains(got, "vol\n") {
		t.Errorf("volumes: %q", got)
	}
	if got := s.complete("pool", "set", "tank", ""); !strings.Contains(got, "low_water=") {
		t.Errorf("settings: %q", got)
	}
}

func (s *poolStage) complete(argv ...string) string {
	s.Helper()
	return lamina(s.T, append([]string{"__complete"}, argv...)...).stdout
}

// servers returns the sockets of servers.
func (s *poolStage) servers() []string {
	found, _ := filepath.Glob(filepath.Join(s.root, "*", "server.control"))
	return found
}

func TestSizesOnTheCommandLine(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "64K": 64 << 10, "10g": 10 << 30, "1.5T": 3 << 39, "2GiB": 2 << 30, "1MB": 1 << 20, "9223372036854775807": 1<<63 - 1,
	} {
		var s byteSize
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%s: %d (%v), want %d", text, s, err, want)
		}
		var again byteSize
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%s is written as %s, which is read as %d (%v)", text, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "G", "-1", "-1G", "1e3", "0x10", "nan", "inf", "1_000", "8E", "99999999999G", "10 G x"} {
		var s byteSize
		if err := s.Set(text); err == nil {
			t.Errorf("%q was taken as %d", text, s)
		}
	}
}

func TestProgressBar(t *testing.T) {
	var out strings.Builder
	b := &progressBar{out: &out, what: "scrub", started: time.Now().Add(-10 * time.Second)}
	b.tell(poolserver.Progress{Done: 1 << 30, Total: 4 << 30})
	b.tell(poolserver.Progress{Done: 4 << 30, Total: 4 << 30, Text: "vol"})
	b.clear()
	for _, want := range []string{"scrub  [=======                       ]  25%  1G of 4G  102.4M/s  30s left", "scrub: vol  [==============================] 100%  4G of 4G"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
	quick := &progressBar{out: io.Discard, started: time.Now()}
	quick.tell(poolserver.Progress{Done: 1})
	if quick.width != 0 {
		t.Error("quick work leaves a trace")
	}
}
