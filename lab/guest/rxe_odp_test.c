// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory regions, pinned and on demand, of a software RDMA device.
 *
 * Two RC QPs of one process talk to each other over the device, so that each
 * byte that is moved can be compared. Every test is a process of its own.
 *
 *	rxe_odp_test [-l] [-g gid_index] [-d directory] [-s scale] [-x name]...
 *		     [-t name]... device
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rdma_kernel.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

#define PAGE		4096UL
#define STAGE		(1UL << 20)
#define LIMIT		20		/* seconds for one completion */
#define KSFT_SKIP	4

#define RW	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
		 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)
#define ODP	(RW | IBV_ACCESS_ON_DEMAND)

static const char *device, *directory;
static int gid_index = -1, seconds = 1;

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp[2];		/* 0 requests, 1 responds */
static union ibv_gid gid;
static struct ibv_port_attr port;
static bool iwarp, has_odp;

static uint8_t *stage;			/* pinned; the other end of a transfer */
static struct ibv_mr *stage_mr;

static void __attribute__((noreturn, format(printf, 2, 3)))
done(int code, const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(code);
}

#define skip(...)	done(KSFT_SKIP, __VA_ARGS__)
#define fail(...)	done(1, __VA_ARGS__)
#define check(cond, fmt, ...)						\
	do {								\
		if (!(cond))						\
			fail("line %d: %s: " fmt, __LINE__, #cond,	\
			     ##__VA_ARGS__);				\
	} while (0)

/* ---------------------------------------------------------------- memory */

static void *map_at(void *at, size_t len, int flags)
{
	void *p = mmap(at, len, PROT_READ | PROT_WRITE,
		       flags | (at ? MAP_FIXED : 0), -1, 0);

	check(p != MAP_FAILED, "%zu bytes: %s", len, strerror(errno));
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

static void *map_anon(size_t len)
{
	return map_at(NULL, len, MAP_PRIVATE | MAP_ANONYMOUS);
}

static uint8_t pattern(size_t i, unsigned int seed)
{
	return (i * 7 + (i >> 8) * 13 + seed) | 1;
}

static void fill(void *p, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)p)[i] = pattern(i, seed);
}

/* Is p[0..len) fill(seed), except for fill(seed2) in [off, off + n)? */
static void expect(const void *p, size_t len, unsigned int seed, size_t off,
		   size_t n, unsigned int seed2, const char *what)
{
	for (size_t i = 0; i < len; i++) {
		bool in = i >= off && i < off + n;
		uint8_t want = in ? pattern(i - off, seed2) : pattern(i, seed);
		uint8_t got = ((const uint8_t *)p)[i];

		if (got != want)
			fail("%s: offset %zu, length %zu: byte %zu, %s, is %#x, not %#x",
			     what, off, n, i, in ? "inside" : "outside", got,
			     want);
	}
}

static uint64_t pagemap(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t e = 0;

	if (fd < 0 || pread(fd, &e, 8, (uintptr_t)p / PAGE * 8) != 8)
		skip("/proc/self/pagemap: %s", strerror(errno));
	close(fd);
	return e;
}

static bool present(const void *p)
{
	return pagemap(p) >> 63;
}

static bool swapped(const void *p)
{
	return pagemap(p) >> 62 & 1;
}

/* In the page cache? */
static bool resident(void *p)
{
	unsigned char v = 0;

	check(!mincore(p, PAGE, &v), "%s", strerror(errno));
	return v & 1;
}

static void pageout(void *p, size_t len)
{
	if (madvise(p, len, MADV_PAGEOUT))
		skip("MADV_PAGEOUT: %s", strerror(errno));
}

/* ----------------------------------------------------------------- verbs */

static struct ibv_mr *reg(void *p, size_t len, int access)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, p, len, access);

	check(mr, "%zu bytes, access %#x: %s", len, access, strerror(errno));
	return mr;
}

static struct ibv_mr *reg_iova(void *p, size_t len, uint64_t iova, int access)
{
	struct ibv_mr *mr = ibv_reg_mr_iova(pd, p, len, iova, access);

	check(mr, "%zu bytes at iova %#lx: %s", len, iova, strerror(errno));
	return mr;
}

static void dereg(struct ibv_mr *mr)
{
	int ret = ibv_dereg_mr(mr);

	check(!ret, "%s", strerror(ret));
}

static void choose_gid(void)
{
	union ibv_gid g;
	int best = -1;

	for (int i = 0; gid_index < 0 && i < port.gid_tbl_len; i++) {
		static const union ibv_gid zero;
		static const uint8_t v4[12] = { [10] = 0xff, 0xff };

		if (ibv_query_gid(ctx, 1, i, &g) ||
		    !memcmp(&g, &zero, sizeof(g)))
			continue;
		if (best < 0)
			best = i;
		if (!memcmp(&g, v4, sizeof(v4))) {
			best = i;
			break;
		}
	}
	if (gid_index < 0)
		gid_index = best;
	if (gid_index < 0 || ibv_query_gid(ctx, 1, gid_index, &gid))
		skip("no GID: give the network device an address");
}

static void drain(void)
{
	struct ibv_wc wc;

	while (ibv_poll_cq(cq, 1, &wc) > 0)
		;
}

/* From any state, as an error leaves both ends useless. */
/*
 * After an error: rxe reports it, or answers with it, and has the queue pair in the
 * error state later, which would undo a reset in between. Not each error is one
 * for the responder.
 */
static void wait_error(void)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr a = { };

	for (int i = 0; i < 2; i++)
		for (int ms = 0; ms < (i ? 200 : 2000); ms++) {
			check(!ibv_query_qp(qp[i], &a, IBV_QP_STATE, &init),
			      "%s", strerror(errno));
			if (a.qp_state != IBV_QPS_RTS)
				break;
			usleep(1000);
		}
}

static void connect_qps(void)
{
	wait_error();
	for (int i = 0; i < 2; i++) {
		struct ibv_qp_attr a = { .qp_state = IBV_QPS_RESET };

		check(!ibv_modify_qp(qp[i], &a, IBV_QP_STATE), "%s",
		      strerror(errno));
	}
	drain();

	for (int i = 0; i < 2; i++) {
		struct ibv_qp_attr a = {
			.qp_state = IBV_QPS_INIT,
			.port_num = 1,
			.qp_access_flags = RW,
		};

		check(!ibv_modify_qp(qp[i], &a, IBV_QP_STATE |
				     IBV_QP_PKEY_INDEX | IBV_QP_PORT |
				     IBV_QP_ACCESS_FLAGS),
		      "%s", strerror(errno));
	}
	for (int i = 0; i < 2; i++) {
		struct ibv_qp_attr a = {
			.qp_state = IBV_QPS_RTR,
			.path_mtu = port.active_mtu,
			.dest_qp_num = qp[!i]->qp_num,
			.max_dest_rd_atomic = 1,
			.min_rnr_timer = 12,
			.ah_attr = {
				.is_global = 1,
				.port_num = 1,
				.grh = {
					.dgid = gid,
					.sgid_index = gid_index,
					.hop_limit = 64,
				},
			},
		};

		check(!ibv_modify_qp(qp[i], &a, IBV_QP_STATE | IBV_QP_AV |
				     IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				     IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
				     IBV_QP_MIN_RNR_TIMER),
		      "%s", strerror(errno));
	}
	for (int i = 0; i < 2; i++) {
		struct ibv_qp_attr a = {
			.qp_state = IBV_QPS_RTS,
			.timeout = 14,
			.retry_cnt = 7,
			.rnr_retry = 7,
			.max_rd_atomic = 1,
		};

		check(!ibv_modify_qp(qp[i], &a, IBV_QP_STATE | IBV_QP_TIMEOUT |
				     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
		      "%s", strerror(errno));
	}
}

static void open_device(void)
{
	struct ibv_device_attr_ex attr = {};
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int i = 0; list && list[i] && !ctx; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device))
			ctx = ibv_open_device(list[i]);
	if (!ctx)
		skip("no device %s", device);
	iwarp = ctx->device->transport_type == IBV_TRANSPORT_IWARP;
	if (!ibv_query_device_ex(ctx, NULL, &attr))
		has_odp = attr.odp_caps.general_caps & IBV_ODP_SUPPORT;
	pd = ibv_alloc_pd(ctx);
	check(pd, "%s", strerror(errno));
}

static void need_odp(void)
{
	if (!has_odp)
		skip("no on-demand paging");
}

static void setup(void)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = 16, .max_recv_wr = 16,
			.max_send_sge = 2, .max_recv_sge = 2,
		},
	};

	if (iwarp)
		skip("iWARP needs a connection manager");
	check(!ibv_query_port(ctx, 1, &port), "%s", strerror(errno));
	if (port.state != IBV_PORT_ACTIVE)
		skip("port of %s is not active", device);
	choose_gid();
	cq = ibv_create_cq(ctx, 64, NULL, NULL, 0);
	check(cq, "%s", strerror(errno));
	init.send_cq = cq;
	init.recv_cq = cq;
	for (int i = 0; i < 2; i++) {
		qp[i] = ibv_create_qp(pd, &init);
		check(qp[i], "%s", strerror(errno));
	}
	stage = map_anon(STAGE);
	memset(stage, 0, STAGE);
	stage_mr = reg(stage, STAGE, RW);
	connect_qps();
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Waits for nr completions; the first bad status is the result. */
static enum ibv_wc_status wait_wc(int nr)
{
	enum ibv_wc_status status = IBV_WC_SUCCESS;
	double end = now() + LIMIT;
	struct ibv_wc wc;

	while (nr) {
		int n = ibv_poll_cq(cq, 1, &wc);

		check(n >= 0, "ibv_poll_cq");
		if (!n) {
			if (now() > end)
				fail("no completion in %d seconds", LIMIT);
			sched_yield();
			continue;
		}
		if (wc.status && !status)
			status = wc.status;
		nr--;
	}
	return status;
}

static int post_send(struct ibv_send_wr *wr, bool may_fail)
{
	struct ibv_send_wr *bad;
	int ret = ibv_post_send(qp[0], wr, &bad);

	check(!ret || may_fail, "%s", strerror(ret));
	return ret;
}

/* One request of qp[0] between the staging buffer and raddr of an MR. */
static enum ibv_wc_status rdma_len(enum ibv_wr_opcode op, void *laddr,
				   uint64_t raddr, struct ibv_mr *mr,
				   size_t len)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)laddr,
		.length = len,
		.lkey = stage_mr->lkey,
	};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = op,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = raddr, .rkey = mr->rkey },
	};

	post_send(&wr, false);
	return wait_wc(1);
}

static enum ibv_wc_status rdma_write(uint64_t raddr, struct ibv_mr *mr,
				     size_t len)
{
	return rdma_len(IBV_WR_RDMA_WRITE, stage, raddr, mr, len);
}

static enum ibv_wc_status rdma_read(uint64_t raddr, struct ibv_mr *mr,
				    size_t len)
{
	return rdma_len(IBV_WR_RDMA_READ, stage, raddr, mr, len);
}

static enum ibv_wc_status rdma_atomic(enum ibv_wr_opcode op, uint64_t raddr,
				      struct ibv_mr *mr, uint64_t cmp_add,
				      uint64_t swap, uint64_t *old)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)stage,
		.length = 8,
		.lkey = stage_mr->lkey,
	};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = op,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.atomic = {
			.remote_addr = raddr,
			.rkey = mr->rkey,
			.compare_add = cmp_add,
			.swap = swap,
		},
	};
	enum ibv_wc_status status;

	/* The provider itself refuses what is not aligned. */
	if (post_send(&wr, raddr & 7))
		return IBV_WC_LOC_QP_OP_ERR;
	status = wait_wc(1);
	memcpy(old, stage, 8);
	return status;
}

static enum ibv_wc_status send_recv(uint64_t from, struct ibv_mr *from_mr,
				    uint64_t to, struct ibv_mr *to_mr,
				    size_t len)
{
	struct ibv_sge rsge = { to, len, to_mr->lkey };
	struct ibv_sge ssge = { from, len, from_mr->lkey };
	struct ibv_recv_wr rwr = { .sg_list = &rsge, .num_sge = 1 }, *bad;
	struct ibv_send_wr swr = {
		.sg_list = &ssge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED,
	};
	int ret = ibv_post_recv(qp[1], &rwr, &bad);

	check(!ret, "%s", strerror(ret));
	post_send(&swr, false);
	return wait_wc(2);
}

static int advise(enum ib_uverbs_advise_mr_advice advice, bool sync,
		  uint64_t addr, size_t len, struct ibv_mr *mr)
{
	struct ibv_sge sge = { .addr = addr, .length = len, .lkey = mr->lkey };

	return kernel_advise(pd, advice, sync ? IBV_ADVISE_MR_FLAG_FLUSH : 0,
			     &sge);
}

/* Change the access rights; an errno. */
static int rereg(struct ibv_mr *mr, int access)
{
	return kernel_rereg(pd, mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, 0, access);
}

#define PREFETCH		IBV_ADVISE_MR_ADVICE_PREFETCH
#define PREFETCH_WRITE		IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE
#define PREFETCH_NO_FAULT	IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT

static uint64_t addr(const void *p)
{
	return (uintptr_t)p;
}

/* ------------------------------------------- data, pinned and on demand */

static const size_t offsets[] = { 0, 1, 100, 1024, 4095, 4096, 5000 };
static const size_t lengths[] = { 1, 7, 64, 300, 4096, 4097, 10000 };

#define for_each_span(off, len)						\
	for (size_t _i = 0; _i < 49 && (off = offsets[_i / 7],		\
					len = lengths[_i % 7], 1); _i++)

#define BUF	(5 * PAGE)

/* The MR begins in the middle of a page. */
#define HEAD	200

static void do_write(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf + HEAD, BUF - HEAD, access);
	size_t off, len;

	for_each_span(off, len) {
		fill(buf, BUF, 1);
		fill(stage, len, 2);
		check(!rdma_write(addr(buf) + HEAD + off, mr, len),
		      "offset %zu, length %zu", off, len);
		expect(buf, BUF, 1, HEAD + off, len, 2, "write");
	}
	dereg(mr);
}

static void do_read(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf + HEAD, BUF - HEAD, access);
	size_t off, len;

	for_each_span(off, len) {
		fill(buf, BUF, 1);
		fill(buf + HEAD + off, len, 2);
		fill(stage, BUF, 3);
		check(!rdma_read(addr(buf) + HEAD + off, mr, len),
		      "offset %zu, length %zu", off, len);
		expect(stage, BUF, 3, 0, len, 2, "read");
	}
	dereg(mr);
}

static void do_send(int access)
{
	uint8_t *buf = map_anon(BUF), *dst = map_anon(BUF);
	struct ibv_mr *mr = reg(buf, BUF, access), *dmr = reg(dst, BUF, access);
	size_t off, len;

	for_each_span(off, len) {
		fill(buf, BUF, 1);
		fill(buf + off, len, 2);
		fill(dst, BUF, 3);
		check(!send_recv(addr(buf) + off, mr, addr(dst) + off, dmr, len),
		      "offset %zu, length %zu", off, len);
		expect(dst, BUF, 3, off, len, 2, "send");
	}
	dereg(mr);
	dereg(dmr);
}

static void do_iova(int access, bool relative, int64_t pages)
{
	uint8_t *buf = map_anon(BUF);
	uint64_t iova = (relative ? addr(buf) : 0) + pages * (int64_t)PAGE;
	struct ibv_mr *mr = reg_iova(buf, BUF, iova, access);

	for (size_t off = 0; off < BUF - 300; off += 1000) {
		fill(buf, BUF, 1);
		fill(stage, 300, 2);
		check(!rdma_write(iova + off, mr, 300), "offset %zu", off);
		expect(buf, BUF, 1, off, 300, 2, "write");
		fill(stage, BUF, 3);
		check(!rdma_read(iova + off, mr, 300), "offset %zu", off);
		expect(stage, BUF, 3, 0, 300, 2, "read");
	}
	/* All of it, which ends where it ends. */
	fill(stage, BUF, 4);
	check(!rdma_write(iova, mr, BUF), "to the end");
	expect(buf, BUF, 4, 0, 0, 0, "write");
	dereg(mr);
}

/* The page tables hold nothing yet: the first access faults. */
static void do_iova_fresh(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg_iova(buf, BUF, 0x7000, access);

	fill(stage, BUF, 1);
	check(!rdma_write(0x7000, mr, BUF), "write");
	expect(buf, BUF, 1, 0, 0, 0, "write");
	dereg(mr);
}

static void do_atomic(int access)
{
	static const size_t at[] = { 0, 8, 2048, 4088, 4096, 8184 };
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg_iova(buf, BUF, addr(buf), access);
	uint64_t old, val;

	for (unsigned int i = 0; i < 6; i++) {
		memset(buf, 0, BUF);
		val = 1000 + i;
		memcpy(buf + at[i], &val, 8);
		check(!rdma_atomic(IBV_WR_ATOMIC_FETCH_AND_ADD,
				   addr(buf) + at[i], mr, 5, 0, &old),
		      "add at %zu", at[i]);
		check(old == 1000 + i, "at %zu: %lu", at[i], old);
		memcpy(&val, buf + at[i], 8);
		check(val == 1005 + i, "at %zu: %lu", at[i], val);

		check(!rdma_atomic(IBV_WR_ATOMIC_CMP_AND_SWP,
				   addr(buf) + at[i], mr, 1, 2, &old),
		      "swap at %zu", at[i]);
		memcpy(&val, buf + at[i], 8);
		check(old == 1005 + i && val == 1005 + i, "at %zu: %lu", at[i],
		      val);
		check(!rdma_atomic(IBV_WR_ATOMIC_CMP_AND_SWP,
				   addr(buf) + at[i], mr, 1005 + i, 2, &old),
		      "swap at %zu", at[i]);
		memcpy(&val, buf + at[i], 8);
		check(old == 1005 + i && val == 2, "at %zu: %lu", at[i], val);

		memset(buf + at[i], 0, 8);
		for (size_t j = 0; j < BUF; j++)
			check(!buf[j], "at %zu: byte %zu changed", at[i], j);
	}

	/* Across two pages, misaligned. */
	check(rdma_atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, addr(buf) + 4092, mr,
			  ~0ULL, 0, &old), "misaligned");
	for (size_t j = 0; j < BUF; j++)
		check(!buf[j], "misaligned: byte %zu changed", j);
	connect_qps();
	dereg(mr);
}

static void do_atomic_iova(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg_iova(buf, BUF, 0x10000000, access);
	uint64_t old, val = 41;

	memcpy(buf + PAGE + 16, &val, 8);
	check(!rdma_atomic(IBV_WR_ATOMIC_FETCH_AND_ADD,
			   0x10000000 + PAGE + 16, mr, 1, 0, &old), "add");
	memcpy(&val, buf + PAGE + 16, 8);
	check(old == 41 && val == 42, "%lu, %lu", old, val);
	dereg(mr);
}

static void do_bounds(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf + PAGE, 2 * PAGE + 100, access);
	static const struct {
		int64_t off;
		size_t len;
	} bad[] = {
		{ -1, 1 }, { -1, 2 }, { 2 * PAGE + 100, 1 },
		{ 2 * PAGE, 101 }, { 0, 2 * PAGE + 101 }, { 3 * PAGE, 8 },
		{ 1L << 40, 8 }, { -(1L << 40), 8 },
	};

	fill(buf, BUF, 1);
	fill(stage, BUF, 2);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		check(rdma_write(addr(buf) + PAGE + bad[i].off, mr, bad[i].len),
		      "write %u", i);
		expect(buf, BUF, 1, 0, 0, 0, "write out of bounds");
		connect_qps();
		check(rdma_read(addr(buf) + PAGE + bad[i].off, mr, bad[i].len),
		      "read %u", i);
		expect(stage, BUF, 2, 0, 0, 0, "read out of bounds");
		connect_qps();
	}
	check(!rdma_write(addr(buf) + PAGE, mr, 2 * PAGE + 100), "all");
	expect(buf, BUF, 1, PAGE, 2 * PAGE + 100, 2, "write");
	dereg(mr);
}

static void do_rights(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr;
	uint64_t old;

	fill(buf, BUF, 1);
	fill(stage, BUF, 2);
	access &= ~RW;
	mr = reg(buf, BUF, access | IBV_ACCESS_REMOTE_READ);
	check(rdma_write(addr(buf), mr, 8) == IBV_WC_REM_ACCESS_ERR, "write");
	connect_qps();
	check(rdma_atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, addr(buf), mr, 1, 0,
			  &old), "atomic");
	connect_qps();
	expect(buf, BUF, 1, 0, 0, 0, "no right to write");
	check(!rdma_read(addr(buf), mr, BUF), "read");
	expect(stage, BUF, 1, 0, 0, 0, "read");
	dereg(mr);

	mr = reg(buf, BUF, access | IBV_ACCESS_LOCAL_WRITE |
		 IBV_ACCESS_REMOTE_WRITE);
	check(rdma_read(addr(buf), mr, 8) == IBV_WC_REM_ACCESS_ERR, "read");
	connect_qps();
	check(!rdma_write(addr(buf), mr, 8), "write");
	dereg(mr);
}

/* Memory that nobody may write to, with and without the right to write. */
static void do_readonly(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr;

	fill(buf, BUF, 1);
	check(!mprotect(buf, BUF, PROT_READ), "%s", strerror(errno));
	mr = ibv_reg_mr(pd, buf, BUF, access);
	if (access & IBV_ACCESS_ON_DEMAND) {
		check(mr, "%s", strerror(errno));
		fill(stage, BUF, 2);
		check(rdma_write(addr(buf) + 10, mr, 100), "write");
		expect(buf, BUF, 1, 0, 0, 0, "read-only");
		connect_qps();
		check(!rdma_read(addr(buf), mr, BUF), "read");
		expect(stage, BUF, 1, 0, 0, 0, "read");
		dereg(mr);
	} else {
		check(!mr && errno == EFAULT, "%s", strerror(errno));
	}

	fill(stage, BUF, 2);
	mr = reg(buf, BUF, (access & ~RW) | IBV_ACCESS_REMOTE_READ);
	check(!rdma_read(addr(buf), mr, BUF), "read");
	expect(stage, BUF, 1, 0, 0, 0, "read");
	dereg(mr);
}

/* One region of two VMAs, the second of which is a file. */
static void do_vmas(int access)
{
	uint8_t *buf = map_anon(BUF);

	map_at(buf + 2 * PAGE, PAGE, MAP_SHARED | MAP_ANONYMOUS);
	struct ibv_mr *mr = reg(buf, BUF, access);

	fill(stage, BUF, 1);
	check(!rdma_write(addr(buf), mr, BUF), "write");
	expect(buf, BUF, 1, 0, 0, 0, "write");
	dereg(mr);
}

static void do_rereg(int access)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf, BUF, access);
	int ret;

	ret = rereg(mr, (access & ~RW) | IBV_ACCESS_REMOTE_READ);
	if (ret == EOPNOTSUPP)
		skip("rereg is not supported");
	check(!ret, "%s", strerror(ret));
	check(rdma_write(addr(buf), mr, 8), "write");
	connect_qps();
	check(!rdma_read(addr(buf), mr, 8), "read");
	ret = rereg(mr, access);
	check(!ret, "%s", strerror(ret));
	fill(stage, BUF, 2);
	check(!rdma_write(addr(buf), mr, BUF), "write");
	expect(buf, BUF, 2, 0, 0, 0, "write");
	dereg(mr);
}

/* Arguments that must be refused; the errnos are for comparison. */
static void do_badreg(int access)
{
	uint8_t *buf = map_anon(BUF);
	static const char *what[] = {
		"length 0", "end overflows", "end overflows when rounded up",
		"not mapped", "kernel address", "iova of another offset",
	};
	struct ibv_mr *mr;

	check(!munmap(buf, BUF), "%s", strerror(errno));
	for (int i = 0; i < 6; i++) {
		errno = 0;
		switch (i) {
		case 0:
			mr = ibv_reg_mr(pd, stage, 0, access);
			break;
		case 1:
			mr = ibv_reg_mr(pd, stage, -(size_t)PAGE, access);
			break;
		case 2:
			mr = ibv_reg_mr(pd, (void *)-100L, 50, access);
			break;
		case 3:
			mr = ibv_reg_mr(pd, buf, BUF, access);
			break;
		case 4:
			mr = ibv_reg_mr(pd, (void *)(3UL << 62), PAGE, access);
			break;
		default:
			mr = ibv_reg_mr_iova(pd, stage, PAGE, addr(stage) + 1,
					     access);
		}
		printf("# %s: %s\n", what[i], mr ? "registered" :
		       strerrorname_np(errno));
		/* On demand, what is not mapped now may be mapped later. */
		if (mr) {
			check(access & IBV_ACCESS_ON_DEMAND && i >= 3 && i < 5,
			      "%s", what[i]);
			dereg(mr);
		}
	}
}

/* ------------------------------------------------------------ pinned only */

static long status_kb(const char *key)
{
	char line[256];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kb = atol(line + strlen(key) + 1);
	if (f)
		fclose(f);
	return kb;
}

static void pin_memlock(void)
{
	struct rlimit rl = { 16 * PAGE, 16 * PAGE };
	uint8_t *buf = map_anon(32 * PAGE);
	struct ibv_mr *mr;
	int pipefd[2];

	open_device();
	check(status_kb("VmPin") == 0, "%ld", status_kb("VmPin"));
	check(!setrlimit(RLIMIT_MEMLOCK, &rl), "%s", strerror(errno));
	check(!setresuid(65534, 65534, 65534), "%s", strerror(errno));
	mr = ibv_reg_mr(pd, buf, 17 * PAGE, RW);
	check(!mr && errno == ENOMEM, "%s", strerror(errno));
	/* 15 pages and 2 bytes are 17 pages. */
	mr = ibv_reg_mr(pd, buf + PAGE - 1, 15 * PAGE + 2, RW);
	check(!mr && errno == ENOMEM, "%s", strerror(errno));
	mr = reg(buf, 16 * PAGE, RW);
	check(!ibv_reg_mr(pd, buf, 1, RW) && errno == ENOMEM, "%s",
	      strerror(errno));
	dereg(mr);
	mr = reg(buf, 16 * PAGE, RW);
	dereg(mr);
	check(!pipe(pipefd), "pipe");	/* still works as an unprivileged user */
}

static void pin_vmpin(void)
{
	uint8_t *buf = map_anon(32 * PAGE);
	long before;
	struct ibv_mr *mr;

	open_device();
	before = status_kb("VmPin");
	mr = reg(buf + 100, 31 * PAGE, RW);
	check(status_kb("VmPin") - before == 32 * 4, "%ld kB",
	      status_kb("VmPin") - before);
	dereg(mr);
	check(status_kb("VmPin") == before, "%ld kB", status_kb("VmPin"));
	before = status_kb("VmLck");
	check(!before, "%ld kB locked", before);
}

static void pin_fork(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr;
	pid_t pid;
	int st;

	fill(buf, BUF, 1);
	mr = reg(buf, BUF, RW);
	pid = fork();
	if (!pid) {
		/* The child got a copy; its writes go there. */
		memset(buf, 0, BUF);
		_exit(0);
	}
	waitpid(pid, &st, 0);
	fill(stage, 300, 2);
	check(!rdma_write(addr(buf) + 4000, mr, 300), "write");
	expect(buf, BUF, 1, 4000, 300, 2, "write");
	dereg(mr);
}

/* --------------------------------------------------------- on demand only */

static void odp_large(void)
{
	static const uint64_t sizes[] = {
		2ULL << 30, (2ULL << 30) + PAGE, 4ULL << 30, 6ULL << 30,
	};

	for (int i = 0; i < 4; i++) {
		uint8_t *buf = mmap(NULL, sizes[i], PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				    -1, 0);
		uint64_t at = sizes[i] - 5000;
		struct ibv_mr *mr;

		if (buf == MAP_FAILED)
			skip("%lu bytes of address space: %s", sizes[i],
			     strerror(errno));
		madvise(buf, sizes[i], MADV_NOHUGEPAGE);
		mr = reg(buf, sizes[i], ODP);
		fill(stage, 5000, i);
		check(!rdma_write(addr(buf) + at, mr, 5000), "%lu bytes",
		      sizes[i]);
		expect(buf + at, 5000, i, 0, 0, 0, "write");
		dereg(mr);
		munmap(buf, sizes[i]);
	}
}

static void odp_no_pin(void)
{
	uint8_t *buf = map_anon(BUF);
	long before = status_kb("VmPin");
	struct ibv_mr *mr = reg(buf, BUF, ODP);

	check(status_kb("VmPin") == before, "%ld kB", status_kb("VmPin"));
	fill(stage, BUF, 1);
	check(!rdma_write(addr(buf), mr, BUF), "write");
	check(status_kb("VmPin") == before, "%ld kB", status_kb("VmPin"));
	dereg(mr);
}

static void odp_fork(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr;
	int fd[2], st;
	char c = 0;
	pid_t pid;

	fill(buf, BUF, 1);
	mr = reg(buf, BUF, ODP);
	check(!rdma_read(addr(buf), mr, BUF), "read");
	check(!pipe(fd), "%s", strerror(errno));
	pid = fork();
	if (!pid) {
		check(read(fd[0], &c, 1) == 1, "pipe");
		expect(buf, BUF, 1, 0, 0, 0, "child's copy");
		_exit(0);
	}
	fill(stage, BUF, 2);
	check(!rdma_write(addr(buf), mr, BUF), "write");
	expect(buf, BUF, 2, 0, 0, 0, "parent's copy");
	check(write(fd[1], &c, 1) == 1, "pipe");
	waitpid(pid, &st, 0);
	check(!st, "the child saw what was written after the fork");
	dereg(mr);
}

static void odp_remap(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf, BUF, ODP);

	for (int i = 0; i < 200; i++) {
		fill(stage, BUF, i);
		check(!rdma_write(addr(buf), mr, BUF), "write %d", i);
		expect(buf, BUF, i, 0, 0, 0, "write");
		switch (i % 4) {
		case 0:
			munmap(buf, BUF);
			map_at(buf, BUF, MAP_PRIVATE | MAP_ANONYMOUS);
			break;
		case 1:
			map_at(buf + PAGE, PAGE, MAP_SHARED | MAP_ANONYMOUS);
			break;
		case 2:
			madvise(buf, BUF, MADV_DONTNEED);
			break;
		case 3:
			check(!mprotect(buf, BUF, PROT_READ), "mprotect");
			check(!mprotect(buf, BUF, PROT_READ | PROT_WRITE),
			      "mprotect");
		}
		fill(buf + 100, 5000, i + 1);
		check(!rdma_read(addr(buf) + 100, mr, 5000), "read %d", i);
		expect(stage, 5000, i + 1, 0, 0, 0, "read");
	}
	dereg(mr);
}

static void odp_unmapped(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf, BUF, ODP);

	fill(buf, BUF, 1);
	check(!rdma_read(addr(buf), mr, BUF), "read");
	munmap(buf + PAGE, PAGE);
	check(rdma_read(addr(buf), mr, BUF), "read across the hole");
	connect_qps();
	fill(stage, BUF, 2);
	check(rdma_write(addr(buf) + PAGE + 10, mr, 8), "write to the hole");
	connect_qps();
	map_at(buf + PAGE, PAGE, MAP_PRIVATE | MAP_ANONYMOUS);
	fill(stage, BUF, 3);
	check(!rdma_write(addr(buf), mr, BUF), "write");
	expect(buf, BUF, 3, 0, 0, 0, "write");
	dereg(mr);
}

static void odp_none(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf, BUF, ODP);

	fill(buf, BUF, 1);
	check(!rdma_read(addr(buf), mr, BUF), "read");
	check(!mprotect(buf, BUF, PROT_NONE), "%s", strerror(errno));
	check(rdma_read(addr(buf), mr, BUF), "read of PROT_NONE");
	connect_qps();
	check(rdma_write(addr(buf), mr, BUF), "write to PROT_NONE");
	connect_qps();
	check(!mprotect(buf, BUF, PROT_READ), "%s", strerror(errno));
	expect(buf, BUF, 1, 0, 0, 0, "PROT_NONE");
	dereg(mr);
}

static void one_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

#define TRIES	50

/*
 * The page is mapped writable and clean. What the device wrote must survive
 * reclaim. The second page is the control: is anything reclaimed?
 */
static void dirty_shmem(int flags, bool atomic)
{
	bool dropped = false;

	one_cpu();
	for (int i = 0; i < TRIES; i++) {
		volatile uint8_t *buf = map_at(NULL, 2 * PAGE, flags);
		uint8_t *p = (uint8_t *)buf;
		struct ibv_mr *mr = reg(p, 2 * PAGE, ODP);
		uint64_t old;

		(void)buf[0];
		(void)buf[PAGE];
		fill(stage, 100, i);
		if (atomic)
			check(!rdma_atomic(IBV_WR_ATOMIC_FETCH_AND_ADD,
					   addr(p) + 8, mr, 42, 0, &old),
			      "atomic");
		else
			check(!rdma_write(addr(p) + 8, mr, 100), "write");
		if (i & 1) {
			dereg(mr);
			mr = NULL;
		}
		pageout(p, 2 * PAGE);
		dropped |= !resident(p + PAGE);
		if (atomic) {
			memcpy(&old, p + 8, 8);
			check(old == 42, "after reclaim: %lu", old);
		} else {
			expect(p + 8, 100, i, 0, 0, 0, "after reclaim");
		}
		if (mr)
			dereg(mr);
		munmap(p, 2 * PAGE);
	}
	if (!dropped)
		skip("clean pages are not reclaimed here");
}

static void odp_dirty_shmem(void)
{
	dirty_shmem(MAP_SHARED | MAP_ANONYMOUS, false);
}

static void odp_dirty_atomic(void)
{
	dirty_shmem(MAP_SHARED | MAP_ANONYMOUS, true);
}

static void odp_dirty_free(void)
{
	bool dropped = false;

	one_cpu();
	for (int i = 0; i < TRIES; i++) {
		uint8_t *buf = map_anon(2 * PAGE);
		struct ibv_mr *mr = reg(buf, 2 * PAGE, ODP);

		memset(buf, 0xff, 2 * PAGE);
		if (madvise(buf, 2 * PAGE, MADV_FREE))
			skip("MADV_FREE: %s", strerror(errno));
		fill(stage, 100, i);
		check(!rdma_write(addr(buf) + 8, mr, 100), "write");
		pageout(buf, 2 * PAGE);
		dropped |= !present(buf + PAGE);
		expect(buf + 8, 100, i, 0, 0, 0, "after reclaim");
		dereg(mr);
		munmap(buf, 2 * PAGE);
	}
	if (!dropped)
		skip("MADV_FREE pages are not reclaimed here");
}

static void odp_dirty_swap(void)
{
	uint8_t *buf = map_anon(2 * PAGE);
	struct ibv_mr *mr = reg(buf, 2 * PAGE, ODP);
	bool out = false;

	one_cpu();
	for (int i = 0; i < TRIES; i++) {
		fill(buf, 2 * PAGE, 200);
		pageout(buf, 2 * PAGE);
		if (!swapped(buf))
			continue;
		(void)*(volatile uint8_t *)buf;
		fill(stage, 100, i);
		check(!rdma_write(addr(buf) + 8, mr, 100), "write");
		pageout(buf, 2 * PAGE);
		out |= swapped(buf);
		expect(buf, 2 * PAGE, 200, 8, 100, i, "from swap");
	}
	dereg(mr);
	if (!out)
		skip("no swap");
}

/* On a file system that wants to know about writes. */
static void odp_dirty_file(void)
{
	char name[4096], page[4096];
	struct ibv_mr *mr;
	uint8_t *buf;
	int fd;

	if (!directory)
		skip("no -d directory");
	snprintf(name, sizeof(name), "%s/rxe_odp_test.%d", directory, getpid());
	fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	check(fd >= 0, "%s: %s", name, strerror(errno));
	unlink(name);
	for (int i = 0; i < 20; i++) {
		fill(page, PAGE, 1);
		check(pwrite(fd, page, PAGE, 0) == PAGE, "%s", strerror(errno));
		check(!fsync(fd), "%s", strerror(errno));
		buf = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   0);
		check(buf != MAP_FAILED, "%s", strerror(errno));
		mr = reg(buf, PAGE, ODP);
		fill(stage, 100, 2);
		check(!rdma_write(addr(buf) + 8, mr, 100), "write");
		check(!fsync(fd), "%s", strerror(errno));
		/* After the write-back it is clean: dirty it once more. */
		fill(stage, 100, 3 + i);
		check(!rdma_write(addr(buf) + 8, mr, 100), "write");
		if (i & 1)
			dereg(mr);
		munmap(buf, PAGE);
		check(!fsync(fd), "%s", strerror(errno));
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		check(pread(fd, page, PAGE, 0) == PAGE, "%s", strerror(errno));
		expect(page, PAGE, 1, 8, 100, 3 + i, "from the disk");
		if (!(i & 1))
			dereg(mr);
	}
}

static void odp_prefetch(void)
{
	uint8_t *buf = map_anon(64 * PAGE);
	struct ibv_mr *mr = reg(buf, 64 * PAGE, ODP);
	int ret;

	ret = advise(PREFETCH_NO_FAULT, true, addr(buf), 64 * PAGE, mr);
	check(!ret, "%s", strerror(ret));
	check(!present(buf), "NO_FAULT faulted");
	ret = advise(PREFETCH, true, addr(buf) + PAGE + 10, 100, mr);
	check(!ret, "%s", strerror(ret));
	check(present(buf + PAGE), "nothing fetched");
	check(!present(buf) && !present(buf + 2 * PAGE), "too much fetched");
	ret = advise(PREFETCH_WRITE, true, addr(buf) + 2 * PAGE + 4000, 200, mr);
	check(!ret, "%s", strerror(ret));
	check(present(buf + 2 * PAGE) && present(buf + 3 * PAGE),
	      "nothing fetched");
	check(!present(buf + 4 * PAGE), "too much fetched");
	ret = advise(PREFETCH_WRITE, false, addr(buf) + 8 * PAGE, 56 * PAGE, mr);
	check(!ret, "%s", strerror(ret));
	for (double end = now() + 5; !present(buf + 63 * PAGE);)
		check(now() < end, "nothing fetched in 5 seconds");
	fill(stage, 64 * PAGE, 1);
	check(!rdma_write(addr(buf), mr, 64 * PAGE), "write");
	expect(buf, 64 * PAGE, 1, 0, 0, 0, "write");
	dereg(mr);
}

static void odp_prefetch_rights(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg(buf, BUF,
				IBV_ACCESS_ON_DEMAND | IBV_ACCESS_REMOTE_READ);
	int ret;

	ret = advise(PREFETCH, true, addr(buf), BUF, mr);
	check(!ret, "read-only MR: %s", strerror(ret));
	ret = advise(PREFETCH, false, addr(buf), BUF, mr);
	check(!ret, "read-only MR, asynchronous: %s", strerror(ret));
	ret = advise(PREFETCH_WRITE, true, addr(buf), BUF, mr);
	check(ret == EPERM, "%s", strerror(ret));
	dereg(mr);
}

/* Without the check KASAN complains, too. */
static void odp_prefetch_pinned(void)
{
	for (int i = 0; i < 3; i++) {
		int ret = advise(i == 1 ? PREFETCH_WRITE : PREFETCH, true,
				 addr(stage), PAGE, stage_mr);

		check(ret == EINVAL, "%s", strerror(ret));
		ret = advise(PREFETCH, false, addr(stage), PAGE, stage_mr);
		check(ret == EINVAL, "asynchronous: %s", strerror(ret));
	}
}

static void odp_prefetch_bounds(void)
{
	uint8_t *buf = map_anon(BUF);
	size_t len = 2 * PAGE + 100;
	struct ibv_mr *mr = reg(buf + PAGE, len, ODP);
	struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = {
		{ addr(buf), PAGE },
		{ addr(buf) + PAGE - 1, 1 },
		{ addr(buf) + PAGE, len + 1 },
		{ addr(buf) + PAGE + len, 1 },
		{ addr(buf) + PAGE, 1U << 31 },
		{ addr(buf) + PAGE, ~0U },
		{ 0, PAGE },
		{ ~0ULL - PAGE + 1, 2 * PAGE },
		{ 1ULL << 63, PAGE },
	};
	int ret;

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ret = advise(PREFETCH, true, bad[i].addr, bad[i].len, mr);
		check(ret == EFAULT, "%u: %s", i, strerror(ret));
	}
	ret = advise(PREFETCH, true, addr(buf) + PAGE, len, mr);
	check(!ret, "%s", strerror(ret));
	ret = advise(PREFETCH, true, addr(buf) + PAGE, len,
		     &(struct ibv_mr){ .lkey = ~0U });
	check(ret == EINVAL || ret == ENOENT, "%s", strerror(ret));
	munmap(buf + PAGE, PAGE);
	ret = advise(PREFETCH, true, addr(buf) + PAGE, len, mr);
	check(ret == EFAULT, "not mapped: %s", strerror(ret));
	dereg(mr);
}

static void odp_prefetch_iova(void)
{
	uint8_t *buf = map_anon(BUF);
	struct ibv_mr *mr = reg_iova(buf, BUF, 1ULL << 40, ODP);
	int ret;

	ret = advise(PREFETCH_WRITE, true, (1ULL << 40) + PAGE, 2 * PAGE, mr);
	check(!ret, "%s", strerror(ret));
	check(!present(buf) && present(buf + PAGE) && present(buf + 2 * PAGE) &&
	      !present(buf + 3 * PAGE), "other pages were fetched");
	ret = advise(PREFETCH, true, addr(buf), PAGE, mr);
	check(ret == EFAULT, "%s", strerror(ret));
	dereg(mr);
}

/*
 * Prefetch fails at the second page, while the first one goes away. An entry
 * for it must not stay.
 */
static atomic_int stale_round, stale_done;

static void *stale_zap(void *p)
{
	for (int r = 1;; r++) {
		while (atomic_load(&stale_round) < r)
			if (atomic_load(&stale_round) < 0)
				return NULL;
		for (volatile int d = 0; d < r * 37 % 6000; d++)
			;
		madvise(p, PAGE, MADV_DONTNEED);
		atomic_store(&stale_done, r);
	}
}

static void odp_stale(void)
{
	uint8_t *buf = map_anon(2 * PAGE);
	struct ibv_mr *mr = reg(buf, 2 * PAGE, ODP);
	double end = now() + 5 * seconds;
	pthread_t t;
	int r;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip("a race of two CPUs");
	munmap(buf + PAGE, PAGE);
	check(!pthread_create(&t, NULL, stale_zap, buf), "thread");
	for (r = 1; now() < end; r++) {
		int ret;

		memset(buf, 1, PAGE);
		atomic_store(&stale_round, r);
		ret = advise(PREFETCH, true, addr(buf), 2 * PAGE, mr);
		check(ret == EFAULT, "%s", strerror(ret));
		while (atomic_load(&stale_done) < r)
			sched_yield();
		/* A new page, unless rxe still knows the old one. */
		fill(buf, 64, r);
		check(!rdma_read(addr(buf), mr, 64), "read");
		expect(stage, 64, r, 0, 0, 0, "read of a stale page");
	}
	printf("# %d rounds\n", r);
	atomic_store(&stale_round, -1);
	pthread_join(t, NULL);
	dereg(mr);
}

static atomic_int load_stop;

static void *load_zap(void *p)
{
	unsigned int n = 1;

	while (!atomic_load(&load_stop)) {
		n = n * 1103515245 + 12345;
		madvise((uint8_t *)p + (n >> 16) % 4 * PAGE, PAGE,
			n & 1 << 30 ? MADV_DONTNEED : MADV_PAGEOUT);
	}
	return NULL;
}

/* Invalidation under load: a transfer neither fails nor gets mixed up. */
static void odp_load(void)
{
	uint8_t *buf = map_anon(5 * PAGE);
	struct ibv_mr *mr = reg(buf, 5 * PAGE, ODP);
	double end = now() + 2 * seconds;
	pthread_t t;
	int r;

	check(!pthread_create(&t, NULL, load_zap, buf), "thread");
	for (r = 0; now() < end; r++) {
		fill(stage, 5 * PAGE, r);
		check(!rdma_write(addr(buf), mr, 5 * PAGE), "write");
		expect(buf + 4 * PAGE, PAGE, r + 4 * PAGE * 7 + 64 * 13, 0, 0,
		       0, "write to the page that stays");
		check(!rdma_read(addr(buf) + 100, mr, 4 * PAGE), "read");
		for (size_t i = 0; i < 4 * PAGE; i++)
			check(!stage[i] || stage[i] == pattern(i + 100, r),
			      "byte %zu is %#x", i, stage[i]);
	}
	printf("# %d rounds\n", r);
	atomic_store(&load_stop, 1);
	pthread_join(t, NULL);
	dereg(mr);
}

/* The kernel's mapping of such a page is not there. */
static void odp_secretmem(void)
{
	int fd = syscall(SYS_memfd_secret, 0);
	struct ibv_mr *mr;
	uint8_t *buf;

	if (fd < 0)
		skip("memfd_secret: %s", strerror(errno));
	check(!ftruncate(fd, PAGE), "%s", strerror(errno));
	buf = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (buf == MAP_FAILED)
		skip("memfd_secret: %s", strerror(errno));
	fill(buf, PAGE, 1);
	mr = ibv_reg_mr(pd, buf, PAGE, ODP);
	if (mr) {
		fill(stage, PAGE, 2);
		check(rdma_read(addr(buf), mr, 100), "read");
		expect(stage, PAGE, 2, 0, 0, 0, "read of secret memory");
		connect_qps();
		check(rdma_write(addr(buf), mr, 100), "write");
		expect(buf, PAGE, 1, 0, 0, 0, "write to secret memory");
		dereg(mr);
	}
}

static void odp_implicit(void)
{
	struct ibv_mr *mr;

	mr = ibv_reg_mr(pd, NULL, SIZE_MAX, ODP);
	check(!mr, "rxe has no implicit ODP");
	check(errno == EOPNOTSUPP, "%s", strerror(errno));
}

/* The process goes away with a mapping, transfers under way. */
static void odp_exit(void)
{
	uint8_t *buf = map_anon(64 * PAGE);
	struct ibv_mr *mr = reg(buf, 64 * PAGE, ODP);
	struct ibv_sge sge = { addr(stage), 64 * PAGE, stage_mr->lkey };
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE,
		.wr.rdma = { .remote_addr = addr(buf), .rkey = mr->rkey },
	};

	for (int i = 0; i < 10; i++)
		post_send(&wr, false);
	_exit(0);
}

/* ------------------------------------------------------------------ tests */

static void data(void (*fn)(int access), int access)
{
	open_device();
	if (access & IBV_ACCESS_ON_DEMAND)
		need_odp();
	setup();
	fn(access);
}

static void odp(void (*fn)(void))
{
	open_device();
	need_odp();
	setup();
	fn();
}

static void plain(void (*fn)(void))
{
	open_device();
	setup();
	fn();
}

static void do_iova_zero(int access)	{ do_iova(access, false, 0); }
static void do_iova_above(int access)	{ do_iova(access, true, 2); }
static void do_iova_below(int access)	{ do_iova(access, true, -2); }
static void do_iova_wrap(int access)	{ do_iova(access, false, -5); }

static const struct test {
	const char *name;
	const char *note;
	void (*both)(int access);
	int access;
	void (*odp)(void);
	void (*plain)(void);	/* without on-demand paging */
	void (*bare)(void);	/* without a device */
} tests[] = {
#define PINNED(n)	{ "pin_" #n, "", do_##n, RW }
#define ONDEMAND(n, note) { "odp_" #n, note, do_##n, ODP }
#define OOPS		"[oops]"	/* crashes an unpatched kernel */
	PINNED(write), PINNED(read), PINNED(send),
	PINNED(iova_zero), PINNED(iova_above), PINNED(iova_below),
	PINNED(iova_wrap), PINNED(iova_fresh), PINNED(atomic),
	PINNED(atomic_iova), PINNED(bounds), PINNED(rights), PINNED(readonly),
	PINNED(vmas), PINNED(rereg), PINNED(badreg),
	{ "pin_fork", "", .plain = pin_fork },
	{ "pin_memlock", "", .bare = pin_memlock },
	{ "pin_vmpin", "", .bare = pin_vmpin },

	ONDEMAND(write, ""), ONDEMAND(read, ""), ONDEMAND(send, ""),
	ONDEMAND(atomic, ""), ONDEMAND(bounds, ""), ONDEMAND(rights, ""),
	ONDEMAND(readonly, ""), ONDEMAND(vmas, ""), ONDEMAND(rereg, ""),
	ONDEMAND(badreg, ""),
#define O(n, note)	{ #n, note, .odp = n }
	O(odp_implicit, ""), O(odp_large, ""), O(odp_no_pin, ""),
	O(odp_fork, ""), O(odp_remap, ""), O(odp_unmapped, ""),
	O(odp_none, ""), O(odp_load, ""), O(odp_exit, ""),
	O(odp_dirty_shmem, ""), O(odp_dirty_atomic, ""), O(odp_dirty_free, ""),
	O(odp_dirty_swap, ""), O(odp_dirty_file, ""),
	O(odp_prefetch, ""), O(odp_prefetch_rights, ""),
	O(odp_prefetch_bounds, ""), O(odp_prefetch_iova, OOPS),
	O(odp_prefetch_pinned, ""), O(odp_stale, ""),
	ONDEMAND(iova_above, OOPS), ONDEMAND(iova_below, OOPS),
	ONDEMAND(iova_wrap, OOPS), ONDEMAND(iova_fresh, OOPS),
	ONDEMAND(atomic_iova, OOPS), ONDEMAND(iova_zero, OOPS),
	O(odp_secretmem, OOPS),
};

#define NR_TESTS	(sizeof(tests) / sizeof(tests[0]))

static void run(const struct test *t)
{
	if (t->both)
		data(t->both, t->access);
	else if (t->odp)
		odp(t->odp);
	else if (t->plain)
		plain(t->plain);
	else
		t->bare();
	fflush(stdout);
	_exit(0);
}

/* Returns the exit code, or -1 when the process is stuck in the kernel. */
static int run_one(const struct test *t)
{
	pid_t pid;
	int st;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		run(t);
	}
	for (int ms = 0; ms < 120000; ms += 10) {
		if (waitpid(pid, &st, WNOHANG) == pid) {
			/* what it has started */
			kill(-pid, SIGKILL);
			if (WIFEXITED(st))
				return WEXITSTATUS(st);
			printf("# killed by signal %d\n", WTERMSIG(st));
			return 1;
		}
		if (ms == 100000)
			kill(pid, SIGKILL);
		usleep(10000);
	}
	return -1;
}

static bool listed(const char *name, const char **list, int nr)
{
	for (int i = 0; i < nr; i++)
		if (!strcmp(name, list[i]))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	const char *only[NR_TESTS + 1], *except[NR_TESTS + 1];
	struct rlimit rl = { RLIM_INFINITY, RLIM_INFINITY };
	int nr_only = 0, nr_except = 0, n = 0, nr = 0, failed = 0, opt;
	const struct test *todo[NR_TESTS];

	while ((opt = getopt(argc, argv, "lg:d:s:t:x:")) != -1) {
		switch (opt) {
		case 'l':
			for (unsigned int i = 0; i < NR_TESTS; i++)
				printf("%s %s\n", tests[i].name, tests[i].note);
			return 0;
		case 'g':
			gid_index = atoi(optarg);
			break;
		case 'd':
			directory = optarg;
			break;
		case 's':
			seconds = atoi(optarg);
			break;
		case 't':
			only[nr_only < (int)NR_TESTS ? nr_only++ : 0] = optarg;
			break;
		case 'x':
			except[nr_except < (int)NR_TESTS ? nr_except++ : 0] =
				optarg;
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1) {
		fprintf(stderr,
			"usage: %s [-l] [-g gid_index] [-d directory] [-s scale] [-t test]... [-x test]... device\n",
			argv[0]);
		return 2;
	}
	device = argv[optind];
	setrlimit(RLIMIT_MEMLOCK, &rl);

	for (unsigned int i = 0; i < NR_TESTS; i++) {
		if (nr_only && !listed(tests[i].name, only, nr_only))
			continue;
		if (!listed(tests[i].name, except, nr_except))
			todo[nr++] = &tests[i];
	}
	printf("TAP version 13\n1..%d\n", nr);
	for (n = 0; n < nr; n++) {
		int ret = run_one(todo[n]);

		failed += ret && ret != KSFT_SKIP;
		printf("%s %d %s%s\n", ret && ret != KSFT_SKIP ? "not ok" : "ok",
		       n + 1, todo[n]->name, ret == KSFT_SKIP ? " # SKIP" :
		       ret < 0 ? " # stuck" : "");
		fflush(stdout);
	}
	return failed ? 1 : 0;
}
