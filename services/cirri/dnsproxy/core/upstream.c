/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that ask servers for pods, and what waits for an answer on them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "core.h"

static bool draw(struct sock *sock)
{
	uint16_t random[USES + 64];
	uint32_t count = 0;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return false;
	for (uint32_t i = 0; i < USES + 64 && count < USES; i++) {
		uint32_t j = 0;

		while (j < count && sock->ids[j] != random[i])
			j++;
		if (j == count)
			sock->ids[count++] = random[i];
	}
	return count == USES;
}

/* A new socket for questions of a pod to a server; NULL if it has too many. */
static struct sock *another(struct core *core, const struct asked *asked, const struct key *key, double now)
{
	size_t size;
	const uint8_t *pod = packed(&asked->client, &size);
	uint32_t *crowd = table_find(&core->crowd, pod, size);
	struct sock *sock, **current;
	struct epoll_event event = { .events = EPOLLIN };

	if (crowd && *crowd >= PER_POD) {
		core->counts[CROWDED]++;
		return NULL;
	}
	core->counts[UNSENT]++;		/* until it is clear that it is not */
	sock = calloc(1, sizeof(*sock));
	if (!sock)
		return NULL;
	sock->pod = asked->client;
	sock->server = asked->server;
	sock->born = now;
	sock->source.fd = speaking_as_pod(&sock->pod, &sock->server);
	event.data.ptr = sock;
	if (!draw(sock) || sock->source.fd < 0 || epoll_ctl(core->poll, EPOLL_CTL_ADD, sock->source.fd, &event) ||
	    (!crowd && !(crowd = table_put(&core->crowd, pod, size, sizeof(*crowd)))) ||
	    !(current = table_put(&core->current, key->bytes, key->size, sizeof(*current)))) {
		if (sock->source.fd >= 0)
			close(sock->source.fd);
		free(sock);
		return NULL;
	}
	core->counts[UNSENT]--;
	++*crowd;
	*current = sock;
	sock->next = core->socks;
	core->socks = sock;
	return sock;
}

static void key_of(struct key *key, const struct end *pod, const struct end *server)
{
	size_t size;
	const uint8_t *address = packed(pod, &size);

	key->size = 0;
	add(key, address, size);
	add(key, server->raw, server->size);
}

static void send_out(struct core *core, struct sock *sock)
{
	struct mmsghdr heads[BATCH];
	struct iovec parts[BATCH][2];
	uint32_t count = 0, done = 0;

	for (uint32_t i = 0; i < sock->unsent; i++) {
		struct asked *asked = sock->asked[sock->out[i]];

		if (!asked)
			continue;
		parts[count][0] = (struct iovec){ &sock->ids[sock->out[i]], 2 };
		parts[count][1] = (struct iovec){ asked->message + 2, asked->size - 2 };
		heads[count] = (struct mmsghdr){ .msg_hdr = { .msg_iov = parts[count], .msg_iovlen = 2 } };
		count++;
	}
	sock->unsent = 0;
	while (done < count) {
		int sent = sendmmsg(sock->source.fd, heads + done, count - done, MSG_DONTWAIT);

		if (sent > 0) {
			done += sent;
		} else if (errno == EAGAIN || errno == ENOBUFS) {
			core->counts[UNSENT] += count - done;
			return;
		} else {	/* of this one: a connected socket also says here that an earlier one was not welcome */
			core->counts[UNSENT]++;
			done++;
		}
	}
}

void flush(struct core *core)
{
	for (uint32_t i = 0; i < core->touches; i++) {
		core->touched[i]->touched = false;
		send_out(core, core->touched[i]);
	}
	core->touches = 0;
}

static void send_soon(struct core *core, struct sock *sock, uint32_t place)
{
	if (sock->unsent == BATCH)
		send_out(core, sock);
	if (!sock->touched) {
		if (core->touches == BATCH)
			flush(core);
		sock->touched = true;
		core->touched[core->touches++] = sock;
	}
	sock->out[sock->unsent++] = place;
}

bool ask(struct core *core, struct asked *asked, double now)
{
	struct sock **current, *sock;
	struct key key;

	key_of(&key, &asked->client, &asked->server);
	current = table_find(&core->current, key.bytes, key.size);
	sock = current ? *current : NULL;
	if (!sock || sock->used == USES || now > sock->born + CURRENT_S)
		sock = another(core, asked, &key, now);
	if (!sock) {
		asked_free(core, asked);
		return false;
	}
	tell(core, TOLD_PASSED, asked, NULL, 0, asked->rule);
	asked->state = PENDING;
	asked->sock = sock;
	asked->place = sock->used++;
	sock->asked[asked->place] = asked;
	sock->waiting++;
	send_soon(core, sock, asked->place);
	return true;
}

static void look_at(struct core *core, struct sock *sock, double now)
{
	for (uint32_t place = 0; place < sock->used; place++) {
		struct asked *asked = sock->asked[place];
		double age;

		if (!asked)
			continue;
		age = now - asked->began;
		if (age < RETRY_S)
			break;	/* those that follow are younger */
		if (age >= GIVE_UP_S) {
			core->counts[TIMEOUTS]++;
			tell(core, TOLD_FAILED, asked, NULL, 0, asked->rule);
			asked_free(core, asked);
		} else if (age >= RETRY_S * (asked->tries + 1)) {
			asked->tries++;
			core->counts[RETRIES]++;
			send_soon(core, sock, place);
		}
	}
}

static void done_with(struct core *core, struct sock *sock)
{
	size_t size;
	const uint8_t *pod = packed(&sock->pod, &size);
	uint32_t *crowd = table_find(&core->crowd, pod, size);

	if (crowd && !--*crowd)
		table_drop(&core->crowd, pod, size);
	close(sock->source.fd);
	free(sock);
}

/* Ask again, give up, close sockets that have done their work. */
void look(struct core *core, double now)
{
	struct sock **at = &core->socks;

	for (struct sock *sock = core->socks; sock; sock = sock->next)
		look_at(core, sock, now);
	flush(core);
	while (*at) {
		struct sock *sock = *at, **current;
		struct key key;

		if (sock->used < USES && now <= sock->born + CURRENT_S) {
			at = &sock->next;
			continue;
		}
		key_of(&key, &sock->pod, &sock->server);
		current = table_find(&core->current, key.bytes, key.size);
		if (current && *current == sock)
			table_drop(&core->current, key.bytes, key.size);
		if (sock->waiting) {
			at = &sock->next;
			continue;
		}
		*at = sock->next;
		done_with(core, sock);
	}
	if (now > core->sweep_at) {
		core->sweep_at = now + SWEEP_S;
		sweep(core, now);
	}
}
