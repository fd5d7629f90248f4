package stream

import (
	"errors"
	"regexp"
	"testing"
)

func TestTokenComesBack(t *testing.T) {
	for _, want := range []Token{testHeader.Token(12), setHeader.Token(1<<63 + 7)} {
		s := want.String()
		if got, err := ParseToken(s); err != nil || got != want {
			t.Errorf("%s came back as %+v, %v", s, got, err)
		}
		if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`).MatchString(s) {
			t.Errorf("%s needs quoting", s)
		}
	}
}

func TestTokenThatWasNotCopiedWholeIsRefused(t *testing.T) {
	for _, token := range []Token{testHeader.Token(12), setHeader.Token(0)} {
		mustBeNoToken(t, token.String())
	}
}

func mustBeNoToken(t *testing.T, s string) {
	bad := []string{s + "A", s + "\n", s[:20] + "\n" + s[20:], " " + s, ""}
	for i := range s {
		bad = append(bad, s[:i], s[:i]+s[i+1:])
		for _, c := range "A9-_x12" {
			if byte(c) != s[i] {
				bad = append(bad, s[:i]+string(c)+s[i+1:])
			}
		}
	}
	for _, b := range bad {
		if b == s {
			continue // one of two equal neighbours was left out
		}
		if got, err := ParseToken(b); !errors.Is(err, ErrToken) {
			t.Errorf("%q was taken as %+v, %v", b, got, err)
		}
	}
}

func TestStreamThatContinuesAnotherIsNotMixedUp(t *testing.T) {
	h := testHeader
	h.Resume = 12
	token := testHeader.Token(12)
	if !token.Continues(h) {
		t.Error("the right stream is refused")
	}
	for _, spoil := range []func(*Header){
		func(h *Header) { h.Resume = 13 }, func(h *Header) { h.To[3]++ }, func(h *Header) { h.From[3]++ },
		func(h *Header) { h.Volume[3]++ }, func(h *Header) { h.Pool[3]++ }, func(h *Header) { h.Size++ },
		func(h *Header) { h.RecordSize *= 2 },
	} {
		other := h
		spoil(&other)
		if token.Continues(other) {
			t.Errorf("%+v is taken for a continuation", other)
		}
	}
}
