package dataset

import "context"

// In tests nodes lose their inodes as soon as another one of the shard is asked for.
func init() { KeepInodes(0) }

// KeyLink begins the keys of the further names of files.
const KeyLink = keyLink

// KeptInodes is how many inodes the nodes of a shard keep outside of tests.
var KeptInodes = maxLoaded

// KeepInodes chooses how many inodes the nodes of a shard keep.
func KeepInodes(n int) { maxLoaded = n }

// GiveOutNext chooses the number of the object that is made next.
func (fs *FS) GiveOutNext(object uint64) { fs.main.next = object }

// FormatWeak makes a filesystem whose hash has few bits, so that names collide.
func FormatWeak(tree Tree, bits uint64) error {
	return formatWith(context.Background(), tree, Root{Mode: 0o755}, superblock{bits: bits})
}
