/* SPDX-License-Identifier: Apache-2.0 */
#include "message.h"

#include <string.h>

#define MOST_NAMES 32		/* different ones in an answer that is plain */
#define MOST_JUMPS 16
#define MOST_TTL 604800		/* no server's word holds longer (RFC 8767, section 4) */
#define NONE UINT32_MAX

enum { A = 1, CNAME = 5, AAAA = 28, SVCB = 64, HTTPS = 65, INTERNET = 1 };

struct name {
	uint32_t size;
	uint8_t wire[LONGEST_NAME];	/* in lower case, without compression */
	uint32_t alias, ttl;		/* the name that it is an alias of, or NONE */
};

struct reading {
	const uint8_t *message;
	size_t size;
	uint32_t names, addresses;
	struct name name[MOST_NAMES];
	struct {
		uint32_t owner, ttl;
		uint8_t raw[16];
	} address[MOST_ADDRESSES];
};

void fold(uint8_t *to, const uint8_t *name, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i];
}

size_t question_end(const uint8_t *message, size_t size)
{
	size_t at = HEADER, limit = HEADER + LONGEST_NAME - 1;

	if (size < HEADER + 5 || two(message + 4) != 1)
		return 0;
	if (limit > size - 5)
		limit = size - 5;
	while (message[at]) {
		if (message[at] > 63)	/* compression has nothing to point at yet */
			return 0;
		at += message[at] + 1u;
		if (at > limit)
			return 0;
	}
	return at + 5;
}

size_t query_end(const uint8_t *message, size_t size)
{
	return size < HEADER || message[2] & 0xf8 ? 0 : question_end(message, size);
}

/* The name at *at* goes to *to*; the offset behind it, 0 if it cannot be read. */
static size_t spell(const struct reading *in, size_t at, struct name *to)
{
	size_t limit = at, behind = 0;
	uint32_t jumps = 0;

	to->size = 0;
	while (at < in->size) {
		uint32_t length = in->message[at];

		if (length < 64) {
			if (at + length + 1 > in->size || to->size + length + 1 > LONGEST_NAME)
				return 0;
			fold(to->wire + to->size, in->message + at, length + 1);
			to->size += length + 1;
			at += length + 1;
			if (!length)
				return behind ? behind : at;
		} else {
			if (length < 0xc0 || at + 1 >= in->size || jumps++ == MOST_JUMPS)
				return 0;
			if (!behind)
				behind = at + 2;
			at = two(in->message + at) & 0x3fff;
			if (at >= limit || at < HEADER)	/* only backwards: no loop */
				return 0;
			limit = at;
		}
	}
	return 0;
}

/* The place of the name at *at, which moves behind it; NONE if it cannot be read or there are too many. */
static uint32_t place(struct reading *in, size_t *at)
{
	struct name *new = &in->name[in->names];

	if (*at + 2 <= in->size && two(in->message + *at) == 0xc000 + HEADER) {
		*at += 2;
		return 0;
	}
	if (in->names == MOST_NAMES || !(*at = spell(in, *at, new)))
		return NONE;
	for (uint32_t i = 0; i < in->names; i++)
		if (in->name[i].size == new->size && !memcmp(in->name[i].wire, new->wire, new->size))
			return i;
	new->alias = NONE;
	return in->names++;
}

static bool hold(struct reading *in, uint32_t owner, uint32_t ttl, const uint8_t *raw, size_t size, size_t wanted)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (size != wanted || in->addresses == MOST_ADDRESSES)
		return false;
	in->address[in->addresses].owner = owner;
	in->address[in->addresses].ttl = ttl;
	memcpy(in->address[in->addresses].raw, mapped, sizeof(mapped));
	memcpy(in->address[in->addresses++].raw + 16 - size, raw, size);
	return true;
}

/* Takes the record at *at*; the offset behind it, 0 if it cannot be read. */
static size_t record(struct reading *in, size_t at)
{
	uint32_t owner = place(in, &at), ttl, target;
	size_t data = at + 10, end, after;
	const uint8_t *head = in->message + at;

	if (owner == NONE || data > in->size || data + two(head + 8) > in->size)
		return 0;
	end = data + two(head + 8);
	if (two(head + 2) != INTERNET)
		return end;
	ttl = two(head + 4) << 16 | two(head + 6);
	ttl = ttl > INT32_MAX ? 0 : ttl > MOST_TTL ? MOST_TTL : ttl;	/* RFC 2181, section 8 */
	switch (two(head)) {
	case A:
		return hold(in, owner, ttl, head + 10, end - data, 4) ? end : 0;
	case AAAA:
		return hold(in, owner, ttl, head + 10, end - data, 16) ? end : 0;
	case CNAME:
		after = data;
		target = place(in, &after);
		if (target == NONE || after != end)
			return 0;
		if (in->name[owner].alias == NONE) {
			in->name[owner].alias = target;
			in->name[owner].ttl = ttl;
		}
		return end;
	case SVCB:
	case HTTPS:
		return 0;
	}
	return end;
}

/* An address counts once, with what is said last, if a name leads to it by aliases. */
static void give(struct answer *found, const uint8_t *raw, uint32_t ttl, bool once)
{
	uint32_t i = once ? 0 : found->count;

	while (i < found->count && memcmp(found->at[i].raw, raw, 16))
		i++;
	if (i == found->count)
		memcpy(found->at[found->count++].raw, raw, 16);
	found->at[i].ttl = ttl;
}

bool read_answer(const uint8_t *message, size_t size, size_t end, struct answer *found)
{
	struct reading in = { .message = message, .size = size, .names = 1 };
	uint32_t name = 0, least = MOST_TTL;
	bool once = false;
	size_t at = end;

	found->count = 0;
	if (message[3] & 0x0f || !two(message + 6))
		return true;
	in.name[0].size = end - 4 - HEADER;
	in.name[0].alias = NONE;
	fold(in.name[0].wire, message + HEADER, in.name[0].size);
	for (uint32_t i = two(message + 6); i; i--)
		if (!(at = record(&in, at)))
			return false;
	for (uint32_t i = 0; i < in.names; i++)
		once |= in.name[i].alias != NONE;
	while (name != NONE) {
		struct name *here = &in.name[name];

		for (uint32_t i = 0; i < in.addresses; i++) {
			uint32_t ttl = in.address[i].ttl;

			if (in.address[i].owner == name)
				give(found, in.address[i].raw, once && ttl > least ? least : ttl, once);
		}
		name = here->alias;
		here->alias = NONE;	/* one that leads back ends the walk */
		if (name != NONE && here->ttl < least)
			least = here->ttl;
	}
	return true;
}
