// accept is the least that a process can do to take WebSocket connections in: threads with an epoll and a listening socket
// (SO_REUSEPORT) each, which accept, read the upgrade request, answer it, and then only hold the connection. It is what
// the rate at which mqgate opens connections is compared with (make million).
//
// It is not a WebSocket server. It has no timeouts, limits, heartbeat or accounting, keeps nothing for a connection, and
// looks for nothing in the request but the key and its end, which must come in one piece. A Close is answered with a
// Close, as the generator expects at the end of a run; everything else is read and forgotten.
//
// With --tables each thread has a descriptor table of its own, and with it the limit of open files (unshare(2),
// CLONE_FILES), as mqgate serve has with --fd-tables per-loop.
//
//	cc -O2 -pthread -o accept accept.c
//	./accept --listen 127.0.0.1:0 --threads 52 --tables
//	msg=listening peer=accept addr=127.0.0.1:41023 pid=4711 threads=52

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	EVENTS = 128,     // of one epoll_wait(2)
	REQUEST = 4096,   // bytes of one read(2)
	BACKLOG = 4096,   // of each listening socket
	KEY = 24,         // characters of Sec-WebSocket-Key
	MAX_THREADS = 255,
};

static struct sockaddr_in address;
static int tables;
static pthread_barrier_t ready;

static void fail(const char *what)
{
	fprintf(stderr, "accept: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

// sha1 is FIPS 180-4 for a message of 60 bytes: a key and the GUID of RFC 6455, which with its padding are two blocks.
static void sha1(const unsigned char text[60], unsigned char digest[20])
{
	unsigned char block[128] = {0};
	memcpy(block, text, 60);
	block[60] = 0x80;
	block[126] = 60 * 8 >> 8;
	block[127] = 60 * 8 & 0xff;
	uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	for (const unsigned char *p = block; p < block + sizeof block; p += 64) {
		uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
		for (int i = 0; i < 80; i++) {
			if (i < 16)
				w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
			else
				w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
			uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
			uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
			uint32_t t = rotate(a, 5) + f + e + k + w[i];
			e = d, d = c, c = rotate(b, 30), b = a, a = t;
		}
		h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
	}
	for (int i = 0; i < 20; i++)
		digest[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

static void base64(const unsigned char digest[20], char out[28])
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (int i = 0; i < 7; i++) {
		uint32_t v = digest[3 * i] << 16 | digest[3 * i + 1] << 8 | (i < 6 ? digest[3 * i + 2] : 0);
		for (int j = 0; j < 4; j++)
			out[4 * i + j] = letters[v >> (18 - 6 * j) & 63];
	}
	out[27] = '=';
}

// upgrade answers the request in p. 0: it is not one.
static int upgrade(int fd, char *p, ssize_t n)
{
	static const char name[] = "\r\nSec-WebSocket-Key: ", guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
	p[n] = 0;
	char *key = strcasestr(p, name);
	if (n < 4 || memcmp(p + n - 4, "\r\n\r\n", 4) != 0 || key == NULL || (key += sizeof name - 1) + KEY > p + n)
		return 0;
	unsigned char text[60], digest[20];
	memcpy(text, key, KEY);
	memcpy(text + KEY, guid, 36);
	sha1(text, digest);
	char answer[sizeof head - 1 + 28 + 4];
	memcpy(answer, head, sizeof head - 1);
	base64(digest, answer + sizeof head - 1);
	memcpy(answer + sizeof answer - 4, "\r\n\r\n", 4);
	return write(fd, answer, sizeof answer) == sizeof answer;
}

static void take(int poll, int ln)
{
	for (;;) {
		int fd = accept4(ln, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno != EAGAIN)
				fail("accept4");
			return;
		}
		struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
		if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e) < 0)
			fail("epoll_ctl");
	}
}

static void serve(int fd)
{
	char p[REQUEST + 1];
	ssize_t n = read(fd, p, REQUEST);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && (p[0] & 0x80) == 0 && upgrade(fd, p, n)) // a request begins with a letter, a frame with FIN
		return;
	if (n > 0 && (p[0] & 0x80) != 0 && (p[0] & 0x0f) != 8)
		return;
	if (n >= 8 && (p[0] & 0x0f) == 8) {
		char close[4] = {(char)0x88, 2, p[6] ^ p[2], p[7] ^ p[3]};
		if (write(fd, close, sizeof close) < 0 && errno != EPIPE && errno != ECONNRESET)
			fail("write");
	}
	close(fd);
}

static int listener(void)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof address;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 || // inherited
	    bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &size) < 0) // with port 0 the first one picks the port of all
		fail("listening socket");
	return fd;
}

static void *run(void *arg)
{
	int ln = (int)(intptr_t)arg;
	if (tables) { // the other threads' listening sockets stay open here as well; none is read here
		if (unshare(CLONE_FILES) < 0)
			fail("unshare(CLONE_FILES)");
	}
	int poll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[EVENTS], e = {.events = EPOLLIN, .data.fd = ln};
	if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, ln, &e) < 0)
		fail("epoll");
	pthread_barrier_wait(&ready);
	for (;;) {
		int n = epoll_wait(poll, events, EVENTS, -1);
		if (n < 0 && errno != EINTR)
			fail("epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == ln)
				take(poll, ln);
			else
				serve(events[i].data.fd);
		}
	}
	return NULL;
}

static void usage(const char *fault)
{
	fprintf(stderr, "accept: %s\nusage: accept [--listen ADDRESS:PORT] [--threads N] [--tables]\n", fault);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"listen", required_argument, NULL, 'l'}, {"threads", required_argument, NULL, 't'}, {"tables", no_argument, &tables, 1}, {0}};
	int threads = 2, option;
	const char *where = "127.0.0.1:0";
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'l')
			where = optarg;
		else if (option == 't' && ((threads = atoi(optarg)) < 1 || threads > MAX_THREADS))
			usage("--threads is not 1 to 255");
		else if (option == '?')
			usage("see above");
	}
	if (optind < argc)
		usage("unexpected argument");
	char host[INET_ADDRSTRLEN] = {0}, *colon = strrchr(where, ':'), *end = "";
	long port = colon == NULL ? -1 : strtol(colon + 1, &end, 10);
	if (colon == NULL || colon - where >= (long)sizeof host || *end != 0 || port < 0 || port > 65535)
		usage("--listen is not ADDRESS:PORT");
	memcpy(host, where, colon - where);
	address.sin_family = AF_INET;
	address.sin_port = htons(port);
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		usage("--listen has no IPv4 address");
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || (files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files)) < 0)
		fail("RLIMIT_NOFILE");
	signal(SIGPIPE, SIG_IGN);
	pthread_barrier_init(&ready, NULL, threads + 1);
	int sockets[MAX_THREADS];
	for (int i = 0; i < threads; i++)
		sockets[i] = listener();
	for (int i = 0; i < threads; i++) {
		pthread_t t;
		pthread_attr_t small;
		pthread_attr_init(&small);
		pthread_attr_setstacksize(&small, 64 << 10);
		if ((errno = pthread_create(&t, &small, run, (void *)(intptr_t)sockets[i])) != 0)
			fail("pthread_create");
	}
	pthread_barrier_wait(&ready);
	printf("msg=listening peer=accept addr=%s:%d pid=%d threads=%d\n", host, ntohs(address.sin_port), getpid(), threads);
	fflush(stdout);
	pause();
	return 0;
}
