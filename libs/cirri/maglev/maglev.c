/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a Maglev table: each backend walks through the slots in an order of its own.
 * Source: Eisenbud et al., "Maglev", NSDI 2016, section 3.4, with one change: in its turn a backend asks for one
 * slot only, and takes none if that is taken; who has its share is left out from then on.  So a slot goes to
 * who asks first, whatever luck others have elsewhere, and half as many slots change hands when a backend leaves.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define FREE UINT16_MAX
#define LATE 50		/* the last slots, one in so many, are hard to find: */
#define LATE_ASKS 16	/* in its turn a backend asks for so many */

struct backend {
	uint32_t next;		/* slot that it asks for */
	uint32_t skip;		/* from one to the one after it */
	uint32_t weight;
	uint32_t credit;	/* its turn has come at the largest weight */
	uint32_t share;		/* slots that it may take yet, beside one of those that are over */
	uint32_t place;		/* what slots name it; and in the order of turns, the backend at this place */
};

/* Has *one* ask so many times; true if it got a slot. */
static bool ask(struct backend *one, uint16_t place, uint32_t asks, uint16_t *table, uint32_t size)
{
	while (asks--) {
		uint32_t slot = one->next;

		one->next = slot + one->skip >= size ? slot + one->skip - size : slot + one->skip;
		if (table[slot] == FREE) {
			table[slot] = place;
			return true;
		}
	}
	return false;
}

/* table: size slots; size is a prime.  count: of backends, less than FREE.  hashes: two per backend.  weights: at
 * least 1 each, the largest is an argument: a backend has its turn in weight out of largest rounds.
 * work: count elements.
 */
void maglev_fill(uint16_t *table, uint32_t size, uint32_t count, const uint64_t *hashes, const uint32_t *weights,
		 uint32_t largest, struct backend *work)
{
	uint32_t taken = 0, over = size, left = count;	/* over: slots that no share contains */
	uint64_t sum = 0;

	memset(table, 0xff, size * sizeof(*table));
	for (uint32_t i = 0; i < count; i++)
		sum += weights[i];
	for (uint32_t i = 0; i < count; i++) {
		work[i] = (struct backend){
			.next = hashes[2 * i] % size,
			.skip = hashes[2 * i + 1] % (size - 1) + 1,
			.weight = weights[i],
			.share = (uint64_t)size * weights[i] / sum,
			.place = i,
		};
		over -= work[i].share;
	}
	while (taken < size) {
		uint32_t kept = 0, asks = taken < size - size / LATE ? 1 : LATE_ASKS;

		for (uint32_t i = 0; i < left && taken < size; i++) {
			uint32_t place = work[i].place;
			struct backend *one = &work[place];

			if (!one->share && !over)
				continue;
			one->credit += one->weight;
			if (one->credit >= largest) {
				one->credit -= largest;
				if (ask(one, place, asks, table, size)) {
					taken++;
					if (!one->share) {
						over--;
						continue;	/* one of those at most */
					}
					one->share--;
				}
			}
			work[kept++].place = place;
		}
		left = kept;
	}
}
