package inspect

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may lead over, as in the kernel.
const maxLinks = 40

// Follow finds what users reach by a path: symbolic links on the way are
// followed within the stack, whose root is the root that absolute ones start
// from, and one at the end if last is set. ENOENT tells that users see nothing
// there. The caller closes the place.
func (s *Stack) Follow(path string, last bool) (*Place, error) {
	todo := strings.Split(path, "/")
	var done []string
	for links := 0; ; {
		if len(todo) == 0 {
			break
		}
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = done[:max(len(done)-1, 0)]
			continue
		}
		done = append(done, name)
		rest := strings.Trim(strings.Join(todo, "/"), "/.") != ""
		if !rest && !last {
			continue
		}
		target, err := s.link(strings.Join(done, "/"))
		if err != nil {
			return nil, err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%s: /%s: more than %d symbolic links: %w", s.Name, strings.Trim(path, "/"), maxLinks, unix.ELOOP)
		}
		done = done[:len(done)-1]
		if strings.HasPrefix(target, "/") {
			done = nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	p, err := s.Lookup(strings.Join(done, "/"))
	if err != nil {
		return nil, err
	}
	if p.Top() == nil {
		p.Close()
		if p.Err != nil {
			return nil, p.Err
		}
		return nil, fmt.Errorf("%s: /%s is not there (lamina inspect which tells where it went): %w", s.Name, strings.Join(done, "/"), unix.ENOENT)
	}
	return p, nil
}

// link returns where a symbolic link leads, "" for all else.
func (s *Stack) link(path string) (string, error) {
	p, err := s.Lookup(path)
	if err != nil {
		return "", err
	}
	defer p.Close()
	if top := p.Top(); top != nil && top.Stat.Type() == unix.S_IFLNK && top.Whiteout == NoWhiteout {
		return top.Readlink()
	}
	return "", nil
}
