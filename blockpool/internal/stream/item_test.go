package stream

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

func datasetHeader() Header {
	return Header{Pool: ID{1}, Volume: ID{2}, To: ID{3}, Name: "home@a", RecordSize: 8192, Features: []string{FeatureDataset}}
}

func datasetStream(t testing.TB, zip int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, datasetHeader(), Options{Compression: zip})
	if err == nil {
		err = errors.Join(
			w.Write(7<<32, format.Plain, []byte("ends early")), w.Checkpoint(7<<32+1), w.Hole(9<<32, 1<<32),
			w.Item("\x80a", []byte("value")), w.Item("\x80b", []byte{}), w.Item("\x81", nil), w.Close(),
		)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestItemsComeAsTheyWereSent(t *testing.T) {
	for _, zip := range []int{0, 1} {
		r, err := NewReader(bytes.NewReader(datasetStream(t, zip)), FeatureDataset)
		if err != nil {
			t.Fatal(err)
		}
		var items []Frame
		for {
			f, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind == Item {
				f.Value = append(f.Value[:0:0], f.Value...)
				items = append(items, f)
			}
		}
		if len(items) != 3 || items[0].Key != "\x80a" || string(items[0].Value) != "value" || items[2].Key != "\x81" {
			t.Errorf("%+v", items)
		}
	}
	f, err := parseItem([]byte("\x01\x01\x80"))
	if err != nil || f.Value == nil {
		t.Errorf("a value of no bytes became none: %+v (%v)", f, err)
	}
	if f, err := parseItem([]byte("\x00\x01\x80")); err != nil || f.Value != nil {
		t.Errorf("none became a value: %+v (%v)", f, err)
	}
}

// A receiver could not go on after a cut if items and records were mixed.
func TestItemsThatCannotBe(t *testing.T) {
	long := string(make([]byte, MaxKey))
	for name, send := range map[string]func(*Writer) error{
		"a record behind an item":  func(w *Writer) error { return errors.Join(w.Item("\x80", nil), w.Write(1, format.Plain, []byte("x"))) },
		"a hole behind an item":    func(w *Writer) error { return errors.Join(w.Item("\x80", nil), w.Hole(1, 1)) },
		"the same item twice":      func(w *Writer) error { return errors.Join(w.Item("\x80", nil), w.Item("\x80", nil)) },
		"items out of order":       func(w *Writer) error { return errors.Join(w.Item("\x81", nil), w.Item("\x80", nil)) },
		"no key":                   func(w *Writer) error { return w.Item("", nil) },
		"the key of a record":      func(w *Writer) error { return w.Item("\x7f", nil) },
		"a key that is too long":   func(w *Writer) error { return w.Item("\x80"+long, nil) },
		"a value that is too long": func(w *Writer) error { return w.Item("\x80", make([]byte, MaxItemValue+1)) },
	} {
		w, err := NewWriter(io.Discard, datasetHeader(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if send(w) == nil {
			t.Errorf("%s was sent", name)
		}
	}
	h := datasetHeader()
	h.Features, h.Size = nil, 1<<20
	w, err := NewWriter(io.Discard, h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w.Item("\x80", nil) == nil {
		t.Error("a volume had an item")
	}
	for _, b := range []string{"", "\x01", "\x01\x05\x80", "\x02\x01\x80", "\x00\x01\x80x"} {
		if f, err := parseItem([]byte(b)); err == nil {
			t.Errorf("%q is %+v", b, f)
		}
	}
}
