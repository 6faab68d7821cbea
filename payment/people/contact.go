package people

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/familyv1"
)

// families is what the contact service needs of the family service.
type families interface {
	GetFamily(ctx context.Context, request *familyv1.GetFamilyRequest, opts ...grpc.CallOption) (*familyv1.GetFamilyResponse, error)
}

// contacts is contact.v1.ContactService. Who belongs to a family the family service says, where there is one; while it does
// not answer, what the data says counts: who pays must not depend on it.
type contacts struct {
	contactv1.UnimplementedContactServiceServer
	data     Data
	families families // nil where there is none
	log      *slog.Logger
}

// GetUserInfo returns one user.
func (c *contacts) GetUserInfo(ctx context.Context, request *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	user, found := c.data.user(request.GetUserId())
	if !found {
		return nil, status.Errorf(codes.NotFound, "there is no user %q", request.GetUserId())
	}
	if user.FamilyID != "" {
		members, err := c.members(ctx, user.FamilyID)
		if err != nil || !has(members, user) {
			user.FamilyID = ""
		}
	}
	return &contactv1.GetUserInfoResponse{User: toContact(user)}, nil
}

// GetFamilyMembers returns the users of one family, ordered by ID.
func (c *contacts) GetFamilyMembers(ctx context.Context, request *contactv1.GetFamilyMembersRequest) (*contactv1.GetFamilyMembersResponse, error) {
	members, err := c.members(ctx, request.GetFamilyId())
	if err != nil {
		return nil, err
	}
	response := &contactv1.GetFamilyMembersResponse{}
	for _, user := range members {
		response.Members = append(response.Members, toContact(user))
	}
	return response, nil
}

// members are the users of a family, by ID; its only error is that there is no such family.
func (c *contacts) members(ctx context.Context, family string) ([]User, error) {
	unknown := status.Errorf(codes.NotFound, "there is no family %q", family)
	if c.families != nil {
		// There is another answer: it is not waited for.
		answer, err := c.families.GetFamily(ctx, &familyv1.GetFamilyRequest{FamilyId: family}, grpc.WaitForReady(false))
		switch status.Code(err) {
		case codes.OK:
			return c.data.withIDs(family, answer.GetFamily().GetMemberUserIds()), nil
		case codes.NotFound:
			return nil, unknown
		}
		c.log.WarnContext(ctx, "the family service does not answer: the contact service's own data counts", "error", err.Error())
	}
	if _, found := c.data.family(family); !found {
		return nil, unknown
	}
	return c.data.members(family), nil
}

func has(users []User, one User) bool {
	_, found := find(users, func(u User) bool { return u.ID == one.ID })
	return found
}

func toContact(user User) *contactv1.User {
	return &contactv1.User{UserId: user.ID, DisplayName: user.DisplayName, FamilyId: user.FamilyID}
}
