package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A byteSize is a number of bytes on the command line: 4096, 64K, 1.5T, in powers
// of 1024, as zfs and lvm read them.
type byteSize int64

const sizeUnits = "KMGTPE"

// Set reads a size.
func (s *byteSize) Set(text string) error {
	number := strings.ToUpper(strings.TrimSpace(text))
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	factor := 1.0
	if n := len(number); n > 0 {
		if i := strings.IndexByte(sizeUnits, number[n-1]); i >= 0 {
			number, factor = number[:n-1], math.Pow(1024, float64(i+1))
		}
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil && factor == 1 {
		*s = byteSize(whole)
		return s.check(text)
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) || strings.ContainsAny(number, "EXP_") || f*factor >= math.MaxInt64 {
		return fmt.Errorf("%q is no size; accepted: bytes, or a number with K, M, G, T or P, such as 10G", text)
	}
	*s = byteSize(f * factor)
	return s.check(text)
}

func (s *byteSize) check(text string) error {
	if *s < 0 {
		return fmt.Errorf("size %s is negative", text)
	}
	return nil
}

// String writes it so that Set reads the same number.
func (s *byteSize) String() string {
	n, unit := int64(*s), ""
	for i := 0; n != 0 && n%1024 == 0 && i < len(sizeUnits); i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return strconv.FormatInt(n, 10) + unit
}

// Type names the value in help texts.
func (s *byteSize) Type() string { return "SIZE" }
