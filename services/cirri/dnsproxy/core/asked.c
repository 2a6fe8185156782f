/* SPDX-License-Identifier: Apache-2.0 */
/* Questions under way: with Python to be decided, with a server, or answered and held until the kernel knows. */
#include <stdlib.h>
#include <string.h>

#include "core.h"

struct ring *ring_in(uint8_t *memory, uint32_t count, uint32_t size)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	struct iovec *vectors = (struct iovec *)(memory + (size_t)count * sizeof(struct mmsghdr));

	if (!ring || !(ring->owners = calloc(count, sizeof(*ring->owners))))
		return ring;
	ring->count = count;
	ring->size = size;
	ring->heads = (struct mmsghdr *)memory;
	ring->names = (uint8_t *)(vectors + count);
	ring->controls = ring->names + count * NAME_ROOM;
	ring->data = ring->controls + count * CONTROL_ROOM;
	ring->beat = (double *)(ring->data + (size_t)count * size);
	for (uint32_t slot = 0; slot < count; slot++) {
		vectors[slot] = (struct iovec){ ring->data + (size_t)slot * size, size };
		ring->heads[slot].msg_hdr = (struct msghdr){
			.msg_name = ring->names + slot * NAME_ROOM, .msg_namelen = NAME_ROOM,
			.msg_iov = &vectors[slot], .msg_iovlen = 1,
			.msg_control = ring->controls + slot * CONTROL_ROOM, .msg_controllen = CONTROL_ROOM,
		};
	}
	return ring;
}

struct asked *asked_new(struct core *core, struct ring *ring, uint32_t slot)
{
	struct asked *asked;
	uint32_t size = ring->heads[slot].msg_len;

	if (!core->frees)
		return NULL;
	asked = &core->pool[core->free[core->frees - 1]];
	*asked = (struct asked){ .ring = ring, .slot = slot, .size = size, .state = DECIDING };
	asked->message = malloc(size ? size : 1);
	if (!asked->message)
		return NULL;
	memcpy(asked->message, ring->data + (size_t)slot * ring->size, size);
	asked->id = ++core->serial * MOST_ASKED + core->free[--core->frees];
	ring->owners[slot] = asked->id;
	return asked;
}

struct asked *asked_find(struct core *core, uint64_t id)
{
	struct asked *asked = &core->pool[id % MOST_ASKED];

	return asked->state != FREE && asked->id == id ? asked : NULL;
}

void settle(struct asked *asked)
{
	if (asked->sock) {
		asked->sock->asked[asked->place] = NULL;
		asked->sock->waiting--;
		asked->sock = NULL;
	}
	asked->state = HELD;
}

void asked_free(struct core *core, struct asked *asked)
{
	settle(asked);
	if (asked->ring->owners[asked->slot] == asked->id)	/* else the slot has been given to another one */
		asked->ring->heads[asked->slot].msg_len = 0;
	free(asked->message);
	asked->state = FREE;
	core->free[core->frees++] = asked->id % MOST_ASKED;
}

void sweep(struct core *core, double now)
{
	for (uint32_t i = 0; i < MOST_ASKED; i++)
		if (core->pool[i].state != FREE && now > core->pool[i].began + SWEEP_S)
			asked_free(core, &core->pool[i]);
}
