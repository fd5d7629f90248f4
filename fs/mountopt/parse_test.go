package mountopt

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func parse(t *testing.T, lists ...string) Options {
	t.Helper()
	o, err := Parse(lists...)
	if err != nil {
		t.Fatalf("Parse(%q): %v", lists, err)
	}
	return o
}

func ptr[T any](v T) *T { return &v }

// What a user loses when an escape is read wrongly: another directory, or none,
// is mounted.
func TestLowerDirectoriesAreSplitAtPlainColonsOnly(t *testing.T) {
	for _, c := range []struct {
		value string
		lower []string
		data  []string
	}{
		{`a`, []string{"a"}, nil},
		{`a:b:c`, []string{"a", "b", "c"}, nil},
		{`:a:b:`, []string{"a", "b"}, nil},
		{`a\:b:c`, []string{"a:b", "c"}, nil},
		{`a\\:b:c`, []string{"a:b", "c"}, nil},
		{`a\\\:b`, []string{`a\:b`}, nil},
		{`a\\\\:b`, []string{`a\\`, "b"}, nil},
		{`a\134:b`, []string{`a\`, "b"}, nil},
		{`a\072b:c`, []string{"a:b", "c"}, nil},
		{`a\,b:c`, []string{"a,b", "c"}, nil},
		{`a\054b`, []string{"a,b"}, nil},
		{`a\ b`, []string{"a b"}, nil},
		{`a\`, []string{`a\`}, nil},
		{`a::d1::d2`, []string{"a"}, []string{"d1", "d2"}},
		{`a:b::d\:1`, []string{"a", "b"}, []string{"d:1"}},
		{`l/A:l/A/../diff1`, []string{"l/A", "l/A/../diff1"}, nil},
		{`same:same`, []string{"same", "same"}, nil},
		{"\xff\xfe:\u00e4", []string{"\xff\xfe", "ä"}, nil},
		{``, nil, nil},
	} {
		o := parse(t, "lowerdir="+c.value)
		if !slices.Equal(o.Lower, c.lower) || !slices.Equal(o.DataOnly, c.data) {
			t.Errorf("lowerdir=%s\n got %q data %q\nwant %q data %q", c.value, o.Lower, o.DataOnly, c.lower, c.data)
		}
	}
}

func TestLowersAddedOneByOneGoBelow(t *testing.T) {
	o := parse(t, `lowerdir=a:b,lowerdir+=c:d,datadir+=e,datadir+=f\,g`)
	if want := []string{"a", "b", "c:d"}; !slices.Equal(o.Lower, []string{"a", "b", "c:d"}) {
		t.Errorf("lower %q, want %q", o.Lower, want)
	}
	if want := []string{"e", "f,g"}; !slices.Equal(o.DataOnly, want) {
		t.Errorf("data-only %q, want %q", o.DataOnly, want)
	}
	if o = parse(t, "lowerdir=a::d,lowerdir=x"); len(o.DataOnly) != 0 || !slices.Equal(o.Lower, []string{"x"}) {
		t.Errorf("a repeated lowerdir must replace all layers, got %q data %q", o.Lower, o.DataOnly)
	}
}

func TestFiveHundredLowers(t *testing.T) {
	var dirs []string
	for i := range 600 {
		dirs = append(dirs, strings.Repeat("x", i%40+1)+"/../l/ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	}
	if o := parse(t, "lowerdir="+strings.Join(dirs, ":")); !slices.Equal(o.Lower, dirs) {
		t.Errorf("got %d lowers that differ from the %d given", len(o.Lower), len(dirs))
	}
}

func TestOptionsAreSplitAtPlainCommasOnly(t *testing.T) {
	for _, c := range []struct {
		list string
		want []string
	}{
		{``, nil},
		{`,,`, nil},
		{`a,,b`, []string{"a", "b"}},
		{`upperdir=a\,b,ro`, []string{`upperdir=a\,b`, "ro"}},
		{`upperdir=a\\,ro`, []string{`upperdir=a\\`, "ro"}},
		{`context="u:r:t:s0:c1,c2",ro`, []string{`context="u:r:t:s0:c1,c2"`, "ro"}},
		{`upperdir=a"b,ro`, []string{`upperdir=a"b`, "ro"}},
		{`a\`, []string{`a\`}},
	} {
		if got := splitOptions(c.list); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.list, got, c.want)
		}
	}
}

func TestEveryOptionReachesItsField(t *testing.T) {
	for _, c := range []struct {
		list string
		want Options
	}{
		{"", Options{}},
		{"upperdir=u,workdir=w", Options{Upper: "u", Work: "w"}},
		{`upperdir=u\:x\,y`, Options{Upper: "u:x,y"}},
		{"redirect_dir=on", Options{RedirectDir: RedirectOn}},
		{"redirect_dir=follow", Options{RedirectDir: RedirectFollow}},
		{"redirect_dir=nofollow", Options{RedirectDir: RedirectNoFollow}},
		{"redirect_dir=off", Options{RedirectDir: RedirectOff}},
		{"metacopy=on,index=off,nfs_export=off", Options{Metacopy: On, Index: Off, NFSExport: Off}},
		{"xino=auto", Options{Xino: XinoAuto}},
		{"verity=require,uuid=null", Options{Verity: "require", UUID: "null"}},
		{"userxattr", Options{UserXattr: true}},
		{"userxattr=off", Options{}},
		{"volatile", Options{Volatile: true}},
		{`context="a:b:c:s0:c1,c2"`, Options{Context: "a:b:c:s0:c1,c2"}},
		{"context=a:b:c:s0", Options{Context: "a:b:c:s0"}},
		{"uidmapping=0:1000:1:1:100000:65536", Options{UIDMap: []IDMap{{0, 1000, 1}, {1, 100000, 65536}}}},
		{"gidmapping=:0:1:1001:1001:0:1", Options{GIDMap: []IDMap{{0, 1, 1001}, {1001, 0, 1}}}},
		{"uidmapping=0:0:4294967295", Options{UIDMap: []IDMap{{0, 0, 4294967295}}}},
		{"squash_to_root", Options{SquashToRoot: true}},
		{"squash_to_uid=0,squash_to_gid=4294967294", Options{SquashUID: ptr[uint32](0), SquashGID: ptr[uint32](4294967294)}},
		{"xattr_permissions=2", Options{XattrPermissions: 2}},
		{"size=10G,inodes=100k", Options{Size: 10 << 30, Inodes: 100 << 10}},
		{"size=512", Options{Size: 512}},
		{"size=1MiB", Options{Size: 1 << 20}},
		{"size=0", Options{}},
		{"format=auto", Options{}},
		{"format=overlay-user", Options{Format: FormatOverlayUser}},
		{"passthrough=on", Options{Passthrough: PassthroughOn}},
		{"passthrough=auto", Options{}},
		{"writeback=0", Options{Writeback: ptr(false)}},
		{"writeback=1", Options{Writeback: ptr(true)}},
		{"timeout=0", Options{Timeout: ptr(0.0)}},
		{"timeout=1.5", Options{Timeout: ptr(1.5)}},
		{"static_nlink,noacl,noxattrs=1,ino32_t", Options{StaticNlink: true, NoACL: true, NoXattrs: true, Ino32: true}},
		{"max_read=4096,max_write=8192", Options{MaxRead: 4096, MaxWrite: 8192}},
		{"debug,logfile=/var/log/x", Options{Debug: true, LogFile: "/var/log/x"}},
		{"allow_other,default_permissions", Options{AllowOther: true, DefaultPermissions: On}},
		{"allow_root,auto_unmount", Options{AllowRoot: true, AutoUnmount: true}},
		{"fsname=a b,subtype=c", Options{FSName: "a b", Subtype: "c"}},
		{"ro,nosuid,nodev,noexec,noatime,nodiratime", Options{ReadOnly: true, Suid: Off, Dev: Off, Exec: Off, Atime: AtimeNever, NoDirAtime: true}},
		{"ro,rw", Options{}},
		{"nosuid,suid,nodev,dev,noexec,exec", Options{Suid: On, Dev: On, Exec: On}},
		{"sync,dirsync,lazytime,nosymfollow,remount", Options{Sync: true, DirSync: true, LazyTime: true, NoSymFollow: true, Remount: true}},
		{"private", Options{Propagation: "private"}},
		{"bogus,wild=1", Options{Unknown: []string{"bogus", "wild=1"}}},
		{"ro=1", Options{Unknown: []string{"ro=1"}}},
		{"noauto,x-systemd.automount,_netdev,nofail,user,comment=x,kernel_cache,fast_ino=1,threaded=0", Options{}},
	} {
		c.want.Fsync = true
		if got := parse(t, c.list); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %+v\nwant %+v", c.list, got, c.want)
		}
	}
	for list, want := range map[string]bool{"fsync=0": false, "fsync=1": true, "fsync": true, "fsync=0,fsync=1": true} {
		if got := parse(t, list); got.Fsync != want {
			t.Errorf("%s: Fsync %v, want %v", list, got.Fsync, want)
		}
	}
}

// A user who mistypes a value must learn which option, what it got and what it
// takes; a mount that silently ignores it loses data or opens files to others.
func TestBadValuesNameTheOptionAndWhatItAccepts(t *testing.T) {
	for _, list := range []string{
		"redirect_dir=maybe", "redirect_dir=", "redirect_dir", "metacopy=2", "index=x", "xino=1", "verity=yes",
		"uuid=x", "userxattr=x", "volatile=2", "fsync=x", "context=", `context="`, "upperdir", "upperdir=", "workdir=",
		"uidmapping=", "uidmapping=0:0", "uidmapping=0:0:0", "uidmapping=a:0:1", "uidmapping=0:0:4294967296",
		"uidmapping=1:0:4294967295", "uidmapping=0:0:10:5:20:1", "gidmapping=0:0:10:20:5:1", "uidmapping=-1:0:1",
		"squash_to_uid=", "squash_to_uid=root", "squash_to_uid=4294967295", "squash_to_gid=-1",
		"xattr_permissions=3", "xattr_permissions=", "size=50%", "size=", "size=-1", "size=1x", "size=99999999T",
		"size=5kk", "size=1Gi", "inodes=many", "format=docker", "passthrough=2", "writeback=2", "timeout=", "timeout=-1",
		"timeout=nan", "timeout=inf", "timeout=soon", "noxattrs=3", "max_read=x", "allow_other=x", "fsname=", "plugins=/x",
		"lowerdir", "lowerdir=//plugin/data/x", "upperdir=//x", "lowerdir=a:::b", "lowerdir=a::", "lowerdir=a::b:c",
		`lowerdir=a\000`, "datadir+=x,lowerdir+=y", "lowerdir+=", "logfile=",
	} {
		o, err := Parse(list)
		var bad *Error
		if !errors.As(err, &bad) {
			t.Errorf("%s: got %+v and error %v, want an *Error", list, o, err)
			continue
		}
		last := list[strings.LastIndex(list, ",")+1:]
		if name, _, _ := strings.Cut(last, "="); bad.Option != name {
			t.Errorf("%s: the error names option %q", list, bad.Option)
		}
		if text := err.Error(); !strings.Contains(text, strings.TrimSuffix(last, "=")) || !strings.Contains(text, "accepted: ") || bad.Accepts == "" {
			t.Errorf("%s: the message does not show the option, its value and what is accepted: %s", list, text)
		}
	}
}

// golden holds argument lists as real clients send them (two -o are two
// strings) and the options they mean.
var golden = []struct {
	client string
	lists  []string
	want   Options
}{
	{
		"podman, container",
		[]string{`lowerdir=/s/l/AAAAAAAAAAAAAAAAAAAAAAAAAA:/s/l/BBBBBBBBBBBBBBBBBBBBBBBBBB,upperdir=/s/1/diff,workdir=/s/1/work,,volatile,context="system_u:object_r:container_file_t:s0:c97,c501"`},
		Options{Lower: []string{"/s/l/AAAAAAAAAAAAAAAAAAAAAAAAAA", "/s/l/BBBBBBBBBBBBBBBBBBBBBBBBBB"}, Upper: "/s/1/diff", Work: "/s/1/work",
			Volatile: true, Context: "system_u:object_r:container_file_t:s0:c97,c501"},
	},
	{
		"podman, relative lowers of a deep image",
		[]string{`lowerdir=l/AAA:l/AAA/../diff1:l/BBB,upperdir=1/diff,workdir=1/work`},
		Options{Lower: []string{"l/AAA", "l/AAA/../diff1", "l/BBB"}, Upper: "1/diff", Work: "1/work"},
	},
	{
		"podman, user namespace with mapped ids",
		[]string{`uidmapping=:0:1:1001:1001:0:1:1002:1002:64535,gidmapping=0:1000:1:1:100000:65536,lowerdir=/s/empty,squash_to_uid=1000,squash_to_gid=1000,xattr_permissions=2`},
		Options{Lower: []string{"/s/empty"}, UIDMap: []IDMap{{0, 1, 1001}, {1001, 0, 1}, {1002, 1002, 64535}},
			GIDMap: []IDMap{{0, 1000, 1}, {1, 100000, 65536}}, SquashUID: ptr[uint32](1000), SquashGID: ptr[uint32](1000), XattrPermissions: 2},
	},
	{
		"podman, read-only mount of a diff",
		[]string{`ro,lowerdir=/s/l/A:/s/empty,nodev,fsync=0`},
		Options{Lower: []string{"/s/l/A", "/s/empty"}, ReadOnly: true, Dev: Off},
	},
	{
		"buildah, overlay volume",
		[]string{`lowerdir=/home/u/a\:b,upperdir=/s/o/1/upper,workdir=/s/o/1/work,private`},
		Options{Lower: []string{"/home/u/a:b"}, Upper: "/s/o/1/upper", Work: "/s/o/1/work", Propagation: "private"},
	},
	{
		"containerd, through mount.fuse3",
		[]string{`workdir=/c/1/work,upperdir=/c/1/fs,lowerdir=/c/2/fs:/c/3/fs,dev,suid`},
		Options{Lower: []string{"/c/2/fs", "/c/3/fs"}, Upper: "/c/1/fs", Work: "/c/1/work", Dev: On, Suid: On},
	},
	{
		"kernel overlayfs with its features on",
		[]string{`lowerdir=/l1:/l2::/data`, `upperdir=/u,workdir=/w,redirect_dir=on,metacopy=on,index=on,xino=auto`},
		Options{Lower: []string{"/l1", "/l2"}, DataOnly: []string{"/data"}, Upper: "/u", Work: "/w",
			RedirectDir: RedirectOn, Metacopy: On, Index: On, Xino: XinoAuto},
	},
	{
		"fstab",
		[]string{`rw,noauto,x-systemd.requires-mounts-for=/srv,_netdev,user,lowerdir=/srv/base,allow_other`},
		Options{Lower: []string{"/srv/base"}, AllowOther: true},
	},
}

func TestArgumentsOfRealClients(t *testing.T) {
	for _, g := range golden {
		g.want.Fsync = !strings.Contains(strings.Join(g.lists, ","), "fsync=0")
		got := parse(t, g.lists...)
		if !reflect.DeepEqual(got, g.want) {
			t.Errorf("%s\n got %+v\nwant %+v", g.client, got, g.want)
		}
		if err := got.Check(); err != nil {
			t.Errorf("%s: %v", g.client, err)
		}
	}
}

// FuzzParse proves that nothing crashes the parser, and that what it
// understood can be written down and read again.
func FuzzParse(f *testing.F) {
	for _, g := range golden {
		f.Add(strings.Join(g.lists, ","))
	}
	for _, s := range []string{`lowerdir=a\\\:b::c\134`, `fsname=a\,b,timeout=1e300`, `upperdir=\`, `context="a,b"`, `a\,b\`, "size=1T,noatime,shared"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		o, err := Parse(list)
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || bad.Accepts == "" {
				t.Fatalf("Parse(%q): %v is no complete *Error", list, err)
			}
			return
		}
		again, err := Parse(o.String())
		if err != nil {
			t.Fatalf("Parse(%q) wrote %q, which it refuses: %v", list, o.String(), err)
		}
		if !reflect.DeepEqual(o, again) {
			t.Fatalf("Parse(%q) wrote %q\n got %+v\nwant %+v", list, o.String(), again, o)
		}
		o.Check()
		o.Render()
		o.KernelObstacles()
	})
}
