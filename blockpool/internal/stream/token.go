package stream

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// A Token says where a stream that was cut off can continue. Its text is what
// the receiver prints and the sender takes; it cannot be mistaken for an option
// and needs no quoting in a shell.
type Token struct {
	Pool, Volume, From, To uint64 // as in Header
	Size                   uint64
	RecordSize             uint32
	Cursor                 uint64 // of the last Checkpoint that was applied
}

// ErrToken is wrapped when a text is no token.
var ErrToken = errors.New("not a whole resume token")

const (
	tokenPrefix = "lam1."
	tokenSize   = 56 // 6 numbers of 8 bytes, the record size, crc32c
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Token returns the token to continue the stream of h at cursor.
func (h Header) Token(cursor uint64) Token {
	return Token{h.Pool, h.Volume, h.From, h.To, h.Size, h.RecordSize, cursor}
}

// Continues tells whether a stream with header h is what the receiver that gave
// out t waits for.
func (t Token) Continues(h Header) bool { return h.Token(h.Resume) == t }

// String returns the token's text.
func (t Token) String() string {
	le := binary.LittleEndian
	var b []byte
	for _, v := range []uint64{t.Pool, t.Volume, t.From, t.To, t.Size, t.Cursor} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, t.RecordSize)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken is the inverse of [Token.String]. The error wraps [ErrToken].
func ParseToken(s string) (Token, error) {
	text, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("%.20q does not begin with %s: %w", s, tokenPrefix, ErrToken)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != tokenSize {
		return Token{}, fmt.Errorf("token of %d characters: %w", len(s), ErrToken)
	}
	le := binary.LittleEndian
	if le.Uint32(b[52:]) != crc32.Checksum(b[:52], castagnoli) {
		return Token{}, fmt.Errorf("token with a wrong checksum: %w", ErrToken)
	}
	t := Token{
		Pool: le.Uint64(b), Volume: le.Uint64(b[8:]), From: le.Uint64(b[16:]), To: le.Uint64(b[24:]),
		Size: le.Uint64(b[32:]), Cursor: le.Uint64(b[40:]), RecordSize: le.Uint32(b[48:]),
	}
	if t.String() != s { // the decoder skips line ends
		return Token{}, fmt.Errorf("token with line ends: %w", ErrToken)
	}
	h := Header{Pool: t.Pool, Volume: t.Volume, From: t.From, To: t.To, Size: t.Size, RecordSize: t.RecordSize, Resume: t.Cursor}
	if err := h.check(); err != nil {
		return Token{}, fmt.Errorf("token: %w: %w", err, ErrToken)
	}
	return t, nil
}
