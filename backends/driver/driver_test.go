package driver

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestChoiceTellsWhy(t *testing.T) {
	const obstacle = "this kernel has no such thing"
	for _, c := range []struct {
		want      Engine
		obstacles []string
		got       Engine
		why       string
		fallback  bool
	}{
		{Auto, nil, Native, "works here", true},
		{"", nil, Native, "works here", true},
		{Auto, []string{obstacle, "more"}, Userspace, obstacle, false},
		{Native, nil, Native, "asked for", false},
		{Userspace, []string{obstacle}, Userspace, "asked for", false},
		{Userspace, nil, Userspace, "asked for", false},
	} {
		got, err := Choose(c.want, c.obstacles...)
		if err != nil || got.Engine != c.got || !strings.Contains(got.Why, c.why) || got.Fallback != c.fallback {
			t.Errorf("%q with obstacles %q: %+v, %v", c.want, c.obstacles, got, err)
		}
	}
	if _, err := Choose(Native, obstacle); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), obstacle) || !strings.Contains(err.Error(), "--engine=userspace") {
		t.Errorf("asking for what cannot be: %v", err)
	}
	if _, err := Choose("fast"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "auto, native, userspace") {
		t.Errorf("an engine that does not exist: %v", err)
	}
}

func TestOptions(t *testing.T) {
	known := []Option{{Name: "size", Accepts: "bytes"}, {Name: "gone", Refused: "it needs what this has not"}}
	got, err := ParseOptions("d", known, []string{"d.size=1g", "size=2g"})
	if err != nil || got["size"] != "2g" {
		t.Errorf("%v, %v", got, err)
	}
	for given, says := range map[string]string{
		"bogus=1": "there are: size", "size": "accepted: bytes", "d.gone=1": "it needs what this has not", "other.size=1": "no such option",
	} {
		if _, err := ParseOptions("d", known, []string{given}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), given) {
			t.Errorf("%s: %v; want %q", given, err, says)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "1k": 1024, "10G": 10 << 30, "2t": 2 << 40, "3MiB": 3 << 20, " 5m ": 5 << 20} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "k", "-1", "1x", "1.5g", "9223372036854775808", "9999999999t"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("%q was taken for %d", bad, got)
		}
	}
	if got, err := ParseSize("9223372036854775807"); err != nil || got != math.MaxInt64 {
		t.Errorf("the largest size: %d, %v", got, err)
	}
}

func TestErrorsNameObjectCauseAndNextStep(t *testing.T) {
	err := &Error{Driver: "vfs", Op: "remove", Layer: "x", Cause: ErrMounted, Next: "unmount it"}
	if got, want := err.Error(), "vfs: remove x: the layer is mounted; unmount it"; got != want || !errors.Is(err, ErrMounted) {
		t.Errorf("%q, want %q", got, want)
	}
}
