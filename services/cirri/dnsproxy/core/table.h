/* SPDX-License-Identifier: Apache-2.0 */
/* Values by keys of bytes, in chains; keys come from pods, so that buckets depend on a secret. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct table {
	struct entry **buckets;
	uint32_t mask, count;
};

/* Room for about *size* (a power of 2) keys; 0: no memory. */
int table_make(struct table *table, uint32_t size);
void table_free(struct table *table);

/* The value of a key, aligned to 8 bytes, or NULL. */
void *table_find(const struct table *table, const void *key, size_t size);

/* Its new value, *wanted* bytes of 0; NULL: no memory, and no value. */
void *table_put(struct table *table, const void *key, size_t size, size_t wanted);

void table_drop(struct table *table, const void *key, size_t size);
void table_clear(struct table *table);

/* Calls *each* with every value. */
void table_walk(const struct table *table, void (*each)(void *value));
