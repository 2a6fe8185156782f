/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a Maglev table: each backend walks through the slots in an order of its own and takes the next
 * free one whenever it is its turn.  Source: Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
 */
#include <stdint.h>
#include <string.h>

#define FREE UINT16_MAX

/* table: size slots; size is a prime.  count: of backends, less than FREE.  hashes: two per backend.  weights: at
 * least 1 each, the largest is an argument: a backend takes its turn in weight out of largest rounds.
 * next, credit: count elements each, to work with.
 */
void maglev_fill(uint16_t *table, uint32_t size, uint32_t count, const uint64_t *hashes, const uint32_t *weights,
		 uint32_t largest, uint32_t *next, uint32_t *credit)
{
	uint32_t taken = 0;

	memset(table, 0xff, size * sizeof(*table));
	for (uint32_t i = 0; i < count; i++) {
		next[i] = hashes[2 * i] % size;
		credit[i] = 0;
	}
	while (taken < size) {
		for (uint32_t i = 0; i < count && taken < size; i++) {
			uint32_t skip, slot;

			credit[i] += weights[i];
			if (credit[i] < largest)
				continue;
			credit[i] -= largest;
			skip = hashes[2 * i + 1] % (size - 1) + 1;
			slot = next[i];
			while (table[slot] != FREE)
				slot = slot + skip >= size ? slot + skip - size : slot + skip;
			table[slot] = i;
			next[i] = slot + skip >= size ? slot + skip - size : slot + skip;
			taken++;
		}
	}
}
