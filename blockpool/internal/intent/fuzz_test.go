package intent

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// FuzzReplay feeds a segment with any bytes. What is replayed must be records
// that stand in it, whatever else there is.
func FuzzReplay(f *testing.F) {
	a := newArea(3 * 4 * blockSize)
	l, _ := Open(a, testGUID, 0)
	l.Append(1, Write, []byte("hello"))
	l.Append(1, Discard, AppendRange(nil, RangeRecord{1, 2, 3}))
	l.Append(2, Write, nil)
	f.Add(a.now)
	f.Add(a.now[l.segment:])
	f.Add([]byte("LmIL"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := newArea(3 * 4 * blockSize)
		copy(a.now, b)
		last, err := Replay(a, testGUID, 0, func(txg uint64, kind Kind, payload []byte) error {
			if txg == 0 || txg > segments || !bytes.Contains(b, payload) {
				t.Fatalf("invented %x in txg %d", payload, txg)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != 0 && !bytes.Contains(b, recordMagic[:]) {
			t.Fatalf("txg %d seen in nothing", last)
		}
	})
}

// checkParse fails unless bytes that do not parse are damaged, and others come
// back from what they were parsed to.
func checkParse[T any](t *testing.T, b []byte, parse func([]byte) (T, error), pack func([]byte, T) []byte) {
	t.Helper()
	v, err := parse(b)
	if err != nil {
		if !errors.Is(err, format.ErrDamaged) {
			t.Fatalf("%v does not say that the bytes are damaged", err)
		}
		return
	}
	again, err := parse(pack(nil, v))
	if err != nil || !reflect.DeepEqual(again, v) {
		t.Fatalf("%+v came back as %+v, %v", v, again, err)
	}
}

func FuzzPayloads(f *testing.F) {
	f.Add(AppendWrite(nil, WriteRecord{7, 4096, []byte("data")}))
	f.Add(AppendPointer(nil, PointerRecord{7, 3, []format.Record{{Addr: 9, Size: 4096, Birth: 2, Owner: 7}}}))
	f.Add(AppendRange(nil, RangeRecord{7, 0, 1 << 40}))
	f.Add(AppendBatch(nil, testBatch))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkParse(t, b, ParseWrite, AppendWrite)
		checkParse(t, b, ParsePointer, AppendPointer)
		checkParse(t, b, ParseRange, AppendRange)
		checkParse(t, b, ParseBatch, AppendBatch)
	})
}

// testBatch has one of each part of a batch.
var testBatch = BatchRecord{
	Volume:   7,
	Items:    []Item{{Key: []byte{0x80, 1}, Value: []byte("inode")}, {Key: []byte{0x81}, Value: []byte{}}, {Key: []byte{0x82}, Deleted: true}},
	Parts:    []Part{{Number: 1 << 62, Within: 5, Data: []byte("data")}, {Number: 3, Within: 9, Zeros: 1 << 17}},
	Pointers: []PointerRecord{{Volume: 7, Number: 3, Records: []format.Record{{Addr: 9, Size: 4096, Codec: format.LZ4, Birth: 2, Owner: 7, Sum: 5}}}},
	Holes:    []Hole{{4, 1 << 32}},
}

func TestPayloadsComeBackAsTheyWere(t *testing.T) {
	if got, err := ParseBatch(AppendBatch(nil, testBatch)); err != nil || !reflect.DeepEqual(got, testBatch) {
		t.Errorf("%+v, %v", got, err)
	}
	w := WriteRecord{7, 1<<64 - 5, []byte("data")}
	if got, err := ParseWrite(AppendWrite(nil, w)); err != nil || !reflect.DeepEqual(got, w) {
		t.Errorf("%+v, %v", got, err)
	}
	p := PointerRecord{1 << 50, 3, []format.Record{{Addr: 9, Size: 4096, Birth: 2, Owner: 7, Sum: 5}, {Addr: 77, Size: 4096, Birth: 2, Owner: 8}}}
	if got, err := ParsePointer(AppendPointer(nil, p)); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
	r := RangeRecord{7, 1 << 40, 1 << 50}
	if got, err := ParseRange(AppendRange(nil, r)); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseRange(AppendRange(nil, RangeRecord{1, 1 << 63, 1 << 63})); !errors.Is(err, format.ErrDamaged) {
		t.Errorf("a range past the end of numbers: %v", err)
	}
}
