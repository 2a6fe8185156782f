/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages, as much of them as repeating a decision needs.  What is not plain here is not wrong: Python's
 * cirri.dnsproxy.message reads it again and has the say.  What is read here, it reads alike; tests compare both.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEADER 12
#define LONGEST_NAME 255
#define MOST_ADDRESSES 64	/* of an answer that is plain */

struct address {
	uint8_t raw[16];
	uint32_t ttl;		/* seconds; the least on the way to it */
};

struct answer {
	uint32_t count;
	struct address at[MOST_ADDRESSES];
};

/* Offset behind the question of a message with exactly one; 0: it has not. */
size_t question_end(const uint8_t *message, size_t size);

/* The same of a standard query; 0: it is none. */
size_t query_end(const uint8_t *message, size_t size);

/* The addresses that a message, whose question ends at *end*, gives for it; false: somebody else has to look. */
bool read_answer(const uint8_t *message, size_t size, size_t end, struct answer *found);

/* A name of *size* bytes in lower case. */
void fold(uint8_t *to, const uint8_t *name, size_t size);

static inline uint32_t two(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}
