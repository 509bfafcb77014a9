// One member: a process of keelson, its flags, and what etcd's tests ask of it.

package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/ioutil"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/etcdserver"
	"go.etcd.io/etcd/etcdserver/api/v3rpc"
	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.etcd.io/etcd/pkg/transport"
	"go.etcd.io/etcd/pkg/types"

	"google.golang.org/grpc"
)

// member is one `keelson store`. The embedded configuration is etcd's, so that tests find the
// fields they read and change; what they may change is handed over as flags.
type member struct {
	etcdserver.ServerConfig
	PeerTLSInfo   *transport.TLSInfo
	ClientTLSInfo *transport.TLSInfo
	DialOptions   []grpc.DialOption

	c          *cluster
	s          *server
	link       *link
	grpcAddr   string
	grpcBridge *bridge
	isLearner  bool
}

// server is the process, and what tests ask etcd's server for.
type server struct {
	m      *member
	id     types.ID
	cmd    *exec.Cmd
	ended  chan struct{}
	client string
	peer   string
}

var (
	members  int64
	lastPort = int64(firstPort())
)

// firstPort begins the ports that this process may use. Those below the ones that the system
// hands out itself are free of strangers; the runner tells each process a thousand of its own.
func firstPort() int {
	if port, err := strconv.Atoi(os.Getenv("KEELSON_INTEROP_PORTS")); err == nil {
		return port
	}
	return 20000
}

func freeAddr(t testing.TB) string {
	for i := 0; i < 1000; i++ {
		addr := fmt.Sprintf("127.0.0.1:%d", atomic.AddInt64(&lastPort, 1))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// tcpURL names an address the way that certificates do.
func tcpURL(addr string, tls *transport.TLSInfo, useIP bool) types.URLs {
	if tls == nil {
		return types.MustNewURLs([]string{"http://" + addr})
	}
	if !useIP {
		addr = strings.Replace(addr, "127.0.0.1", "localhost", 1)
	}
	return types.MustNewURLs([]string{"https://" + addr})
}

// mustNewMember returns a member that is not started yet.
func (c *cluster) mustNewMember(t testing.TB) *member {
	refuseWhatIsMissing(t, c.cfg)
	m := &member{c: c, PeerTLSInfo: c.cfg.PeerTLS, ClientTLSInfo: c.cfg.ClientTLS}
	m.s = &server{m: m, client: freeAddr(t), peer: freeAddr(t)}
	// A number, since it is the port in the bridge's name; not that of another process's member.
	m.Name = fmt.Sprintf("%d%07d", atomic.AddInt64(&members, 1), os.Getpid())
	var err error
	if m.link, err = newLink(freeAddr(t), m.s.peer); err != nil {
		t.Fatal(err)
	}
	m.PeerURLs = tcpURL(m.link.addr(), c.cfg.PeerTLS, c.cfg.UseIP)
	m.ClientURLs = tcpURL(m.s.client, c.cfg.ClientTLS, c.cfg.UseIP)
	if m.DataDir, err = ioutil.TempDir(os.TempDir(), "keelson"); err != nil {
		t.Fatal(err)
	}
	m.NewCluster = true
	m.ElectionTicks = electionTicks
	m.TickMs = uint(tickDuration / time.Millisecond)
	// Of an etcd 3.4, whose default is smaller than the store's.
	if m.QuotaBackendBytes = c.cfg.QuotaBackendBytes; m.QuotaBackendBytes == 0 {
		m.QuotaBackendBytes = etcdserver.DefaultQuotaBytes
	}
	m.listenGRPC(t)
	return m
}

func refuseWhatIsMissing(t testing.TB, cfg *ClusterConfig) {
	missing := map[string]bool{
		"MaxTxnOps other than 128":        cfg.MaxTxnOps != 0 && cfg.MaxTxnOps != 128,
		"CorruptCheckTime":                cfg.CorruptCheckTime != 0,
		"DiscoveryURL":                    cfg.DiscoveryURL != "",
		"LeaseCheckpointInterval below 1": cfg.LeaseCheckpointInterval%time.Second != 0,
	}
	for what, is := range missing {
		if is {
			t.Fatalf("keelson store has no %s", what)
		}
	}
}

// listenGRPC opens the bridge that clients go through.
func (m *member) listenGRPC(t testing.TB) {
	host := "localhost:"
	if m.c.cfg.UseIP {
		host = "127.0.0.1:"
	}
	var err error
	if m.grpcBridge, err = newBridge(host+m.Name, m.s.client); err != nil {
		t.Fatal(err)
	}
	m.grpcAddr = schemeFromTLSInfo(m.ClientTLSInfo) + "://" + m.grpcBridge.inaddr
}

// flags are those of etcd that say what the test asked for.
func (m *member) flags() []string {
	scheme := func(tls *transport.TLSInfo) string {
		if tls == nil {
			return "http://"
		}
		return "https://"
	}
	state := "existing"
	if m.NewCluster {
		state = "new"
	}
	flags := []string{
		"store", "--name", m.Name, "--data-dir", m.DataDir,
		"--listen-client-urls", scheme(m.ClientTLSInfo) + m.s.client,
		"--advertise-client-urls", m.ClientURLs.String(),
		"--listen-peer-urls", scheme(m.PeerTLSInfo) + m.s.peer,
		"--initial-advertise-peer-urls", m.PeerURLs.String(),
		"--initial-cluster", m.InitialPeerURLsMap.String(),
		"--initial-cluster-state", state,
		"--initial-cluster-token", clusterToken,
		"--heartbeat-interval", fmt.Sprint(m.TickMs),
		"--election-timeout", fmt.Sprint(m.ElectionTicks * int(m.TickMs)),
		"--quota-backend-bytes", fmt.Sprint(m.QuotaBackendBytes),
		"--strict-reconfig-check=" + fmt.Sprint(m.StrictReconfigCheck),
		// The cheapest, as in etcd's own clusters.
		"--bcrypt-cost", "4",
	}
	add := func(is bool, flag string, value interface{}) {
		if is {
			flags = append(flags, "--"+flag, fmt.Sprint(value))
		}
	}
	cfg := m.c.cfg
	add(cfg.AuthToken != "", "auth-token", cfg.AuthToken)
	add(cfg.AuthTokenTTL != 0, "auth-token-ttl", cfg.AuthTokenTTL)
	add(cfg.MaxRequestBytes != 0, "max-request-bytes", cfg.MaxRequestBytes)
	add(cfg.GRPCKeepAliveInterval != 0, "grpc-keepalive-interval", cfg.GRPCKeepAliveInterval)
	add(cfg.GRPCKeepAliveTimeout != 0, "grpc-keepalive-timeout", cfg.GRPCKeepAliveTimeout)
	add(cfg.LeaseCheckpointInterval != 0, "lease-checkpoint-interval", int(cfg.LeaseCheckpointInterval.Seconds()))
	progress := cfg.WatchProgressNotifyInterval
	if progress == 0 {
		// Some tests set that of their own process before they make a cluster.
		progress = v3rpc.GetProgressReportInterval().Truncate(time.Second)
	}
	add(true, "watch-progress-notify-interval", progress)
	if m.ClientTLSInfo != nil {
		add(len(m.ClientTLSInfo.CipherSuites) > 0, "cipher-suites", cipherNames(m.ClientTLSInfo.CipherSuites))
	}
	return append(flags, append(tlsFlags("", m.ClientTLSInfo), tlsFlags("peer-", m.PeerTLSInfo)...)...)
}

func cipherNames(suites []uint16) string {
	names := make([]string, len(suites))
	for i, suite := range suites {
		names[i] = tls.CipherSuiteName(suite)
	}
	return strings.Join(names, ",")
}

func tlsFlags(side string, info *transport.TLSInfo) []string {
	if info == nil {
		return nil
	}
	flags := []string{
		"--" + side + "cert-file", info.CertFile,
		"--" + side + "key-file", info.KeyFile,
		"--" + side + "trusted-ca-file", info.TrustedCAFile,
	}
	if info.ClientCertAuth {
		flags = append(flags, "--"+side+"client-cert-auth")
	}
	return flags
}

// Launch starts the process; returns when it takes connections.
func (m *member) Launch() error {
	program := os.Getenv("KEELSON")
	if program == "" {
		return fmt.Errorf("KEELSON must name the program whose store is to be tested")
	}
	output, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	cmd := exec.Command(program, m.flags()...)
	cmd.Stdout, cmd.Stderr = output, output
	// A test that is killed leaves no members behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	m.s.cmd, m.s.ended = cmd, ended
	return m.waitListening()
}

func (m *member) waitListening() error {
	deadline := time.Now().Add(requestTimeout)
	for time.Now().Before(deadline) {
		if conn, err := net.Dial("tcp", m.s.client); err == nil {
			conn.Close()
			return nil
		}
		if m.isStopped() {
			log, _ := ioutil.ReadFile(m.logFile())
			return fmt.Errorf("member %s ended:\n%s", m.Name, log)
		}
		time.Sleep(tickDuration)
	}
	return fmt.Errorf("member %s takes no connections on %s", m.Name, m.s.client)
}

func (m *member) logFile() string { return m.DataDir + ".log" }

func (m *member) isStopped() bool {
	if m.s.ended == nil {
		return true
	}
	select {
	case <-m.s.ended:
		return true
	default:
		return false
	}
}

// Close kills the process and cuts its clients off.
func (m *member) Close() {
	if m.grpcBridge != nil {
		m.grpcBridge.Close()
		m.grpcBridge = nil
	}
	if m.s.cmd != nil {
		m.s.cmd.Process.Kill()
		<-m.s.ended
	}
}

// Stop kills the process; its folder stays.
func (m *member) Stop(t testing.TB) { m.Close() }

// Restart starts it again on its folder.
func (m *member) Restart(t testing.TB) error {
	if !m.isStopped() {
		m.Close()
	}
	m.listenGRPC(t)
	return m.Launch()
}

// Terminate kills the process and removes its folder; after a failure, its log stays to be read.
func (m *member) Terminate(t testing.TB) {
	m.Close()
	m.link.close()
	os.RemoveAll(m.DataDir)
	// One test of etcd's passes nil.
	if t != nil && t.Failed() {
		t.Logf("member %s (%s) logged to %s", m.Name, m.s.id, m.logFile())
	} else {
		os.Remove(m.logFile())
	}
}

func (m *member) ID() types.ID                { return m.s.ID() }
func (m *member) URL() string                 { return m.ClientURLs[0].String() }
func (m *member) GRPCAddr() string            { return m.grpcAddr }
func (m *member) StopNotify() <-chan struct{} { return m.s.ended }
func (m *member) DropConnections()            { m.grpcBridge.Reset() }
func (m *member) PauseConnections()           { m.grpcBridge.Pause() }
func (m *member) UnpauseConnections()         { m.grpcBridge.Unpause() }
func (m *member) Blackhole()                  { m.grpcBridge.Blackhole() }
func (m *member) Unblackhole()                { m.grpcBridge.Unblackhole() }
func (m *member) ElectionTimeout() time.Duration {
	return time.Duration(m.ElectionTicks) * tickDuration
}

// Pause keeps raft's messages from and to this member; clients reach it.
func (m *member) Pause() { m.InjectPartition(nil, m.others()...) }

// Resume ends that.
func (m *member) Resume() { m.RecoverPartition(nil, m.others()...) }

func (m *member) others() []*member {
	var others []*member
	for _, other := range m.c.Members {
		if other != m {
			others = append(others, other)
		}
	}
	return others
}

// InjectPartition cuts this member off from others, both ways.
func (m *member) InjectPartition(_ testing.TB, others ...*member) {
	for _, other := range others {
		m.link.cut(uint64(other.ID()))
		other.link.cut(uint64(m.ID()))
	}
}

// RecoverPartition mends what InjectPartition cut.
func (m *member) RecoverPartition(_ testing.TB, others ...*member) {
	for _, other := range others {
		m.link.mend(uint64(other.ID()))
		other.link.mend(uint64(m.ID()))
	}
}

// listenAt makes peers reach the member at URLs that a test made up.
func (m *member) listenAt(t testing.TB, urls []string) {
	m.link.close()
	m.PeerURLs = types.MustNewURLs(urls)
	var err error
	if m.link, err = newLink(m.PeerURLs[0].Host, m.s.peer); err != nil {
		t.Fatal(err)
	}
}

// ReadyNotify returns what is closed once the member has a leader.
func (m *member) ReadyNotify() <-chan struct{} {
	ready := make(chan struct{})
	go func() {
		m.WaitOK(nil)
		close(ready)
	}()
	return ready
}

// WaitStarted waits until the member answers, be there a leader or not.
func (m *member) WaitStarted(t testing.TB) {
	for m.get("/version") != http.StatusOK {
		time.Sleep(tickDuration)
	}
}

// WaitOK waits until the member has a leader that answers.
func (m *member) WaitOK(t testing.TB) {
	for m.health() != http.StatusOK {
		time.Sleep(tickDuration)
	}
}

// Metric returns the value of the first metric with this prefix; none if there isn't any.
func (m *member) Metric(prefix string) (string, error) {
	http := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: requestTimeout}
	answer, err := http.Get(m.URL() + "/metrics")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := ioutil.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, prefix) {
			return strings.Split(line, " ")[1], nil
		}
	}
	return "", nil
}

// NewClientV3 connects a client to the member, through its bridge.
func NewClientV3(m *member) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints:          []string{m.grpcAddr},
		DialTimeout:        5 * time.Second,
		DialOptions:        append([]grpc.DialOption{grpc.WithBlock()}, m.DialOptions...),
		MaxCallSendMsgSize: m.c.cfg.ClientMaxCallSendMsgSize,
		MaxCallRecvMsgSize: m.c.cfg.ClientMaxCallRecvMsgSize,
	}
	if m.ClientTLSInfo != nil {
		tls, err := m.ClientTLSInfo.ClientConfig()
		if err != nil {
			return nil, err
		}
		cfg.TLS = tls
	}
	return newClientV3(cfg)
}

// ask calls f with a client of its own, past the bridge: the harness sees what tests hide from clients.
func (m *member) ask(f func(context.Context, *clientv3.Client) error) error {
	cfg := clientv3.Config{
		Endpoints:   []string{m.URL()},
		DialTimeout: time.Second,
		DialOptions: []grpc.DialOption{grpc.WithBlock()},
	}
	if m.ClientTLSInfo != nil {
		tls, err := m.ClientTLSInfo.ClientConfig()
		if err != nil {
			return err
		}
		cfg.TLS = insecure(tls)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return f(ctx, client)
}

// insecure takes any certificate: whose they are is for the tests to check.
func insecure(cfg *tls.Config) *tls.Config {
	cfg.InsecureSkipVerify = true
	return cfg
}

func (m *member) listMembers() (listed []*pb.Member, err error) {
	err = m.ask(func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.MemberList(ctx)
		if err == nil {
			listed = answer.Members
		}
		return err
	})
	sort.Sort(SortableProtoMemberSliceByPeerURLs(listed))
	for _, m := range listed {
		m.ID = 0
	}
	return listed, err
}

// health tells whether the member answers a linearizable read, alarms aside.
func (m *member) health() int {
	return m.get("/health?exclude=NOSPACE&exclude=CORRUPT")
}

// get asks over HTTP, where nobody needs to be a user; returns the answer's code, 0 without an answer.
func (m *member) get(path string) int {
	tr := &http.Transport{DisableKeepAlives: true}
	if m.ClientTLSInfo != nil {
		tls, err := m.ClientTLSInfo.ClientConfig()
		if err != nil {
			return 0
		}
		tr.TLSClientConfig = insecure(tls)
	}
	client := http.Client{Transport: tr, Timeout: time.Second}
	answer, err := client.Get(m.URL() + path)
	if err != nil {
		return 0
	}
	answer.Body.Close()
	return answer.StatusCode
}

func (s *server) status() (status *clientv3.StatusResponse) {
	s.m.ask(func(ctx context.Context, client *clientv3.Client) (err error) {
		status, err = client.Status(ctx, s.m.URL())
		return err
	})
	return status
}

// ID returns the member's ID, which it told first and keeps.
func (s *server) ID() types.ID {
	for s.id == 0 && !s.m.isStopped() {
		if status := s.status(); status != nil {
			s.id = types.ID(status.Header.MemberId)
		}
	}
	return s.id
}

// Lead returns whom the member believes to lead; 0 if nobody.
func (s *server) Lead() uint64 {
	if status := s.status(); status != nil {
		return status.Leader
	}
	return 0
}

// checkLeaderTransition waits until the member knows another leader than before; returns it.
func checkLeaderTransition(m *member, before uint64) uint64 {
	for {
		if leader := m.s.Lead(); leader != 0 && leader != before {
			return leader
		}
		time.Sleep(tickDuration)
	}
}

// TransferLeadership moves leadership from this member to another voter.
func (s *server) TransferLeadership() error {
	for _, other := range s.m.others() {
		if other.isLearner || other.isStopped() {
			continue
		}
		return s.m.ask(func(ctx context.Context, client *clientv3.Client) error {
			_, err := client.MoveLeader(ctx, uint64(other.ID()))
			return err
		})
	}
	return nil
}

// Alarm asks for alarms, or raises or lowers one.
func (s *server) Alarm(_ context.Context, request *pb.AlarmRequest) (answer *pb.AlarmResponse, err error) {
	err = s.m.ask(func(ctx context.Context, client *clientv3.Client) error {
		answer, err = pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(ctx, request)
		return err
	})
	return answer, err
}
