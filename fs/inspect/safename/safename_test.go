package safename

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

var hostile = []string{
	"", "plain", "a b", "a\nb", "\x1b[2J", "\xff", "a\\b", "'", "''", "'\n'", "\n\n", "-rf", "\u202egnp.exe", "\u009b2J",
	"ü", "日本", "a'\x01'b", "$(reboot)", "`id`", "\xc3", "x\U000e0001y", "\\x41", "~", "#x", "=", "\x7f", "\u2028", "*",
}

func check(t *testing.T, name string) {
	t.Helper()
	for _, s := range []string{Terminal(name), Text(name)} {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", name, s)
		}
	}
	for _, s := range []string{Text(name), Valid(name)} {
		if got, err := Decode(s); err != nil || got != name {
			t.Errorf("%q became %q, %v by way of %q", name, got, err, s)
		}
	}
	out, err := json.Marshal(JSON(name))
	if err != nil {
		t.Fatal(err)
	}
	var s string
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if got, err := Decode(s); err != nil || got != name {
		t.Errorf("%q became %q, %v by way of JSON %s", name, got, err, out)
	}
}

func TestNamesStayWhatTheyAreAndHarmless(t *testing.T) {
	for _, name := range hostile {
		check(t, name)
	}
}

func TestTerminalIsReadByAShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is missing")
	}
	for _, name := range hostile {
		out, err := exec.Command(bash, "-c", "printf %s "+Terminal(name)).CombinedOutput()
		if name == "" || name == "-rf" {
			continue
		}
		if err != nil || string(out) != name {
			t.Errorf("%q, shown as %s, is read as %q, %v", name, Terminal(name), out, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range hostile {
		f.Add(name)
	}
	f.Fuzz(check)
}

func FuzzDecode(f *testing.F) {
	f.Add(`a\\b\xff`)
	f.Fuzz(func(t *testing.T, text string) {
		if name, err := Decode(text); err == nil {
			check(t, name)
		}
	})
}
