package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"time"
)

// What one client may ask for, however much time it has.
const (
	maxOptions    = 1000
	maxOptionData = 64 << 10 // more is skipped and refused
	maxSkipped    = 32 << 20 // more ends the connection
)

// terms are what a negotiation ends with.
type terms struct {
	export     *export
	structured bool // replies
	status     bool // base:allocation was selected
}

// A negotiation is the state of the phase in which options are haggled over.
type negotiation struct {
	*server
	ctx        context.Context
	in         *input
	out        *bufio.Writer
	noZeroes   bool
	structured bool
	selected   *string // the export for which base:allocation was selected
}

// negotiate greets a client and answers its options until it has chosen an
// export. It returns nil and no error if the client left without.
func (s *server) negotiate(stopping context.Context, conn net.Conn, in *input) (*terms, error) {
	end := time.Now().Add(s.HandshakeTimeout)
	in.setDeadline(end)
	conn.SetWriteDeadline(end)
	n := &negotiation{server: s, ctx: stopping, in: in, out: bufio.NewWriter(conn)}
	t, err := n.run()
	if err != nil {
		return nil, fmt.Errorf("negotiate: %w", err)
	}
	in.setDeadline(time.Time{})
	return t, nil
}

func (n *negotiation) run() (*terms, error) {
	if err := n.greet(); err != nil {
		return nil, err
	}
	for range maxOptions {
		opt, data, tooBig, err := n.nextOption()
		if err != nil {
			return nil, err
		}
		var t *terms
		switch {
		case opt == optAbort:
			// The client need not wait for the answer.
			n.reply(opt, repAck, nil)
			n.out.Flush()
			return nil, nil
		case opt == optExportName && !tooBig:
			return n.exportName(string(data))
		case opt == optExportName:
			return nil, fmt.Errorf("a name too long: %w", ErrProtocol)
		case n.ctx.Err() != nil:
			n.refuse(opt, repErrShutdown, "the server is stopping")
		case tooBig:
			n.refuse(opt, repErrTooBig, "more than 64 KiB of data")
		default:
			t = n.answer(opt, data)
		}
		if err := n.out.Flush(); err != nil {
			if t != nil {
				t.export.release()
			}
			return nil, err
		}
		if t != nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("more than %d options: %w", maxOptions, ErrProtocol)
}

// greet sends the greeting and reads the client's flags. A client that does not
// want the fixed kind of negotiation sends EXPORT_NAME as its only option, which
// needs no other treatment.
func (n *negotiation) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	n.out.Write(b)
	if err := n.out.Flush(); err != nil {
		return err
	}
	if err := n.in.await(); err != nil {
		return err // io.EOF from those who only look whether someone listens
	}
	var flags [4]byte
	if err := n.in.fill(flags[:]); err != nil {
		return err
	}
	f := binary.BigEndian.Uint32(flags[:])
	if unknown := f &^ uint32(flagFixedNewstyle|flagNoZeroes); unknown != 0 {
		return fmt.Errorf("client flags %#x: %w", unknown, ErrProtocol)
	}
	n.noZeroes = f&uint32(flagNoZeroes) != 0
	return nil
}

// nextOption reads an option. If its data is too big, it has been skipped.
func (n *negotiation) nextOption() (opt option, data []byte, tooBig bool, err error) {
	if err := n.in.await(); err != nil {
		return 0, nil, false, err
	}
	var head [16]byte
	if err := n.in.fill(head[:]); err != nil {
		return 0, nil, false, err
	}
	if m := binary.BigEndian.Uint64(head[0:]); m != magicOption {
		return 0, nil, false, fmt.Errorf("option begins with %#016x: %w", m, ErrProtocol)
	}
	opt = option(binary.BigEndian.Uint32(head[8:]))
	length := binary.BigEndian.Uint32(head[12:])
	switch {
	case length > maxSkipped:
		return opt, nil, true, fmt.Errorf("option %d with %d bytes: %w", opt, length, ErrProtocol)
	case length > maxOptionData:
		return opt, nil, true, n.in.drop(int(length))
	}
	data = make([]byte, length)
	return opt, data, false, n.in.fill(data)
}

// answer replies to an option that has an answer. It returns the terms once GO
// has succeeded.
func (n *negotiation) answer(opt option, data []byte) *terms {
	switch opt {
	case optGo, optInfo:
		return n.info(opt, data)
	case optList:
		n.list(data)
	case optStructuredReply:
		if len(data) > 0 {
			n.refuse(opt, repErrInvalid, "takes no data")
			return nil
		}
		n.structured = true
		n.reply(opt, repAck, nil)
	case optListMetaContext, optSetMetaContext:
		n.metaContext(opt, data)
	case optStartTLS:
		n.refuse(opt, repErrPolicy, "no TLS here: the permissions of the socket say who may connect")
	default:
		n.refuse(opt, repErrUnsup, "unknown option")
	}
	return nil
}

// list answers LIST with the names of all exports.
func (n *negotiation) list(data []byte) {
	if len(data) > 0 {
		n.refuse(optList, repErrInvalid, "takes no data")
		return
	}
	names, err := n.Exports.List(n.ctx)
	if err != nil {
		n.refuse(optList, repErrPolicy, displayText(err))
		return
	}
	for _, name := range names {
		n.reply(optList, repServer, appendString(nil, name))
	}
	n.reply(optList, repAck, nil)
}

// info answers INFO, and GO, which says the same and then begins transmission.
func (n *negotiation) info(opt option, data []byte) *terms {
	var q infoRequest
	if !q.unpack(data) {
		n.refuse(opt, repErrInvalid, "malformed")
		return nil
	}
	x := n.openFor(opt, q.name)
	if x == nil {
		return nil
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	n.reply(opt, repInfo, n.appendExport(b, x))
	if slices.Contains(q.wants, infoName) {
		b = binary.BigEndian.AppendUint16(nil, infoName)
		n.reply(opt, repInfo, append(b, x.name...))
	}
	b = binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, minimumBlock)
	b = binary.BigEndian.AppendUint32(b, x.preferred)
	b = binary.BigEndian.AppendUint32(b, uint32(n.MaxRequest))
	n.reply(opt, repInfo, b)
	n.reply(opt, repAck, nil)
	if opt == optInfo {
		x.release()
		return nil
	}
	return n.agree(x)
}

// exportName answers EXPORT_NAME, which ends the negotiation and can tell a
// client of no error but by closing the connection.
func (n *negotiation) exportName(name string) (*terms, error) {
	if n.ctx.Err() != nil {
		return nil, context.Cause(n.ctx)
	}
	if len(name) > maxString {
		return nil, fmt.Errorf("a name of %d bytes: %w", len(name), ErrProtocol)
	}
	x, err := n.open(name)
	if err != nil {
		return nil, err
	}
	b := n.appendExport(nil, x)
	if !n.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	n.out.Write(b)
	if err := n.out.Flush(); err != nil {
		x.release()
		return nil, err
	}
	return n.agree(x), nil
}

// appendExport appends what every way of choosing an export tells of it.
func (n *negotiation) appendExport(b []byte, x *export) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(x.size))
	return binary.BigEndian.AppendUint16(b, x.flags(n.structured))
}

func (n *negotiation) agree(x *export) *terms {
	status := n.selected != nil && *n.selected == x.name && x.allocated != nil
	return &terms{x, n.structured, status}
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT. The latter
// forgets what was selected before, even when it fails.
func (n *negotiation) metaContext(opt option, data []byte) {
	listing := opt == optListMetaContext
	if !listing {
		n.selected = nil
	}
	if !n.structured {
		n.refuse(opt, repErrInvalid, "takes structured replies")
		return
	}
	var q contextRequest
	if !q.unpack(data) {
		n.refuse(opt, repErrInvalid, "malformed")
		return
	}
	x := n.openFor(opt, q.name)
	if x == nil {
		return
	}
	defer x.release()
	if x.allocated != nil && q.finds(listing) {
		id := uint32(0) // which means nothing in a list
		if !listing {
			id = allocationContextID
			n.selected = &q.name
		}
		b := binary.BigEndian.AppendUint32(nil, id)
		n.reply(opt, repMetaContext, append(b, allocationContext...))
	}
	n.reply(opt, repAck, nil)
}

func (n *negotiation) open(name string) (*export, error) {
	b, release, err := n.Exports.Open(n.ctx, name)
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", name, err)
	}
	return newExport(name, b, release, n.MaxRequest), nil
}

// openFor opens the export that an option names, or refuses the option and
// returns nil.
func (n *negotiation) openFor(opt option, name string) *export {
	x, err := n.open(name)
	if err == nil {
		return x
	}
	kind := repErrUnknown
	if errors.Is(err, fs.ErrPermission) {
		kind = repErrPolicy
	}
	n.refuse(opt, kind, displayText(err))
	return nil
}

func (n *negotiation) refuse(opt option, kind optReply, text string) {
	n.reply(opt, kind, []byte(text))
}

// reply puts a reply into the buffer; an error shows when that is flushed.
func (n *negotiation) reply(opt option, kind optReply, data []byte) {
	b := make([]byte, 0, 20)
	b = binary.BigEndian.AppendUint64(b, magicOptReply)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	n.out.Write(b)
	n.out.Write(data)
}
