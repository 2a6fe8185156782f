/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Addresses are 128 bits everywhere; IPv4 is stored as ::ffff:a.b.c.d.
 * Mirror: libs/cirri/layout/address.py
 */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

union address {
	__u8   bytes[16];	/* network order */
	__be32 words[4];
	__u64  halves[2];
};

#define ADDRESS_MAPPED bpf_htonl(0xffff)	/* words[2] of an IPv4 address */

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) |
		(a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5])) == 0;
}

/* As words, aligned or not: in packets and maps, while the verifier wants the stack aligned. */
typedef __u32 __attribute__((may_alias)) word32;
typedef __u16 __attribute__((may_alias)) word16;

static __always_inline bool mac_equal_in_place(const __u8 *a, const __u8 *b)
{
	return *(const word32 *)a == *(const word32 *)b && *(const word16 *)(a + 4) == *(const word16 *)(b + 4);
}

static __always_inline void mac_copy(__u8 *to, const __u8 *from)
{
	*(word32 *)to = *(const word32 *)from;
	*(word16 *)(to + 4) = *(const word16 *)(from + 4);
}

static __always_inline void address_set4(union address *address, __be32 ip)
{
	address->halves[0] = 0;
	address->words[2] = ADDRESS_MAPPED;
	address->words[3] = ip;
}

/* Is it IPv4?  A packet of IPv6 that says so is lying. */
static __always_inline bool address_is4(const union address *address)
{
	return !address->halves[0] && address->words[2] == ADDRESS_MAPPED;
}

static __always_inline bool address_equal(const union address *a, const union address *b)
{
	return a->halves[0] == b->halves[0] && a->halves[1] == b->halves[1];
}

static __always_inline bool address_is_zero(const union address *address)
{
	return !(address->halves[0] | address->halves[1]);
}

static __always_inline bool address_is_link_local6(const union address *address)
{
	return (address->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool address_is_multicast(const union address *address)
{
	if (address_is4(address))
		return address->bytes[12] >= 224;	/* and reserved, and broadcast */
	return address->bytes[0] == 0xff;
}

static __always_inline bool address_is_loopback(const union address *address)
{
	if (address_is4(address))
		return address->bytes[12] == 127;
	return !address->halves[0] && !address->words[2] && address->words[3] == bpf_htonl(1);
}

/* No router forwards to these: multicast, broadcast, loopback, unspecified, IPv6 link-local. */
static __always_inline bool address_is_unroutable(const union address *address)
{
	if (address_is4(address))
		return address->bytes[12] == 0 || address->bytes[12] == 127 || address->bytes[12] >= 224;
	return address->bytes[0] == 0xff || address_is_link_local6(address) ||
	       (!address->halves[0] && address->words[2] == 0 &&
		(address->words[3] & bpf_htonl(~1u)) == 0);
}
