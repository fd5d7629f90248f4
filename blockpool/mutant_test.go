package blockpool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// TestEachBrokenRuleIsNoticed builds this package's tests with rules that can be
// broken, and demands that they fail for each of the first LAMINA_MUTANTS rules,
// 0 for none. A run that hangs or cannot be made has noticed nothing.
func TestEachBrokenRuleIsNoticed(t *testing.T) {
	count := fromEnv("LAMINA_MUTANTS", 0)
	if count == 0 {
		t.Skip("LAMINA_MUTANTS says of how many broken rules to try the tests: make pool-test, make pool-long")
	}
	binary := filepath.Join(t.TempDir(), "broken.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "mutant", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if out, err := suite(binary, ""); err != nil {
		t.Fatalf("with no rule broken: %v\n%s", err, out)
	}
	failed := regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	for _, rule := range mutant.Rules[:min(count, len(mutant.Rules))] {
		t.Run(string(rule), func(t *testing.T) {
			begin := time.Now()
			out, err := suite(binary, rule)
			var exit *exec.ExitError
			by := failed.FindSubmatch(out)
			switch {
			case err == nil:
				t.Error("nobody noticed")
			case !errors.As(err, &exit) || by == nil:
				t.Errorf("the tests did not come to an end: %v\n%s", err, out)
			default:
				t.Logf("noticed by %s after %v", by[1], time.Since(begin).Round(time.Millisecond))
			}
		})
	}
}

// suite runs the tests that are about promises, in a short form.
func suite(binary string, rule mutant.Rule) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 16*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.timeout=15m",
		"-test.run=^Test(AfterAnyCrash|ACrashDuring|Volumes|Damage|EachReplica|AReplica|WhatIsBeingRead|DatasetsAreWhat)")
	cmd.Env = append(os.Environ(), "LAMINA_MUTANT="+string(rule), "LAMINA_MODEL_OPS=1500", "LAMINA_CRASH_STATES=4000",
		"LAMINA_RECOVERY_STATES=500", "LAMINA_TREE_SEEDS=3", "LAMINA_DAMAGES=300", "LAMINA_METADATA_DAMAGES=60")
	return cmd.CombinedOutput()
}
