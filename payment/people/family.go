package people

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/familyv1"
)

// familyService is family.v1.FamilyService.
type familyService struct {
	familyv1.UnimplementedFamilyServiceServer
	data Data
}

// GetFamily returns one family.
func (f *familyService) GetFamily(_ context.Context, request *familyv1.GetFamilyRequest) (*familyv1.GetFamilyResponse, error) {
	family, found := f.data.family(request.GetFamilyId())
	if !found {
		return nil, status.Errorf(codes.NotFound, "there is no family %q", request.GetFamilyId())
	}
	answer := &familyv1.Family{FamilyId: family.ID, DisplayName: family.DisplayName}
	for _, user := range f.data.members(family.ID) {
		answer.MemberUserIds = append(answer.MemberUserIds, user.ID)
	}
	return &familyv1.GetFamilyResponse{Family: answer}, nil
}
