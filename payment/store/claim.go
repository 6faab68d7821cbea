package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// Fingerprint is the SHA-256 of a request: it tells two requests apart and gives neither away.
type Fingerprint [32]byte

// Claim is the right to answer the first call with a key. Release it in every case.
type Claim struct {
	store       *Store
	key         Key
	fingerprint Fingerprint
	release     sync.Once
}

// Claim begins a call with a key. It returns a claim where the key is new, the stored answer where the same request came
// before, and else ErrKeyReused or ErrKeyInFlight.
func (s *Store) Claim(ctx context.Context, key Key, fingerprint Fingerprint) (*Claim, *Answer, error) {
	if !s.take(key) {
		return nil, nil, ErrKeyInFlight
	}
	claim := &Claim{store: s, key: key, fingerprint: fingerprint}
	// Read after the key is taken: a call that ended in between has its answer in the file by now.
	answer, err := s.answer(ctx, key, fingerprint)
	if answer != nil || err != nil {
		claim.Release()
		return nil, answer, err
	}
	return claim, nil, nil
}

func (s *Store) take(key Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, taken := s.inFlight[key]
	if !taken {
		s.inFlight[key] = struct{}{}
	}
	return !taken
}

func (s *Store) answer(ctx context.Context, key Key, fingerprint Fingerprint) (*Answer, error) {
	var answer Answer
	var before []byte
	err := s.read.QueryRowContext(ctx, `SELECT fingerprint, failed, body FROM answers
		WHERE issuer = ? AND subject = ? AND method = ? AND idempotency_key = ? AND created_ns >= ?`,
		key.Caller.Issuer, key.Caller.Subject, key.Method, key.Key, s.expired()).Scan(&before, &answer.Failed, &answer.Body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the answer to an idempotency key: %w", err)
	case !bytes.Equal(before, fingerprint[:]):
		return nil, ErrKeyReused
	}
	return &answer, nil
}

// Release ends the claim. Without a Create before it, the key is as if it had never come.
func (c *Claim) Release() {
	c.release.Do(func() {
		c.store.mu.Lock()
		defer c.store.mu.Unlock()
		delete(c.store.inFlight, c.key)
	})
}

// Create stores the payment together with the answer taken; where the caller already has a payment with the same
// reference, it stores no payment, and the answer refused. It returns the answer that it stored. After an error nothing is
// stored, except that an error of the disk's may come after the commit: then the same key finds the answer.
func (c *Claim) Create(ctx context.Context, p Payment, taken, refused Answer) (Answer, error) {
	answer, err := c.create(ctx, p, taken, refused)
	if err != nil {
		return Answer{}, fmt.Errorf("store payment %s: %w", p.ID, err)
	}
	return answer, nil
}

func (c *Claim) create(ctx context.Context, p Payment, taken, refused Answer) (Answer, error) {
	tx, err := c.store.write.BeginTx(ctx, nil)
	if err != nil {
		return Answer{}, err
	}
	defer tx.Rollback() //nolint:errcheck // after the commit it does nothing
	result, err := tx.ExecContext(ctx, `INSERT INTO payments
		(payment_id, issuer, subject, merchant_reference, payer_user_id, currency, minor_units, description, created_ns)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (issuer, subject, merchant_reference) DO NOTHING`,
		p.ID, c.key.Caller.Issuer, c.key.Caller.Subject, p.MerchantReference, p.PayerUserID, p.Currency, p.MinorUnits, p.Description, p.CreateTime.UnixNano())
	if err != nil {
		return Answer{}, err
	}
	answer := taken
	if inserted, err := result.RowsAffected(); err != nil {
		return Answer{}, err
	} else if inserted == 0 {
		answer = refused
	}
	// An answer that is there is older than the retention: else there were no claim.
	if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO answers
		(issuer, subject, method, idempotency_key, fingerprint, failed, body, created_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		c.key.Caller.Issuer, c.key.Caller.Subject, c.key.Method, c.key.Key, c.fingerprint[:], answer.Failed, answer.Body, c.store.now().UnixNano()); err != nil {
		return Answer{}, err
	}
	return answer, tx.Commit()
}
