/* SPDX-License-Identifier: Apache-2.0 */
/* The way of questions and answers. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

#define SLICE_NS 100000
#define WAIT_MS 20	/* while Python has to catch up */

static void add_name(struct key *key, const struct asked *asked)
{
	size_t size = asked->end - 4 - HEADER;

	fold(key->bytes + key->size, asked->message + HEADER, size);
	key->size += size;
}

/* questions ------------------------------------------------------------------------------------ */

/* The decision about a plain question, if it has been made. */
static bool decided(struct core *core, struct asked *asked)
{
	struct key at, name;
	const struct route *route;
	const int64_t *rule;

	at.size = name.size = 0;
	add(&at, &asked->subject, sizeof(asked->subject));
	add(&at, asked->server.raw, asked->server.size);
	route = table_find(&core->routes, at.bytes, at.size);
	if (!route)
		return false;
	add(&name, &route->names, sizeof(route->names));
	add_name(&name, asked);
	rule = table_find(&core->rules, name.bytes, name.size);
	if (!rule)
		return false;
	asked->rule = *rule;
	asked->identity = route->identity;
	return true;
}

void question(struct core *core, struct ring *ring, uint32_t slot, double now)
{
	struct msghdr *head = &ring->heads[slot].msg_hdr;
	struct cmsghdr *control = head->msg_control;
	struct asked *asked = NULL;
	struct end client = { .size = head->msg_namelen };
	const struct pod *pod = NULL;
	size_t size;

	core->counts[QUERIES]++;
	if ((client.size == sizeof(struct sockaddr_in) || client.size == sizeof(struct sockaddr_in6)) &&
	    head->msg_controllen >= sizeof(*control) + client.size) {	/* where it was going to */
		const uint8_t *address;

		memcpy(client.raw, head->msg_name, client.size);
		address = packed(&client, &size);
		pod = table_find(&core->pods, address, size);
	}
	if (!pod) {
		core->counts[STRANGERS]++;
		goto done;
	}
	if (head->msg_flags & MSG_TRUNC) {
		core->counts[MALFORMED]++;
		goto done;
	}
	asked = asked_new(core, ring, slot);
	if (!asked) {
		core->counts[CROWDED]++;
		goto done;
	}
	asked->pod = pod->id;
	asked->subject = pod->subject;
	asked->began = now;
	asked->client = client;
	asked->server.size = client.size;
	memcpy(asked->server.raw, CMSG_DATA(control), client.size);
	asked->end = query_end(asked->message, asked->size);
	if (asked->end && decided(core, asked))
		ask(core, asked, now);
	else
		tell(core, UP_QUESTION, asked, NULL, 0, 0);
	return;
done:
	ring->heads[slot].msg_len = 0;
}

static void questions(struct core *core, const struct source *source, double now)
{
	struct ring *ring = source->ring;
	uint32_t first = ring->next + BATCH > ring->count ? 0 : ring->next;
	int got;

	for (uint32_t slot = first; slot < first + BATCH; slot++) {
		struct msghdr *head = &ring->heads[slot].msg_hdr;	/* the kernel writes over what it was given */

		head->msg_namelen = sizeof(struct sockaddr_in6);
		head->msg_controllen = CONTROL_ROOM;
		head->msg_flags = 0;
		ring->heads[slot].msg_len = 0;
	}
	got = recvmmsg(source->fd, ring->heads + first, BATCH, MSG_DONTWAIT, NULL);
	if (got <= 0)
		return;
	ring->next = first + got;
	*ring->beat = now;
	for (int i = 0; i < got; i++)
		question(core, ring, first + i, now);
}

/* answers -------------------------------------------------------------------------------------- */

/* A socket that speaks for a server, or -1. */
static int as_server(struct core *core, const struct asked *asked)
{
	const struct end *server = &asked->server;
	int *found = table_find(&core->servers, server->raw, server->size), fd;

	if (found)
		return *found;
	fd = speaking_as_server(server);
	if (fd < 0) {
		tell(core, UP_CANNOT, asked, NULL, 0, errno);
		return -1;
	}
	if (core->servers.count >= MOST_SERVERS)
		close_servers(core);
	found = table_put(&core->servers, server->raw, server->size, sizeof(*found));
	if (!found) {
		close(fd);
		return -1;
	}
	return *found = fd;
}

static void send_replies(struct core *core, struct asked **asked, struct mmsghdr *heads, uint32_t count)
{
	int fd = as_server(core, asked[0]);
	uint32_t done = 0;

	while (fd >= 0 && done < count) {
		int sent = sendmmsg(fd, heads + done, count - done, MSG_DONTWAIT);

		if (sent > 0) {
			done += sent;
		} else {
			if (errno == EAGAIN || errno == ENOBUFS)
				break;
			core->counts[UNSENT]++;
			heads++, count--;	/* which has gone wrong */
		}
	}
	core->counts[UNSENT] += count - done;
}

static void write_to(const struct asked *asked, struct mmsghdr *head, struct iovec *parts, const uint8_t *message,
		     size_t size)
{
	parts[0] = (struct iovec){ asked->message, 2 };
	parts[1] = (struct iovec){ (uint8_t *)message + 2, size - 2 };
	*head = (struct mmsghdr){ .msg_hdr = { .msg_name = (uint8_t *)asked->client.raw,
					       .msg_namelen = asked->client.size,
					       .msg_iov = parts, .msg_iovlen = 2 } };
}

void reply(struct core *core, const struct asked *asked, const uint8_t *message, size_t size)
{
	struct asked *one = (struct asked *)asked;
	struct mmsghdr head;
	struct iovec parts[2];

	write_to(asked, &head, parts, message, size);
	send_replies(core, &one, &head, 1);
}

enum knowledge { UNKNOWN, AGING, KNOWN };

/* Whether these addresses are in the kernel as facts: for as long, or for a while in which Python can see to that. */
static enum knowledge knows(struct core *core, const struct asked *asked, const struct answer *answer)
{
	enum knowledge found = KNOWN;
	struct timespec wall;
	struct known *known;
	struct key name;

	if (!answer->count)
		return KNOWN;
	name.size = 0;
	add(&name, &asked->pod, sizeof(asked->pod));
	add_name(&name, asked);
	known = table_find(&core->facts, name.bytes, name.size);
	if (!known)
		return UNKNOWN;
	clock_gettime(CLOCK_REALTIME, &wall);
	for (uint32_t i = 0; i < answer->count; i++) {
		uint32_t j = 0;

		while (j < known->count && memcmp(known->at[j].raw, answer->at[i].raw, 16))
			j++;
		if (j == known->count)
			return UNKNOWN;
		if (known->at[j].until > wall.tv_sec + (int64_t)answer->at[i].ttl)
			continue;
		if (known->at[j].until <= wall.tv_sec + SPARE_S)
			return UNKNOWN;
		found = AGING;
	}
	if (found == AGING) {
		if (known->told)
			return KNOWN;
		known->told = true;
	}
	return found;
}

static bool same_question(const struct asked *asked, const uint8_t *message, size_t size)
{
	size_t name = asked->end - 4 - HEADER;
	uint8_t theirs[LONGEST_NAME], ours[LONGEST_NAME];

	if (two(message + 4) != 1 || size < asked->end ||
	    memcmp(message + asked->end - 4, asked->message + asked->end - 4, 4))
		return false;
	fold(theirs, message + HEADER, name);
	fold(ours, asked->message + HEADER, name);
	return !memcmp(theirs, ours, name);
}

/* One message of a server to a pod: the question that it answers and that can be given now, or NULL. */
static struct asked *judged(struct core *core, struct sock *sock, const uint8_t *message, size_t size)
{
	static const uint8_t nothing[4];
	enum knowledge knowledge;
	struct answer answer;
	struct asked *asked;
	uint32_t place = 0;
	uint16_t id;

	memcpy(&id, message, 2);
	while (place < sock->used && sock->ids[place] != id)
		place++;
	asked = size >= HEADER && message[2] & 0x80 && place < sock->used ? sock->asked[place] : NULL;
	if (!asked) {
		core->counts[SPOOFED]++;
		return NULL;
	}
	if (!same_question(asked, message, size)) {
		if (!memcmp(message + 4, nothing, 4) && message[3] & 0x0f)	/* errors may leave it out */
			tell(core, UP_ANSWER, asked, message, size, asked->rule);
		else
			core->counts[SPOOFED]++;
		return NULL;
	}
	knowledge = read_answer(message, size, asked->end, &answer) ? knows(core, asked, &answer) : UNKNOWN;
	if (knowledge == UNKNOWN) {
		tell(core, UP_ANSWER, asked, message, size, asked->rule);
		return NULL;
	}
	if (knowledge == AGING)
		tell(core, UP_AGING, asked, message, size, asked->rule);
	tell(core, TOLD_ANSWERED, asked, message, size, asked->rule);
	settle(asked);
	return asked;
}

static void answers(struct core *core, struct sock *sock)
{
	struct mmsghdr heads[BATCH], replies[BATCH];
	struct iovec whole[BATCH], parts[BATCH][2];
	struct asked *given[BATCH];
	uint32_t count = 0;
	int got;

	memset(heads, 0, sizeof(heads));
	for (uint32_t i = 0; i < BATCH; i++) {
		whole[i] = (struct iovec){ core->inbox[i], LONGEST };
		heads[i].msg_hdr.msg_iov = &whole[i];
		heads[i].msg_hdr.msg_iovlen = 1;
	}
	got = recvmmsg(sock->source.fd, heads, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < got; i++) {
		struct asked *asked = judged(core, sock, core->inbox[i], heads[i].msg_len);

		if (!asked)
			continue;
		write_to(asked, &replies[count], parts[count], core->inbox[i], heads[i].msg_len);
		given[count++] = asked;
	}
	if (!count)
		return;
	core->counts[ANSWERS] += count;
	send_replies(core, given, replies, count);
	while (count)
		asked_free(core, given[--count]);
}

/* It does little at once, and is waited for: it asks for short turns, which come sooner (sched(7), from kernel 6.12 on;
 * elsewhere nothing changes).
 */
static void prefer(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} wish = { .size = sizeof(wish), .runtime = SLICE_NS };

	wish.nice = getpriority(PRIO_PROCESS, gettid());
	syscall(SYS_sched_setattr, 0, &wish, 0);
}

/* Until stopped.  Without a lease of Python's, or with much that it has not taken, no datagram is: the other
 * instance may.
 */
void work(struct core *core)
{
	struct epoll_event events[BATCH];

	prefer();
	while (!core->stop) {
		double now = monotonic();
		int count = 0;

		enter(core);
		bool shut = now > core->lease || core->work.bytes > MOST_UP;
		leave(core);
		if (shut)
			poll(&(struct pollfd){ .fd = core->wake, .events = POLLIN }, 1, WAIT_MS);
		else
			count = epoll_wait(core->poll, events, BATCH, (int)(LOOK_S * 500));
		enter(core);
		now = monotonic();
		for (int i = 0; i < count; i++) {
			struct source *source = events[i].data.ptr;

			if (!source)
				(void)!read(core->wake, &(uint64_t){ 0 }, 8);
			else if (source->ring && now <= core->lease)	/* which may have ended meanwhile */
				questions(core, source, now);
			else if (source->ring)
				continue;
			else
				answers(core, (struct sock *)source);
		}
		flush(core);
		if (now > core->look_at) {
			core->look_at = now + LOOK_S;
			look(core, now);
		}
		leave(core);
	}
}
