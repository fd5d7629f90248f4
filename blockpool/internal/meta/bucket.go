package meta

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// A Bucket is one of the tables of a pool's metadata. Its number is part of
// every seal, so numbers are never given to another bucket.
type Bucket uint8

// The buckets. A new one is a constant here and a name in bucketNames; files
// without it show it empty.
const (
	Config  Bucket = iota + 1 // the pool: features, settings
	Txg                       // the transaction group, written by Commit alone
	Nodes                     // B+tree nodes by id
	NodeMap                   // counts of references to nodes
	Chunks                    // chunks by base address
	Space                     // counts of references to sectors
	Devices                   // devices by guid
	Volumes                   // volumes by id
	Dead                      // what deleted volumes leave to be freed
	Events                    // what happened, by number
	Props                     // properties that users set
	endOfBuckets
)

var bucketNames = [...]string{
	Config: "config", Txg: "txg", Nodes: "nodes", NodeMap: "nodemap", Chunks: "chunks", Space: "space",
	Devices: "devices", Volumes: "volumes", Dead: "dead", Events: "events", Props: "props",
}

func (b Bucket) String() string {
	if b.valid() {
		return bucketNames[b]
	}
	return fmt.Sprintf("bucket(%d)", uint8(b))
}

func (b Bucket) valid() bool { return b > 0 && b < endOfBuckets }

// name returns what bbolt calls the bucket.
func (b Bucket) name() []byte { return []byte(bucketNames[b]) }

var bucketByName = func() map[string]Bucket {
	m := make(map[string]Bucket)
	for _, b := range Buckets() {
		m[b.String()] = b
	}
	return m
}()

// Buckets returns all buckets, in the order of their numbers.
func Buckets() []Bucket {
	var all []Bucket
	for b := Bucket(1); b < endOfBuckets; b++ {
		all = append(all, b)
	}
	return all
}

// MaxKey and MaxValue bound what a [Batch] takes, in bytes.
const (
	MaxKey   = 1024
	MaxValue = 1 << 20
)

// A Batch collects the changes of one transaction group. A later change of a
// key replaces an earlier one. The zero value is empty and ready; a batch is
// used by one goroutine at a time.
type Batch struct {
	ops   map[opKey][]byte // the value behind room for its seal; nil deletes
	bytes int
	err   error // the first change that no store could take
}

type opKey struct {
	bucket Bucket
	key    string
}

// An op is one change as it is committed: the sealed value, or nil to delete.
type op struct {
	opKey
	sealed []byte
}

// Put sets a key. Key and value are copied. What is out of bounds is reported
// by [Store.Commit], which then changes nothing.
func (b *Batch) Put(bucket Bucket, key, value []byte) {
	room := make([]byte, sealSize+len(value))
	copy(room[sealSize:], value)
	b.set(bucket, key, room)
}

// Delete removes a key, if it is there.
func (b *Batch) Delete(bucket Bucket, key []byte) { b.set(bucket, key, nil) }

func (b *Batch) set(bucket Bucket, key, room []byte) {
	if err := checkOp(bucket, key, room); err != nil && b.err == nil {
		b.err = err
	}
	if b.ops == nil {
		b.ops = make(map[opKey][]byte)
	}
	k := opKey{bucket, string(key)}
	if old, ok := b.ops[k]; ok {
		b.bytes -= len(key) + len(old)
	}
	b.ops[k] = room
	b.bytes += len(key) + len(room)
}

func checkOp(bucket Bucket, key, room []byte) error {
	switch {
	case !bucket.valid():
		return fmt.Errorf("meta: %v does not exist", bucket)
	case bucket == Txg:
		return fmt.Errorf("meta: key %x: bucket %v is written by Commit alone", key, bucket)
	case len(key) == 0 || len(key) > MaxKey:
		return fmt.Errorf("meta: %v: a key of %d bytes, not of 1 to %d", bucket, len(key), MaxKey)
	case len(room) > sealSize+MaxValue:
		return fmt.Errorf("meta: %v, key %x: a value of %d bytes, more than %d", bucket, key, len(room)-sealSize, MaxValue)
	}
	return nil
}

// Len returns the number of keys that the batch changes.
func (b *Batch) Len() int { return len(b.ops) }

// Bytes returns the size of what the batch stores and of the keys it deletes.
func (b *Batch) Bytes() int { return b.bytes }

// sealed returns the changes in the order of the file, which is the order that
// costs bbolt least, and seals the values in place.
func (b *Batch) sealed(guid GUID, txg uint64) []op {
	ops := make([]op, 0, len(b.ops))
	for k, room := range b.ops {
		if room != nil {
			seal(room, guid, k.bucket, txg, []byte(k.key))
		}
		ops = append(ops, op{k, room})
	}
	slices.SortFunc(ops, func(x, y op) int {
		return cmp.Or(bytes.Compare(x.bucket.name(), y.bucket.name()), cmp.Compare(x.key, y.key))
	})
	return ops
}
