package people

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/contactv1"
)

// contacts is contact.v1.ContactService.
type contacts struct {
	contactv1.UnimplementedContactServiceServer
	data Data
}

// GetUserInfo returns one user.
func (c *contacts) GetUserInfo(_ context.Context, request *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	user, found := c.data.user(request.GetUserId())
	if !found {
		return nil, status.Errorf(codes.NotFound, "there is no user %q", request.GetUserId())
	}
	return &contactv1.GetUserInfoResponse{User: toContact(user)}, nil
}

// GetFamilyMembers returns the users of one family, ordered by ID.
func (c *contacts) GetFamilyMembers(_ context.Context, request *contactv1.GetFamilyMembersRequest) (*contactv1.GetFamilyMembersResponse, error) {
	if _, found := c.data.family(request.GetFamilyId()); !found {
		return nil, status.Errorf(codes.NotFound, "there is no family %q", request.GetFamilyId())
	}
	response := &contactv1.GetFamilyMembersResponse{}
	for _, user := range c.data.members(request.GetFamilyId()) {
		response.Members = append(response.Members, toContact(user))
	}
	return response, nil
}

func toContact(user User) *contactv1.User {
	return &contactv1.User{UserId: user.ID, DisplayName: user.DisplayName, FamilyId: user.FamilyID}
}
