/* SPDX-License-Identifier: Apache-2.0 */
/* What Python is told, as cirri.dnsproxy.core reads it; whose turn it is, and when. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

double monotonic(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

void enter(struct core *core)
{
	pthread_mutex_lock(&core->turn);
	pthread_mutex_lock(&core->lock);
	pthread_mutex_unlock(&core->turn);
}

void leave(struct core *core)
{
	pthread_mutex_unlock(&core->lock);
}

struct told {
	uint32_t size, kind;
	uint64_t id;
	uint32_t pod, subject, identity, client_size, server_size, query_size, answer_size, zero;
	int64_t number;		/* the rule, or an errno */
	double began, now;	/* monotonic */
	int64_t time;		/* nanoseconds since 1970 */
};

void tell(struct core *core, enum kinds kind, const struct asked *asked, const uint8_t *answer, size_t size,
	  int64_t number)
{
	struct queue *queue = kind < TOLD_PASSED ? &core->work : &core->told;
	struct told told = {
		.kind = kind, .id = asked->id, .pod = asked->pod, .subject = asked->subject,
		.identity = asked->identity, .client_size = asked->client.size, .server_size = asked->server.size,
		.query_size = asked->size, .answer_size = size, .number = number, .began = asked->began,
		.now = monotonic(),
	};
	struct timespec wall;
	struct event *event;
	uint8_t *at;

	if (queue == &core->told) {
		if (!core->room) {
			core->counts[MISSED]++;
			return;
		}
		core->room--;
	}
	clock_gettime(CLOCK_REALTIME, &wall);
	told.time = wall.tv_sec * 1000000000ll + wall.tv_nsec;
	told.size = sizeof(told) + told.client_size + told.server_size + told.query_size + told.answer_size;
	event = malloc(sizeof(*event) + told.size);
	if (!event)	/* as if it had been lost on its way; the sweep takes the question */
		return;
	event->next = NULL;
	event->size = told.size;
	at = event->bytes;
	memcpy(at, &told, sizeof(told));
	memcpy(at += sizeof(told), asked->client.raw, told.client_size);
	memcpy(at += told.client_size, asked->server.raw, told.server_size);
	memcpy(at += told.server_size, asked->message, told.query_size);
	if (size)
		memcpy(at + told.query_size, answer, size);
	if (queue == &core->work && kind != UP_AGING && !queue->urgent) {
		queue->urgent = true;
		(void)!write(core->up, &(uint64_t){ 1 }, 8);
	}
	*queue->last = event;
	queue->last = &event->next;
	queue->bytes += event->size;
}

uint32_t take_events(struct queue *queue, uint8_t *to, uint32_t room)
{
	uint32_t at = 0;

	queue->urgent = false;
	while (queue->first && at + queue->first->size <= room) {
		struct event *event = queue->first;

		memcpy(to + at, event->bytes, event->size);
		at += event->size;
		queue->bytes -= event->size;
		queue->first = event->next;
		if (!queue->first)
			queue->last = &queue->first;
		free(event);
	}
	return at;
}

void drop_events(struct queue *queue)
{
	while (queue->first) {
		struct event *gone = queue->first;

		queue->first = gone->next;
		free(gone);
	}
}
