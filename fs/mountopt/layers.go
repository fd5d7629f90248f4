package mountopt

import (
	"errors"
	"fmt"
	"strings"
)

// parseLowers reads the value of lowerdir: directories separated by colons,
// the top first, then data-only ones, each after a double colon
// (overlayfs.rst, "Data-only lower layers"). A single colon at either end is
// skipped, as fuse-overlayfs does.
func parseLowers(value string) (lower, dataOnly []string, err error) {
	data := false
	for rest := value; rest != ""; {
		colons := len(rest) - len(strings.TrimLeft(rest, ":"))
		rest = rest[colons:]
		switch {
		case colons > 2:
			return nil, nil, errors.New("more than two colons in a row")
		case colons == 2 && rest == "":
			return nil, nil, errors.New(`no directory follows the last "::"`)
		case colons == 2:
			data = true
		case colons == 1 && rest != "" && data:
			return nil, nil, errors.New(`a regular lower cannot follow a data-only one; write "::" before each data-only directory`)
		}
		if rest == "" {
			break
		}
		var dir string
		if dir, rest, err = nextDir(rest); err != nil {
			return nil, nil, err
		}
		if data {
			dataOnly = append(dataOnly, dir)
		} else {
			lower = append(lower, dir)
		}
	}
	return lower, dataOnly, nil
}

// nextDir unescapes the first directory of a list and returns what follows,
// from its separator on.
//
// One or two backslashes before a colon make it part of the name; beyond that
// they pair up, as in kernel overlayfs.
func nextDir(list string) (dir, rest string, err error) {
	var b strings.Builder
	i := 0
	for i < len(list) && list[i] != ':' {
		if list[i] != '\\' {
			b.WriteByte(list[i])
			i++
			continue
		}
		n := len(list[i:]) - len(strings.TrimLeft(list[i:], `\`))
		after := list[i+n:]
		if n == 2 && strings.HasPrefix(after, ":") {
			n = 1
			i++
		}
		b.WriteString(strings.Repeat(`\`, n/2))
		i += n
		if n%2 == 0 {
			continue
		}
		c, width := unescapeOne(after)
		b.WriteByte(c)
		i += width
	}
	dir, err = checkPath(b.String())
	return dir, list[i:], err
}

// parsePath reads the value of an option that holds exactly one directory.
func parsePath(value string) (string, error) {
	if value == "" {
		return "", errors.New("the path is missing")
	}
	return checkPath(unescape(value))
}

// checkPath refuses what is no path of a layer.
func checkPath(path string) (string, error) {
	switch {
	case strings.IndexByte(path, 0) >= 0:
		return "", errors.New("a path cannot hold a NUL byte")
	case strings.HasPrefix(path, "//"):
		return "", fmt.Errorf("%q names a layer plugin of fuse-overlayfs, and plugins are not supported; "+
			"mount the plugin's data yourself and name that directory, or begin a plain path with one slash", path)
	}
	return path, nil
}
