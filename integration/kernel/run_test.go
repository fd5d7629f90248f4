//go:build integration

package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A world is mounts that a list of operations runs on.
type world interface {
	// start makes and mounts everything anew.
	start() ([]difference, error)
	// do does one operation, and notes its result in it.
	do(o *op) ([]difference, error)
	// finish compares a last time.
	finish() ([]difference, error)
	// stop unmounts, also after an error.
	stop() error
	// control returns an operation that does something with the mounts.
	control(c *chooser) op
	// seen returns the tree that was looked at last.
	seen() tree
}

// pace is how many operations come between two looks at the whole tree.
const pace = 25

// source returns the operations to do, until it returns false.
type source func() (op, bool)

// generate returns operations of a seed, made up while they run.
func generate(w world, c config) source {
	ch := newChooser(c)
	n := 0
	return func() (op, bool) {
		n++
		switch {
		case n > c.ops:
			return op{}, false
		case n%pace == 0:
			return w.control(ch), true
		case n%pace == 1:
			ch.look(w.seen())
		}
		return ch.next(), true
	}
}

// replay returns the operations of a list.
func replay(list []op) source {
	return func() (o op, ok bool) {
		if len(list) == 0 {
			return op{}, false
		}
		o, list = list[0], list[1:]
		return o, true
	}
}

// errDiverged ends a run after a kept difference that makes the trees differ.
var errDiverged = errors.New("trees differ for a known reason")

// run does operations until one shows a difference that is not kept, and returns
// those it did and the difference.
func run(w world, c config, next source, counts map[string]int) (done []op, found *difference) {
	check := func(list []difference, err error) (ended bool) {
		for i := range list {
			list[i].config = &c
		}
		var kept error
		found, kept = firstNew(list, counts)
		switch {
		case found != nil:
		case err != nil:
			found = &difference{where: "harness", field: "error", lamina: err.Error()}
		default:
			return kept != nil
		}
		return true
	}
	defer func() {
		if err := w.stop(); err != nil && found == nil {
			found = &difference{where: "harness", field: "stop", lamina: err.Error()}
		}
	}()
	if check(w.start()) {
		return nil, found
	}
	for {
		o, ok := next()
		if !ok {
			break
		}
		done = append(done, o)
		if check(w.do(&done[len(done)-1])) {
			return done, found
		}
	}
	check(w.finish())
	return done, found
}

// firstNew returns the first difference that no row of kept covers, or
// errDiverged if a row that does ends the run.
func firstNew(list []difference, counts map[string]int) (*difference, error) {
	var end error
	for i := range list {
		row := keptRow(&list[i])
		if row == nil {
			return &list[i], nil
		}
		counts[row.what]++
		if row.ends {
			end = errDiverged
		}
	}
	return nil, end
}

// shrink leaves out operations while the same difference shows.
func shrink(w world, c config, list []op, found *difference, limit time.Duration) ([]op, *difference) {
	deadline := time.Now().Add(limit)
	for size := (len(list) + 1) / 2; size > 0; {
		shorter := false
		for i := 0; i < len(list) && time.Now().Before(deadline); {
			try := append(append([]op{}, list[:i]...), list[min(i+size, len(list)):]...)
			if done, d := run(w, c, replay(try), map[string]int{}); d != nil && d.signature() == found.signature() {
				list, found, shorter = done, d, true
			} else {
				i += size
			}
		}
		if time.Now().After(deadline) {
			break
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	return list, found
}

// eachSeed runs a test for as many seeds as time or LAMINA_SEEDS allows.
func eachSeed(t *testing.T, share time.Duration, test func(t *testing.T, seed uint64, counts map[string]int)) {
	need(t)
	lockThread(t)
	counts := map[string]int{}
	first, seeds := number(t, "LAMINA_SEED", 0), number(t, "LAMINA_SEEDS", 0)
	if first != 0 && seeds == 0 {
		seeds = 1
	}
	began, n := time.Now(), 0
	for ; n < seeds || seeds == 0 && time.Since(began) < share; n++ {
		test(t, uint64(max(first, 1)+n), counts)
		if n%100 == 99 && t.Failed() {
			break
		}
	}
	t.Logf("%d seeds in %v; differences that are kept: %v", n, time.Since(began).Round(time.Second), counts)
}

// report shrinks and prints a difference.
func report(t *testing.T, w world, c config, list []op, found *difference) {
	t.Helper()
	whole := len(list)
	list, found = shrink(w, c, list, found, time.Duration(number(t, "LAMINA_SHRINK", 20))*time.Second)
	var b strings.Builder
	for _, o := range list {
		line, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "    %s\n", line)
	}
	t.Errorf("%v\n  %d of %d operations:\n%s  %v", c, len(list), whole, &b, found)
}

// given returns the operations of the file that LAMINA_OPS names, or nil.
func given(t *testing.T) []op {
	t.Helper()
	name := os.Getenv("LAMINA_OPS")
	if name == "" {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []op
	for d := json.NewDecoder(f); d.More(); {
		var o op
		if err := d.Decode(&o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list = append(list, o)
	}
	return list
}
