package stream

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew; only for a new version of the format")

// TestStreamsOfVersion1StayReadable reads streams that were written when the
// format was made. What zstd makes of the same bytes may change with its
// version, so only the plain one is compared when writing.
func TestStreamsOfVersion1StayReadable(t *testing.T) {
	want := append([]Frame{{Kind: Write, Record: 0, Data: data(0, 4096)}}, smallFrames...)
	for name, level := range map[string]int{"plain": 0, "zstd": 2} {
		now := send(t, testHeader, Options{Compression: level}, want)
		path := "testdata/v1-" + name + ".stream"
		if *update {
			if err := os.WriteFile(path, now, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h, frames, err := receive(bytes.NewReader(b))
		h.Features = nil
		if err != nil || !reflect.DeepEqual(h, testHeader) || !reflect.DeepEqual(plain(frames), want) {
			t.Errorf("%s: %+v %+v, %v", path, h, frames, err)
		}
		if name == "plain" && !bytes.Equal(b, now) {
			t.Errorf("%s: the same stream is written differently now", path)
		}
	}
}

func TestStreamsOfVersion2StayReadable(t *testing.T) {
	const path = "testdata/v2-plain.stream"
	now := send(t, setHeader, Options{}, setFrames)
	if *update {
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, frames, err := receive(bytes.NewReader(b))
	if err != nil || !reflect.DeepEqual(h, setHeader) || !reflect.DeepEqual(plain(frames), setFrames) {
		t.Errorf("%+v %+v, %v", h, frames, err)
	}
	if !bytes.Equal(b, now) {
		t.Error("the same stream is written differently now")
	}
}

// A token may lie in somebody's notes for longer than a program is installed.
func TestTokensOfVersion1StayReadable(t *testing.T) {
	const text = "lam1.ESIAAAAAAAAAAAAAAAAAiAUAAAAAAAAAAAAAAAAAAAAHAAAAAAAAAAAAAAAAAAAACQAAAAAAAAAAAAAAAAAAAGSAAgAAAAAADAAAAAAAAAAAEAAAdEzL7w"
	if token, err := ParseToken(text); err != nil || token != testHeader.Token(12) {
		t.Errorf("%+v, %v", token, err)
	}
}
