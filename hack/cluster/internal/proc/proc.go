// Package proc names a process for good: its pid together with what tells it from a later owner of the same pid.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ID is a pid that is never mistaken for a recycled one: the start time counts clock ticks since boot, so that it
// only means something together with the boot.
type ID struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	BootID    string `json:"bootID"`
}

// Identify reads the identity of a process that runs now.
func Identify(pid int) (ID, error) {
	start, err := startTime(pid)
	if err != nil {
		return ID{}, err
	}
	boot, err := BootID()
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, StartTime: start, BootID: boot}, nil
}

// BootID changes with every start of the machine.
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the machine's boot ID: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// Alive says whether exactly this process still runs. A zombie does not run.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// Stop sends SIGTERM, waits for as long as grace, then sends SIGKILL and waits until ctx ends. A process that is gone
// already is success.
func (id ID) Stop(ctx context.Context, grace time.Duration) error {
	if !id.Alive() {
		return nil
	}
	// The pidfd keeps the signals from reaching a process that gets the pid between the check and the signal.
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", id.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !id.Alive() {
		return nil
	}
	if grace > 0 && signal(fd, unix.SIGTERM) == nil {
		graceful, cancel := context.WithTimeout(ctx, grace)
		err := waitExit(graceful, fd)
		cancel()
		if err == nil {
			return nil
		}
	}
	if err := signal(fd, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	if err := waitExit(ctx, fd); err != nil {
		return fmt.Errorf("process %d did not end after SIGKILL (look at /proc/%d/stack): %w", id.PID, id.PID, err)
	}
	return nil
}

func signal(pidfd int, sig unix.Signal) error {
	return unix.PidfdSendSignal(pidfd, sig, nil, 0)
}

// waitExit returns when the process behind pidfd has ended: a pidfd becomes readable then.
func waitExit(ctx context.Context, pidfd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 50) // ms: how late a cancelled ctx is noticed
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a process: %w", err)
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// startTime is field 22 of /proc/PID/stat. The name in field 2 may hold blanks and parentheses, so the fields are
// counted from the last ')'.
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	_, rest, ok := strings.Cut(string(raw[strings.LastIndexByte(string(raw), ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse the start time of process %d: %w", pid, err)
	}
	return start, nil
}
