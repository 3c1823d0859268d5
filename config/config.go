// Package config reads every setting of the gateway from the environment: [Load] gives one
// checked [Config], or errors that each name the setting, its problem and what is allowed.
// [Settings] lists them all; the README's table is made from it.
package config

import (
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Prefix begins the name of every setting.
const Prefix = "WSGW_"

// A Config is the value of every setting. The tags are what there is to know of one: env is
// its name without [Prefix], envDefault its default, allowed its range (min..max, for lists
// of each element) or its words (a|b), doc what it is for.
type Config struct {
	Addr           string         `env:"ADDR" envDefault:":5000" doc:"address for clients and backends"`
	TLSCert        string         `env:"TLS_CERT" doc:"PEM certificate chain; reloaded when it changes"`
	TLSKey         string         `env:"TLS_KEY" doc:"PEM key of the certificate"`
	Origins        []string       `env:"ORIGINS" doc:"origins of pages that may connect beside same host and loopback, such as https://example.com; * is any"`
	TrustedProxies []netip.Prefix `env:"TRUSTED_PROXIES" doc:"networks whose X-Forwarded-For is believed"`
	StatAddr       []string       `env:"STAT_ADDR" envDefault:"127.0.0.1:6000,127.0.0.1:6001" doc:"addresses of the stat server; browsers refuse port 6000, so the page is at the next"`
	StatKey        Secret         `env:"STAT_KEY" doc:"key of the stat server; needed off loopback"`
	PProf          bool           `env:"PPROF" envDefault:"false" allowed:"true|false" doc:"serve profiles under /debug/pprof on the stat server"`
	Node           string         `env:"NODE" default:"host name" doc:"name of this node in snapshots and logs"`

	Auth            string        `env:"AUTH" envDefault:"demo" allowed:"demo|static|callback|jwt|none" doc:"who decides who a member is"`
	Anonymous       string        `env:"ANONYMOUS" envDefault:"allow" allowed:"allow|deny" doc:"what becomes of clients that are not members"`
	AuthDeadline    time.Duration `env:"AUTH_DEADLINE" envDefault:"10s" allowed:"100ms..10m" doc:"time a client has to say who it is"`
	AuthFailures    int           `env:"AUTH_FAILURES" envDefault:"60" allowed:"0.." doc:"refused logins per address and minute before its handshakes are refused; loopback is exempt"`
	MembersFile     string        `env:"MEMBERS_FILE" doc:"YAML file of members, for WSGW_AUTH=static; reloadable"`
	AuthURL         Secret        `env:"AUTH_URL" doc:"URL that checks a token, for WSGW_AUTH=callback"`
	AuthTimeout     time.Duration `env:"AUTH_TIMEOUT" envDefault:"3s" allowed:"10ms..1m" doc:"time WSGW_AUTH_URL has to answer"`
	AuthConcurrency int           `env:"AUTH_CONCURRENCY" envDefault:"128" allowed:"1..65536" doc:"calls of WSGW_AUTH_URL at once; more wait"`
	JWTSecret       Secret        `env:"JWT_SECRET" doc:"HMAC secret of at least 32 bytes, for WSGW_AUTH=jwt"`
	JWTKeyFile      string        `env:"JWT_KEY_FILE" doc:"PEM public key, for WSGW_AUTH=jwt"`
	JWTJWKSURL      Secret        `env:"JWT_JWKS_URL" doc:"URL of a JSON Web Key Set, for WSGW_AUTH=jwt; https unless loopback"`
	JWTAlgorithms   []string      `env:"JWT_ALGORITHMS" default:"by key type" allowed:"HS256|HS384|HS512|RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA" doc:"signature algorithms accepted"`
	JWTAudience     string        `env:"JWT_AUDIENCE" doc:"audience that a token must have; needed for WSGW_AUTH=jwt"`
	JWTIssuer       string        `env:"JWT_ISSUER" doc:"issuer that a token must have, if set"`
	JWTMemberClaim  string        `env:"JWT_MEMBER_CLAIM" envDefault:"sub" doc:"claim that holds the member id"`
	JWTLeeway       time.Duration `env:"JWT_LEEWAY" envDefault:"0s" allowed:"0s..10m" doc:"how long past its expiry a token is good"`

	AppsFile      string `env:"APPS_FILE" doc:"YAML file of apps and their rules; reloadable; without it every app is public, im private"`
	ForbiddenCode int    `env:"FORBIDDEN_CODE" envDefault:"403" allowed:"403|200" doc:"code of the reply to a forbidden subscription; 200 is what the document of the earlier ws-gateway shows"`

	PushKeys           []Secret `env:"PUSH_KEYS" doc:"keys that backends may use; without any, loopback needs none and others need the one logged at start"`
	PushKeysFile       string   `env:"PUSH_KEYS_FILE" doc:"file of more such keys, one a line; reloadable"`
	PushRate           float64  `env:"PUSH_RATE" envDefault:"0" allowed:"0.." doc:"messages per second and key"`
	MaxIdempotencyKeys int      `env:"MAX_IDEMPOTENCY_KEYS" envDefault:"200000" allowed:"1000.." doc:"idempotency keys remembered at once, in about 450 bytes each; of a batch every 8 messages count as one more"`

	MaxViewers               int           `env:"MAX_VIEWERS" envDefault:"16" allowed:"1..65536" doc:"viewers of /stat/stream at once, and as many of /stat/tail"`
	MaxMessage               Bytes         `env:"MAX_MESSAGE" envDefault:"64KiB" allowed:"1KiB..64MiB" doc:"size of one message from a client"`
	MaxText                  Bytes         `env:"MAX_TEXT" envDefault:"64KiB" allowed:"1..64MiB" doc:"size of the text of one push"`
	MaxBody                  Bytes         `env:"MAX_BODY" envDefault:"1MiB" allowed:"1KiB..1GiB" doc:"size of one request body"`
	BodyTimeout              time.Duration `env:"BODY_TIMEOUT" envDefault:"10s" allowed:"100ms..10m" doc:"time that a request has to come, its body included"`
	MaxSubscriptions         int           `env:"MAX_SUBSCRIPTIONS" envDefault:"128" allowed:"1..1000000" doc:"subscriptions of one session"`
	MaxConnections           *int          `env:"MAX_CONNECTIONS" default:"90 % of the file descriptor limit" allowed:"0.." doc:"connections at once"`
	MaxConnectionsPerMember  int           `env:"MAX_CONNECTIONS_PER_MEMBER" envDefault:"0" allowed:"0.." doc:"connections of one member at once; the oldest goes"`
	MaxConnectionsPerAddress int           `env:"MAX_CONNECTIONS_PER_ADDRESS" envDefault:"0" allowed:"0.." doc:"connections of one address (IPv6: /64) at once"`
	MaxHandshakes            int           `env:"MAX_HANDSHAKES" envDefault:"256" allowed:"0.." doc:"handshakes at once, of each endpoint; more wait"`
	HandshakeRate            float64       `env:"HANDSHAKE_RATE" envDefault:"0" allowed:"0.." doc:"handshakes per second"`
	CommandRate              float64       `env:"COMMAND_RATE" envDefault:"50" allowed:"0.." doc:"commands per second and session"`
	CommandBurst             int           `env:"COMMAND_BURST" envDefault:"256" allowed:"1.." doc:"commands that a session may send at once"`

	Transport      string        `env:"TRANSPORT" envDefault:"auto" allowed:"auto|event|goroutine" doc:"how a connection is held: parked on epoll, or a goroutine each"`
	FlushWindow    time.Duration `env:"FLUSH_WINDOW" envDefault:"0s" allowed:"0s..1s" doc:"time that frames wait for company, to write fewer times"`
	QueueBytes     Bytes         `env:"QUEUE_BYTES" envDefault:"1MiB" allowed:"4KiB..1GiB" doc:"bytes queued for one client before it counts as slow"`
	QueueFrames    int           `env:"QUEUE_FRAMES" envDefault:"8192" allowed:"16..1000000" doc:"frames queued for one client, of however many messages each, before it counts as slow"`
	MaxQueueTime   time.Duration `env:"MAX_QUEUE_TIME" envDefault:"250ms" allowed:"10ms..1m" doc:"time that messages may wait for their fan-out before pushes are refused"`
	PartialBytes   Bytes         `env:"PARTIAL_BYTES" envDefault:"64MiB" allowed:"64KiB.." doc:"memory for incomplete messages of all clients"`
	PartialTimeout time.Duration `env:"PARTIAL_TIMEOUT" envDefault:"15s" allowed:"100ms..10m" doc:"time a client has to complete a message"`
	WriteTimeout   time.Duration `env:"WRITE_TIMEOUT" envDefault:"5s" allowed:"100ms..10m" doc:"time a client may take nothing of what is queued for it"`
	WriteMinimum   Bytes         `env:"WRITE_MINIMUM" envDefault:"64KiB" allowed:"1..1GiB" doc:"bytes that a client has to take every 30 s of what is queued for it"`
	PingInterval   time.Duration `env:"PING_INTERVAL" envDefault:"25s" allowed:"100ms..1h" doc:"silence after which a client is pinged"`
	PongTimeout    time.Duration `env:"PONG_TIMEOUT" envDefault:"10s" allowed:"100ms..1h" doc:"silence after a ping that ends the connection"`

	HistoryMemory Bytes  `env:"HISTORY_MEMORY" envDefault:"256MiB" allowed:"1MiB.." doc:"memory for the logs of all apps"`
	StateDir      string `env:"STATE_DIR" doc:"directory that keeps the logs over an orderly restart, so that clients resume"`
	Durability    string `env:"DURABILITY" envDefault:"memory" doc:"what the 202 to a push promises: memory only; disk and quorum need a cluster, which this build does not have"`

	Doors             map[string]string `env:"DOORS" doc:"doors, as /path=script.lua"`
	DoorsHTTPAllow    []netip.Prefix    `env:"DOORS_HTTP_ALLOW" doc:"networks that scripts may reach by HTTP beside public addresses and loopback"`
	DoorsOptions      map[string]Secret `env:"DOORS_OPTIONS" doc:"what scripts read with mix.server.option, as name=value"`
	DoorsTimeout      time.Duration     `env:"DOORS_TIMEOUT" envDefault:"50ms" allowed:"1ms..10s" doc:"running time of one call of a script"`
	DoorsWait         time.Duration     `env:"DOORS_WAIT" envDefault:"10s" allowed:"10ms..10m" doc:"waiting time of one call of a script, for HTTP, Redis and context values together"`
	DoorsStates       int               `env:"DOORS_STATES" envDefault:"128" allowed:"1..65536" doc:"Lua virtual machines of one door, of about 80 KB each; more calls wait"`
	DoorsHTTPBytes    Bytes             `env:"DOORS_HTTP_BYTES" envDefault:"64KiB" allowed:"1KiB..1MiB" doc:"size of one answer to mix.http"`
	DoorsContextKeys  int               `env:"DOORS_CONTEXT_KEYS" envDefault:"128" allowed:"1..4096" doc:"values that a script may keep for one connection"`
	DoorsContextBytes Bytes             `env:"DOORS_CONTEXT_BYTES" envDefault:"64KiB" allowed:"1KiB..1MiB" doc:"size of all values kept for one connection"`
	DoorsQueueTopics  int               `env:"DOORS_QUEUE_TOPICS" envDefault:"100" allowed:"1..1000000" doc:"topics of mix.queue"`
	DoorsQueueItems   int               `env:"DOORS_QUEUE_ITEMS" envDefault:"2000" allowed:"1..10000000" doc:"items that wait in one topic of mix.queue"`
	DoorsQueueBytes   Bytes             `env:"DOORS_QUEUE_BYTES" envDefault:"64MiB" allowed:"1KiB.." doc:"memory for all topics of mix.queue"`
	Redis             map[string]Secret `env:"REDIS" doc:"Redis servers for scripts, as name=redis://host:6379"`

	DrainDelay  time.Duration `env:"DRAIN_DELAY" envDefault:"0s" allowed:"0s..1h" doc:"time between not ready and not accepting, at a stop"`
	DrainWindow time.Duration `env:"DRAIN_WINDOW" envDefault:"10s" allowed:"0s..1h" doc:"time over which the sessions are closed, at a stop"`

	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info" allowed:"debug|info|warn|error" doc:"least level that is logged"`
	LogFormat string     `env:"LOG_FORMAT" envDefault:"auto" allowed:"auto|text|json" doc:"auto is text on a terminal, JSON otherwise"`
}

// A Secret is a key or password, or may hold one, as a URL may. It hides itself from logs, fmt and encoders.
type Secret string

// String hides the secret; convert it to string to get it.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return s.String() }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// PlainList returns what the elements hide.
func PlainList(secrets []Secret) []string {
	plain := make([]string, len(secrets))
	for i, s := range secrets {
		plain[i] = string(s)
	}
	return plain
}

// PlainMap returns what the values hide.
func PlainMap(secrets map[string]Secret) map[string]string {
	plain := make(map[string]string, len(secrets))
	for name, s := range secrets {
		plain[name] = string(s)
	}
	return plain
}

// Bytes is a size.
type Bytes int

// String returns the size as one writes it in a setting.
func (b Bytes) String() string {
	return strings.ReplaceAll(humanize.IBytes(uint64(max(b, 0))), " ", "")
}
