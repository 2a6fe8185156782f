/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Addresses are 128 bits everywhere; IPv4 is stored as ::ffff:a.b.c.d.
 * Mirror: libs/cirri/layout/address.py
 */
#pragma once
#include <linux/types.h>

union address {
	__u8   bytes[16];	/* network order */
	__be32 words[4];
	__u64  halves[2];
};
