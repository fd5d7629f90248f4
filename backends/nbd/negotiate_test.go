package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/laminafs/lamina/backends/nbd/memblock"
)

// plain hides what a Block can do beyond the necessary.
type plain struct{ Block }

// sealed is read-only, with records of 16 KiB.
type sealed struct{ Block }

func (sealed) ReadOnly() bool  { return true }
func (sealed) RecordSize() int { return 16384 }

func TestClientsLearnWhatAnExportIs(t *testing.T) {
	mem := memblock.New(1 << 20)
	r := start(t, Server{Exports: Map{"plain": plain{mem}, "mem": mem, "sealed": sealed{mem}}, MaxRequest: 1 << 20})
	always := flagHasFlags | flagSendFlush | flagSendFUA | flagCanMultiConn | flagSendCache
	for _, tc := range []struct {
		name       string
		structured bool
		flags      uint16
		preferred  uint32
	}{
		{"plain", false, always | flagSendTrim | flagSendWriteZeroes, 4096},
		{"mem", false, always | flagSendTrim | flagSendWriteZeroes | flagSendFastZero, 4096},
		{"mem", true, always | flagSendTrim | flagSendWriteZeroes | flagSendFastZero | flagSendDF, 4096},
		{"sealed", false, always | flagReadOnly, 16384},
	} {
		c := r.greeted(t)
		if tc.structured {
			c.option(optStructuredReply, nil)
			c.wantReplies(optStructuredReply, repAck)
		}
		for _, opt := range []option{optInfo, optGo} {
			q := infoRequest{tc.name, []uint16{infoName, infoBlockSize, 77}}
			c.option(opt, q.append(nil))
			got := c.wantReplies(opt, repInfo, repInfo, repInfo, repAck)
			want := binary.BigEndian.AppendUint16(nil, infoExport)
			want = binary.BigEndian.AppendUint64(want, 1<<20)
			want = binary.BigEndian.AppendUint16(want, tc.flags)
			if !bytes.Equal(got[0], want) {
				t.Errorf("%s: export % x, want % x", tc.name, got[0], want)
			}
			if want := "\x00\x01" + tc.name; string(got[1]) != want {
				t.Errorf("%s: name %q, want %q", tc.name, got[1], want)
			}
			want = binary.BigEndian.AppendUint16(nil, infoBlockSize)
			for _, v := range []uint32{1, tc.preferred, 1 << 20} {
				want = binary.BigEndian.AppendUint32(want, v)
			}
			if !bytes.Equal(got[2], want) {
				t.Errorf("%s: sizes % x, want % x", tc.name, got[2], want)
			}
		}
		c.wantAlive()
	}
}

func TestOldClientsChooseByExportName(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(4096), "disk": memblock.New(1 << 20)}})
	for name, size := range map[string]uint64{"": 4096, "disk": 1 << 20} {
		for _, flags := range []uint32{0, uint32(flagFixedNewstyle), uint32(flagFixedNewstyle | flagNoZeroes)} {
			c := r.dial(t)
			c.bytes(18)
			c.send(binary.BigEndian.AppendUint32(nil, flags))
			c.option(optExportName, []byte(name))
			if got := binary.BigEndian.Uint64(c.bytes(10)); got != size {
				t.Errorf("%q: size %d, want %d", name, got, size)
			}
			if flags&uint32(flagNoZeroes) == 0 && !bytes.Equal(c.bytes(124), make([]byte, 124)) {
				t.Errorf("%q: no zeros", name)
			}
			c.wantAlive()
		}
	}
	c := r.greeted(t)
	c.option(optExportName, []byte("other"))
	c.wantEnd()
}

// strict exports refuse in every way that Open can.
type strict struct {
	Map
	open atomic.Int64
}

func (s *strict) Open(ctx context.Context, name string) (Block, func(), error) {
	if name == "secret" {
		return nil, nil, fmt.Errorf("volume %s: %w", name, fs.ErrPermission)
	}
	b, _, err := s.Map.Open(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	s.open.Add(1)
	return b, func() { s.open.Add(-1) }, nil
}

func TestOptionsAreAnsweredAndTheNextOneIsUnderstood(t *testing.T) {
	exports := &strict{Map: Map{"a": memblock.New(4096), "b": plain{memblock.New(4096)}}}
	r := start(t, Server{Exports: exports})
	info := func(name string) []byte { q := infoRequest{name, nil}; return q.append(nil) }
	query := func(name string, queries ...string) []byte {
		q := contextRequest{name, queries}
		return q.append(nil)
	}
	context := []byte("\x00\x00\x00\x00base:allocation")
	selected := []byte("\x00\x00\x00\x01base:allocation")
	c := r.greeted(t)
	for i, step := range []struct {
		opt   option
		data  []byte
		kinds []optReply
		first []byte // data of the first reply, nil: whatever
	}{
		{optList, nil, []optReply{repServer, repServer, repAck}, []byte("\x00\x00\x00\x01a")},
		{optList, []byte("x"), []optReply{repErrInvalid}, nil},
		{optStartTLS, nil, []optReply{repErrPolicy}, nil},
		{4711, []byte("whatever"), []optReply{repErrUnsup}, nil},
		{4, make([]byte, maxOptionData+1), []optReply{repErrTooBig}, nil},
		{optInfo, info("a"), []optReply{repInfo, repInfo, repAck}, nil},
		{optInfo, info("c"), []optReply{repErrUnknown}, nil},
		{optGo, info("secret"), []optReply{repErrPolicy}, []byte(`export "secret": volume secret: permission denied`)},
		{optGo, info("a")[:6], []optReply{repErrInvalid}, nil},
		{optGo, append(info("a"), 0), []optReply{repErrInvalid}, nil},
		{optGo, info(strings.Repeat("n", maxString+1)), []optReply{repErrInvalid}, nil},
		{optGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, []optReply{repErrInvalid}, nil},
		{optSetMetaContext, query("a", allocationContext), []optReply{repErrInvalid}, nil}, // not structured yet
		{optListMetaContext, query("a"), []optReply{repErrInvalid}, nil},
		{optStructuredReply, []byte{1}, []optReply{repErrInvalid}, nil},
		{optStructuredReply, nil, []optReply{repAck}, nil},
		{optListMetaContext, query("a"), []optReply{repMetaContext, repAck}, context},
		{optListMetaContext, query("a", "base:"), []optReply{repMetaContext, repAck}, context},
		{optListMetaContext, query("a", "qemu:", "base:other"), []optReply{repAck}, nil},
		{optListMetaContext, query("b"), []optReply{repAck}, nil}, // which cannot tell
		{optListMetaContext, query("c"), []optReply{repErrUnknown}, nil},
		{optListMetaContext, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, []optReply{repErrInvalid}, nil},
		{optSetMetaContext, query("a"), []optReply{repAck}, nil},
		{optSetMetaContext, query("a", "base:"), []optReply{repAck}, nil},
		{optSetMetaContext, query("a", allocationContext, allocationContext), []optReply{repMetaContext, repAck}, selected},
	} {
		c.option(step.opt, step.data)
		got := c.wantReplies(step.opt, step.kinds...)
		if step.first != nil && !bytes.Equal(got[0], step.first) {
			t.Errorf("step %d, option %d: %q, want %q", i, step.opt, got[0], step.first)
		}
	}
	c.option(optAbort, []byte("bye"))
	c.wantReplies(optAbort, repAck)
	c.wantEnd()
	if n := exports.open.Load(); n != 0 {
		t.Errorf("%d blocks were not released", n)
	}
}

// A selection counts for the export it was made for, and the last one counts.
func TestBlockStatusTakesASelectionForThatExport(t *testing.T) {
	r := start(t, Server{Exports: Map{"a": memblock.New(4096), "b": memblock.New(4096)}})
	for _, tc := range []struct {
		selections []contextRequest
		want       Errno
	}{
		{nil, EINVAL},
		{[]contextRequest{{"b", []string{allocationContext}}}, EINVAL},
		{[]contextRequest{{"a", []string{allocationContext}}}, 0},
		{[]contextRequest{{"a", []string{allocationContext}}, {"a", nil}}, EINVAL},
		{[]contextRequest{{"a", []string{allocationContext}}, {"none", []string{allocationContext}}}, EINVAL},
	} {
		c := r.greeted(t)
		c.structured = true
		c.option(optStructuredReply, nil)
		c.wantReplies(optStructuredReply, repAck)
		for _, q := range tc.selections {
			c.option(optSetMetaContext, q.append(nil))
			for kind := repMetaContext; kind == repMetaContext; {
				kind, _ = c.optReply(optSetMetaContext)
			}
		}
		q := infoRequest{"a", nil}
		c.option(optGo, q.append(nil))
		c.wantReplies(optGo, repInfo, repInfo, repAck)
		if e, _ := c.do(request{cmd: cmdBlockStatus, length: 4096}, nil); e != tc.want {
			t.Errorf("%v: error %d, want %d", tc.selections, e, tc.want)
		}
	}
}

func TestGarbageEndsTheNegotiation(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(4096)}})
	for what, send := range map[string]func(c *client){
		"client flags":    func(c *client) { c.send([]byte{0x80, 0, 0, 1}) },
		"option magic":    func(c *client) { c.send([]byte("\x00\x00\x00\x03GET / HTTP/1.1\r\n")) },
		"option of 4 GiB": func(c *client) { c.send([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff")) },
		"a name too long": func(c *client) {
			c.send(append([]byte{0, 0, 0, 3}, packOption(optExportName, make([]byte, maxString+1))...))
		},
	} {
		t.Run(what, func(t *testing.T) {
			c := r.dial(t)
			c.bytes(18)
			send(c)
			c.wantEnd()
		})
	}
	r.wantLog(t, ErrProtocol.Error())
}

func TestNegotiationEndsInTimeWhateverTheClientDoes(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(4096)}, HandshakeTimeout: 100 * time.Millisecond})
	t.Run("silence", func(t *testing.T) {
		c := r.dial(t)
		c.bytes(18)
		c.wantEnd()
	})
	t.Run("half an option", func(t *testing.T) {
		c := r.greeted(t)
		c.send(packOption(optList, nil)[:9])
		c.wantEnd()
	})
	t.Run("replies not taken", func(t *testing.T) {
		c := r.greeted(t)
		c.option(optList, nil)
		time.Sleep(200 * time.Millisecond)
		c.wantEnd()
	})
}

func TestAFloodOfOptionsEnds(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(4096)}})
	c := r.greeted(t)
	for range maxOptions {
		c.option(optStructuredReply, nil)
		c.wantReplies(optStructuredReply, repAck)
	}
	c.wantEnd()
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(4096)}, MaxConns: 2})
	first, second := r.greeted(t), r.greeted(t)
	r.dial(t).wantEnd()
	first.option(optAbort, nil)
	first.wantReplies(optAbort, repAck)
	first.wantEnd()
	second.option(optAbort, nil)
	second.wantReplies(optAbort, repAck)
	second.wantEnd()
	for range 100 { // until the places are free again
		c := r.dial(t)
		if _, err := c.Read(make([]byte, 18)); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("places are not given back")
}
