// SPDX-License-Identifier: Apache-2.0
/* drain: empties an event ring as its reader on a node would: at intervals, whole batches.
 *
 *   drain PINNED-RING INTERVAL-MS CPU
 *
 * It does not sleep in epoll: a reader that has caught up is woken for every single event, and the
 * price of that is paid by the packet.  On SIGTERM it prints how many events it read, and what CPU time it took.
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;
static unsigned long seen;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static int count(void *context, void *record, size_t size)
{
	(void)context, (void)record, (void)size;
	seen++;
	return 0;
}

int main(int argc, char **argv)
{
	cpu_set_t set;
	if (argc != 4)
		return 2;
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[3]), &set);
	sched_setaffinity(0, sizeof(set), &set);
	signal(SIGTERM, end);
	int fd = bpf_obj_get(argv[1]);
	struct ring_buffer *ring = fd < 0 ? NULL : ring_buffer__new(fd, count, NULL, NULL);
	if (!ring) {
		fprintf(stderr, "drain: no event ring at %s\n", argv[1]);
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	while (!ended) {
		usleep(atoi(argv[2]) * 1000);
		ring_buffer__consume(ring);
	}
	struct timespec used;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	printf("{\"events\": %lu, \"cpu_ns\": %lld}\n", seen, used.tv_sec * 1000000000ll + used.tv_nsec);
	return 0;
}
