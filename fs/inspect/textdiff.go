package inspect

import (
	"bytes"
	"fmt"
	"strings"
)

// maxText bounds the files that are compared line by line, and maxEdits how many
// lines may differ.
const (
	maxText  = 1 << 20
	maxEdits = 4000
)

// TextDiff returns the difference of a file in the unified format, three lines
// around each change, without the header; a short remark for what is no text or
// too long. Either entry may be nil.
func TextDiff(old, new *Entry) (string, error) {
	a, err := text(old)
	if err != nil {
		return "", err
	}
	b, err := text(new)
	if err != nil {
		return "", err
	}
	switch {
	case len(a) > maxText || len(b) > maxText:
		return fmt.Sprintf("files of more than %d bytes are not compared line by line\n", maxText), nil
	case bytes.IndexByte(a, 0) >= 0 || bytes.IndexByte(b, 0) >= 0:
		return "binary files differ\n", nil
	}
	return unified(lines(a), lines(b)), nil
}

// text returns the data of a file, at most one byte more than maxText.
func text(e *Entry) ([]byte, error) {
	if e == nil {
		return nil, nil
	}
	s := e.Data()
	if s == nil {
		return nil, nil
	}
	f, err := s.OpenFile()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, min(s.Stat.Size, maxText+1))
	n, err := readFull(f, buf, 0)
	return buf[:n], err
}

// lines cuts text behind each newline.
func lines(b []byte) []string {
	l := strings.SplitAfter(string(b), "\n")
	if l[len(l)-1] == "" {
		l = l[:len(l)-1]
	}
	return l
}

// edit is a line that stays (' '), goes ('-') or comes ('+').
type edit struct {
	op   byte
	line string
}

// edits finds a shortest way from a to b (Myers, "An O(ND) Difference Algorithm",
// 1986), or all of one for all of the other when it is longer than maxEdits.
func edits(a, b []string) (out []edit) {
	n, m := len(a), len(b)
	v := map[int]int{1: 0}
	var trace []map[int]int
	for d := 0; d <= min(n+m, maxEdits); d++ {
		at := map[int]int{}
		for k := max(-d, -m-1); k <= min(d, n+1); k++ {
			at[k] = v[k]
		}
		trace = append(trace, at)
		for k := -d; k <= d; k += 2 {
			x := v[k-1] + 1
			if k == -d || k != d && v[k-1] < v[k+1] {
				x = v[k+1]
			}
			for x < n && x-k < m && a[x] == b[x-k] {
				x++
			}
			v[k] = x
			if x >= n && x-k >= m {
				return backtrack(a, b, trace, d)
			}
		}
		if len(trace)*len(at) > 1<<22 {
			break // memory
		}
	}
	for _, l := range a {
		out = append(out, edit{'-', l})
	}
	for _, l := range b {
		out = append(out, edit{'+', l})
	}
	return out
}

func backtrack(a, b []string, trace []map[int]int, d int) []edit {
	x, y := len(a), len(b)
	var rev []edit
	for ; d >= 0; d-- {
		v, k := trace[d], x-y
		prev := k - 1
		if k == -d || k != d && v[k-1] < v[k+1] {
			prev = k + 1
		}
		px := v[prev]
		py := px - prev
		for x > px && y > py && x > 0 && y > 0 {
			x, y = x-1, y-1
			rev = append(rev, edit{' ', a[x]})
		}
		if d == 0 {
			break
		}
		if x > px {
			x--
			rev = append(rev, edit{'-', a[x]})
		} else {
			y--
			rev = append(rev, edit{'+', b[y]})
		}
	}
	for i, j := 0, len(rev)-1; i < j; i, j = i+1, j-1 {
		rev[i], rev[j] = rev[j], rev[i]
	}
	return rev
}

const around = 3

func unified(a, b []string) string {
	all := edits(a, b)
	var out strings.Builder
	oldLine, newLine := 1, 1
	for i := 0; i < len(all); {
		if all[i].op == ' ' {
			oldLine, newLine, i = oldLine+1, newLine+1, i+1
			continue
		}
		start := max(0, i-around)
		end, quiet := i, 0
		for end < len(all) && quiet <= 2*around {
			if quiet++; all[end].op != ' ' {
				quiet = 0
			}
			end++
		}
		end -= max(0, quiet-around)
		hunk(&out, all[start:end], oldLine-(i-start), newLine-(i-start))
		for ; i < end; i++ {
			if all[i].op != '+' {
				oldLine++
			}
			if all[i].op != '-' {
				newLine++
			}
		}
	}
	return out.String()
}

func hunk(out *strings.Builder, h []edit, oldAt, newAt int) {
	olds, news := 0, 0
	for _, e := range h {
		if e.op != '+' {
			olds++
		}
		if e.op != '-' {
			news++
		}
	}
	if olds == 0 {
		oldAt--
	}
	if news == 0 {
		newAt--
	}
	fmt.Fprintf(out, "@@ -%d,%d +%d,%d @@\n", oldAt, olds, newAt, news)
	for _, e := range h {
		out.WriteByte(e.op)
		out.WriteString(e.line)
		if !strings.HasSuffix(e.line, "\n") {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}
