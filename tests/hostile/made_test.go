package hostile

import (
	"regexp"
	"runtime"
	"strings"
)

const isLinux = runtime.GOOS == "linux"

// made are the inputs that are too long to be files.
func made() []*input {
	long := func(s string, n int) string { return strings.Repeat(s, n) }
	const mb = 1 << 20
	var out []*input
	add := func(name, err string, files map[string]string, exit int) {
		in := &input{name: "made/" + name, entry: "input.star", files: files, exit: exit}
		if err != "" {
			in.errors = []*regexp.Regexp{regexp.MustCompile(err)}
		}
		in.finish()
		out = append(out, in)
	}
	script := func(name, err, src string) { add(name, err, map[string]string{"input.star": src}, 2) }

	script("parentheses", "nesting", "x = "+long("(", mb/4)+"1"+long(")", mb/4))
	script("brackets", "nesting", "x = "+long("[", mb/4)+"1"+long("]", mb/4))
	script("braces", "nesting", "x = "+long("{1:", mb/8)+"1"+long("}", mb/8))
	script("not", "nesting", "x = "+long("not ", mb/8)+"1")
	script("minus", "nesting", "x = "+long("-", mb/2)+"1")
	script("lambdas", "nesting", "x = "+long("lambda:", mb/8)+"1")
	script("conditions", "nesting", "x = "+long("1 if 1 else ", mb/16)+"1")
	script("unclosed", "nesting", "x = "+long("(", mb/2))
	script("dots", "has no attribute", "a = 1\nx = a"+long(".a", mb/8))
	script("calls", "invalid call", "a = 1\nx = a"+long("()", mb/8))
	script("product", "a number of .* bits", "a = 1 << 500\nx = a"+long("*a", mb/16))
	script("file-too-large", "larger than", "x = 1\n"+long("#", 2*mb))
	script("long-line", "is not defined", "x = "+long("a", mb/2)+"b")
	script("many-names", "is not defined", long("x0 = nope\n", 1)+func() string {
		var b strings.Builder
		for i := range 20000 {
			b.WriteString("y")
			b.WriteString(long("z", i%7))
			b.WriteString(" ")
			b.WriteString("= 1\n")
		}
		return b.String()
	}())
	script("nul", "", "x = 1\x00\n")
	script("bytes", "", "x = \"\xff\xfe\" \xff\n")
	script("carriage-return", "is not defined", "x = 1\r\r\ry = nope\r\n")
	script("bidi", "", "x = \"a\u202eb\" + 1\n")
	script("escape-in-source", "", "x = \"\x1b[2Jgone\" + 1\n")
	modules := map[string]string{"input.star": "load(\"./m0.star\", \"x\")\n"}
	for i := range 600 {
		modules["m"+itoa(i)+".star"] = "load(\"./m" + itoa(i+1) + ".star\", \"x\")\n"
	}
	modules["m600.star"] = "x = 1\n"
	add("modules", "more than 500 modules", modules, 2)

	yes := "runbook(name = \"hostile\", version = \"1.0.0\", params = {\"l\": param.dict(doc = \"any\")})\ndef run(p):\n    pass\n"
	add("yaml-laughs", "aliases|aliasing", map[string]string{"input.star": yes, "params.yaml": laughs(12)}, 2)
	add("yaml-grows", "aliases|aliasing", map[string]string{"input.star": yes, "params.yaml": "l:\n  a: &a \"" + long("x", 100_000) + "\"\n  b: [" + long("*a,", 2000) + "]\n"}, 2)
	add("yaml-deep", "", map[string]string{"input.star": yes, "params.yaml": "l: " + long("{a: ", 100_000)}, 2)
	add("yaml-deep-list", "", map[string]string{"input.star": yes, "params.yaml": "l: {a: " + long("[", 20_000) + long("]", 20_000) + "}"}, 2)
	add("yaml-long", "at most", map[string]string{"input.star": yes, "params.yaml": "l: {a: \"" + long("x", 17*mb) + "\"}"}, 2)
	add("yaml-many", "at most", map[string]string{"input.star": yes, "params.yaml": "l:\n  a:\n" + long("  - 1\n", 1_200_000)}, 2)
	add("yaml-twice", "already (set|defined)", map[string]string{"input.star": yes, "params.yaml": "l: {a: 1, a: 2}\n"}, 2)
	add("yaml-merge", "", map[string]string{"input.star": yes, "params.yaml": "a: &a {" + long("", 1) + "}\nl:\n  <<: *a\n  b: 1\n"}, 2)
	add("yaml-self", "", map[string]string{"input.star": yes, "params.yaml": "l: &a\n  b: *a\n"}, 2)
	add("yaml-float-key", "", map[string]string{"input.star": yes, "params.yaml": "l: {? [1, 2] : 3}\n"}, 2)
	add("policy-laughs", "policy.yaml:1:1: unknown key", map[string]string{"input.star": yes, "policy.yaml": laughs(12), "params.yaml": "l: {}\n"}, 2)
	add("fixture-laughs", "aliases|aliasing", map[string]string{"input.star": yes, "objects.yaml": laughs(12)}, 2)
	add("fixture-no-object", "not a Kubernetes object", map[string]string{"input.star": yes, "objects.yaml": "a: 1\n"}, 2)
	add("fixture-deep", "", map[string]string{"input.star": yes, "objects.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: shop}\ndata: " + long("{a: ", 50_000)}, 2)
	return out
}

func laughs(levels int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := 1; i < levels; i++ {
		b.WriteString("a" + itoa(i) + ": &a" + itoa(i) + " [" + strings.TrimSuffix(strings.Repeat("*a"+itoa(i-1)+", ", 9), ", ") + "]\n")
	}
	b.WriteString("l: {x: *a" + itoa(levels-1) + "}\n")
	return b.String()
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}
