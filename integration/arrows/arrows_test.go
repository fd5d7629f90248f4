package arrows

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/laminafs/lamina/"

// forbidden lists, for packages below a folder, what they must not import; the
// first row that fits counts.
var forbidden = []struct {
	from string
	not  []string
}{
	{"whiteout", []string{module}},
	{"fs/layer", []string{module + "fs/vfs", module + "fs/union", module + "fs/fusefs", module + "blockpool", module + "backends", module + "cmd", "github.com/hanwen/go-fuse"}},
	{"fs/vfs", []string{module + "fs/union", module + "fs/fusefs", module + "fs/mountopt", module + "blockpool", module + "backends", module + "cmd", "github.com/hanwen/go-fuse"}},
	{"fs/union", []string{module + "fs/fusefs", module + "fs/mountopt", module + "blockpool", module + "backends", module + "cmd", "github.com/hanwen/go-fuse"}},
	{"fs/inspect", []string{module + "fs/fusefs", module + "fs/mountopt", module + "blockpool", module + "backends", module + "cmd", "github.com/hanwen/go-fuse"}},
	{"fs/mountopt", []string{module}},
	{"fs/", []string{module + "blockpool", module + "backends", module + "cmd"}},
	{"blockpool", []string{module + "fs/", module + "backends", module + "cmd", "github.com/hanwen/go-fuse"}},
	{"backends", []string{module + "cmd"}},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestArrows(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		for _, bad := range broken(p) {
			t.Error(bad)
		}
	}
	if seen < 5 {
		t.Errorf("go list told of %d packages only", seen)
	}
}

func broken(p goPackage) (bad []string) {
	name := strings.TrimPrefix(p.ImportPath, module)
	for _, row := range forbidden {
		if !strings.HasPrefix(name, row.from) {
			continue
		}
		for _, imp := range p.Imports {
			for _, not := range row.not {
				if strings.HasPrefix(imp, not) && !strings.HasPrefix(imp, module+row.from) {
					bad = append(bad, name+" imports "+imp)
				}
			}
		}
		return bad
	}
	return nil
}

func TestArrowsNoticesAForbiddenImport(t *testing.T) {
	for _, p := range []goPackage{
		{module + "whiteout", []string{module + "fs/layer"}},
		{module + "fs/union", []string{"github.com/hanwen/go-fuse/v2/fuse"}},
		{module + "fs/fusefs", []string{module + "blockpool"}},
		{module + "fs/inspect", []string{module + "fs/fusefs"}},
	} {
		if len(broken(p)) == 0 {
			t.Errorf("%s may import %v", p.ImportPath, p.Imports)
		}
	}
}
