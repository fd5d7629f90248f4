package blockpool

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

func (b *bench) set(name string, properties ...string) {
	b.Helper()
	b.must(b.SetProperties(ctx, name, pairs(properties)))
}

// get returns properties as lines of name, value and source.
func (b *bench) get(name string, properties ...string) string {
	b.Helper()
	list, err := b.Properties(ctx, name, properties...)
	b.must(err)
	var lines []string
	for _, p := range list {
		source := p.Source
		if p.Source == SourceInherited {
			source += " from " + labelOf(p.From)
		}
		lines = append(lines, fmt.Sprintf("%s=%s (%s)", p.Name, p.Value, source))
	}
	return strings.Join(lines, "\n")
}

func TestPropertiesAreInherited(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateFilesystem(ctx, "a/b/c", FilesystemOptions{Parents: true}))
	want := func(name, property, want string) {
		t.Helper()
		if got := b.get(name, property); got != property+"="+want {
			t.Errorf("%s: %s, want %s", labelOf(name), got, want)
		}
	}
	want("a/b/c", "atime", "relatime (default)")
	b.set("", "atime=off", "com.example:team=blue", "mountpoint=/srv")
	want("", "atime", "off (local)")
	want("a/b/c", "atime", "off (inherited from the pool)")
	want("a/b/c", "mountpoint", "/srv/a/b/c (inherited from the pool)")
	b.set("a/b", "atime=on", "com.example:team=red", "mountpoint=/home/b/")
	want("a/b", "atime", "on (local)")
	want("a/b/c", "atime", "on (inherited from a/b)")
	want("a/b/c", "mountpoint", "/home/b/c (inherited from a/b)")
	want("a/b/c", "com.example:team", "red (inherited from a/b)")
	b.must(b.Snapshot(ctx, "a/b/c", "a/b/c@s"))
	want("a/b/c@s", "com.example:team", "red (inherited from a/b)")
	want("a/b/c@s", "atime", "- (-)")
	b.set("a/b/c@s", "com.example:team=green")
	b.reopen()
	want("a/b/c@s", "com.example:team", "green (local)")
	want("a/b/c", "atime", "on (inherited from a/b)")
	b.must(b.Rename(ctx, "a/b/c", "a/c"))
	want("a/c", "atime", "off (inherited from the pool)")
	b.must(b.InheritProperty(ctx, "a/b", "atime", false))
	want("a/b", "atime", "off (inherited from the pool)")
	b.set("a/b", "atime=on")
	b.set("a/c", "atime=relatime")
	b.must(b.InheritProperty(ctx, "", "atime", true))
	for _, name := range []string{"", "a", "a/b", "a/c"} {
		want(name, "atime", "relatime (default)")
	}
	// Limits are everybody's own.
	b.set("a", "quota=10M", "reservation=1M", "inodes=1K")
	want("a/c", "quota", "0 (default)")
	want("a/c", "inodes", "0 (default)")
	want("a", "quota", "10485760 (local)")
	b.must(b.InheritProperty(ctx, "a", "quota", false))
	want("a", "quota", "0 (default)")
}

// What is written is packed as the property says that is in force, wherever it was set.
func TestCompressionThatIsInheritedIsUsed(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	in := func(name string, want string) {
		t.Helper()
		tr, err := b.OpenTree(name)
		b.must(err)
		defer tr.Close()
		if got := tr.Stat().Compression; got != want {
			t.Errorf("%s is packed by %s, want %s", name, got, want)
		}
	}
	b.must(b.CreateFilesystem(ctx, "a/b", FilesystemOptions{Parents: true}))
	b.filesystem("z", "compression=zstd-19")
	in("a/b", "lz4")
	b.set("", "compression=off")
	in("a/b", "off")
	in("z", "zstd-19")
	b.set("a", "compression=zstd")
	in("a/b", "zstd")
	b.must(b.Rename(ctx, "a/b", "b"))
	in("b", "off")
	b.must(b.Rename(ctx, "b", "z/b"))
	in("z/b", "zstd-19")
	b.must(b.InheritProperty(ctx, "z", "compression", false))
	in("z/b", "off")
	b.must(b.Snapshot(ctx, "a", "a@s"))
	b.must(b.CloneFilesystem(ctx, "a@s", "z/clone", FilesystemOptions{}))
	in("z/clone", "off")
	b.must(b.CreateDataset(ctx, "typed", DatasetOptions{Compression: CompressionZstd}))
	in("typed", "zstd")
	if got := b.get("typed", "compression"); got != "compression=zstd (local)" {
		t.Error(got)
	}
}

func TestRecordSizeIsKeptFromBirth(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.filesystem("a", "recordsize=128K")
	b.filesystem("a/b")
	b.set("", "recordsize=4K")
	b.filesystem("c")
	for name, want := range map[string]string{
		"":    "recordsize=4096 (local)",
		"a":   "recordsize=131072 (local)",
		"a/b": "recordsize=131072 (inherited from a)",
		"c":   "recordsize=4096 (inherited from the pool)",
	} {
		if got := b.get(name, "recordsize"); got != want {
			t.Errorf("%s: %s, want %s", labelOf(name), got, want)
		}
	}
	if err := b.SetProperties(ctx, "a", pairs([]string{"recordsize=4K"})); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "when you make one") {
		t.Errorf("changed later: %v", err)
	}
	b.must(b.Snapshot(ctx, "a", "a@s"))
	if err := b.CloneFilesystem(ctx, "a@s", "d", FilesystemOptions{Properties: pairs([]string{"recordsize=4K"})}); !errors.Is(err, ErrInvalid) {
		t.Errorf("of a clone: %v", err)
	}
}

// A refusal says what is possible.
func TestPropertiesThatAreRefused(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.filesystem("a")
	b.must(b.CreateVolume(ctx, "disk", 1<<20, VolumeOptions{}))
	b.must(b.Snapshot(ctx, "a", "a@s"))
	for _, c := range []struct{ on, property, say string }{
		{"a", "checksum=off", "every record has one"},
		{"a", "checksum=sha256", "the one value is on"},
		{"a", "compression=gzip", "lz4"},
		{"a", "compression=zstd-20", "zstd-19"},
		{"a", "recordsize=5000", "power of two"},
		{"a", "quota=many", "no size"},
		{"a", "quota=-1", "negative"},
		{"a", "atime=maybe", "on, off, relatime"},
		{"a", "mountpoint=here", "absolute path"},
		{"a", "mountpoint=/a\nb", "one line"},
		{"a", "used=1", "cannot be set"},
		{"a", "compresion=on", "no property"},
		{"a", "comp=on", "compression"},
		{"a", "dedup=on", "reflink"},
		{"a", "inodes=9G", "more than"},
		{"", "quota=1G", "a pool has no quota"},
		{"disk", "atime=off", "a volume has no atime"},
		{"a@s", "readonly=off", "a snapshot has no readonly"},
		{"a", "Com:x=1", "lower-case"},
		{"a", "-x:y=1", "lower-case"},
		{"a", "x:y=a\tb", "one line"},
		{"a", "x:y=\xff", "one line"},
		{"a", "x:y=" + strings.Repeat("v", 8193), "8192"},
		{"a", strings.Repeat("x", 256) + ":=1", "256"},
	} {
		err := b.SetProperties(ctx, c.on, pairs([]string{c.property}))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s %.40s: %v", c.on, c.property, err)
		}
	}
	if err := b.SetProperties(ctx, "none", pairs([]string{"atime=on"})); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// All of it or nothing.
	if err := b.SetProperties(ctx, "a", pairs([]string{"atime=on", "exec=no"})); err == nil || b.prop("a", "atime") != "relatime" {
		t.Errorf("half of it was set (%v)", err)
	}
	if _, err := b.Properties(ctx, "a", "nonsense"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for i := range 9 { // what the catalogue carries for one entry is bounded
		err := b.SetProperties(ctx, "a", pairs([]string{fmt.Sprintf("x:%d=%s", i, strings.Repeat("v", 8192))}))
		if (err == nil) != (i < 7) {
			t.Errorf("%d: %.80v", i, err)
		}
	}
}

func TestPropertiesOfThePoolSurviveADump(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.filesystem("a", "x:y=z")
	b.set("", "atime=off")
	b.crash()
	if got := b.get("a", "atime", "x:y"); got != "atime=off (inherited from the pool)\nx:y=z (local)" {
		t.Error(got)
	}
	var dump bytes.Buffer
	b.must(b.Dump(ctx, &dump))
	if !strings.Contains(dump.String(), "props=") || !strings.Contains(dump.String(), `value bucket="props" key=706f6f6c`) {
		t.Errorf("a dump leaves properties out:\n%s", dump.String())
	}
}

func TestLocalPropertiesOnDisk(t *testing.T) {
	l := local{"b:c": "", "atime": "off"}
	const want = "\x01\x01\x05atime\x02\x03off\x01\x03b:c\x02\x00"
	if got := string(l.pack()); got != want {
		t.Errorf("%q", got)
	}
	back, err := unpackLocal([]byte(want))
	if err != nil || !maps.Equal(l, back) {
		t.Errorf("%v (%v)", back, err)
	}
}

func FuzzUnpackLocal(f *testing.F) {
	f.Add(local{"b:c": "", "atime": "off"}.pack())
	f.Add([]byte("\x01\x01\x01a\x02\x00\x01\x01a\x02\x00"))
	f.Add([]byte("\x01\x02\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := unpackLocal(b)
		if err != nil {
			if !errors.Is(err, format.ErrDamaged) {
				t.Fatalf("%v is no damage", err)
			}
			return
		}
		again, err := unpackLocal(l.pack())
		if err != nil || !maps.Equal(l, again) {
			t.Fatalf("%v becomes %v (%v)", l, again, err)
		}
	})
}
