package raid

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// TestTheStripeOfThePackageCommentIsTrue also is the vector of FORMAT.md.
func TestTheStripeOfThePackageCommentIsTrue(t *testing.T) {
	c := testChunk(format.RaidZ1, 4)
	s := c.stripe(chunkBase+1, 5*sector)
	want := []piece{
		{column: 1, row: 0, sectors: 2},
		{column: 2, row: 0, sectors: 2, from: 0},
		{column: 3, row: 0, sectors: 2, from: 2 * sector},
		{column: 0, row: 1, sectors: 1, from: 4 * sector},
	}
	if !reflect.DeepEqual(s.pieces(), want) {
		t.Errorf("got %+v", s.pieces())
	}
	if need := c.Need(5 * sector); need != 8 { // 5 data, 2 parity, rounded to 2
		t.Errorf("it needs %d sectors", need)
	}
}

// TestNeedIsThatOfRaidz has the sizes that zdb shows for raidz with sectors of
// 4 KiB.
func TestNeedIsThatOfRaidz(t *testing.T) {
	for _, c := range []struct {
		profile format.Profile
		width   int
		n, want int64
	}{
		{format.Single, 1, 1, 1},
		{format.Mirror, 3, 128 << 10, 32},
		{format.RaidZ1, 3, 4096, 2},
		{format.RaidZ1, 3, 128 << 10, 48},
		{format.RaidZ1, 5, 8192, 4},       // 2+1, rounded to 2
		{format.RaidZ1, 5, 128 << 10, 40}, // 32+8
		{format.RaidZ2, 6, 4096, 3},
		{format.RaidZ2, 6, 16384, 6},
		{format.RaidZ2, 6, 128 << 10, 48}, // 32+16
		{format.RaidZ2, 8, 16 << 10, 6},
	} {
		if got := Need(c.profile, c.width, c.n); got != c.want {
			t.Errorf("%v of %d: %d bytes need %d sectors, not %d", c.profile, c.width, c.n, got, c.want)
		}
	}
}

// checkStripe makes sure that a record takes raw sectors of its own range only,
// each once, on each column one run, and that its data are all there.
func checkStripe(t *testing.T, c *Chunk, at format.Addr, n int, taken map[[2]int64]bool) {
	t.Helper()
	s, width := c.stripe(at, n), int64(len(c.Columns))
	first, need, data, raw := int64(at-c.Base), c.Need(int64(n)), int64(0), int64(0)
	columns := map[int]bool{}
	for i := range s.pieces() {
		p := &s.all[i]
		if columns[p.column] {
			t.Fatalf("two pieces on column %d", p.column)
		}
		columns[p.column] = true
		if i >= s.parity {
			if s.parity > 0 && p.from != data {
				t.Fatalf("piece %d begins at %d of the record, not at %d", i, p.from, data)
			}
			data += p.bytes()
		} else if p.sectors != s.height() {
			t.Fatalf("parity of %d sectors for %d", p.sectors, s.height())
		}
		for row := p.row; row < p.row+p.sectors; row++ {
			if row >= c.ColumnBytes()/sector {
				t.Fatalf("row %d is beyond the column", row)
			}
			place := [2]int64{int64(p.column), row}
			if taken[place] {
				t.Fatalf("column %d, row %d is taken twice", p.column, row)
			}
			taken[place] = true
			if s.parity > 0 {
				if r := row*width + int64(p.column); r < first || r >= first+need {
					t.Fatalf("raw sector %d is outside [%d, %d)", r, first, first+need)
				}
				raw++
			}
		}
	}
	if s.parity == 0 {
		return
	}
	if data != format.Sectors(int64(n))*sector {
		t.Fatalf("%d bytes have room, of %d", data, n)
	}
	if roundUp(raw, int64(s.parity)+1) != need {
		t.Fatalf("%d raw sectors, but %d are needed", raw, need)
	}
}

func TestNoTwoRecordsShareASector(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		c, taken := testChunk(profile, width), map[[2]int64]bool{}
		at := format.Addr(chunkBase)
		for i := 0; ; i++ {
			n := sizes[(i*7)%len(sizes)]
			if c.holds(at, n) != nil {
				break
			}
			checkStripe(t, c, at, n, taken)
			at += format.Addr(c.Need(int64(n)))
		}
	})
}

func FuzzGeometry(f *testing.F) {
	f.Add(uint8(2), uint8(4), uint16(1), uint32(20480), uint32(4096))
	f.Add(uint8(3), uint8(31), uint16(999), uint32(1), uint32(131072))
	f.Fuzz(func(t *testing.T, profile, width uint8, first uint16, n1, n2 uint32) {
		c := testChunk(format.Profile(profile), int(width%(MaxColumns+1)))
		a, b := int(n1%format.MaxRecordSize)+1, int(n2%format.MaxRecordSize)+1
		if c.Check() != nil {
			return
		}
		at, taken := c.Base+format.Addr(first), map[[2]int64]bool{}
		next := at + format.Addr(c.Need(int64(a)))
		if c.holds(at, a) != nil || c.holds(next, b) != nil {
			return
		}
		checkStripe(t, c, at, a, taken)
		checkStripe(t, c, next, b, taken)
	})
}

func TestRecordsOutsideTheChunkAreRefused(t *testing.T) {
	r := newRig(t, format.RaidZ1, 3)
	for _, c := range []struct {
		at format.Addr
		n  int
	}{{chunkBase - 1, 4096}, {chunkBase + chunkSize - 1, 4096}, {0, 4096}, {1 << 63, 4096}, {chunkBase, 0}} {
		b := make([]byte, c.n)
		if err := r.Write(r.chunk, c.at, b); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("write at %d: %v", c.at, err)
		}
		if err := r.Read(r.chunk, c.at, b, nil); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("read at %d: %v", c.at, err)
		}
		if _, err := r.Scrub(r.chunk, c.at, c.n, nil); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("scrub at %d: %v", c.at, err)
		}
	}
}

func TestChunksComeBackAsTheyWere(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		c := testChunk(profile, width)
		c.Class = format.Log
		c.Columns[width-1].Shadow = &Place{Device: 99, Start: 1 << 40}
		got, err := ParseChunk(c.Append(nil))
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
	})
}

func TestChunksThatCannotBeAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Chunk){
		"two columns on one device": func(c *Chunk) { c.Columns[1].Device = c.Columns[0].Device },
		"too few columns":           func(c *Chunk) { c.Columns = c.Columns[:2] },
		"no sectors":                func(c *Chunk) { c.Sectors = 0 },
		"too many sectors":          func(c *Chunk) { c.Sectors = 1 << 60 },
		"a base that overflows":     func(c *Chunk) { c.Base = 1 << 63 },
		"an unknown profile":        func(c *Chunk) { c.Profile = 9 },
		"an unknown class":          func(c *Chunk) { c.Class = 9 },
		"an odd start":              func(c *Chunk) { c.Columns[0].Start = 100 },
		"a shadow beside a column": func(c *Chunk) {
			c.Columns[0].Shadow = &Place{Device: c.Columns[1].Device}
		},
		"two shadows on one device": func(c *Chunk) {
			c.Columns[0].Shadow, c.Columns[1].Shadow = &Place{Device: 99}, &Place{Device: 99}
		},
	} {
		c := testChunk(format.RaidZ1, 3)
		spoil(c)
		if err := c.Check(); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseChunk(f *testing.F) {
	c := testChunk(format.RaidZ2, 5)
	f.Add(c.Append(nil))
	c.Columns[2].Shadow = &Place{Device: 3, Start: 4096}
	f.Add(c.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseChunk(b)
		if err != nil {
			if !errors.Is(err, format.ErrDamaged) {
				t.Fatalf("%v does not say that the bytes are damaged", err)
			}
			return
		}
		if again := c.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}

// TestParityIsWhatItWasWhenPoolsWereWritten would fail if another version of
// the encoder took other matrices: existing pools could not be read.
func TestParityIsWhatItWasWhenPoolsWereWritten(t *testing.T) {
	for _, c := range []struct {
		profile format.Profile
		width   int
		want    string // some bytes of each parity column
	}{
		{format.RaidZ1, 3, "c1c3465fa1"},
		{format.RaidZ1, 5, "80bc818160"},
		{format.RaidZ2, 4, "9f9a44f1fe5e5902ae5f"},
		{format.RaidZ2, 6, "d0cab8612929bbfa226b"},
		{format.RaidZ2, 8, "cab52d3b1d37764b64a3"},
	} {
		r := newRig(t, c.profile, c.width)
		data := make([]byte, 7*sector)
		for i := range data {
			data[i] = byte(i/sector*31 + i%251)
		}
		r.write(t, chunkBase, data)
		s, got := r.chunk.stripe(chunkBase, len(data)), []byte{}
		for i := range s.parity {
			p := &s.all[i]
			first := r.devs[p.column].Peek(p.off(r.chunk.Columns[p.column].Start), p.bytes())
			got = append(got, first[0], first[1], first[200], first[sector-1], first[p.bytes()-1])
		}
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%v of %d: %x", c.profile, c.width, got)
		}
	}
}
