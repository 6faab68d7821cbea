package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	ann = Caller{Issuer: "https://issuer", Subject: "ann"}
	bob = Caller{Issuer: "https://issuer", Subject: "bob"}
)

type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Unix(0, c.now.Load()) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d)) }

func openStore(t *testing.T, path string) (*Store, *clock) {
	t.Helper()
	clock := &clock{}
	clock.now.Store(time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC).UnixNano())
	s, err := Open(t.Context(), path, Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, clock
}

func payment(caller Caller, name string) Payment {
	return Payment{ID: "pay_" + name, Caller: caller, MerchantReference: name, PayerUserID: "user_1", Currency: "EUR", MinorUnits: 1050, Description: "d", CreateTime: time.Unix(1, 5).UTC()}
}

func key(caller Caller, name string) Key {
	return Key{Caller: caller, Method: "/payment.v1.PaymentService/CreatePayment", Key: name}
}

var refused = Answer{Failed: true, Body: []byte("refused")}

func create(ctx context.Context, s *Store, k Key, f Fingerprint, p Payment) (Answer, error) {
	claim, answer, err := s.Claim(ctx, k, f)
	if err != nil {
		return Answer{}, err
	}
	if answer != nil {
		return *answer, nil
	}
	defer claim.Release()
	return claim.Create(ctx, p, Answer{Body: []byte(p.ID)}, refused)
}

func mustCreate(t *testing.T, s *Store, k Key, f Fingerprint, p Payment) Answer {
	t.Helper()
	answer, err := create(t.Context(), s, k, f, p)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestTheSameKeyIsAnsweredWithTheSameBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a name with spaces & more?.db")
	s, _ := openStore(t, path)
	mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "first"))
	if got := mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "second")); string(got.Body) != "pay_first" {
		t.Errorf("replayed %q", got.Body)
	}
	if _, err := create(t.Context(), s, key(ann, "k"), Fingerprint{2}, payment(ann, "third")); !errors.Is(err, ErrKeyReused) {
		t.Errorf("other parameters: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = openStore(t, path)
	if got := mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "fourth")); string(got.Body) != "pay_first" {
		t.Errorf("replayed %q by the next process", got.Body)
	}
	if got, err := s.Get(t.Context(), ann, "pay_first"); err != nil || got != payment(ann, "first") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAKeyIsTheCallersAndTheMethodsOwn(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "db"))
	mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "1"))
	otherIssuer := Caller{Issuer: "https://other", Subject: "ann"}
	otherMethod := key(ann, "k")
	otherMethod.Method = "/payment.v1.PaymentService/RefundPayment"
	for i, k := range []Key{key(bob, "k"), key(otherIssuer, "k"), otherMethod} {
		name := fmt.Sprint("other-", i)
		if got := mustCreate(t, s, k, Fingerprint{2}, payment(k.Caller, name)); string(got.Body) != "pay_"+name {
			t.Errorf("%v was answered with %q", k, got.Body)
		}
	}
	for _, caller := range []Caller{bob, otherIssuer} {
		if _, err := s.Get(t.Context(), caller, "pay_1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v sees the payment of another: %v", caller, err)
		}
	}
}

func TestOneOfManyCallsWithOneKeyExecutes(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "db"))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			answer, err := create(context.Background(), s, key(ann, "k"), Fingerprint{1}, payment(ann, fmt.Sprint(i)))
			if err != nil && !errors.Is(err, ErrKeyInFlight) {
				t.Errorf("%v", err)
			}
			if err == nil && answer.Failed {
				t.Errorf("got %q", answer.Body)
			}
		})
	}
	wg.Wait()
	if got, _, err := s.List(t.Context(), ann, "", 100); err != nil || len(got) != 1 {
		t.Errorf("%d payments, %v", len(got), err)
	}
}

func TestAKeyInFlightIsRefusedUntilItIsReleased(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "db"))
	claim, _, err := s.Claim(t.Context(), key(ann, "k"), Fingerprint{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Claim(t.Context(), key(ann, "k"), Fingerprint{1}); !errors.Is(err, ErrKeyInFlight) {
		t.Errorf("in flight: %v", err)
	}
	claim.Release() // the validation failed: nothing is stored
	if got := mustCreate(t, s, key(ann, "k"), Fingerprint{2}, payment(ann, "1")); string(got.Body) != "pay_1" {
		t.Errorf("got %q", got.Body)
	}
	claim.Release() // a second time it must not release what another call has
}

func TestAReferenceIsUniqueForEverAndItsRefusalIsReplayed(t *testing.T) {
	s, clock := openStore(t, filepath.Join(t.TempDir(), "db"))
	first, again := payment(ann, "order"), payment(ann, "order")
	again.ID = "pay_again"
	mustCreate(t, s, key(ann, "1"), Fingerprint{1}, first)
	if got := mustCreate(t, s, key(ann, "2"), Fingerprint{1}, again); !got.Failed {
		t.Errorf("a second payment for one reference: %q", got.Body)
	}
	if got := mustCreate(t, s, key(ann, "2"), Fingerprint{1}, payment(ann, "free")); !got.Failed {
		t.Errorf("the refusal was not replayed: %q", got.Body)
	}
	if got := mustCreate(t, s, key(bob, "1"), Fingerprint{1}, func() Payment { p := again; p.Caller = bob; return p }()); got.Failed {
		t.Errorf("another caller's reference is in the way: %q", got.Body)
	}
	clock.advance(MinRetention + time.Hour)
	if n, err := s.Sweep(t.Context()); err != nil || n != 3 {
		t.Errorf("swept %d, %v", n, err)
	}
	again.ID = "pay_after"
	if got := mustCreate(t, s, key(ann, "1"), Fingerprint{1}, again); !got.Failed {
		t.Errorf("a forgotten key paid a second time: %q", got.Body)
	}
}

func TestAnAnswerIsReplayedForADayAndNotMuchLonger(t *testing.T) {
	s, clock := openStore(t, filepath.Join(t.TempDir(), "db"))
	mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "1"))
	clock.advance(MinRetention)
	if n, err := s.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept %d, %v", n, err)
	}
	if got := mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "2")); string(got.Body) != "pay_1" {
		t.Errorf("got %q", got.Body)
	}
	clock.advance(time.Nanosecond) // not swept yet, and forgotten all the same
	if got := mustCreate(t, s, key(ann, "k"), Fingerprint{2}, payment(ann, "3")); string(got.Body) != "pay_3" {
		t.Errorf("got %q", got.Body)
	}
}

// age stores as many answers, as old as the clock says.
func age(t *testing.T, s *Store, count int) {
	t.Helper()
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO answers WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
		SELECT 'https://issuer', 'old', '/m', 'k' || i, x'00', 0, zeroblob(200), ? FROM n`, count, s.now().UnixNano()); err != nil {
		t.Fatal(err)
	}
}

func TestAPaymentIsTakenWhileManyOldKeysAreForgotten(t *testing.T) {
	s, clock := openStore(t, filepath.Join(t.TempDir(), "db"))
	const old = 10 * sweepSize
	age(t, s, old)
	clock.advance(MinRetention + time.Hour)
	type result struct {
		n   int64
		err error
	}
	swept := make(chan result, 1)
	go func() { n, err := s.Sweep(context.Background()); swept <- result{n, err} }()
	for s.write.Stats().InUse == 0 { // the sweep has not begun
		runtime.Gosched()
	}
	mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "1"))
	var left int
	if err := s.read.QueryRowContext(t.Context(), "SELECT count(*) FROM answers WHERE subject = 'old'").Scan(&left); err != nil || left == 0 {
		t.Errorf("the payment waited for all of them: %d left, %v", left, err)
	}
	if got := <-swept; got.err != nil || got.n != old {
		t.Errorf("swept %d, %v", got.n, got.err)
	}
}

func TestPagesHaveEachPaymentOnceNewestFirst(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "db"))
	for i := range 7 {
		mustCreate(t, s, key(ann, fmt.Sprint(i)), Fingerprint{1}, payment(ann, fmt.Sprint(i)))
	}
	mustCreate(t, s, key(bob, "b"), Fingerprint{1}, payment(bob, "b"))
	var got []string
	for after, more := "", true; more; {
		var page []Payment
		var err error
		page, more, err = s.List(t.Context(), ann, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			got, after = append(got, p.MerchantReference), p.ID
		}
	}
	if strings.Join(got, "") != "6543210" {
		t.Errorf("got %v", got)
	}
	for _, other := range []Caller{bob, {Issuer: "https://other", Subject: "ann"}} {
		if _, _, err := s.List(t.Context(), other, "pay_3", 3); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v goes on from another's payment: %v", other, err)
		}
	}
}

func TestASecondProcessIsRefusedAndToldWhy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	openStore(t, path)
	for _, wait := range []time.Duration{0, 3 * lockInterval} {
		began := time.Now()
		if _, err := Open(t.Context(), path, Options{Wait: wait}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "the store is in use: another process holds "+path+".lock") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took < wait {
			t.Errorf("it waited %s of %s", took, wait)
		}
	}
}

func TestAProcessWaitsForTheOneBeforeItUntilItIsToldToStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	first, _ := openStore(t, path)
	told, tell := context.WithCancelCause(t.Context())
	stopped := errors.New("told to stop")
	tell(stopped)
	if _, err := Open(told, path, Options{Wait: time.Hour}); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := Open(context.Background(), path, Options{Wait: time.Hour})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestTheFilesAreTheProcesssOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := openStore(t, path)
	mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "1"))
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 4 { // with -wal, -shm and .lock
		t.Fatal(files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func TestPaymentsCannotBeChangedOrDeleted(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "db"))
	mustCreate(t, s, key(ann, "k"), Fingerprint{1}, payment(ann, "1"))
	for _, statement := range []string{"DELETE FROM payments", "UPDATE payments SET minor_units = 1"} {
		if _, err := s.write.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("%s: done", statement)
		}
	}
}

func TestAStoreOfANewerProgramIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, _ := openStore(t, path)
	if _, err := s.write.ExecContext(t.Context(), "PRAGMA user_version = 2"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := Open(t.Context(), path, Options{}); err == nil || !strings.Contains(err.Error(), "it has version 2") {
		t.Errorf("got %v", err)
	}
}
