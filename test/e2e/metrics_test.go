//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

const grantMetrics = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-metrics}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: paymesh-metrics-reader}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]`

// managerMetrics are the metrics of each manager, by its pod, as whoever may read them gets them.
func managerMetrics(g Gomega) map[string]string {
	GinkgoHelper()
	apply(grantMetrics)
	DeferCleanup(func() { kubectl("delete", "clusterrolebinding", "e2e-metrics", "--ignore-not-found") })
	token := strings.TrimSpace(kubectl("create", "token", "-n", "default", "default"))
	var list corev1.PodList
	g.Expect(json.Unmarshal([]byte(kubectl("get", "pods", "-n", "paymesh-system", "-l", "app.kubernetes.io/component=manager", "-o", "json")), &list)).To(Succeed())
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, // the certificate is its own, and new at each start
	}}
	pages := map[string]string{}
	for _, pod := range list.Items {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+led(pod.Status.PodIP+":8443")+"/metrics", nil)
		g.Expect(err).NotTo(HaveOccurred())
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(response.StatusCode).To(Equal(http.StatusOK), string(text))
		pages[pod.Name] = string(text)
	}
	return pages
}

// sum adds up the series of a metric that have a label.
func sum(page, metric, label string) float64 {
	var total float64
	for line := range strings.Lines(page) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || name != metric && !strings.HasPrefix(name, metric+"{") || !strings.Contains(name, label) {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err == nil {
			total += number
		}
	}
	return total
}
