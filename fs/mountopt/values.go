package mountopt

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// parseBool reads the value of a switch; a switch without one is on.
func parseBool(value string) (bool, error) {
	switch value {
	case "", "1", "on", "yes", "true":
		return true, nil
	case "0", "off", "no", "false":
		return false, nil
	}
	return false, errors.New("neither on nor off")
}

func parseToggle(value string) (Toggle, error) {
	on, err := parseBool(value)
	if err != nil {
		return Unset, err
	}
	return toggle(on), nil
}

func toggle(on bool) Toggle {
	if on {
		return On
	}
	return Off
}

// parseWord reads a value that must be one of words.
func parseWord[T ~string](value string, words ...T) (T, error) {
	if slices.Contains(words, T(value)) {
		return T(value), nil
	}
	return "", errors.New("no such value")
}

// parseID reads a uid or gid. The highest number is none: chown(2) reads it as
// "leave it".
func parseID(value string) (*uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return nil, errors.New("not an id")
	}
	id := uint32(n)
	return &id, nil
}

func parseUint32(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, errors.New("not a number")
	}
	return uint32(n), nil
}

// parseSeconds reads a span of time; libfuse takes fractions too.
func parseSeconds(value string) (*float64, error) {
	s, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(s) || math.IsInf(s, 0) || s < 0 {
		return nil, errors.New("not a number of seconds")
	}
	return &s, nil
}

// parseSize reads a number with one of the suffixes of tmpfs(5), powers of
// 1024. "G", "GB" and "GiB" are the same.
func parseSize(value string) (uint64, error) {
	digits := strings.TrimRight(value, "kKmMgGtTpPiBb")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, errors.New("not a size")
	}
	shift, ok := sizeShift(strings.ToLower(value[len(digits):]))
	if !ok {
		return 0, errors.New("not a size")
	}
	if bits.Len64(n)+shift > 63 {
		return 0, errors.New("larger than any filesystem")
	}
	return n << shift, nil
}

// sizeShift returns the power of two that a lower-case suffix stands for.
func sizeShift(suffix string) (int, bool) {
	if suffix == "" || suffix == "b" {
		return 0, true
	}
	shift := 10 * (1 + strings.IndexByte("kmgtp", suffix[0]))
	switch suffix[1:] {
	case "", "b", "ib":
		return shift, shift > 0
	}
	return 0, false
}

// parseIDMap reads "stored:shown:length" triples joined by colons. Empty
// fields at the ends are skipped: podman writes a leading colon.
func parseIDMap(value string) ([]IDMap, error) {
	value = strings.Trim(value, ":")
	if value == "" {
		return nil, errors.New("the mapping is missing")
	}
	fields := strings.Split(value, ":")
	if len(fields)%3 != 0 {
		return nil, fmt.Errorf("%d numbers do not make triples", len(fields))
	}
	var maps []IDMap
	for len(fields) > 0 {
		m, err := parseExtent(fields[:3])
		if err != nil {
			return nil, err
		}
		for _, other := range maps {
			if overlap(m.Stored, other.Stored, m.Length, other.Length) ||
				overlap(m.Shown, other.Shown, m.Length, other.Length) {
				return nil, fmt.Errorf("%s overlaps %s", m, other)
			}
		}
		maps = append(maps, m)
		fields = fields[3:]
	}
	return maps, nil
}

func parseExtent(fields []string) (IDMap, error) {
	var n [3]uint32
	for i, field := range fields {
		v, err := parseUint32(field)
		if err != nil {
			return IDMap{}, fmt.Errorf("%q is not a number below 2^32", field)
		}
		n[i] = v
	}
	m := IDMap{Stored: n[0], Shown: n[1], Length: n[2]}
	switch last := uint64(max(m.Stored, m.Shown)) + uint64(m.Length); {
	case m.Length == 0:
		return IDMap{}, fmt.Errorf("%s has no length", m)
	case last > math.MaxUint32:
		return IDMap{}, fmt.Errorf("%s goes beyond the highest id", m)
	}
	return m, nil
}

func overlap(a, b, lenA, lenB uint32) bool {
	return uint64(a) < uint64(b)+uint64(lenB) && uint64(b) < uint64(a)+uint64(lenA)
}

// String returns the extent as it is written in an option.
func (m IDMap) String() string {
	return fmt.Sprintf("%d:%d:%d", m.Stored, m.Shown, m.Length)
}
