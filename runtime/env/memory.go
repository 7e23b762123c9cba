package env

import (
	"os"
	"strconv"
	"strings"
)

// Memory is how many bytes of memory this process may count on: the machine's,
// or less where its control group is given less. 0 where that can't be told
// (anywhere but on Linux).
func Memory() uint64 {
	total := uint64(0)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		line, _, _ := strings.Cut(string(b), "\n")
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseUint(f[1], 10, 54); err == nil {
				total = kib << 10
			}
		}
	}
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && (total == 0 || n < total) {
			total = n
		}
	}
	return total
}
