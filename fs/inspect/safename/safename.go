// Package safename shows names of files that strangers chose: bytes that may
// hold newlines, escape sequences of terminals, or no valid UTF-8.
//
//	name        terminal (as ls)      JSON            valid text
//	a b         'a b'                 "a b"           a b
//	a\nb        'a'$'\n''b'           "a\nb"          a\x0ab
//	\x1b[2J     ''$'\033''[2J'        "\u001b[2J"     \x1b[2J
//	\xff        ''$'\377'             "\\xff"         \xff
//	a\b         'a\b'                 "a\\\\b"        a\\b
//
// Each form can be turned back into the bytes: the first by a shell, the second
// by a JSON parser and [Decode], the third by Decode alone.
package safename

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain are the bytes that need no quotes in a shell.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:,@%"

// Terminal returns the name as ls shows it on a terminal (the quoting style
// shell-escape): as it is if that is harmless, else so that a shell reads the
// same bytes. What the terminal might not show as one character for each is
// escaped, text that changes direction included.
func Terminal(name string) string {
	if name != "" && strings.Trim(name, plain) == "" {
		return name
	}
	harmless := name != "" && !strings.ContainsAny(name, "'\" \\$`&|;<>()*?[]{}!#~^")
	var b strings.Builder
	b.WriteByte('\'')
	escaping := false
	turn := func(on bool) {
		if on != escaping {
			b.WriteString(map[bool]string{true: "'$'", false: "''"}[on])
			escaping = on
		}
	}
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && n == 1 || !unicode.IsPrint(r):
			harmless = false
			turn(true)
			for _, c := range []byte(name[i : i+n]) {
				b.WriteString(escape(c))
			}
		case r == '\'':
			turn(false)
			b.WriteString(`'\''`)
		default:
			turn(false)
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	b.WriteByte('\'')
	if harmless {
		return name
	}
	return b.String()
}

func escape(c byte) string {
	switch c {
	case '\n':
		return `\n`
	case '\t':
		return `\t`
	case '\r':
		return `\r`
	}
	return fmt.Sprintf(`\%03o`, c)
}

// Text returns valid, printable UTF-8 that [Decode] turns back into the name: a
// backslash is \\, and what is not printable or not UTF-8 is \xNN for each byte.
func Text(name string) string {
	return encode(name, func(r rune) bool { return unicode.IsPrint(r) })
}

// Valid returns valid UTF-8 that [Decode] turns back into the name, with only
// backslashes and bytes that are not UTF-8 escaped.
func Valid(name string) string { return encode(name, func(rune) bool { return true }) }

func encode(name string, keep func(rune) bool) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && n == 1 || !keep(r):
			for _, c := range []byte(name[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Decode returns the name that [Text] or [Valid] was made of.
func Decode(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		rest := text[i+1:]
		switch {
		case strings.HasPrefix(rest, `\`):
			b.WriteByte('\\')
			i++
		case len(rest) >= 3 && rest[0] == 'x':
			c, err := strconv.ParseUint(rest[1:3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("%q: no byte after \\x at offset %d", text, i)
			}
			b.WriteByte(byte(c))
			i += 3
		default:
			return "", fmt.Errorf("%q: a backslash that escapes nothing at offset %d", text, i)
		}
	}
	return b.String(), nil
}

// A JSON is a name that is encoded as [Valid], with everything that a terminal
// might take for more than a character escaped.
type JSON string

// MarshalJSON implements json.Marshaler.
func (n JSON) MarshalJSON() ([]byte, error) {
	out := []byte{'"'}
	for _, r := range Valid(string(n)) {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return append(out, '"'), nil
}
