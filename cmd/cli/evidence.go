package cli

import (
	"os"
	"path/filepath"
)

// evidenceIn writes what was found when a step failed into the run's folder.
func evidenceIn(dir string) func(name string, content []byte) (string, error) {
	return func(name string, content []byte) (string, error) {
		path := filepath.Join(dir, "evidence", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		return path, os.WriteFile(path, content, 0o600)
	}
}
