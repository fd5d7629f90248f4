package mountopt

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestContradictionsAreRefused(t *testing.T) {
	const union = "lowerdir=l,upperdir=u,workdir=w,"
	for _, c := range []struct{ list, option string }{
		{"", "lowerdir"},
		{"lowerdir=", "lowerdir"},
		{"lowerdir=::d", "lowerdir"},
		{"lowerdir=l,upperdir=u", "upperdir"},
		{"lowerdir=l,upperdir=u,workdir=u", "workdir"},
		{union + "metacopy=on,redirect_dir=off", "metacopy=on"},
		{union + "metacopy=on,redirect_dir=follow", "metacopy=on"},
		{union + "metacopy=on,nfs_export=on", "metacopy=on"},
		{union + "nfs_export=on,index=off", "nfs_export=on"},
		{union + "verity=require,metacopy=off", "verity=require"},
		{union + "userxattr,format=overlay", "userxattr"},
		{union + "format=aufs,redirect_dir=on", "format=aufs"},
		{union + "format=aufs,metacopy=on", "format=aufs"},
		{union + "allow_other,allow_root", "allow_other"},
		{union + "passthrough=on,writeback=1", "passthrough=on"},
	} {
		o := parse(t, c.list)
		var bad *Error
		if err := o.Check(); !errors.As(err, &bad) || bad.Option != c.option {
			t.Errorf("%s: got %v, want an error about %s", c.list, err, c.option)
		}
	}
	for _, list := range []string{
		"lowerdir=l",
		"lowerdir=l,workdir=w",
		"lowerdir=l,metacopy=on,redirect_dir=follow",
		"lowerdir=l,nfs_export=on,index=off",
		union + "metacopy=on,redirect_dir=on,index=on",
		union + "metacopy=off,redirect_dir=off",
		union + "userxattr,format=overlay-user",
		union + "squash_to_root,squash_to_uid=5",
		union + "passthrough=on,writeback=0",
	} {
		o := parse(t, list)
		if err := o.Check(); err != nil {
			t.Errorf("%s: %v", list, err)
		}
	}
}

// Whoever asks for checked digests must not get unchecked data.
func TestServerRefusesWhatOnlyTheKernelCan(t *testing.T) {
	for list, option := range map[string]string{"verity=on": "verity", "verity=require": "verity", "nfs_export=on": "nfs_export"} {
		o := parse(t, list)
		var bad *Error
		if err := o.CheckServer(); !errors.As(err, &bad) || bad.Option != option || len(o.KernelObstacles()) != 0 {
			t.Errorf("%s: got %v, want an error about %s, and none from the kernel", list, err, option)
		}
	}
	o := parse(t, "verity=off,nfs_export=off,uuid=on,index=on")
	if err := o.CheckServer(); err != nil {
		t.Error(err)
	}
}

// A path that is escaped wrongly makes the kernel mount another directory.
func TestRenderEscapesForTheKernel(t *testing.T) {
	o := parse(t, `lowerdir=a\:b:c\,d:e\134::data,upperdir=u\,v,workdir=w\\x,redirect_dir=on,metacopy=on,index=on,xino=off,volatile,context="a:b:c:s0:c1,c2",noatime,bogus,uidmapping=0:1:1`)
	want := `lowerdir=a\:b:c\,d:e\\::data,upperdir=u\,v,workdir=w\\x,redirect_dir=on,metacopy=on,index=on,xino=off,volatile,context="a:b:c:s0:c1,c2"`
	if got := o.Render(); got != want {
		t.Errorf("Render\n got %s\nwant %s", got, want)
	}
	params := o.KernelParams()
	for _, p := range []Param{
		{"lowerdir+", "a:b"}, {"lowerdir+", "c,d"}, {"lowerdir+", `e\`}, {"datadir+", "data"},
		{"upperdir", `u\,v`}, {"workdir", `w\\x`}, {"redirect_dir", "on"}, {Name: "volatile"},
	} {
		if !slices.Contains(params, p) {
			t.Errorf("KernelParams lacks %s: %v", p, params)
		}
	}
	o = parse(t, "lowerdir=a:b,workdir=w,format=overlay-user,ro")
	if got, want := o.Render(), "lowerdir=a:b,userxattr"; got != want {
		t.Errorf("without an upper: got %s, want %s", got, want)
	}
}

func TestAbsoluteKeepsDotDotBehindSymlinks(t *testing.T) {
	o := parse(t, "lowerdir=l/A/../diff1:/abs::d,upperdir=u,workdir=./w,logfile=x.log")
	o.Absolute("/store/")
	want := []string{"/store/l/A/../diff1", "/abs", "/store/d", "/store/u", "/store/./w", "/store/x.log"}
	got := append(append(slices.Clone(o.Lower), o.DataOnly...), o.Upper, o.Work, o.LogFile)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	o = parse(t, "lowerdir=l")
	if o.Absolute("/"); o.Lower[0] != "/l" || o.Upper != "" || o.Work != "" {
		t.Errorf("got %q upper %q work %q", o.Lower, o.Upper, o.Work)
	}
}

// The auto engine must not take the kernel for options that it would ignore.
func TestKernelObstaclesCoverWhatOnlyTheServerCan(t *testing.T) {
	for _, list := range []string{
		"uidmapping=0:1:1", "gidmapping=0:1:1", "squash_to_root", "squash_to_uid=1", "squash_to_gid=1", "xattr_permissions=1",
		"static_nlink", "noxattrs=1", "noacl", "ino32_t", "timeout=1", "writeback=0", "passthrough=on", "size=1G", "inodes=1",
		"format=aufs", "format=xattr", "fsync=0", "max_read=1", "max_write=1", "debug", "logfile=x", "allow_root", "auto_unmount",
		"default_permissions=off", "subtype=x", "bogus", "userxattr,redirect_dir=on", "format=overlay-user,metacopy=on",
		"lowerdir=" + strings.Repeat("l:", 501),
	} {
		o := parse(t, list)
		if len(o.KernelObstacles()) != 1 {
			t.Errorf("%s: got %q, want one obstacle", list, o.KernelObstacles())
		}
	}
	o := parse(t, "lowerdir=a::b,upperdir=u,workdir=w,redirect_dir=on,metacopy=on,index=on,nfs_export=off,xino=on,volatile,fsync=0,"+
		"allow_other,default_permissions,ro,nosuid,nodev,noexec,noatime,private,noauto,context=a:b:c:s0,uuid=on")
	if got := o.KernelObstacles(); len(got) != 0 {
		t.Errorf("overlayfs can do all of these: %q", got)
	}
}

func TestEveryDocumentedOptionParses(t *testing.T) {
	for _, d := range Docs() {
		s := byName[d.Name]
		if s == nil || (s.takes == nothing) != (d.Accepts == "") {
			t.Errorf("%s: what the manual says it accepts (%q) does not fit how it is read", d.Name, d.Accepts)
		}
	}
}

func TestMapShowsWhatWasSet(t *testing.T) {
	o := parse(t, "lowerdir=a:b,volatile,timeout=2,noatime")
	m := o.Map()
	for name, want := range map[string]string{"lowerdir": "a:b", "volatile": "on", "timeout": "2", "noatime": "on"} {
		if m[name] != want {
			t.Errorf("%s is %q, want %q", name, m[name], want)
		}
	}
	if len(m) != 4 {
		t.Errorf("options that nobody set appear: %v", m)
	}
}

// Who gives an option of a union to a dataset means something that would not happen.
func TestDatasetsRefuseOptionsOfUnions(t *testing.T) {
	for _, bad := range []string{"lowerdir=/a", "upperdir=/b", "size=1g", "inodes=5", "passthrough=on", "metacopy=on", "fsync=0", "nonsense", "nonsense=1"} {
		o := parse(t, bad)
		var e *Error
		if err := o.CheckDataset(); !errors.As(err, &e) || !strings.HasPrefix(bad, e.Option) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	good := parse(t, "ro,nosuid,nodev,noexec,relatime,allow_other,default_permissions,uidmapping=0:1000:1,gidmapping=0:1000:1,"+
		"squash_to_root,writeback=1,timeout=5,noacl,max_write=65536,fsname=x,subtype=y,sync,nosymfollow,rprivate")
	if err := good.CheckDataset(); err != nil {
		t.Error(err)
	}
}
