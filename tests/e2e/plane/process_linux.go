package plane

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// executable is the file that a process runs.
func executable(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) }

// strays are processes that run a plane's binaries on its directory, whatever
// the pid files say.
func strays(dir string, b Binaries) []string {
	entries, err := os.ReadDir("/proc")
	if err != nil || dir == "" {
		return nil
	}
	var out []string
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
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && (exe == b.Kubebox || exe == b.Istiobox) && strings.Contains(string(args), dir) {
			out = append(out, fmt.Sprintf("process %s (pid %d)", strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " "), pid))
		}
	}
	return out
}
