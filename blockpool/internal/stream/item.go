package stream

import (
	"errors"
	"fmt"
)

// FeatureDataset is in the header of a stream of a dataset: its records are those of
// objects, which may have numbers up to 2⁶³ and end early, and there are Items.
const FeatureDataset = "dataset"

// MaxItemValue is how long the value of an item is at most, in bytes.
const MaxItemValue = 1024

// Item sends that the item at a key, 1 to [MaxKey] bytes, has a value, up to
// [MaxItemValue], or is not there if that is nil. Items ascend by key, and no record
// comes behind one.
func (w *Writer) Item(key string, value []byte) error {
	b := w.begin(Item)
	if value == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
	}
	b = append(append(b, byte(len(key))), key...)
	return w.add(Frame{Kind: Item, Key: key, Value: value}, b, value)
}

// parseItem is the inverse of Item.
func parseItem(b []byte) (Frame, error) {
	f := Frame{Kind: Item}
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return f, errors.New("the key is cut off")
	}
	there, rest := b[0], b[2+b[1]:]
	f.Key = string(b[2 : 2+b[1]])
	switch {
	case there > 1:
		return f, fmt.Errorf("%d is neither a value nor none", there)
	case there == 1:
		f.Value = rest[:len(rest):len(rest)]
	case len(rest) > 0:
		return f, fmt.Errorf("%d bytes too many", len(rest))
	}
	return f, nil
}

// takeItem judges an item by what came before it.
func (p *progress) takeItem(f Frame) error {
	switch {
	case !p.h.Dataset():
		return errors.New("an item of what is no dataset")
	case f.Key == "" || len(f.Key) > MaxKey || len(f.Value) > MaxItemValue:
		return fmt.Errorf("a key of %d bytes and a value of %d", len(f.Key), len(f.Value))
	case f.Key <= p.item:
		return fmt.Errorf("item %x comes behind %x", f.Key, p.item)
	case f.Key[0] < 0x80:
		return fmt.Errorf("item %x has the key of a record", f.Key)
	}
	p.item, p.next = f.Key, p.h.Records()
	return nil
}
