package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// The tests start their own binary again to act as lamina, under any name.
func TestMain(m *testing.M) {
	if os.Getenv("LAMINA_TEST_ACT") != "" {
		os.Exit(run(os.Args))
	}
	os.Exit(m.Run())
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	status         int
}

// command prepares a run of the program as argv says.
func command(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	if os.Getenv("LAMINA_RUNTIME_DIR") == "" {
		t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = argv
	cmd.Env = append(os.Environ(), "LAMINA_TEST_ACT=1")
	return cmd
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run() // waits for the end of both, as callers do
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func lamina(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, command(t, append([]string{"lamina"}, args...)...))
}

func TestCommandLinesOfFuseOverlayfsClients(t *testing.T) {
	for _, c := range []struct {
		argv string
		want compatLine
	}{
		{"-o lowerdir=a t", compatLine{lists: []string{"lowerdir=a"}, target: "t"}},
		{"-olowerdir=a t", compatLine{lists: []string{"lowerdir=a"}, target: "t"}},
		{"overlay t -o a -o b", compatLine{lists: []string{"a", "b"}, target: "t"}},
		{"t -f -o a", compatLine{lists: []string{"a"}, target: "t", foreground: true}},
		{"-d t", compatLine{target: "t", debug: true, foreground: true}},
		{"--debug t", compatLine{target: "t", debug: true, foreground: true}},
		{"-h", compatLine{help: true}},
		{"--version", compatLine{version: true}},
		{"-V", compatLine{version: true}},
		{"-s -x --weird t", compatLine{target: "t", unknown: []string{"-x", "--weird"}}},
		{"-o a -- -t", compatLine{lists: []string{"a"}, target: "-t"}},
		{"-", compatLine{target: "-"}},
	} {
		got, err := parseCompat(strings.Fields(c.argv))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %+v (%v)\nwant %+v", c.argv, got, err, c.want)
		}
	}
	if _, err := parseCompat([]string{"t", "-o"}); err == nil {
		t.Error("-o without a value was taken")
	}
}

func TestCommandLinesOfMount(t *testing.T) {
	for _, c := range []struct {
		argv string
		want helperLine
	}{
		{"src /t -o rw,lowerdir=a", helperLine{source: "src", target: "/t", lists: []string{"rw,lowerdir=a"}}},
		{"src /t -sv -n -o rw -t fuse.lamina -N /proc/1/ns/mnt", helperLine{source: "src", target: "/t", lists: []string{"rw"}}},
		{"src /t -fv", helperLine{source: "src", target: "/t", fake: true}},
	} {
		got, err := parseHelper(strings.Fields(c.argv))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %+v (%v)\nwant %+v", c.argv, got, err, c.want)
		}
	}
	for _, argv := range []string{"", "src", "src t more", "src t -o", "src t -x"} {
		if got, err := parseHelper(strings.Fields(argv)); err == nil {
			t.Errorf("%q was taken as %+v", argv, got)
		}
	}
}

func TestOptionsWithoutAVerbAreAMount(t *testing.T) {
	isVerb := func(s string) bool { return s == "mount" || s == "ps" }
	for argv, want := range map[string]bool{
		"-o lowerdir=a t": true, "src t -o lowerdir=a,dev,suid": true, "-f -oa t": true, "-d -o a t": true,
		"mount -o a t": false, "ps": false, "": false, "frob": false, "--help": false, "__complete mount -o": false,
		"--options a": false,
	} {
		if got := isBareMount(strings.Fields(argv), isVerb); got != want {
			t.Errorf("%q: %v, want %v", argv, got, want)
		}
	}
}

// Getting the order wrong shows users old files.
func TestLowersOnTheCommandLineGoFromTheBottomUp(t *testing.T) {
	f := mountFlags{lowers: []string{"base", "middle", "app"}, upper: "u", work: "w", lists: []string{"volatile"}, readOnly: true}
	o, err := f.options()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"app", "middle", "base"}; !slices.Equal(o.Lower, want) || o.Upper != "u" || o.Work != "w" || !o.Volatile || !o.ReadOnly {
		t.Errorf("got %+v", o)
	}
	if !slices.Equal(f.lowers, []string{"base", "middle", "app"}) {
		t.Error("the flags were changed")
	}
}

func TestEngineFollowsRightsAndOptions(t *testing.T) {
	for _, c := range []struct {
		want       engine
		list       string
		foreground bool
		euid       int
		engine     engine
		why        string
	}{
		{engineAuto, "lowerdir=a,upperdir=u,workdir=w,index=on", false, 0, engineKernel, "every option"},
		{engineAuto, "lowerdir=a", false, 1000, engineFUSE, "user namespaces"},
		{engineAuto, "lowerdir=a", true, 0, engineFUSE, "foreground"},
		{engineAuto, "lowerdir=a,size=1G", false, 0, engineFUSE, "size"},
		{engineAuto, "lowerdir=a,uidmapping=0:1:1", false, 0, engineFUSE, "uidmapping"},
		{engineFUSE, "lowerdir=a", false, 0, engineFUSE, "--engine"},
		{engineKernel, "lowerdir=a,size=1G", false, 1000, engineKernel, "--engine"},
	} {
		o, err := mountopt.Parse(c.list)
		if err != nil {
			t.Fatal(err)
		}
		if got := chooseEngine(c.want, &o, c.foreground, c.euid); got.Engine != c.engine || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s of %s for uid %d: got %+v, want %s because of %s", c.want, c.list, c.euid, got, c.engine, c.why)
		}
	}
}

// Scripts tell a wrong command line from a failure by the status, and people
// need one line that says what to do.
func TestStatusesAndMessages(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		argv   string
		status int
		says   string
	}{
		{"lamina frob", exitUsage, "no such command: frob; see: lamina --help"},
		{"lamina unmont", exitUsage, "did you mean umount"},
		{"lamina branch rmm", exitUsage, "lamina branch --help"},
		{"lamina mount", exitUsage, "needs TARGET"},
		{"lamina mount a b", exitUsage, "nothing after it"},
		{"lamina mount --frob x", exitUsage, "lamina mount --help"},
		{"lamina mount x", exitUsage, "--lower DIR"},
		{"lamina mount --lower a --upper u x", exitUsage, "--work DIR"},
		{"lamina mount --lower a -o lowerdir=b x", exitUsage, "twice"},
		{"lamina mount --lower a -o bogus x", exitUsage, "unknown mount option bogus"},
		{"lamina mount --lower a -o timeout=soon x", exitUsage, "option timeout=soon: not a number of seconds; accepted: "},
		{"lamina mount --lower a --engine x x", exitUsage, "auto, fuse, kernel"},
		{"lamina mount --lower a --engine kernel -f x", exitUsage, "--foreground"},
		{"lamina mount --lower a --engine fuse " + none, exitFailure, "a"},
		{"lamina mount --lower a --engine fuse -o verity=require x", exitUsage, "option verity=require: the FUSE server does not check digests"},
		{"lamina umount", exitUsage, "at least one TARGET"},
		{"lamina umount " + none, exitFailure, none},
		{"lamina stat /proc", exitFailure, "is mounted as proc"},
		{"lamina branch mod /proc sideways", exitUsage, "ro, rw"},
		{"lamina completion tcsh", exitUsage, "tcsh"},
		{"lamina man " + none, exitFailure, none},
		{"lamina -o lowerdir=a", 1, "no mount point"},
		{"fuse-overlayfs", 1, "no mount point"},
		{"fuse-overlayfs -o timeout=x,lowerdir=a " + none, 1, "option timeout=x"},
		{"fuse-overlayfs -o lowerdir=/ " + none, 1, "mkdir -p"},
		{"mount.lamina x", helperUsage, "a source and a target"},
		{"mount.lamina x y -o lowerdir=a,size=big", helperUsage, "option size=big"},
		{"umount.lamina", helperUsage, "one target is needed"},
		{"umount.lamina x -z", helperUsage, "unknown flag -z"},
		{"umount.lamina " + none, helperFailure, none},
		{"mount.lamina x " + none + " -o lowerdir=/", helperFailure, "mkdir -p"},
	} {
		argv := strings.Fields(c.argv)
		got := finish(t, command(t, argv...))
		if got.status != c.status || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: status %d, want %d; stderr %q, want %q in it", c.argv, got.status, c.status, got.stderr, c.says)
		}
		if name := argv[0] + ": "; !strings.HasPrefix(got.stderr, name) || strings.Count(got.stderr, "\n") != 1 || got.stdout != "" {
			t.Errorf("%s: stdout %q, stderr %q; want one line on stderr that begins with %q", c.argv, got.stdout, got.stderr, name)
		}
	}
}

func TestVersionUnderBothNames(t *testing.T) {
	got := finish(t, command(t, "fuse-overlayfs", "--version"))
	if lines := strings.Split(got.stdout, "\n"); got.status != 0 || lines[0] != "fuse-overlayfs: version "+compatVersion || !strings.HasPrefix(lines[1], "lamina version ") {
		t.Errorf("fuse-overlayfs --version: %+v", got)
	}
	for _, argv := range []string{"version", "--version"} {
		if got := lamina(t, argv); !strings.HasPrefix(got.stdout, "lamina version ") {
			t.Errorf("lamina %s: %+v", argv, got)
		}
	}
}

// walk visits every command that users see.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			walk(sub, visit)
		}
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	walk(newRoot(), func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" || cmd.Args == nil {
			t.Errorf("%s lacks a description, an example or a check of its arguments", cmd.CommandPath())
		}
	})
}

func TestHelpListsEveryMountOption(t *testing.T) {
	topic := lamina(t, "help", "options").stdout
	compat := finish(t, command(t, "fuse-overlayfs", "--help"))
	if compat.status != 0 || !strings.HasPrefix(compat.stdout, "usage: fuse-overlayfs [options]") {
		t.Errorf("fuse-overlayfs --help: %+v", compat)
	}
	for _, d := range mountopt.Docs() {
		if !strings.Contains(topic, "    "+d.Name) || !strings.Contains(compat.stdout, "    "+d.Name) {
			t.Errorf("no help tells of the option %s", d.Name)
		}
	}
}

func TestManualPagesRender(t *testing.T) {
	dir := t.TempDir()
	if got := lamina(t, "man", dir); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	walk(newRoot(), func(cmd *cobra.Command) {
		page, err := os.ReadFile(filepath.Join(dir, manName(cmd)+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		for _, want := range []string{".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES"} {
			if !bytes.Contains(page, []byte(want)) {
				t.Errorf("%s has no %s", manName(cmd), want)
			}
		}
		groff, err := exec.LookPath("groff")
		if err != nil {
			return
		}
		check := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
		check.Stdin = bytes.NewReader(page)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", manName(cmd), err, out)
		}
	})
	mount, err := os.ReadFile(filepath.Join(dir, "lamina-mount.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range mountopt.Docs() {
		if !strings.Contains(string(mount), roff(d.Name)) {
			t.Errorf("lamina-mount(1) does not tell of the option %s", d.Name)
		}
	}
}

func TestRoffProtectsWhatTroffWouldRead(t *testing.T) {
	for in, want := range map[string]string{
		`a\,b`: `a\e,b`, "--x": `\-\-x`, ".wh.": `\&.wh.`, "a\n'b": "a\n\\&'b", "a…": "a...",
	} {
		if got := roff(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestCompletionScriptsLoad(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := lamina(t, "completion", shell)
		if got.status != 0 || len(got.stdout) < 1000 {
			t.Errorf("%s: %+v", shell, got)
			continue
		}
		if path, err := exec.LookPath(shell); err == nil {
			check := exec.Command(path, "-n")
			check.Stdin = strings.NewReader(got.stdout)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s does not read its script: %v %s", shell, err, out)
			}
		}
	}
	if got := lamina(t, "__complete", "mount", "-o", "volatile,wor"); !strings.Contains(got.stdout, "volatile,workdir=") {
		t.Errorf("mount options are not completed: %+v", got)
	}
	if got := lamina(t, "__complete", "mount", "--engine", ""); !strings.Contains(got.stdout, "kernel") {
		t.Errorf("engines are not completed: %+v", got)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 1023: "1023", 1024: "1K", 1536: "1.5K", 1 << 20: "1M", 5 << 40: "5T", 3 << 60: "3072P"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	var out bytes.Buffer
	printLayers(&out, []fusefs.LayerInfo{{Role: fusefs.RoleUpper, Path: "/u", Format: "overlay"}, {Role: fusefs.RoleLower, Index: 1, Path: "/l"}})
	if want := "  upper        overlay        /u\n  lower 1                     /l\n"; out.String() != want {
		t.Errorf("layers:\n%q\nwant\n%q", out.String(), want)
	}
}
