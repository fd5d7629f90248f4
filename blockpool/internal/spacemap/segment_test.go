package spacemap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// vector is a segment with units 0, 1, 5 and 1023 in use, 1 counted twice and
// 1023 three hundred times.
var vector = "01" + "2300000000000000" + strings.Repeat("00", 14*8) + "0000000000000080" + "0100" + "fd07aa02"

func TestSegmentIsStoredAsFormatSays(t *testing.T) {
	s := &segment{}
	for _, u := range []uint64{0, 1, 5, 1023} {
		s.bits.set(u)
	}
	s.setCount(1023, 300)
	s.setCount(1, 2)
	if got := hex.EncodeToString(s.pack()); got != vector {
		t.Errorf("got  %s\nwant %s", got, vector)
	}
	b, _ := hex.DecodeString(vector)
	if used, err := CheckSegment(b); used != 4 || err != nil {
		t.Errorf("got %d, %v", used, err)
	}
}

func TestDamagedSegmentsAreRefused(t *testing.T) {
	good, _ := hex.DecodeString(vector)
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, b := range map[string][]byte{
		"nothing":             {},
		"too short":           good[:128],
		"an unknown version":  change(func(b []byte) []byte { b[0] = 2; return b }),
		"a free unit counted": change(func(b []byte) []byte { b[1] = 1; return b }),
		"an entry cut":        good[:len(good)-1],
		"a count missing":     good[:len(good)-2],
		"a byte too many":     append(bytes.Clone(good), 0),
		"a unit past the end": append(bytes.Clone(good), 0, 0),
		"a long varint":       change(func(b []byte) []byte { return append(b[:129], 0x81, 0, 0) }),
		"an endless varint":   append(bytes.Clone(good[:129]), bytes.Repeat([]byte{0xff}, 12)...),
		"a count too high":    append(bytes.Clone(good[:129]), 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
	} {
		if _, err := unpackSegment(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzSegment(f *testing.F) {
	good, _ := hex.DecodeString(vector)
	f.Add(good)
	f.Add(make([]byte, 129))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := unpackSegment(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v does not say that the bytes are damaged", err)
			}
			return
		}
		if again := s.pack(); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}
