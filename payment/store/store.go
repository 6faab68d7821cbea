// Package store keeps payments and the answers to idempotency keys in one SQLite file: what is to be written goes in as
// one transaction, and comes out the same after a crash at any moment.
package store

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite", without cgo
)

// MinRetention is the least time for which a key's answer is replayed: clients may retry for a day.
const MinRetention = 24 * time.Hour

// schemaVersion is what this code reads and writes (SQLite's user_version).
const schemaVersion = 1

// sweepSize is how many old answers are forgotten at a time: tens of milliseconds, for which a payment may have to wait.
const sweepSize = 1000

// readers is how many reads run beside the writer, which WAL allows.
const readers = 4

// lockInterval is how often a lock that another process has is asked for.
const lockInterval = 50 * time.Millisecond

//go:embed schema.sql
var schema string

var (
	// ErrNotFound says that the caller has no such payment.
	ErrNotFound = errors.New("no such payment")
	// ErrKeyReused says that the key came before, with other parameters.
	ErrKeyReused = errors.New("the idempotency key came before with other parameters")
	// ErrInUse says that another process has the file.
	ErrInUse = errors.New("the store is in use")
	// ErrKeyInFlight says that a call with the key is under way.
	ErrKeyInFlight = errors.New("a call with this idempotency key is under way")
)

// Caller is whose payments they are: a subject means something only together with who vouches for it.
type Caller struct{ Issuer, Subject string }

// Key is an idempotency key with its scope: another caller's or another method's is another key.
type Key struct {
	Caller Caller
	Method string
	Key    string
}

// Payment is one payment.
type Payment struct {
	ID                string
	Caller            Caller
	MerchantReference string
	PayerUserID       string
	Currency          string
	MinorUnits        int64
	Description       string
	CreateTime        time.Time
}

// Answer is what a call was answered with: the bytes of its response, or of a google.rpc.Status where Failed.
type Answer struct {
	Failed bool
	Body   []byte
}

// Options are settings of a store.
type Options struct {
	// Retention is how long answers are replayed; less than MinRetention is MinRetention.
	Retention time.Duration
	// Wait is how long to wait for a file that another process has, which may be about to end.
	Wait time.Duration
	// Now is the clock, time.Now where nil.
	Now func() time.Time
}

// Store is an open file. One process has it open: which keys are in flight is in its memory, so that a crash leaves none.
type Store struct {
	write, read *sql.DB
	lock        *os.File
	retention   time.Duration
	now         func() time.Time

	mu       sync.Mutex
	inFlight map[Key]struct{}
}

// Open opens the file, makes it where there is none, and takes its lock. While another process has that, it waits as
// the options say, and then returns ErrInUse.
func Open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("the path of the store: %w", err)
	}
	s := &Store{retention: max(o.Retention, MinRetention), now: o.Now, inFlight: map[Key]struct{}{}}
	if s.now == nil {
		s.now = time.Now
	}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.lock, err = wait(ctx, path+".lock", o.Wait); err != nil {
		return nil, err
	}
	// SQLite would make it readable to all, and makes those beside it like it.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the configuration names it
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	// FULL: what was answered must be on the disk, and WAL alone syncs at checkpoints only. IMMEDIATE: a transaction that
	// reads before it writes must not find at its end that another one wrote.
	if s.write, err = open(path, 1, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)"); err != nil {
		return nil, err
	}
	if err := migrate(ctx, s.write); err != nil {
		return nil, fmt.Errorf("open the store %s: %w", path, err)
	}
	if s.read, err = open(path, readers, "_pragma=query_only(1)"); err != nil {
		return nil, err
	}
	return s, nil
}

// wait takes the lock, and asks for it again until the time is over. flock can wait by itself, and cannot be told to stop.
func wait(ctx context.Context, path string, limit time.Duration) (*os.File, error) {
	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; {
		file, err := lock(path)
		if !errors.Is(err, ErrInUse) || !time.Now().Before(end) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // beside the store, which the configuration names
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	// The kernel drops the lock with the process, however it ends.
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another process holds %s; one process at a time may have it, so run one replica and stop the old one before the new one starts", ErrInUse, path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

func open(path string, connections int, settings ...string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "_pragma=busy_timeout(5000)"}
	for _, setting := range settings {
		dsn.RawQuery += "&" + setting
	}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after the commit it does nothing
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch version {
	case schemaVersion:
		return nil
	case 0:
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		return tx.Commit()
	}
	return fmt.Errorf("it has version %d, and this program knows %d: run the program that wrote it, or a newer one", version, schemaVersion)
}

// Close closes the file and gives up its lock.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Ping says whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return s.read.QueryRowContext(ctx, "SELECT 1 FROM sqlite_master LIMIT 1").Scan(&one)
}

const columns = "payment_id, issuer, subject, merchant_reference, payer_user_id, currency, minor_units, description, created_ns"

func scan(row interface{ Scan(...any) error }) (p Payment, err error) {
	var created int64
	err = row.Scan(&p.ID, &p.Caller.Issuer, &p.Caller.Subject, &p.MerchantReference, &p.PayerUserID, &p.Currency, &p.MinorUnits, &p.Description, &created)
	p.CreateTime = time.Unix(0, created).UTC()
	return p, err
}

// Get returns a payment of the caller, or ErrNotFound.
func (s *Store) Get(ctx context.Context, caller Caller, id string) (Payment, error) {
	p, err := scan(s.read.QueryRowContext(ctx, "SELECT "+columns+" FROM payments WHERE payment_id = ? AND issuer = ? AND subject = ?", id, caller.Issuer, caller.Subject))
	if errors.Is(err, sql.ErrNoRows) {
		return Payment{}, ErrNotFound
	}
	if err != nil {
		return Payment{}, fmt.Errorf("read payment %s: %w", id, err)
	}
	return p, nil
}

// List returns at most limit payments of the caller, newest first, from the one after the payment with the ID after; empty
// begins with the newest. More says that there are others. ErrNotFound is that the caller has no payment with that ID.
func (s *Store) List(ctx context.Context, caller Caller, after string, limit int) (payments []Payment, more bool, err error) {
	before := int64(math.MaxInt64)
	if after != "" {
		err := s.read.QueryRowContext(ctx, "SELECT seq FROM payments WHERE payment_id = ? AND issuer = ? AND subject = ?", after, caller.Issuer, caller.Subject).Scan(&before)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, false, ErrNotFound
		}
		if err != nil {
			return nil, false, fmt.Errorf("look for payment %s: %w", after, err)
		}
	}
	rows, err := s.read.QueryContext(ctx, "SELECT "+columns+" FROM payments WHERE issuer = ? AND subject = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
		caller.Issuer, caller.Subject, before, limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list payments: %w", err)
	}
	defer rows.Close() //nolint:errcheck // nothing is written
	for rows.Next() {
		p, err := scan(rows)
		if err != nil {
			return nil, false, fmt.Errorf("list payments: %w", err)
		}
		if len(payments) == limit {
			return payments, true, nil
		}
		payments = append(payments, p)
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("list payments: %w", err)
	}
	return payments, false, nil
}

// Sweep forgets the answers that are older than the retention, and says how many. Payments stay, with their references.
// It forgets some at a time: there is one writer, and payments take their turn between.
func (s *Store) Sweep(ctx context.Context) (swept int64, err error) {
	for expired := s.expired(); ; {
		result, err := s.write.ExecContext(ctx, `DELETE FROM answers WHERE (issuer, subject, method, idempotency_key) IN
			(SELECT issuer, subject, method, idempotency_key FROM answers WHERE created_ns < ? ORDER BY created_ns LIMIT ?)`, expired, sweepSize)
		if err != nil {
			return swept, fmt.Errorf("forget old idempotency keys: %w", err)
		}
		n, err := result.RowsAffected()
		if swept += n; err != nil || n < sweepSize {
			return swept, err
		}
	}
}

func (s *Store) expired() int64 { return s.now().Add(-s.retention).UnixNano() }
