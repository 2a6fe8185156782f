// SPDX-License-Identifier: Apache-2.0
/* rr: the traffic of the datapath rows, the same binary on every path.
 *
 *   rr server --netns NS --cpu N --port P --listen ADDRESS [--listen ADDRESS ...]
 *   rr client --netns NS --cpu N --port P --to ADDRESS < orders
 *
 * rr      one connection, 1 byte there and 1 byte back (netperf's TCP_RR)
 * crr     connect, 1 byte there and back, close (netperf's TCP_CRR)
 * stream  128 KiB writes; the rate is what the receiver had read when the sender's end arrived
 *
 * The server listens on P (rr), P+1 (crr) and P+2 (stream), a process for each, and says
 * "ready" once all of them listen.  The client reads orders "MODE SECONDS WARMUP-SECONDS", one a
 * line, and answers each with a line of JSON: so a harness can give a slice of time to each of many
 * paths in turn without starting processes in between.  A connection lasts for one order at most.
 *
 * TIME_WAIT: in crr the SERVER closes first, as netperf's does.  The waiting sockets then stand
 * on the server's side, at most one per client port, and a SYN from a port that is used again
 * carries a newer timestamp, which TCP accepts at once (RFC 6191).  The client never runs out of
 * ports, nobody sets SO_LINGER, and each close is an ordinary FIN from both sides.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_S 2
#define BLOCK (128 * 1024)
#define MAX_LISTEN 8
#define MAX_SECONDS 600

#define DIE(...) do { fprintf(stderr, "rr: " __VA_ARGS__); fprintf(stderr, "\n"); exit(1); } while (0)

/* Latencies in buckets of 1/32 of a power of two: at most 3 % wide. */
#define SUB_BITS 5
#define BUCKETS (48 << SUB_BITS)
static uint64_t histogram[BUCKETS];

static unsigned int bucket_of(uint64_t ns)
{
	if (ns < (1 << SUB_BITS))
		return ns;
	unsigned int top = 63 - __builtin_clzll(ns);
	unsigned int bucket = ((top - SUB_BITS + 1) << SUB_BITS) | ((ns >> (top - SUB_BITS)) & ((1 << SUB_BITS) - 1));
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* Middle of a bucket, ns. */
static double value_of(unsigned int bucket)
{
	if (bucket < (1 << SUB_BITS))
		return bucket;
	unsigned int shift = (bucket >> SUB_BITS) - 1;
	uint64_t low = (uint64_t)((1 << SUB_BITS) | (bucket & ((1 << SUB_BITS) - 1))) << shift;
	return low + (double)(1ULL << shift) / 2;
}

static void print_histogram(void)
{
	const char *comma = "";
	printf(", \"histogram_ns\": [");
	for (unsigned int i = 0; i < BUCKETS; i++) {
		if (histogram[i]) {
			printf("%s[%.0f, %lu]", comma, value_of(i), histogram[i]);
			comma = ", ";
		}
	}
	printf("]");
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void enter(const char *netns)
{
	char path[256];
	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		DIE("namespace %s: %s", netns, strerror(errno));
	close(fd);
}

static void pin(int cpu)
{
	cpu_set_t set;
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		DIE("cpu %d: %s", cpu, strerror(errno));
}

static socklen_t address(const char *text, int port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (void *)out;
	struct sockaddr_in6 *v6 = (void *)out;
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	DIE("%s is neither an IPv4 nor an IPv6 address", text);
}

static int listener(const char *text, int port)
{
	struct sockaddr_storage to;
	socklen_t length = address(text, port, &to);
	int one = 1;
	int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (void *)&to, length) || listen(fd, 1024))
		DIE("listen on %s port %d: %s", text, port, strerror(errno));
	return fd;
}

static void prepare(int fd)
{
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* One connection at a time: the client never has two. */
static void serve_rr(int fd, int once)
{
	char byte;
	for (;;) {
		int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (peer < 0)
			continue;
		prepare(peer);
		while (recv(peer, &byte, 1, 0) == 1 && send(peer, &byte, 1, MSG_NOSIGNAL) == 1 && !once)
			;
		close(peer);
	}
}

static void serve_stream(int fd)
{
	static char block[BLOCK];
	for (;;) {
		int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (peer < 0)
			continue;
		uint64_t total = 0;
		ssize_t got;
		while ((got = recv(peer, block, sizeof(block), 0)) > 0)
			total += got;
		if (send(peer, &total, sizeof(total), MSG_NOSIGNAL) < 0)
			perror("rr: total");
		close(peer);
	}
}

static int server(char **listen_on, int count, int port)
{
	for (int i = 0; i < count; i++) {
		for (int kind = 0; kind < 3; kind++) {
			int fd = listener(listen_on[i], port + kind);
			pid_t pid = fork();
			if (pid < 0)
				DIE("fork: %s", strerror(errno));
			if (pid) {
				close(fd);
				continue;
			}
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (kind == 2)
				serve_stream(fd);
			else
				serve_rr(fd, kind == 1);
			exit(0);
		}
	}
	printf("ready\n");
	fflush(stdout);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return 0;
}

static int connection(const char *to, int port)
{
	struct sockaddr_storage peer;
	struct timeval limit = {.tv_sec = ANSWER_TIMEOUT_S};
	socklen_t length = address(to, port, &peer);
	int fd = socket(peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		DIE("socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)); /* connect() too */
	if (connect(fd, (void *)&peer, length))
		DIE("connect to %s port %d: %s", to, port, strerror(errno));
	prepare(fd);
	return fd;
}

static void exchange(int fd)
{
	char byte = 'x';
	if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
		DIE("send: %s", strerror(errno));
	ssize_t got = recv(fd, &byte, 1, 0);
	if (got != 1)
		DIE("no answer: %s", got ? strerror(errno) : "connection closed");
}

static void transaction(int *fd, const char *to, int port, int fresh)
{
	char byte;
	if (!fresh) {
		exchange(*fd);
		return;
	}
	*fd = connection(to, port);
	exchange(*fd);
	if (recv(*fd, &byte, 1, 0) != 0)
		DIE("the server did not close: %s", strerror(errno));
	close(*fd);
}

static void transactions(const char *to, int port, int fresh, double seconds, double warmup)
{
	static uint64_t per_second[MAX_SECONDS + 2];
	int fd = fresh ? -1 : connection(to, port);
	uint64_t count = 0, start, last, now;

	memset(histogram, 0, sizeof(histogram));
	memset(per_second, 0, sizeof(per_second));
	for (start = now_ns(); now_ns() - start < warmup * 1e9;)
		transaction(&fd, to, port, fresh);

	start = last = now_ns();
	uint64_t end = start + (uint64_t)(seconds * 1e9);
	do {
		transaction(&fd, to, port, fresh);
		now = now_ns();
		histogram[bucket_of(now - last)]++;
		per_second[(now - start) / 1000000000ULL]++;
		last = now;
		count++;
	} while (now < end);
	if (!fresh)
		close(fd);

	printf("{\"seconds\": %.6f, \"count\": %lu, \"per_second\": [", (now - start) / 1e9, count);
	for (unsigned int i = 0; i <= (now - start) / 1000000000ULL && i <= MAX_SECONDS; i++)
		printf("%s%lu", i ? ", " : "", per_second[i]);
	printf("]");
	print_histogram();
	printf("}\n");
}

static void stream(const char *to, int port, double seconds)
{
	static char block[BLOCK];
	uint64_t total = 0;
	int fd = connection(to, port);
	uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9);

	while (now_ns() < end)
		if (send(fd, block, sizeof(block), MSG_NOSIGNAL) < 0)
			DIE("send: %s", strerror(errno));
	shutdown(fd, SHUT_WR);
	if (recv(fd, &total, sizeof(total), MSG_WAITALL) != sizeof(total))
		DIE("the receiver did not answer: %s", strerror(errno));
	close(fd);
	printf("{\"seconds\": %.6f, \"count\": %lu}\n", (now_ns() - start) / 1e9, total);
}

static int client(const char *to, int port)
{
	char mode[16];
	double seconds, warmup;

	while (scanf("%15s %lf %lf", mode, &seconds, &warmup) == 3) {
		if (seconds <= 0 || seconds > MAX_SECONDS)
			DIE("%g seconds: more than 0, at most %d", seconds, MAX_SECONDS);
		if (!strcmp(mode, "rr") || !strcmp(mode, "crr"))
			transactions(to, port + (mode[0] == 'c'), mode[0] == 'c', seconds, warmup);
		else if (!strcmp(mode, "stream"))
			stream(to, port + 2, seconds);
		else
			DIE("%s is none of rr, crr, stream", mode);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"netns", 1, 0, 'n'}, {"cpu", 1, 0, 'c'}, {"port", 1, 0, 'p'},
		{"listen", 1, 0, 'l'}, {"to", 1, 0, 't'}, {0}
	};
	const char *netns = NULL, *to = NULL;
	char *listen_on[MAX_LISTEN];
	int cpu = -1, port = 5000, count = 0, chosen;

	while ((chosen = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (chosen) {
		case 'n': netns = optarg; break;
		case 'c': cpu = atoi(optarg); break;
		case 'p': port = atoi(optarg); break;
		case 't': to = optarg; break;
		case 'l':
			if (count == MAX_LISTEN)
				DIE("at most %d addresses", MAX_LISTEN);
			listen_on[count++] = optarg;
			break;
		default: return 2;
		}
	}
	if (optind + 1 != argc)
		DIE("say what to be: server or client");
	pin(cpu);
	if (netns)
		enter(netns);
	if (!strcmp(argv[optind], "server") && count)
		return server(listen_on, count, port);
	if (!strcmp(argv[optind], "client") && to)
		return client(to, port);
	DIE("server needs --listen, client needs --to");
}
