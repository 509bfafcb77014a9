// Package integration gives etcd's own tests a cluster of `keelson store` processes.
//
// It stands in for the package of the same name in etcd's source, whose clusters run inside the
// test's process: same names, same fields, as far as tests use them. Each member is a process of
// the program that KEELSON names. Clients reach it through etcd's own bridge (bridge.go, which
// fetched source keeps), peers through a link that can be cut (link.go).
package integration

import (
	"context"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"reflect"
	"sort"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/clientv3"
	epb "go.etcd.io/etcd/etcdserver/api/v3election/v3electionpb"
	lockpb "go.etcd.io/etcd/etcdserver/api/v3lock/v3lockpb"
	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.etcd.io/etcd/pkg/transport"
	"go.etcd.io/etcd/pkg/types"

	"google.golang.org/grpc/grpclog"
)

const (
	// RequestWaitTimeout is how long tests wait for a request, or for the leader's loss to be noticed.
	RequestWaitTimeout = 4 * time.Second
	// etcd's own: some tests count on it.
	tickDuration   = 10 * time.Millisecond
	requestTimeout = 20 * time.Second
	electionTicks  = 10
	clusterToken   = "etcd"
	// URLScheme and URLSchemeTLS are those of the bridges' sockets.
	URLScheme    = "unix"
	URLSchemeTLS = "unixs"
)

var (
	testTLSInfo          = fixture("./fixtures/", "server")
	testTLSInfoIP        = fixture("./fixtures/", "server-ip")
	testTLSInfoExpired   = fixture("./fixtures-expired/", "server")
	testTLSInfoExpiredIP = fixture("./fixtures-expired/", "server-ip")

	defaultTokenJWT = "jwt,pub-key=./fixtures/server.crt,priv-key=./fixtures/server.key.insecure,sign-method=RS256,ttl=1s"
)

func fixture(dir, name string) transport.TLSInfo {
	return transport.TLSInfo{
		KeyFile:        dir + name + ".key.insecure",
		CertFile:       dir + name + ".crt",
		TrustedCAFile:  dir + "ca.crt",
		ClientCertAuth: true,
	}
}

// ClusterConfig is what tests may ask of a cluster. What `keelson store` has no flag for is refused
// when the cluster is made, so that no test passes without what it asked for.
type ClusterConfig struct {
	Size      int
	PeerTLS   *transport.TLSInfo
	ClientTLS *transport.TLSInfo

	DiscoveryURL string

	AuthToken    string
	AuthTokenTTL uint

	UseGRPC bool

	QuotaBackendBytes int64

	MaxTxnOps              uint
	MaxRequestBytes        uint
	SnapshotCount          uint64
	SnapshotCatchUpEntries uint64

	GRPCKeepAliveMinTime  time.Duration
	GRPCKeepAliveInterval time.Duration
	GRPCKeepAliveTimeout  time.Duration

	// SkipCreatingClient leaves it to the test to make clients.
	SkipCreatingClient bool

	ClientMaxCallSendMsgSize int
	ClientMaxCallRecvMsgSize int

	// UseIP makes clients use an address where a name is the default.
	UseIP bool

	EnableLeaseCheckpoint   bool
	LeaseCheckpointInterval time.Duration
	LeaseCheckpointPersist  bool

	WatchProgressNotifyInterval time.Duration
	CorruptCheckTime            time.Duration
}

type cluster struct {
	cfg     *ClusterConfig
	Members []*member
}

func schemeFromTLSInfo(tls *transport.TLSInfo) string {
	if tls == nil {
		return URLScheme
	}
	return URLSchemeTLS
}

// NewClusterByConfig returns a cluster whose members are not started yet.
func NewClusterByConfig(t testing.TB, cfg *ClusterConfig) *cluster {
	c := &cluster{cfg: cfg}
	founding := types.URLsMap{}
	for i := 0; i < cfg.Size; i++ {
		m := c.mustNewMember(t)
		founding[m.Name] = m.PeerURLs
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members {
		m.InitialPeerURLsMap = founding
	}
	return c
}

// Launch starts all members and waits until each knows them all, with names and addresses.
func (c *cluster) Launch(t testing.TB) {
	for _, m := range c.Members {
		if err := m.Launch(); err != nil {
			t.Fatalf("error setting up member: %v", err)
		}
	}
	c.waitMembersMatch(t)
}

// waitMembersMatch waits until every running voter lists the members that the test has. Learners tell nobody.
func (c *cluster) waitMembersMatch(t testing.TB) {
	wanted := c.getMembers()
	deadline := time.Now().Add(requestTimeout)
	for _, m := range c.Members {
		for !m.isStopped() && !m.isLearner {
			listed, err := m.listMembers()
			if err == nil && reflect.DeepEqual(listed, wanted) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("member %s lists %v, not %v (%v)", m.Name, listed, wanted, err)
			}
			time.Sleep(tickDuration)
		}
		// From now on it is known, also when the member doesn't answer.
		m.s.ID()
	}
}

// getMembers returns the members as the API would list them, without their IDs.
func (c *cluster) getMembers() []*pb.Member {
	var members []*pb.Member
	for _, m := range c.Members {
		members = append(members, &pb.Member{
			Name:       m.Name,
			PeerURLs:   m.PeerURLs.StringSlice(),
			ClientURLs: m.ClientURLs.StringSlice(),
			IsLearner:  m.isLearner,
		})
	}
	sort.Sort(SortableProtoMemberSliceByPeerURLs(members))
	return members
}

// SortableProtoMemberSliceByPeerURLs sorts members by their first peer URL.
type SortableProtoMemberSliceByPeerURLs []*pb.Member

func (p SortableProtoMemberSliceByPeerURLs) Len() int { return len(p) }
func (p SortableProtoMemberSliceByPeerURLs) Less(i, j int) bool {
	return p[i].PeerURLs[0] < p[j].PeerURLs[0]
}
func (p SortableProtoMemberSliceByPeerURLs) Swap(i, j int) { p[i], p[j] = p[j], p[i] }

// URL returns the client URL of a member.
func (c *cluster) URL(i int) string { return c.Members[i].URL() }

// Terminate stops all members and removes their folders.
func (c *cluster) Terminate(t testing.TB) {
	for _, m := range c.Members {
		m.Terminate(t)
	}
}

// WaitLeader waits until all members agree on a leader; returns its index.
func (c *cluster) WaitLeader(t testing.TB) int { return c.waitLeader(t, c.Members) }

// waitLeader waits until those of the given members that run agree on a leader among them which
// answers a linearizable read.
func (c *cluster) waitLeader(t testing.TB, members []*member) int {
	deadline := time.Now().Add(2 * requestTimeout)
	for ; time.Now().Before(deadline); time.Sleep(tickDuration) {
		if at := agreed(members); at >= 0 && members[at].health() == http.StatusOK {
			return at
		}
	}
	t.Fatalf("the members agreed on no leader in %s", 2*requestTimeout)
	return -1
}

func agreed(members []*member) int {
	var leader uint64
	for _, m := range members {
		if m.isStopped() {
			continue
		}
		seen := m.s.Lead()
		if seen == 0 || (leader != 0 && seen != leader) {
			return -1
		}
		leader = seen
	}
	for i, m := range members {
		if leader != 0 && uint64(m.s.ID()) == leader {
			return i
		}
	}
	return -1
}

// WaitNoLeader waits until no member knows a leader.
func (c *cluster) WaitNoLeader() { c.waitNoLeader(c.Members) }

func (c *cluster) waitNoLeader(members []*member) {
	for _, m := range members {
		for !m.isStopped() && m.s.Lead() != 0 {
			time.Sleep(tickDuration)
		}
	}
}

// clusterMustProgress writes through the first member and waits until all the others have it.
func clusterMustProgress(t testing.TB, members []*member) {
	key, value := "progress", fmt.Sprint(rand.Int())
	wait := func(m *member, does func(context.Context, *clientv3.Client) error) {
		deadline := time.Now().Add(requestTimeout)
		for err := m.ask(does); err != nil; err = m.ask(does) {
			if time.Now().After(deadline) {
				t.Fatalf("member %s makes no progress: %v", m.Name, err)
			}
			time.Sleep(tickDuration)
		}
	}
	wait(members[0], func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Put(ctx, key, value)
		return err
	})
	for _, m := range members[1:] {
		wait(m, func(ctx context.Context, client *clientv3.Client) error {
			got, err := client.Get(ctx, key, clientv3.WithSerializable())
			if err == nil && (len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value) {
				err = fmt.Errorf("%q isn't there yet", key)
			}
			return err
		})
	}
}

// WaitClientV3 waits until a client's requests are answered.
func WaitClientV3(t testing.TB, kv clientv3.KV) {
	deadline := time.Now().Add(requestTimeout)
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		_, err := kv.Get(ctx, "/")
		cancel()
		if err == nil {
			return
		}
		time.Sleep(tickDuration)
	}
	t.Fatalf("no answer in %s", requestTimeout)
}

// ClusterV3 is a cluster with a client for each member.
type ClusterV3 struct {
	*cluster

	mu      sync.Mutex
	clients []*clientv3.Client
}

// NewClusterV3 starts a cluster and connects a client to each member.
func NewClusterV3(t testing.TB, cfg *ClusterConfig) *ClusterV3 {
	cfg.UseGRPC = true
	if os.Getenv("CLIENT_DEBUG") != "" {
		clientv3.SetLogger(grpclog.NewLoggerV2WithVerbosity(os.Stderr, os.Stderr, os.Stderr, 4))
	}
	clus := &ClusterV3{cluster: NewClusterByConfig(t, cfg)}
	clus.Launch(t)
	if cfg.SkipCreatingClient {
		return clus
	}
	for _, m := range clus.Members {
		client, err := NewClientV3(m)
		if err != nil {
			t.Fatalf("cannot create client: %v", err)
		}
		clus.clients = append(clus.clients, client)
	}
	return clus
}

// TakeClient leaves it to the caller to close a member's client.
func (c *ClusterV3) TakeClient(idx int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients[idx] = nil
}

// Terminate closes the clients and stops all members.
func (c *ClusterV3) Terminate(t testing.TB) {
	c.mu.Lock()
	for _, client := range c.clients {
		if client == nil {
			continue
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	c.mu.Unlock()
	c.cluster.Terminate(t)
}

// RandClient returns the client of some member.
func (c *ClusterV3) RandClient() *clientv3.Client { return c.clients[rand.Intn(len(c.clients))] }

// Client returns the client of a member.
func (c *ClusterV3) Client(i int) *clientv3.Client { return c.clients[i] }

// GetLearnerMembers returns those members that the first one lists as learners.
func (c *ClusterV3) GetLearnerMembers() ([]*pb.Member, error) {
	listed, err := c.Client(0).MemberList(context.Background())
	if err != nil {
		return nil, fmt.Errorf("failed to list member %v", err)
	}
	var learners []*pb.Member
	for _, m := range listed.Members {
		if m.IsLearner {
			learners = append(learners, m)
		}
	}
	return learners, nil
}

// AddAndLaunchLearnerMember adds a learner and starts it.
func (c *ClusterV3) AddAndLaunchLearnerMember(t testing.TB) {
	m := c.mustNewMember(t)
	m.isLearner = true
	added, err := c.Client(0).MemberAddAsLearner(context.Background(), m.PeerURLs.StringSlice())
	if err != nil {
		t.Fatalf("failed to add learner member %v", err)
	}
	c.join(m, added.Member.PeerURLs)
	if err := m.Launch(); err != nil {
		t.Fatal(err)
	}
	c.Members = append(c.Members, m)
	c.waitMembersMatch(t)
}

// MustNewMember returns a member, not started yet, for one that was added.
func (c *ClusterV3) MustNewMember(t testing.TB, added *clientv3.MemberAddResponse) *member {
	m := c.mustNewMember(t)
	m.isLearner = added.Member.IsLearner
	m.listenAt(t, added.Member.PeerURLs)
	c.join(m, added.Member.PeerURLs)
	return m
}

// AddMember adds a voter and starts it.
func (c *cluster) AddMember(t testing.TB) {
	m := c.mustNewMember(t)
	err := c.Members[0].ask(func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberAdd(ctx, m.PeerURLs.StringSlice())
		return err
	})
	if err != nil {
		t.Fatalf("add member failed: %v", err)
	}
	c.join(m, m.PeerURLs.StringSlice())
	if err := m.Launch(); err != nil {
		t.Fatal(err)
	}
	c.Members = append(c.Members, m)
	c.waitMembersMatch(t)
}

// RemoveMember removes a member, which must end by itself.
func (c *cluster) RemoveMember(t testing.TB, id uint64) {
	var left []*member
	var removed *member
	for _, m := range c.Members {
		if uint64(m.ID()) == id {
			removed = m
		} else {
			left = append(left, m)
		}
	}
	err := left[0].ask(func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberRemove(ctx, id)
		return err
	})
	if err != nil {
		t.Fatalf("remove member failed: %v", err)
	}
	select {
	case <-removed.StopNotify():
	case <-time.After(requestTimeout):
		t.Fatalf("member %s didn't end when it was removed", removed.Name)
	}
	removed.Terminate(t)
	c.Members = left
	c.waitMembersMatch(t)
}

func (c *cluster) join(m *member, peerURLs []string) {
	m.NewCluster = false
	m.InitialPeerURLsMap = types.URLsMap{m.Name: types.MustNewURLs(peerURLs)}
	for _, other := range c.Members {
		m.InitialPeerURLsMap[other.Name] = other.PeerURLs
	}
}

type grpcAPI struct {
	Cluster     pb.ClusterClient
	KV          pb.KVClient
	Lease       pb.LeaseClient
	Watch       pb.WatchClient
	Maintenance pb.MaintenanceClient
	Auth        pb.AuthClient
	Lock        lockpb.LockClient
	Election    epb.ElectionClient
}
