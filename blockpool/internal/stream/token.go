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
	Pool, Volume, From, To ID // as in Header
	Size                   uint64
	RecordSize             uint32
	Cursor                 uint64 // of the last Checkpoint that was applied
}

// ErrToken is wrapped when a text is no token.
var ErrToken = errors.New("not a whole resume token")

const (
	tokenPrefix = "lam1."
	tokenSize   = 4*16 + 3*8 // 4 ids, 2 numbers of 8 bytes, the record size, crc32c
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
	for _, id := range []ID{t.Pool, t.Volume, t.From, t.To} {
		b = append(b, id[:]...)
	}
	b = le.AppendUint64(b, t.Size)
	b = le.AppendUint64(b, t.Cursor)
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
	if sum := b[tokenSize-4:]; le.Uint32(sum) != crc32.Checksum(b[:tokenSize-4], castagnoli) {
		return Token{}, fmt.Errorf("token with a wrong checksum: %w", ErrToken)
	}
	t := Token{
		Pool: ID(b), Volume: ID(b[16:]), From: ID(b[32:]), To: ID(b[48:]),
		Size: le.Uint64(b[64:]), Cursor: le.Uint64(b[72:]), RecordSize: le.Uint32(b[80:]),
	}
	if t.String() != s { // the decoder skips line ends
		return Token{}, fmt.Errorf("token with line ends: %w", ErrToken)
	}
	h := Header{Pool: t.Pool, Volume: t.Volume, From: t.From, To: t.To, Size: t.Size, RecordSize: t.RecordSize, Resume: t.Cursor}
	if t.Size == 0 { // a volume has a size
		h.Features = []string{FeatureDataset}
	}
	if err := h.check(); err != nil {
		return Token{}, fmt.Errorf("token: %w: %w", err, ErrToken)
	}
	return t, nil
}
