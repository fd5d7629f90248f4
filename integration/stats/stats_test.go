package stats

import (
	"math"
	"slices"
	"testing"
)

func TestSpanOfIsNotMovedByOneSlowRound(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Span
	}{
		{nil, Span{}},
		{[]float64{3}, Span{3, 3, 3}},
		{[]float64{100, 1, 2}, Span{1, 2, 100}},
		{[]float64{4, 1, 100, 2}, Span{1, 3, 100}},
	} {
		before := slices.Clone(c.values)
		if got := SpanOf(c.values); got != c.want {
			t.Errorf("SpanOf(%v) = %v, want %v", before, got, c.want)
		}
		if !slices.Equal(c.values, before) {
			t.Errorf("SpanOf reordered the rounds: %v became %v", before, c.values)
		}
	}
}

func TestPairRatiosCompareOnlyEqualRounds(t *testing.T) {
	got := PairRatios([]float64{2, 9, 8, 1}, []float64{1, 3, 0})
	if want := []float64{2, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: a round without reference has no ratio", got, want)
	}
}

// A machine that becomes ten times slower during the run must not change who is faster.
func TestPairRatiosSurviveDrift(t *testing.T) {
	ref := []float64{1, 2, 4, 8, 10}
	slower := make([]float64, len(ref))
	for i, v := range ref {
		slower[i] = 1.5 * v
	}
	if got := SpanOf(PairRatios(slower, ref)); got != (Span{1.5, 1.5, 1.5}) {
		t.Errorf("got %v, want 1.5 throughout", got)
	}
}

func TestGeometricMean(t *testing.T) {
	for _, c := range []struct {
		ratios []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{0.5, 2}, 1},
		{[]float64{1, 1, 8}, 2},
		{[]float64{1, 0}, 0},
	} {
		if got := GeometricMean(c.ratios); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("GeometricMean(%v) = %v, want %v", c.ratios, got, c.want)
		}
	}
}

func TestRotatedGivesEverySubjectEveryPlace(t *testing.T) {
	places := map[[2]int]int{}
	for round := range 4 {
		for place, subject := range Rotated(4, round) {
			places[[2]int{subject, place}]++
		}
	}
	if len(places) != 16 {
		t.Errorf("4 rounds of 4 subjects gave %d of 16 combinations of subject and place", len(places))
	}
}
