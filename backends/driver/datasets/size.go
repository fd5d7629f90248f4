package datasets

import "fmt"

// SizeText returns a number of bytes as the lines of a status have them, in units of
// 1000 as Docker's do.
func SizeText(n int64) string {
	const units = "kMGTPE"
	f, unit := float64(n), -1
	for f >= 999.5 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	if unit < 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.4g%cB", f, units[unit])
}
