//go:build integration

package kernel

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A difference is one thing that lamina and the kernel do not agree on.
type difference struct {
	where  string // the operation's name, or "tree"
	field  string // of a record: "mode", "data", …; "result" of an operation
	path   string
	kind   string // type of what a tree has there in lamina
	kernel string
	lamina string
	op     op
	config *config
	after  string // what had happened
	// aliased tells that the kernel shows one file under this name and another,
	// and no second link, or finds the name stale.
	aliased bool
}

// signature names what a difference is about. Shrinking keeps it.
func (d *difference) signature() string { return d.where + " " + d.field }

func (d *difference) String() string {
	return fmt.Sprintf("%s of %q %s\n  kernel: %s\n  lamina: %s", d.signature(), d.path, d.after, d.kernel, d.lamina)
}

// A treeRule says how closely trees are compared.
type treeRule struct {
	exactTimes bool // mtimes are the same to the nanosecond
	blocks     bool // sparse files are about as sparse
	links      bool // hard links are the same files
}

// compareTrees returns everything that differs. Times after began belong to
// operations and differ by when each side's turn was.
func compareTrees(kernel, lamina tree, rule treeRule, began time.Time, after string) []difference {
	const tolerance = int64(10 * time.Second) // how far the turns of both may be apart
	var list []difference
	add := func(field, path, k, l string) {
		if k == l {
			return
		}
		d := difference{where: "tree", field: field, path: path, kernel: k, lamina: l, after: after}
		if r := lamina[path]; r != nil {
			d.kind = r.fields["type"]
		}
		list = append(list, d)
	}
	all := maps.Clone(kernel)
	maps.Copy(all, lamina)
	for _, p := range all.paths() {
		k, l := kernel[p], lamina[p]
		if k == nil || l == nil {
			add("existence", p, existence(k), existence(l))
			continue
		}
		fields := maps.Clone(k.fields)
		maps.Copy(fields, l.fields)
		for _, f := range slices.Sorted(maps.Keys(fields)) {
			if (f == "names" || f == "nlink") && !rule.links {
				continue
			}
			add(f, p, k.fields[f], l.fields[f])
		}
		recent := min(k.mtime, l.mtime) >= began.UnixNano() && max(k.mtime-l.mtime, l.mtime-k.mtime) < tolerance
		if rule.exactTimes || !recent {
			add("mtime", p, clock(k.mtime), clock(l.mtime))
		}
		if rule.blocks && l.blocks > 2*k.blocks+64 {
			add("blocks", p, fmt.Sprint(k.blocks), fmt.Sprint(l.blocks))
		}
	}
	return list
}

// aliases are the names of files that the tree shows more often than they have
// links.
func (t tree) aliases() map[string]bool {
	names := map[uint64][]string{}
	for p, r := range t {
		if r.fields["type"] == "file" && r.fields["nlink"] == "1" {
			names[r.ino] = append(names[r.ino], p)
		}
	}
	aliases := map[string]bool{}
	for _, list := range names {
		for _, p := range list {
			aliases[p] = len(list) > 1
		}
	}
	return aliases
}

func existence(r *record) string {
	if r == nil {
		return "absent"
	}
	return "a " + r.fields["type"]
}

func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.000000000") }
