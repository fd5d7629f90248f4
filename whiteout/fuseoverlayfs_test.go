package whiteout

import (
	"errors"
	"strings"
	"testing"
)

func TestStoredOwnersAndModesAreReadAsEveryWriterWroteThem(t *testing.T) {
	for _, c := range []struct {
		value string
		want  OverrideStat
		canon string // "" where Encode gives the value itself
	}{
		{"0:0:755", OverrideStat{Mode: 0o755}, ""}, // fuse-overlayfs 1.x
		{"0:0:755:dir", OverrideStat{Mode: 0o755, Type: typeDir}, ""},
		{"1000:100:4755:file", OverrideStat{UID: 1000, GID: 100, Mode: 0o4755, Type: typeRegular}, ""},
		{"0:0:777:symlink", OverrideStat{Mode: 0o777, Type: typeSymlink}, ""},
		{"0:0:600:pipe", OverrideStat{Mode: 0o600, Type: typePipe}, ""},
		{"0:0:600:socket", OverrideStat{Mode: 0o600, Type: typeSocket}, ""},
		{"0:6:660:block-8-0", OverrideStat{GID: 6, Mode: 0o660, Type: typeBlock, Major: 8}, ""},
		{"0:5:620:char-136-4294967295", OverrideStat{GID: 5, Mode: 0o620, Type: typeChar, Major: 136, Minor: 1<<32 - 1}, ""},
		{"0:6:660:block8:0", OverrideStat{GID: 6, Mode: 0o660, Type: typeBlock, Major: 8}, "0:6:660:block-8-0"}, // fuse-overlayfs 2
		{"0:0:666:char1:3", OverrideStat{Mode: 0o666, Type: typeChar, Major: 1, Minor: 3}, "0:0:666:char-1-3"},
		{"0:0:0755:dir", OverrideStat{Mode: 0o755, Type: typeDir}, "0:0:755:dir"}, // containers/storage
		{"-1:-2:644", OverrideStat{UID: 1<<32 - 1, GID: 1<<32 - 2, Mode: 0o644}, "4294967295:4294967294:644"},
		{"0:0:40755", OverrideStat{Mode: 0o755}, "0:0:755"}, // C line, from mkdir
		{"0:0:755\x00", OverrideStat{Mode: 0o755}, "0:0:755"},
	} {
		s, err := ParseOverrideStat([]byte(c.value))
		if err != nil || s != c.want {
			t.Errorf("%q: %+v, %v", c.value, s, err)
		}
		if c.canon == "" {
			c.canon = c.value
		}
		if got := string(s.Encode()); got != c.canon {
			t.Errorf("%q became %q", c.value, got)
		}
	}
	for _, value := range []string{"", "0", "0:0", "0:0:", "0:0:755:", "0:0:755:door", "0:0:755:dir:x", "x:0:755",
		"0:4294967296:755", "0:-2147483649:755", "0:0:8", "0:0:-1", "0:0:7777777", "0:0:755:block", "0:0:755:block-1",
		"0:0:755:char-1-", "0:0:755:char-1-2-3", "0:0:755:char--1-2", "+1:0:755", "0:0:755:file\n"} {
		if s, err := ParseOverrideStat([]byte(value)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %+v, %v", value, s, err)
		}
	}
}

// With xattr_permissions=2 a user who owns a file may write all of user.*. He
// must not be able to write what is then shown to him as security.capability.
func TestUserCannotForgeWhatIsStoredForHim(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{
		"user.a", "user.containers.x", "security.capability", "trusted.overlay.opaque", "user.overlay.origin",
		"user.fuseoverlayfs.opaque", "user.fuseoverlayfs.override_stat", "security.fuseoverlayfs.override_stat",
		"user.containers.override_stat", "user.containers.override_security.capability",
		"user.containers.override_user.containers.override_stat", "system.posix_acl_access",
	} {
		stored, ok := EscapeOverride(name)
		if !ok {
			t.Errorf("%s: refused", name)
		}
		if other, taken := seen[stored]; taken {
			t.Errorf("%s and %s are both stored as %s", name, other, stored)
		}
		seen[stored] = name
		if stored == OverrideStatContainers || strings.HasPrefix(stored, "security.") {
			t.Errorf("%s: stored as %s", name, stored)
		}
		if shown, ok := UnescapeOverride(stored); !ok || shown != name {
			t.Errorf("%s: stored as %s, shown as %q, %v", name, stored, shown, ok)
		}
	}
	for _, hidden := range []string{OverrideStatContainers, OverrideStatUser, OverrideStatSecurity,
		FuseOverlayfsOpaque, FuseOverlayfsOrigin, "trusted.overlay.origin", "user.overlay.opaque", "security.selinux"} {
		if shown, ok := UnescapeOverride(hidden); ok {
			t.Errorf("%s is shown as %s", hidden, shown)
		}
	}
	if shown, ok := UnescapeOverride("user.containers.override_x"); !ok || shown != "user.containers.override_x" {
		t.Errorf("an older layer's xattr is shown as %q, %v", shown, ok)
	}
	if _, ok := EscapeOverride("security." + strings.Repeat("n", 230)); ok {
		t.Error("a stored name of 264 bytes was accepted")
	}
}

func TestFuseOverlayfsOpaqueValues(t *testing.T) {
	for value, want := range map[string]bool{"y": true, "yes": true, "": false, "n": false, "x": false,
		"y" + strings.Repeat(" ", 15): true, "y" + strings.Repeat(" ", 16): false} {
		if FuseOverlayfsOpaqueValue([]byte(value)) != want {
			t.Errorf("%q: not %v", value, want)
		}
	}
}
