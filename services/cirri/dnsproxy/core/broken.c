/* SPDX-License-Identifier: Apache-2.0 */
/* Puts each message of standard input (two bytes of length, then it) to the edge, as a question, as an answer to a
 * question, and as the question that an answer is to; compiled with sanitizers by tests, which look at how it ends.
 */
#include <stdio.h>

#include "calls.c"
#include "edge.c"

#define SLOTS 64
#define SIZE 4096
#define ROOM (1 << 20)

static void as_question(struct core *core, const uint8_t *message, uint32_t size)
{
	struct sockaddr_in pod = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in server = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = 9 };

	dns_put(core, message, size, (uint8_t *)&pod, (uint8_t *)&server, sizeof(pod));
}

/* The question that was put last, as if it had been passed on by *sock* under this identifier; NULL: it is not plain. */
static struct asked *passed(struct core *core, struct sock *sock, const uint8_t *message)
{
	struct asked *asked = asked_find(core, core->rings[0]->owners[core->rings[0]->next - 1]);

	if (!asked || !asked->end)
		return NULL;
	memcpy(&sock->ids[0], message, 2);
	sock->asked[0] = asked;
	sock->used = sock->waiting = 1;
	asked->sock = sock;
	asked->place = 0;
	asked->state = PENDING;
	return asked;
}

static void as_answer(struct core *core, struct sock *sock, const uint8_t *question, const uint8_t *message,
		      uint32_t size)
{
	struct asked *asked;

	as_question(core, question, question_end(question, size));
	asked = passed(core, sock, message);
	if (!asked)
		return;
	dns_know(core, 1, question + HEADER, asked->end - 4 - HEADER, message, size / 24);
	if (judged(core, sock, message, size))
		asked_free(core, asked);
	if (sock->asked[0])
		asked_free(core, sock->asked[0]);
}

int main(void)
{
	static uint8_t four[SLOTS * (SIZE + 200) + 8], six[sizeof(four)], query[LONGEST];
	struct core *core = dns_make(four, six, SLOTS, SIZE);
	uint8_t head[2], *room = malloc(ROOM);
	uint8_t pod[28] = { 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 127, 0, 0, 1 };
	struct sock sock = { .source.fd = -1 };
	uint32_t count = 0;

	dns_pods(core, pod, 1);
	for (; fread(head, 1, 2, stdin) == 2; count++) {
		uint32_t size = two(head);
		uint8_t *message = malloc(size);	/* of its size, so that what is read behind it is noticed */
		size_t end;

		if (fread(message, 1, size, stdin) != size)
			return 2;
		as_question(core, message, size);
		end = question_end(message, size);
		if (end) {
			memcpy(query, message, end);
			query[2] = query[3] = 0;
			as_answer(core, &sock, query, message, size);
		}
		while (dns_take(core, 0, room, ROOM))
			;
		for (uint32_t i = 0; i < MOST_ASKED && core->frees < MOST_ASKED; i++)
			if (core->pool[i].state != FREE)
				asked_free(core, &core->pool[i]);
		free(message);
	}
	printf("%u messages, %lu spoofed\n", count, (unsigned long)core->counts[SPOOFED]);
	free(room);
	dns_free(core);
	return 0;
}
