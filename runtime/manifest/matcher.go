package manifest

// block is a run of lines that two texts have in common.
type block struct{ a, b, size int }

// matcher finds the lines that two texts have in common, exactly as
// difflib.SequenceMatcher does without junk: the longest run that is equal, then
// the same before and after it. Lines are numbers, equal for equal ones, and what
// the general one keeps in maps for each line is in arrays: of definitions, with
// their many alike lines, it takes longer than all else that is done with a diff.
type matcher struct {
	a, b []int32
	at   [][]int32 // where in b a line is, by its number; nothing of lines that are too frequent
	// run holds, by the place in b, how long a run is that ends there with the line
	// of a before the present one, and next those that end with the present one.
	run, next     []int32
	runAt, nextAt []int32 // the places that are set
}

// popular is how many lines a text has before frequent ones are left out, and part
// the share above which a line is frequent.
const (
	popular = 200
	part    = 100
)

func newMatcher(a, b []string) *matcher {
	numbers := make(map[string]int32, len(b))
	number := func(lines []string) []int32 {
		out := make([]int32, len(lines))
		for i, l := range lines {
			n, ok := numbers[l]
			if !ok {
				n = int32(len(numbers)) // #nosec G115 -- fewer than there are bytes in a text
				numbers[l] = n
			}
			out[i] = n
		}
		return out
	}
	m := &matcher{b: number(b), a: number(a), run: make([]int32, len(b)+1), next: make([]int32, len(b)+1)}
	m.at = make([][]int32, len(numbers))
	for j, n := range m.b {
		m.at[n] = append(m.at[n], int32(j)) // #nosec G115 -- see above
	}
	for n, places := range m.at {
		if len(b) >= popular && len(places) > len(b)/part+1 {
			m.at[n] = nil
		}
	}
	return m
}

// blocks are the runs in order; of two that touch one is made, and an empty one is
// the last.
func (m *matcher) blocks() []block {
	var out []block
	last := block{}
	for _, b := range m.between(0, len(m.a), 0, len(m.b), nil) {
		if last.a+last.size == b.a && last.b+last.size == b.b {
			last.size += b.size
			continue
		}
		if last.size > 0 {
			out = append(out, last)
		}
		last = b
	}
	if last.size > 0 {
		out = append(out, last)
	}
	return append(out, block{len(m.a), len(m.b), 0})
}

func (m *matcher) between(aFrom, aTo, bFrom, bTo int, out []block) []block {
	l := m.longest(aFrom, aTo, bFrom, bTo)
	if l.size == 0 {
		return out
	}
	if aFrom < l.a && bFrom < l.b {
		out = m.between(aFrom, l.a, bFrom, l.b, out)
	}
	out = append(out, l)
	if l.a+l.size < aTo && l.b+l.size < bTo {
		out = m.between(l.a+l.size, aTo, l.b+l.size, bTo, out)
	}
	return out
}

// longest is the longest run between these lines, the first of several.
func (m *matcher) longest(aFrom, aTo, bFrom, bTo int) block {
	best := block{aFrom, bFrom, 0}
	for i := aFrom; i < aTo; i++ {
		for _, j := range m.at[m.a[i]] {
			if int(j) < bFrom {
				continue
			}
			if int(j) >= bTo {
				break
			}
			k := m.run[j] + 1 // of the place before: places are counted from one
			m.next[j+1] = k
			m.nextAt = append(m.nextAt, j+1)
			if int(k) > best.size {
				best = block{i - int(k) + 1, int(j) - int(k) + 1, int(k)}
			}
		}
		m.turn()
	}
	m.turn()
	for best.a > aFrom && best.b > bFrom && m.a[best.a-1] == m.b[best.b-1] {
		best = block{best.a - 1, best.b - 1, best.size + 1}
	}
	for best.a+best.size < aTo && best.b+best.size < bTo && m.a[best.a+best.size] == m.b[best.b+best.size] {
		best.size++
	}
	return best
}

// turn makes the present line of a the one before.
func (m *matcher) turn() {
	for _, j := range m.runAt {
		m.run[j] = 0
	}
	m.run, m.next = m.next, m.run
	m.runAt, m.nextAt = m.nextAt, m.runAt[:0]
}
