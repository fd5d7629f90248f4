package blockpool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkProfiles are the ways in which a pool can lie on devices.
var checkProfiles = []struct {
	data, metadata Profile
	devices        int
}{
	{Single, Single, 1}, {Single, Single, 3}, {Mirror, Mirror, 3}, {RaidZ1, Mirror, 4}, {RaidZ2, Mirror, 5},
}

// work changes a pool at random: writes, holes, snapshots, clones, deletions,
// rollbacks, resizes, crashes.
func (b *bench) work(steps int, seed uint64) {
	b.Helper()
	rng := rand.New(rand.NewPCG(seed, 11))
	names := func(snapshots bool) (list []string) {
		for _, i := range b.Volumes() {
			if strings.Contains(i.Name, "@") == snapshots && !i.IsDataset() {
				list = append(list, i.Name)
			}
		}
		return list
	}
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	for i := range steps {
		volumes, snapshots := names(false), names(true)
		switch op := rng.IntN(20); {
		case len(volumes) == 0 || op == 0 && len(volumes) < 6:
			b.must(b.CreateVolume(ctx, fmt.Sprintf("vol%d", i), 1<<20+int64(rng.IntN(1<<20)), VolumeOptions{RecordSize: 4 << (10 + rng.IntN(6))}))
		case op == 1 && len(snapshots) < 12:
			from := pick(append(volumes, snapshots...))
			volume, _, _ := splitSnapshot(from)
			if slices.Contains(volumes, volume) {
				b.must(b.Snapshot(ctx, from, fmt.Sprintf("%s@s%d", volume, i)))
			}
		case op == 2 && len(volumes) < 8:
			b.must(b.Clone(ctx, pick(append(volumes, snapshots...)), fmt.Sprintf("clone%d", i)))
		case op == 3 && len(snapshots) > 4:
			b.must(b.Destroy(ctx, pick(snapshots)))
		case op == 4 && len(volumes) > 3:
			b.must(b.Destroy(ctx, pick(volumes)))
		case op == 5 && len(snapshots) > 0:
			snap := pick(snapshots)
			if volume, _, _ := splitSnapshot(snap); slices.Contains(volumes, volume) {
				b.must(b.Rollback(ctx, snap))
			}
		case op == 6:
			b.must(b.Resize(ctx, pick(volumes), 1<<19+int64(rng.IntN(2<<20))))
		case op == 7:
			b.crash()
		case op == 8:
			b.must(b.Sync(ctx))
		default:
			v := b.volume(pick(volumes))
			n := 1 + rng.IntN(200<<10)
			off := rng.Int64N(v.Size() - int64(n))
			if op < 11 {
				b.must(v.Zero(ctx, off, int64(n)))
			} else if _, err := v.WriteAt(fill(n, seed+uint64(i)), off); err != nil {
				b.Fatal(err)
			}
			v.Close()
		}
		if b.worked != nil {
			b.worked()
		}
	}
}

// checked checks a pool that is open, and then closed.
func (b *bench) checked() *Report {
	b.Helper()
	b.must(b.Close())
	defer b.open()
	return b.checkFile(CheckOptions{Data: true})
}

// checkFile checks a pool that is closed.
func (b *bench) checkFile(o CheckOptions) *Report {
	b.Helper()
	o.Storage = b.opts.Storage
	r, err := Check(ctx, b.dir, o)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// clean fails unless nothing is wrong.
func (b *bench) clean(r *Report) {
	b.Helper()
	if r.Class != ClassClean {
		var text bytes.Buffer
		r.WriteText(&text)
		b.Fatalf("not clean: %s", text.String())
	}
}

func TestAPoolThatWasWorkedWithChecksClean(t *testing.T) {
	for _, p := range checkProfiles {
		t.Run(fmt.Sprintf("%v-%d", p.data, p.devices), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, Config{DataProfile: p.data, MetadataProfile: p.metadata}, p.devices, 128<<20)
			for round := range uint64(3) {
				b.work(120, round)
				online, err := b.Check(ctx, CheckOptions{Data: true})
				b.must(err)
				b.clean(online)
				r := b.checked()
				b.clean(r)
				if r.Records == 0 || r.BytesRead != r.Bytes || r.Volumes == 0 || r.Nodes == 0 || r.Devices != p.devices {
					t.Errorf("totals: %+v", r)
				}
			}
		})
	}
}

func TestCheckOfAPoolInUseSeesOneState(t *testing.T) {
	b := newBench(t, Config{}, 1, 256<<20)
	b.must(b.CreateVolume(ctx, "vol", 8<<20, VolumeOptions{RecordSize: 4 << 10}))
	done := make(chan error)
	stop := make(chan struct{})
	go func() {
		v, err := b.Open("vol")
		for i := uint64(0); err == nil; i++ {
			select {
			case <-stop:
				done <- v.Close()
				return
			default:
			}
			_, err = v.WriteAt(fill(64<<10, i), int64(i%100)<<16)
			if err == nil && i%10 == 0 {
				err = b.Snapshot(ctx, "vol", fmt.Sprintf("vol@%d", i))
			}
			if err == nil && i%20 == 10 {
				err = b.Destroy(ctx, fmt.Sprintf("vol@%d", i))
			}
		}
		done <- err
	}()
	for range 10 {
		r, err := b.Check(ctx, CheckOptions{Data: true, RepairLeaks: true})
		b.must(err)
		b.clean(r)
	}
	close(stop)
	b.must(<-done)
}

func TestCheckLeavesThePoolAsItIs(t *testing.T) {
	b := newBench(t, Config{DataProfile: Mirror, MetadataProfile: Mirror}, 2, 64<<20)
	b.work(60, 3)
	b.Abandon() // with changes in the log
	before := map[string][]byte{}
	for _, d := range b.journal.Devices() {
		before[d.Path()] = d.Peek(0, d.Size())
	}
	b.checkFile(CheckOptions{Data: true})
	for _, d := range b.journal.Devices() {
		if !bytes.Equal(before[d.Path()], d.Peek(0, d.Size())) {
			t.Errorf("%s has changed", d.Path())
		}
	}
	b.open()
}

func TestAReportIsReadByProgramsAndPeople(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.work(20, 1)
	r := b.checked()
	text, err := json.Marshal(r)
	b.must(err)
	var back Report
	b.must(json.Unmarshal(text, &back))
	if back.Class != ClassClean || back.GUID != b.GUID() || back.Pool != "tank" || back.Records != r.Records {
		t.Errorf("%s", text)
	}
	var out strings.Builder
	b.must(r.WriteText(&out))
	if !strings.Contains(out.String(), "clean") || r.Class.ExitCode() != 0 || ClassLeaks.ExitCode() != 1 || ClassDamage.ExitCode() != 4 {
		t.Errorf("%s", out.String())
	}
}

func TestEveryKindOfFindingSaysWhatRepairWouldDo(t *testing.T) {
	for kind, info := range kinds {
		if info.severity == "" || info.repair == "" {
			t.Errorf("%s: %+v", kind, info)
		}
	}
}

func (b *bench) replica(i int) string { return filepath.Join(b.dir, fmt.Sprintf("meta-%d.db", i)) }
