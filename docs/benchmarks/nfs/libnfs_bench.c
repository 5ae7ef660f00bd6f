/* The same work as nfs-swap/benches/server.rs, through libnfs: asynchronous pread and pwrite over NFSv3 and TCP.
 *   libnfs_bench HOST NFSPORT MOUNTPORT EXPORT FILE MIB OP PATTERN BLOCK DEPTH LIMIT
 * OP read|write, PATTERN seq|rand, BLOCK in bytes, DEPTH requests in flight, LIMIT seconds ("1.5s") or requests.
 * The file is created when missing. Build: cc -O2 libnfs_bench.c -lnfs
 */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/time.h>
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

#define MAXLAT (1 << 20)
static uint32_t lat[MAXLAT];
static uint64_t nlat, done, errors, next_seq, rng = 88172645463325252ull, blocks;
static struct nfs_context *nfs;
static struct nfsfh *fh;
static int is_write, is_rand, block, inflight, stopping, depth;
static char *buf;
static uint64_t limit, submitted;
struct slot { uint64_t t; };

static void submit(struct slot *s);
static void cb(int status, struct nfs_context *c, void *data, void *priv)
{
	(void)c; (void)data;
	struct slot *s = priv;
	inflight--;
	if (status != block) { if (errors++ < 3) fprintf(stderr, "status %d %s\n", status, nfs_get_error(nfs)); }
	done++;
	if (nlat < MAXLAT) lat[nlat++] = (uint32_t)((now() - s->t) / 100);   /* 0.1 us */
	if (!stopping && (!limit || submitted < limit)) submit(s);
}
static void submit(struct slot *s)
{
	uint64_t b;
	if (is_rand) { rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17; b = rng % blocks; }
	else b = next_seq++ % blocks;
	s->t = now();
	int r = is_write ? nfs_pwrite_async(nfs, fh, b * block, block, buf, cb, s)
			 : nfs_pread_async(nfs, fh, b * block, block, cb, s);
	if (r) { fprintf(stderr, "submit: %s\n", nfs_get_error(nfs)); exit(1); }
	inflight++;
	submitted++;
}
static void pump(void)
{
	struct pollfd p = { .fd = nfs_get_fd(nfs), .events = nfs_which_events(nfs) };
	if (poll(&p, 1, 1000) < 0 || nfs_service(nfs, p.revents) < 0) {
		fprintf(stderr, "service: %s\n", nfs_get_error(nfs)); exit(1);
	}
}
static int cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

int main(int c, char **v)
{
	if (c != 12) { fprintf(stderr, "usage: see the top of libnfs_bench.c\n"); return 2; }
	uint64_t size = strtoull(v[6], 0, 10) << 20;
	is_write = !strcmp(v[7], "write"); is_rand = !strcmp(v[8], "rand");
	block = atoi(v[9]); depth = atoi(v[10]);
	double secs = 1e9;
	if (strchr(v[11], 's')) secs = atof(v[11]); else limit = strtoull(v[11], 0, 10);
	blocks = size / block;
	char url[512];
	snprintf(url, sizeof url, "nfs://%s%s/?version=3&nfsport=%s&mountport=%s&uid=0&gid=0&readahead=0", v[1], v[4], v[2], v[3]);
	nfs = nfs_init_context();
	struct nfs_url *u = nfs_parse_url_dir(nfs, url);
	if (!u) { fprintf(stderr, "url: %s\n", nfs_get_error(nfs)); return 1; }
	if (nfs_mount(nfs, u->server, u->path)) { fprintf(stderr, "mount: %s\n", nfs_get_error(nfs)); return 1; }
	buf = malloc(block > 1048576 ? block : 1048576);
	memset(buf, 0xa5, 1048576);
	struct nfs_stat_64 st;
	if (nfs_stat64(nfs, v[5], &st) || st.nfs_size < size) {
		if (nfs_creat(nfs, v[5], 0600, &fh)) { fprintf(stderr, "creat: %s\n", nfs_get_error(nfs)); return 1; }
		for (uint64_t o = 0; o < size; o += 1048576)
			if (nfs_pwrite(nfs, fh, o, 1048576, buf) != 1048576) { fprintf(stderr, "fill: %s\n", nfs_get_error(nfs)); return 1; }
		nfs_close(nfs, fh);
	}
	if (nfs_open(nfs, v[5], O_RDWR, &fh)) { fprintf(stderr, "open: %s\n", nfs_get_error(nfs)); return 1; }
	struct slot *s = calloc(depth, sizeof *s);
	uint64_t t0 = now(), end = t0 + (uint64_t)(secs * 1e9);
	for (int i = 0; i < depth; i++) submit(&s[i]);
	while (now() < end && (!limit || done < limit)) pump();
	uint64_t t1 = now(), d1 = done;
	stopping = 1;
	while (inflight) pump();
	qsort(lat, nlat, sizeof *lat, cmp);
	double dt = (t1 - t0) / 1e9;
	printf("client=libnfs op=%s pat=%s block=%d depth=%d iops=%.0f MBps=%.1f p50_us=%.1f p99_us=%.1f\n",
	       v[7], v[8], block, depth, d1 / dt, d1 / dt * block / 1e6,
	       nlat ? lat[nlat / 2] / 10.0 : 0, nlat ? lat[(uint64_t)(nlat * .99)] / 10.0 : 0);
	nfs_close(nfs, fh);
	nfs_destroy_context(nfs);
	return errors ? 1 : 0;
}
