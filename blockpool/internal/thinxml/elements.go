package thinxml

import (
	"fmt"
	"math"
	"strconv"
)

// A field is an attribute that an element has.
type field struct {
	name     string
	max      uint64
	optional bool
}

var (
	superblockFields = []field{
		{name: "time", max: math.MaxUint32},
		{name: "transaction", max: math.MaxUint64},
		{name: "flags", max: math.MaxUint32, optional: true},
		{name: "version", max: math.MaxUint32, optional: true},
		{name: "data_block_size", max: math.MaxUint32},
		{name: "nr_data_blocks", max: math.MaxUint64},
		// A block of the metadata that was dumped: without meaning elsewhere.
		{name: "metadata_snap", max: math.MaxUint64, optional: true},
	}
	deviceFields = []field{
		{name: "dev_id", max: math.MaxUint32},
		{name: "mapped_blocks", max: math.MaxUint64},
		{name: "transaction", max: math.MaxUint64},
		{name: "creation_time", max: math.MaxUint32},
		{name: "snap_time", max: math.MaxUint32},
	}
	singleFields = []field{
		{name: "origin_block", max: math.MaxUint64},
		{name: "data_block", max: math.MaxUint64},
		{name: "time", max: math.MaxUint32},
	}
	rangeFields = []field{
		{name: "origin_begin", max: math.MaxUint64},
		{name: "data_begin", max: math.MaxUint64},
		{name: "time", max: math.MaxUint32},
		{name: "length", max: math.MaxUint64},
	}
)

func (r *Reader) readSuperblock(t *tag) error {
	line := t.line
	uuid, err := r.text(t, "uuid")
	if err != nil {
		return err
	}
	v, err := r.numbers(t, superblockFields, "uuid")
	if err != nil {
		return err
	}
	return r.check(r.rules.superblock(Superblock{
		UUID: uuid, Time: uint32(v[0]), Transaction: v[1], Flags: uint32(v[2]), Version: uint32(v[3]),
		DataBlockSize: uint32(v[4]), NrDataBlocks: v[5],
	}), line)
}

func (r *Reader) readDevice(t *tag) (Device, error) {
	v, err := r.numbers(t, deviceFields, "")
	if err != nil {
		return Device{}, err
	}
	d := Device{ID: uint32(v[0]), MappedBlocks: v[1], Transaction: v[2], CreationTime: uint32(v[3]), SnapTime: uint32(v[4])}
	r.where = inDevice
	return d, r.check(r.rules.device(d), t.line)
}

// readMapping reads a mapping's element up to its end, and has it judged.
func (r *Reader) readMapping(t *tag, judge func(Mapping) *Error) (m Mapping, err error) {
	switch string(t.name) {
	case "single_mapping":
		v, err := r.numbers(t, singleFields, "")
		if err != nil {
			return m, err
		}
		m = Mapping{Origin: v[0], Data: v[1], Time: uint32(v[2]), Length: 1}
		if err := r.check(judge(m).ofSingle(), t.line); err != nil {
			return m, err
		}
		return m, r.end("single_mapping")
	case "range_mapping":
		v, err := r.numbers(t, rangeFields, "")
		if err != nil {
			return m, err
		}
		m = Mapping{Origin: v[0], Data: v[1], Time: uint32(v[2]), Length: v[3]}
		if err := r.check(judge(m), t.line); err != nil {
			return m, err
		}
		return m, r.end("range_mapping")
	}
	return m, r.unexpected(t)
}

// numbers returns the values of fields in their order, 0 for an optional one
// that is not there. Besides them the tag may have the attribute other.
func (r *Reader) numbers(t *tag, fields []field, other string) (v [8]uint64, err error) {
	var seen [8]bool
	for _, a := range t.attrs {
		if other != "" && string(a.name) == other {
			continue
		}
		i := 0
		for i < len(fields) && fields[i].name != string(a.name) {
			i++
		}
		if i == len(fields) {
			return v, r.s.badIn(t, string(a.name), "no such attribute")
		}
		n, ok := number(a.value)
		if !ok || n > fields[i].max {
			return v, r.s.badIn(t, string(a.name), fmt.Sprintf("%.40q is no number from 0 to %d", a.value, fields[i].max))
		}
		v[i], seen[i] = n, true
	}
	for i, f := range fields {
		if !seen[i] && !f.optional {
			return v, r.s.badIn(t, f.name, "missing")
		}
	}
	return v, nil
}

// number parses decimal digits: no sign, unlike thin_restore, which takes -1
// for 2^64-1.
func number(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}

func (r *Reader) text(t *tag, name string) (string, error) {
	for _, a := range t.attrs {
		if string(a.name) == name {
			return string(a.value), nil
		}
	}
	return "", r.s.badIn(t, name, "missing")
}
