// Package money knows the currencies: a code and minor units go in, the amount as people write it comes out. There is no
// floating point in it.
package money

import (
	"fmt"
	"strings"
)

// exponents are the decimals of each currency (ISO 4217, list one), without funds, metals and test codes. Currencies with two
// decimals are the plain list below.
var exponents = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0, "VND": 0,
	"VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
}

const twoDecimals = `AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC
CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR
KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK
PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH
USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG`

func init() {
	for code := range strings.FieldsSeq(twoDecimals) {
		exponents[code] = 2
	}
}

// Exponent is how many decimals a currency has; known is false for a code that is none of ISO 4217's.
func Exponent(code string) (decimals int, known bool) {
	decimals, known = exponents[code]
	return decimals, known
}

// Format writes minor units as people do: 1050 is "10.50 EUR", "1050 JPY", "1.050 KWD".
func Format(code string, minorUnits int64) (string, error) {
	decimals, known := Exponent(code)
	if !known {
		return "", fmt.Errorf("%q is no currency of ISO 4217", code)
	}
	digits := fmt.Sprintf("%0*d", decimals+1, minorUnits)
	if minorUnits < 0 {
		digits = fmt.Sprintf("%0*d", decimals+2, minorUnits) // the sign takes a place
	}
	if decimals == 0 {
		return digits + " " + code, nil
	}
	whole := len(digits) - decimals
	return digits[:whole] + "." + digits[whole:] + " " + code, nil
}
