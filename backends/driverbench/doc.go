// Package driverbench compares the storage drivers of this machine: the same work,
// done by every driver with every engine that can be had, round after round, so that
// what else the machine does falls on all of them.
//
//	Run ─> subjects   each driver × engine, or why it cannot be had
//	    ─> prepare    an image and a deep stack for each, made from the same archives
//	    ─> workloads  a Row or more each: values by subject and round
//	    ─> Report     a table, JSON, one HTML page; and what suits which use
//
// A value is seconds, bytes, or files; less is better in every row. What is told of a
// use is reckoned from the rows that matter to it: of each the ratio to the best
// subject, and of these the geometric mean.
package driverbench
