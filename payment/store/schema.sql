CREATE TABLE payments (
  seq                INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of creation, never used again
  payment_id         TEXT    NOT NULL UNIQUE,
  issuer             TEXT    NOT NULL,
  subject            TEXT    NOT NULL,
  merchant_reference TEXT    NOT NULL,
  payer_user_id      TEXT    NOT NULL,
  currency           TEXT    NOT NULL,
  minor_units        INTEGER NOT NULL CHECK (minor_units > 0),
  description        TEXT    NOT NULL,
  created_ns         INTEGER NOT NULL,
  UNIQUE (issuer, subject, merchant_reference)
) STRICT;
CREATE INDEX payments_of_caller ON payments (issuer, subject, seq);
CREATE TRIGGER payments_stay BEFORE DELETE ON payments BEGIN SELECT RAISE(ABORT, 'payments are never deleted'); END;
CREATE TRIGGER payments_hold BEFORE UPDATE ON payments BEGIN SELECT RAISE(ABORT, 'payments are never changed'); END;

CREATE TABLE answers (
  issuer          TEXT    NOT NULL,
  subject         TEXT    NOT NULL,
  method          TEXT    NOT NULL,
  idempotency_key TEXT    NOT NULL,
  fingerprint     BLOB    NOT NULL, -- of the request, which is not kept itself
  failed          INTEGER NOT NULL,
  body            BLOB    NOT NULL,
  created_ns      INTEGER NOT NULL,
  PRIMARY KEY (issuer, subject, method, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_age ON answers (created_ns);

PRAGMA user_version = 1;
