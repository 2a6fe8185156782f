/* SPDX-License-Identifier: Apache-2.0 */
/* What Python calls (cirri.dnsproxy.core); each call but dns_run returns at once. */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core.h"

static void close_it(void *value)
{
	close(*(int *)value);
}

void close_servers(struct core *core)
{
	table_walk(&core->servers, close_it);
	table_clear(&core->servers);
}

void dns_free(struct core *core)
{
	struct table *tables[] = { &core->pods, &core->routes, &core->rules, &core->facts,
				   &core->current, &core->crowd, &core->servers };

	for (uint32_t i = 0; core->pool && i < MOST_ASKED; i++)
		if (core->pool[i].state != FREE)
			free(core->pool[i].message);
	while (core->socks) {
		struct sock *gone = core->socks;

		core->socks = gone->next;
		close(gone->source.fd);
		free(gone);
	}
	if (core->servers.buckets)
		close_servers(core);
	for (uint32_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		table_free(tables[i]);
	for (int i = 0; i < 2; i++) {
		if (core->rings[i])
			free(core->rings[i]->owners);
		free(core->rings[i]);
	}
	drop_events(&core->work);
	drop_events(&core->told);
	close(core->poll);
	close(core->wake);
	close(core->up);
	free(core->inbox);
	free(core->pool);
	free(core);
}

/* Rings of count slots of size bytes for IPv4 and IPv6; NULL: no memory. */
struct core *dns_make(uint8_t *memory4, uint8_t *memory6, uint32_t count, uint32_t size)
{
	struct core *core = calloc(1, sizeof(*core));

	if (!core)
		return NULL;
	pthread_mutex_init(&core->turn, NULL);
	pthread_mutex_init(&core->lock, NULL);
	core->work.last = &core->work.first;
	core->told.last = &core->told.first;
	core->poll = epoll_create1(EPOLL_CLOEXEC);
	core->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	core->up = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	core->inbox = malloc(BATCH * sizeof(*core->inbox));
	core->pool = calloc(MOST_ASKED, sizeof(*core->pool));
	core->rings[0] = ring_in(memory4, count, size);
	core->rings[1] = ring_in(memory6, count, size);
	for (uint32_t i = 0; i < MOST_ASKED; i++)
		core->free[core->frees++] = MOST_ASKED - 1 - i;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	if (!core->inbox || !core->pool || !core->rings[0] || !core->rings[0]->owners || !core->rings[1] ||
	    !core->rings[1]->owners || !table_make(&core->pods, 4096) || !table_make(&core->routes, 1024) ||
	    !table_make(&core->rules, MOST_CACHED) || !table_make(&core->facts, MOST_CACHED) ||
	    !table_make(&core->current, 1024) || !table_make(&core->crowd, 1024) ||
	    !table_make(&core->servers, 1024) || core->poll < 0 || core->wake < 0 || core->up < 0 ||
	    epoll_ctl(core->poll, EPOLL_CTL_ADD, core->wake, &event)) {
		dns_free(core);
		return NULL;
	}
	return core;
}

/* Readable when dns_take has something. */
int dns_events(struct core *core)
{
	return core->up;
}

/* Works until dns_stop. */
void dns_run(struct core *core)
{
	work(core);
}

static void wake(struct core *core)
{
	(void)!write(core->wake, &(uint64_t){ 1 }, 8);
}

void dns_stop(struct core *core)
{
	core->stop = true;
	wake(core);
}

/* Takes questions from a socket that tells where they were going to; 0, or -1. */
int dns_listen(struct core *core, int fd, int six)
{
	int failed = -1;

	enter(core);
	if (core->listens < sizeof(core->listening) / sizeof(*core->listening)) {
		struct source *source = &core->listening[core->listens++];
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = source };

		*source = (struct source){ fd, core->rings[!!six] };
		failed = epoll_ctl(core->poll, EPOLL_CTL_ADD, fd, &event);
	}
	leave(core);
	return failed;
}

/* Takes no more. */
void dns_deaf(struct core *core)
{
	enter(core);
	while (core->listens)
		epoll_ctl(core->poll, EPOLL_CTL_DEL, core->listening[--core->listens].fd, NULL);
	leave(core);
}

/* Python is well: decisions may be repeated for so many seconds, and so many records made. */
void dns_lease(struct core *core, double seconds, uint32_t room)
{
	enter(core);
	core->lease = monotonic() + seconds;
	core->room = room;
	leave(core);
}

/* Counts so far go to *counts; returns how many questions are under way. */
uint32_t dns_counts(struct core *core, uint64_t *counts)
{
	uint32_t waiting;

	enter(core);
	memcpy(counts, core->counts, sizeof(core->counts));
	waiting = MOST_ASKED - core->frees;
	leave(core);
	return waiting;
}

/* Events that fit: questions and answers, or records; bytes. */
uint32_t dns_take(struct core *core, int records, uint8_t *to, uint32_t room)
{
	uint32_t got;

	enter(core);
	if (core->work.bytes > MOST_UP)
		wake(core);
	got = take_events(records ? &core->told : &core->work, to, room);
	leave(core);
	return got;
}

/* decisions ------------------------------------------------------------------------------------ */

/* These pods, (number, identity, size and bytes of an address) each, are all. */
void dns_pods(struct core *core, const uint8_t *pods, uint32_t count)
{
	enter(core);
	table_clear(&core->pods);
	for (const uint8_t *at = pods; count--; at += 28) {
		uint32_t size;
		struct pod *pod;

		memcpy(&size, at + 8, 4);
		pod = table_put(&core->pods, at + 12, size, sizeof(*pod));
		if (pod)
			memcpy(pod, at, sizeof(*pod));
	}
	leave(core);
}

/* No decision holds any more. */
void dns_clear(struct core *core)
{
	enter(core);
	table_clear(&core->routes);
	table_clear(&core->rules);
	leave(core);
}

/* The names that subject's questions to a server are judged by, and the server's identity. */
void dns_route(struct core *core, uint32_t subject, const uint8_t *server, uint32_t size, uint32_t names,
	       uint32_t identity)
{
	uint8_t key[4 + sizeof(struct sockaddr_in6)];
	struct route *route;

	memcpy(key, &subject, 4);
	memcpy(key + 4, server, size);
	enter(core);
	if (core->routes.count >= MOST_ROUTES)
		table_clear(&core->routes);
	if ((route = table_put(&core->routes, key, 4 + size, sizeof(*route))))
		*route = (struct route){ names, identity };
	leave(core);
}

/* A question may be asked, as rule says, which names judge so about each one about this name. */
void dns_ask(struct core *core, uint64_t id, uint32_t names, uint32_t identity, int64_t rule)
{
	uint8_t key[4 + LONGEST_NAME];
	struct asked *asked;
	int64_t *value;

	enter(core);
	asked = asked_find(core, id);
	if (asked && asked->state == DECIDING && asked->end) {
		size_t size = asked->end - 4 - HEADER;

		memcpy(key, &names, 4);
		fold(key + 4, asked->message + HEADER, size);
		if (core->rules.count >= MOST_CACHED)
			table_clear(&core->rules);
		if ((value = table_put(&core->rules, key, 4 + size, sizeof(*value))))
			*value = rule;
		asked->rule = rule;
		asked->identity = identity;
		ask(core, asked, asked->began);
	} else if (asked && asked->state == DECIDING) {	/* not plain after all */
		asked_free(core, asked);
	}
	leave(core);
}

void dns_flush(struct core *core)
{
	enter(core);
	flush(core);
	leave(core);
}

/* An answer is believed: no other one will be.  False: it was not waited for any more. */
int dns_believed(struct core *core, uint64_t id)
{
	struct asked *asked;
	int found;

	enter(core);
	asked = asked_find(core, id);
	if ((found = asked && asked->state == PENDING))
		settle(asked);
	leave(core);
	return found;
}

/* Tells the pod, under the server's address, if there is a message, and is done with the question. */
void dns_reply(struct core *core, uint64_t id, const uint8_t *message, uint32_t size)
{
	struct asked *asked;

	enter(core);
	asked = asked_find(core, id);
	if (asked && asked->size >= 2 && size >= 2)
		reply(core, asked, message, size);
	if (asked)
		asked_free(core, asked);
	leave(core);
}

/* What is known of a name, with room for *room* addresses; NULL: no memory, and nothing is known. */
static struct known *known_in(struct core *core, const struct key *name, struct known *before, uint32_t room)
{
	uint8_t copy[sizeof(*before) + MOST_KNOWN * sizeof(*before->at)];
	size_t size = before ? sizeof(*before) + before->count * sizeof(*before->at) : 0;
	struct known *known;

	if (before)	/* it goes */
		memcpy(copy, before, size);
	else if (core->facts.count >= MOST_CACHED)
		table_clear(&core->facts);
	known = table_put(&core->facts, name->bytes, name->size, sizeof(*known) + room * sizeof(*known->at));
	if (known) {
		memcpy(known, copy, size);
		known->room = room;
	}
	return known;
}

/* The kernel knows these addresses of a name, (16 bytes, until when) each, for a pod. */
void dns_know(struct core *core, uint32_t pod, const uint8_t *bytes, uint32_t size, const uint8_t *addresses,
	      uint32_t count)
{
	struct key name = { .size = 0 };
	struct known *known;

	add(&name, &pod, sizeof(pod));
	add(&name, bytes, size);
	enter(core);
	known = table_find(&core->facts, name.bytes, name.size);
	if (!known)
		known = known_in(core, &name, NULL, FEW_KNOWN);
	if (known)
		known->told = false;
	for (; known && count--; addresses += 24) {
		uint32_t i = 0;

		while (i < known->count && memcmp(known->at[i].raw, addresses, 16))
			i++;
		if (i == known->room && i < MOST_KNOWN && !(known = known_in(core, &name, known, i * 4)))
			break;
		if (i == MOST_KNOWN)	/* the oldest makes room */
			i = known->next++ % MOST_KNOWN;
		else if (i == known->count)
			known->count++;
		memcpy(known->at[i].raw, addresses, 16);
		memcpy(&known->at[i].until, addresses + 16, 8);
	}
	leave(core);
}

/* The kernel may not know what it knew of a name. */
void dns_forget(struct core *core, uint32_t pod, const uint8_t *name, uint32_t size)
{
	uint8_t key[4 + LONGEST_NAME];

	memcpy(key, &pod, 4);
	memcpy(key + 4, name, size);
	enter(core);
	table_drop(&core->facts, key, 4 + size);
	leave(core);
}

/* A question that another process had not done: taken as if it had come here. */
void dns_put(struct core *core, const uint8_t *message, uint32_t size, const uint8_t *client, const uint8_t *server,
	     uint32_t length)
{
	struct ring *ring = core->rings[length != sizeof(struct sockaddr_in)];
	struct cmsghdr *control;
	struct mmsghdr *head;
	double now;

	if (size > ring->size || length > sizeof(struct sockaddr_in6))
		return;
	enter(core);
	if (ring->next >= ring->count)
		ring->next = 0;
	head = &ring->heads[ring->next];
	control = head->msg_hdr.msg_control;
	memcpy(head->msg_hdr.msg_name, client, length);
	memcpy(CMSG_DATA(control), server, length);
	memcpy(ring->data + (size_t)ring->next * ring->size, message, size);
	head->msg_hdr.msg_namelen = length;
	head->msg_hdr.msg_controllen = sizeof(*control) + length;
	head->msg_hdr.msg_flags = 0;
	head->msg_len = size;
	*ring->beat = now = monotonic();
	question(core, ring, ring->next++, now);
	flush(core);
	leave(core);
}

/* For tests: the addresses of an answer, (16 bytes, seconds) each, to *to*; how many, or -1: it is not plain. */
int dns_read(const uint8_t *message, uint32_t size, uint8_t *to)
{
	size_t end = question_end(message, size);
	struct answer answer;

	if (!end || !read_answer(message, size, end, &answer))
		return -1;
	memcpy(to, answer.at, answer.count * sizeof(*answer.at));
	return answer.count;
}

/* For tests: where the question of a query ends, or 0. */
uint32_t dns_query(const uint8_t *message, uint32_t size)
{
	return query_end(message, size);
}
