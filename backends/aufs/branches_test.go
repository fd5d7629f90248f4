package aufs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/mountopt"
)

// A page of options has no room for the branches of a deep image; none is lost,
// and the order stays.
func TestBranchesBeyondAPageAreAppended(t *testing.T) {
	o := &mountopt.Options{Upper: "/u"}
	want := "/u=rw"
	for i := range 126 {
		dir := fmt.Sprintf("/var/lib/lamina/aufs/diff/%064d", i)
		o.Lower = append(o.Lower, dir)
		want += ":" + dir + "=ro+wh"
	}
	first, further := branches(o, 4095)
	if len(first) > 4095 {
		t.Errorf("%d bytes of options", len(first))
	}
	first, common, ok := strings.Cut(first, ",")
	if !ok || !strings.Contains(common, "dirperm1") {
		t.Errorf("options %q", common)
	}
	got := strings.TrimPrefix(first, "br:")
	for _, b := range further {
		got += ":" + b
	}
	if got != want {
		t.Errorf("branches %q", got)
	}
	if first, further := branches(&mountopt.Options{Lower: []string{"/a", "/b"}}, 4095); first != "br:/a=ro+wh:/b=ro+wh,dirperm1,xino=/dev/shm/aufs.xino" || further != nil {
		t.Errorf("a read-only view: %q, %q", first, further)
	}
}
