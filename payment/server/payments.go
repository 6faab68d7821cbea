package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/money"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/store"
)

const (
	// keyHeader is the metadata key that names a call, so that its repetition is known.
	keyHeader = "idempotency-key"
	// replayedKey says that the answer is an earlier call's: in the header, which a client of JSON gets, and in the trailer,
	// which it does not.
	replayedKey = "idempotent-replayed"
	maxKey      = 255
	// retryInFlight is when to ask again for a call that is under way: most take milliseconds.
	retryInFlight = 200 * time.Millisecond
	defaultPage   = 50
	errorDomain   = "payment.v1"
)

// contacts is what payments need of the contact service.
type contacts interface {
	GetUserInfo(ctx context.Context, request *contactv1.GetUserInfoRequest, opts ...grpc.CallOption) (*contactv1.GetUserInfoResponse, error)
}

// payments is payment.v1.PaymentService on a store.
type payments struct {
	paymentv1.UnimplementedPaymentServiceServer
	store    *store.Store
	contacts contacts // each call is bounded by the connection's own timeout
	now      func() time.Time
	log      *slog.Logger
}

// CreatePayment takes a payment, once for each key.
func (p *payments) CreatePayment(ctx context.Context, request *paymentv1.CreatePaymentRequest) (*paymentv1.CreatePaymentResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	name, err := keyOf(ctx)
	if err != nil {
		return nil, err
	}
	display, err := money.Format(request.GetAmount().GetCurrencyCode(), request.GetAmount().GetMinorUnits())
	if err != nil {
		return nil, interceptor.WithDetails(codes.InvalidArgument, "the request breaks a rule: see the details", &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "amount.currency_code", Description: err.Error()}},
		})
	}
	fingerprint, err := fingerprintOf(request)
	if err != nil {
		return nil, status.Error(codes.Internal, "the request cannot be told from others")
	}
	key := store.Key{Caller: caller, Method: paymentv1.PaymentService_CreatePayment_FullMethodName, Key: name}
	claim, answer, err := p.store.Claim(ctx, key, fingerprint)
	switch {
	case err != nil:
		return nil, p.refusal(ctx, err)
	case answer != nil:
		replayed := metadata.Pairs(replayedKey, "true")
		if err := errors.Join(grpc.SetHeader(ctx, replayed), grpc.SetTrailer(ctx, replayed)); err != nil {
			return nil, status.Error(codes.Internal, "the answer cannot be marked as replayed")
		}
		return restore(*answer)
	}
	defer claim.Release()
	if err := p.checkPayer(ctx, request.GetPayerUserId()); err != nil {
		return nil, err // nothing is stored: the payer may be known in a moment
	}
	return p.take(ctx, claim, caller, request, display)
}

func (p *payments) take(ctx context.Context, claim *store.Claim, caller store.Caller, request *paymentv1.CreatePaymentRequest, display string) (*paymentv1.CreatePaymentResponse, error) {
	taken := store.Payment{
		ID: "pay_" + uuid.NewString(), Caller: caller, MerchantReference: request.GetMerchantReference(), PayerUserID: request.GetPayerUserId(),
		Currency: request.GetAmount().GetCurrencyCode(), MinorUnits: request.GetAmount().GetMinorUnits(), Description: request.GetDescription(), CreateTime: p.now().UTC(),
	}
	response, err := proto.Marshal(&paymentv1.CreatePaymentResponse{Payment: toProto(taken, display)})
	if err != nil {
		return nil, status.Error(codes.Internal, "the payment cannot be answered")
	}
	refused, err := proto.Marshal(status.Convert(explain(codes.AlreadyExists, "MERCHANT_REFERENCE_EXISTS", "this caller has a payment with that merchant_reference")).Proto())
	if err != nil {
		return nil, status.Error(codes.Internal, "the refusal cannot be answered")
	}
	answer, err := claim.Create(ctx, taken, store.Answer{Body: response}, store.Answer{Failed: true, Body: refused})
	if err != nil {
		return nil, p.refusal(ctx, err)
	}
	return restore(answer)
}

// GetPayment returns a payment of the caller.
func (p *payments) GetPayment(ctx context.Context, request *paymentv1.GetPaymentRequest) (*paymentv1.GetPaymentResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	found, err := p.store.Get(ctx, caller, request.GetPaymentId())
	if err != nil {
		return nil, p.refusal(ctx, err)
	}
	shown, err := show(found)
	return &paymentv1.GetPaymentResponse{Payment: shown}, err
}

// ListPayments returns a page of the caller's payments.
func (p *payments) ListPayments(ctx context.Context, request *paymentv1.ListPaymentsRequest) (*paymentv1.ListPaymentsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	size := int(request.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	after, err := afterToken(request.GetPageToken())
	if err != nil {
		return nil, noSuchPage()
	}
	found, more, err := p.store.List(ctx, caller, after, size)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noSuchPage()
	}
	if err != nil {
		return nil, p.refusal(ctx, err)
	}
	response := &paymentv1.ListPaymentsResponse{}
	for _, payment := range found {
		shown, err := show(payment)
		if err != nil {
			return nil, err
		}
		response.Payments = append(response.Payments, shown)
	}
	if more {
		response.NextPageToken = pageToken(found[len(found)-1].ID)
	}
	return response, nil
}

// checkPayer asks the contact service whether there is such a user. The caller's token is not passed on.
func (p *payments) checkPayer(ctx context.Context, user string) error {
	_, err := p.contacts.GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: user})
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound:
		return explain(codes.FailedPrecondition, "PAYER_UNKNOWN", "the contact service does not know the payer")
	case codes.Canceled, codes.DeadlineExceeded:
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
	case codes.PermissionDenied, codes.Unauthenticated:
		p.log.ErrorContext(ctx, "the contact service refuses this service: its allow has to name this service and GetUserInfo", "error", err.Error())
		return explain(codes.Unavailable, "CONTACT_SERVICE_REFUSES", "the contact service refuses to answer the payment service, which whoever runs them has to mend: no payment was taken, try again later with the same key")
	}
	p.log.WarnContext(ctx, "the contact service does not answer", "error", err.Error())
	return explain(codes.Unavailable, "CONTACT_SERVICE_UNAVAILABLE", "the contact service does not answer: no payment was taken, try again with the same key")
}

// refusal turns what the store says into what the caller is told.
func (p *payments) refusal(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return explain(codes.NotFound, "PAYMENT_NOT_FOUND", "this caller has no such payment")
	case errors.Is(err, store.ErrKeyReused):
		return explain(codes.InvalidArgument, "IDEMPOTENCY_KEY_REUSED", "the idempotency key came before with other parameters: use a new key for another payment")
	case errors.Is(err, store.ErrKeyInFlight):
		return explain(codes.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT", "a call with this idempotency key is under way: ask again with the same key",
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryInFlight)})
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	p.log.ErrorContext(ctx, "the store fails", "error", err.Error())
	return explain(codes.Unavailable, "STORE_UNAVAILABLE", "the store does not answer: try again with the same key")
}

func explain(code codes.Code, reason, message string, more ...proto.Message) error {
	return interceptor.WithDetails(code, message, append([]proto.Message{&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain}}, more...)...)
}

func noSuchPage() error {
	return explain(codes.InvalidArgument, "PAGE_TOKEN_INVALID", "page_token is not one that an earlier page gave")
}

func callerOf(ctx context.Context) (store.Caller, error) {
	identity, found := interceptor.IdentityOf(ctx)
	if !found || identity.User == (interceptor.User{}) {
		return store.Caller{}, status.Error(codes.Unauthenticated, "the call is for no user")
	}
	return store.Caller(identity.User), nil
}

func keyOf(ctx context.Context) (string, error) {
	keys := metadata.ValueFromIncomingContext(ctx, keyHeader)
	if len(keys) == 0 || keys[0] == "" {
		return "", explain(codes.InvalidArgument, "IDEMPOTENCY_KEY_MISSING", "the metadata key idempotency-key is required: a name for this payment that its repetitions have, too")
	}
	bad := len(keys) > 1 || len(keys[0]) > maxKey
	for _, c := range []byte(keys[0]) {
		bad = bad || c < 0x20 || c > 0x7e
	}
	if bad {
		return "", explain(codes.InvalidArgument, "IDEMPOTENCY_KEY_INVALID", "the metadata key idempotency-key has one value, of 1 to 255 printable ASCII characters")
	}
	return keys[0], nil
}

// fingerprintOf tells requests apart by what they ask for. Unknown fields count: a newer client means something by them.
func fingerprintOf(request proto.Message) (store.Fingerprint, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	return sha256.Sum256(text), err
}

// restore is the answer that was stored, to the byte.
func restore(answer store.Answer) (*paymentv1.CreatePaymentResponse, error) {
	if answer.Failed {
		var failure spb.Status
		if err := proto.Unmarshal(answer.Body, &failure); err != nil {
			return nil, status.Error(codes.Internal, "the stored answer cannot be read")
		}
		return nil, status.ErrorProto(&failure)
	}
	var response paymentv1.CreatePaymentResponse
	if err := proto.Unmarshal(answer.Body, &response); err != nil {
		return nil, status.Error(codes.Internal, "the stored answer cannot be read")
	}
	return &response, nil
}

func show(p store.Payment) (*paymentv1.Payment, error) {
	display, err := money.Format(p.Currency, p.MinorUnits)
	if err != nil {
		return nil, status.Error(codes.Internal, "the payment's currency is unknown")
	}
	return toProto(p, display), nil
}

func toProto(p store.Payment, display string) *paymentv1.Payment {
	return &paymentv1.Payment{
		PaymentId: p.ID, MerchantReference: p.MerchantReference, PayerUserId: p.PayerUserID, Description: p.Description,
		Amount: &paymentv1.Money{CurrencyCode: p.Currency, MinorUnits: p.MinorUnits}, AmountDisplay: display,
		State: paymentv1.PaymentState_PAYMENT_STATE_CREATED, CreateTime: timestamppb.New(p.CreateTime),
	}
}

// A page's token is the last payment's ID, which is the caller's own: a position among all payments would tell how many
// there are. It is encoded, so that nobody takes it for anything but a token.
func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func afterToken(token string) (string, error) {
	after, err := base64.RawURLEncoding.DecodeString(token)
	return string(after), err
}
