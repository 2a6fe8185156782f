/* SPDX-License-Identifier: Apache-2.0 */
/* The DNS proxy's edge over UDP, in a thread of its own.  Python decides; what it has decided is repeated here:
 *
 *	pods	address -> number and identity of a pod
 *	routes	(identity of a pod, server) -> what its questions there are judged by, the server's identity
 *	rules	(what they are judged by, name) -> the rule that lets the name pass
 *	facts	(pod, name) -> addresses that the kernel knows for the pod, and until when
 *
 * What is not in there, or is not plain, goes up to Python as an event; so does nothing that is wrong on its face.
 * Everything of struct core is under its lock.  Python's calls are in calls.c.
 */
#pragma once
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "message.h"
#include "table.h"

#define BATCH 64		/* datagrams taken by one call */
#define USES 256		/* questions that a socket asks; then another one, at another random port */
#define PER_POD 64		/* sockets that one pod may have waiting: for 16,384 answers */
#define MOST_ASKED 32768	/* questions under way; a power of 2 */
#define MOST_SERVERS 1024	/* servers' addresses that a socket is bound to */
#define MOST_ROUTES 4096
#define MOST_CACHED 65536	/* rules, and names with facts: of more, all are forgotten */
#define FEW_KNOWN 4		/* addresses of one name that there is room for, and the most there may be */
#define MOST_KNOWN 64
#define MOST_UP (4u << 20)	/* bytes that wait for Python; with more, no datagram is taken */
#define LONGEST 65535
#define NAME_ROOM 32		/* bytes of a slot for an address, and for a control message */
#define CONTROL_ROOM 64

#define CURRENT_S 2.0		/* how long a socket is used at most */
#define RETRY_S 1.2		/* an unanswered question is sent again, */
#define GIVE_UP_S 4.8		/* and forgotten; clients have 5 s */
#define LOOK_S 0.2
#define SPARE_S 10		/* of a fact: it passes answers that are to last longer, while Python makes it do so */
#define SWEEP_S 30.0		/* what Python has not given back by then is lost */

/* An address as the kernel writes it, without what follows it. */
struct end {
	uint8_t size;
	uint8_t raw[sizeof(struct sockaddr_in6)];
};

enum counts { QUERIES, ANSWERS, MALFORMED, STRANGERS, SPOOFED, RETRIES, TIMEOUTS, CROWDED, UNSENT, MISSED, COUNTS };
enum kinds { UP_QUESTION, UP_ANSWER, UP_AGING, UP_CANNOT, TOLD_PASSED, TOLD_ANSWERED, TOLD_FAILED };
enum states { FREE, DECIDING, PENDING, HELD };

/* Received datagrams, in memory that may outlive the process; laid out as cirri.dnsproxy.slots says. */
struct ring {
	struct mmsghdr *heads;
	uint8_t *names, *controls, *data;
	double *beat;
	uint32_t count, size, next;
	uint64_t *owners;	/* of each slot: the question's id */
};

/* What epoll tells about. */
struct source {
	int fd;
	struct ring *ring;	/* of a socket that pods' questions come to */
};

struct asked {
	uint64_t id;
	enum states state;
	uint32_t tries, pod, subject, identity, slot, place, size, end;	/* end: of a plain question, or 0 */
	int64_t rule;
	double began;		/* monotonic */
	struct ring *ring;
	struct sock *sock;
	struct end client, server;
	uint8_t *message;
};

/* A socket that asks a server for a pod. */
struct sock {
	struct source source;
	struct sock *next;
	double born;
	bool touched;
	uint32_t used, waiting, unsent;
	struct end pod, server;
	uint16_t ids[USES];	/* random and different, in network order */
	struct asked *asked[USES];
	uint16_t out[BATCH];	/* places of what is to be sent */
};

struct event {
	struct event *next;
	uint32_t size;
	uint8_t bytes[];
};

struct queue {
	struct event *first, **last;
	uint32_t bytes;
	bool urgent;		/* Python has been woken for what is in it */
};

struct pod {
	uint32_t id, subject;
};

struct route {
	uint32_t names, identity;
};

struct known {
	uint32_t count, room, next;
	bool told;		/* that some of them are to last longer */
	struct {
		uint8_t raw[16];
		int64_t until;	/* seconds since 1970 */
	} at[];
};

struct core {
	pthread_mutex_t turn, lock;	/* turn: nobody takes the lock again before those who wait for it */
	int poll, wake, up;		/* up: an eventfd, readable when there are events for Python */
	atomic_bool stop;
	double lease, look_at, sweep_at;
	struct table pods, routes, rules, facts, current, crowd, servers;
	struct sock *socks;
	struct sock *touched[BATCH];
	uint32_t touches;
	struct ring *rings[2];		/* IPv4, IPv6 */
	struct source listening[8];
	uint32_t listens;
	struct asked *pool;
	uint32_t free[MOST_ASKED], frees;
	uint64_t serial;
	struct queue work, told;	/* questions and answers; records */
	uint32_t room;			/* for records */
	uint64_t counts[COUNTS];
	uint8_t (*inbox)[LONGEST];
};

/* What is looked up in a table. */
struct key {
	uint32_t size;
	uint8_t bytes[8 + sizeof(struct end) + LONGEST_NAME];
};

static inline void add(struct key *key, const void *bytes, size_t size)
{
	memcpy(key->bytes + key->size, bytes, size);
	key->size += size;
}

double monotonic(void);
void enter(struct core *core);
void leave(struct core *core);

/* The 4 or 16 bytes of an address. */
static inline const uint8_t *packed(const struct end *end, size_t *size)
{
	*size = end->size == sizeof(struct sockaddr_in) ? 4 : 16;
	return end->raw + (*size == 4 ? 4 : 8);
}

/* sockets.c: all return -1, errno says why. */
int speaking_as_pod(const struct end *pod, const struct end *server);
int speaking_as_server(const struct end *server);

/* asked.c: questions under way */
struct ring *ring_in(uint8_t *memory, uint32_t count, uint32_t size);	/* NULL, or without owners: no memory */
struct asked *asked_new(struct core *core, struct ring *ring, uint32_t slot);
struct asked *asked_find(struct core *core, uint64_t id);
void asked_free(struct core *core, struct asked *asked);
void settle(struct asked *asked);	/* takes it from its socket: no answer is expected any more */
void sweep(struct core *core, double now);

/* events.c */
void tell(struct core *core, enum kinds kind, const struct asked *asked, const uint8_t *answer, size_t size,
	  int64_t number);
uint32_t take_events(struct queue *queue, uint8_t *to, uint32_t room);
void drop_events(struct queue *queue);

/* upstream.c */
bool ask(struct core *core, struct asked *asked, double now);
void flush(struct core *core);
void look(struct core *core, double now);

/* edge.c */
void question(struct core *core, struct ring *ring, uint32_t slot, double now);
void reply(struct core *core, const struct asked *asked, const uint8_t *message, size_t size);
void work(struct core *core);

/* calls.c */
void close_servers(struct core *core);
