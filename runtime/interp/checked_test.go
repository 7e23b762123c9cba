package interp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/loader"
)

func loaded(t testing.TB, src string) (*Loaded, error) {
	t.Helper()
	b := &loader.Bundle{Entry: "//x.star", Files: map[string]string{"//x.star": src}}
	return LoadModule(context.Background(), loader.FromBundle(b, nil), nil, Limits{}, nil)
}

// TestCheckedIsTheSame compares what modules compute, and where they fail, with
// the interpreter as it is.
func TestCheckedIsTheSame(t *testing.T) {
	for _, src := range []string{
		"def f(a):\n  if a:\n    pass\nx = f(1)", "def f(a):\n  if a:\n    return 1\n  elif a * 2:\n    return 2\n  else:\n    return 3 * a\nx = f(0)",
		"x = 2 * 3 * 4 % 5", "x = 'ab' * 2 + 3 * 'c'", "x = [1, 2] * 2, (1,) * 3, b'x' * 2, 0 * [1], -1 * 'a'",
		"x = 'a %s b %d' % ('x', 3), 'k %(a)s' % {'a': 1}, '%%' % (), '%s' % 'y'", "x = 1 * 'a' * {}", "x = 5 % 'a'", "x = 'a %s' % (1, 2)",
		"x = 'a %z' % 1", "x = '%(k)s' % {}", "x = ','.join(['a', 'b']), 'a b'.split(), 'a,b'.rsplit(','), 'x\\ny'.splitlines()",
		"x = ','.join([1])", "x = ','.join(5)", "x = 'aXb'.replace('X', '--', 1), 'ab'.replace('', '.')", "x = 'a'.replace(1, 2)",
		"x = '{} {}'.format(1, 'a'), '{a!r} {0} {{}}'.format(1, a = 'q')", "x = '{}'.format()", "x = '{'.format(1)",
		"def f():\n  d = {'k': [1]}\n  n = [0]\n  def g():\n    n[0] += 1\n    return d\n  g()['k'] *= 3\n  s = struct\n  return d, n\nstruct = 1\nx = f()",
		"def f():\n  x = 3\n  x *= 4\n  x %= 5\n  y = '%s-%s'\n  y %= (1, 2)\n  return x, y\nx = f()", "x = 3\nx *= 2", "def f():\n  x = [1]\n  x[5] *= 2\nx = f()",
		"def f():\n  x = [1]\n  x[0] *= None\nx = f()", "x = [a * b for a in [1, 2] for b in 'xy' if a % 2 == 1]", "x = (lambda a, b = 2 * 3: a * b)(2)",
		"def f(a, b):\n  return a + b\nx = f(1, 2), f('a', 'b'), f([1], [2]), f((1,), (2,)), f(b'a', b'b'), f(1, 2.5)", "a = [1]\nb = 'c'\nx = b + a", "a = 1\nb = None\nx = a +  b",
		"def f():\n  a = [1]\n  b = a\n  a += b\n  a += (3,)\n  c = 'x'\n  c += c\n  d = {'k': [1]}\n  d['k'] += a\n  n = 1\n  n += n\n  return a, b, c, d, n\nx = f()",
		"def f():\n  a = [1]\n  a += 5 * 1\n  return a\nx = f()", "def f():\n  a = 1\n  b = [a]\n  a += b\nx = f()", "def f(b):\n  a += b\nx = f(1)", "def f():\n  a = [0]\n  i = [1]\n  a[5] += i[0]\nx = f()",
		"def f():\n  a = [1]\n  e = a.extend\n  a.extend([2])\n  getattr(a, 'extend')((3,))\n  e(a)\n  return a\nx = f()", "x = [1].extend(5)", "x = [1].extend()", "x = [].join", "x = {}.extend", "x = getattr([], 'extnd')",
		"def f():\n  l = []\n  for i in range(3):\n    l += [i] + l\n  return l\nx = f()", "x = [].extend, ''.join, [1].index(1)",
		"x = 5 .join", "x = getattr('a', 'join')(['b']), hasattr('a', 'join'), 'join' in dir('')", "x = 1.5 * 2, 2 * 1.5, 7.5 % 2, 7 % -3",
		"x = sorted([3, 1, 2], reverse = True), list('ab'.elems()), tuple([1]), set([1, 1]), dict([('a', 1)]), reversed([1, 2]), enumerate(['a'], 1), zip([1], [2])",
		"x = str([1, 'a', {'b': None}]), repr('x'), int('12', 8), int(3.9), range(3), bytes('a')", "x = list(5)", "x = zip(1, 2)", "x = int('x')", "x = enumerate(1)",
	} {
		want, werr := plainly(src)
		m, gerr := loaded(t, src)
		got := ""
		if gerr == nil {
			got = m.Globals["x"].String()
			if m.Globals.Has("1") {
				t.Errorf("%s: a name of the rewriting is among the globals", src)
			}
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", src, got, want)
		}
		if (gerr == nil) != (werr == nil) {
			t.Errorf("%s: got error %v, want %v", src, gerr, werr)
			continue
		}
		if werr == nil {
			continue
		}
		text, at, _ := strings.Cut(werr.Error(), "@")
		if !strings.HasPrefix(gerr.Error(), at+": ") || !strings.Contains(gerr.Error(), text) && !strings.Contains(text, "has no .") && !strings.Contains(text, "reassign") && !strings.Contains(text, "not defined") && !strings.Contains(text, "referenced before") {
			t.Errorf("%s: got error %v, want %s at %s", src, gerr, text, at)
		}
	}
}

// plainly is x as Starlark computes it, or the error with its place.
func plainly(src string) (string, error) {
	opts := &syntax.FileOptions{Set: true}
	thread := &starlark.Thread{}
	g, err := starlark.ExecFileOptions(opts, thread, "x.star", src, nil)
	if err == nil {
		return g["x"].String(), nil
	}
	var ev *starlark.EvalError
	if errors.As(err, &ev) {
		for i := range ev.CallStack {
			if p := ev.CallStack.At(i).Pos; p.Line > 0 {
				return "", fmt.Errorf("%s@x.star:%d:%d", ev.Msg, p.Line, p.Col)
			}
		}
	}
	return "", fmt.Errorf("%s@%s", "", strings.Join(strings.SplitN(err.Error(), ":", 4)[:3], ":"))
}

// TestGivenUp: one operation that does not end does not hold its caller, and says
// where it is.
func TestGivenUp(t *testing.T) {
	if raceEnabled {
		t.Skip("reads the stack of a thread that does not move, which the race detector can't know")
	}
	src := "def run():\n  x = (1,)\n  for _ in range(60):\n    x = (x, x)\n  return {x: 1}\n"
	m, err := loaded(t, src)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Call(context.Background(), m.Globals["run"].(*starlark.Function), nil, ExecOptions{Limits: Limits{Stall: 200 * time.Millisecond}}, nil)
	var budget *BudgetError
	if !errors.As(err, &budget) || !strings.HasPrefix(err.Error(), "x.star:5:12: ") {
		t.Errorf("got %v, want a *BudgetError at x.star:5:12", err)
	}
}

func FuzzUpgrades(f *testing.F) {
	for _, s := range []string{"1.30.x -> 1.31.x", ">=1.29 <1.31 -> 1.31.x", "->", "x -> *", "1.30.x->1.31.x->1.32.x", "~1.2 || >3 -> ^1", "> > -> <"} {
		f.Add(s, "1.30.3", "1.31.0-rc.1")
	}
	f.Fuzz(func(t *testing.T, text, from, to string) {
		u, err := ParseUpgrades(text)
		if err != nil {
			return
		}
		if err := u.Allow(from, to); err != nil && text == "" {
			t.Errorf("no range, and %v", err)
		}
	})
}

// What a turn of the loop is, and how many of its operators are checked: as with
// numbers in scripts, which mostly have a literal, at worst, and as with text.
var hotLoops = map[string]string{
	"one":  "total = total + i * 3 % 7",
	"two":  "total = total + i * i % (i + 1)",
	"text": "total = total + len('%s-%d' % ('x', i))",
}

// BenchmarkHotLoop compares loops of checked operators with the interpreter's own.
func BenchmarkHotLoop(b *testing.B) {
	for name, turn := range hotLoops {
		b.Run(name, func(b *testing.B) {
			bench(b, "\ndef run():\n    total = 0\n    for i in range(300000):\n        "+turn+"\n    return total\n")
		})
	}
}

func bench(b *testing.B, hotLoop string) {
	b.Run("checked", func(b *testing.B) {
		m, err := loaded(b, hotLoop)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := m.Call(context.Background(), m.Globals["run"].(*starlark.Function), nil, ExecOptions{}, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		t := &starlark.Thread{}
		g, err := starlark.ExecFileOptions(&syntax.FileOptions{}, t, "x.star", hotLoop, nil)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := starlark.Call(t, g["run"], nil, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
