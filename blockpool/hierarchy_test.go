package blockpool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func (b *bench) filesystem(name string, properties ...string) {
	b.Helper()
	b.must(b.CreateFilesystem(ctx, name, FilesystemOptions{Properties: pairs(properties)}))
}

func pairs(list []string) map[string]string {
	m := map[string]string{}
	for _, p := range list {
		name, value, _ := strings.Cut(p, "=")
		m[name] = value
	}
	return m
}

// fill writes n bytes of content to a volume, which is made below a dataset: what is
// asked of limits is the same.
func (b *bench) fill(name string, n int64) error {
	b.Helper()
	if _, err := b.Volume(name); errors.Is(err, ErrNotFound) {
		b.must(b.CreateVolume(ctx, name, 32<<20, VolumeOptions{}))
	}
	v := b.volume(name)
	defer v.Close()
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i%251) + 1
	}
	_, err := v.WriteAt(p, 0)
	return err
}

func (b *bench) names() (names []string) {
	for _, v := range b.Volumes() {
		names = append(names, v.Name)
	}
	return names
}

func (b *bench) wantNames(want ...string) {
	b.Helper()
	if got := b.names(); !slices.Equal(got, want) {
		b.Errorf("there are %q, want %q", got, want)
	}
}

// Who limits a directory of datasets must not be outwitted by making one more.
func TestQuotaCountsAllThatLiesBelow(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	b.filesystem("home", "quota=4M")
	b.filesystem("home/ann")
	b.must(b.fill("home/ann/disk", 2<<20))
	b.must(b.fill("home/other", 1<<20))
	b.must(b.Sync(ctx))
	if err := b.fill("home/ann/more", 2<<20); !errors.Is(err, ErrQuota) || !strings.Contains(err.Error(), "for home") {
		t.Errorf("beyond the quota of home: %v", err)
	}
	b.must(b.Sync(ctx))
	b.must(b.fill("home/ann/disk", 2<<20)) // in place of what is there
	// With a snapshot, writing anew takes new space.
	b.must(b.Snapshot(ctx, "home/ann/disk", "home/ann/disk@s"))
	if err := b.fill("home/ann/disk", 2<<20); !errors.Is(err, ErrQuota) {
		t.Errorf("what a snapshot holds is not counted: %v", err)
	}
	b.reopen()
	if err := b.fill("home/other", 4<<20); !errors.Is(err, ErrQuota) {
		t.Errorf("after opening anew: %v", err)
	}
	b.must(b.SetProperties(ctx, "home", map[string]string{"quota": "none"}))
	b.must(b.fill("home/other", 4<<20))
}

// What is admitted and not committed counts above, too.
func TestQuotaCountsWhatIsPendingBelow(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	b.filesystem("a", "quota=2M")
	b.must(b.fill("a/x", 1<<20))
	b.must(b.fill("a/y", 512<<10))
	if err := b.fill("a/z", 1<<20); !errors.Is(err, ErrQuota) {
		t.Errorf("beside 1.5M that are pending: %v", err)
	}
}

func TestRenameTakesUsageAlong(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	b.filesystem("a")
	b.filesystem("b", "quota=3M")
	b.must(b.fill("a/disk", 2<<20))
	b.must(b.Sync(ctx))
	v := b.volume("a/disk")
	defer v.Close()
	_, err := v.WriteAt(bytes1(512<<10), 4<<20) // pending while it moves
	b.must(err)
	b.must(b.Rename(ctx, "a/disk", "b/disk"))
	if used := b.prop("b", "used"); used != fmt.Sprint(2<<20+512<<10) {
		t.Errorf("b uses %s", used)
	}
	if used := b.prop("a", "used"); used != "0" {
		t.Errorf("a uses %s", used)
	}
	if err := b.fill("b/more", 1<<20); !errors.Is(err, ErrQuota) {
		t.Errorf("beside what has come by a rename: %v", err)
	}
}

func bytes1(n int) []byte { return []byte(strings.Repeat("x", n)) }

func (b *bench) prop(name, property string) string {
	b.Helper()
	list, err := b.Properties(ctx, name, property)
	b.must(err)
	return list[0].Value
}

// A reservation is there for all below it, and nobody else can take it.
func TestReservationIsKeptForAllBelow(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	before := b.unpromisedBytes(4096)
	b.filesystem("kept", "reservation=32M")
	if got := before - b.unpromisedBytes(4096); got != 32<<20 {
		t.Errorf("a reservation of 32M takes %d", got)
	}
	// One below takes it from what is reserved above, not from the pool again.
	b.filesystem("kept/x", "reservation=8M")
	if got := before - b.unpromisedBytes(4096); got != 32<<20 {
		t.Errorf("with one inside it %d are taken", got)
	}
	b.must(b.fill("kept/disk", 4<<20))
	b.must(b.Sync(ctx))
	if got := before - b.unpromisedBytes(4096); got != 32<<20 {
		t.Errorf("what is written below it takes from the reservation, %d are taken", got)
	}
	if got := b.prop("kept", "usedbychildren"); got != fmt.Sprint(12<<20) {
		t.Errorf("those below count for %s", got)
	}
	n := b.unpromisedBytes(4096)
	b.must(b.CreateVolume(ctx, "greedy", 256<<20, VolumeOptions{}))
	v := b.volume("greedy")
	defer v.Close()
	if wrote, err := v.WriteAt(bytes1(int(n+16<<20)), 0); !errors.Is(err, ErrNoSpace) {
		t.Errorf("wrote %d of %d: %v", wrote, n, err)
	}
	b.must(b.fill("kept/disk2", 16<<20))
	b.must(b.Sync(ctx))
	b.must(b.SetProperties(ctx, "kept/x", map[string]string{"reservation": "none"}))
	b.filesystem("small", "quota=1M")
	if err := b.CreateFilesystem(ctx, "small/x", FilesystemOptions{Properties: map[string]string{"reservation": "2M"}}); !errors.Is(err, ErrQuota) {
		t.Errorf("a reservation beyond the quota above: %v", err)
	}
	if err := b.SetProperties(ctx, "small", map[string]string{"reservation": "2M"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a reservation beyond its own quota: %v", err)
	}
}

func TestNamesBelowDatasets(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "disk", 1<<20, VolumeOptions{}))
	for name, want := range map[string]error{"disk/x": ErrInvalid, "a/b": ErrNotFound, "disk": ErrExists, "a@s": ErrInvalid, "a//b": ErrInvalid, "../x": ErrInvalid, "a/%recv": ErrInvalid, "": ErrInvalid, strings.Repeat("n", 201): ErrInvalid, "ä": ErrInvalid, "a\nb": ErrInvalid} {
		if err := b.CreateFilesystem(ctx, name, FilesystemOptions{}); !errors.Is(err, want) {
			t.Errorf("%.20q: %v, want %v", name, err, want)
		}
	}
	if err := b.CreateFilesystem(ctx, "disk/x/y", FilesystemOptions{Parents: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("parents below a volume: %v", err)
	}
	b.must(b.CreateFilesystem(ctx, "a/b/c", FilesystemOptions{Parents: true, Properties: map[string]string{"inodes": "10K"}}))
	b.must(b.CreateFilesystem(ctx, "a/b/c", FilesystemOptions{Parents: true}))
	b.must(b.CreateVolume(ctx, "a/b/disk", 1<<20, VolumeOptions{}))
	b.wantNames("a", "a/b", "a/b/c", "a/b/disk", "disk")
	if got := b.prop("a/b", "inodes") + b.prop("a/b/c", "inodes"); got != "010240" {
		t.Errorf("limits of inodes are not inherited: %s", got)
	}
	if err := b.CreateVolume(ctx, "a", 1<<20, VolumeOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("a volume in place of a dataset: %v", err)
	}
	b.must(b.CreateVolume(ctx, "vm/one", 1<<20, VolumeOptions{})) // names of volumes may have parts
	b.filesystem("vm")                                            // and get a dataset above them
	if used := b.prop("vm", "type"); used != "filesystem" {
		t.Errorf("vm is a %s", used)
	}
}

func TestRenameMovesWhatLiesBelow(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateFilesystem(ctx, "a/b/c", FilesystemOptions{Parents: true}))
	b.filesystem("ab")
	_, err := b.SnapshotAll(ctx, []string{"a@s"}, true, nil)
	b.must(err)
	if err := b.Rename(ctx, "a", "a/b/x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("below itself: %v", err)
	}
	if err := b.Rename(ctx, "a", "no/where"); !errors.Is(err, ErrNotFound) {
		t.Errorf("below what is not there: %v", err)
	}
	if err := b.Rename(ctx, "a", strings.Repeat("n", 198)); !errors.Is(err, ErrInvalid) {
		t.Errorf("names below would be too long: %v", err)
	}
	if err := b.Rename(ctx, "a/b", "ab"); !errors.Is(err, ErrExists) {
		t.Errorf("onto another: %v", err)
	}
	b.must(b.Rename(ctx, "a/b", "ab/b"))
	b.must(b.Rename(ctx, "a", "z"))
	b.wantNames("ab", "ab/b", "ab/b/c", "ab/b/c@s", "ab/b@s", "z", "z@s")
	b.reopen()
	b.wantNames("ab", "ab/b", "ab/b/c", "ab/b/c@s", "ab/b@s", "z", "z@s")
}

// A snapshot of several datasets is of one moment, or is not made.
func TestSnapshotAllIsAllOrNothing(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateFilesystem(ctx, "a/b/c", FilesystemOptions{Parents: true}))
	b.must(b.Snapshot(ctx, "a/b/c", "a/b/c@s"))
	before := b.names()
	if _, err := b.SnapshotAll(ctx, []string{"a@s"}, true, nil); !errors.Is(err, ErrExists) {
		t.Errorf("one is there already: %v", err)
	}
	b.wantNames(before...)
	made, err := b.SnapshotAll(ctx, []string{"a@t", "a/b@t"}, true, nil)
	if err != nil || !slices.Equal(made, []string{"a/b/c@t", "a/b@t", "a@t"}) {
		t.Errorf("made %q: %v", made, err)
	}
	txgs := map[uint64]bool{}
	for _, name := range made {
		v, err := b.Volume(name)
		b.must(err)
		txgs[v.CreatedTxg] = true
	}
	if len(txgs) != 1 {
		t.Errorf("they are of %d txgs", len(txgs))
	}
	if _, err := b.SnapshotAll(ctx, []string{"a"}, true, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a name: %v", err)
	}
}

// Nobody loses a snapshot or a dataset that they did not name.
func TestDestroyNamesWhatStandsInTheWay(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateFilesystem(ctx, "a/b/c", FilesystemOptions{Parents: true}))
	_, err := b.SnapshotAll(ctx, []string{"a@s"}, true, nil)
	b.must(err)
	b.must(b.CloneFilesystem(ctx, "a/b@s", "clone", FilesystemOptions{Properties: map[string]string{"atime": "off"}}))
	before := b.names()
	_, err = b.DestroyAll(ctx, []string{"a"}, false)
	var d *DependentsError
	if !errors.As(err, &d) || !slices.Equal(d.Children, []string{"a/b", "a/b/c"}) || !slices.Equal(d.Snapshots, []string{"a/b/c@s", "a/b@s", "a@s"}) || !errors.Is(err, ErrBusy) {
		t.Errorf("destroy: %v", err)
	}
	if err := b.Destroy(ctx, "a"); !errors.As(err, &d) {
		t.Errorf("destroy of one: %v", err)
	}
	v := b.tree("a/b/c@s")
	if _, err := b.DestroyAll(ctx, []string{"a"}, true); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "a/b/c@s") {
		t.Errorf("one is open: %v", err)
	}
	b.wantNames(before...)
	b.must(v.Close())
	b.must(b.tree("a").Close()) // nothing was left claimed
	gone, err := b.DestroyAll(ctx, []string{"a"}, true)
	if err != nil || len(gone) != 6 {
		t.Errorf("gone are %q: %v", gone, err)
	}
	b.wantNames("clone")
	if got := b.prop("clone", "atime"); got != "off" {
		t.Errorf("atime=%s", got)
	}
	if _, err := b.DestroyAll(ctx, []string{"a"}, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v", err)
	}
}

func TestRollbackKeepsNewerSnapshotsUnlessAsked(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.filesystem("a")
	for _, s := range []string{"a@1", "a@2", "a@3"} {
		b.must(b.Snapshot(ctx, "a", s))
	}
	_, err := b.RollbackFilesystem(ctx, "a@1", false)
	b.must(err)
	b.wantNames("a", "a@1", "a@2", "a@3")
	v := b.tree("a@3")
	if _, err := b.RollbackFilesystem(ctx, "a@1", true); !errors.Is(err, ErrBusy) {
		t.Errorf("a newer one is open: %v", err)
	}
	b.must(v.Close())
	gone, err := b.RollbackFilesystem(ctx, "a@2", true)
	if err != nil || !slices.Equal(gone, []string{"a@3"}) {
		t.Errorf("gone are %q: %v", gone, err)
	}
	b.wantNames("a", "a@1", "a@2")
}

// The sums in memory are those that counting gives, whatever has happened; recount
// compares them.
func TestHierarchyFitsAfterRandomChanges(t *testing.T) {
	b := newBench(t, Config{}, 1, 256<<20)
	r := rand.New(rand.NewPCG(4, 2))
	name := func() string {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = string(rune('a' + r.IntN(3)))
		}
		return strings.Join(parts, "/")
	}
	done := 0
	for i := range 400 {
		var err error
		n := name()
		switch r.IntN(9) {
		case 0, 1:
			err = b.CreateFilesystem(ctx, n, FilesystemOptions{Parents: r.IntN(2) == 0})
		case 2:
			err = b.Rename(ctx, n, name())
		case 3:
			_, err = b.DestroyAll(ctx, []string{n}, r.IntN(3) == 0)
		case 4:
			_, err = b.SnapshotAll(ctx, []string{fmt.Sprintf("%s@%d", n, i)}, r.IntN(2) == 0, nil)
		case 5:
			err = b.SetProperties(ctx, n, map[string]string{"reservation": FormatSize(int64(r.IntN(8)) << 20), "quota": FormatSize(int64(r.IntN(3)) << 24)})
		case 6:
			if _, there := b.Volume(n); there == nil {
				if p, err := b.Properties(ctx, n+"/v", "type"); err == nil && p[0].Value != "volume" {
					continue
				}
				err = b.CreateVolume(ctx, n+"/v", 8<<20, VolumeOptions{})
			}
		case 7, 8:
			if v, e := b.Open(n + "/v"); e == nil {
				_, err = v.WriteAt(bytes1(1+r.IntN(256<<10)), r.Int64N(4<<20))
				v.Close()
			}
		}
		if err == nil {
			done++
		} else if !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrQuota) && !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		if i%40 == 39 {
			b.must(b.Sync(ctx))
			b.must(b.recount())
			if i%80 == 79 {
				b.crash()
				b.must(b.Sync(ctx))
				b.must(b.recount())
			}
		}
	}
	if done < 150 {
		t.Errorf("only %d of 400 changes were possible", done)
	}
}
