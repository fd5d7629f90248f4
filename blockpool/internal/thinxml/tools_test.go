package thinxml

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
)

// tool runs one of thin-provisioning-tools and returns what it printed.
func tool(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := lookTool(args[0])
	if err != nil {
		t.Skipf("%s is not installed (Debian: thin-provisioning-tools)", args[0])
	}
	cmd := exec.Command(path, args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out, stderr.Bytes())
	}
	return out
}

// lookTool looks in sbin as well, which is not in the PATH of ordinary users.
func lookTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

// TestThinRestoreTakesWhatWeWriteAndThinDumpGivesItBack goes all the way: our
// text, binary metadata that thin_check finds clean, thin_dump's text, pool.
func TestThinRestoreTakesWhatWeWriteAndThinDumpGivesItBack(t *testing.T) {
	old := bytes.HasPrefix(tool(t, "thin_dump", "--version"), []byte("0.9")) // later ones print it otherwise
	for seed := range uint64(20) {
		p := randomPool(rand.New(rand.NewPCG(seed, 2)))
		text := write(t, p)
		dir := t.TempDir()
		in, meta := filepath.Join(dir, "in.xml"), filepath.Join(dir, "meta")
		if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(meta, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(meta, 8<<20); err != nil {
			t.Fatal(err)
		}
		tool(t, "thin_restore", "-q", "-i", in, "-o", meta)
		tool(t, "thin_check", "-q", meta)
		dump := tool(t, "thin_dump", meta)
		if got := mustRead(t, string(dump)); !reflect.DeepEqual(got, coalesced(p)) {
			t.Fatalf("seed %d: pool %+v\ncame back as %+v\n%s", seed, coalesced(p), got, dump)
		}
		if old && string(dump) != text {
			t.Fatalf("seed %d: thin_dump prints\n%s\nwhere lamina writes\n%s", seed, dump, text)
		}
	}
}
