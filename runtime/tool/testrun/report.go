package testrun

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// Marks are how a text report shows success and failure; a terminal may colour
// them.
type Marks struct {
	Pass, Fail func(string) string
}

// Text writes a result as a line.
func (m Marks) Text(w io.Writer, r Result) error {
	mark := m.Pass("✓")
	if r.Failure != nil {
		mark = m.Fail("✗")
	}
	_, err := fmt.Fprintf(w, "%s %s::%s  %.2fs\n", mark, r.File, r.Name, r.Took.Seconds())
	for _, g := range r.Golden {
		if err == nil {
			_, err = fmt.Fprintf(w, "  wrote %s\n", g)
		}
	}
	return err
}

// TextEnd writes the failures and, as the last line, the counts.
func (m Marks) TextEnd(w io.Writer, s *Summary) error {
	var b strings.Builder
	for _, r := range s.Results {
		if r.Failure == nil {
			continue
		}
		fmt.Fprintf(&b, "\n%s %s::%s\n", m.Fail("✗"), r.File, r.Name)
		indent(&b, r.Failure.text())
		if len(r.Output) > 0 {
			b.WriteString("  it printed:\n")
			indent(&b, strings.Join(r.Output, "\n"))
		}
	}
	for _, err := range s.Broken {
		fmt.Fprintf(&b, "\n%s does not load\n", m.Fail("✗"))
		indent(&b, brokenText(err))
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d passed, %d failed\n", s.Passed, s.Failed)
	_, err := io.WriteString(w, b.String())
	return err
}

func indent(b *strings.Builder, text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if line == "" {
			b.WriteString("\n")
			continue
		}
		b.WriteString("  " + line + "\n")
	}
}

func (f *Failure) text() string {
	s := f.Message
	if p := f.Pos.String(); p != "" {
		s = p + ": " + s
	}
	for _, part := range []string{f.Source, f.Detail} {
		if part != "" {
			s += "\n" + part
		}
	}
	return s
}

func brokenText(err error) string {
	f := (&suite{}).failure(&testFile{}, err)
	return f.text()
}

// The JSON report, whose fields are only added to.
type (
	jsonReport struct {
		Tests  []jsonTest `json:"tests"`
		Broken []string   `json:"broken,omitempty"` // files that do not load
		Passed int        `json:"passed"`
		Failed int        `json:"failed"`
	}
	jsonTest struct {
		File    string       `json:"file"`
		Name    string       `json:"name"`
		OK      bool         `json:"ok"`
		Seconds float64      `json:"seconds"`
		Failure *jsonFailure `json:"failure,omitempty"`
		Output  []string     `json:"output,omitempty"`
		Golden  []string     `json:"golden,omitempty"` // files that were written
	}
	jsonFailure struct {
		File    string `json:"file,omitempty"`
		Line    int    `json:"line,omitempty"`
		Column  int    `json:"column,omitempty"`
		Message string `json:"message"`
		Detail  string `json:"detail,omitempty"`
		Source  string `json:"source,omitempty"`
	}
)

// JSON writes one object.
func (s *Summary) JSON(w io.Writer) error {
	out := jsonReport{Tests: []jsonTest{}, Passed: s.Passed, Failed: s.Failed}
	for _, r := range s.Results {
		t := jsonTest{File: r.File, Name: r.Name, OK: r.Failure == nil, Seconds: r.Took.Seconds(), Output: r.Output, Golden: r.Golden}
		if f := r.Failure; f != nil {
			t.Failure = &jsonFailure{f.Pos.File, f.Pos.Line, f.Pos.Col, f.Message, f.Detail, f.Source}
		}
		out.Tests = append(out.Tests, t)
	}
	for _, err := range s.Broken {
		out.Broken = append(out.Broken, err.Error())
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// The JUnit report, in the form that CI systems read
// (github.com/testmoapp/junitxml).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
		seconds  float64
	}
	junitCase struct {
		Class   string       `xml:"classname,attr"`
		Name    string       `xml:"name,attr"`
		File    string       `xml:"file,attr,omitempty"`
		Line    int          `xml:"line,attr,omitempty"`
		Time    string       `xml:"time,attr"`
		Failure *junitDetail `xml:"failure,omitempty"`
		Error   *junitDetail `xml:"error,omitempty"`
		Out     string       `xml:"system-out,omitempty"`
	}
	junitDetail struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes the report that CI systems read: a suite per file.
func (s *Summary) JUnit(w io.Writer) error {
	out := junitSuites{Tests: len(s.Results) + len(s.Broken), Failures: s.Failed, Errors: len(s.Broken)}
	for _, r := range s.Results {
		if n := len(out.Suites); n == 0 || out.Suites[n-1].Name != r.File {
			out.Suites = append(out.Suites, junitSuite{Name: r.File})
		}
		suite := &out.Suites[len(out.Suites)-1]
		suite.add(r)
	}
	for _, err := range s.Broken {
		out.Suites = append(out.Suites, junitSuite{
			Name: "does not load", Tests: 1, Errors: 1, Time: "0.000",
			Cases: []junitCase{{Class: "load", Name: "load", Time: "0.000", Error: &junitDetail{clean(err.Error()), clean(brokenText(err))}}},
		})
	}
	b, err := xml.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	return err
}

func (s *junitSuite) add(r Result) {
	c := junitCase{Class: r.File, Name: r.Name, File: r.File, Time: fmt.Sprintf("%.3f", r.Took.Seconds()), Out: clean(strings.Join(r.Output, "\n"))}
	if f := r.Failure; f != nil {
		c.Line = f.Pos.Line
		c.Failure = &junitDetail{clean(f.Message), clean(f.text())}
		s.Failures++
	}
	s.Tests++
	s.seconds += r.Took.Seconds()
	s.Time = fmt.Sprintf("%.3f", s.seconds)
	s.Cases = append(s.Cases, c)
}

// clean leaves out characters that XML 1.0 cannot hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
