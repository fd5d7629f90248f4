package blockpool

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// A GUID names a pool, device, volume or snapshot for good.
type GUID [16]byte

func newGUID() (g GUID) {
	rand.Read(g[:]) // never fails: see crypto/rand
	return g
}

// String returns 32 hexadecimal digits.
func (g GUID) String() string { return hex.EncodeToString(g[:]) }

// MarshalText returns what String returns.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (g *GUID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(g) {
		return fmt.Errorf("%.40q is no guid of %d hexadecimal digits", b, 2*len(g))
	}
	if _, err := hex.Decode(g[:], b); err != nil {
		return fmt.Errorf("%q is no guid of %d hexadecimal digits", b, 2*len(g))
	}
	return nil
}
