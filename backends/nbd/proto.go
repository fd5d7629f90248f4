package nbd

import (
	"encoding/binary"
	"fmt"
)

// All integers are big-endian. The names are those of the protocol without the
// prefix NBD_.
const (
	magicServer     uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     uint64 = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   uint64 = 0x0003e889045565a9
	magicRequest    uint32 = 0x25609513
	magicSimple     uint32 = 0x67446698
	magicStructured uint32 = 0x668e33ef
)

// maxString is the length that no name, query or message may exceed.
const maxString = 4096

// Handshake flags of the server; the client answers with those it wants.
const (
	flagFixedNewstyle uint16 = 1 << 0
	flagNoZeroes      uint16 = 1 << 1
)

// Transmission flags.
const (
	flagHasFlags uint16 = 1 << iota
	flagReadOnly
	flagSendFlush
	flagSendFUA
	_ // ROTATIONAL
	flagSendTrim
	flagSendWriteZeroes
	flagSendDF
	flagCanMultiConn
	_ // RESIZE, experimental
	flagSendCache
	flagSendFastZero
)

// An option is what a client asks for while it negotiates.
type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optStartTLS        option = 5
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
)

// An optReply is the kind of a reply to an option.
type optReply uint32

const (
	repAck         optReply = 1
	repServer      optReply = 2
	repInfo        optReply = 3
	repMetaContext optReply = 4

	repErrUnsup    optReply = 1<<31 + 1
	repErrPolicy   optReply = 1<<31 + 2
	repErrInvalid  optReply = 1<<31 + 3
	repErrUnknown  optReply = 1<<31 + 6
	repErrShutdown optReply = 1<<31 + 7
	repErrTooBig   optReply = 1<<31 + 9
)

// Information about an export, in replies to INFO and GO.
const (
	infoExport    uint16 = 0
	infoName      uint16 = 1
	infoBlockSize uint16 = 3
)

// The one metadata context that is known here.
const (
	allocationContext   = "base:allocation"
	allocationContextID = 1
)

// States of an extent in that context.
const (
	stateHole uint32 = 1 << 0
	stateZero uint32 = 1 << 1
)

// A command is what a request asks for.
type command uint16

const (
	cmdRead command = iota
	cmdWrite
	cmdDisc
	cmdFlush
	cmdTrim
	cmdCache
	cmdWriteZeroes
	cmdBlockStatus
)

var commandNames = [...]string{"read", "write", "disconnect", "flush", "trim", "cache", "write zeroes", "block status"}

func (c command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// Command flags.
const (
	cmdFlagFUA uint16 = 1 << iota
	cmdFlagNoHole
	cmdFlagDF
	cmdFlagReqOne
	cmdFlagFastZero
)

// Chunks of structured replies.
const (
	chunkFlagDone uint16 = 1 << 0

	chunkNone        uint16 = 0
	chunkOffsetData  uint16 = 1
	chunkBlockStatus uint16 = 5
	chunkError       uint16 = 1<<15 + 1
)

// A request is the header of one, without the data of a write.
type request struct {
	flags  uint16
	cmd    command
	cookie uint64 // the client's name for it, repeated in the reply
	offset uint64
	length uint32
}

const requestSize = 28

func (r *request) pack(b []byte) {
	binary.BigEndian.PutUint32(b[0:], magicRequest)
	binary.BigEndian.PutUint16(b[4:], r.flags)
	binary.BigEndian.PutUint16(b[6:], uint16(r.cmd))
	binary.BigEndian.PutUint64(b[8:], r.cookie)
	binary.BigEndian.PutUint64(b[16:], r.offset)
	binary.BigEndian.PutUint32(b[24:], r.length)
}

func (r *request) unpack(b []byte) error {
	if m := binary.BigEndian.Uint32(b[0:]); m != magicRequest {
		return fmt.Errorf("request begins with %#08x: %w", m, ErrProtocol)
	}
	r.flags = binary.BigEndian.Uint16(b[4:])
	r.cmd = command(binary.BigEndian.Uint16(b[6:]))
	r.cookie = binary.BigEndian.Uint64(b[8:])
	r.offset = binary.BigEndian.Uint64(b[16:])
	r.length = binary.BigEndian.Uint32(b[24:])
	return nil
}

const simpleReplySize = 16

// appendSimple appends a simple reply; the data of a successful read follows it.
func appendSimple(b []byte, cookie uint64, e Errno) []byte {
	b = binary.BigEndian.AppendUint32(b, magicSimple)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

const chunkSize = 20

// appendChunk appends the head of the last chunk of a structured reply; length
// bytes of payload follow it.
func appendChunk(b []byte, cookie uint64, kind uint16, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, magicStructured)
	b = binary.BigEndian.AppendUint16(b, chunkFlagDone)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}
