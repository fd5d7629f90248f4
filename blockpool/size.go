package blockpool

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const sizeUnits = "KMGTPE"

// ParseSize reads a number of bytes as people write it: 4096, 64K, 1.5T, 10GiB, in
// powers of 1024, as zfs and lvm read them.
func ParseSize(text string) (int64, error) {
	number := strings.ToUpper(strings.TrimSpace(text))
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	factor := 1.0
	if n := len(number); n > 0 {
		if i := strings.IndexByte(sizeUnits, number[n-1]); i >= 0 {
			number, factor = number[:n-1], math.Pow(1024, float64(i+1))
		}
	}
	size, err := strconv.ParseInt(number, 10, 64)
	if err != nil || factor != 1 {
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(f) || strings.ContainsAny(number, "EXP_") || f*factor >= math.MaxInt64 {
			return 0, invalidf("%q is no size; accepted: bytes, or a number with K, M, G, T or P, such as 10G", text)
		}
		size = int64(f * factor)
	}
	if size < 0 {
		return 0, invalidf("size %s is negative", text)
	}
	return size, nil
}

// FormatSize writes a size so that [ParseSize] reads the same number.
func FormatSize(n int64) string {
	unit := ""
	for i := 0; n != 0 && n%1024 == 0 && i < len(sizeUnits); i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return fmt.Sprintf("%d%s", n, unit)
}
