package dm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ControlPath is the device through which all is done.
const ControlPath = "/dev/mapper/control"

// Commands of the ioctl.
const (
	cmdVersion       = 0
	cmdListDevices   = 2
	cmdDevCreate     = 3
	cmdDevRemove     = 4
	cmdDevSuspend    = 6 // and resume
	cmdDevStatus     = 7
	cmdTableLoad     = 9
	cmdTableStatus   = 12
	cmdListVersions  = 13
	cmdTargetMsg     = 14
	cmdTargetVersion = 17
)

// Flags of a request or an answer.
const (
	flagReadOnly    = 1 << 0
	flagSuspend     = 1 << 1
	flagStatusTable = 1 << 4
	flagBufferFull  = 1 << 8
	flagDeferred    = 1 << 17
)

// header is struct dm_ioctl, as long as the kernel's.
type header struct {
	Version     [3]uint32
	DataSize    uint32
	DataStart   uint32
	TargetCount uint32
	OpenCount   int32
	Flags       uint32
	EventNr     uint32
	_           uint32
	Dev         uint64
	Name        [128]byte
	UUID        [129]byte
	_           [7]byte
}

const headerSize = int(unsafe.Sizeof(header{}))

// ioctlNumber is _IOWR(0xfd, cmd, struct dm_ioctl).
func ioctlNumber(cmd uintptr) uintptr { return 3<<30 | uintptr(headerSize)<<16 | 0xfd<<8 | cmd }

// MaxName is the longest name of a device in bytes.
const MaxName = 127

// udevHandsOff are flags for the rules that come with device-mapper: do not look
// into the device (DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG, …_DISK_…, …_OTHER_… and
// DM_UDEV_PRIMARY_SOURCE_FLAG of libdevmapper.h, shifted by DM_UDEV_FLAGS_SHIFT).
const udevHandsOff = (0x02 | 0x04 | 0x08 | 0x40) << 16

// A request is one call of the ioctl.
type request struct {
	cmd     uintptr
	name    string
	flags   uint32
	event   uint32
	targets uint32
	payload []byte
}

// An answer is what came back.
type answer struct {
	header
	data []byte
}

// A Control is the open control device. Its methods may be called side by side.
type Control struct{ f *os.File }

// Open opens the control device. Missing device-mapper and missing privileges are
// the errors of opening a file.
func Open() (*Control, error) {
	f, err := os.OpenFile(ControlPath, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Control{f}, nil
}

// Close closes it.
func (c *Control) Close() error { return c.f.Close() }

// do calls the ioctl, with a larger buffer as long as the answer does not fit.
func (c *Control) do(r request) (*answer, error) {
	if len(r.name) > MaxName {
		return nil, fmt.Errorf("%q: %w", r.name, unix.ENAMETOOLONG)
	}
	for room := 4096; ; room *= 4 {
		size := headerSize + max(room, len(r.payload))
		buf := make([]byte, size)
		h := header{
			Version: [3]uint32{4, 0, 0}, DataSize: uint32(size), DataStart: uint32(headerSize),
			TargetCount: r.targets, Flags: r.flags, EventNr: r.event,
		}
		copy(h.Name[:], r.name)
		if _, err := binary.Encode(buf, binary.NativeEndian, &h); err != nil {
			return nil, err
		}
		copy(buf[headerSize:], r.payload)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.f.Fd(), ioctlNumber(r.cmd), uintptr(unsafe.Pointer(&buf[0])))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return nil, errno
		}
		a := &answer{}
		if _, err := binary.Decode(buf, binary.NativeEndian, &a.header); err != nil {
			return nil, err
		}
		if a.Flags&flagBufferFull != 0 {
			continue
		}
		// An answer without data is said to end before the padding of the structure.
		if end, start := min(int(a.DataSize), size), int(a.DataStart); start < end {
			a.data = buf[start:end]
		}
		return a, nil
	}
}

// text reads a string that ends with a zero byte, or with the buffer.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
