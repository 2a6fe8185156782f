/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Drop reasons: numbers and texts are an interface (other tools know them).
 * A program returns them negated.  tests/bpf proves that each can be met.  Mirror: libs/cirri/layout/drop.py
 */
#pragma once

#define DROP_REASONS(X)							\
	X(DROP_INVALID_SOURCE_MAC, 130, "Invalid source mac")		\
	X(DROP_INVALID_SOURCE_IP, 132, "Invalid source ip")		\
	X(DROP_POLICY, 133, "Policy denied")				\
	X(DROP_INVALID, 134, "Invalid packet")				\
	X(DROP_CT_INVALID_HEADER, 135, "CT: Truncated or invalid header") \
	X(DROP_UNKNOWN_L3, 139, "Unsupported L3 protocol")		\
	X(DROP_UNKNOWN_L4, 142, "Unknown L4 protocol")			\
	X(DROP_NO_TUNNEL_KEY, 147, "Error retrieving tunnel key")	\
	X(DROP_UNROUTABLE, 151, "Stale or unroutable IP")		\
	X(DROP_CT_CREATE_FAILED, 155, "CT: Map insertion failed")	\
	X(DROP_INVALID_EXTENSION_HEADER, 156, "Invalid IPv6 extension header") \
	X(DROP_NO_BACKEND, 158, "Service backend not found")		\
	X(DROP_NO_TUNNEL_ENDPOINT, 160, "No tunnel/encapsulation endpoint") \
	X(DROP_UNKNOWN_L2, 166, "Unsupported L2 protocol")		\
	X(DROP_NAT_NO_MAPPING, 167, "No mapping for NAT masquerade")	\
	X(DROP_UNKNOWN_SENDER, 172, "Unknown sender")			\
	X(DROP_FRAGMENT_NOT_FOUND, 175, "First logical datagram fragment not found") \
	X(DROP_FORBIDDEN_ICMP6, 176, "Forbidden ICMPv6 message")	\
	X(DROP_SOURCE_RANGE, 177, "Denied by LB src range check")	\
	X(DROP_NO_PROXY, 178, "Socket lookup failed")			\
	X(DROP_PROXY_ASSIGN, 179, "Socket assign failed")		\
	X(DROP_PROXY_UNKNOWN_PROTO, 180, "Proxy redirection not supported for protocol") \
	X(DROP_POLICY_DENY, 181, "Policy denied by denylist")		\
	X(DROP_VLAN_FILTERED, 182, "VLAN traffic disallowed by VLAN filter") \
	X(DROP_POLICY_AUTH_REQUIRED, 189, "Authentication required")	\
	X(DROP_HOST_NOT_READY, 202, "Host datapath not ready")

#define X(NAME, NUMBER, TEXT) NAME = -NUMBER,
enum drop_reason { DROP_REASONS(X) };
#undef X
