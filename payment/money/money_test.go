package money_test

import (
	"math"
	"testing"

	"github.com/jia-app/paymesh/payment/money"
)

func TestAnAmountHasTheDecimalsOfItsCurrency(t *testing.T) {
	cases := []struct {
		code  string
		minor int64
		want  string
	}{
		{"EUR", 1050, "10.50 EUR"},
		{"EUR", 5, "0.05 EUR"},
		{"EUR", -5, "-0.05 EUR"},
		{"EUR", -1050, "-10.50 EUR"},
		{"JPY", 1050, "1050 JPY"},
		{"KWD", 1050, "1.050 KWD"},
		{"KWD", 1, "0.001 KWD"},
		{"USD", math.MaxInt64, "92233720368547758.07 USD"},
		{"USD", math.MinInt64, "-92233720368547758.08 USD"},
	}
	for _, c := range cases {
		if got, err := money.Format(c.code, c.minor); err != nil || got != c.want {
			t.Errorf("%d %s: got %q, %v, want %q", c.minor, c.code, got, err, c.want)
		}
	}
	for _, code := range []string{"", "eur", "XXX", "XTS", "EURO"} {
		if got, err := money.Format(code, 1); err == nil {
			t.Errorf("%q is taken for a currency: %s", code, got)
		}
	}
}
