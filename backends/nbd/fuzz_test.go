package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/laminafs/lamina/backends/nbd/memblock"
)

// A scripted connection says what it was given, takes everything, and then
// hangs up.
type scripted struct {
	said  *bytes.Reader
	heard bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)       { return s.said.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return s.heard.Write(p) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *scripted) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// converse lets a server answer what a client says, and returns the answer.
// The server must have all of its memory back then.
func converse(t *testing.T, said []byte) []byte {
	t.Helper()
	s := newServer(&Server{
		Exports: Map{"": memblock.New(1 << 16), "sealed": sealed{memblock.New(1000)}},
		Log:     log.New(io.Discard, "", 0), MaxRequest: 64 << 10, MaxInFlight: 4,
	})
	conn := &scripted{said: bytes.NewReader(said)}
	s.serveConn(context.Background(), context.Background(), conn)
	if s.memory.free != s.MaxMemory {
		t.Errorf("%d bytes of memory were not given back", s.MaxMemory-s.memory.free)
	}
	return conn.heard.Bytes()
}

// greeting is what every fixed newstyle client says first.
var greeting = binary.BigEndian.AppendUint32(nil, uint32(flagFixedNewstyle|flagNoZeroes))

// goStructured agrees on everything there is.
func goStructured() []byte {
	b := slices.Concat(greeting, packOption(optStructuredReply, nil))
	c := contextRequest{"", []string{allocationContext}}
	b = append(b, packOption(optSetMetaContext, c.append(nil))...)
	q := infoRequest{"", nil}
	return append(b, packOption(optGo, q.append(nil))...)
}

func FuzzNegotiation(f *testing.F) {
	f.Add([]byte{})
	f.Add(goStructured())
	f.Add(slices.Concat(greeting, packOption(optList, nil), packOption(optAbort, nil)))
	f.Add(slices.Concat(greeting, packOption(optExportName, []byte("sealed")), packRequest(request{cmd: cmdRead, length: 9}, nil)))
	f.Fuzz(func(t *testing.T, said []byte) {
		heard := converse(t, said)
		if len(heard) < 18 || binary.BigEndian.Uint64(heard) != magicServer {
			t.Fatalf("greeting % x", heard)
		}
	})
}

// FuzzTransmission sends arbitrary requests, well-formed and not. Each reply
// must be whole and carry the cookie of a request, and no request gets two.
func FuzzTransmission(f *testing.F) {
	f.Add(packRequest(request{cmd: cmdWrite, cookie: 1, length: 3}, []byte("abc")))
	f.Add(slices.Concat(
		packRequest(request{cmd: cmdBlockStatus, cookie: 1, length: 1 << 16}, nil),
		packRequest(request{cmd: cmdWriteZeroes, cookie: 2, flags: cmdFlagNoHole, length: 5000}, nil),
		packRequest(request{cmd: cmdTrim, cookie: 3, length: 1<<32 - 1}, nil),
		packRequest(request{cmd: cmdRead, cookie: 4, offset: 65535, length: 1}, nil),
		packRequest(request{cmd: cmdDisc}, nil)))
	prologue := goStructured()
	silence := len(converse(&testing.T{}, prologue))
	f.Fuzz(func(t *testing.T, requests []byte) {
		heard := bytes.NewReader(converse(t, slices.Concat(prologue, requests))[silence:])
		asked := cookies(requests)
		for heard.Len() > 0 {
			r, err := readReply(heard, func(uint64) int { return 0 })
			if err != nil {
				t.Fatal(err)
			}
			if asked[r.cookie] == 0 {
				t.Fatalf("reply to %#x, which was not asked or has been answered", r.cookie)
			}
			asked[r.cookie]--
		}
	})
}

// cookies counts the requests with each cookie, up to the first that a server
// cannot read on after.
func cookies(said []byte) map[uint64]int {
	count := map[uint64]int{}
	var r request
	for len(said) >= requestSize && r.unpack(said) == nil {
		said = said[requestSize:]
		if r.cmd == cmdWrite {
			if int(r.length) > len(said) {
				return count
			}
			said = said[r.length:]
		}
		count[r.cookie]++
	}
	return count
}

func FuzzOptionData(f *testing.F) {
	info := infoRequest{"disk", []uint16{infoName, infoBlockSize}}
	f.Add(info.append(nil))
	context := contextRequest{"disk", []string{"base:", allocationContext, ""}}
	f.Add(context.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var info infoRequest
		if info.unpack(data) && !bytes.Equal(info.append(nil), data) {
			t.Errorf("INFO % x became %+v", data, info)
		}
		var context contextRequest
		if context.unpack(data) && !bytes.Equal(context.append(nil), data) {
			t.Errorf("contexts % x became %+v", data, context)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(packRequest(request{cmdFlagFUA, cmdWrite, 1, 2, 3}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		if len(b) < requestSize || r.unpack(b) != nil {
			return
		}
		if !bytes.Equal(packRequest(r, nil), b[:requestSize]) {
			t.Errorf("% x became %+v", b, r)
		}
	})
}
