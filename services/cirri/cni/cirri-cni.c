/* SPDX-License-Identifier: Apache-2.0 */
/* cirri-cni: hands a container runtime's request to the node's datapath service, and its answer back.
 *
 * It understands nothing of CNI but three things: where the service's socket is (key "socket" of the
 * configuration), that VERSION is answered without the service, and that a DEL must not be lost when
 * the service is away: it is left in the directory deleteQueue beside the socket.
 *
 * Wire format, both ways: length (u32, big endian), then JSON:
 *   request {"env": {"CNI_COMMAND": ...}, "config": "<stdin>"}   reply {"code": N, "stdout": "..."}
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/cirri/cni.sock"
#define LATEST "1.1.0"
#define SUPPORTED "[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]"
#define MAX_BYTES (8u << 20)	/* of a configuration or a reply */
#define CONNECT_TRIES 20	/* x 25 ms: a restart of the service passes unnoticed */
#define REPLY_SECONDS 90	/* the service has its own, shorter deadlines */

enum { IO_FAILURE = 5, TRY_AGAIN = 11, NOT_AVAILABLE = 50 };	/* CNI error codes */

struct text { char *bytes; size_t used, room; };

static void add(struct text *t, const char *bytes, size_t count)
{
	if (t->used + count + 1 > t->room) {
		t->room = (t->used + count + 1) * 2;
		t->bytes = realloc(t->bytes, t->room);
		if (!t->bytes)
			exit(IO_FAILURE);
	}
	memcpy(t->bytes + t->used, bytes, count);
	t->bytes[t->used += count] = 0;
}

static void adds(struct text *t, const char *string) { add(t, string, strlen(string)); }

/* A JSON string.  Bytes above 127 pass as they are: the service reports what is not UTF-8. */
static void add_quoted(struct text *t, const char *bytes, size_t count)
{
	char escape[8];

	adds(t, "\"");
	for (size_t i = 0; i < count; i++) {
		unsigned char c = bytes[i];

		if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
			add(t, escape, sprintf(escape, "\\u%04x", c));
		else
			add(t, bytes + i, 1);
	}
	adds(t, "\"");
}

/* The string that begins after the quote at json[*at], escapes undone; *at is left at its end quote.
 * Code points above 255 are expected as UTF-8, not escaped, which is how the service writes them. */
static void read_quoted(const struct text *json, size_t *at, struct text *out)
{
	out->used = 0;
	add(out, "", 0);
	for (++*at; *at < json->used && json->bytes[*at] != '"'; ++*at) {
		const char *c = json->bytes + *at;
		unsigned int number;

		if (*c != '\\') {
			add(out, c, 1);
			continue;
		}
		++*at;
		switch (*++c) {
		case 'n': add(out, "\n", 1); break;
		case 't': add(out, "\t", 1); break;
		case 'r': add(out, "\r", 1); break;
		case 'u':
			if (sscanf(c + 1, "%4x", &number) == 1)
				add(out, (char[]){number}, 1);
			*at += 4;
			break;
		default: add(out, c, 1);
		}
	}
}

/* The string value of "key" in the outermost object of a JSON text; false if there is none. */
static bool string_at(const struct text *json, const char *key, struct text *out)
{
	int depth = 0;
	bool value = false, found = false;	/* a value comes next; it is the wanted key's */

	for (size_t i = 0; i < json->used; i++) {
		char c = json->bytes[i];

		if (c == '"') {
			read_quoted(json, &i, out);
			if (depth == 1 && value && found)
				return true;
			if (depth == 1 && !value)
				found = !strcmp(out->bytes, key);
		} else if (c == '{' || c == '[') {
			depth++;
			value = false;
		} else if (c == '}' || c == ']') {
			depth--;
		} else if (depth == 1 && (c == ':' || c == ',')) {
			value = c == ':';
			found = found && value;
		}
	}
	return false;
}

/* Print a CNI error object; the exit code of this program is its code. */
static int fail(const char *version, int code, const char *format, ...)
{
	struct text out = {0}, quoted = {0};
	char message[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	add_quoted(&out, version, strlen(version));
	add_quoted(&quoted, message, strlen(message));
	printf("{\"cniVersion\":%s,\"code\":%d,\"msg\":%s}\n", out.bytes, code, quoted.bytes);
	return code;
}

static bool read_all(int fd, struct text *into, size_t limit)
{
	char chunk[65536];
	ssize_t got;

	add(into, "", 0);
	while (into->used <= limit && (got = read(fd, chunk, sizeof(chunk))) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return false;
		add(into, chunk, got);
	}
	return into->used <= limit;
}

static bool send_all(int fd, const char *bytes, size_t count)
{
	while (count) {
		ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		bytes += sent;
		count -= sent;
	}
	return true;
}

/* A socket to the service, or -1.  A service that is just restarting is waited for. */
static int reach(const char *path, int tries)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = REPLY_SECONDS};
	struct timespec pause = {.tv_nsec = 25 * 1000 * 1000};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	while (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		if (--tries <= 0) {
			close(fd);
			return -1;
		}
		nanosleep(&pause, NULL);
	}
	return fd;
}

/* Send the request and pass the reply's "stdout" on; the reply's code, or -1 if the service broke off. */
static int ask(int fd, const struct text *request)
{
	uint32_t length = htonl(request->used);
	struct text reply = {0}, output = {0};
	const char head[] = "{\"code\":";

	if (!send_all(fd, (char *)&length, sizeof(length)) || !send_all(fd, request->bytes, request->used))
		return -1;
	if (!read_all(fd, &reply, MAX_BYTES) || reply.used < sizeof(length))
		return -1;
	memcpy(&length, reply.bytes, sizeof(length));
	reply.bytes += sizeof(length);
	reply.used -= sizeof(length);
	if (ntohl(length) != reply.used || strncmp(reply.bytes, head, strlen(head)) ||
	    !string_at(&reply, "stdout", &output))
		return -1;
	fwrite(output.bytes, 1, output.used, stdout);
	return atoi(reply.bytes + strlen(head));
}

/* Leave a request for the service to find: whole under its final name, or not at all. */
static bool queue(const char *socket_path, const struct text *request)
{
	char directory[512], final[700], draft[sizeof(final) + 8];
	struct timespec now;
	const char *slash = strrchr(socket_path, '/');
	int lock, fd;
	bool done;

	if (!slash || slash - socket_path > 400)
		return false;
	snprintf(directory, sizeof(directory), "%.*s/deleteQueue", (int)(slash - socket_path), socket_path);
	if (mkdir(directory, 0700) && errno != EEXIST)
		return false;
	lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		return false;
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(final, sizeof(final), "%s/%lld.%09ld.%d.json", directory, (long long)now.tv_sec, now.tv_nsec, getpid());
	snprintf(draft, sizeof(draft), "%s.draft", final);
	fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	done = fd >= 0 && write(fd, request->bytes, request->used) == (ssize_t)request->used && !close(fd) &&
	       !rename(draft, final);
	close(lock);
	return done;
}

int main(void)
{
	extern char **environ;
	struct text config = {0}, request = {0};
	struct text path = {0}, version = {0};
	const char *command = getenv("CNI_COMMAND");
	bool first = true, deleting;
	int fd, code;

	command = command ? command : "";
	deleting = !strcmp(command, "DEL");
	if (!read_all(STDIN_FILENO, &config, MAX_BYTES))
		return fail(LATEST, IO_FAILURE, "the network configuration on standard input could not be read");
	if (!string_at(&config, "cniVersion", &version))
		version.used = 0, adds(&version, LATEST);
	if (!string_at(&config, "socket", &path))
		path.used = 0, adds(&path, DEFAULT_SOCKET);
	if (!strcmp(command, "VERSION")) {
		struct text quoted = {0};

		add_quoted(&quoted, version.bytes, version.used);
		printf("{\"cniVersion\":%s,\"supportedVersions\":" SUPPORTED "}\n", quoted.bytes);
		return 0;
	}
	adds(&request, "{\"env\":{");
	for (char **entry = environ; *entry; entry++) {
		char *equals = strchr(*entry, '=');

		if (strncmp(*entry, "CNI_", 4) || !equals)
			continue;
		adds(&request, first ? "" : ",");
		add_quoted(&request, *entry, equals - *entry);
		adds(&request, ":");
		add_quoted(&request, equals + 1, strlen(equals + 1));
		first = false;
	}
	adds(&request, "},\"config\":");
	add_quoted(&request, config.bytes, config.used);
	adds(&request, "}");

	fd = reach(path.bytes, strcmp(command, "STATUS") ? CONNECT_TRIES : 1);
	code = fd < 0 ? -1 : ask(fd, &request);
	if (code >= 0)
		return code;
	if (deleting)
		return queue(path.bytes, &request) ? 0 : fail(version.bytes, TRY_AGAIN,
			"the datapath service does not answer at %s and the request could not be queued: %s",
			path.bytes, strerror(errno));
	return fail(version.bytes, strcmp(command, "STATUS") ? TRY_AGAIN : NOT_AVAILABLE,
		    "the datapath service of this node does not answer at %s", path.bytes);
}
