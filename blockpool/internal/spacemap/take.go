package spacemap

// Take gives out the first run of free units from unit on, most units of it at
// most, for who wants to go over all that is free. ok is false when nothing is
// free from there on.
func (a *Allocator) Take(from, most uint64) (unit, n uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := uint64(0)
	if from > a.base {
		at = from - a.base
	}
	begin := a.nextFree(at)
	if begin == a.n || most == 0 {
		return 0, 0, false
	}
	end := a.nextUsed(begin, min(a.n, begin+min(most, a.n)))
	a.fill(begin, end-begin)
	a.free -= end - begin
	return a.base + begin, end - begin, true
}
