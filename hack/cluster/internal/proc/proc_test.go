package proc

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestAProcessIsAliveOnlyUnderItsOwnStartTimeAndBoot(t *testing.T) {
	id, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !id.Alive() {
		t.Error("this process is not alive")
	}
	for name, other := range map[string]ID{
		"a later owner of the pid":   {PID: id.PID, StartTime: id.StartTime + 1, BootID: id.BootID},
		"the pid of an earlier boot": {PID: id.PID, StartTime: id.StartTime, BootID: "other"},
		"no process":                 {},
	} {
		if other.Alive() {
			t.Errorf("%s is alive", name)
		}
	}
}

func TestStopKillsWhatIgnoresTheRequest(t *testing.T) {
	for name, script := range map[string]string{
		"obeys":   "exec sleep 1000",
		"ignores": "trap '' TERM; while :; do read -r _ || exec tail -f /dev/null; done",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			id, err := Identify(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := id.Stop(ctx, 200*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			<-ended
			if !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() || id.Alive() {
				t.Errorf("it ended with %v", cmd.ProcessState)
			}
		})
	}
}

func TestStopOfAnEndedProcessIsSuccess(t *testing.T) {
	if err := (ID{PID: os.Getpid(), StartTime: 1, BootID: "other"}).Stop(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
}
