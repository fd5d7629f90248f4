package format

import (
	"errors"
	"fmt"
	"testing"
)

func TestFieldsComeBack(t *testing.T) {
	f := NewFields(3)
	f.Uint(1, 77)
	f.Uint(2, 0)
	f.String(3, "pool")
	f.Bytes(4, []byte{1})
	f.Bytes(4, nil)
	var got []string
	err := ParseFields(f, 3, func(f Field) error {
		var n uint64
		switch f.Tag {
		case 1:
			if err := f.Uint(&n); err != nil {
				return err
			}
			got = append(got, fmt.Sprint(n))
		default:
			got = append(got, fmt.Sprintf("%d=%q", f.Tag, f.Bytes()))
		}
		return nil
	})
	want := `[77 3="pool" 4="\x01" 4=""]`
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
	if err := ParseFields(f, 4, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("another version: %v", err)
	}
}

func FuzzParseFields(f *testing.F) {
	f.Add([]byte{1, 2, 1, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		err := ParseFields(b, 1, func(f Field) error {
			var n int64
			if f.Tag == 2 {
				return f.Int(&n)
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("%v does not say that the bytes are damaged", err)
		}
	})
}
