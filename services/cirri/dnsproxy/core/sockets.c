/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that speak under others' addresses; cirri.dnsproxy.sockets has those for TCP. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

#define FACES_CLIENT 0x0b00	/* marks, as the kernel's programs know them */
#define FACES_SERVER 0x0b01
#define ROOM (4 << 20)
#define DISCARD 9		/* a port that nobody has */

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

static int failed(int fd)
{
	int why = errno;

	close(fd);
	errno = why;
	return -1;
}

static int opened(int family, int mark)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	if (set(fd, SOL_SOCKET, SO_MARK, mark))
		return failed(fd);
	if (family == AF_INET6 ? set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) || set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
			       : set(fd, IPPROTO_IP, IP_TRANSPARENT, 1))
		return failed(fd);
	return fd;
}

static int family_of(const struct end *end)
{
	return end->size == sizeof(struct sockaddr_in) ? AF_INET : AF_INET6;
}

int speaking_as_pod(const struct end *pod, const struct end *server)
{
	int family = family_of(pod), fd = opened(family, FACES_SERVER);
	struct end own = *pod;

	if (fd < 0)
		return fd;
	memset(own.raw + 2, 0, 2);
	if (family == AF_INET)	/* the port is chosen when the peer is known, so that one serves many peers */
		set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	set(fd, SOL_SOCKET, SO_RCVBUFFORCE, ROOM);	/* where we may */
	if (bind(fd, (struct sockaddr *)own.raw, own.size) ||
	    connect(fd, (const struct sockaddr *)server->raw, server->size))
		return failed(fd);
	return fd;
}

/* It hears nothing: what is sent to the server must not end here, so it is connected to nobody's port. */
int speaking_as_server(const struct end *server)
{
	int fd = opened(family_of(server), FACES_CLIENT);
	struct sockaddr_in6 nobody6 = {
		.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(DISCARD),
	};
	struct sockaddr_in nobody = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(DISCARD),
	};

	if (fd < 0)
		return fd;
	/* every instance has one like it */
	if (set(fd, SOL_SOCKET, SO_REUSEPORT, 1) || set(fd, SOL_SOCKET, SO_REUSEADDR, 1) ||
	    bind(fd, (const struct sockaddr *)server->raw, server->size) ||
	    (server->size == sizeof(nobody) ? connect(fd, (struct sockaddr *)&nobody, sizeof(nobody))
					    : connect(fd, (struct sockaddr *)&nobody6, sizeof(nobody6))) ||
	    set(fd, SOL_SOCKET, SO_SNDBUF, ROOM))
		return failed(fd);
	return fd;
}
