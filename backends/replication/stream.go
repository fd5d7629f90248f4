package replication

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Magic is how a replication stream begins.
const Magic = "lamina-replica\x00\x01"

// MaxPart is the length of the longest part, in bytes.
const MaxPart = 1 << 20

// ErrDamaged is the cause when bytes are no whole replication stream.
var ErrDamaged = errors.New("the replication stream is damaged or was cut off")

// A Header says where a stream comes from.
type Header struct {
	Top string `json:"top"` // name of the topmost dataset, without the pool's
}

// An Entry says which snapshot the next stream brings. Names of datasets are those
// below the topmost, which is "".
type Entry struct {
	Dataset  string `json:"dataset"`
	Snapshot string `json:"snapshot"` // without the dataset's name
	GUID     string `json:"guid"`
	From     string `json:"from,omitempty"`   // snapshot of the dataset that the stream begins with
	Origin   string `json:"origin,omitempty"` // DATASET@SNAPSHOT that it begins with instead: the dataset is a clone
	// Properties are those that were set on the dataset; nil but in the first entry of
	// each, and where they are not sent.
	Properties map[string]string `json:"properties,omitempty"`
}

// part is what stands in the place of an entry.
type part struct {
	*Entry
	End *end `json:"end,omitempty"`
}

type end struct {
	Streams int `json:"streams"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Writer writes a replication stream.
type Writer struct {
	w       io.Writer
	streams int
}

// NewWriter begins one.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	x := &Writer{w: w}
	if _, err := io.WriteString(w, Magic); err != nil {
		return nil, err
	}
	return x, x.object(h)
}

func (x *Writer) object(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > MaxPart {
		return fmt.Errorf("%.40s… is %d bytes long, more than a replication stream takes", text, len(text))
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(text)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(text, castagnoli))
	_, err = x.w.Write(append(b, text...))
	return err
}

// Stream writes an entry and what comes from r until its end. When r fails, the
// replication stream ends there and is not whole.
func (x *Writer) Stream(e Entry, r io.Reader) error {
	if err := x.object(part{Entry: &e}); err != nil {
		return err
	}
	buf := make([]byte, 4+256<<10)
	for {
		n, err := io.ReadFull(r, buf[4:])
		binary.LittleEndian.PutUint32(buf, uint32(n))
		if n > 0 {
			if _, err := x.w.Write(buf[:4+n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			x.streams++
			_, err := x.w.Write([]byte{0, 0, 0, 0})
			return err
		case err != nil:
			return err
		}
	}
}

// Close writes the end.
func (x *Writer) Close() error { return x.object(part{End: &end{x.streams}}) }

// A Reader reads a replication stream.
type Reader struct {
	Header Header

	r       *bufio.Reader
	streams int
	left    int  // of the chunk
	inside  bool // a stream has not come to its end
}

// NewReader reads the beginning of one, the magic included.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{r: bufio.NewReaderSize(r, 64<<10)}
	magic := make([]byte, len(Magic))
	if _, err := io.ReadFull(x.r, magic); err != nil || string(magic) != Magic {
		return nil, x.damaged("it does not begin as one", err)
	}
	return x, x.object(&x.Header)
}

func (x *Reader) damaged(what string, err error) error {
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read the replication stream: %w", err)
	}
	return fmt.Errorf("%w: after %d streams: %s", ErrDamaged, x.streams, what)
}

func (x *Reader) object(v any) error {
	var head [8]byte
	if _, err := io.ReadFull(x.r, head[:]); err != nil {
		return x.damaged("no entry, and no end", err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > MaxPart {
		return x.damaged(fmt.Sprintf("an entry of %d bytes", n), nil)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(x.r, text); err != nil {
		return x.damaged("half an entry", err)
	}
	if crc32.Checksum(text, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return x.damaged("the checksum of an entry is wrong", nil)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return x.damaged("an entry is not understood: "+err.Error(), nil)
	}
	return nil
}

// Next goes on to the next entry, past what is left of the stream before. It returns
// io.EOF behind the last one.
func (x *Reader) Next() (Entry, error) {
	if x.inside {
		if _, err := io.Copy(io.Discard, x); err != nil {
			return Entry{}, err
		}
	}
	var p part
	if err := x.object(&p); err != nil {
		return Entry{}, err
	}
	switch {
	case p.End != nil && p.End.Streams != x.streams:
		return Entry{}, x.damaged(fmt.Sprintf("there should have been %d", p.End.Streams), nil)
	case p.End != nil:
		return Entry{}, io.EOF
	case p.Entry == nil || p.Snapshot == "":
		return Entry{}, x.damaged("an entry without a snapshot", nil)
	}
	x.inside = true
	return *p.Entry, nil
}

// Read reads the stream of the entry.
func (x *Reader) Read(p []byte) (int, error) {
	if !x.inside {
		return 0, io.EOF
	}
	if x.left == 0 {
		var head [4]byte
		if _, err := io.ReadFull(x.r, head[:]); err != nil {
			return 0, x.damaged("half a stream", err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		switch {
		case n > MaxPart:
			return 0, x.damaged(fmt.Sprintf("a chunk of %d bytes", n), nil)
		case n == 0:
			x.inside, x.streams = false, x.streams+1
			return 0, io.EOF
		}
		x.left = int(n)
	}
	n, err := x.r.Read(p[:min(len(p), x.left)])
	x.left -= n
	if err != nil {
		err = x.damaged("half a chunk", err)
	}
	return n, err
}
