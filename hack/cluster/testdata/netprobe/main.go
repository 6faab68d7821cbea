// Command netprobe serves "hello" (netprobe serve :8080), or asks for it (netprobe get http://server:8080) and says
// how the question ended.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command, target string) error {
	if command == "serve" {
		return http.ListenAndServe(target, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "hello")
		}))
	}
	client := http.Client{Timeout: 3 * time.Second}
	r, err := client.Get(target)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(os.Stdout, r.Body)
	return err
}
