package blockpool

// The layout of the trees of datasets. A dataset is a tree that has items beside
// records, in one order of keys:
//
//	0x00 … 0x7f   records: object (31 bits), number within the object (32 bits)
//	0x80          items that are counted, one for each object ([Tree.Objects])
//	0x81 … 0xff   other items
//
// What the items mean is said in package dataset.
const (
	// ItemCounted begins the keys of items that are counted.
	ItemCounted = 0x80
	// MaxObject is the highest number of an object; 0 is none.
	MaxObject = 1<<31 - 1
	// MaxItemKey and MaxItemValue are the most bytes that an item's key and value
	// have.
	MaxItemKey   = 255
	MaxItemValue = 1024

	// objectShift is how many bits number the records of an object.
	objectShift = 32
)

// A Batch is what becomes of a dataset in one step: all of it or, when it fails or
// the machine crashes, nothing. The zero value changes nothing. Its parts must not
// contradict each other: no key is there twice, and no record of an object is changed
// by two of its writes and ranges.
type Batch struct {
	Items  []ItemChange
	Writes []ObjectWrite
	Zeros  []ObjectRange
	// Frees tells that the batch is for freeing something, sooner or later: then it
	// may take what the pool keeps for that when it is full, and no limit is asked.
	Frees bool
}

// An ItemChange gives an item a value, or removes it.
type ItemChange struct {
	Key   []byte
	Value []byte // nil: there is no such item any more
}

// An ObjectWrite is content of an object.
type ObjectWrite struct {
	Object uint64
	Offset int64 // in bytes
	Data   []byte
}

// An ObjectRange is Length bytes of an object from Offset on, which read as zeros.
// Records that lie wholly in it are given back to the pool. A length of [ToEnd]
// reaches to the end of what the object can have.
type ObjectRange struct {
	Object uint64
	Offset int64
	Length int64
}

// ToEnd is the length of a range that has no end.
const ToEnd = -1

// Put gives the item at key a value. Both belong to the batch from then on.
func (b *Batch) Put(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	b.Items = append(b.Items, ItemChange{Key: key, Value: value})
}

// Delete removes the item at key, if there is one.
func (b *Batch) Delete(key []byte) {
	b.Items = append(b.Items, ItemChange{Key: key})
}

// Write stores data at off of an object. Data is read until [Tree.Apply] returns.
func (b *Batch) Write(object uint64, off int64, data []byte) {
	b.Writes = append(b.Writes, ObjectWrite{Object: object, Offset: off, Data: data})
}

// Zero makes n bytes from off of an object zeros.
func (b *Batch) Zero(object uint64, off, n int64) {
	b.Zeros = append(b.Zeros, ObjectRange{Object: object, Offset: off, Length: n})
}

// Empty reports whether the batch changes nothing.
func (b *Batch) Empty() bool { return len(b.Items)+len(b.Writes)+len(b.Zeros) == 0 }
