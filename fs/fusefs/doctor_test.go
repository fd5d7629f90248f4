package fusefs

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

func TestSubordinateIDsAreCounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("root:1:5\nme:100000:65536\n1001:300000:10\nme:broken\nmyself:1:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"me": 65546, "you": 10, "nobody": 10} {
		if got := subordinate(file, &user.User{Username: name, Uid: "1001"}); got != want {
			t.Errorf("%s has %d ids, want %d", name, got, want)
		}
	}
	if got := subordinate(file+"none", &user.User{Username: "me"}); got != 0 {
		t.Errorf("%d ids without a file", got)
	}
}

func TestFuseConfSwitchMustStandAlone(t *testing.T) {
	for text, want := range map[string]bool{
		"# x\nuser_allow_other\n": true, " user_allow_other ": true, "#user_allow_other": false, "user_allow_other=1": false, "": false,
	} {
		if got := hasLine(text, "user_allow_other"); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Without a way to mount, the report must not say that there is one.
func TestExamineFindsNoWayWhenTheProbeFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("for others fusermount3 is a way that needs no probe")
	}
	t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	dir := t.TempDir()
	t.Setenv("LAMINA_TEST_PROBE", `{"fuse":"no way","overlay":"none"}`)
	if r := Examine(dir); r.CanMount || len(r.Ways) != 0 || !hasFinding(r, StatusMissing, "no way") {
		t.Errorf("%+v", r)
	}
	t.Setenv("LAMINA_TEST_PROBE", `{}`)
	if r := Examine(dir); !r.CanMount || len(r.Ways) != 2 {
		t.Errorf("%+v", r)
	}
	t.Setenv("LAMINA_TEST_PROBE", `nonsense`)
	if r := Examine(dir); r.CanMount {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func hasFinding(r Report, status, says string) bool {
	for _, f := range r.Findings {
		if f.Status == status && strings.Contains(f.Detail, says) {
			return true
		}
	}
	return false
}
