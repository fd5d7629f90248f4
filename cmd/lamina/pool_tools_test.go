package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// noise returns bytes that are not to be compressed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// volume makes a volume that begins with data.
func (s *poolStage) volume(name string, data []byte) {
	s.Helper()
	s.ok("volume", "create", "--size", "64M", "tank", name)
	s.write(name, 0, data)
}

func (s *poolStage) write(name string, offset int, data []byte) {
	s.Helper()
	if got := s.feed(data, "volume", "write", "--offset", (*byteSize)(new(int64(offset))).String(), "tank", name); got.status != 0 {
		s.Fatalf("%+v", got)
	}
}

// has checks that a volume begins with data.
func (s *poolStage) has(name string, data []byte) {
	s.Helper()
	if got := s.ok("volume", "read", "--length", (*byteSize)(new(int64(len(data)))).String(), "tank", name); got != string(data) {
		s.Errorf("%s has something else than was written", name)
	}
}

func TestDevicesComeAndGo(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	data := noise(8<<20, 1)
	s.volume("vol", data)
	more, other := filepath.Join(t.TempDir(), "more.img"), filepath.Join(t.TempDir(), "other.img")
	s.ok("pool", "add", "--size", "256M", "tank", more)
	s.ok("pool", "grow", "tank", more, "300M")
	s.ok("pool", "remove", "tank", place.File(0))
	s.has("vol", data)
	s.ok("pool", "replace", "--size", "300M", "tank", more, other)
	s.has("vol", data)
	st := s.status()
	if len(st.Devices) != 1 || st.Devices[0].Path != other || st.Devices[0].Size != 300<<20 || st.State != "online" {
		t.Errorf("devices: %+v", st.Devices)
	}
	for _, c := range []struct{ argv, says string }{
		{"pool add tank " + more + ".none", "add --size SIZE"},
		{"pool remove tank " + other, other},
		{"pool remove tank " + more, "not found"},
		{"pool replace tank " + more + " " + place.File(0), "not found"},
		{"pool grow tank " + other + " 1M", "more than"},
		{"pool online tank " + more, "not found"},
	} {
		if got := lamina(t, strings.Fields(c.argv)...); got.status != exitFailure || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: %+v, want %q", c.argv, got, c.says)
		}
	}
}

func TestScrubFindsMendsAndTells(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool("--profile", "mirror")
	data := noise(8<<20, 2)
	s.volume("vol", data)
	s.ok("pool", "stop", "tank")
	f, err := os.OpenFile(place.File(0), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(place.File(0))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, data[1<<20:1<<20+64])
	if at < 0 {
		t.Fatal("the data is not on the device")
	}
	if _, err := f.WriteAt(noise(4096, 3), int64(at)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if text := s.ok("pool", "scrub", "tank"); !strings.Contains(text, "with 0 errors") || strings.Contains(text, "mended 0 ") {
		t.Errorf("scrub: %s", text)
	}
	s.has("vol", data)
	if text := s.ok("pool", "status", "tank"); !strings.Contains(text, "scan: scrub mended") || strings.Contains(text, "No known data errors") {
		t.Errorf("status:\n%s", text)
	}
	if text := s.ok("pool", "events", "tank"); !strings.Contains(text, "healed") {
		t.Errorf("events:\n%s", text)
	}
	var st blockpool.ScrubStatus
	if err := json.Unmarshal([]byte(s.ok("pool", "scrub", "--json", "tank")), &st); err != nil || st.State != blockpool.ScrubFinished || st.Mended != 0 || st.Records == 0 {
		t.Errorf("the next one: %+v (%v)", st, err)
	}
	s.ok("pool", "scrub", "--rate", "1M", "--detach", "tank")
	s.ok("pool", "scrub", "--pause", "tank")
	if st := s.status(); st.Scrub.State != blockpool.ScrubPaused {
		t.Errorf("after a pause: %+v", st.Scrub)
	}
	s.ok("pool", "scrub", "--resume", "tank")
}

func TestCheckDumpRestoreCompact(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	data := noise(4<<20, 4)
	s.volume("vol", data)
	s.ok("volume", "snapshot", "tank", "vol@a")
	if text := s.ok("pool", "check", "--data", "tank"); !strings.Contains(text, "clean") {
		t.Errorf("check: %s", text)
	}
	if text := s.ok("pool", "compact", "tank"); !strings.Contains(text, "meta-0.db: ") {
		t.Errorf("compact: %s", text)
	}
	dump := s.ok("pool", "dump", "tank")
	if got := s.feed([]byte(dump), "pool", "restore", "tank"); got.status != exitFailure || !strings.Contains(got.stderr, "exist") {
		t.Errorf("restore over metadata that is there: %+v", got)
	}
	s.ok("pool", "stop", "tank")
	if err := os.Remove(blockpool.ReplicaName(place.Dir, 0)); err != nil {
		t.Fatal(err)
	}
	if got := lamina(t, "pool", "status", "tank"); got.status != exitFailure || !strings.Contains(got.stderr, "no such pool called tank") {
		t.Errorf("without metadata: %+v", got)
	}
	if got := s.feed([]byte(dump[:len(dump)/2]), "pool", "restore", "tank"); got.status != exitFailure {
		t.Errorf("half a dump: %+v", got)
	}
	if got := s.feed([]byte(dump), "pool", "restore", "tank"); got.status != 0 {
		// The pool was closed after the dump: it has a newer txg.
		if got = s.feed([]byte(dump), "pool", "restore", "--force", "tank"); got.status != 0 {
			t.Fatalf("restore: %+v", got)
		}
	}
	s.has("vol", data)
	s.has("vol@a", data)
	if text := s.ok("pool", "rmap", "--length", "256M", "tank", place.File(0)); !strings.Contains(text, "vol@a: ") {
		t.Errorf("rmap: %s", text)
	}
}

func TestCheckOfAPoolThatCannotBeOpened(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	s.volume("vol", noise(1<<20, 5))
	s.ok("pool", "stop", "tank")
	if err := os.Remove(place.File(0)); err != nil {
		t.Fatal(err)
	}
	got := lamina(t, "pool", "check", "tank")
	if got.status == 0 || !strings.Contains(got.stdout+got.stderr, place.File(0)) {
		t.Errorf("%+v", got)
	}
}

func TestSendAndReceive(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("pool", "create", "--size", "256M", "backup")
	data := noise(4<<20, 6)
	s.volume("vol", data)
	s.ok("volume", "snapshot", "tank", "vol@a")
	full := s.ok("volume", "send", "--compress", "1", "tank", "vol@a")
	copy(data[1<<20:], "changed")
	s.write("vol", 1<<20, []byte("changed"))
	s.ok("volume", "snapshot", "tank", "vol@b")
	step := s.ok("volume", "send", "--from", "vol@a", "tank", "vol@b")
	if len(step) > 1<<20 {
		t.Errorf("an increment of one record takes %d bytes", len(step))
	}
	if got := s.feed([]byte(step), "volume", "receive", "backup"); got.status != exitFailure || !strings.Contains(got.stderr, "vol") {
		t.Errorf("an increment without its base: %+v", got)
	}
	for _, stream := range []string{full, step} {
		if got := s.feed([]byte(stream), "volume", "receive", "backup"); got.status != 0 {
			t.Fatalf("receive: %+v", got)
		}
	}
	if got := s.ok("volume", "read", "--length", "4M", "backup", "vol@b"); got != string(data) {
		t.Error("what was received is not what was sent")
	}
	if got := s.feed([]byte(full[:len(full)/2]), "volume", "receive", "backup", "half"); got.status != exitFailure {
		t.Errorf("half a stream: %+v", got)
	}
	token := strings.TrimSpace(s.ok("volume", "receive", "--token", "backup", "half"))
	rest := s.ok("volume", "send", "--resume", token, "tank")
	if got := s.feed([]byte(rest), "volume", "receive", "backup", "half"); got.status != 0 {
		t.Fatalf("the rest: %+v", got)
	}
	if got := s.ok("volume", "delta", "tank", "vol@a", "vol@b"); got != "1048576\t16384\twritten\n" {
		t.Errorf("delta: %q", got)
	}
	if got := s.ok("volume", "usage", "--json", "tank", "vol@a"); !strings.Contains(got, `"exclusive": 16384`) {
		t.Errorf("usage: %s", got)
	}
	s.write("vol", 2<<20, make([]byte, 1<<20))
	if got := s.ok("volume", "trim", "tank", "vol"); got != "1M given back\n" {
		t.Errorf("trim: %q", got)
	}
	for _, c := range []struct {
		argv   string
		status int
		says   string
	}{
		{"volume send tank", exitUsage, "VOLUME@NAME"},
		{"volume send tank vol", exitFailure, "vol"},
		{"volume send tank none@a", exitFailure, "none@a"},
		{"volume send --resume x tank", exitFailure, "token"},
		{"volume send --resume x tank vol@a", exitUsage, "leave"},
		{"volume receive --token backup", exitUsage, "need VOLUME"},
		{"volume receive --abort backup none", exitFailure, "none"},
		{"volume receive backup", exitFailure, "receive"},
		{"volume delta tank vol@a none", exitFailure, "none: not found"},
		{"volume usage tank none", exitFailure, "none: not found"},
		{"volume trim tank none", exitFailure, "none: not found"},
	} {
		cmd := command(t, append([]string{"lamina"}, strings.Fields(c.argv)...)...)
		cmd.Stdin = strings.NewReader("no stream at all")
		if got := finish(t, cmd); got.status != c.status || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: %+v, want status %d and %q", c.argv, got, c.status, c.says)
		}
	}
}

// What a pool is at work with goes on when its server is killed or ends.
func TestWorkGoesOnInTheNextServer(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.volume("vol", noise(32<<20, 7))
	s.ok("pool", "scrub", "--rate", "4M", "--detach", "tank")
	st := s.status()
	eventually(t, "the scrub to be under way", func() bool { st = s.status(); return st.Scrub.Done > 0 })
	if st.Scrub.State != blockpool.ScrubRunning || len(st.Jobs) != 1 {
		t.Fatalf("%+v", st)
	}
	s.ok("pool", "stop", "tank")
	if st = s.status(); st.Scrub.State != blockpool.ScrubRunning && st.Scrub.State != blockpool.ScrubFinished {
		t.Errorf("after an end: %+v", st.Scrub)
	}
	unix.Kill(st.Server.PID, unix.SIGKILL)
	eventually(t, "the scrub to end", func() bool { return s.status().Scrub.State == blockpool.ScrubFinished })
}

func TestRepairAfterDamage(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool("--metadata-profile", "mirror")
	data := noise(1<<20, 8)
	s.volume("vol", data)
	if text := s.ok("pool", "repair", "--dry-run", "tank"); strings.Contains(text, "repaired") {
		t.Errorf("a dry run of a pool that is well: %s", text)
	}
	s.ok("pool", "stop", "tank")
	for i := range 2 { // different parts of each replica
		f, err := os.OpenFile(blockpool.ReplicaName(place.Dir, i), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 4096), int64(i)*4096); err != nil { // a meta page
			t.Fatal(err)
		}
		f.Close()
	}
	got := lamina(t, "pool", "repair", "tank")
	if got.status != 0 && !strings.Contains(got.stderr, "--force") {
		t.Fatalf("repair: %+v", got)
	}
	if got.status != 0 {
		s.ok("pool", "repair", "--force", "tank")
	}
	s.has("vol", data)
}

func TestThinMetadataOfDockersPool(t *testing.T) {
	s := newPoolStage(t)
	s.ok("pool", "create", "--size", "256M", "--record-size", "64K", "tank")
	data := noise(1<<20, 9)
	s.volume("base", data)
	s.ok("volume", "snapshot", "tank", "base@a")
	disk := filepath.Join(t.TempDir(), "data")
	xml := s.ok("pool", "dump", "--thin", "--data", disk, "tank")
	if !strings.Contains(xml, "<superblock") || !strings.Contains(xml, "data_block_size=\"128\"") {
		t.Errorf("dump --thin:\n%.500s", xml)
	}
	if got := s.feed([]byte(xml), "pool", "restore", "--thin-data", disk, "--prefix", "from/dm-", "tank"); got.status != 0 {
		t.Fatalf("restore --thin-data: %+v", got)
	}
	s.has("from/dm-1", data)
	if got := lamina(t, "pool", "dump", "tank", "base"); got.status != exitUsage || !strings.Contains(got.stderr, "--thin") {
		t.Errorf("%+v", got)
	}
	if got := s.ok("pool", "trim", "tank"); !strings.Contains(got, "given back") {
		t.Error(got)
	}
}

func TestReplicasOfTheMetadata(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	s.ok("volume", "create", "--size", "16M", "tank", "vol")
	if got := s.feed([]byte("kept"), "volume", "write", "tank", "vol"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	first, other := filepath.Join(place.Dir, "meta-0.db"), filepath.Join(t.TempDir(), "elsewhere.db")
	var replicas []blockpool.ReplicaStatus
	if err := json.Unmarshal([]byte(s.ok("pool", "replica", "add", "--json", "tank", other)), &replicas); err != nil || len(replicas) != 2 {
		t.Fatalf("%v, %v", replicas, err)
	}
	if got := s.ok("pool", "replica", "add", "tank"); !strings.Contains(got, "meta-2.db") || !strings.Contains(got, other) {
		t.Errorf("a third one: %s", got)
	}
	if got := lamina(t, "pool", "replica", "add", "tank"); got.status == 0 {
		t.Errorf("a fourth one: %+v", got)
	}
	s.ok("pool", "replica", "recopy", "tank", other)
	s.ok("pool", "replica", "remove", "tank", filepath.Join(place.Dir, "meta-2.db"))
	s.ok("pool", "replica", "remove", "tank", first)
	s.ok("pool", "stop", "tank")
	if st := s.status(); len(st.Replicas) != 1 || st.Replicas[0].Path != other || st.State != blockpool.StateOnline {
		t.Errorf("opened by the pool's name, with its metadata elsewhere: %+v", st.Replicas)
	}
	if got := s.ok("volume", "read", "--length", "4", "tank", "vol"); got != "kept" {
		t.Errorf("the volume reads %q", got)
	}
	if got := lamina(t, "pool", "replica", "remove", "tank", other); got.status == 0 {
		t.Error("the last replica was removed")
	}
	s.ok("pool", "replica", "add", "tank", first)
	s.ok("pool", "replica", "remove", "tank", other)
	if names, _ := filepath.Glob(filepath.Join(place.Dir, "meta-*.db")); len(names) != 1 || names[0] != first {
		t.Errorf("the directory has %v", names)
	}
	s.ok("pool", "stop", "tank")
	if st := s.status(); len(st.Replicas) != 1 || st.State != blockpool.StateOnline {
		t.Errorf("at the end: %s, %+v", st.State, st.Replicas)
	}
}

// TestAPoolIsConvertedWhileItIsInUse makes a mirror of a pool of one device, and
// raidz1 of that, its metadata mirrored too.
func TestAPoolIsConvertedWhileItIsInUse(t *testing.T) {
	s := newPoolStage(t)
	place := s.pool()
	s.ok("volume", "create", "--size", "16M", "tank", "vol")
	if got := s.feed([]byte("kept"), "volume", "write", "tank", "vol"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	if got := lamina(t, "pool", "convert", "--data", "mirror", "tank"); got.status == 0 || !strings.Contains(got.stderr, "needs 2 devices, the pool has 1") {
		t.Errorf("%+v", got)
	}
	if got := lamina(t, "pool", "convert", "tank"); got.status == 0 || !strings.Contains(got.stderr, "--data PROFILE") {
		t.Errorf("%+v", got)
	}
	for i, profile := range []string{"mirror", "raidz1"} {
		s.ok("pool", "add", "--size", "128M", "tank", filepath.Join(place.Dir, fmt.Sprintf("more%d", i)))
		var st blockpool.ConvertStatus
		if err := json.Unmarshal([]byte(s.ok("pool", "convert", "--json", "--data", profile, "--metadata", "mirror", "tank")), &st); err != nil || st.State != blockpool.ConvertFinished || st.Profile != profile {
			t.Fatalf("%+v, %v", st, err)
		}
		now := s.status()
		if now.Config.DataProfile != profile || now.Config.MetadataProfile != "mirror" || len(now.Replicas) != 2 || now.State != blockpool.StateOnline {
			t.Errorf("%+v, %+v", now.Config, now.Replicas)
		}
		if got := s.ok("pool", "status", "tank"); !strings.Contains(got, "data: data converted to "+profile) {
			t.Errorf("status says\n%s", got)
		}
		s.ok("pool", "scrub", "tank")
		s.ok("pool", "stop", "tank")
		if got := s.ok("volume", "read", "--length", "4", "tank", "vol"); got != "kept" {
			t.Errorf("the volume reads %q", got)
		}
	}
	s.ok("pool", "convert", "--metadata", "single", "tank")
	if st := s.status(); st.Config.MetadataProfile != "single" || len(st.Replicas) != 1 {
		t.Errorf("%+v", st.Replicas)
	}
	s.ok("pool", "check", "tank")
}
