package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/poolserver"
)

// fails runs a command that must fail with that status and say something.
func (s *poolStage) fails(status int, say string, argv ...string) {
	s.Helper()
	if got := lamina(s.T, argv...); got.status != status || !strings.Contains(got.stderr, say) || strings.Count(got.stderr, "\n") != 1 {
		s.Errorf("lamina %q: status %d, want %d and %q: %s", argv, got.status, status, say, got.stderr)
	}
}

// shows runs a command that must print just that. What is different each time stands
// as a word in capitals.
func (s *poolStage) shows(want string, argv ...string) {
	s.Helper()
	got := s.ok(argv...)
	for _, m := range []struct{ pattern, word string }{
		{`[0-9a-f]{32}`, "GUID"},
		{`[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d \d{4}`, "TIME"},
		{regexp.QuoteMeta(filepath.Dir(s.root)), "DIR"},
	} {
		got = regexp.MustCompile(m.pattern).ReplaceAllString(got, m.word)
	}
	if got != want {
		s.Errorf("lamina %s:\n%s\nwant:\n%s", strings.Join(argv, " "), got, want)
	}
}

// mountable skips a test where nothing can be mounted, and returns a directory for
// mounts, which are gone when the test ends.
func (s *poolStage) mountable() string {
	s.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		s.Skip(err)
	}
	if os.Geteuid() != 0 {
		s.Skip("mounting without fusermount3 needs root; TestDatasetOfAnOrdinaryUser does it with")
	}
	return filepath.Dir(s.root)
}

func TestDatasetTables(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("dataset", "create", "-o", "compression=zstd", "-o", "quota=64M", "-o", "com.example:team=blue", "tank/home")
	s.ok("dataset", "create", "-p", "-o", "recordsize=128K", "-o", "mountpoint=/srv/ann", "-o", "canmount=off", "tank/home/ann/deep")
	s.ok("dataset", "snapshot", "-r", "-o", "com.example:why=test", "tank/home@monday")
	s.ok("dataset", "clone", "tank/home@monday", "tank/copy")
	s.ok("dataset", "set", "atime=off", "tank")
	s.ok("volume", "create", "--size", "8M", "tank", "home/disk")

	s.shows(`NAME                TYPE        USED  REFER  RECSIZE  MOUNTPOINT
tank                pool           0      -      16K  none
tank/copy           filesystem     0      0      16K  none
tank/home           filesystem     0      0      16K  none
tank/home/ann       filesystem     0      0      16K  none
tank/home/ann/deep  filesystem     0      0     128K  /srv/ann
tank/home/disk      volume         0      0        -  -
`, "dataset", "list", "-o", "name,type,used,referenced,recordsize,mountpoint")
	s.shows("tank/home/ann/deep\t131072\ntank/home/ann\t16384\n", "dataset", "list", "-Hp", "-r", "-t", "fs", "-S", "recordsize,name", "-o", "name,recordsize", "tank/home/ann")
	s.shows(`NAME                       ORIGIN  CREATION
tank/home/ann/deep@monday  -       TIME
tank/home/ann@monday       -       TIME
tank/home@monday           -       TIME
`, "dataset", "list", "-t", "snapshot", "-r", "-o", "name,origin,creation", "tank/home", "tank/copy")
	s.shows("tank/copy\ttank/home@monday\n", "dataset", "list", "-H", "-o", "name,origin", "tank/copy")
	s.shows(`NAME                PROPERTY          VALUE  SOURCE
tank                compression       on     default
tank                com.example:team  -      -
tank/copy           compression       on     default
tank/copy           com.example:team  -      -
tank/home           compression       zstd   local
tank/home           com.example:team  blue   local
tank/home/ann       compression       zstd   inherited from tank/home
tank/home/ann       com.example:team  blue   inherited from tank/home
tank/home/ann/deep  compression       zstd   inherited from tank/home
tank/home/ann/deep  com.example:team  blue   inherited from tank/home
`, "dataset", "get", "-r", "-t", "fs,pool", "compression,com.example:team", "tank")
	s.shows("tank/home\tquota\t67108864\tlocal\ntank/home/ann\tquota\t0\tdefault\n", "dataset", "get", "-Hp", "quota", "tank/home", "tank/home/ann")
	s.shows("blue\n", "dataset", "get", "-H", "-o", "value", "com.example:team", "tank/home/ann/deep@monday")
	s.shows(`NAME                PROPERTY          VALUE     SOURCE
tank/home           quota             64M       local
tank/home           compression       zstd      local
tank/home           com.example:team  blue      local
tank/home/ann/deep  recordsize        128K      local
tank/home/ann/deep  mountpoint        /srv/ann  local
tank/home/ann/deep  canmount          off       local
`, "dataset", "get", "-r", "-s", "local", "-t", "fs", "all", "tank/home")
	s.shows(strings.ReplaceAll(strings.ReplaceAll(`type snapshot -
creation TIME -
used 0 -
referenced 0 -
objects 1 -
clones tank/copy -
guid GUID -
createtxg 5 -
com.example:team blue inherited~from~tank/home
com.example:why test local
`, " ", "\t"), "~", " "), "dataset", "get", "-H", "-o", "property,value,source", "all", "tank/home@monday")

	var list []jsonDataset
	if err := json.Unmarshal([]byte(s.ok("dataset", "list", "--json", "-o", "name,origin,quota", "tank/copy", "tank/home")), &list); err != nil || len(list) != 2 {
		t.Fatalf("%v: %+v", err, list)
	}
	if d := list[0]; d.Name != "tank/copy" || d.Properties["origin"].Value != "tank/home@monday" || list[1].Properties["quota"] != (jsonProperty{"67108864", "local", ""}) {
		t.Errorf("%+v", list)
	}
	if err := json.Unmarshal([]byte(s.ok("dataset", "get", "--json", "atime", "tank/home/ann")), &list); err != nil || list[0].Properties["atime"] != (jsonProperty{"off", "inherited", "tank"}) {
		t.Errorf("%v: %+v", err, list)
	}
	s.ok("dataset", "inherit", "-r", "atime", "tank")
	s.shows("relatime\tdefault\n", "dataset", "get", "-H", "-o", "value,source", "atime", "tank/home/ann")
	if got := s.ok("volume", "list", "tank"); strings.Contains(got, "copy") || !strings.Contains(got, "home/disk") {
		t.Errorf("volumes:\n%s", got)
	}
}

func TestDatasetDestroyTakesWhatIsNamed(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("dataset", "create", "-p", "tank/a/b")
	for _, name := range []string{"1", "2", "3", "4", "5"} {
		s.ok("dataset", "snapshot", "tank/a@"+name)
	}
	s.ok("dataset", "clone", "tank/a@1", "tank/clone")
	names := func() string {
		return strings.Join(strings.Fields(s.ok("dataset", "list", "-H", "-r", "-t", "all", "-o", "name", "tank")), " ")
	}
	s.fails(exitFailure, "tank: destroy a: a has datasets below it (a/b) and snapshots (a@1, a@2, a@3, a@4, a@5); with -r", "dataset", "destroy", "tank/a")
	s.fails(exitFailure, "no snapshot tank/a@9", "dataset", "destroy", "tank/a@2%9")
	s.fails(exitFailure, "a range begins with the older", "dataset", "destroy", "tank/a@4%2")
	s.fails(exitFailure, "not found", "dataset", "destroy", "tank/a@1,8")
	if got, want := s.ok("dataset", "destroy", "-nv", "tank/a@2%3,5"), "would destroy tank/a@2\nwould destroy tank/a@3\nwould destroy tank/a@5\n0 comes back\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.ok("dataset", "destroy", "tank/a@2%3,5")
	if got := names(); got != "tank tank/a tank/a/b tank/a@1 tank/a@4 tank/clone" {
		t.Error(got)
	}
	s.ok("dataset", "snapshot", "tank/a@6")
	s.ok("dataset", "rollback", "-r", "tank/a@4")
	s.ok("dataset", "rename", "-r", "tank/a@4", "@four")
	s.ok("dataset", "rename", "-p", "tank/a", "tank/x/y")
	if got := names(); got != "tank tank/clone tank/x tank/x/y tank/x/y/b tank/x/y@1 tank/x/y@four" {
		t.Error(got)
	}
	s.ok("dataset", "promote", "tank/clone")
	if got := s.ok("dataset", "list", "-H", "-o", "origin", "tank/x/y"); got != "tank/clone@1\n" {
		t.Errorf("after promoting, the origin is %q", got)
	}
	s.ok("dataset", "destroy", "-r", "tank/x")
	if got := names(); got != "tank tank/clone tank/clone@1" {
		t.Error(got)
	}
}

// What a command line cannot mean is refused before anything is done, and says what can
// be meant.
func TestDatasetNamesThatAreNone(t *testing.T) {
	s := newPoolStage(t)
	s.pool()
	s.ok("dataset", "create", "tank/a")
	for _, c := range []struct {
		argv   string
		status int
		say    string
	}{
		{"create tank", exitUsage, "take tank/NAME"},
		{"create tank/a@b", exitUsage, "is no name of a dataset"},
		{"create /tank/x", exitUsage, "is a path"},
		{"create ./x", exitUsage, "--root"},
		{"create tank//x", exitFailure, "an empty part"},
		{"create tank/../../etc", exitFailure, "letters, digits"},
		{"create tank/%recv", exitFailure, "letters, digits"},
		{"create tank/ä", exitFailure, "letters, digits"},
		{"create tank/b/c", exitFailure, "b, above it: not found"},
		{"create tank/a", exitFailure, "exists already"},
		{"create none/a", exitFailure, "lamina pool create --size 10G none"},
		{"create -o checksum=off tank/b", exitFailure, "every record has one"},
		{"create -o compresion=on tank/b", exitFailure, "there is no property"},
		{"create -o quota tank/b", exitUsage, "is no PROPERTY=VALUE"},
		{"create -o atime=on -o atime=off tank/b", exitUsage, "given twice"},
		{"set atime=on", exitUsage, "needs PROPERTY=VALUE and DATASETs"},
		{"set atime=on exec=on", exitUsage, "at least one DATASET"},
		{"set used=1 tank/a", exitFailure, "cannot be set"},
		{"set recordsize=4K tank/a", exitFailure, "when you make one"},
		{"set quota=1G tank", exitFailure, "a pool has no quota"},
		{"snapshot tank@x", exitUsage, "name a dataset of it"},
		{"snapshot tank/a", exitFailure, "DATASET@NAME"},
		{"snapshot tank/a@b/c", exitFailure, "after the @"},
		{"snapshot tank/a@s other/b@s", exitUsage, "two pools"},
		{"destroy tank", exitUsage, "lamina pool destroy"},
		{"list -t disk", exitUsage, "is no type"},
		{"list -o name,,used", exitUsage, "between two commas"},
		{"list -o colour", exitFailure, "there is no property"},
		{"list tank/none", exitFailure, "not found"},
		{"get", exitUsage, "needs PROPERTY"},
		{"get -o size all", exitUsage, "is no column"},
		{"get -s here all", exitUsage, "is no source"},
		{"inherit used tank/a", exitFailure, "not inherited"},
		{"mount tank/a", exitFailure, "has no mountpoint"},
		{"mount tank/a /no/such/place", exitFailure, "mkdir -p /no/such/place"},
		{"mount tank/a /dev/null", exitFailure, "not a directory"},
		{"mount -o lowerdir=/x tank/a /tmp", exitFailure, "lowerdir"},
		{"umount tank/a", exitFailure, "not mounted"},
		{"umount /", exitFailure, "no mounted dataset"},
		{"diff tank/a", exitUsage, "is no snapshot"},
		{"rollback tank/a@none", exitFailure, "not found"},
		{"clone tank/a tank/a/b@c", exitFailure, "letters, digits"},
		{"clone -o recordsize=4K tank/a tank/b", exitFailure, "share records"},
		{"rename tank/a tank/a/b", exitFailure, "below it"},
		{"send tank/a", exitUsage, "is no snapshot"},
	} {
		s.fails(c.status, c.say, append([]string{"dataset"}, strings.Fields(c.argv)...)...)
	}
	s.fails(exitFailure, "letters, digits", "dataset", "create", "tank/a\nb")
	s.fails(exitFailure, "one line", "dataset", "set", "x:y=a\tb", "tank/a")
	s.fails(exitFailure, `"a\nb"`, "dataset", "destroy", "tank/a\nb")
	for _, argv := range []string{"create /tmp", "create /no/such/x", "list /", "delete /tmp", "snapshot /tmp /tmp/x"} {
		s.fails(exitFailure, "", append([]string{"subvolume"}, strings.Fields(argv)...)...)
	}
	if got := strings.Fields(s.ok("dataset", "list", "-H", "-o", "name")); !slices.Equal(got, []string{"tank", "tank/a"}) {
		t.Errorf("something was made: %q", got)
	}
}

// One command makes what is needed, and what was written shows in the snapshot.
func TestDatasetFromBeginningToEnd(t *testing.T) {
	s := newPoolStage(t)
	dir := s.mountable()
	x := filepath.Join(dir, "x")
	s.ok("dataset", "create", "--pool-size", "256M", "tank/home", "--mount", x)
	file := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(x, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(x, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hostile := "new\nline \\ \xff"
	file("same", "same")
	file("changed", "1")
	file("d/moved", "content of what moves")
	file("gone", "x")
	s.ok("dataset", "snapshot", "tank/home@monday")
	file("changed", "12")
	file(hostile, "x")
	must(os.Rename(filepath.Join(x, "d/moved"), filepath.Join(x, "moved here")))
	must(os.Remove(filepath.Join(x, "gone")))
	must(os.Symlink("same", filepath.Join(x, "link")))
	s.ok("dataset", "snapshot", "tank/home@tuesday")
	if got := s.ok("inspect", "log", "tank/home", "gone"); !strings.Contains(got, "layer 2 tank/home@tuesday\n  D  /gone") || !strings.Contains(got, "layer 1 tank/home@monday\n  A  /gone") {
		t.Errorf("the history of a file through the snapshots: %s", got)
	}
	if got := s.ok("inspect", "cat", "dataset:tank/home@monday", "changed"); got != "1" {
		t.Errorf("the file as it was on monday: %q", got)
	}
	s.fails(exitFailure, "it has no snapshot sunday", "inspect", "tree", "tank/home@sunday")
	s.ok("dataset", "destroy", "tank/home@tuesday")
	s.shows(`M	/	DIR/x/
M	F	DIR/x/changed
M	/	DIR/x/d
-	F	DIR/x/gone
+	@	DIR/x/link
R	F	DIR/x/d/moved -> DIR/x/moved\0040here
+	F	DIR/x/new\0012line\0040\0134\0040\0377
`, "dataset", "diff", "-F", "tank/home@monday")
	for line := range strings.Lines(s.ok("dataset", "diff", "--json", "tank/home@monday", "tank/home")) {
		var d poolserver.FileDifference
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Kind == "" {
			t.Errorf("%q: %v", line, err)
		}
		if d.Path == "/changed" && !slices.Contains(d.What, "content") {
			t.Errorf("%+v", d)
		}
	}
	if b, err := os.ReadFile(filepath.Join(x, ".lamina/snapshot/monday/changed")); err != nil || string(b) != "1" {
		t.Errorf("in the snapshot: %q (%v)", b, err)
	}
	s.fails(exitFailure, "mount --bind", "dataset", "mount", "tank/home", dir)
	open, err := os.Open(filepath.Join(x, "same"))
	must(err)
	s.fails(exitFailure, "fuser -vm "+x, "dataset", "rollback", "tank/home@monday")
	s.fails(exitFailure, "fuser -vm "+x, "dataset", "umount", x)
	must(open.Close())
	s.ok("dataset", "rollback", "tank/home@monday")
	if b, err := os.ReadFile(filepath.Join(x, "changed")); err != nil || string(b) != "1" {
		t.Errorf("after the rollback: %q (%v)", b, err)
	}
	stream := s.ok("dataset", "send", "-c", "1", "tank/home@monday")
	if got := s.feed([]byte(stream), "dataset", "receive", "tank/backup"); got.status != 0 {
		t.Fatalf("receive: %+v", got)
	}
	s.ok("dataset", "snapshot", "tank/home@tuesday")
	stream = s.ok("dataset", "send", "-i", "@monday", "tank/home@tuesday")
	if got := s.feed([]byte(stream), "dataset", "receive", "tank/backup"); got.status != 0 {
		t.Fatalf("receive what has changed: %+v", got)
	}
	y := filepath.Join(dir, "y")
	must(os.Mkdir(y, 0o755))
	s.ok("dataset", "mount", "-o", "ro", "tank/backup", y)
	if b, err := os.ReadFile(filepath.Join(y, "d/moved")); err != nil || string(b) != "content of what moves" {
		t.Errorf("in what was received: %q (%v)", b, err)
	}
	s.ok("dataset", "destroy", "-r", "tank/backup")
	s.ok("dataset", "rename", "tank/home", "tank/house")
	if got := s.ok("dataset", "mount"); !strings.Contains(got, "tank/house  "+x) {
		t.Errorf("mounts after renaming:\n%s", got)
	}
	s.ok("dataset", "set", "readonly=on", "tank/house")
	s.ok("dataset", "umount", "tank/house")
	s.ok("dataset", "mount", "-a")
	if err := os.WriteFile(filepath.Join(x, "f"), nil, 0o644); err == nil {
		t.Error("a file was made in what is mounted read-only")
	}
	s.ok("dataset", "umount", "-a")
	s.ok("dataset", "mount", "-o", "noexec", "tank/house@monday", x)
	s.ok("dataset", "destroy", "-r", "tank/house") // what is mounted is unmounted
	if exists(filepath.Join(x, "same")) {
		t.Error("it is still mounted")
	}
}

// The limits of a dataset hold for who writes to it.
func TestDatasetLimits(t *testing.T) {
	s := newPoolStage(t)
	dir := s.mountable()
	s.pool()
	x := filepath.Join(dir, "x")
	s.ok("dataset", "create", "-o", "inodes=5", "-o", "quota=4M", "-o", "snapdir=visible", "-o", "compression=off", "tank/a", "--mount", x)
	var made int
	for made = range 10 {
		if err := os.WriteFile(filepath.Join(x, fmt.Sprint(made)), nil, 0o644); err != nil {
			break
		}
	}
	if made != 4 { // and the root
		t.Errorf("%d files could be made", made)
	}
	if err := os.WriteFile(filepath.Join(x, "0"), make([]byte, 1<<20), 0o644); err != nil {
		t.Error(err)
	}
	big := []byte(strings.Repeat("0123456789abcdef", 5<<16))
	if err := os.WriteFile(filepath.Join(x, "1"), big, 0o644); err == nil {
		t.Error("5M were written within a quota of 4M")
	}
	names, err := os.ReadDir(x)
	if err != nil || names[0].Name() != ".lamina" {
		t.Errorf("with snapdir=visible: %v (%v)", names, err)
	}
}

func TestSubvolumesByPath(t *testing.T) {
	s := newPoolStage(t)
	dir := s.mountable()
	s.pool()
	x := filepath.Join(dir, "x")
	s.ok("dataset", "create", "tank/home", "--mount", x)
	path := func(name string) string { return filepath.Join(x, name) }
	if err := os.Mkdir(path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.ok("subvolume", "create", path("dir/my src"))
	s.ok("subvolume", "create", path("dir/my src/inner"))
	hostile := path("new\nline \xff")
	if got := s.ok("subvolume", "create", hostile); !strings.Contains(got, `new\nline \xff`) {
		t.Errorf("%q", got)
	}
	if st, err := os.Stat(hostile); err != nil || !st.IsDir() {
		t.Errorf("a name that is no text: %v", err)
	}
	s.ok("subvolume", "delete", hostile)
	if err := os.WriteFile(path("dir/my src/f"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.ok("subvolume", "snapshot", "-r", path("dir/my src"), path("ro"))
	s.ok("subvolume", "snapshot", path("dir/my src"), path("dir")+"/rw")
	if err := os.WriteFile(path("dir/my src/f"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ro/f", "dir/rw/f"} {
		if b, err := os.ReadFile(path(name)); err != nil || string(b) != "1" {
			t.Errorf("%s: %q (%v)", name, b, err)
		}
	}
	if err := os.WriteFile(path("ro/f"), []byte("x"), 0o644); err == nil {
		t.Error("a read-only snapshot was written to")
	}
	if err := os.WriteFile(path("dir/my src/inner/f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if exists(path("ro/inner/f")) || !exists(path("ro/inner")) {
		t.Error("a snapshot has what is in a subvolume of it")
	}
	if err := os.Rename(path("dir/rw"), path("renamed")); err != nil {
		t.Fatal(err)
	}
	s.shows(`ID  PATH              DATASET                 READONLY
 1  .                 tank/home               no
 2  dir/my src        tank/home/my_src        no
 3  dir/my src/inner  tank/home/my_src/inner  no
 5  ro                tank/home/ro            yes
 6  -                 tank/home/rw            no
`, "subvolume", "list", path("dir"))
	if got := s.ok("subvolume", "show", path("ro")); !strings.Contains(got, "Dataset:        tank/home/ro\n") || !strings.Contains(got, "Flags:          readonly\n") {
		t.Errorf("show:\n%s", got)
	}
	s.fails(exitFailure, "tank/home/my_src/inner"[len("tank/"):], "subvolume", "delete", path("dir/my src"))
	s.fails(exitFailure, "is no subvolume", "subvolume", "delete", path("dir"))
	s.fails(exitFailure, "a dataset is mounted there", "subvolume", "delete", x)
	s.fails(exitFailure, "exists", "subvolume", "create", path("dir"))
	s.ok("subvolume", "delete", path("dir/my src/inner"), path("dir/my src"), path("ro"), path("renamed"))
	if got := strings.Fields(s.ok("dataset", "list", "-H", "-o", "name")); !slices.Equal(got, []string{"tank", "tank/home"}) {
		t.Errorf("left are %q", got)
	}
}

// An ordinary user needs nobody.
func TestDatasetOfAnOrdinaryUser(t *testing.T) {
	for _, r := range roles(t) {
		if r.uid == 0 {
			continue
		}
		s := newStage(t, r)
		t.Cleanup(func() { s.run("lamina", "pool", "stop", "--force", "--root", filepath.Join(s.dir, "pools"), "tank") })
		root := filepath.Join(s.dir, "pools")
		s.ok("lamina", "dataset", "create", "--root", root, "--pool-size", "128M", "--mount", "mnt", "tank/home")
		s.ok("touch", "mnt/mine")
		s.ok("lamina", "subvolume", "create", "mnt/sub")
		s.ok("lamina", "dataset", "snapshot", "--root", root, "-r", "tank/home@a")
		s.ok("ls", "mnt/.lamina/snapshot/a/mine")
		if got := s.run("lamina", "subvolume", "delete", "mnt/sub"); got.status != exitFailure || !strings.Contains(got.stderr, "sub@a") {
			t.Errorf("a subvolume that has a snapshot: %+v", got)
		}
		s.ok("lamina", "dataset", "destroy", "--root", root, "tank/home/sub@a")
		s.ok("lamina", "subvolume", "delete", "mnt/sub")
		s.ok("lamina", "dataset", "umount", "./mnt")
	}
}
