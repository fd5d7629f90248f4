package main

import "github.com/laminafs/lamina/blockpool"

// A byteSize is a number of bytes on the command line, as [blockpool.ParseSize] reads
// it: 4096, 64K, 1.5T.
type byteSize int64

// Set reads a size.
func (s *byteSize) Set(text string) error {
	n, err := blockpool.ParseSize(text)
	if err == nil {
		*s = byteSize(n)
	}
	return err
}

// String writes it so that Set reads the same number.
func (s *byteSize) String() string { return blockpool.FormatSize(int64(*s)) }

// Type names the value in help texts.
func (s *byteSize) Type() string { return "SIZE" }
