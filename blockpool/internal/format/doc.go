// Package format holds the words that the parts of a pool share about what is
// on disk: addresses, records, chunk classes and profiles. What only one part
// stores (log entries, tree nodes, labels) that part encodes itself; FORMAT.md
// in blockpool describes all of it.
//
// Decoders take hostile bytes: they return [ErrDamaged], and never panic.
package format

import "errors"

// ErrDamaged is wrapped by the error of every decoder of a pool: bytes that a
// pool wrote do not mean anything any more. It is never a bug's report.
var ErrDamaged = errors.New("damaged")

// SectorSize is the unit of allocation and of addresses, in bytes.
const SectorSize = 4096

// An Addr is a sector of the pool's raw address space. Chunks cover it without
// overlap and no address range is given to a second chunk, ever, so an address
// means the same sectors for as long as they are in use.
type Addr uint64

// Sectors returns the number of sectors that n bytes need.
func Sectors(n int64) int64 { return (n + SectorSize - 1) / SectorSize }
