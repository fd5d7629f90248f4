package blockpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A DependentsError refuses to destroy something and says what stands in the way.
// Clones never do: they depend on nothing.
type DependentsError struct {
	Name      string
	Children  []string // datasets and volumes below it
	Snapshots []string // of it and of those
}

func (e *DependentsError) Error() string {
	var parts []string
	for _, x := range []struct {
		what  string
		names []string
	}{{"datasets below it", e.Children}, {"snapshots", e.Snapshots}} {
		if n := len(x.names); n > 0 {
			const most = 5
			list := strings.Join(x.names[:min(n, most)], ", ")
			if n > most {
				list += fmt.Sprintf(" and %d more", n-most)
			}
			parts = append(parts, x.what+" ("+list+")")
		}
	}
	return fmt.Sprintf("%s has %s", e.Name, strings.Join(parts, " and "))
}

// Unwrap returns [ErrBusy].
func (e *DependentsError) Unwrap() error { return ErrBusy }

// FilesystemOptions are what may be said of a new dataset.
type FilesystemOptions struct {
	Properties map[string]string // as for [Pool.SetProperties]
	Parents    bool              // make those above it that are missing, and be content when it is there already
}

// CreateFilesystem makes an empty dataset. The one above it must be there, unless
// parents are asked for. It fails with [ErrExists], [ErrNotFound] for the parent,
// [ErrInvalid] for a property that cannot be, and [ErrNoSpace] when less of the pool
// is free than its minimum.
func (p *Pool) CreateFilesystem(ctx context.Context, name string, o FilesystemOptions) error {
	err := CheckName(name)
	kept := map[string]string{}
	if err == nil {
		kept, err = checkProperties(o.Properties, onFilesystem)
	}
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error {
			if e := s.peekNamed(name); o.Parents && e != nil && e.holdsFiles() {
				return nil
			}
			missing, err := s.missingAbove(name)
			switch {
			case err != nil:
				return err
			case len(missing) > 0 && !o.Parents:
				return fmt.Errorf("%s, above it: %w", missing[len(missing)-1], ErrNotFound)
			}
			if err := s.mayMake(name, kept); err != nil {
				return err
			}
			for _, parent := range missing {
				s.makeFilesystem(parent, nil)
			}
			s.makeFilesystem(name, kept)
			return nil
		}})
	}
	return failed("create", name, err)
}

// missingAbove returns the names above one that nothing is called, the uppermost
// first. It refuses those that cannot have anything below.
func (s *pass) missingAbove(name string) (missing []string, err error) {
	for at := above(name); at != ""; at = above(at) {
		e := s.peekNamed(at)
		if e == nil {
			missing = append(missing, at)
		} else if !e.holdsFiles() {
			return nil, invalidf("%s is a volume, which has nothing below it", at)
		}
	}
	slices.Reverse(missing)
	return missing, nil
}

// mayMake refuses a dataset that cannot be, its parents aside.
func (s *pass) mayMake(name string, kept map[string]string) error {
	if err := s.mayCreate(name, KindVolume, true); err != nil {
		return err
	}
	limits, others := splitLimits(kept)
	if err := local(others).checkSize(); err != nil {
		return err
	}
	return s.mayLimit(&entry{name: name}, limits)
}

// setNew gives a new dataset the properties that were said.
func (e *entry) setNew(kept map[string]string) {
	limits, others := splitLimits(kept)
	e.props = e.props.with(others)
	for property, n := range limits {
		*specOf(property).limit(e) = n
	}
}

// CloneFilesystem makes a dataset with the content that from, a dataset or one of its
// snapshots, has now. The two depend on each other in nothing. Of properties it has
// those that are said, not those of from.
func (p *Pool) CloneFilesystem(ctx context.Context, from, name string, o FilesystemOptions) error {
	err := CheckName(name)
	kept := map[string]string{}
	if err == nil {
		kept, err = checkProperties(o.Properties, onFilesystem)
	}
	if _, said := kept["recordsize"]; err == nil && said {
		err = invalidf("recordsize is that of %s: the two share records", from)
	}
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error {
			origin := s.peekNamed(from)
			switch {
			case origin == nil:
				return fmt.Errorf("%s: %w", from, ErrNotFound)
			case !origin.holdsFiles():
				return invalidf("%s is a volume: see lamina volume clone", from)
			}
			missing, err := s.missingAbove(name)
			switch {
			case err != nil:
				return err
			case len(missing) > 0 && !o.Parents:
				return fmt.Errorf("%s, above it: %w", missing[len(missing)-1], ErrNotFound)
			}
			if err := s.mayMake(name, kept); err != nil {
				return err
			}
			if err := s.share(from, name, KindVolume); err != nil {
				return err
			}
			s.named(name).setNew(kept)
			for _, parent := range missing {
				s.makeFilesystem(parent, nil)
			}
			s.refresh(name)
			return nil
		}})
	}
	return failed("clone", name, err)
}

// SnapshotAll keeps the content of datasets and volumes as it is now, all of it in one
// txg or, when it fails, nothing. Names are those of the snapshots; with recursive,
// everything below gets one of the same name behind the @. All of them get the
// properties. It returns the names of what it has made.
func (p *Pool) SnapshotAll(ctx context.Context, names []string, recursive bool, properties map[string]string) (made []string, err error) {
	kept, err := checkProperties(properties, onSnapshot)
	if err != nil {
		return nil, failed("snapshot", strings.Join(names, ", "), err)
	}
	for _, name := range names {
		if _, snap, e := splitSnapshot(name); e != nil {
			return nil, failed("snapshot", name, e)
		} else if snap == "" {
			return nil, failed("snapshot", name, invalidf("a snapshot's name is DATASET@NAME"))
		}
	}
	err = p.do(ctx, &task{run: func(s *pass) error {
		var list []string
		for _, name := range names {
			of, snap, _ := strings.Cut(name, "@")
			if s.peekNamed(of) == nil {
				return fmt.Errorf("%s: %w", of, ErrNotFound)
			}
			list = append(list, name)
			if recursive {
				for _, e := range s.all() {
					if e.kind == KindVolume && isBelow(e.name, of) && e.receiving == nil {
						list = append(list, e.name+"@"+snap)
					}
				}
			}
		}
		slices.Sort(list)
		list = slices.Compact(list)
		for _, name := range list {
			of, _, _ := strings.Cut(name, "@")
			if s.peekNamed(of).receiving != nil {
				return fmt.Errorf("%s is being received: %w", of, ErrBusy)
			}
			if err := s.mayCreate(name, KindSnapshot, false); err != nil {
				return err
			}
		}
		for _, name := range list {
			of, _, _ := strings.Cut(name, "@")
			if err := s.share(of, name, KindSnapshot); err != nil {
				return s.fatal(err)
			}
			if len(kept) > 0 {
				s.named(name).setNew(kept)
			}
		}
		made = list
		return nil
	}})
	return made, failed("snapshot", strings.Join(names, ", "), err)
}

// RenameSnapshots gives a snapshot another name, and those of the same name of all that
// lies below its dataset: all of them or none. Both names are DATASET@NAME.
func (p *Pool) RenameSnapshots(ctx context.Context, from, to string) error {
	of, old, err := splitSnapshot(from)
	_, snap, err2 := splitSnapshot(to)
	switch {
	case err != nil || err2 != nil:
		err = errors.Join(err, err2)
	case old == "" || snap == "" || !strings.HasPrefix(to, of+"@"):
		err = invalidf("names of snapshots of one dataset are needed, DATASET@NAME, not %s and %s", from, to)
	default:
		err = p.do(ctx, &task{run: func(s *pass) error {
			var list []*entry
			for _, e := range s.all() {
				if e.kind == KindSnapshot && (e.name == from || isBelow(e.name, of) && strings.HasSuffix(e.name, "@"+old)) {
					list = append(list, e)
				}
			}
			if len(list) == 0 {
				return ErrNotFound
			}
			for _, e := range list {
				if err := s.mayName(strings.TrimSuffix(e.name, old)+snap, KindSnapshot, false); err != nil {
					return err
				}
			}
			for _, e := range list {
				s.change(e.id).name = strings.TrimSuffix(e.name, old) + snap
			}
			return nil
		}})
	}
	return failed("rename", from, err)
}

// Dependents returns what would be destroyed along with a dataset, volume or snapshot,
// sorted by name, the thing itself included. Without recursive it fails with a
// [DependentsError] if there is anything else.
func (p *Pool) Dependents(name string, recursive bool) ([]string, error) {
	var list []*entry
	for _, v := range p.catalogue.all() {
		list = append(list, v.entry.Load())
	}
	names, err := dependents(list, name, recursive)
	return names, failed("destroy", name, err)
}

func dependents(all []*entry, name string, recursive bool) ([]string, error) {
	names, stands := []string(nil), DependentsError{Name: name}
	found := false
	for _, e := range all {
		switch {
		case e.name == name:
			found = true
		case !isBelow(e.name, name):
			continue
		case e.receiving != nil && !recursive:
			return nil, fmt.Errorf("%s is being received: %w", name, ErrBusy)
		case e.kind == KindSnapshot:
			stands.Snapshots = append(stands.Snapshots, e.name)
		default:
			stands.Children = append(stands.Children, e.name)
		}
		names = append(names, e.name)
	}
	switch {
	case !found || name == "":
		return nil, ErrNotFound
	case !recursive && len(names) > 1:
		return nil, &stands
	}
	slices.Sort(names)
	return names, nil
}

// DestroyAll removes datasets, volumes and snapshots, all of them in one txg or, when
// it fails, none. One that has others below it, or snapshots, is refused with a
// [DependentsError], unless recursive says that all of them go too or they are named
// as well. Clones stay: they depend on nothing. It fails with [ErrBusy] when any is
// open. The space comes back in the background.
func (p *Pool) DestroyAll(ctx context.Context, names []string, recursive bool) (gone []string, err error) {
	err = p.do(ctx, &task{run: func(s *pass) error {
		all, doomed := s.all(), map[string]bool{}
		for _, name := range names {
			list, err := dependents(all, name, true)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			doomed[name] = true
			if recursive {
				for _, n := range list {
					doomed[n] = true
				}
			}
		}
		left := slices.DeleteFunc(slices.Clone(all), func(e *entry) bool { return doomed[e.name] })
		for _, name := range names {
			_, err := dependents(append(slices.Clone(left), s.peekNamed(name)), name, false)
			if err != nil {
				return err
			}
		}
		var list []*entry
		for _, e := range all {
			if doomed[e.name] {
				list = append(list, e)
			}
		}
		if err := s.allUnused(list); err != nil {
			return err
		}
		for _, e := range list {
			s.discardEntry(e)
			gone = append(gone, e.name)
		}
		return nil
	}})
	if err != nil {
		gone = nil
	}
	return gone, failed("destroy", strings.Join(names, ", "), err)
}

// allUnused is unused for several: either all of them are kept from being opened, or
// none.
func (s *pass) allUnused(list []*entry) error {
	before := len(s.after)
	for _, e := range list {
		if err := s.unused(e); err != nil {
			for _, unclaim := range s.after[before:] {
				unclaim()
			}
			s.after = s.after[:before]
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// discardEntry removes an entry; its tree is taken apart in the background.
func (s *pass) discardEntry(e *entry) {
	s.p.dead.add(s, e.root)
	s.entries[e.id] = nil
}

// RollbackFilesystem makes a dataset what its snapshot is. What was written since is
// lost. Newer snapshots stay, or are destroyed along when that is asked for, in the
// same txg; their names are returned. It fails with [ErrBusy] while the dataset, or a
// snapshot that is to go, is open.
func (p *Pool) RollbackFilesystem(ctx context.Context, snapshot string, destroyNewer bool) (gone []string, err error) {
	if !destroyNewer {
		return nil, p.Rollback(ctx, snapshot)
	}
	of, snap, err := splitSnapshot(snapshot)
	if err == nil && snap == "" {
		err = invalidf("a snapshot's name is DATASET@NAME")
	}
	if err == nil {
		err = p.do(ctx, &task{run: func(s *pass) error {
			kept := s.peekNamed(snapshot)
			if kept == nil {
				return ErrNotFound
			}
			newer := slices.DeleteFunc(s.snapshotsOf(of), func(e *entry) bool {
				return e.receiving != nil || e.createdTxg < kept.createdTxg || e.createdTxg == kept.createdTxg && e.id <= kept.id
			})
			slices.SortFunc(newer, func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
			before := len(s.after)
			err := s.allUnused(newer)
			if err == nil {
				err = s.rollback(snapshot, of)
			}
			if err != nil {
				for _, unclaim := range s.after[before:] {
					unclaim()
				}
				s.after = s.after[:before]
				return err
			}
			for _, e := range newer {
				s.discardEntry(e)
				gone = append(gone, e.name)
			}
			return nil
		}})
	}
	if err != nil {
		gone = nil
	}
	return gone, failed("roll back to", snapshot, err)
}
