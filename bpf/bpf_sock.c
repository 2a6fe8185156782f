/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Sockets of the node's pods: a Service's address becomes a backend's when a socket connects or
 * sends, and becomes the Service's again in what the application is told.  No packet carries it.
 *
 * An IPv6 socket that talks IPv4 names ::ffff:a.b.c.d, which is how maps spell IPv4 anyway.
 */
#include <linux/in.h>
#include <linux/in6.h>
#include "lib/config.h"
#include "lib/lb.h"
#include "lib/runtime.h"

#define ECONNREFUSED 111

enum { REFUSE = 0, PROCEED = 1 };

/* An address as a socket program meets it. */
struct sock_end {
	union address address;
	__be16 port;
};

static __always_inline void end_read4(struct sock_end *end, const struct bpf_sock_addr *ctx)
{
	address_set4(&end->address, ctx->user_ip4);
	end->port = ctx->user_port;
}

static __always_inline void end_write4(const struct sock_end *end, struct bpf_sock_addr *ctx)
{
	ctx->user_ip4 = end->address.words[3];
	ctx->user_port = end->port;
}

static __always_inline void end_read6(struct sock_end *end, const struct bpf_sock_addr *ctx)
{
	end->address.words[0] = ctx->user_ip6[0];
	end->address.words[1] = ctx->user_ip6[1];
	end->address.words[2] = ctx->user_ip6[2];
	end->address.words[3] = ctx->user_ip6[3];
	end->port = ctx->user_port;
}

static __always_inline void end_write6(const struct sock_end *end, struct bpf_sock_addr *ctx)
{
	ctx->user_ip6[0] = end->address.words[0];
	ctx->user_ip6[1] = end->address.words[1];
	ctx->user_ip6[2] = end->address.words[2];
	ctx->user_ip6[3] = end->address.words[3];
	ctx->user_port = end->port;
}

enum outcome { UNTOUCHED, TRANSLATED, REFUSED };

/* Replaces a Service by a backend in *end*, and remembers it for the way back. */
static __always_inline enum outcome translate(struct bpf_sock_addr *ctx, struct sock_end *end)
{
	const struct lb_service *service;
	union address client = {};
	struct lb_reverse_key key;
	struct lb_reverse reverse;
	struct lb_backend chosen;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return UNTOUCHED;
	service = lb_service_lookup(&end->address, end->port, ctx->protocol, LB_INTERNAL);
	if (!service)
		return UNTOUCHED;
	/* Its address is not known yet: one client is whoever shares a network namespace. */
	client.halves[1] = bpf_get_netns_cookie(ctx);
	/* A pod's loopback is its own. */
	if (client.halves[1] != node_netns && (runtime_node_sockets() || address_is_loopback(&end->address)))
		return UNTOUCHED;
	if (!lb_choose(service, &client, bpf_get_prandom_u32(), &chosen))
		return REFUSED;
	reverse.address = end->address;
	reverse.port = end->port;
	__builtin_memset(reverse.pad, 0, sizeof(reverse.pad));
	end->address = chosen.address;
	end->port = chosen.port;
	lb_reverse_key_set(&key, bpf_get_socket_cookie(ctx), &end->address, end->port);
	bpf_map_update_elem(&cirri_lb_reverse, &key, &reverse, BPF_ANY);
	return TRANSLATED;
}

/* Replaces a backend by the Service through which this socket knows it. */
static __always_inline bool untranslate(struct bpf_sock_addr *ctx, struct sock_end *end)
{
	const struct lb_reverse *reverse;
	struct lb_reverse_key key;

	lb_reverse_key_set(&key, bpf_get_socket_cookie(ctx), &end->address, end->port);
	reverse = bpf_map_lookup_elem(&cirri_lb_reverse, &key);
	if (!reverse)
		return false;
	end->address = reverse->address;
	end->port = reverse->port;
	return true;
}

static __always_inline int finish(enum outcome outcome)
{
	if (outcome != REFUSED)
		return PROCEED;
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

static __always_inline int forward4(struct bpf_sock_addr *ctx)
{
	struct sock_end end;
	enum outcome outcome;

	end_read4(&end, ctx);
	outcome = translate(ctx, &end);
	/* An IPv6 backend of an IPv4 Service cannot be reached from this socket. */
	if (outcome == TRANSLATED && !address_is4(&end.address))
		outcome = REFUSED;
	if (outcome == TRANSLATED)
		end_write4(&end, ctx);
	return finish(outcome);
}

static __always_inline int forward6(struct bpf_sock_addr *ctx)
{
	struct sock_end end;
	enum outcome outcome;

	end_read6(&end, ctx);
	outcome = translate(ctx, &end);
	if (outcome == TRANSLATED)
		end_write6(&end, ctx);
	return finish(outcome);
}

static __always_inline int reverse4(struct bpf_sock_addr *ctx)
{
	struct sock_end end;

	end_read4(&end, ctx);
	if (untranslate(ctx, &end) && address_is4(&end.address))
		end_write4(&end, ctx);
	return PROCEED;
}

static __always_inline int reverse6(struct bpf_sock_addr *ctx)
{
	struct sock_end end;

	end_read6(&end, ctx);
	if (untranslate(ctx, &end))
		end_write6(&end, ctx);
	return PROCEED;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
