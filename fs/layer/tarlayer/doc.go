// Package tarlayer shows a tar archive as a layer, without unpacking it.
//
//	archive ── decompress ── tar headers ──> index in memory ──> layer.Dir
//	   │                                       name → node, offset of data
//	   └── on the first read of a file's data ──> where it is, or for a
//	       compressed archive a temporary file without a name
//
// # Hostile archives
//
// What is in an archive, strangers chose. An entry that makes no sense (a path
// with "..", a name that no directory can hold, something below a file, a hard
// link to nothing) is left out, and [FS.Problems] tells; absolute names count from
// the root of the layer, as every unpacker takes them. [Limits] bound entries,
// memory and how much may come out of a compressed archive; past one of them
// Open fails with [ErrTooLarge], and no limit depends on what the archive says of
// itself.
//
// # Marks
//
// Files named .wh.* are files here; who reads the layer knows what they mean.
// In the layers of images overlay's xattrs have no meaning, since unpacking
// one does not give it any: with [Options.Image] they are stored as those of an
// inner overlay, which union and inspect show by their own name and do not obey.
//
// An FS is safe for use by several goroutines once it is open.
package tarlayer

import "errors"

// ErrTooLarge tells that an archive holds, or unpacks to, more than [Limits]
// allow.
var ErrTooLarge = errors.New("archive exceeds a limit")

// ErrCorrupt tells that an archive is damaged, or none.
var ErrCorrupt = errors.New("archive is damaged")

// Limits bound what an archive may cost. Zero fields take the default.
type Limits struct {
	// Entries is the number of entries, 4 million.
	Entries int
	// IndexBytes bounds names, link targets and xattrs together, 1 GiB.
	IndexBytes int64
	// Bytes is what a compressed archive may unpack to, 1 TiB.
	Bytes int64
	// Ratio is how many times larger than the packed bytes the unpacked ones may
	// be, once there is 1 GiB of them: 2,000. No gzip stream comes near.
	Ratio int64
}

func (l *Limits) fill() {
	if l.Entries == 0 {
		l.Entries = 4 << 20
	}
	if l.IndexBytes == 0 {
		l.IndexBytes = 1 << 30
	}
	if l.Bytes == 0 {
		l.Bytes = 1 << 40
	}
	if l.Ratio == 0 {
		l.Ratio = 2000
	}
}

// Options say how an archive is read.
type Options struct {
	Limits
	// Image tells that the archive is a layer of an image.
	Image bool
	// TempDir takes the unpacked bytes of a compressed archive; empty: the
	// system's.
	TempDir string
	// Progress is called now and then with the bytes of the archive that have
	// been read.
	Progress func(done, total int64)
}
