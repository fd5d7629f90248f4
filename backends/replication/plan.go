package replication

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Source is a dataset or volume as the sender has it, with the pool's names.
type Source struct {
	Name       string
	Origin     string // snapshot that it is a clone of; empty: it is none
	Properties map[string]string
	Snapshots  []Snapshot
}

// A Snapshot is one of a source.
type Snapshot struct {
	Name string // without the source's
	GUID string
	Txg  uint64 // in which it was made
}

// Wanted says what of a tree is to be sent.
type Wanted struct {
	Top      string // the topmost dataset
	Snapshot string // up to this one, without the dataset's name
	From     string // from this one on, which the receiver has; empty: from the beginning
	// All sends the snapshots in between too; without From these are all before.
	All bool
	// Recursive sends what lies below the topmost dataset too.
	Recursive bool
	// SkipMissing leaves out what lies below and lacks the snapshot, with what is below
	// that; otherwise it is an error.
	SkipMissing bool
	Properties  bool // send them
}

// A Step is one stream: an entry, and between which snapshots it is.
type Step struct {
	Entry
	From, To string // as the sender calls them; From is empty for a full stream
}

// NewPlan returns the streams in the order in which they can be received.
func NewPlan(sources []Source, w Wanted) ([]Step, error) {
	p := &planner{w: w, left: map[string]*Source{}, there: map[string]bool{}}
	for i := range sources {
		if s := &sources[i]; s.Name == w.Top || w.Recursive && strings.HasPrefix(s.Name, w.Top+"/") {
			p.left[s.Name] = s
			p.names = append(p.names, s.Name)
		}
	}
	slices.Sort(p.names)
	for _, name := range p.names {
		if err := p.add(name); err != nil {
			return nil, err
		}
	}
	if len(p.steps) == 0 {
		return nil, fmt.Errorf("%s has nothing to send between %s and %s", w.Top, orBeginning(w.From), w.Snapshot)
	}
	return p.steps, nil
}

func orBeginning(from string) string {
	if from == "" {
		return "the beginning"
	}
	return from
}

type planner struct {
	w     Wanted
	left  map[string]*Source // those whose turn has not come
	names []string
	steps []Step
	there map[string]bool // snapshots that the receiver has or will have
}

// add plans a source, after what is above it and what it is a clone of.
func (p *planner) add(name string) error {
	s := p.left[name]
	if s == nil {
		return nil
	}
	delete(p.left, name)
	before := []string{strings.TrimSuffix(name[:max(0, strings.LastIndexByte(name, '/'))], "/")}
	if of, _, is := strings.Cut(s.Origin, "@"); is {
		before = append(before, of)
	}
	for _, b := range before {
		if err := p.add(b); err != nil {
			return err
		}
	}
	return p.plan(s)
}

func (p *planner) plan(s *Source) error {
	list := slices.Clone(s.Snapshots)
	slices.SortFunc(list, func(a, b Snapshot) int { return cmp.Or(cmp.Compare(a.Txg, b.Txg), cmp.Compare(a.Name, b.Name)) })
	place := func(name string) int {
		return slices.IndexFunc(list, func(x Snapshot) bool { return x.Name == name })
	}
	last := place(p.w.Snapshot)
	switch {
	case last < 0 && s.Name != p.w.Top && p.w.SkipMissing:
		for name := range p.left {
			if strings.HasPrefix(name, s.Name+"/") {
				delete(p.left, name)
			}
		}
		return nil
	case last < 0:
		return fmt.Errorf("%s has no snapshot %s: make it with dataset snapshot -r, or leave out what lacks it with --skip-missing", s.Name, p.w.Snapshot)
	}
	e := Entry{Dataset: strings.TrimPrefix(s.Name[len(p.w.Top):], "/")}
	if p.w.Properties {
		e.Properties = s.Properties
	}
	first, from := 0, ""
	if p.w.From != "" {
		switch at := place(p.w.From); {
		case at >= 0 && at < last:
			first, e.From, from = at+1, p.w.From, s.Name+"@"+p.w.From
			for _, snap := range list[:at+1] {
				p.there[s.Name+"@"+snap.Name] = p.w.All || snap.Name == p.w.From
			}
		case at >= 0:
			return fmt.Errorf("%s: snapshot %s is not older than %s", s.Name, p.w.From, p.w.Snapshot)
		case s.Name == p.w.Top:
			return fmt.Errorf("%s has no snapshot %s", s.Name, p.w.From)
		}
	}
	if !p.w.All {
		first = last
	}
	if from == "" && p.there[s.Origin] {
		e.Origin, from = strings.TrimPrefix(s.Origin[len(p.w.Top):], "/"), s.Origin
	}
	for _, snap := range list[first : last+1] {
		e.Snapshot, e.GUID = snap.Name, snap.GUID
		p.there[s.Name+"@"+snap.Name] = true
		p.steps = append(p.steps, Step{Entry: e, From: from, To: s.Name + "@" + snap.Name})
		e.From, e.Origin, e.Properties, from = snap.Name, "", nil, s.Name+"@"+snap.Name
	}
	return nil
}
