package blockpool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/stream"
)

// sendDataset writes the records and items of a dataset, or those that differ, in
// the order of their keys.
func (s *sender) sendDataset(ctx context.Context, x *stream.Writer, h stream.Header) error {
	if s.from == nil {
		s.done.End = recordsIn(s.to.entry.Load().referenced, int64(h.RecordSize))
	}
	last, sent := int64(0), int64(0) // bytes, items included, at the last checkpoint and now
	for next := firstAt(h.Resume); ; {
		list, rest, err := s.p.treeChanges(s.from, s.to, next, maxRun/int(h.RecordSize)+itemRun)
		if err != nil {
			return err
		}
		n, err := s.treeChanges(x, list)
		if err != nil {
			return err
		}
		sent += n
		if rest == nil {
			s.tell(s.done.End)
			return x.Close()
		}
		// Items can be sent again, but none may be left out: only where the position
		// changes is everything before it sent.
		at := stream.Position(rest)
		if before := stream.Position(list[len(list)-1].key); sent-last >= checkpointBytes && at > before {
			if err := x.Checkpoint(at); err != nil {
				return err
			}
			last = sent
		}
		next = rest
		s.tell(uint64(s.done.Bytes / int64(h.RecordSize)))
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// firstAt returns the lowest key of a position.
func firstAt(position uint64) []byte {
	return bytes.TrimRight(binary.BigEndian.AppendUint64(nil, position), "\x00")
}

// A treeChange is what a key of a dataset has from now on; nil is nothing.
type treeChange struct {
	key, value []byte
}

// treeChanges returns what is different in to, from a key on: at most that many
// keys, and the one to go on with, which is nil at the end. A from of nil is an empty
// dataset.
func (p *Pool) treeChanges(from, to *volume, next []byte, most int) (list []treeChange, rest []byte, err error) {
	x, y := p.pair(from, to)
	defer y.release()
	err = btree.DiffFrom(y.epoch, x.root, y.entry.root, next, func(key, _, now []byte) error {
		if len(list) == most {
			rest = bytes.Clone(key)
			return errEnough
		}
		list = append(list, treeChange{bytes.Clone(key), bytes.Clone(now)})
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, rest, err
}

// treeChanges sends what became of some keys, and returns how many bytes these are.
func (s *sender) treeChanges(x *stream.Writer, list []treeChange) (sent int64, err error) {
	var row []format.Record
	var items []stream.Item
	first, size := uint64(0), s.to.entry.Load().recordSize
	for i := 0; i < len(list) && !isItem(list[i].key); {
		n, err := parseKey64(list[i].key)
		if err != nil {
			return sent, err
		}
		if list[i].value == nil {
			end := i + 1
			for end < len(list) && list[end].value == nil && bytes.Equal(list[end].key, recordKey(n+uint64(end-i))) && !isItem(list[end].key) {
				end++
			}
			s.done.Holes += uint64(end - i)
			if err := x.Hole(n, uint64(end-i)); err != nil {
				return sent, err
			}
			i = end
			continue
		}
		first, row = n, row[:0]
		for i < len(list) && list[i].value != nil && bytes.Equal(list[i].key, recordKey(first+uint64(len(row)))) && int64(len(row)+1)*size <= maxRun {
			rec, err := format.ParseRecord(list[i].value)
			if err != nil {
				return sent, fmt.Errorf("record %d: %w", first+uint64(len(row)), err)
			}
			if len(row) > 0 && !s.p.follows(row[len(row)-1], rec, size) {
				break
			}
			row = append(row, rec)
			i++
		}
		if err := s.row(x, first, row, size); err != nil {
			return sent, err
		}
		for _, rec := range row {
			sent += int64(rec.Size)
		}
	}
	for _, c := range list {
		if isItem(c.key) {
			items = append(items, stream.Item{Key: c.key, Value: c.value, Deleted: c.value == nil})
			sent += int64(len(c.key) + len(c.value))
		}
	}
	return sent, s.items(x, items)
}

// row sends records that lie in a row, or one by itself, as it is stored.
func (s *sender) row(x *stream.Writer, first uint64, row []format.Record, size int64) error {
	b := s.buf[:int64(len(row))*size]
	var err error
	if len(row) == 1 {
		b = b[:row[0].Size]
		err = s.p.readAsStored(row[0], b)
	} else {
		err = s.p.readRow(row, b, size)
	}
	if err != nil {
		return fmt.Errorf("records %d to %d of object %d: %w", first&(1<<objectShift-1), first&(1<<objectShift-1)+uint64(len(row)-1), first>>objectShift, err)
	}
	for i, rec := range row {
		if err := x.Write(first+uint64(i), rec.Codec, b[:rec.Size]); err != nil {
			return err
		}
		b = b[rec.Size:]
		s.done.Records++
		s.done.Bytes += int64(rec.Size)
	}
	return nil
}

// itemsBytes is how many bytes of items are sent in one frame, or few more.
const itemsBytes = 64 << 10

func (s *sender) items(x *stream.Writer, items []stream.Item) error {
	for len(items) > 0 {
		n, bytes := 0, 0
		for n < len(items) && bytes < itemsBytes {
			bytes += len(items[n].Key) + len(items[n].Value)
			n++
		}
		if err := x.Items(items[:n]); err != nil {
			return err
		}
		s.done.Items += uint64(n)
		items = items[n:]
	}
	return nil
}

// readAsStored fills b with what is stored of a record, packed if it is.
func (p *Pool) readAsStored(rec format.Record, b []byte) error {
	c, err := p.space.chunk(rec.Addr)
	if err != nil {
		return err
	}
	return p.array.Read(&c.Chunk, rec.Addr, b, fits(rec))
}
