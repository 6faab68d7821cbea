package paymentv1_test

import (
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/documentv1"
	"github.com/jia-app/paymesh/payment/familyv1"
	"github.com/jia-app/paymesh/payment/paymentv1"
)

func TestEachMethodSaysWhetherItMayBeRepeatedAndWhereItIsInHTTP(t *testing.T) {
	type facts struct {
		level descriptorpb.MethodOptions_IdempotencyLevel
		http  string
	}
	want := map[string]facts{
		"CreatePayment": {descriptorpb.MethodOptions_IDEMPOTENT, "POST /v1/payments"},
		"GetPayment":    {descriptorpb.MethodOptions_NO_SIDE_EFFECTS, "GET /v1/payments/{payment_id}"},
		"ListPayments":  {descriptorpb.MethodOptions_NO_SIDE_EFFECTS, "GET /v1/payments"},
	}
	methods := paymentv1.File_payment_v1_payment_proto.Services().ByName("PaymentService").Methods()
	for i := range methods.Len() {
		options := methods.Get(i).Options().(*descriptorpb.MethodOptions)
		rule := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
		http := "GET " + rule.GetGet()
		if rule.GetPost() != "" {
			http = "POST " + rule.GetPost()
		}
		name := string(methods.Get(i).Name())
		if got := (facts{options.GetIdempotencyLevel(), http}); got != want[name] {
			t.Errorf("%s: got %v, want %v", name, got, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the service has no %v", want)
	}
	for _, service := range []protoreflect.ServiceDescriptor{
		contactv1.File_contact_v1_contact_proto.Services().ByName("ContactService"),
		familyv1.File_family_v1_family_proto.Services().ByName("FamilyService"),
		documentv1.File_document_v1_document_proto.Services().ByName("DocumentService"),
	} {
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			if level := method.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel(); level != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
				t.Errorf("%s: %v", method.FullName(), level)
			}
		}
	}
}

func TestTheRulesRefuseWhatNoPaymentIs(t *testing.T) {
	valid := func() *paymentv1.CreatePaymentRequest {
		return &paymentv1.CreatePaymentRequest{
			MerchantReference: "order-1", PayerUserId: "user_123",
			Amount: &paymentv1.Money{CurrencyCode: "EUR", MinorUnits: 1050},
		}
	}
	cases := map[string]struct {
		spoil func(*paymentv1.CreatePaymentRequest)
		field string
	}{
		"no reference":            {func(r *paymentv1.CreatePaymentRequest) { r.MerchantReference = "" }, "merchant_reference"},
		"a reference with spaces": {func(r *paymentv1.CreatePaymentRequest) { r.MerchantReference = "a b" }, "merchant_reference"},
		"a reference and a line":  {func(r *paymentv1.CreatePaymentRequest) { r.MerchantReference = "a\n" }, "merchant_reference"},
		"no payer":                {func(r *paymentv1.CreatePaymentRequest) { r.PayerUserId = "" }, "payer_user_id"},
		"no amount":               {func(r *paymentv1.CreatePaymentRequest) { r.Amount = nil }, "amount"},
		"nothing":                 {func(r *paymentv1.CreatePaymentRequest) { r.Amount.MinorUnits = 0 }, "amount.minor_units"},
		"less than nothing":       {func(r *paymentv1.CreatePaymentRequest) { r.Amount.MinorUnits = -1 }, "amount.minor_units"},
		"too much":                {func(r *paymentv1.CreatePaymentRequest) { r.Amount.MinorUnits = 1e15 + 1 }, "amount.minor_units"},
		"a currency in small":     {func(r *paymentv1.CreatePaymentRequest) { r.Amount.CurrencyCode = "eur" }, "amount.currency_code"},
		"a long description":      {func(r *paymentv1.CreatePaymentRequest) { r.Description = strings.Repeat("x", 257) }, "description"},
	}
	if err := protovalidate.Validate(valid()); err != nil {
		t.Fatal(err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			request := valid()
			c.spoil(request)
			err := protovalidate.Validate(request)
			if err == nil || !strings.Contains(err.Error(), c.field) {
				t.Errorf("got %v, want an error that names %s", err, c.field)
			}
		})
	}
}
