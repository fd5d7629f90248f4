package thinxml

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Writer writes a pool as XML, in this order of calls: Superblock, then for
// each device Device, Map for each of its mappings and EndDevice, then Close.
// The first error stays: every later call returns it.
type Writer struct {
	w     *bufio.Writer
	rules rules
	where place
	run   Mapping // not written yet, since the next may continue it; Length 0 if none
	line  []byte
	err   error
}

// A place is an element that is open.
type place int

const (
	outside place = iota
	inSuperblock
	inDevice
	done
)

// NewWriter returns a writer of XML to w. It buffers: only Close shows whether
// everything was written.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 64<<10)}
}

// Superblock begins the text. Version 0 is written as the newest, 2.
func (w *Writer) Superblock(sb Superblock) error {
	if err := w.at(outside, "Superblock"); err != nil {
		return err
	}
	if sb.Version == 0 {
		sb.Version = newest
	}
	if err := w.rules.superblock(sb); err != nil {
		return w.fail(err)
	}
	w.where = inSuperblock
	w.open("<superblock uuid=\"" + escape.Replace(sb.UUID) + `"`)
	w.attr("time", uint64(sb.Time))
	w.attr("transaction", sb.Transaction)
	w.attr("flags", uint64(sb.Flags))
	w.attr("version", uint64(sb.Version))
	w.attr("data_block_size", uint64(sb.DataBlockSize))
	w.attr("nr_data_blocks", sb.NrDataBlocks)
	return w.close(">\n")
}

// Device begins a device, whose id must be above that of the one before.
func (w *Writer) Device(d Device) error {
	if err := w.at(inSuperblock, "Device"); err != nil {
		return err
	}
	if err := w.rules.device(d); err != nil {
		return w.fail(err)
	}
	w.where = inDevice
	w.open("  <device")
	w.attr("dev_id", uint64(d.ID))
	w.attr("mapped_blocks", d.MappedBlocks)
	w.attr("transaction", d.Transaction)
	w.attr("creation_time", uint64(d.CreationTime))
	w.attr("snap_time", uint64(d.SnapTime))
	return w.close(">\n")
}

// Map adds a mapping to the device, behind those that it has. One that
// continues the one before becomes part of its range.
func (w *Writer) Map(m Mapping) error {
	if err := w.at(inDevice, "Map"); err != nil {
		return err
	}
	if err := w.rules.mapping(m); err != nil {
		if m.Length == 1 {
			err = err.ofSingle()
		}
		return w.fail(err)
	}
	if w.run.Length > 0 && w.run.joins(m) {
		w.run.Length += m.Length
		return nil
	}
	err := w.flushRun()
	w.run = m
	return err
}

func (w *Writer) flushRun() error {
	m := w.run
	w.run = Mapping{}
	switch m.Length {
	case 0:
		return nil
	case 1:
		w.open("    <single_mapping")
		w.attr("origin_block", m.Origin)
		w.attr("data_block", m.Data)
	default:
		w.open("    <range_mapping")
		w.attr("origin_begin", m.Origin)
		w.attr("data_begin", m.Data)
		w.attr("length", m.Length)
	}
	w.attr("time", uint64(m.Time))
	return w.close("/>\n")
}

// EndDevice ends the device. It fails if not MappedBlocks blocks were mapped.
func (w *Writer) EndDevice() error {
	if err := w.at(inDevice, "EndDevice"); err != nil {
		return err
	}
	if err := w.rules.endDevice(); err != nil {
		return w.fail(err)
	}
	if err := w.flushRun(); err != nil {
		return err
	}
	w.where = inSuperblock
	w.open("  </device")
	return w.close(">\n")
}

// Close ends the text and writes out what is buffered. It does not close the
// writer below. A text that was not closed is no valid XML.
func (w *Writer) Close() error {
	if err := w.at(inSuperblock, "Close"); err != nil {
		return err
	}
	w.where = done
	w.open("</superblock")
	if err := w.close(">\n"); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return w.fail(fmt.Errorf("write thin metadata: %w", err))
	}
	return nil
}

// at fails unless p is what is open.
func (w *Writer) at(p place, call string) error {
	if w.err == nil && w.where != p {
		w.err = fmt.Errorf("thinxml: %s called %s", call, w.where)
	}
	return w.err
}

func (p place) String() string {
	return [...]string{"before Superblock", "outside of a device", "within a device", "after Close"}[p]
}

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

func (w *Writer) open(s string) { w.line = append(w.line[:0], s...) }

func (w *Writer) attr(name string, v uint64) {
	w.line = append(append(append(w.line, ' '), name...), '=', '"')
	w.line = append(strconv.AppendUint(w.line, v, 10), '"')
}

func (w *Writer) close(s string) error {
	w.line = append(w.line, s...)
	if _, err := w.w.Write(w.line); err != nil {
		return w.fail(fmt.Errorf("write thin metadata: %w", err))
	}
	return nil
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")
