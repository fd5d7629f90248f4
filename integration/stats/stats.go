// Package stats summarizes what benchmarks have measured: middles and ends, ratios of
// values that were measured side by side, and their mean.
package stats

import (
	"math"
	"slices"
)

// A Span is the middle and the ends of a set of values. The zero Span means none.
type Span struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// SpanOf summarizes values; the median of an even number is the mean of the middle two.
func SpanOf(values []float64) Span {
	if len(values) == 0 {
		return Span{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return Span{Min: v[0], Median: median, Max: v[len(v)-1]}
}

// PairRatios divides the values of equal rounds. A round that one side lacks, or
// in which the reference is not positive, has no ratio.
func PairRatios(values, reference []float64) []float64 {
	var ratios []float64
	for i := range min(len(values), len(reference)) {
		if reference[i] > 0 {
			ratios = append(ratios, values[i]/reference[i])
		}
	}
	return ratios
}

// GeometricMean is the mean for ratios: a workload twice as slow and one twice as
// fast make 1. Without values, or with one that is not positive, it is 0.
func GeometricMean(ratios []float64) float64 {
	if len(ratios) == 0 {
		return 0
	}
	var sum float64
	for _, r := range ratios {
		if r <= 0 {
			return 0
		}
		sum += math.Log(r)
	}
	return math.Exp(sum / float64(len(ratios)))
}

// Rotated gives 0..n-1 beginning with round: whoever goes first in one round goes
// last in the next, so that no subject always runs after the same other one's
// dirty pages.
func Rotated(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (i + round) % n
	}
	return order
}
