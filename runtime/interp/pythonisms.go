package interp

import (
	"regexp"
	"strings"
)

// Python habits that Starlark lacks, and what to write instead. The words are
// those that the scanner reserves.
var reservedHints = map[string]string{
	"try":      "runbooks have no `try`: use attempt(fn, …), whose result has .ok, .value and .error",
	"except":   "runbooks have no `except`: use attempt(fn, …), whose result has .ok, .value and .error",
	"finally":  "runbooks have no `finally`: use attempt(fn, …), then write what comes after it",
	"raise":    "runbooks have no `raise`: use fail(\"what is wrong\")",
	"with":     "runbooks have no `with`: call the function and use its value",
	"class":    "runbooks have no `class`: use a dict, or struct(name = value)",
	"import":   "runbooks have no `import`: use load(\"./file.star\", \"name\") or load(\"@stdlib//file.star\", \"name\")",
	"from":     "runbooks have no `from … import`: use load(\"./file.star\", \"name\")",
	"is":       "runbooks have no `is`: use ==, as in x == None",
	"yield":    "runbooks have no `yield`: return a list",
	"async":    "runbooks have no `async`: calls run one after the other, and parallel work is a builtin's",
	"await":    "runbooks have no `await`: calls return when they are done",
	"global":   "runbooks have no `global`: pass values as arguments and return them",
	"nonlocal": "runbooks have no `nonlocal`: pass values as arguments and return them",
	"del":      "runbooks have no `del`: use d.pop(\"key\")",
	"as":       "`as` is a reserved word; use load(\"./file.star\", mine = \"theirs\") to rename what is loaded",
	"while":    "runbooks have no `while`: use a for loop over a range, or a builtin that waits (kube.wait)",
}

var resolveHints = map[string]string{
	"this Starlark dialect does not support while loops": reservedHints["while"],
	"while loop not within a function":                   reservedHints["while"],
	"if statement not within a function":                 "`if` is not at the top level: put it in a function, or write x = a if condition else b",
	"for loop not within a function":                     "`for` is not at the top level: put it in a function, or write a comprehension: [f(x) for x in xs]",
	"return statement not within a function":             "`return` is only in a function",
	"load statement within a function":                   "load(…) is only at the top level of a file",
	"load statement within a conditional":                "load(…) is only at the top level of a file",
	"load statement within a loop":                       "load(…) is only at the top level of a file",
}

// pythonName is the sentence for a name that Python has.
func pythonName(name string) string {
	switch name {
	case "true", "false":
		return "write " + strings.ToUpper(name[:1]) + name[1:]
	case "null", "nil", "undefined":
		return "write None"
	case "isinstance", "issubclass":
		return "compare the type: type(x) == \"string\""
	case "map", "filter":
		return "write a comprehension: [f(x) for x in xs if wanted(x)]"
	case "sum":
		return "add in a for loop"
	case "open":
		return "runbooks read no files; take a parameter"
	case "input":
		return "runbooks ask with approve(\"message\"), or take a parameter"
	case "os", "sys", "subprocess", "socket", "random", "requests":
		return "runbooks reach the outside only through builtins such as kube and istioctl"
	case "format":
		return "use \"…\" % (a, b), or \"{}\".format(a)"
	case "round":
		return "use int(x + 0.5)"
	case "assert":
		return "use fail(\"message\")"
	case "exit", "quit":
		return "use fail(\"message\") to stop, or return"
	case "Exception", "ValueError", "RuntimeError":
		return "runbooks have no exceptions: use fail(\"message\") and attempt(fn, …)"
	case "self", "super":
		return "runbooks have no classes"
	}
	return ""
}

var (
	gotToken  = regexp.MustCompile("^got '?([^', ]+)'?")
	fstring   = regexp.MustCompile(`(?:^|[^\w"'])([fF][rR]?|[rR][fF])["']`)
	walrus    = regexp.MustCompile(`:=`)
	annotated = regexp.MustCompile(`^\s*def\s+\w+\(.*\w\s*(:)\s*\w`)
	asserted  = regexp.MustCompile(`^\s*(assert)\s+[^=\s(]`)
	printed   = regexp.MustCompile(`^\s*(print)\s+["'\w]`)
	setComp   = regexp.MustCompile(`\{[^:{}]*\sfor\s`)
	increment = regexp.MustCompile(`\w(\+\+|--)\s*(?:$|#|;)`)
)

// pythonism turns a syntax error into a plain sentence where it comes from a
// habit of Python (or of C), and moves the column to what it is about.
func pythonism(line string, col int, msg string) (text string, at int) {
	token := ""
	if m := gotToken.FindStringSubmatch(msg); m != nil {
		token = m[1]
	}
	if hint, ok := reservedHints[token]; ok {
		if token == "import" && strings.HasPrefix(strings.TrimSpace(line), "from ") {
			hint = reservedHints["from"]
		}
		return hint, wordColumn(line, token, col)
	}
	for _, h := range lineHints {
		if m := h.match.FindStringSubmatchIndex(line); m != nil && (h.tokens == "" || strings.Contains(" "+h.tokens+" ", " "+token+" ")) {
			return h.text, column(line, m[2*h.group])
		}
	}
	switch {
	case token == "if" && strings.Contains(line, "else if"):
		return "runbooks have no `else if`: write elif", wordColumn(line, "if", col)
	case strings.Contains(msg, "unexpected input character '!'"), strings.Contains(msg, "unexpected input character `!`"):
		return "runbooks have no `!`: write not", col
	case strings.Contains(msg, "unexpected input character"):
		return strings.Replace(msg, "unexpected input character", "there is no use for the character", 1) + " here", col
	}
	return plainTokens(msg), col
}

// lineHints are recognized by the source line; tokens narrows them to errors at
// one of these tokens.
var lineHints = []struct {
	match  *regexp.Regexp
	group  int
	tokens string
	text   string
}{
	{fstring, 1, "string", "runbooks have no f-strings: use \"Istio %s\" % version, or \"Istio {}\".format(version)"},
	{walrus, 0, ": = :=", "runbooks have no `:=`: assign on a line of its own"},
	{asserted, 1, "", "runbooks have no `assert`: use if not condition: fail(\"message\")"},
	{printed, 1, "", "print is a function: print(\"message\"); log(\"message\") also goes to the journal"},
	{regexp.MustCompile(`\*\*`), 0, "**", "runbooks have no `**` power: multiply"},
	{regexp.MustCompile(`\)\s*->`), 0, "- ->", "runbooks have no type annotations: write def f(x):"},
	{annotated, 1, ":", "runbooks have no type annotations: write def f(x):"},
	{regexp.MustCompile(`^\s*(@)`), 1, "", "runbooks have no decorators: call the function with the other one"},
	{setComp, 0, "for", "runbooks have no set comprehensions: use set([f(x) for x in xs])"},
	{regexp.MustCompile(`&&`), 0, "&", "runbooks have no `&&`: write and"},
	{regexp.MustCompile(`\|\|`), 0, "|", "runbooks have no `||`: write or"},
	{increment, 1, "", "runbooks have no `++` and `--`: write x += 1"},
	{regexp.MustCompile(`["'](\s+)["']`), 1, "string", "strings side by side are not joined: write + between them"},
}

// plainTokens says "a newline" for what the parser calls newline, and the like.
func plainTokens(msg string) string {
	if strings.HasPrefix(msg, "got indent, ") {
		return "this line is indented more than the one before, which opens no block"
	}
	r := strings.NewReplacer(
		"got newline", "the line ends too early: got its end",
		"want primary expression", "want a value here",
		"got end of file", "the file ends too early: got its end",
	)
	return r.Replace(msg)
}

// wordColumn is the column of word in line, nearest before col (from 1).
func wordColumn(line, word string, col int) int {
	best := 0
	re := regexp.MustCompile(`\b` + regexp.QuoteMeta(word) + `\b`)
	for _, m := range re.FindAllStringIndex(line, -1) {
		if c := column(line, m[0]); best == 0 || c <= col {
			best = c
		}
	}
	if best == 0 {
		return col
	}
	return best
}

// column counts characters up to the byte offset, from 1.
func column(line string, offset int) int { return len([]rune(line[:offset])) + 1 }
