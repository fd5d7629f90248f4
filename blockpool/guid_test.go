package blockpool

import "testing"

func TestATextThatIsNoGUIDIsRefused(t *testing.T) {
	g := newGUID()
	var back GUID
	if err := back.UnmarshalText([]byte(g.String())); err != nil || back != g {
		t.Errorf("%v became %v, %v", g, back, err)
	}
	for _, bad := range []string{"", "00", g.String() + "00", g.String()[1:] + "x"} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
