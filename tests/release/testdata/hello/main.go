// Command hello links one module, and so little that a test can build it twice.
package main

import (
	"fmt"

	"go.starlark.net/syntax"
)

func main() {
	f, err := (&syntax.FileOptions{}).Parse("hello.star", "print('hello')", 0)
	fmt.Println(f, err)
}
