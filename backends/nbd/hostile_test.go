package nbd

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/nbd/memblock"
)

func TestGarbageEndsTheTransmission(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(1 << 20)}})
	for what, bytes := range map[string][]byte{
		"request magic":    make([]byte, requestSize),
		"write of 4 GiB":   packRequest(request{cmd: cmdWrite, length: 1<<32 - 1}, nil),
		"an option":        packOption(optList, make([]byte, 12)),
		"a write too long": packRequest(request{cmd: cmdWrite, length: maxSkipped + 1}, nil),
	} {
		t.Run(what, func(t *testing.T) {
			c := r.open(t, "", true)
			c.send(bytes)
			c.wantEnd()
		})
	}
	r.wantLog(t, ErrProtocol.Error())
}

func TestDisconnectAtEveryByte(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(1 << 20)}})
	q := infoRequest{"", []uint16{infoBlockSize}}
	said := binary.BigEndian.AppendUint32(nil, uint32(flagFixedNewstyle))
	said = append(said, packOption(optList, nil)...)
	said = append(said, packOption(optGo, q.append(nil))...)
	said = append(said, packRequest(request{cmd: cmdWrite, length: 100}, make([]byte, 100))...)
	said = append(said, packRequest(request{cmd: cmdRead, length: 100}, nil)...)
	for n := range said {
		c := r.dial(t)
		go io.Copy(io.Discard, c)
		c.Write(said[:n])
		c.Close()
	}
}

func TestSlowClientsAreLeft(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(1 << 20)}, Timeout: 100 * time.Millisecond})
	for what, slow := range map[string]func(c *client){
		"half a header": func(c *client) {
			c.send(packRequest(request{cmd: cmdRead, length: 1}, nil)[:10])
		},
		"half of the data": func(c *client) {
			c.send(packRequest(request{cmd: cmdWrite, length: 1000}, make([]byte, 500)))
		},
		"half of data that nobody wants": func(c *client) {
			c.send(packRequest(request{cmd: cmdWrite, offset: 1 << 20, length: 1000}, make([]byte, 500)))
		},
		"a reply not taken": func(c *client) {
			c.send(packRequest(request{cmd: cmdRead, length: 1 << 20}, nil))
			time.Sleep(200 * time.Millisecond)
		},
	} {
		t.Run(what, func(t *testing.T) {
			c := r.open(t, "", false)
			slow(c)
			c.wantEnd()
		})
	}
	t.Run("silence between requests is allowed", func(t *testing.T) {
		c := r.open(t, "", false)
		write := packRequest(request{cmd: cmdWrite, length: 100}, make([]byte, 100))
		for _, part := range [][]byte{write[:9], write[9:50], write[50:]} { // all in time
			c.send(part)
		}
		c.reply(0)
		time.Sleep(300 * time.Millisecond)
		c.wantAlive()
	})
}

// A broken connection takes no part of a reply after half of another.
func TestNothingIsWrittenAfterAWriteThatFailed(t *testing.T) {
	conn := &breaking{}
	var failures, written int
	r := replies{conn: conn, failed: func(error) { failures++ }, written: func(*call) { written++ }}
	for range 3 {
		r.send(&call{head: make([]byte, simpleReplySize), body: make([]byte, 512)})
	}
	if conn.writes != 1 || failures != 1 || written != 3 {
		t.Errorf("%d writes, %d failures, %d calls finished; want 1, 1, 3", conn.writes, failures, written)
	}
}

// breaking takes half of what is written first.
type breaking struct {
	scripted
	writes int
}

func (b *breaking) Write(p []byte) (int, error) {
	b.writes++
	if b.writes == 1 {
		return len(p) / 2, unix.EIO
	}
	return len(p), nil
}

func TestBlocksAreReleasedHoweverAClientLeaves(t *testing.T) {
	for what, leave := range map[string]func(c *client){
		"DISC":    func(c *client) { c.send(packRequest(request{cmd: cmdDisc}, nil)) },
		"hang up": func(c *client) { c.Close() },
		"garbage": func(c *client) { c.send(make([]byte, requestSize)) },
	} {
		exports := &strict{Map: Map{"a": memblock.New(4096)}}
		r := start(t, Server{Exports: exports})
		c := r.open(t, "a", true)
		if n := exports.open.Load(); n != 1 {
			t.Errorf("%s: %d blocks are in use", what, n)
		}
		leave(c)
		r.stop()
		err := <-r.done
		r.done <- nil // for the end of the test
		if n := exports.open.Load(); n != 0 || err != nil {
			t.Errorf("%s: %d blocks are in use afterwards, %v", what, n, err)
		}
	}
}

// A client that goes away need not keep what waits for space.
func TestWorkForAClientThatHasGoneIsCancelled(t *testing.T) {
	full := &waiting{Block: memblock.New(1 << 20), entered: make(chan struct{})}
	r := start(t, Server{Exports: Map{"": full}})
	c := r.open(t, "", true)
	c.send(packRequest(request{cmd: cmdWriteZeroes, length: 4096}, nil))
	<-full.entered
	c.Close()
	// start fails the test if the server does not end.
}

// waiting waits with Zero until its context ends.
type waiting struct {
	Block
	entered chan struct{}
}

func (w *waiting) Zero(ctx context.Context, _, _ int64) error {
	close(w.entered)
	<-ctx.Done()
	return ctx.Err()
}

func TestDisconnectWaitsForRequests(t *testing.T) {
	mem := memblock.New(1 << 20)
	entered, goOn := make(chan struct{}), make(chan struct{})
	mem.Fault = func(op string, _, _ int64) error {
		if op == "write" {
			close(entered)
			<-goOn
		}
		return nil
	}
	c := start(t, Server{Exports: Map{"": mem}}).open(t, "", true)
	c.send(packRequest(request{cmd: cmdWrite, flags: cmdFlagFUA, length: 5}, []byte("hello")))
	<-entered
	c.send(packRequest(request{cmd: cmdDisc}, nil))
	close(goOn)
	if got := c.reply(0); got.errno != 0 {
		t.Errorf("error %d", got.errno)
	}
	c.wantEnd()
	if mem.Unflushed() != 0 {
		t.Error("not flushed")
	}
}

func TestStopAnswersWhatHasArrived(t *testing.T) {
	mem := memblock.New(1 << 20)
	entered, goOn := make(chan struct{}), make(chan struct{})
	mem.Fault = func(op string, _, _ int64) error {
		if op == "write" {
			close(entered)
			<-goOn
		}
		return nil
	}
	r := start(t, Server{Exports: Map{"": mem}, MaxInFlight: 1})
	idle, haggling := r.open(t, "", false), r.greeted(t)
	c := r.open(t, "", true)
	// Both arrive, and the second waits for its turn.
	c.send(append(packRequest(request{cmd: cmdWrite, cookie: 1, length: 5}, []byte("hello")),
		packRequest(request{cmd: cmdRead, cookie: 2, length: 5}, nil)...))
	<-entered
	r.stop()
	idle.wantEnd()
	haggling.wantEnd()
	close(goOn)
	if got := c.reply(0); got.cookie != 1 || got.errno != 0 {
		t.Errorf("the write that was under way: %+v", got)
	}
	if got := c.reply(0); got.cookie != 2 || got.errno != ESHUTDOWN {
		t.Errorf("the read that came after it: %+v", got)
	}
	c.wantEnd()
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	full := &waiting{Block: memblock.New(1 << 20), entered: make(chan struct{})}
	r := start(t, Server{Exports: Map{"": full}, ShutdownTimeout: 50 * time.Millisecond})
	c := r.open(t, "", true)
	c.send(packRequest(request{cmd: cmdWriteZeroes, length: 4096}, nil))
	<-full.entered
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	r.done <- nil // for the end of the test
}

func TestAListenerThatFailsIsReported(t *testing.T) {
	r := start(t, Server{Exports: Map{"": memblock.New(1 << 20)}})
	c := r.open(t, "", false)
	r.ln.Close()
	if err := <-r.done; err == nil || !strings.Contains(err.Error(), "accept") {
		t.Errorf("serve: %v", err)
	}
	c.wantEnd()
	r.done <- nil
}

func TestPassingErrorsOfAccept(t *testing.T) {
	if !isPassing(unix.EMFILE) || isPassing(unix.EBADF) || isPassing(nil) {
		t.Error("EMFILE passes, EBADF does not")
	}
}
