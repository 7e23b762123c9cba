package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// BenchmarkGoldenUpgrade measures rutter test of the upgrade, as often as there
// are copies of it in one invocation: what is made once, renders and the
// generated mesh, counts for little. The goal is one second each.
func BenchmarkGoldenUpgrade(b *testing.B) {
	dir := b.TempDir()
	src, err := runbooks.FS.ReadFile("istio/in-place.star")
	if err != nil {
		b.Fatal(err)
	}
	var tests strings.Builder
	for i := range max(b.N, 1) {
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
	b.ResetTimer()
	if code := Run(context.Background(), context.Background(), e, []string{"test", "--update"}); code != 0 {
		b.Fatalf("exit %d\n%s", code, out.String())
	}
}

func suffix(i int) string { return strings.Repeat("i", i/26) + string(rune('a'+i%26)) }
