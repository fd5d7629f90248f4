package format

import (
	"errors"
	"testing"
)

func TestRecordComesBackAsItWas(t *testing.T) {
	for _, r := range []Record{
		{Addr: 0, Size: 1},
		{Addr: 1<<52 - 1, Size: MaxRecordSize, Codec: LZ4, Sum: 1<<64 - 1, Birth: 1<<63 + 5, Owner: 1 << 40},
		{Addr: 777, Size: 16384, Codec: Zstd, Sum: 42, Birth: 9, Owner: 3},
	} {
		got, err := ParseRecord(AppendRecord(nil, r))
		if err != nil || got != r {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(AppendRecord(nil, Record{Addr: 7, Size: 4096, Birth: 3, Owner: 1}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v does not say that the bytes are damaged", err)
			}
			return
		}
		again, err := ParseRecord(AppendRecord(nil, r))
		if err != nil || again != r {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

func TestProfilesAreFoundByName(t *testing.T) {
	for p := Single; p <= RaidZ2; p++ {
		if got, err := ParseProfile(p.String()); err != nil || got != p {
			t.Errorf("%v: got %v, %v", p, got, err)
		}
	}
	if _, err := ParseProfile("raid5"); err == nil {
		t.Error("raid5 was accepted")
	}
}
