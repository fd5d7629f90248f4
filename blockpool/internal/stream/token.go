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
	Dataset                bool
	Cursor                 uint64 // of the last Checkpoint that was applied
}

// ErrToken is wrapped when a text is no token.
var ErrToken = errors.New("not a whole resume token")

const (
	tokenPrefix = "lam1."    // of a volume
	tokenOfSet  = "lam2."    // of a dataset
	tokenSize   = 4*16 + 3*8 // 4 ids, 2 numbers of 8 bytes, the record size, crc32c
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Token returns the token to continue the stream of h at cursor.
func (h Header) Token(cursor uint64) Token {
	return Token{h.Pool, h.Volume, h.From, h.To, h.Size, h.RecordSize, h.Dataset, cursor}
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
	b = le.AppendUint32(b, tokenSum(b, t.Dataset))
	prefix := tokenPrefix
	if t.Dataset {
		prefix = tokenOfSet
	}
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// tokenSum is the checksum of a token's bytes, and with that of a dataset also of
// its prefix.
func tokenSum(b []byte, dataset bool) uint32 {
	sum := uint32(0)
	if dataset {
		sum = crc32.Checksum([]byte(tokenOfSet), castagnoli)
	}
	return crc32.Update(sum, castagnoli, b)
}

// ParseToken is the inverse of [Token.String]. The error wraps [ErrToken].
func ParseToken(s string) (Token, error) {
	text, ok := strings.CutPrefix(s, tokenPrefix)
	dataset := false
	if !ok {
		text, dataset = strings.CutPrefix(s, tokenOfSet)
	}
	if !ok && !dataset {
		return Token{}, fmt.Errorf("%.20q does not begin with %s or %s: %w", s, tokenPrefix, tokenOfSet, ErrToken)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != tokenSize {
		return Token{}, fmt.Errorf("token of %d characters: %w", len(s), ErrToken)
	}
	le := binary.LittleEndian
	if sum := b[tokenSize-4:]; le.Uint32(sum) != tokenSum(b[:tokenSize-4], dataset) {
		return Token{}, fmt.Errorf("token with a wrong checksum: %w", ErrToken)
	}
	t := Token{
		Pool: ID(b), Volume: ID(b[16:]), From: ID(b[32:]), To: ID(b[48:]),
		Size: le.Uint64(b[64:]), Cursor: le.Uint64(b[72:]), RecordSize: le.Uint32(b[80:]), Dataset: dataset,
	}
	if t.String() != s { // the decoder skips line ends
		return Token{}, fmt.Errorf("token with line ends: %w", ErrToken)
	}
	h := Header{Pool: t.Pool, Volume: t.Volume, From: t.From, To: t.To, Size: t.Size, RecordSize: t.RecordSize, Dataset: t.Dataset, Resume: t.Cursor}
	if err := h.check(); err != nil {
		return Token{}, fmt.Errorf("token: %w: %w", err, ErrToken)
	}
	return t, nil
}
