package dataset

import "context"

// FormatWeak makes a filesystem whose hash has few bits, so that names collide.
func FormatWeak(tree Tree, bits uint64) error {
	return formatWith(context.Background(), tree, Root{Mode: 0o755}, superblock{bits: bits})
}
