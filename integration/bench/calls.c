// SPDX-License-Identifier: Apache-2.0
/* calls: system calls without end, for row B29.  Reads orders "MODE COUNT" from standard input and answers each with
 * the nanoseconds that one turn took:
 *   o  open and close a file    e  start /bin/true and wait for its end
 *   r  setfsuid(-1), 100,000 a second, COUNT of them
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BETWEEN_NS 10000

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void turn(char mode, long number, double begin)
{
	char *argv[] = {"true", NULL}, *env[] = {NULL};
	pid_t pid;

	if (mode == 'o') {
		close(open("/etc/hostname", O_RDONLY));
	} else if (mode == 'e') {
		if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, env))
			exit(1);
		waitpid(pid, NULL, 0);
	} else {
		while (now_ns() < begin + number * (double)BETWEEN_NS)
			;
		syscall(SYS_setfsuid, -1);
	}
}

int main(void)
{
	char mode;
	long count;

	while (scanf(" %c %ld", &mode, &count) == 2) {
		double begin = now_ns();

		for (long i = 0; i < count; i++)
			turn(mode, i, begin);
		printf("%.1f\n", (now_ns() - begin) / count);
		fflush(stdout);
	}
	return 0;
}
