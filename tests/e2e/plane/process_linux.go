package plane

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// executable is the file that a process runs.
func executable(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) }

// running are the processes that run binaries.
func running(b Binaries) []stray {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []stray
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, err := executable(pid)
		if err != nil {
			continue // ended, or not ours
		}
		exe = strings.TrimSuffix(exe, " (deleted)")
		if exe != b.Kubebox && exe != b.Istiobox {
			continue
		}
		if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
			out = append(out, stray{pid, strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")})
		}
	}
	return out
}
