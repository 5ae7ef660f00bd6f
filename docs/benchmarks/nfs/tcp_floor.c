/* tcp_floor BLOCK DEPTH SECONDS [ADDR]: the floor under any RPC on this
 * machine. A child echoes: it reads a 128-byte request and answers BLOCK bytes
 * (like an NFS READ). The parent keeps DEPTH requests outstanding. Loopback only.
 */
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define REQ 128
static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static int full(int fd, char *b, size_t n, int wr)
{
	while (n) {
		ssize_t r = wr ? write(fd, b, n) : read(fd, b, n);
		if (r <= 0) return -1;
		b += r; n -= r;
	}
	return 0;
}
static int cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}
int main(int c, char **v)
{
	if (c < 4) return 2;
	size_t block = strtoul(v[1], 0, 10);
	int depth = atoi(v[2]), one = 1;
	double secs = atof(v[3]);
	if (depth < 1 || depth > 64 || block < 1 || block > (4u << 20)) return 2;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof a;
	int ls = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(ls, (void *)&a, sizeof a) || listen(ls, 1) || getsockname(ls, (void *)&a, &l)) { perror("listen"); return 1; }
	char *buf = calloc(1, block + REQ);
	pid_t k = fork();
	if (!k) {
		int s = accept(ls, 0, 0);
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		while (!full(s, buf, REQ, 0) && !full(s, buf, block, 1)) ;
		_exit(0);
	}
	int s = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s, (void *)&a, sizeof a)) { perror("connect"); return 1; }
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	static uint64_t sent[64];
	static uint32_t lat[1 << 20];
	uint64_t n = 0, head = 0, t0 = now(), end = t0 + (uint64_t)(secs * 1e9), t;
	for (; head < (uint64_t)depth; head++) { sent[head % 64] = now(); full(s, buf, REQ, 1); }
	do {
		if (full(s, buf, block, 0)) return 1;
		t = now();
		if (n < (1 << 20)) lat[n] = (uint32_t)((t - sent[n % 64]) / 100);
		n++;
		sent[head++ % 64] = now();
		full(s, buf, REQ, 1);
	} while (t < end);
	uint64_t m = n < (1 << 20) ? n : (1 << 20);
	double dt = (t - t0) / 1e9;
	qsort(lat, m, sizeof *lat, cmp);
	printf("client=tcp op=read pat=none block=%zu depth=%d iops=%.0f MBps=%.1f p50_us=%.1f p99_us=%.1f\n", block, depth, n / dt,
	       n / dt * block / 1e6, lat[m / 2] / 10.0, lat[(uint64_t)(m * .99)] / 10.0);
	close(s);
	kill(k, SIGKILL); waitpid(k, 0, 0);
	return 0;
}
