package union_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	modelSeed = flag.Uint64("seed", 0, "run this seed of the model test only")
	modelOps  = flag.Int("ops", 2000, "steps for each seed of the model test")
)

// modelTime is how long the model test runs when nothing else is asked for.
const modelTime = 4 * time.Second

// TestModel does the same to a union and to a plain tree, and wants both to
// answer and to look the same.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	total := 0
	if s := os.Getenv("LAMINA_MODEL_OPS"); s != "" {
		var err error
		if total, err = strconv.Atoi(s); err != nil {
			t.Fatalf("LAMINA_MODEL_OPS=%s: a number of steps is wanted", s)
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	begin, done, seed := time.Now(), 0, uint64(1)
	if total > 0 {
		seed = uint64(begin.UnixNano())
	}
	for ; total == 0 && time.Since(begin) < modelTime || done < total; seed++ {
		if !runModel(t, seed) {
			return
		}
		done += *modelOps
	}
	t.Logf("%d steps", done)
}

// runModel runs one seed, and shrinks it if it fails.
func runModel(t *testing.T, seed uint64) bool {
	r := rand.New(rand.NewPCG(seed, 0))
	stack := randomStack(r)
	var steps []*step
	failed := stack.run(func(w *world) *step {
		if len(steps) == *modelOps {
			return nil
		}
		steps = append(steps, w.draw(r))
		return steps[len(steps)-1]
	})
	if failed == "" {
		return true
	}
	t.Logf("seed %d, after %d steps: %s", seed, len(steps), failed)
	small, few := shrinkModel(stack, steps, failed)
	var list strings.Builder
	for _, s := range few {
		fmt.Fprintf(&list, "%v\n", s)
	}
	t.Errorf("go test -run TestModel -seed %d -ops %d\n%v\n%s\n%s", seed, *modelOps, &small, list.String(), small.replay(few))
	return false
}

// draw makes up the next step.
func (w *world) draw(r *rand.Rand) *step {
	s := &step{seed: r.Uint64N(1 << 40)}
	k := r.IntN(verbWeight)
	for _, name := range verbNames {
		if k -= verbs[name].weight; k < 0 {
			s.verb = name
			break
		}
	}
	verbs[s.verb].draw(w, r, s)
	return s
}

// run takes steps until next has none, and returns what differed.
func (s *modelStack) run(next func(w *world) *step) (failed string) {
	w := newWorld(s)
	defer func() {
		switch p := recover().(type) {
		case nil:
		case mismatch:
			failed = string(p)
		default:
			failed = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	w.mount(0)
	for st := next(w); st != nil; st = next(w) {
		w.do(st)
	}
	w.remount(1)
	w.lookAll(1)
	w.unmount(true)
	return ""
}

func (s *modelStack) replay(steps []*step) string {
	i := 0
	return s.run(func(*world) *step {
		if i == len(steps) {
			return nil
		}
		i++
		return steps[i-1]
	})
}

// details is what differs between failures of one kind.
var details = regexp.MustCompile(`"(\\.|[^"])*"|\S*/\S*|[0-9]+|a=\S*`)

// shrinkModel leaves out steps and parts of layers as long as what is left
// fails in the same way.
func shrinkModel(stack modelStack, steps []*step, failed string) (modelStack, []*step) {
	end := time.Now().Add(30 * time.Second)
	kind := func(failed string) string {
		line, _, _ := strings.Cut(failed, "\n")
		return details.ReplaceAllString(line, "")
	}
	fails := func(s modelStack, steps []*step) bool {
		return time.Now().Before(end) && kind(s.replay(steps)) == kind(failed)
	}
	for _, every := range []int{1 << 30, 1, stack.conf.every} {
		s := stack
		if s.conf.every = every; fails(s, steps) {
			stack = s
			break
		}
	}
	for before := -1; before != len(steps); {
		before = len(steps)
		steps = dropping(steps, func(few []*step) bool { return fails(stack, few) })
		for i := range stack.lowers {
			stack.lowers[i] = dropping(stack.lowers[i], func(few modelLayer) bool {
				s := stack
				s.lowers = slices.Clone(s.lowers)
				s.lowers[i] = few
				return fails(s, steps)
			})
		}
		stack.upper = dropping(stack.upper, func(few modelLayer) bool {
			s := stack
			s.upper = few
			return fails(s, steps)
		})
	}
	return stack, steps
}

// dropping leaves out ever smaller runs of a list while the rest fails.
func dropping[S ~[]E, E any](list S, fails func(S) bool) S {
	for size := max(1, len(list)/2); len(list) > 0; size /= 2 {
		for i := 0; i < len(list); {
			few := slices.Concat(list[:i], list[min(i+size, len(list)):])
			if fails(few) {
				list = few
			} else {
				i += size
			}
		}
		if size == 1 {
			break
		}
	}
	return list
}
