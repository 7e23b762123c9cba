package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runbooks"
	"rutter.dev/rutter/runtime/env"
)

// upgradeTest is the golden test of the whole in-place upgrade of 50 workloads.
const upgradeTest = `
def test_upgrade(t):
    c = t.cluster(mesh = "istio=1.30.3,workloads=50,seed=1")
    r = t.run("in-place.star", cluster = c, params = {"to": "1.31.0"})
    t.equal(r.error, "")
    t.golden(r, name = "upgrade")
`

// BenchmarkGoldenUpgrade measures what one more golden test of the upgrade adds
// to rutter test: s/test is the time of an invocation with b.N+1 copies of it
// less that of an invocation with one, which renders the manifests and makes
// the mesh. The goal is one second.
func BenchmarkGoldenUpgrade(b *testing.B) {
	first := goldenRun(b, 1)
	b.ResetTimer()
	all := goldenRun(b, b.N+1)
	b.ReportMetric((all-first).Seconds()/float64(b.N), "s/test")
	b.ReportMetric(first.Seconds(), "s/first")
}

// goldenRun is how long rutter test takes for n copies of the test.
func goldenRun(b *testing.B, n int) time.Duration {
	b.Helper()
	dir := b.TempDir()
	src, err := runbooks.FS.ReadFile("istio/in-place.star")
	if err != nil {
		b.Fatal(err)
	}
	var tests strings.Builder
	for i := range n {
		tests.WriteString(strings.NewReplacer("test_upgrade", "test_upgrade_"+suffix(i), `"upgrade"`, `"`+suffix(i)+`"`).Replace(upgradeTest))
	}
	for name, text := range map[string]string{"in-place.star": string(src), "in-place_test.star": tests.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	var out strings.Builder
	e := &env.Env{
		Clock: env.SystemClock{}, Rand: strings.NewReader(""), Getenv: func(string) string { return "" },
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, IsTerminal: func(any) bool { return false }, Workdir: dir,
	}
	began := time.Now()
	if code := Run(context.Background(), context.Background(), e, []string{"test", "--update"}); code != 0 {
		b.Fatalf("exit %d\n%s", code, out.String())
	}
	return time.Since(began)
}

func suffix(i int) string { return strings.Repeat("i", i/26) + string(rune('a'+i%26)) }
