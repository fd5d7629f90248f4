package dataset

import "context"

// GiveOutNext chooses the number of the object that is made next.
func (fs *FS) GiveOutNext(object uint64) { fs.main.next = object }

// FormatWeak makes a filesystem whose hash has few bits, so that names collide.
func FormatWeak(tree Tree, bits uint64) error {
	return formatWith(context.Background(), tree, Root{Mode: 0o755}, superblock{bits: bits})
}
