package plane

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Marked names the processes that have mark, NAME=VALUE, in their environment,
// each with the ports that it listens on: what was started below whoever set it, and is still
// there. This process and those above it are left out.
func Marked(mark string) ([]string, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	above := ancestors(os.Getpid())
	var out []string
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || above[pid] {
			continue
		}
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), mark) {
			continue // ended, somebody else's, or not marked
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(args) == 0 {
			continue // ended, and nobody has asked how
		}
		s := stray{pid, strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))}.String()
		if ports := listening(pid); len(ports) > 0 {
			s += " listening on " + strings.Join(ports, ", ")
		}
		out = append(out, s)
	}
	return out, nil
}

// ancestors are a process and those that started it.
func ancestors(pid int) map[int]bool {
	out := map[int]bool{}
	for pid > 0 && !out[pid] {
		out[pid] = true
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		// The second field is the name in brackets, which may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			break
		}
	}
	return out
}

// listening are the TCP ports that a process listens on (proc(5), net/tcp).
func listening(pid int) []string {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil
	}
	ports := map[string]int{}
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" {
				continue
			}
			if port, err := hex.DecodeString(f[1][strings.LastIndexByte(f[1], ':')+1:]); err == nil && len(port) == 2 {
				ports["socket:["+f[9]+"]"] = int(port[0])<<8 | int(port[1])
			}
		}
	}
	of := map[int]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && ports[to] != 0 {
			of[ports[to]] = true
		}
	}
	var out []string
	for _, port := range slices.SortedFunc(maps.Keys(of), cmp.Compare[int]) {
		out = append(out, strconv.Itoa(port))
	}
	return out
}
