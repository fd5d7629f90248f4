package thinxml

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A pool is a whole text, in memory.
type pool struct {
	sb      Superblock
	devices []device
}

type device struct {
	Device
	maps []Mapping
}

func write(t testing.TB, p pool) string {
	t.Helper()
	var b strings.Builder
	w := NewWriter(&b)
	if err := writeTo(w, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func writeTo(w *Writer, p pool) error {
	if err := w.Superblock(p.sb); err != nil {
		return err
	}
	for _, d := range p.devices {
		if err := w.Device(d.Device); err != nil {
			return err
		}
		for _, m := range d.maps {
			if err := w.Map(m); err != nil {
				return err
			}
		}
		if err := w.EndDevice(); err != nil {
			return err
		}
	}
	return w.Close()
}

func read(in io.Reader, opt Options) (p pool, err error) {
	r, err := NewReader(in, opt)
	if err != nil {
		return p, err
	}
	p.sb = r.Superblock()
	for {
		d, err := r.NextDevice()
		if err == io.EOF {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		dev := device{Device: d}
		for {
			m, err := r.NextMapping()
			if err == io.EOF {
				break
			}
			if err != nil {
				return p, err
			}
			dev.maps = append(dev.maps, m)
		}
		p.devices = append(p.devices, dev)
	}
}

func mustRead(t testing.TB, text string) pool {
	t.Helper()
	p, err := read(strings.NewReader(text), Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// randomPool makes devices that share blocks as snapshots do: each begins as
// what another has, and then gets new blocks for some.
func randomPool(rng *rand.Rand) pool {
	const virtual = 3000
	p := pool{sb: Superblock{Time: 1, Transaction: rng.Uint64(), Version: 2, DataBlockSize: 128, NrDataBlocks: 1 << 20}}
	type block struct {
		data uint64
		time uint32
	}
	var states []map[uint64]block
	id := uint32(0)
	nextData := uint64(rng.IntN(1000))
	for range 1 + rng.IntN(8) {
		state := map[uint64]block{}
		if len(states) > 0 && rng.IntN(4) > 0 {
			for origin, b := range states[rng.IntN(len(states))] {
				state[origin] = b
			}
			p.sb.Time++
		}
		for range rng.IntN(20) {
			start, n := uint64(rng.IntN(virtual)), uint64(1+rng.IntN(40))
			if rng.IntN(3) == 0 {
				nextData += uint64(rng.IntN(5)) // a gap
			}
			for o := start; o < start+n; o++ {
				state[o] = block{nextData, p.sb.Time}
				nextData++
			}
		}
		states = append(states, state)
		id += 1 + uint32(rng.IntN(3))
		d := device{Device: Device{ID: id, MappedBlocks: uint64(len(state)), Transaction: rng.Uint64(), CreationTime: p.sb.Time, SnapTime: rng.Uint32()}}
		var origins []uint64
		for o := range state {
			origins = append(origins, o)
		}
		slices.Sort(origins)
		for _, o := range origins {
			d.maps = append(d.maps, Mapping{Origin: o, Data: state[o].data, Length: 1, Time: state[o].time})
		}
		p.devices = append(p.devices, d)
	}
	return p
}

// coalesced is what p must look like after it was written.
func coalesced(p pool) pool {
	out := pool{sb: p.sb}
	for _, d := range p.devices {
		var maps []Mapping
		for _, m := range d.maps {
			if n := len(maps); n > 0 && maps[n-1].Time == m.Time &&
				maps[n-1].Origin+maps[n-1].Length == m.Origin && maps[n-1].Data+maps[n-1].Length == m.Data {
				maps[n-1].Length += m.Length
			} else {
				maps = append(maps, m)
			}
		}
		out.devices = append(out.devices, device{d.Device, maps})
	}
	return out
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for seed := range uint64(200) {
		p := randomPool(rand.New(rand.NewPCG(seed, 1)))
		p.sb.UUID = `<a> & "b" 'c' ü`
		if got := mustRead(t, write(t, p)); !reflect.DeepEqual(got, coalesced(p)) {
			t.Fatalf("seed %d: wrote %+v, read %+v", seed, coalesced(p), got)
		}
	}
}

// small is a text as thin_dump 0.9 prints it.
const small = `<superblock uuid="" time="3" transaction="7" flags="0" version="2" data_block_size="128" nr_data_blocks="1000">
  <device dev_id="1" mapped_blocks="6" transaction="1" creation_time="1" snap_time="2">
    <range_mapping origin_begin="0" data_begin="10" length="5" time="1"/>
    <single_mapping origin_block="100" data_block="50" time="2"/>
  </device>
  <device dev_id="3" mapped_blocks="0" transaction="4" creation_time="2" snap_time="3">
  </device>
</superblock>
`

func TestTextIsByteForByteThinDumps(t *testing.T) {
	if got := write(t, mustRead(t, small)); got != small {
		t.Errorf("got\n%s\nwant\n%s", got, small)
	}
}

// handwritten has the same meaning as small, said with definitions as thin_dump
// 1.0 may, and otherwise as people and other tools write XML.
const handwritten = "\ufeff" + `<?xml version="1.0" encoding="UTF-8"?>
<!-- a -- > > comment -->
<superblock nr_data_blocks='1000' data_block_size = "&#49;&#x32;8" uuid='' time="3" metadata_snap="9"
    transaction="0007" version="2">
  <def name="a"><range_mapping origin_begin="0" data_begin="10" length="3" time="1"></range_mapping></def>
  <def name="b">
    <ref name="a"/><single_mapping origin_block="3" data_block="13" time="1"/>
    <single_mapping time="1" origin_block="4" data_block="14"/>
  </def>
  <!---->
  <device dev_id="1" mapped_blocks="6" transaction="1" creation_time="1" snap_time="2">
    <ref name="b"></ref>
    <single_mapping origin_block="100" data_block="50" time="2"/>
  </device>
  <device dev_id="3" mapped_blocks="0" transaction="4" creation_time="2" snap_time="3"/>
</superblock>
<!-- end -->
`

func TestOtherToolsAndPeopleMayWriteItToo(t *testing.T) {
	if got := write(t, mustRead(t, handwritten)); got != small {
		t.Errorf("got\n%s\nwant\n%s", got, small)
	}
}

func TestDeviceThatIsSkippedIsStillChecked(t *testing.T) {
	for text, want := range map[string]error{
		small: io.EOF,
		strings.Replace(small, `origin_block="100"`, `origin_block="4"`, 1): ErrMalformed,
	} {
		r, err := NewReader(strings.NewReader(text), Options{})
		for err == nil {
			_, err = r.NextDevice()
		}
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if _, again := r.NextDevice(); again != err {
			t.Errorf("then got %v", again)
		}
	}
}

// TestBadTextIsRefusedWithItsPlace replaces parts of small.
func TestBadTextIsRefusedWithItsPlace(t *testing.T) {
	const single = `<single_mapping origin_block="100" data_block="50" time="2"/>`
	for _, c := range []struct {
		old, new string
		line     int
		element  string
		attr     string
	}{
		{`origin_block="100"`, `origin_block="4"`, 4, "single_mapping", "origin_block"},
		{`origin_begin="0"`, `origin_begin="98"`, 4, "single_mapping", "origin_block"},
		{`data_block="50"`, `data_block="1000"`, 4, "single_mapping", "data_block"},
		{`data_begin="10"`, `data_begin="996"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="0"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="18446744073709551615"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="18446744073709551616"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="-1"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="+5"`, 3, "range_mapping", "length"},
		{`length="5"`, `length=" 5"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="0x5"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="1_0"`, 3, "range_mapping", "length"},
		{`length="5"`, `length=""`, 3, "range_mapping", "length"},
		{`length="5"`, `length=5`, 3, "range_mapping", "length"},
		{`length="5"`, `length`, 3, "range_mapping", "length"},
		{`length="5"`, `length="5" length="5"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="5"colour="1"`, 3, "range_mapping", "length"},
		{`length="5" `, ``, 3, "range_mapping", "length"},
		{`length="5"`, `length="5" colour="red"`, 3, "range_mapping", "colour"},
		{`length="5"`, `length="&five;"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="&#x110000;"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="&5"`, 3, "range_mapping", "length"},
		{`length="5"`, `length="5" ="3"`, 3, "range_mapping", ""},
		{`length="5"`, `length="` + strings.Repeat("0", maxTag) + `5"`, 3, "", ""},
		{`length="5"`, `length="5<"`, 3, "", ""},
		{`time="1"/>`, `time="16777216"/>`, 3, "range_mapping", "time"},
		{`origin_block="100"`, `origin_block="18446744073709551615"`, 4, "single_mapping", "origin_block"},
		{`origin_block="100"`, `origin_block="140737488355328"`, 4, "single_mapping", "origin_block"},
		{`dev_id="3"`, `dev_id="1"`, 6, "device", "dev_id"},
		{`dev_id="3"`, `dev_id="0"`, 6, "device", "dev_id"},
		{`dev_id="3"`, `dev_id="16777216"`, 6, "device", "dev_id"},
		{`mapped_blocks="6"`, `mapped_blocks="7"`, 5, "device", "mapped_blocks"},
		{`mapped_blocks="0"`, `mapped_blocks="7"`, 7, "device", "mapped_blocks"},
		{`snap_time="3"`, `snap_time="4294967296"`, 6, "device", "snap_time"},
		{`uuid=""`, ``, 1, "superblock", "uuid"},
		{`uuid=""`, `uuid="&#10;"`, 1, "superblock", "uuid"},
		{`uuid=""`, "uuid=\"\xff\"", 1, "superblock", "uuid"},
		{`uuid=""`, `uuid="` + strings.Repeat("a", 129) + `"`, 1, "superblock", "uuid"},
		{`version="2"`, `version="3"`, 1, "superblock", "version"},
		{`data_block_size="128"`, `data_block_size="0"`, 1, "superblock", "data_block_size"},
		{`data_block_size="128"`, `data_block_size="2097153"`, 1, "superblock", "data_block_size"},
		{`nr_data_blocks="1000"`, `nr_data_blocks="1099511627777"`, 1, "superblock", "nr_data_blocks"},
		{`data_block_size="128" nr_data_blocks="1000"`, `data_block_size="2097152" nr_data_blocks="1099511627776"`, 1, "superblock", "nr_data_blocks"},
		{`nr_data_blocks="1000"`, `nr_data_blocks="20"`, 4, "single_mapping", "data_block"},
		{`<superblock`, `<pool`, 1, "", ""},
		{`<superblock`, `<superblock/><superblock`, 1, "superblock", "uuid"},
		{`<superblock`, `<!DOCTYPE a [<!ENTITY b "c">]><superblock`, 1, "", ""},
		{`<superblock`, `hello <superblock`, 1, "", ""},
		{single, single + `<device dev_id="9" mapped_blocks="0" transaction="1" creation_time="1" snap_time="2"/>`, 4, "", ""},
		{single, single + `<def name="x"/>`, 4, "", ""},
		{single, single + `<![CDATA[]]>`, 4, "", ""},
		{single, single + `<?php ?>`, 4, "", ""},
		{single, single + `text`, 4, "", ""},
		{single, single + `<>`, 4, "", ""},
		{single, single + `<ref name="1"/>`, 4, "ref", "name"},
		{single, single + `<ref/>`, 4, "ref", "name"},
		{single, single + `</superblock>`, 4, "", ""},
		{single, `<single_mapping origin_block="100" data_block="50" time="2">` + single + `</single_mapping>`, 4, "", ""},
		{single, `<range_mapping origin_begin="100" data_begin="1000" length="1" time="2"/>`, 4, "range_mapping", "data_begin"},
		{`</device>`, `</device x="1">`, 5, "device", ""},
		{`  <device`, `  <single_mapping origin_block="1" data_block="50" time="2"/>` + "\n  <device", 2, "", ""},
		{`  <device`, `  <def/>` + "\n  <device", 2, "def", "name"},
		{`  <device`, `  <def name="1" x="2"/>` + "\n  <device", 2, "def", "x"},
		{`  <device`, `  <def name="1"/><def name="1"/>` + "\n  <device", 2, "def", "name"},
		{`  <device`, `  <def name="1"><ref name="1"/></def>` + "\n  <device", 2, "ref", "name"},
		{`  <device`, `  <def name="1">` + single + single + `</def>` + "\n  <device", 2, "single_mapping", "origin_block"},
		{`  <device`, `  <def name="1">` + single + `</def><def name="2"><ref name="1"/><ref name="1"/></def>` + "\n  <device", 2, "ref", "name"},
		{`  <device`, `  <def name="1"><def name="2"/></def>` + "\n  <device", 2, "", ""},
		{`  <device`, `  <def name="1"></superblock>` + "\n  <device", 2, "", ""},
		{`</superblock>`, `</superblock><superblock/>`, 8, "", ""},
		{`</superblock>`, `</superblock>x`, 8, "", ""},
		{`</superblock>`, `</pool>`, 8, "", ""},
		{`</superblock>`, ``, 9, "", ""},
	} {
		text := strings.Replace(small, c.old, c.new, 1)
		if text == small {
			t.Fatalf("%q is not in the text", c.old)
		}
		_, err := read(strings.NewReader(text), Options{})
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s for %s: got %v", c.new, c.old, err)
			continue
		}
		if e.Line != c.line || e.Element != c.element || e.Attr != c.attr {
			t.Errorf("%s for %s: got line %d, element %q, attribute %q (%v), want %d, %q, %q",
				c.new, c.old, e.Line, e.Element, e.Attr, err, c.line, c.element, c.attr)
		}
		if len(err.Error()) > 300 {
			t.Errorf("%d bytes of error: %v", len(err.Error()), err)
		}
	}
}

func TestTextCutAnywhereIsRefused(t *testing.T) {
	for _, text := range []string{small, handwritten[:strings.Index(handwritten, "<!-- end")]} {
		for n := range strings.TrimRight(text, "\n") {
			_, err := read(strings.NewReader(text[:n]), Options{})
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("cut after %d bytes: %v", n, err)
			}
			if _, isSyntax := errors.AsType[*Error](err); !isSyntax {
				t.Fatalf("cut after %d bytes: %v has no line", n, err)
			}
		}
	}
}

func TestReadErrorIsNotTakenForTheEnd(t *testing.T) {
	broken := errors.New("broken")
	for n := range len(small) {
		_, err := read(io.MultiReader(strings.NewReader(small[:n]), failing{broken}), Options{})
		if !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestDumpWithoutMappingsIsTakenOnlyWhenAskedFor(t *testing.T) {
	text := strings.Replace(small, `mapped_blocks="0"`, `mapped_blocks="9"`, 1)
	p, err := read(strings.NewReader(text), Options{AnyCount: true})
	if err != nil || p.devices[1].MappedBlocks != 9 || p.devices[1].maps != nil {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestDefinitionsAreBounded(t *testing.T) {
	text := func(n int) io.Reader {
		return io.MultiReader(strings.NewReader(`<superblock uuid="" time="0" transaction="0" data_block_size="128" nr_data_blocks="9">`),
			&repeat{n: n, item: func(i int) string { return fmt.Sprintf(`<def name="%d"/>`, i) }},
			strings.NewReader(`</superblock>`))
	}
	if _, err := read(text(1000), Options{MaxShared: 1 << 20}); err != nil {
		t.Error(err)
	}
	if _, err := read(text(30000), Options{MaxShared: 1 << 20}); !errors.Is(err, ErrMalformed) {
		t.Errorf("30,000 definitions in 1 MiB: %v", err)
	}
	one := io.MultiReader(strings.NewReader(`<superblock uuid="" time="0" transaction="0" data_block_size="128" nr_data_blocks="9"><def name="1">`),
		&repeat{n: 1 << 18, item: func(i int) string {
			return fmt.Sprintf(`<single_mapping origin_block="%d" data_block="1" time="0"/>`, i)
		}})
	if _, err := read(one, Options{MaxShared: 1 << 19}); !errors.Is(err, ErrMalformed) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("262,144 mappings in 512 KiB: %v", err)
	}
}

// repeat reads as item(0), item(1) … item(n-1).
type repeat struct {
	n, i int
	item func(int) string
	rest string
}

func (r *repeat) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if r.rest == "" {
			if r.i == r.n {
				return n, io.EOF
			}
			r.rest = r.item(r.i)
			r.i++
		}
		k := copy(b[n:], r.rest)
		r.rest = r.rest[k:]
		n += k
	}
	return n, nil
}

// TestMemoryDoesNotGrowWithThePool sends mappings, no two of them neighbours,
// through both directions at once. A byte for each would be noticed.
func TestMemoryDoesNotGrowWithThePool(t *testing.T) {
	const mappings = 200_000
	in, out := io.Pipe()
	go func() {
		w := NewWriter(out)
		w.Superblock(Superblock{DataBlockSize: 128, NrDataBlocks: 2 * mappings})
		w.Device(Device{ID: 1, MappedBlocks: mappings})
		for i := range uint64(mappings) {
			w.Map(Mapping{Origin: 2 * i, Data: 2*mappings - 1 - i, Length: 1})
		}
		w.EndDevice()
		out.CloseWithError(w.Close()) // has the first error of all of them
	}()
	r, err := NewReader(in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.NextDevice(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range mappings {
		if _, err := r.NextMapping(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if _, err := r.NextDevice(); err != io.EOF {
		t.Error(err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > mappings {
		t.Errorf("%d mappings allocated %d bytes", mappings, grown)
	}
}

func TestWriterRefusesWhatTheReaderWould(t *testing.T) {
	good := pool{Superblock{DataBlockSize: 128, NrDataBlocks: 1000},
		[]device{{Device{ID: 1, MappedBlocks: 2}, []Mapping{{Origin: 0, Data: 1, Length: 1}, {Origin: 5, Data: 7, Length: 1}}}, {Device: Device{ID: 2}}}}
	for name, spoil := range map[string]func(*pool){
		"overlap":       func(p *pool) { p.devices[0].maps[1].Origin = 0 },
		"time":          func(p *pool) { p.devices[0].maps[0].Time = MaxTime + 1 },
		"beyond":        func(p *pool) { p.devices[0].maps[0].Data = 1000 },
		"empty":         func(p *pool) { p.devices[0].maps[0].Length = 0 },
		"overflow":      func(p *pool) { p.devices[0].maps[0].Length = 1<<64 - 1 },
		"count":         func(p *pool) { p.devices[0].MappedBlocks = 3 },
		"order":         func(p *pool) { p.devices[1].ID = 0 },
		"id":            func(p *pool) { p.devices[1].ID = 1 << 24 },
		"version":       func(p *pool) { p.sb.Version = 3 },
		"uuid":          func(p *pool) { p.sb.UUID = "\x00" },
		"size of block": func(p *pool) { p.sb.DataBlockSize = 0 },
	} {
		p := pool{good.sb, []device{{good.devices[0].Device, slices.Clone(good.devices[0].maps)}, good.devices[1]}}
		if err := writeTo(NewWriter(io.Discard), p); err != nil {
			t.Fatal(err)
		}
		spoil(&p)
		w := NewWriter(io.Discard)
		err := writeTo(w, p)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if again := w.Close(); again != err {
			t.Errorf("%s: Close says %v after %v", name, again, err)
		}
	}
}

func TestWriterSaysWhenItIsMisused(t *testing.T) {
	w := NewWriter(io.Discard)
	if err := w.Device(Device{}); err == nil {
		t.Error("a device without a superblock was taken")
	}
	w = NewWriter(io.Discard)
	w.Superblock(Superblock{DataBlockSize: 128})
	w.Device(Device{})
	if err := w.Close(); err == nil {
		t.Error("Close within a device was taken")
	}
}

func TestWriteErrorIsReported(t *testing.T) {
	full := errors.New("full")
	w := NewWriter(failing{full})
	if err := writeTo(w, mustRead(t, small)); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(handwritten))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := read(strings.NewReader(string(b)), Options{MaxShared: 1 << 16})
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v does not blame the text", err)
			}
			return
		}
		text := write(t, p)
		if p.sb.Version == 0 {
			p.sb.Version = newest
		}
		if again := mustRead(t, text); !reflect.DeepEqual(again, coalesced(p)) {
			t.Fatalf("%+v was written and read as %+v", p, again)
		}
	})
}

// BenchmarkReader reads the mappings of a pool of 100 GB, the worst of them: no
// two are neighbours.
func BenchmarkReader(b *testing.B) {
	p := pool{sb: Superblock{DataBlockSize: 128, NrDataBlocks: 1_600_000}, devices: []device{{Device: Device{MappedBlocks: 1_600_000}}}}
	for i := range p.sb.NrDataBlocks {
		p.devices[0].maps = append(p.devices[0].maps, Mapping{Origin: 2 * i, Data: p.sb.NrDataBlocks - 1 - i, Length: 1})
	}
	text := write(b, p)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		r, err := NewReader(strings.NewReader(text), Options{})
		for err == nil {
			_, err = r.NextDevice()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}

// TestOnlyWhatIsOneRunIsJoined has neighbours that differ in one thing each.
// Joining them would give blocks another time, which decides what is shared.
func TestOnlyWhatIsOneRunIsJoined(t *testing.T) {
	maps := []Mapping{
		{Origin: 0, Data: 10, Length: 1, Time: 1},
		{Origin: 1, Data: 11, Length: 1, Time: 2}, // another time
		{Origin: 2, Data: 13, Length: 1, Time: 2}, // a gap in the data
		{Origin: 4, Data: 14, Length: 1, Time: 2}, // a gap in the device
		{Origin: 5, Data: 15, Length: 2, Time: 2}, // continues
	}
	p := pool{Superblock{Version: 2, DataBlockSize: 128, NrDataBlocks: 100}, []device{{Device{MappedBlocks: 6}, maps}}}
	want := append(slices.Clone(maps[:3]), Mapping{Origin: 4, Data: 14, Length: 3, Time: 2})
	if got := mustRead(t, write(t, p)).devices[0].maps; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
