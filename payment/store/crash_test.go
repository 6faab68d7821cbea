package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	crashWorkers = 8
	crashRounds  = 12
	crashVictim  = "PAYMESH_TEST_VICTIM" // path of the store, for the process that is killed
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashVictim); path != "" {
		victim(path)
		return
	}
	os.Exit(m.Run())
}

// victim creates payments until it is killed, each worker one after the other. What it says was acknowledged, a client has
// been told; every fourth reply is lost. It begins a few keys before the last acknowledged one of the round before, so that
// answers are replayed and what was under way is tried again.
func victim(path string) {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	starts := strings.Split(os.Getenv(crashVictim+"_STARTS"), ",")
	var wg sync.WaitGroup
	for worker := range crashWorkers {
		last, _ := strconv.Atoi(starts[worker])
		wg.Go(func() {
			for n := max(0, last-3); ; n++ {
				name := fmt.Sprintf("%d-%d", worker, n)
				// Each try has a reference of its own: only the key keeps it from paying twice.
				p := payment(ann, fmt.Sprintf("%s-%d", name, rand.Uint64()))
				answer, err := create(context.Background(), s, key(ann, name), Fingerprint{byte(worker)}, p)
				if err != nil {
					fmt.Println("error", err)
					return
				}
				if rand.IntN(4) > 0 { // else the reply is lost on its way
					fmt.Println("ack", worker, n, string(answer.Body))
				}
			}
		})
	}
	wg.Wait()
}

func TestNoPaymentIsDoubledOrLostWhereTheProcessIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "payments.db")
	acked := map[string]string{}
	var last [crashWorkers]int
	for range crashRounds {
		starts := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(last)), ","), "[]")
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), crashVictim+"="+path, crashVictim+"_STARTS="+starts)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		round(t, command, out, acked, &last)
	}
	s, _ := openStore(t, path)
	var payments, answers, alone int
	if err := s.read.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM answers),
		(SELECT count(*) FROM payments WHERE payment_id NOT IN (SELECT CAST(body AS TEXT) FROM answers))`).Scan(&payments, &answers, &alone); err != nil {
		t.Fatal(err)
	}
	if payments != answers || alone != 0 {
		t.Errorf("%d payments, %d answers, %d payments without an answer", payments, answers, alone)
	}
	for name, id := range acked {
		if _, err := s.Get(t.Context(), ann, id); err != nil {
			t.Errorf("payment %s of key %s was acknowledged: %v", id, name, err)
		}
	}
	if len(acked) < crashRounds*crashWorkers {
		t.Errorf("only %d payments in %d rounds show little", len(acked), crashRounds)
	}
	t.Logf("%d kills, %d payments, %d of them acknowledged", crashRounds, payments, len(acked))
}

// round takes acknowledgements and kills the process after a random number of them, in the middle of the others' work.
func round(t *testing.T, command *exec.Cmd, out io.Reader, acked map[string]string, last *[crashWorkers]int) {
	t.Helper()
	guard := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
	defer guard.Stop()
	kill := 3*crashWorkers + rand.IntN(100)
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		var worker, number int
		var id string
		if _, err := fmt.Sscanf(lines.Text(), "ack %d %d %s", &worker, &number, &id); err != nil {
			t.Errorf("the process says %q", lines.Text())
			break
		}
		name := fmt.Sprintf("%d-%d", worker, number)
		if before, has := acked[name]; has && before != id {
			t.Errorf("key %s was answered with %s and then with %s", name, before, id)
		}
		acked[name], last[worker] = id, number
		if n == kill {
			_ = command.Process.Kill() // SIGKILL; what the pipe still has was acknowledged too, and is read
		}
	}
	var exit *exec.ExitError
	if err := command.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Errorf("the process was to be killed, and ended with %v", err)
	}
}
