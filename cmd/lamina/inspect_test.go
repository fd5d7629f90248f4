package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect/safename"
)

// layersOf makes directories base and up, and returns the option that names them.
// Deletions are .wh. files, which ordinary users can make.
func layersOf(t *testing.T) (dir, stack string) {
	t.Helper()
	dir = t.TempDir()
	for path, content := range map[string]string{
		"base/etc/motd": "one\n", "base/etc/passwd": "root\n", "base/usr/big": strings.Repeat("b", 100_000), "base/hostile/\x1b[2J\n\xff": "x",
		"up/etc/motd": "two\n", "up/etc/.wh.passwd": "", "up/usr/.wh..wh..opq": "", "up/usr/new": "n",
	} {
		p := filepath.Join(dir, path)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("etc/motd", filepath.Join(dir, "base/link"))
	return dir, fmt.Sprintf("lowerdir=%s/base,upperdir=%s/up", dir, dir)
}

func inspectOK(t *testing.T, args ...string) string {
	t.Helper()
	r := lamina(t, append([]string{"inspect"}, args...)...)
	if r.status != 0 {
		t.Fatalf("inspect %q: %+v", args, r)
	}
	return r.stdout
}

func TestInspectTellsWhereAFileCameFromAndWhoDeletedIt(t *testing.T) {
	dir, stack := layersOf(t)
	out := inspectOK(t, "which", "--lower", dir+"/base", "--upper", dir+"/up", "etc/motd")
	if !strings.Contains(out, "/etc/motd comes from layer 2") || !strings.Contains(out, "replaced by layer 2") {
		t.Error(out)
	}
	r := lamina(t, "inspect", "which", "--json", stack, "/etc/passwd", "/usr/big")
	var all []struct {
		Exists    bool
		Sightings []struct {
			Layer, Hidden_by int
			State, Why, At   string
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || r.status != 1 || len(all) != 2 || all[0].Exists || all[1].Exists {
		t.Fatalf("%v %+v", err, r)
	}
	if s := all[0].Sightings; len(s) != 2 || s[0].State != "deletes" || s[1].Why != "whiteout" || s[1].Hidden_by != 2 {
		t.Errorf("%+v", s)
	}
	if s := all[1].Sightings; len(s) != 1 || s[0].Why != "opaque" || s[0].At != "/usr" {
		t.Errorf("%+v", s)
	}
	if out := inspectOK(t, "cat", stack, "/link"); out != "two\n" {
		t.Errorf("cat: %q", out)
	}
	if out := inspectOK(t, "blame", stack, "/etc"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "/etc/motd") {
		t.Errorf("blame: %s", out)
	}
	log := inspectOK(t, "log", stack, "/etc")
	for _, want := range []string{"D  /etc/passwd", "M  /etc/motd  content", "A  /etc/passwd"} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %q:\n%s", want, log)
		}
	}
}

func TestInspectShowsHostileNamesSafely(t *testing.T) {
	_, stack := layersOf(t)
	name := "/hostile/\x1b[2J\n\xff"
	for _, args := range [][]string{{"tree", stack}, {"find", stack}, {"blame", "-r", stack, "/"}, {"log", stack}, {"which", stack, name}, {"stat", stack, name},
		{"diff", "lowerdir=/nothing-there", stack}, {"waste", stack, "--duplicates-from", "1"}, {"find", "--json", stack}, {"log", "--json", stack}, {"which", "--json", stack, name},
		{"cat", stack, name + "x"}} {
		r := lamina(t, append([]string{"inspect"}, args...)...)
		if strings.ContainsAny(r.stdout+r.stderr, "\x1b\xff") {
			t.Errorf("%q prints %q, %q", args, r.stdout, r.stderr)
		}
	}
	seen := false
	for line := range strings.SplitSeq(strings.TrimSpace(inspectOK(t, "find", "--json", stack)), "\n") {
		var e struct{ Path string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		got, err := safename.Decode(e.Path)
		seen = seen || err == nil && got == name
	}
	if !seen {
		t.Error("the name cannot be had back from JSON")
	}
	if out := inspectOK(t, "find", "-0", stack); !strings.Contains(out, name+"\x00") {
		t.Errorf("-0: %q", out)
	}
}

func TestInspectDiffExitsLikeDiff(t *testing.T) {
	dir, stack := layersOf(t)
	if r := lamina(t, "inspect", "diff", stack, stack); r.status != 0 || r.stdout != "" {
		t.Errorf("the same: %+v", r)
	}
	r := lamina(t, "inspect", "diff", "--content", dir+"/base", stack)
	if r.status != 1 || !strings.Contains(r.stdout, "-one\n+two\n") || !strings.Contains(r.stdout, "D  /usr/big") {
		t.Errorf("changes: %+v", r)
	}
	if r := lamina(t, "inspect", "diff", dir+"/base", dir+"/nothing"); r.status != 2 {
		t.Errorf("trouble: %+v", r)
	}
	// The layer, unpacked by tar over a copy of the base, is the stack.
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is missing")
	}
	layer := dir + "/layer.tar"
	if r := lamina(t, "inspect", "diff", "--tar", layer, dir+"/base", stack); r.status != 1 {
		t.Fatalf("--tar: %+v", r)
	}
	out, err := exec.Command("tar", "-tf", layer).Output()
	if err != nil || !strings.Contains(string(out), "etc/.wh.passwd\n") || !strings.Contains(string(out), "usr/.wh.big\n") {
		t.Errorf("tar lists %s, %v", out, err)
	}
}

func TestInspectWasteAgreesWithDuAndRules(t *testing.T) {
	dir, stack := layersOf(t)
	var w struct {
		Bytes, Hidden_bytes, Wasted_bytes int64
		Efficiency                        float64
		Layers                            []struct{ Bytes int64 }
	}
	if err := json.Unmarshal([]byte(inspectOK(t, "waste", "--json", stack)), &w); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "find '"+dir+"/base' -type f -printf '%s\n' | awk '{n+=$1} END {print n}'").Output()
	if err != nil {
		t.Skip(err)
	}
	if du, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); w.Layers[1].Bytes != du || du == 0 {
		t.Errorf("%d bytes in base, find counts %d", w.Layers[1].Bytes, du)
	}
	if w.Hidden_bytes != 100_000+4+5 || w.Wasted_bytes != w.Hidden_bytes {
		t.Errorf("%+v", w)
	}
	for args, want := range map[string]int{"--min-efficiency 0.5": exitRule, "--max-waste 1K": exitRule, "--max-waste 1M": 0, "--min-efficiency 0.00001": 0} {
		if r := lamina(t, append(append([]string{"inspect", "waste"}, strings.Fields(args)...), stack)...); r.status != want {
			t.Errorf("%s: %d, want %d", args, r.status, want)
		}
	}
}

func TestInspectChecksFixesAndConverts(t *testing.T) {
	dir, _ := layersOf(t)
	os.WriteFile(dir+"/up/.wh.never", nil, 0o644)
	r := lamina(t, "inspect", "check", "--lower", dir+"/base", dir+"/up")
	if r.status != 1 || !strings.Contains(r.stdout, "needless-whiteout") || strings.Contains(r.stdout, ".wh.passwd") {
		t.Errorf("%+v", r)
	}
	if r := lamina(t, "inspect", "check", "--fix", "--lower", dir+"/base", dir+"/up"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Lstat(dir + "/up/.wh.never"); err == nil {
		t.Error("it is still there")
	}
	to := "overlay-user-xattr"
	if r := lamina(t, "inspect", "convert", dir+"/up", "--to", to, "--into", dir+"/copy"); r.status != 0 {
		if strings.Contains(r.stderr, "not supported") {
			t.Skip("no user xattrs here")
		}
		t.Fatalf("%+v", r)
	}
	a, b := fmt.Sprintf("lowerdir=%s/up:%s/base", dir, dir), fmt.Sprintf("lowerdir=%s/copy:%s/base", dir, dir)
	if r := lamina(t, "inspect", "diff", "--times", a, b); r.status != 0 {
		t.Errorf("%+v", r)
	}
	unix.Setxattr(dir+"/copy/usr", "user.overlay.redirect", []byte("/etc"), 0)
	os.Rename(dir+"/copy/usr", dir+"/copy/moved")
	unix.Removexattr(dir+"/copy/moved", "user.overlay.opaque")
	var told struct {
		Format string
		Marks  int
		Dry    bool `json:"dry_run"`
	}
	out := inspectOK(t, "convert", dir+"/up", "--to", to, "--dry-run", "--json")
	if err := json.Unmarshal([]byte(out), &told); err != nil || told.Format != to || told.Marks == 0 || !told.Dry {
		t.Errorf("convert --json: %v %s", err, out)
	}
	if r := lamina(t, "inspect", "convert", dir+"/copy", "--to", "aufs"); r.status != 1 || !strings.Contains(r.stderr, "nothing was changed") {
		t.Errorf("a redirect as aufs: %+v", r)
	}
}

// dockerArchive writes an image of the layers, bottom first, as docker save does.
func dockerArchive(t *testing.T, path string, compress bool, layers ...map[string]string) {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(w *tar.Writer, name string, data []byte) {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg})
		w.Write(data)
	}
	var names []string
	for i, l := range layers {
		var b bytes.Buffer
		lw := tar.NewWriter(&b)
		for name, content := range l {
			add(lw, name, []byte(content))
		}
		lw.Close()
		data := b.Bytes()
		if compress {
			var z bytes.Buffer
			g := gzip.NewWriter(&z)
			g.Write(data)
			g.Close()
			data = z.Bytes()
		}
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		add(w, names[i], data)
	}
	config := map[string]any{"history": []map[string]any{{"created_by": "ADD base"}, {"empty_layer": true, "created_by": "ENV"}, {"created_by": "RUN \x1b[2J"}}}
	c, _ := json.Marshal(config)
	add(w, "c.json", c)
	m, _ := json.Marshal([]map[string]any{{"Config": "c.json", "RepoTags": []string{"docker.io/library/x:latest"}, "Layers": names}})
	add(w, "manifest.json", m)
	w.Close()
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInspectReadsAnImageWithoutUnpackingIt(t *testing.T) {
	for _, compress := range []bool{false, true} {
		img := filepath.Join(t.TempDir(), "image.tar")
		dockerArchive(t, img, compress, map[string]string{"etc/a": "one", "etc/b": "gone"}, map[string]string{"etc/a": "two", "etc/.wh.b": ""})
		if out := inspectOK(t, "cat", img, "etc/a"); out != "two" {
			t.Errorf("top: %q", out)
		}
		if out := inspectOK(t, "cat", img+"#1", "etc/a"); out != "one" {
			t.Errorf("layer 1: %q", out)
		}
		if out := inspectOK(t, "log", "docker-archive:"+img+":x"); !strings.Contains(out, `RUN \x1b[2J`) || !strings.Contains(out, "D  /etc/b") {
			t.Errorf("log: %s", out)
		}
		if r := lamina(t, "inspect", "diff", img+"#1", img); r.status != 1 || strings.Count(r.stdout, "\n") != 2 {
			t.Errorf("%+v", r)
		}
		if r := lamina(t, "inspect", "tree", img+":other"); r.status != 1 || !strings.Contains(r.stderr, "library/x") {
			t.Errorf("%+v", r)
		}
		if r := lamina(t, "inspect", "tree", img+"#7"); r.status != 1 || !strings.Contains(r.stderr, "layers 1 to 2") {
			t.Errorf("%+v", r)
		}
	}
}

// Who looks at a live mount sees its layers, and what it is asked for.
func TestInspectAndTraceALiveMount(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "mount", "--lower", "base", "--lower", "app", "--upper", "upper", "--work", "work", "--engine", "fuse", "mnt")
		out := s.sh(`timeout 20 lamina trace --op lookup -n 1 mnt > traced 2>/dev/null & sleep 1; ls mnt/no-such-name 2>/dev/null || :; wait; cat traced`)
		if !strings.Contains(out, "LOOKUP") || !strings.Contains(out, "/no-such-name") || !strings.Contains(out, "no such file") {
			t.Errorf("trace: %s", out)
		}
		if out := s.sh("echo x > mnt/new; lamina inspect which mnt new base-only"); !strings.Contains(out, "(upper)") || !strings.Contains(out, "1 "+s.dir+"/base") {
			t.Errorf("which: %s", out)
		}
		if out := s.ok("lamina", "stat", "--prometheus", "mnt"); !strings.Contains(out, `lamina_requests_total{mount="`+s.dir+`/mnt",op="lookup"}`) {
			t.Errorf("metrics: %s", out)
		}
		if r := s.run("lamina", "inspect", "check", "--fix", "upper"); r.status != 1 || !strings.Contains(r.stderr, "is mounted") {
			t.Errorf("a repair of what is mounted: %+v", r)
		}
		s.ok("lamina", "umount", "mnt")
	})
}
