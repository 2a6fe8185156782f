/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct entry {
	struct entry *next;
	uint64_t hash;
	size_t size, at;	/* of the key, which lies at *at* behind the value */
	uint64_t value[];
};

static uint64_t secret[2];
static pthread_once_t drawn = PTHREAD_ONCE_INIT;

static void draw(void)
{
	if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
		abort();
}

#define ROTATED(x, by) ((x) << (by) | (x) >> (64 - (by)))

static void turn(uint64_t v[4])
{
	v[0] += v[1], v[1] = ROTATED(v[1], 13) ^ v[0], v[0] = ROTATED(v[0], 32);
	v[2] += v[3], v[3] = ROTATED(v[3], 16) ^ v[2];
	v[0] += v[3], v[3] = ROTATED(v[3], 21) ^ v[0];
	v[2] += v[1], v[1] = ROTATED(v[1], 17) ^ v[2], v[2] = ROTATED(v[2], 32);
}

/* SipHash-1-3.  Source: Aumasson and Bernstein, "SipHash", Indocrypt 2012. */
static uint64_t hash_of(const uint8_t *key, size_t size)
{
	uint64_t v[4] = {
		secret[0] ^ 0x736f6d6570736575, secret[1] ^ 0x646f72616e646f6d,
		secret[0] ^ 0x6c7967656e657261, secret[1] ^ 0x7465646279746573,
	};
	uint64_t word;
	size_t at = 0;

	for (; at + 8 <= size; at += 8) {
		memcpy(&word, key + at, 8);
		v[3] ^= word;
		turn(v);
		v[0] ^= word;
	}
	word = 0;
	memcpy(&word, key + at, size - at);
	word |= (uint64_t)size << 56;
	v[3] ^= word;
	turn(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		turn(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int table_make(struct table *table, uint32_t size)
{
	pthread_once(&drawn, draw);
	table->mask = size - 1;
	table->count = 0;
	table->buckets = calloc(size, sizeof(*table->buckets));
	return table->buckets != NULL;
}

void table_free(struct table *table)
{
	if (table->buckets)
		table_clear(table);
	free(table->buckets);
}

static struct entry **seek(const struct table *table, const void *key, size_t size, uint64_t hash)
{
	struct entry **at = &table->buckets[hash & table->mask];

	while (*at && ((*at)->hash != hash || (*at)->size != size ||
		       memcmp((uint8_t *)(*at)->value + (*at)->at, key, size)))
		at = &(*at)->next;
	return at;
}

void *table_find(const struct table *table, const void *key, size_t size)
{
	struct entry *found = *seek(table, key, size, hash_of(key, size));

	return found ? found->value : NULL;
}

void table_drop(struct table *table, const void *key, size_t size)
{
	struct entry **at = seek(table, key, size, hash_of(key, size)), *found = *at;

	if (!found)
		return;
	*at = found->next;
	free(found);
	table->count--;
}

void *table_put(struct table *table, const void *key, size_t size, size_t wanted)
{
	uint64_t hash = hash_of(key, size);
	struct entry *new, **bucket;

	table_drop(table, key, size);
	new = calloc(1, sizeof(*new) + wanted + size);
	if (!new)
		return NULL;
	bucket = &table->buckets[hash & table->mask];
	new->hash = hash;
	new->size = size;
	new->at = wanted;
	memcpy((uint8_t *)new->value + wanted, key, size);
	new->next = *bucket;
	*bucket = new;
	table->count++;
	return new->value;
}

void table_clear(struct table *table)
{
	for (uint32_t i = 0; table->count && i <= table->mask; i++) {
		while (table->buckets[i]) {
			struct entry *gone = table->buckets[i];

			table->buckets[i] = gone->next;
			free(gone);
			table->count--;
		}
	}
}

void table_walk(const struct table *table, void (*each)(void *value))
{
	for (uint32_t i = 0; i <= table->mask; i++)
		for (struct entry *one = table->buckets[i]; one; one = one->next)
			each(one->value);
}
