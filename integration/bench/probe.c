// SPDX-License-Identifier: Apache-2.0
/* probe: when does every node enforce a new policy?  Asked of the real programs with real packets.
 *
 *   probe HZ CPU < orders
 *
 * Each packet is run through a node's own from_network program (BPF_PROG_TEST_RUN), with a source
 * port of its own, so that connection tracking has no answer ready.  Orders, one a line:
 *
 *   target PROGRAM-ID SOURCE-IPV4 DESTINATION-IPV4     (no answer)
 *   go NEW-PORT OLD-PORT OPEN-PORT CLOSED-PORT TIMEOUT-MS SEED
 *   watch OPEN-PORT CLOSED-PORT
 *
 * The new policy allows UDP to NEW-PORT, the old one UDP to OLD-PORT; both allow OPEN-PORT and
 * neither CLOSED-PORT.  `go` answers "armed", then sends HZ packets a second, in turn to one target
 * of each program (drawn by SEED), until all of those follow the new policy; then it asks every
 * target, again and again until none is left behind.  It answers one JSON line: the moment
 * (CLOCK_MONOTONIC, ns) for each program and for all targets, how many packets it sent, how many of
 * them met neither policy (OPEN-PORT closed, CLOSED-PORT open), and how often a packet met the new
 * policy and the next one still the old.
 *
 * `watch` answers "armed", then sends packets to the two ports of every target, in turn and as fast as
 * it can, until the next line of orders; it answers one JSON line with how many it sent, how many of them met
 * OPEN-PORT closed or CLOSED-PORT open, and when the first and the last of those did.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MAX_TARGETS 4096
#define MAX_PROGRAMS 64
#define REDIRECT 7
#define SHOT 2

#define DIE(...) do { fprintf(stderr, "probe: " __VA_ARGS__); fprintf(stderr, "\n"); exit(1); } while (0)

struct packet {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	char payload[18];
} __attribute__((packed));

static struct { unsigned int id; int fd, first, count; } programs[MAX_PROGRAMS];
static struct { int program; uint32_t source, destination; } targets[MAX_TARGETS];
static int program_count, target_count;
static unsigned long sent;
static uint16_t source_port;

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static uint16_t header_checksum(const struct packet *packet)
{
	uint16_t words[sizeof(packet->ip) / 2];
	uint32_t sum = 0;
	memcpy(words, (const char *)packet + sizeof(packet->eth), sizeof(words));
	for (unsigned int i = 0; i < sizeof(words) / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Whether the program lets a packet to this port pass. */
static int allowed(int target, int port)
{
	struct packet packet = {
		/* To the loopback, on which test runs happen: what is for other machines is left alone. */
		.eth = {.h_dest = {0}, .h_source = {2, 0, 0, 0, 0, 2}, .h_proto = htons(ETH_P_IP)},
		.ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
		       .tot_len = htons(sizeof(packet) - sizeof(packet.eth)),
		       .saddr = targets[target].source, .daddr = targets[target].destination},
		.udp = {.dest = htons(port), .len = htons(sizeof(packet.udp) + sizeof(packet.payload))},
	};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &packet, .data_size_in = sizeof(packet), .repeat = 1);

	if (++source_port < 1024)
		source_port = 1024;
	packet.udp.source = htons(source_port);
	packet.ip.check = header_checksum(&packet);
	sent++;
	if (bpf_prog_test_run_opts(programs[targets[target].program].fd, &opts))
		DIE("test run: %s", strerror(errno));
	if (opts.retval != REDIRECT && opts.retval != SHOT)
		DIE("target %d: the program returned %d, neither delivered nor dropped", target, opts.retval);
	return opts.retval == REDIRECT;
}

static struct { int new_port, old_port, open_port, closed_port; } ports;
static unsigned long violations, mixed;

/* Whether the new policy holds.  Two packets decide; their order alternates, since the switch may
 * fall between them. */
static int follows_new(int target)
{
	static unsigned int turn;
	int opened, closed;

	if (++turn & 1) {
		opened = allowed(target, ports.new_port);
		closed = !allowed(target, ports.old_port);
		mixed += opened && !closed;
	} else {
		closed = !allowed(target, ports.old_port);
		opened = allowed(target, ports.new_port);
		mixed += closed && !opened;
	}
	return closed && opened;
}

static void add_target(unsigned int id, const char *source, const char *destination)
{
	int p = program_count - 1;
	if (p < 0 || programs[p].id != id) {
		if (++p == MAX_PROGRAMS)
			DIE("at most %d programs", MAX_PROGRAMS);
		programs[p].id = id;
		programs[p].fd = bpf_prog_get_fd_by_id(id);
		if (programs[p].fd < 0)
			DIE("program %u: %s", id, strerror(errno));
		programs[p].first = target_count;
		program_count++;
	}
	if (target_count == MAX_TARGETS)
		DIE("at most %d targets", MAX_TARGETS);
	targets[target_count].program = p;
	if (inet_pton(AF_INET, source, &targets[target_count].source) != 1 ||
	    inet_pton(AF_INET, destination, &targets[target_count].destination) != 1)
		DIE("%s, %s: no IPv4 addresses", source, destination);
	programs[p].count++;
	target_count++;
}

static void go(int hz, int timeout_ms, unsigned int seed)
{
	static uint64_t moments[MAX_PROGRAMS];
	static char pending[MAX_TARGETS];
	uint64_t start = now_ns(), limit = start + timeout_ms * 1000000ULL, tick = start;
	int waiting = program_count, left = target_count;

	sent = violations = mixed = 0;
	memset(moments, 0, sizeof(moments));
	memset(pending, 1, sizeof(pending));
	srand(seed);
	printf("armed\n");
	fflush(stdout);
	int drawn[MAX_PROGRAMS];
	for (int p = 0; p < program_count; p++)
		drawn[p] = programs[p].first + rand() % programs[p].count;
	for (int p = 0; waiting; p = (p + 1) % program_count) {
		if (moments[p])
			continue;
		tick += 4 * 1000000000ULL / hz;
		struct timespec until = {.tv_sec = tick / 1000000000ULL, .tv_nsec = tick % 1000000000ULL};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		violations += !allowed(drawn[p], ports.open_port);
		violations += allowed(drawn[p], ports.closed_port);
		if (follows_new(drawn[p])) {
			moments[p] = now_ns();
			waiting--;
		}
		if (now_ns() > limit)
			break;
	}
	uint64_t sweep = now_ns();
	while (left && now_ns() < limit) {
		for (int t = 0; t < target_count; t++) {
			if (pending[t] && follows_new(t)) {
				pending[t] = 0;
				left--;
			}
		}
	}
	printf("{\"start\": %lu, \"moments\": [", start);
	for (int p = 0; p < program_count; p++)
		printf("%s%lu", p ? ", " : "", moments[p]);
	printf("], \"sweep\": %lu, \"all\": %lu, \"left\": %d, \"sent\": %lu, \"violations\": %lu, \"mixed\": %lu}\n",
	       sweep, now_ns(), left, sent, violations, mixed);
	fflush(stdout);
}

static void watch(int open_port, int closed_port)
{
	struct pollfd orders = {.fd = 0, .events = POLLIN};
	uint64_t first = 0, last = 0;
	unsigned long closed = 0, opened = 0;

	sent = 0;
	printf("armed\n");
	fflush(stdout);
	for (int t = 0; ; t = (t + 1) % target_count) {
		unsigned long before = closed + opened;
		closed += !allowed(t, open_port);
		opened += allowed(t, closed_port);
		if (closed + opened > before) {
			last = now_ns();
			first = first ? first : last;
		}
		if (sent % 1000 < 2 && poll(&orders, 1, 0))
			break;
	}
	printf("{\"sent\": %lu, \"closed\": %lu, \"opened\": %lu, \"first\": %lu, \"last\": %lu}\n",
	       sent, closed, opened, first, last);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[1024], source[64], destination[64];
	int timeout_ms;
	unsigned int id, seed;

	if (argc != 3)
		return 2;
	if (atoi(argv[2]) >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(atoi(argv[2]), &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	prctl(PR_SET_TIMERSLACK, 1);
	setvbuf(stdin, NULL, _IONBF, 0);	/* poll must see what fgets would */
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "target %u %63s %63s", &id, source, destination) == 3)
			add_target(id, source, destination);
		else if (sscanf(line, "go %d %d %d %d %d %u", &ports.new_port, &ports.old_port, &ports.open_port,
				&ports.closed_port, &timeout_ms, &seed) == 6)
			go(atoi(argv[1]), timeout_ms, seed);
		else if (sscanf(line, "watch %d %d", &ports.open_port, &ports.closed_port) == 2)
			watch(ports.open_port, ports.closed_port);
		else if (!strcmp(line, "stop\n"))
			continue;
		else
			DIE("no order: %s", line);
	}
	return 0;
}
