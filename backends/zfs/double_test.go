package zfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/layer"
)

// A double answers as zfs(8) does, with directories for datasets: which commands the
// engine gives, and in which order, can be tried without zfs. Everything is on disk, so
// that it outlives processes that are killed.
//
//	DIR/NAME/tree  DIR/NAME/properties  DIR/NAME@SNAPSHOT/tree    "/" in names is ","
type double struct{ dir string }

func (z double) path(name string, elem ...string) string {
	return filepath.Join(append([]string{z.dir, strings.ReplaceAll(name, "/", ",")}, elem...)...)
}

func (z double) exists(name string) bool {
	_, err := os.Stat(z.path(name, "properties"))
	return err == nil
}

func fails(args []string, format string, a ...any) error {
	return &commandError{"zfs " + strings.Join(args, " "), fmt.Sprintf(format, a...), errors.New("exit status 1")}
}

func (z double) zpool(...string) (string, error) { return "ONLINE\n", nil }

func (z double) zfs(args ...string) (string, error) {
	properties := map[string]string{}
	flags := map[string]string{}
	var names []string
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" && (args[0] == "create" || args[0] == "clone"):
			i++
			name, value, _ := strings.Cut(args[i], "=")
			properties[name] = value
		case a == "-o" || a == "-t" || a == "-d" && args[0] == "list":
			i++
			flags[a] = args[i]
		case strings.HasPrefix(a, "-"):
			flags[a] = a
		default:
			names = append(names, a)
		}
	}
	switch args[0] {
	case "version":
		return "double\n", nil
	case "create":
		if z.exists(names[0]) {
			if flags["-p"] != "" {
				return "", nil
			}
			return "", fails(args, "cannot create '%s': dataset already exists", names[0])
		}
		return "", z.make(names[0], "", properties)
	case "clone":
		switch {
		case !z.exists(names[0]):
			return "", fails(args, "cannot open '%s': dataset does not exist", names[0])
		case z.exists(names[1]):
			return "", fails(args, "cannot create '%s': dataset already exists", names[1])
		}
		properties["origin"] = names[0]
		return "", z.make(names[1], names[0], properties)
	case "snapshot":
		of, _, _ := strings.Cut(names[0], "@")
		if z.exists(names[0]) {
			return "", fails(args, "cannot create snapshot '%s': dataset already exists", names[0])
		}
		return "", z.make(names[0], of, nil)
	case "destroy":
		return "", z.destroy(args, names[0])
	case "list":
		return z.list(flags, names[0])
	case "get":
		return "1\n2\n0\nlz4\n", nil
	}
	return "", fails(args, "unrecognized command")
}

// make makes a dataset or snapshot, in one step, with the content of another one.
func (z double) make(name, like string, properties map[string]string) error {
	staged, err := os.MkdirTemp(z.dir, ".new-")
	if err != nil {
		return err
	}
	if err := os.Mkdir(staged+"/tree", 0o755); err != nil {
		return err
	}
	if like != "" {
		src, err := layer.OpenHost(z.path(like, "tree"))
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := layer.OpenHost(staged + "/tree")
		if err != nil {
			return err
		}
		defer dst.Close()
		if err := tree.Copy(context.Background(), src, dst, tree.Data); err != nil {
			return err
		}
	}
	text, err := json.Marshal(properties)
	if err == nil {
		err = os.WriteFile(staged+"/properties", text, 0o644)
	}
	if err != nil {
		return err
	}
	return os.Rename(staged, z.path(name))
}

func (z double) all() (names []string, properties map[string]map[string]string) {
	entries, _ := os.ReadDir(z.dir)
	properties = map[string]map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(z.dir, e.Name(), "properties"))
		if strings.HasPrefix(e.Name(), ".") || err != nil {
			continue
		}
		name := strings.ReplaceAll(e.Name(), ",", "/")
		p := map[string]string{}
		_ = json.Unmarshal(text, &p)
		names, properties[name] = append(names, name), p
	}
	return names, properties
}

func (z double) destroy(args []string, name string) error {
	if !z.exists(name) {
		return fails(args, "cannot open '%s': dataset does not exist", name)
	}
	names, properties := z.all()
	for _, n := range names {
		if origin := properties[n]["origin"]; origin == name || strings.HasPrefix(origin, name+"@") {
			return fails(args, "cannot destroy '%s': filesystem has dependent clones", name)
		}
	}
	for _, n := range names {
		if n == name || strings.HasPrefix(n, name+"@") {
			gone := filepath.Join(z.dir, ".gone-"+filepath.Base(z.path(n)))
			if err := os.Rename(z.path(n), gone); err != nil {
				return err
			}
			if err := os.RemoveAll(gone); err != nil {
				return err
			}
		}
	}
	return nil
}

func (z double) list(flags map[string]string, name string) (string, error) {
	if flags["-d"] == "" {
		return name + "\n", nil
	}
	var out strings.Builder
	names, properties := z.all()
	for _, n := range names {
		if strings.Contains(n, "@") || n != name && !strings.HasPrefix(n, name+"/") {
			continue
		}
		stage := properties[n][propertyStage]
		if stage == "" {
			stage = "-"
		}
		fmt.Fprintf(&out, "%s\t%s\n", n, stage)
	}
	return out.String(), nil
}

func (z double) mount(dataset, target, _ string) error {
	return unix.Mount(z.path(dataset, "tree"), target, "", unix.MS_BIND, "")
}

func (z double) unmount(target string) error { return unix.Unmount(target, 0) }
