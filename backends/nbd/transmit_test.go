package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/nbd/memblock"
)

// both runs a test without structured replies and with them.
func both(t *testing.T, test func(t *testing.T, structured bool)) {
	t.Run("simple", func(t *testing.T) { test(t, false) })
	t.Run("structured", func(t *testing.T) { test(t, true) })
}

func TestRequestsAgainstAModel(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		const size = 1<<20 + 700 // no multiple of anything
		r := start(t, Server{Exports: Map{"": memblock.New(size)}})
		c := r.open(t, "", structured)
		model := make([]byte, size)
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 3000 {
			off := rng.Uint64N(size)
			n := uint32(min(rng.Uint64N(20000), size-off))
			req := request{offset: off, length: n}
			var data []byte
			switch rng.IntN(4) {
			case 0:
				req.cmd, data = cmdWrite, make([]byte, n)
				for j := range data {
					data[j] = byte(i + j)
				}
				copy(model[off:], data)
			case 1:
				req.cmd = cmdWriteZeroes
				req.flags = []uint16{0, cmdFlagNoHole, cmdFlagFUA}[rng.IntN(3)]
				clear(model[off:][:n])
			default:
				req.cmd = cmdRead
			}
			e, got := c.do(req, data)
			if e != 0 {
				t.Fatalf("step %d: %v at %d: %v", i, req.cmd, off, e)
			}
			if req.cmd == cmdRead && !bytes.Equal(got, model[off:][:n]) {
				t.Fatalf("step %d: read of %d at %d differs from what was written", i, n, off)
			}
		}
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	const size = 1 << 20
	const max = ^uint64(0)
	mem := memblock.New(size)
	r := start(t, Server{Exports: Map{"mem": mem, "plain": plain{mem}, "sealed": sealed{mem}}, MaxRequest: 64 << 10})
	for _, tc := range []struct {
		export string
		req    request
		want   Errno
	}{
		// beyond the end
		{"mem", request{cmd: cmdRead, offset: size, length: 1}, EINVAL},
		{"mem", request{cmd: cmdRead, offset: size - 1, length: 2}, EINVAL},
		{"mem", request{cmd: cmdRead, offset: max, length: 2}, EINVAL},
		{"mem", request{cmd: cmdWrite, offset: size - 1, length: 2}, ENOSPC},
		{"mem", request{cmd: cmdWrite, offset: max - 1, length: 2}, ENOSPC},
		{"mem", request{cmd: cmdWriteZeroes, offset: size - 1, length: 1<<32 - 1}, ENOSPC},
		{"mem", request{cmd: cmdTrim, offset: size - 1, length: 2}, EINVAL},
		{"mem", request{cmd: cmdCache, offset: size, length: 1}, EINVAL},
		// too large
		{"mem", request{cmd: cmdRead, length: 64<<10 + 1}, EOVERFLOW},
		{"mem", request{cmd: cmdWrite, length: 64<<10 + 1}, EOVERFLOW},
		// unknown, or not for this
		{"mem", request{cmd: 8}, EINVAL},
		{"mem", request{cmd: 0xffff, flags: 0xffff, offset: max, length: 1<<32 - 1}, EINVAL},
		{"mem", request{cmd: cmdRead, length: 1, flags: cmdFlagNoHole}, EINVAL},
		{"mem", request{cmd: cmdWrite, length: 1, flags: cmdFlagFastZero}, EINVAL},
		{"mem", request{cmd: cmdFlush, flags: 1 << 9}, EINVAL},
		{"mem", request{cmd: cmdFlush, offset: 512}, EINVAL},
		{"mem", request{cmd: cmdCache, length: 1, flags: cmdFlagReqOne}, EINVAL},
		// fast zeros
		{"plain", request{cmd: cmdWriteZeroes, length: 4096, flags: cmdFlagFastZero}, EINVAL},
		{"mem", request{cmd: cmdWriteZeroes, length: 4095, flags: cmdFlagFastZero}, ENOTSUP},
		{"mem", request{cmd: cmdWriteZeroes, length: 4096, flags: cmdFlagFastZero | cmdFlagNoHole}, ENOTSUP},
		{"mem", request{cmd: cmdWriteZeroes, length: 4096, flags: cmdFlagFastZero}, 0},
		// read-only
		{"sealed", request{cmd: cmdWrite, length: 1}, EPERM},
		{"sealed", request{cmd: cmdWriteZeroes, length: 1}, EPERM},
		{"sealed", request{cmd: cmdTrim, length: 1}, EPERM},
		{"sealed", request{cmd: cmdFlush}, 0},
		{"sealed", request{cmd: cmdRead, length: 1, flags: cmdFlagFUA}, 0},
		// of nothing
		{"mem", request{cmd: cmdRead, offset: size}, 0},
		{"mem", request{cmd: cmdWrite, offset: size}, 0},
		{"mem", request{cmd: cmdTrim}, 0},
		{"mem", request{cmd: cmdWriteZeroes}, 0},
		{"mem", request{cmd: cmdCache, flags: cmdFlagFUA}, 0},
		// which every client may send
		{"mem", request{cmd: cmdCache, length: size}, 0},
	} {
		for _, structured := range []bool{false, true} {
			c := r.open(t, tc.export, structured)
			var data []byte
			if tc.req.cmd == cmdWrite {
				data = make([]byte, tc.req.length)
			}
			if e, _ := c.do(tc.req, data); e != tc.want {
				t.Errorf("%s, structured %v: %v %+v: error %d, want %d", tc.export, structured, tc.req.cmd, tc.req, e, tc.want)
			}
			c.wantAlive()
			c.Close()
		}
	}
	if c := r.open(t, "mem", false); true {
		if e, _ := c.do(request{cmd: cmdRead, length: 1, flags: cmdFlagDF}, nil); e != EINVAL {
			t.Errorf("DF without structured replies: error %d", e)
		}
		if e, _ := c.do(request{cmd: cmdBlockStatus, length: 4096}, nil); e != EINVAL {
			t.Errorf("block status without structured replies: error %d", e)
		}
	}
	c := r.open(t, "mem", true)
	if e, _ := c.do(request{cmd: cmdRead, length: 64 << 10, flags: cmdFlagDF}, nil); e != 0 {
		t.Errorf("DF: error %d", e)
	}
	for _, req := range []request{{cmd: cmdBlockStatus}, {cmd: cmdBlockStatus, offset: size, length: 1}} {
		if e, _ := c.do(req, nil); e != EINVAL {
			t.Errorf("%+v: error %d", req, e)
		}
	}
}

func TestErrorsOfTheBlockReachTheClient(t *testing.T) {
	for err, want := range map[error]Errno{
		unix.ENOSPC: ENOSPC, unix.EDQUOT: ENOSPC, unix.EFBIG: ENOSPC,
		unix.EIO: EIO, unix.ENODEV: EIO, unix.ETIMEDOUT: EIO, errors.New("?"): EIO,
		unix.EPERM: EPERM, unix.EACCES: EPERM, unix.EROFS: EPERM,
		unix.EINVAL: EINVAL, unix.EOVERFLOW: EOVERFLOW, unix.ENOMEM: ENOMEM, unix.ESHUTDOWN: ESHUTDOWN,
	} {
		mem := memblock.New(1 << 20)
		mem.Fault = func(string, int64, int64) error { return err }
		r := start(t, Server{Exports: Map{"": mem}})
		both(t, func(t *testing.T, structured bool) {
			c := r.open(t, "", structured)
			for cmd := cmdRead; cmd <= cmdBlockStatus; cmd++ {
				req := request{cmd: cmd, length: 512}
				var data []byte
				switch cmd {
				case cmdDisc:
					continue
				case cmdBlockStatus:
					if !structured {
						continue
					}
				case cmdWrite:
					data = make([]byte, 512)
				case cmdFlush:
					req.length = 0
				}
				if e, _ := c.do(req, data); e != want {
					t.Errorf("%v: %v became error %d, want %d", cmd, err, e, want)
				}
			}
		})
	}
}

func TestErrorTextsAreFitToBeSent(t *testing.T) {
	for _, text := range []string{"plain", "nul\x00", "not utf-8 \xff", strings.Repeat("ä", maxString), "a" + strings.Repeat("ä", maxString)} {
		got := displayText(errors.New(text))
		if len(got) > maxString || strings.ContainsRune(got, 0) || strings.ToValidUTF8(got, "") != got || len(got) < min(len(text), maxString-1) {
			t.Errorf("%.20q… became %.20q… of %d bytes", text, got, len(got))
		}
	}
}

// A hint may be ignored, but zeros have to be there.
func TestTrimMayBeUnsupported(t *testing.T) {
	mem := memblock.New(1 << 20)
	mem.Fault = func(op string, _, _ int64) error {
		if op == "discard" || op == "zero" {
			return unix.EOPNOTSUPP
		}
		return nil
	}
	c := start(t, Server{Exports: Map{"": mem}}).open(t, "", true)
	if e, _ := c.do(request{cmd: cmdTrim, length: 4096}, nil); e != 0 {
		t.Errorf("trim: error %d", e)
	}
	if e, _ := c.do(request{cmd: cmdWriteZeroes, length: 4096}, nil); e == 0 {
		t.Error("zeros that are not there")
	}
}

func TestFUAIsDurableWhenItIsAnswered(t *testing.T) {
	mem := memblock.New(1 << 20)
	c := start(t, Server{Exports: Map{"": mem}}).open(t, "", true)
	for _, cmd := range []command{cmdWrite, cmdTrim, cmdWriteZeroes} {
		for _, flags := range []uint16{0, cmdFlagFUA} {
			var data []byte
			if cmd == cmdWrite {
				data = make([]byte, 512)
			}
			if e, _ := c.do(request{cmd: cmd, flags: flags, length: 512}, data); e != 0 {
				t.Fatalf("%v: %v", cmd, e)
			}
			if durable := mem.Unflushed() == 0; durable != (flags != 0) {
				t.Errorf("%v with flags %d: durable %v", cmd, flags, durable)
			}
		}
	}
	for _, cmd := range []command{cmdWrite, cmdFlush} {
		c.do(request{cmd: cmdWrite, length: 512}, make([]byte, 512))
		mem.Fault = func(op string, _, _ int64) error {
			if op == "flush" {
				return unix.EIO
			}
			return nil
		}
		req, data := request{cmd: cmd, flags: cmdFlagFUA}, []byte(nil)
		if cmd == cmdWrite {
			req.length, data = 512, make([]byte, 512)
		}
		if e, _ := c.do(req, data); e != EIO {
			t.Errorf("%v whose flush failed: error %d", cmd, e)
		}
		mem.Fault = nil
	}
}

func TestNoHoleTakesSpace(t *testing.T) {
	mem := memblock.New(4 << 20)
	c := start(t, Server{Exports: Map{"": mem}}).open(t, "", true)
	for _, tc := range []struct {
		flags uint16
		hole  bool
	}{{cmdFlagNoHole, false}, {0, true}} {
		if e, _ := c.do(request{cmd: cmdWriteZeroes, flags: tc.flags, length: 4 << 20}, nil); e != 0 {
			t.Fatal(e)
		}
		n, hole, err := mem.Allocated(0, 4<<20)
		if n != 4<<20 || hole != tc.hole || err != nil {
			t.Errorf("flags %#x: %d bytes, hole %v, %v", tc.flags, n, hole, err)
		}
	}
}

// striped has data and holes in turn, each of a length, told in pieces.
type striped struct {
	Block
	stripe, piece int64
}

func (s striped) Allocated(off, n int64) (int64, bool, error) {
	end := off - off%s.piece + s.piece
	return end - off, off/s.stripe%2 == 1, nil
}

func TestBlockStatus(t *testing.T) {
	const data, hole = 0, stateHole | stateZero
	many := make([]uint32, 0, 2*maxExtents)
	for i := range uint32(maxExtents) {
		many = append(many, 512, i%2*hole)
	}
	mem := memblock.New(1 << 40)
	for _, tc := range []struct {
		what          string
		stripe, piece int64
		req           request
		want          []uint32 // lengths and states
	}{
		{"across", 8192, 8192, request{offset: 4096, length: 16384}, []uint32{4096, data, 8192, hole, 4096, data}},
		{"pieces are joined", 8192, 512, request{offset: 512, length: 9000}, []uint32{7680, data, 1320, hole}},
		{"one", 8192, 512, request{offset: 8192, length: 65536, flags: cmdFlagReqOne}, []uint32{8192, hole}},
		{"one that is longer", 1 << 40, 1 << 40, request{length: 100, flags: cmdFlagReqOne}, []uint32{100, data}},
		{"4 GiB", 1 << 40, 1 << 40, request{length: 1<<32 - 1}, []uint32{1<<32 - 1, data}},
		{"more than fits", 512, 512, request{length: 1 << 30}, many},
		{"more than is looked at", 1 << 40, 1, request{length: 1 << 30}, []uint32{maxExtents, data}},
	} {
		c := start(t, Server{Exports: Map{"": striped{mem, tc.stripe, tc.piece}}}).open(t, "", true)
		tc.req.cmd = cmdBlockStatus
		e, b := c.do(tc.req, nil)
		var got []uint32
		for ; len(b) >= 4; b = b[4:] {
			got = append(got, binary.BigEndian.Uint32(b))
		}
		if e != 0 || !slices.Equal(got, tc.want) {
			t.Errorf("%s: error %d, %d numbers %v…, want %d %v…", tc.what, e, len(got), got[:min(len(got), 8)], len(tc.want), tc.want[:min(len(tc.want), 8)])
		}
	}
}

// shrunk has lost its second half since it was opened.
type shrunk struct{ *memblock.Block }

func (s shrunk) ReadAt(p []byte, off int64) (int, error) {
	half := s.Size() / 2
	if off+int64(len(p)) <= half {
		return s.Block.ReadAt(p, off)
	}
	return int(max(0, half-off)), io.EOF
}

func TestShortReadsAreNoData(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		c := start(t, Server{Exports: Map{"": shrunk{memblock.New(8192)}}}).open(t, "", structured)
		for off, want := range map[uint64]Errno{0: 0, 4096: EIO, 2048: EIO} {
			if e, _ := c.do(request{cmd: cmdRead, offset: off, length: 4096}, nil); e != want {
				t.Errorf("read at %d: error %d, want %d", off, e, want)
			}
		}
	})
}

// Replies come as they are ready, with whole data, however many there are.
func TestManyRequestsAtOnce(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		mem := memblock.New(1 << 20)
		for i := range int64(256) {
			mem.WriteAt(bytes.Repeat([]byte{byte(i)}, 4096), i*4096)
		}
		slow := make(chan struct{})
		mem.Fault = func(op string, off, _ int64) error {
			if op == "read" && off == 0 {
				<-slow
			}
			return nil
		}
		r := start(t, Server{Exports: Map{"": mem}, MaxInFlight: 8, MaxMemory: 1}) // which is made enough for one request
		c := r.open(t, "", structured)
		var sender sync.WaitGroup
		sender.Go(func() {
			for i := range uint64(1000) {
				c.Write(packRequest(request{cmd: cmdRead, cookie: i, offset: i * 4096 % (1 << 20), length: 4096}, nil))
			}
		})
		seen := map[uint64]bool{}
		for i := range 1000 {
			if i == 200 {
				close(slow)
			}
			got := c.reply(4096)
			if got.errno != 0 || seen[got.cookie] {
				t.Fatalf("reply %d: cookie %d, error %d, seen before %v", i, got.cookie, got.errno, seen[got.cookie])
			}
			if i < 200 && got.cookie == 0 {
				t.Fatal("a slow read was answered before it ended")
			}
			seen[got.cookie] = true
			if want := byte(got.cookie); got.data[0] != want || got.data[4095] != want {
				t.Fatalf("cookie %d: data %x…%x", got.cookie, got.data[0], got.data[4095])
			}
		}
		sender.Wait()
	})
}

// The memory that all connections share is enough for each in its turn.
func TestConnectionsShareMemory(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(8 << 20)}, MaxRequest: 1 << 20, MaxMemory: 2 << 20})
	var clients sync.WaitGroup
	for i := range 6 {
		c := r.open(t, "", i%2 == 0)
		clients.Go(func() {
			for j := range 20 {
				off := uint64(i) << 20
				data := bytes.Repeat([]byte{byte(i + j)}, 1<<20)
				c.Write(packRequest(request{cmd: cmdWrite, offset: off, length: 1 << 20}, data))
				w, err := readReply(c, func(uint64) int { return 0 })
				c.Write(packRequest(request{cmd: cmdRead, offset: off, length: 1 << 20}, nil))
				got, err2 := readReply(c, func(uint64) int { return 1 << 20 })
				if err := errors.Join(err, err2); err != nil || w.errno != 0 || !bytes.Equal(got.data, data) {
					t.Errorf("client %d: %v, error %d; what was written is not what is read", i, err, w.errno)
					return
				}
			}
		})
	}
	clients.Wait()
}

func TestWritesOfOneConnectionAreSeenByOthers(t *testing.T) {
	mem := memblock.New(1 << 20)
	r := start(t, Server{Exports: Map{"": mem}})
	a, b := r.open(t, "", false), r.open(t, "", true)
	a.do(request{cmd: cmdWrite, length: 3}, []byte("abc"))
	if _, got := b.do(request{cmd: cmdRead, length: 3}, nil); string(got) != "abc" {
		t.Errorf("read %q", got)
	}
	b.do(request{cmd: cmdFlush}, nil)
	if n := mem.Unflushed(); n != 0 {
		t.Errorf("a flush over the other connection left %d bytes", n)
	}
}
