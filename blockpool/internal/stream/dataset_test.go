package stream

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

func TestWhatIsSentOfADatasetIsReceived(t *testing.T) {
	for level := range 3 {
		b := send(t, setHeader, Options{Compression: level}, setFrames)
		h, frames, err := receive(bytes.NewReader(b))
		h.Features = nil
		if err != nil || !reflect.DeepEqual(h, setHeader) || !reflect.DeepEqual(plain(frames), setFrames) {
			t.Errorf("level %d: %+v %+v, %v", level, h, frames, err)
		}
		if end := frames[len(frames)-1].Totals; end.Items != 4 || end.Writes != 2 {
			t.Errorf("level %d: %+v", level, end)
		}
	}
}

// Who knows volumes alone must not take a dataset's records for a volume's.
func TestAStreamOfADatasetIsOfAVersionOfItsOwn(t *testing.T) {
	if b := send(t, setHeader, Options{}, setFrames); b[8] != 2 {
		t.Errorf("a dataset is sent in version %d", b[8])
	}
	b := send(t, testHeader, Options{}, nil)
	if b[8] != 1 {
		t.Errorf("a volume is sent in version %d", b[8])
	}
	b[8] = 3
	if _, err := NewReader(bytes.NewReader(b)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("version 3: %v", err)
	}
}

func TestFramesThatCannotBeOfADatasetAreRefused(t *testing.T) {
	item := func(key ...byte) Frame {
		return Frame{Kind: Items, Items: []Item{{Key: key, Value: []byte("x")}}}
	}
	for name, c := range map[string]struct {
		h      Header
		frames []Frame
	}{
		"items of a volume":         {testHeader, []Frame{item(0x80)}},
		"no items":                  {setHeader, []Frame{{Kind: Items}}},
		"no key":                    {setHeader, []Frame{item()}},
		"the key of a record":       {setHeader, []Frame{item(0x7f, 1)}},
		"a long key":                {setHeader, []Frame{item(bytes.Repeat([]byte{0x80}, MaxItemKey+1)...)}},
		"a long value":              {setHeader, []Frame{{Kind: Items, Items: []Item{{Key: []byte{0x80}, Value: make([]byte, MaxItemValue+1)}}}}},
		"an item twice":             {setHeader, []Frame{item(0x80, 1), item(0x80, 1)}},
		"items out of order":        {setHeader, []Frame{item(0x80, 1), item(0x80)}},
		"a record behind an item":   {setHeader, []Frame{item(0x80), {Kind: Write, Record: 1 << 32, Data: data(1, 100)}}},
		"an item before a cursor":   {setHeader, []Frame{{Kind: Checkpoint, Cursor: 0x90 << 56}, item(0x80)}},
		"a hole among items":        {setHeader, []Frame{{Kind: Hole, Record: 1<<63 - 1, Count: 2}}},
		"a record that is too long": {setHeader, []Frame{{Kind: Write, Record: 1 << 32, Codec: format.Zstd, Data: data(1, 5000)}}},
	} {
		w, err := NewWriter(io.Discard, c.h, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range c.frames {
			switch f.Kind {
			case Items:
				err = errors.Join(err, w.Items(f.Items))
			case Write:
				err = errors.Join(err, w.Write(f.Record, f.Codec, f.Data))
			case Hole:
				err = errors.Join(err, w.Hole(f.Record, f.Count))
			case Checkpoint:
				err = errors.Join(err, w.Checkpoint(f.Cursor))
			}
		}
		if err == nil {
			t.Errorf("%s was written", name)
		}
		var frames []byte
		for _, f := range c.frames {
			var payload []byte
			for _, i := range f.Items {
				payload = appendItem(payload, i)
			}
			if f.Kind == Items {
				frames = append(frames, rawFrame(Items, 0, payload)...)
			}
		}
		if c.frames[0].Kind != Items || name == "a long key" {
			continue // it is not about items, or no frame can say it
		}
		if _, _, err := receive(bytes.NewReader(seal(c.h.pack(), append(frames, rawFrame(End, 0, []byte{0, 0, 0, 0, 1})...)))); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s was read: %v", name, err)
		}
	}
	h := setHeader
	h.Size = 4096
	if _, err := NewWriter(io.Discard, h, Options{}); err == nil {
		t.Error("a dataset with a size was sent")
	}
}

// FuzzItems takes the payload of a frame of items.
func FuzzItems(f *testing.F) {
	for _, frame := range setFrames {
		var payload []byte
		for _, i := range frame.Items {
			payload = appendItem(payload, i)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := parsePayload(Items, b)
		if err != nil {
			return
		}
		var again []byte
		for _, i := range frame.Items {
			again = appendItem(again, i)
		}
		other, err := parsePayload(Items, again)
		if err != nil || !reflect.DeepEqual(other, frame) {
			t.Fatalf("%+v became %+v, %v", frame, other, err)
		}
		receiveFuzzed(t, seal(setHeader.pack(), append(rawFrame(Items, 0, b), rawFrame(End, 0, []byte{0, 0, 0, 0, 2, byte(len(frame.Items)) & 0x7f})...)))
	})
}
