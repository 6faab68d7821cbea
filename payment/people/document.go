package people

import (
	"cmp"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/documentv1"
)

const defaultPage = 50

// documentService is document.v1.DocumentService.
type documentService struct {
	documentv1.UnimplementedDocumentServiceServer
	data Data
}

// GetDocument returns one document.
func (d *documentService) GetDocument(_ context.Context, request *documentv1.GetDocumentRequest) (*documentv1.GetDocumentResponse, error) {
	document, found := d.data.document(request.GetDocumentId())
	if !found {
		return nil, status.Errorf(codes.NotFound, "there is no document %q", request.GetDocumentId())
	}
	return &documentv1.GetDocumentResponse{Document: toDocument(document)}, nil
}

// ListDocuments returns a page of a user's documents. The token is the last ID of the page before.
func (d *documentService) ListDocuments(_ context.Context, request *documentv1.ListDocumentsRequest) (*documentv1.ListDocumentsResponse, error) {
	response := &documentv1.ListDocumentsResponse{}
	page, more := d.data.documents(request.GetOwnerUserId(), request.GetPageToken(), int(cmp.Or(request.GetPageSize(), defaultPage)))
	for _, document := range page {
		response.Documents = append(response.Documents, toDocument(document))
	}
	if more {
		response.NextPageToken = page[len(page)-1].ID
	}
	return response, nil
}

func toDocument(document Document) *documentv1.Document {
	return &documentv1.Document{DocumentId: document.ID, OwnerUserId: document.OwnerID, Title: document.Title}
}
