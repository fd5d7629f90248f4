package devicemapper

import (
	"errors"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
)

// Who brings the options of Docker's driver gets what they say, or is told why not.
func TestOptions(t *testing.T) {
	s, err := parseOptions([]string{
		"dm.basesize=20G", "dm.loopdatasize=200G", "dm.loopmetadatasize=4G", "dm.blocksize=512K", "dm.fs=ext4", "dm.mkfsarg=-m 0 -I 256",
		"dm.mountopt=nodiscard,noatime", "dm.blkdiscard=false", "dm.min_free_space=15%",
		"dm.use_deferred_removal=true", "dm.use_deferred_deletion=false", "dm.xfs_nospace_max_retries=0", "dm.override_udev_sync_check=true",
		"devicemapper.size=30G",
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.baseSize != 20<<30 || s.dataSize != 200<<30 || s.metadataSize != 4<<30 || s.blockSize != 512<<10 || s.filesystem != ext4 ||
		strings.Join(s.mkfsArgs, "|") != "-m|0|-I|256" || s.mountOptions != "nodiscard,noatime" ||
		*s.discard || s.minFree != 15 || !s.deferRemove || s.deferDelete || s.xfsRetries != "0" || s.size != 30<<30 {
		t.Errorf("%+v", s)
	}
	if s, err = parseOptions(nil); err != nil || s.baseSize != 10<<30 || s.dataSize != 100<<30 || s.metadataSize != 2<<30 || s.blockSize != 64<<10 || s.minFree != 10 {
		t.Errorf("the defaults are Docker's: %+v, %v", s, err)
	}
	if s, err = parseOptions([]string{"dm.thinpooldev=/dev/mapper/vg-pool"}); err != nil || s.thinPool != "vg-pool" {
		t.Errorf("%q, %v", s.thinPool, err)
	}
	if s, err = parseOptions([]string{"dm.datadev=/dev/d", "dm.metadatadev=/dev/m", "dm.blocksize=128k"}); err != nil || s.dataDev != "/dev/d" || s.metadataDev != "/dev/m" {
		t.Errorf("%+v, %v", s, err)
	}
	for given, says := range map[string]string{
		"dm.fs=btrfs":                      "xfs and ext4",
		"dm.blocksize=96k":                 "multiples of 64k",
		"dm.blocksize=2g":                  "1g at most",
		"dm.min_free_space=10":             "percentage",
		"dm.min_free_space=100%":           "percentage",
		"dm.datadev=/dev/d":                "dm.metadatadev",
		"dm.blkdiscard=perhaps":            "true and false",
		"dm.basesize=big":                  "no size",
		"dm.xfs_nospace_max_retries=-2":    "-1 for ever",
		"dm.directlvm_device=/dev/d":       "dm.thinpooldev",
		"dm.thinp_percent=95":              "lvcreate",
		"dm.thinp_metapercent=1":           "lvcreate",
		"dm.thinp_autoextend_threshold=80": "lvcreate",
		"dm.thinp_autoextend_percent=20":   "lvcreate",
		"dm.use_deferred_deletion=true|dm.use_deferred_removal=false":    "use_deferred_removal",
		"dm.thinpooldev=p|dm.datadev=/dev/d|dm.metadatadev=/dev/m":       "has its devices",
		"dm.thinpooldev=p|dm.blocksize=64k":                              "dm.blocksize is not supported",
		"dm.thinpooldev=p|dm.loopdatasize=1g":                            "as it was made",
		"dm.datadev=/dev/d|dm.metadatadev=/dev/m|dm.loopmetadatasize=1g": "their sizes",
		"dm.bogus=1":     "no such option",
		"dm.backing=lvm": "loop, dataset and fuse2fs",
	} {
		_, err := parseOptions(strings.Split(given, "|"))
		var e *driver.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", given, err, says)
		}
	}
}

// What the userspace engine's pool cannot be is refused, not passed over.
func TestOptionsOfThePool(t *testing.T) {
	for given, says := range map[string]string{"dm.thinpooldev=p": "pool of the kernel's", "dm.blocksize=256k": "128k"} {
		s, err := parseOptions([]string{given})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := poolConfig(&s); !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", given, err, says)
		}
	}
}

// Refusing a new layer needs the right counts, which the kernel tells as text.
func TestThinStatus(t *testing.T) {
	s, err := parseThinStatus("4 141/524288 1024/1638400 - rw discard_passdown queue_if_no_space - 1024")
	if err != nil || s != (thinStatus{141, 524288, 1024, 1638400, "rw", false}) {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = parseThinStatus("1 5/10 7/7 - out_of_data_space discard_passdown queue_if_no_space needs_check 1024"); err != nil || s.mode != "out_of_data_space" || !s.needsCheck {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "Fail", "Error", "1 x/2 3/4 - rw", "1 2/3 4 - rw"} {
		if s, err := parseThinStatus(bad); err == nil {
			t.Errorf("%q was taken for %+v", bad, s)
		}
	}
}

func TestShortOfSpace(t *testing.T) {
	for _, c := range []struct {
		space space
		what  string
	}{
		{space{80, 100, 0, 0}, ""},
		{space{91, 100, 0, 0}, "data"},
		{space{10, 100, 91, 100}, "metadata"},
		{space{90, 100, 90, 100}, ""},
	} {
		if what, _, _, short := c.space.short(10); what != c.what || short != (c.what != "") {
			t.Errorf("%+v: short of %q", c.space, what)
		}
	}
}
