package blockpool

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// holdsFiles reports whether an entry is a dataset or a snapshot of one.
func (e *entry) holdsFiles() bool { return e.content == contentObjects }

// writer returns the id of the volume or dataset that has written what an entry
// names: a snapshot writes nothing.
func (e *entry) writer() uint64 {
	if e.kind == KindSnapshot {
		return e.origin
	}
	return e.id
}

// word says what an entry is.
func (e *entry) word() string {
	if e.kind == KindSnapshot {
		return e.kind.String()
	}
	return e.noun()
}

// noun says what an entry is, or is a snapshot of.
func (e *entry) noun() string { return nounOf(e.holdsFiles()) }

func nounOf(files bool) string {
	if files {
		return "dataset"
	}
	return "volume"
}

// makeFilesystem adds a dataset to the catalogue.
func (s *pass) makeFilesystem(name string, kept map[string]string) {
	said, there := kept["recordsize"]
	if !there {
		said = s.lookup().value(name, "recordsize").Value
	}
	size, _ := ParseSize(said) // checkProperty has made it
	e := s.newEntry(name, KindVolume)
	e.content, e.recordSize = contentObjects, size
	e.setNew(kept)
	s.refresh(name)
}

// refresh brings what entries keep of inherited properties up to date: those of one
// name, and of all below it.
func (s *pass) refresh(name string) {
	l := s.lookup()
	for _, e := range s.all() {
		if e.kind != KindVolume || !e.holdsFiles() || e.name != name && !isBelow(e.name, name) {
			continue
		}
		c, err := ParseCompression(l.value(e.name, "compression").Value)
		if err == nil && c != e.compression { // one that a later lamina knows stays as it is
			s.change(e.id).compression = c
		}
	}
}

// all returns the entries as this txg has them, sorted by name.
func (s *pass) all() []*entry {
	var list []*entry
	for _, v := range s.p.catalogue.all() {
		if e := s.peek(v.id); e != nil {
			list = append(list, e)
		}
	}
	for id, e := range s.entries {
		if e != nil && s.p.catalogue.get(id) == nil {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	return list
}

// namesBelow returns the names of datasets and volumes below one.
func (s *pass) namesBelow(name string) (names []string) {
	for _, e := range s.all() {
		if !strings.Contains(e.name, "@") && isBelow(e.name, name) {
			names = append(names, e.name)
		}
	}
	return names
}

// rename gives an entry another name, and moves what lies below it along.
func (s *pass) rename(e *entry, to string) error {
	from := e.name
	if isBelow(to, from) {
		return invalidf("%s lies below it", to)
	}
	if longest := s.longestBelow(from); len(to)+longest > maxName {
		return invalidf("what lies below it would get names of more than %d bytes", maxName)
	}
	if err := s.mayName(to, e.kind, e.holdsFiles()); err != nil {
		return err
	}
	if e.kind == KindVolume && e.holdsFiles() {
		if missing, err := s.missingAbove(to); err != nil {
			return err
		} else if len(missing) > 0 {
			return fmt.Errorf("%s, above it: %w", missing[len(missing)-1], ErrNotFound)
		}
	}
	for _, x := range s.all() {
		if isBelow(x.name, from) {
			s.change(x.id).name = to + strings.TrimPrefix(x.name, from)
		}
	}
	s.change(e.id).name = to
	s.refresh(to)
	return nil
}

// longestBelow returns how many bytes the longest name below one has more than it.
func (s *pass) longestBelow(name string) (most int) {
	for _, e := range s.all() {
		if volume, _, _ := strings.Cut(e.name, "@"); isBelow(volume, name) {
			most = max(most, len(volume)-len(name))
		}
	}
	return most
}

// mayName refuses a name that is taken. Names below a volume's are refused too: where
// names are paths, a volume is a file and a dataset is a directory.
func (s *pass) mayName(name string, kind Kind, files bool) error {
	if s.peekNamed(name) != nil {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	if kind != KindVolume {
		return nil
	}
	if _, err := s.missingAbove(name); err != nil {
		return err
	}
	if below := s.namesBelow(name); len(below) > 0 && !files {
		return invalidf("%s is there already, and a volume has nothing below it", below[0])
	}
	return nil
}
