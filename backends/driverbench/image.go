package driverbench

import (
	"archive/tar"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Sizes say how much work is done.
type Sizes struct {
	Big        int64 `json:"big"`        // bytes of the file of which one byte is changed
	Shared     int64 `json:"shared"`     // bytes of the file that all containers read
	Sequential int64 `json:"sequential"` // bytes that are written and read
	Small      int   `json:"small"`      // files of 4 KiB that the image has, and that are made
	Depth      int   `json:"depth"`      // layers of the deep image
	Containers int   `json:"containers"` // of one image at once
	Random     int   `json:"random"`     // writes of 4 KiB, each with fsync
}

// FullSizes are what the comparison is made with.
var FullSizes = Sizes{Big: 1 << 30, Shared: 32 << 20, Sequential: 256 << 20, Small: 2000, Depth: 128, Containers: 50, Random: 300}

// QuickSizes show that everything works.
var QuickSizes = Sizes{Big: 16 << 20, Shared: 4 << 20, Sequential: 8 << 20, Small: 100, Depth: 8, Containers: 3, Random: 10}

// Names in the image.
const (
	bigFile    = "data/big"
	sharedFile = "usr/lib/shared"
	smallDir   = "usr/share/small"
)

func smallFile(i int) string { return fmt.Sprintf("%s/%02d/%d", smallDir, i%64, i) }

// A writer makes an archive whose bytes no compression shortens.
type writer struct {
	*tar.Writer
	random *rand.ChaCha8
}

func newWriter(w io.Writer) writer {
	return writer{tar.NewWriter(w), rand.NewChaCha8([32]byte{1})}
}

// when is the time of all files, so that every archive is the same.
var when = time.Unix(1700000000, 0)

func (w writer) dir(name string) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o777, ModTime: when})
}

func (w writer) file(name string, size int64) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o666, Size: size, ModTime: when}); err != nil {
		return err
	}
	_, err := io.CopyN(w, w.random, size)
	return err
}

// writeImage writes the layer that the image consists of.
func writeImage(out io.Writer, s *Sizes) error {
	w := newWriter(out)
	for _, d := range []string{"data", "tmp", "usr", "usr/lib", "usr/share", smallDir} {
		if err := w.dir(d); err != nil {
			return err
		}
	}
	for i := range min(64, s.Small) {
		if err := w.dir(fmt.Sprintf("%s/%02d", smallDir, i)); err != nil {
			return err
		}
	}
	for i := range s.Small {
		if err := w.file(smallFile(i), 4096); err != nil {
			return err
		}
	}
	if err := w.file(sharedFile, s.Shared); err != nil {
		return err
	}
	if err := w.file(bigFile, s.Big); err != nil {
		return err
	}
	return w.Close()
}

// writeStep writes layer n of the deep image: a file of its own, and another version of
// one that all have.
func writeStep(out io.Writer, n int) error {
	w := newWriter(out)
	for _, d := range []string{"steps", fmt.Sprintf("steps/%d", n)} {
		if err := w.dir(d); err != nil {
			return err
		}
	}
	for _, f := range []string{fmt.Sprintf("steps/%d/own", n), "steps/latest"} {
		if err := w.file(f, 512); err != nil {
			return err
		}
	}
	return w.Close()
}
