package thinxml

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// maxTag is the most bytes that one tag may have, its attributes included.
// thin_dump's longest has about 250.
const maxTag = 4096

// A tag is the beginning or the end of an element. Its slices are valid until
// the next one is read.
type tag struct {
	name  []byte
	end   bool
	attrs []attr
	line  int
}

type attr struct{ name, value []byte }

// A scanner cuts XML into tags. It knows as much of XML as thin_dump prints and
// people write by hand: comments and a declaration at the start are skipped;
// anything else but tags and white space is refused. <a/> becomes <a></a>.
type scanner struct {
	r       *bufio.Reader
	line    int
	buf     []byte
	tag     tag
	half    bool // tag was <a/>, its end is due
	started bool // something other than white space was seen
}

func newScanner(r io.Reader) *scanner {
	s := &scanner{r: bufio.NewReaderSize(r, 64<<10), line: 1}
	if bom, _ := s.r.Peek(3); string(bom) == "\xef\xbb\xbf" {
		s.r.Discard(3) // cannot fail: they were peeked at
	}
	return s
}

// next returns the next tag, io.EOF behind the last.
func (s *scanner) next() (*tag, error) {
	if s.half {
		s.half = false
		s.tag.end, s.tag.attrs = true, s.tag.attrs[:0]
		return &s.tag, nil
	}
	for {
		if err := s.skipSpace(); err != nil {
			return nil, err
		}
		first := !s.started
		s.started = true
		b, err := s.r.Peek(1)
		switch {
		case err != nil:
			return nil, s.truncated(err, "a tag")
		case b[0] == '?' && first:
			err = s.skipTo("?>")
		case b[0] == '!':
			err = s.skipComment()
		default:
			return s.readTag()
		}
		if err != nil {
			return nil, err
		}
	}
}

// skipSpace reads up to and including the next '<'.
func (s *scanner) skipSpace() error {
	for {
		switch c, err := s.byte(); {
		case err == io.EOF:
			return io.EOF
		case err != nil:
			return fmt.Errorf("read thin metadata: %w", err)
		case c == '<':
			return nil
		case !space(c):
			return s.bad("%q where only a tag or white space can be", c)
		}
	}
}

func (s *scanner) skipComment() error {
	if b, _ := s.r.Peek(3); string(b) != "!--" {
		return s.bad("a declaration or CDATA, which thin metadata does not have")
	}
	s.r.Discard(3) // cannot fail: they were peeked at
	return s.skipTo("-->")
}

func (s *scanner) skipTo(end string) error {
	var last [3]byte
	for {
		c, err := s.byte()
		if err != nil {
			return s.truncated(err, "a comment")
		}
		last = [3]byte{last[1], last[2], c}
		if bytes.HasSuffix(last[:], []byte(end)) {
			return nil
		}
	}
}

func (s *scanner) readTag() (*tag, error) {
	s.tag.line = s.line
	s.buf = s.buf[:0]
	quote := byte(0)
	for {
		part, err := s.r.ReadSlice('>')
		s.line += bytes.Count(part, []byte{'\n'})
		switch {
		case bytes.IndexByte(part, '<') >= 0:
			return nil, s.bad("< within a tag")
		case len(s.buf)+len(part) > maxTag:
			return nil, s.bad("tag %.20q… has more than %d bytes", append(s.buf, part...), maxTag)
		case err != nil:
			return nil, s.truncated(err, "a tag")
		}
		s.buf = append(s.buf, part...)
		if quote = openQuote(quote, part); quote == 0 {
			return s.parseTag(s.buf[:len(s.buf)-1])
		}
	}
}

// openQuote returns the quote that is open behind b when the one given was
// before it, 0 for none.
func openQuote(quote byte, b []byte) byte {
	for _, c := range b {
		if quote == 0 && (c == '"' || c == '\'') {
			quote = c
		} else if c == quote {
			quote = 0
		}
	}
	return quote
}

// parseTag takes what is between < and >.
func (s *scanner) parseTag(b []byte) (*tag, error) {
	t := &s.tag
	t.end, t.attrs = false, t.attrs[:0]
	if len(b) > 0 && b[0] == '/' {
		t.end, b = true, b[1:]
	} else if len(b) > 0 && b[len(b)-1] == '/' {
		s.half, b = true, b[:len(b)-1]
	}
	if t.name, b = cutName(b); len(t.name) == 0 {
		return nil, s.bad("a tag without a name")
	}
	for {
		rest := bytes.TrimLeft(b, spaces)
		if len(rest) == 0 {
			break
		}
		var a attr
		if a.name, b = cutName(rest); len(a.name) == 0 || len(rest) == len(b) || t.end {
			return nil, s.badIn(t, "", fmt.Sprintf("%.20q where an attribute or the end can be", rest))
		}
		var why string
		if a.value, b, why = cutValue(b); why != "" {
			return nil, s.badIn(t, string(a.name), why)
		}
		if len(b) > 0 && !space(b[0]) {
			return nil, s.badIn(t, string(a.name), "no white space behind the value")
		}
		for _, other := range t.attrs {
			if bytes.Equal(other.name, a.name) {
				return nil, s.badIn(t, string(a.name), "twice")
			}
		}
		t.attrs = append(t.attrs, a)
	}
	return t, nil
}

func cutName(b []byte) (name, rest []byte) {
	n := 0
	for n < len(b) && (b[n] == '_' || b[n] == '-' || 'a' <= b[n]|0x20 && b[n]|0x20 <= 'z' || n > 0 && '0' <= b[n] && b[n] <= '9') {
		n++
	}
	return b[:n], b[n:]
}

// cutValue takes ="value" off b. why says what is wrong, if something is.
func cutValue(b []byte) (value, rest []byte, why string) {
	b = bytes.TrimLeft(b, spaces)
	if len(b) == 0 || b[0] != '=' {
		return nil, nil, "no value"
	}
	b = bytes.TrimLeft(b[1:], spaces)
	if len(b) == 0 || b[0] != '"' && b[0] != '\'' {
		return nil, nil, "a value without quotes"
	}
	end := bytes.IndexByte(b[1:], b[0])
	if end < 0 {
		return nil, nil, "a value without its closing quote"
	}
	value, rest = b[1:1+end], b[2+end:]
	if bytes.IndexByte(value, '&') >= 0 {
		value, why = unescape(value)
	}
	return value, rest, why
}

var entities = map[string]byte{"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\''}

// unescape resolves entities in place: what they stand for is never longer.
func unescape(b []byte) (out []byte, why string) {
	out = b[:0]
	for len(b) > 0 {
		if b[0] != '&' {
			out, b = append(out, b[0]), b[1:]
			continue
		}
		end := bytes.IndexByte(b, ';')
		if end < 0 {
			return nil, "& that begins no entity"
		}
		name := string(b[1:end])
		b = b[end+1:]
		if c, ok := entities[name]; ok {
			out = append(out, c)
		} else if r, ok := charRef(name); ok {
			out = utf8.AppendRune(out, r)
		} else {
			return nil, fmt.Sprintf("&%.20s; stands for nothing", name)
		}
	}
	return out, ""
}

// charRef resolves #10 and #x0a.
func charRef(name string) (rune, bool) {
	if len(name) < 2 || name[0] != '#' {
		return 0, false
	}
	digits, base := name[1:], 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 21)
	return rune(n), err == nil && n != 0 && utf8.ValidRune(rune(n))
}

func (s *scanner) byte() (byte, error) {
	c, err := s.r.ReadByte()
	if c == '\n' && err == nil {
		s.line++
	}
	return c, err
}

const spaces = " \t\r\n"

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func (s *scanner) bad(format string, args ...any) *Error {
	return &Error{Line: s.line, Why: fmt.Sprintf(format, args...)}
}

func (s *scanner) badIn(t *tag, attr, why string) *Error {
	return &Error{Line: t.line, Element: string(t.name), Attr: attr, Why: why}
}

// truncated makes an error of one that came in the middle of what.
func (s *scanner) truncated(err error, what string) error {
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read thin metadata: %w", err)
	}
	e := s.bad("the text ends within %s", what)
	e.cause = io.ErrUnexpectedEOF
	return e
}
