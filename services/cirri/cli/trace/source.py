"""The C of the views, for bcc: raw tracepoints, fields by offsets that the kernel's own BTF gives.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which packets are looked at; what is empty asks for nothing."""

    either: tuple[Network, ...] = ()
    """Source or destination is in one of these."""
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    port: int = 0
    """Of either end."""
    protocol: int = 0


def condition(wanted: Filter) -> str:
    """C of whether ``struct seen *s`` is wanted."""
    parts = []
    if wanted.either:
        parts.append(f"({_any(wanted.either, 'source')} || {_any(wanted.either, 'destination')})")
    for networks, end in ((wanted.source, "source"), (wanted.destination, "destination")):
        if networks:
            parts.append(f"({_any(networks, end)})")
    if wanted.port:
        port = int.from_bytes(wanted.port.to_bytes(2, "big"), "little")
        parts.append(f"(s->sport == {port} || s->dport == {port})")
    if wanted.protocol:
        parts.append(f"s->protocol == {wanted.protocol}")
    return " && ".join(parts) or "1"


def _any(networks: Sequence[Network], end: str) -> str:
    return " || ".join(_in(each, end) for each in networks)


def _in(network: Network, end: str) -> str:
    """Words of the address under the mask are compared; IPv4 is looked at as ``::ffff:a.b.c.d``."""
    if isinstance(network, IPv4Network):
        network = ip_network(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
        assert isinstance(network, IPv6Network)
    parts = []
    raw, mask = network.network_address.packed, network.netmask.packed
    for word in range(4):
        bits = int.from_bytes(mask[4 * word : 4 * word + 4], "little")
        if bits:
            want = int.from_bytes(raw[4 * word : 4 * word + 4], "little")
            parts.append(f"(s->{end}[{word}] & {bits}U) == {want}U")
    return f"({' && '.join(parts) or '1'})"


SEEN = """
struct seen {
	u64 time, skb, location;
	u32 point, reason, ifindex, netns, length, pid;
	u16 sport, dport;
	u8 version, protocol, sent, l4;
	u32 source[4], destination[4];
	char comm[16], device[16];
};
BPF_RINGBUF_OUTPUT(told, 256);
BPF_ARRAY(lost, u64, 1);

static __always_inline void count_lost(void)
{
	int zero = 0;
	u64 *count = lost.lookup(&zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline u64 word_at(u64 at)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static __always_inline u32 number_at(u64 at)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static __always_inline u16 short_at(u64 at)
{
	u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

/* What the headers say; 0: it is no packet of IP, or none that is wanted. */
static __always_inline int see(struct seen *s, u64 skb, u32 point)
{
	u64 ip = word_at(skb + SKB_HEAD) + short_at(skb + SKB_NETWORK), l4 = 0;
	u16 protocol = short_at(skb + SKB_PROTOCOL);
	u8 head[40] = {};

	if (protocol == htons(0x0800)) {
		if (bpf_probe_read_kernel(head, 20, (void *)ip) || head[0] >> 4 != 4)
			return 0;
		s->version = 4;
		s->protocol = head[9];
		s->source[2] = s->destination[2] = 0xffff0000;
		__builtin_memcpy(&s->source[3], head + 12, 4);
		__builtin_memcpy(&s->destination[3], head + 16, 4);
		if (!(head[6] & 0x1f) && !head[7])
			l4 = (head[0] & 15) * 4;
	} else if (protocol == htons(0x86dd)) {
		if (bpf_probe_read_kernel(head, 40, (void *)ip) || head[0] >> 4 != 6)
			return 0;
		s->version = 6;
		s->protocol = head[6];
		__builtin_memcpy(s->source, head + 8, 16);
		__builtin_memcpy(s->destination, head + 24, 16);
		l4 = 40;
	} else {
		return 0;
	}
	s->l4 = l4;
	if (l4 && (s->protocol == 6 || s->protocol == 17 || s->protocol == 132)) {
		s->sport = short_at(ip + l4);
		s->dport = short_at(ip + l4 + 2);
	}
	if (!(WANTED))
		return 0;
	s->time = bpf_ktime_get_ns();
	s->skb = skb;
	s->point = point;
	s->length = number_at(skb + SKB_LEN);
	return 1;
}

static __always_inline void see_device(struct seen *s, u64 dev)
{
	if (!dev)
		return;
	s->ifindex = number_at(dev + DEV_IFINDEX);
	bpf_probe_read_kernel(s->device, sizeof(s->device), (void *)(dev + DEV_NAME));
	s->netns = number_at(word_at(dev + DEV_NET) + NET_INUM);
}
"""
DROPS = (
    SEEN
    + """
int dropped(struct bpf_raw_tracepoint_args *ctx)
{
	struct seen s = {};

	if (!see(&s, ctx->args[0], 1))
		return 0;
	see_device(&s, word_at(ctx->args[0] + SKB_DEV));
	s.location = ctx->args[1];
	s.reason = ctx->args[2];
	if (told.ringbuf_output(&s, sizeof(s), 0))
		count_lost();
	return 0;
}
"""
)
DNS_ROOM = 512
DNS = (
    SEEN
    + f"""
struct said {{ struct seen seen; u32 size; u8 payload[{DNS_ROOM}]; }};
BPF_PERCPU_ARRAY(rooms, struct said, 1);

static __always_inline int heard(u64 skb, u32 point)
{{
	struct seen s = {{}};
	struct said *said;
	int zero = 0;
	u64 at;
	u32 size;

	if (!see(&s, skb, point) || s.protocol != 17 || !s.l4)
		return 0;
	if (s.sport != htons(DNS_PORT) && s.dport != htons(DNS_PORT))
		return 0;
	said = rooms.lookup(&zero);
	if (!said)
		return 0;
	see_device(&s, word_at(skb + SKB_DEV));
	s.sent = word_at(skb + SKB_SK) != 0;
	s.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(s.comm, sizeof(s.comm));
	at = word_at(skb + SKB_HEAD) + short_at(skb + SKB_NETWORK) + s.l4;
	size = ntohs(short_at(at + 4));
	size = size > 8 ? size - 8 : 0;
	if (size > {DNS_ROOM})
		size = {DNS_ROOM};
	said->seen = s;
	said->size = size;
	if (number_at(skb + SKB_DATA_LEN) || bpf_probe_read_kernel(said->payload, size, (void *)(at + 8)))
		said->size = 0;
	if (told.ringbuf_output(said, sizeof(*said), 0))
		count_lost();
	return 0;
}}

int received(struct bpf_raw_tracepoint_args *ctx) {{ return heard(ctx->args[0], 1); }}
int queued(struct bpf_raw_tracepoint_args *ctx) {{ return heard(ctx->args[0], 2); }}
"""
)
BUCKETS = 32
LATENCY = (
    SEEN
    + f"""
struct stop {{ u32 point, ifindex, netns, pad; char device[16]; }};
struct last {{ u64 time; struct stop stop; }};
struct span {{ struct stop from, to; }};
struct times {{ u64 count, sum, most, buckets[{BUCKETS}]; }};
BPF_TABLE("lru_hash", u64, struct last, marks, 16384);
BPF_HASH(spans, struct span, struct times, 1024);
BPF_ARRAY(blank, struct times, 1);

/* From where the packet was seen last to *here*. */
static __always_inline void add(struct last *before, struct stop *here, u64 now)
{{
	struct times *times, *nothing;
	struct span span = {{}};
	u64 took = now - before->time, bits = took;
	u32 bucket = 0;
	int zero = 0;

	span.from = before->stop;
	span.to = *here;
	times = spans.lookup(&span);
	if (!times) {{
		nothing = blank.lookup(&zero);
		if (nothing)
			spans.insert(&span, nothing);
		times = spans.lookup(&span);
		if (!times) {{
			count_lost();
			return;
		}}
	}}
	#pragma unroll
	for (int i = 0; i < {BUCKETS - 1}; i++) {{
		bits >>= 1;
		bucket += bits != 0;
	}}
	__sync_fetch_and_add(&times->count, 1);
	__sync_fetch_and_add(&times->sum, took);
	__sync_fetch_and_add(&times->buckets[bucket & {BUCKETS - 1}], 1);
	if (took > times->most)
		times->most = took;
}}

static __always_inline int passed(u64 skb, u32 point)
{{
	struct last *before, mark = {{}};
	struct seen s = {{}};

	if (!see(&s, skb, point))
		return 0;
	see_device(&s, word_at(skb + SKB_DEV));
	mark.time = s.time;
	mark.stop.point = point;
	mark.stop.ifindex = s.ifindex;
	mark.stop.netns = s.netns;
	__builtin_memcpy(mark.stop.device, s.device, sizeof(s.device));
	before = marks.lookup(&skb);
	if (before)
		add(before, &mark.stop, s.time);
	marks.update(&skb, &mark);
	return 0;
}}

static __always_inline int ended(u64 skb, u32 point)
{{
	struct last *before = marks.lookup(&skb);
	struct stop stop = {{}};

	if (!before)
		return 0;
	stop.point = point;
	add(before, &stop, bpf_ktime_get_ns());
	marks.delete(&skb);
	return 0;
}}

int received(struct bpf_raw_tracepoint_args *ctx) {{ return passed(ctx->args[0], 1); }}
int queued(struct bpf_raw_tracepoint_args *ctx) {{ return passed(ctx->args[0], 2); }}
int sent(struct bpf_raw_tracepoint_args *ctx) {{ return passed(ctx->args[0], 3); }}
int consumed(struct bpf_raw_tracepoint_args *ctx) {{ return ended(ctx->args[0], 4); }}
int dropped(struct bpf_raw_tracepoint_args *ctx) {{ return ended(ctx->args[0], 5); }}
int copied(struct bpf_raw_tracepoint_args *ctx) {{ return ended(ctx->args[0], 6); }}
"""
)
FILE_ROOM, ARGUMENT_ROOM = 256, 512
EXEC = f"""
struct ran {{
	u64 time;
	u32 pid, ppid, uid, netns, size, cut;
	char parent[16], file[{FILE_ROOM}], arguments[{ARGUMENT_ROOM}];
}};
BPF_RINGBUF_OUTPUT(told, 256);
BPF_ARRAY(lost, u64, 1);
BPF_PERCPU_ARRAY(rooms, struct ran, 1);

static __always_inline u64 word_at(u64 at)
{{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}}

int started(struct bpf_raw_tracepoint_args *ctx)
{{
	u64 task = ctx->args[0], parent, mm, begin, size, *count;
	struct ran *ran;
	int zero = 0;

	ran = rooms.lookup(&zero);
	if (!ran)
		return 0;
	parent = word_at(task + TASK_PARENT);
	mm = word_at(task + TASK_MM);
	begin = word_at(mm + MM_ARG_START);
	size = word_at(mm + MM_ARG_END) - begin;
	ran->time = bpf_ktime_get_ns();
	ran->pid = bpf_get_current_pid_tgid() >> 32;
	ran->uid = bpf_get_current_uid_gid();
	ran->ppid = word_at(parent + TASK_TGID);
	ran->netns = word_at(word_at(word_at(task + TASK_NSPROXY) + NSPROXY_NET) + NET_INUM);
	bpf_probe_read_kernel_str(ran->parent, sizeof(ran->parent), (void *)(parent + TASK_COMM));
	bpf_probe_read_kernel_str(
		ran->file, sizeof(ran->file), (void *)word_at(ctx->args[2] + BPRM_FILENAME));
	ran->cut = size > {ARGUMENT_ROOM};
	if (size > {ARGUMENT_ROOM})
		size = {ARGUMENT_ROOM};
	ran->size = size;
	if (bpf_probe_read_user(ran->arguments, size, (void *)begin))
		ran->size = 0;
	if (told.ringbuf_output(ran, sizeof(*ran), 0)) {{
		count = lost.lookup(&zero);
		if (count)
			__sync_fetch_and_add(count, 1);
	}}
	return 0;
}}
"""
