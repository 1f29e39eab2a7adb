// SPDX-License-Identifier: GPL-2.0
/*
 * What user space sees of memory regions, as "value" lines that two kernels can
 * be compared by: errno, pinned and locked pages, dirty pages, bytes.
 *
 *	rdma_values [-t part of a name] [-d directory of a file system]
 *
 * Each case is a process of its own. It fails if something stays pinned.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
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
#include <unistd.h>

#include "rdma_kernel.h"

#define PAGE	4096UL
#define HUGE	(2UL << 20)
#define LEN	(64 * PAGE)

#define R	IBV_ACCESS_REMOTE_READ
#define W	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | R | \
		 IBV_ACCESS_REMOTE_ATOMIC)
#define ODP	IBV_ACCESS_ON_DEMAND

static const char *directory;
static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp[2];
static bool bad;

static char line[4096];
static size_t used;

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	used += vsnprintf(line + used, sizeof(line) - used, fmt, ap);
	va_end(ap);
}

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	printf("# %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

/* ---------------------------------------------------------------- counters */

/* A number after a name in a file: kB in /proc/self/status. */
static long number(const char *path, const char *name)
{
	char row[256];
	long n = -1;
	FILE *f = fopen(path, "r");

	while (f && fgets(row, sizeof(row), f))
		if (!strncmp(row, name, strlen(name)))
			n = atol(row + strlen(name));
	if (f)
		fclose(f);
	return n;
}

static long status(const char *name)
{
	return number("/proc/self/status", name);
}

static long pins(void)
{
	char c;
	int fd = open("/proc/sys/vm/stat_refresh", O_RDONLY);

	/* each CPU keeps some of the count to itself */
	if (read(fd, &c, 1) < 0)
		printf("# stat_refresh: %s\n", strerror(errno));
	close(fd);
	return number("/proc/vmstat", "nr_foll_pin_acquired ") -
	       number("/proc/vmstat", "nr_foll_pin_released ");
}

static int pagemap_fd, mem_fd, flags_fd;

static int dirty(const void *p, size_t len)
{
	uintptr_t a = (uintptr_t)p & ~(PAGE - 1);
	int n = 0;

	for (; a < (uintptr_t)p + len; a += PAGE) {
		uint64_t e = 0, f = 0;

		if (pread(pagemap_fd, &e, 8, a / PAGE * 8) != 8 || !(e >> 63))
			continue;
		e &= (1ULL << 55) - 1;
		if (pread(flags_fd, &f, 8, e * 8) == 8)
			n += f >> 4 & 1;
	}
	return n;
}

static unsigned int sum(const void *p, size_t len)
{
	unsigned int h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ ((const uint8_t *)p)[i]) * 16777619u;
	return h;
}

/* The same of memory that may not be there, or not readable. */
static unsigned int sum_any(const uint8_t *p, size_t len)
{
	static uint8_t copy[HUGE];

	for (size_t i = 0; i < len; i += PAGE)
		if (pread(mem_fd, copy + i, PAGE, (uintptr_t)p + i) != PAGE)
			memset(copy + i, 0xee, PAGE);
	return sum(copy, len);
}

/* ---------------------------------------------------------------- memory */

static void fill(void *p, size_t len, int seed)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)p)[i] = i * 7 + (i >> 8) * 13 + seed;
}

static uint8_t *anon(size_t len, int flags)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | flags, -1, 0);

	need(p != MAP_FAILED, "mmap");
	return p;
}

static uint8_t *memory(const char *kind, size_t *len)
{
	uint8_t *p;
	int fd;

	*len = LEN;
	if (!strcmp(kind, "thp")) {
		*len = HUGE;
		p = anon(2 * HUGE, MAP_PRIVATE);
		p = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
		madvise(p, HUGE, MADV_HUGEPAGE);
		fill(p, *len, 1);
	} else if (!strcmp(kind, "hugetlb")) {
		*len = HUGE;
		p = anon(HUGE, MAP_PRIVATE | MAP_HUGETLB);
		fill(p, *len, 1);
	} else if (!strcmp(kind, "shmem") || !strcmp(kind, "private")) {
		fd = memfd_create("values", 0);
		need(fd >= 0 && !ftruncate(fd, LEN), "memfd");
		p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		need(p != MAP_FAILED, "mmap");
		fill(p, LEN, 1);
		if (*kind == 'p')
			p = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE, fd, 0);
	} else if (!strcmp(kind, "file")) {
		char path[256];

		snprintf(path, sizeof(path), "%s/values", directory);
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		need(fd >= 0 && !ftruncate(fd, LEN), path);
		p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		need(p != MAP_FAILED, "mmap");
		fill(p, LEN, 1);
		need(!msync(p, LEN, MS_SYNC), "msync");
	} else if (!strcmp(kind, "secret")) {
		fd = syscall(SYS_memfd_secret, 0);
		need(fd >= 0 && !ftruncate(fd, LEN), "memfd_secret");
		p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		need(p != MAP_FAILED, "mmap");
		fill(p, LEN, 1);
	} else {
		/* guard pages, so that the neighbours are known */
		p = anon(LEN + 2 * PAGE, MAP_PRIVATE);
		mprotect(p, PAGE, PROT_NONE);
		mprotect(p + PAGE + LEN, PAGE, PROT_NONE);
		p += PAGE;
		madvise(p, LEN, MADV_NOHUGEPAGE);
		if (strcmp(kind, "fresh"))
			fill(p, LEN, 1);
		if (!strcmp(kind, "readonly"))
			mprotect(p, LEN, PROT_READ);
		if (!strcmp(kind, "halfro"))
			mprotect(p + LEN / 2, LEN / 2, PROT_READ);
		if (!strcmp(kind, "none"))
			mprotect(p, LEN, PROT_NONE);
		if (!strcmp(kind, "hole"))
			munmap(p + LEN / 2, PAGE);
		if (!strcmp(kind, "two"))
			madvise(p + LEN / 2, LEN / 2, MADV_DONTDUMP);
	}
	return p;
}

/* ---------------------------------------------------------------- verbs */

static void open_device(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int i = 0; list && list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name))
			ctx = ibv_open_device(list[i]);
	need(ctx, name);
	pd = ibv_alloc_pd(ctx);
	need(pd, "ibv_alloc_pd");
}

static void connect_pair(void)
{
	union ibv_gid gid;

	cq = ibv_create_cq(ctx, 16, NULL, NULL, 0);
	need(cq && !ibv_query_gid(ctx, 1, 1, &gid), "ibv_create_cq");
	for (int i = 0; i < 2; i++) {
		struct ibv_qp_init_attr init = {
			.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
			.cap = { .max_send_wr = 4, .max_recv_wr = 4,
				 .max_send_sge = 1, .max_recv_sge = 1 },
		};

		qp[i] = ibv_create_qp(pd, &init);
		need(qp[i], "ibv_create_qp");
	}
	for (int i = 0; i < 2; i++) {
		struct ibv_qp_attr a = {
			.qp_state = IBV_QPS_INIT, .port_num = 1,
			.qp_access_flags = W, .path_mtu = IBV_MTU_1024,
			.dest_qp_num = qp[!i]->qp_num,
			.max_dest_rd_atomic = 1, .max_rd_atomic = 1,
			.min_rnr_timer = 12, .timeout = 14, .retry_cnt = 7,
			.rnr_retry = 7,
			.ah_attr = { .is_global = 1, .port_num = 1,
				     .grh = { .dgid = gid, .sgid_index = 1,
					      .hop_limit = 1 } },
		};
		int e;

		e = ibv_modify_qp(qp[i], &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
				  IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
		a.qp_state = IBV_QPS_RTR;
		e = e ?: ibv_modify_qp(qp[i], &a, IBV_QP_STATE | IBV_QP_AV |
				       IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				       IBV_QP_RQ_PSN | IBV_QP_MIN_RNR_TIMER |
				       IBV_QP_MAX_DEST_RD_ATOMIC);
		a.qp_state = IBV_QPS_RTS;
		e = e ?: ibv_modify_qp(qp[i], &a, IBV_QP_STATE | IBV_QP_TIMEOUT |
				       IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				       IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
		errno = e;
		need(!e, "ibv_modify_qp");
	}
}

/* One RDMA operation between local memory and the remote region; its status. */
static int transfer(int op, struct ibv_mr *local, size_t len,
		    struct ibv_mr *mr, uint64_t at)
{
	struct ibv_sge sge = { (uintptr_t)local->addr, len, local->lkey };
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = op,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { at, mr->rkey },
	}, *badwr;
	struct ibv_wc wc;
	int n;

	if (op == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		wr.wr.atomic.remote_addr = at;
		wr.wr.atomic.rkey = mr->rkey;
		wr.wr.atomic.compare_add = 5;
	}
	errno = ibv_post_send(qp[0], &wr, &badwr);
	need(!errno, "ibv_post_send");
	alarm(60);
	do {
		n = ibv_poll_cq(cq, 1, &wc);
	} while (!n);
	alarm(0);
	need(n == 1, "ibv_poll_cq");
	return wc.status;
}

/* ---------------------------------------------------------------- cases */

/* Register, look, let the device use it, deregister, look again. */
static void use(const char *kind, int access, size_t skip, size_t cut, bool data)
{
	uint8_t *base, *p, *s = NULL;
	struct ibv_mr *mr, *stage = NULL;
	size_t all, len, n;
	long pin0, lck0;
	int was, st;

	if (data) {
		connect_pair();
		s = anon(HUGE, MAP_PRIVATE);
		fill(s, HUGE, 99);
		stage = ibv_reg_mr(pd, s, HUGE, W);
		need(stage, "staging memory");
	}
	pin0 = status("VmPin:");
	lck0 = status("VmLck:");
	/* Last, so that nothing else is mapped into a hole. */
	base = memory(kind, &all);
	p = base + skip;
	len = all - skip - cut;
	was = dirty(base, all);
	mr = ibv_reg_mr(pd, p, len, access);
	say(" reg=%s", mr ? "ok" : strerrorname_np(errno));
	say(" VmPin=%ld VmLck=%ld", status("VmPin:") - pin0,
	    status("VmLck:") - lck0);
	if (mr && data) {
		/* the middle, not on a page's border, and over several pages */
		size_t at = len > 3 * PAGE ? len / 2 - 700 : 0;

		n = len > 3 * PAGE ? PAGE * 3 / 2 : len;
		st = transfer(IBV_WR_RDMA_READ, stage, n, mr,
			      (uintptr_t)p + at);
		say(" read=%d read_bytes=%08x", st, sum(s, all));
		fill(s, all, 99);
		if (!st && (access & W) == W && len > PAGE) {
			st = transfer(IBV_WR_ATOMIC_FETCH_AND_ADD, stage, 8, mr,
				      ((uintptr_t)p + 15) & ~7UL);
			say(" atomic=%d was=%08x", st, sum(s, 8));
		}
		fill(s, all, 99);
		if (!st) {
			st = transfer(IBV_WR_RDMA_WRITE, stage, n, mr,
				      (uintptr_t)p + at);
			say(" write=%d", st);
		}
		say(" VmPin_used=%ld", status("VmPin:") - pin0);
	}
	if (mr) {
		errno = ibv_dereg_mr(mr);
		say(" dereg=%d", errno);
	}
	say(" dirty_before=%d dirty=%d", was, dirty(base, all));
	if (data)
		say(" bytes=%08x", sum_any(base, all));
	if (status("VmPin:") != pin0 || status("VmLck:") != lck0) {
		bad = true;
		say(" LEFT VmPin=%ld VmLck=%ld", status("VmPin:") - pin0,
		    status("VmLck:") - lck0);
	}
}

/* Only the errno: addresses and lengths that nobody should give. */
static void refuse(uint64_t addr, uint64_t len, int access)
{
	struct ibv_mr *mr;

	mr = ibv_reg_mr_iova2(pd, (void *)addr, len, addr, access);
	say(" reg=%s VmPin=%ld", mr ? "ok" : strerrorname_np(errno),
	    status("VmPin:"));
	if (mr)
		say(" dereg=%d", ibv_dereg_mr(mr));
	say(" after=%ld", status("VmPin:"));
	bad = status("VmPin:") != 0;
}

/* As a user that may pin so much, register so many pages, twice. */
static void limit(size_t allowed, size_t pages, int access)
{
	struct rlimit rl = { allowed * PAGE, allowed * PAGE };
	size_t all;
	uint8_t *p = memory("4k", &all);
	struct ibv_mr *mr, *more;

	need(!setrlimit(RLIMIT_MEMLOCK, &rl) && !setgid(65534) &&
	     !setuid(65534), "setuid");
	mr = ibv_reg_mr(pd, p, pages * PAGE, access);
	say(" reg=%s VmPin=%ld", mr ? "ok" : strerrorname_np(errno),
	    status("VmPin:"));
	more = ibv_reg_mr(pd, p + LEN / 2, PAGE, access);
	say(" one_more=%s VmPin_then=%ld", more ? "ok" : strerrorname_np(errno),
	    status("VmPin:"));
	if (more)
		ibv_dereg_mr(more);
	if (mr)
		ibv_dereg_mr(mr);
	say(" after=%ld", status("VmPin:"));
	bad = status("VmPin:") != 0;
}

static void rereg(int from, int to, bool move)
{
	size_t all;
	uint8_t *p = memory("4k", &all);
	struct ibv_mr *mr = ibv_reg_mr(pd, p, LEN / 2, from);
	int r;

	need(mr, "ibv_reg_mr");
	say(" VmPin=%ld", status("VmPin:"));
	if (move)
		r = kernel_rereg(pd, mr, IBV_REREG_MR_CHANGE_TRANSLATION, p + PAGE,
				 LEN / 4, 0);
	else
		r = kernel_rereg(pd, mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, 0, to);
	say(" rereg=%s", r ? strerrorname_np(r) : "ok");
	say(" VmPin_then=%ld", status("VmPin:"));
	r = ibv_dereg_mr(mr);
	say(" dereg=%d after=%ld", r, status("VmPin:"));
	bad = status("VmPin:") != 0;
}

static int resident(const void *p, size_t len)
{
	int n = 0;

	for (uintptr_t a = (uintptr_t)p; a < (uintptr_t)p + len; a += PAGE) {
		uint64_t e = 0;

		if (pread(pagemap_fd, &e, 8, a / PAGE * 8) == 8)
			n += e >> 63;
	}
	return n;
}

static void advise(const char *kind, int access, int advice, int flags)
{
	size_t all;
	uint8_t *p = memory(kind, &all);
	struct ibv_mr *mr = ibv_reg_mr(pd, p, all, access);
	struct ibv_sge sge;
	int r;

	need(mr, "ibv_reg_mr");
	sge = (struct ibv_sge){ (uintptr_t)p + PAGE + 5, 3 * PAGE, mr->lkey };
	say(" resident=%d", resident(p, all));
	r = kernel_advise(pd, advice, flags, &sge);
	/* the work of an asynchronous one */
	for (int i = 0; !r && !flags && i < 40 && !resident(p, all); i++)
		usleep(50000);
	say(" advise=%s VmPin=%ld resident_then=%d",
	    r ? strerrorname_np(r) : "ok", status("VmPin:"), resident(p, all));
	say(" dereg=%d", ibv_dereg_mr(mr));
	bad = status("VmPin:") != 0;
}

/* A region survives a fork; each process then has its own bytes. */
static void forked(int access)
{
	struct ibv_mr *mr, *stage;
	uint8_t *p, *s = anon(LEN, MAP_PRIVATE);
	size_t all;
	int st, pipes[2];
	unsigned int child;

	connect_pair();
	p = memory("4k", &all);
	fill(s, LEN, 99);
	stage = ibv_reg_mr(pd, s, LEN, W);
	mr = ibv_reg_mr(pd, p, LEN, access);
	need(stage && mr && !pipe(pipes), "ibv_reg_mr");
	/* The child looks after the device and the parent have written. */
	if (!fork()) {
		char c;

		need(read(pipes[0], &c, 1) == 1, "read");
		child = sum(p, LEN);
		printf("# child %08x VmPin %ld\n", child, status("VmPin:"));
		fflush(stdout);
		_exit(child >> 24);
	}
	p[PAGE] = 1;
	st = transfer(IBV_WR_RDMA_WRITE, stage, 2 * PAGE, mr, (uintptr_t)p);
	need(write(pipes[1], "", 1) == 1, "write");
	say(" write=%d parent=%08x", st, sum(p, LEN));
	wait(&st);
	say(" child=%x VmPin=%ld", WEXITSTATUS(st), status("VmPin:"));
}

/* A process that ends with its regions; what it held is free again. */
static void killed(const char *dev, const char *kind, int access)
{
	long before = pins(), huge = number("/proc/meminfo", "HugePages_Free:");
	int st, pipes[2];
	pid_t pid;
	char c;

	need(!pipe(pipes), "pipe");
	pid = fork();
	if (!pid) {
		size_t all;
		uint8_t *p = memory(kind, &all);

		/* else through the file that its parent has open, too */
		if (dev)
			open_device(dev);
		c = ibv_reg_mr(pd, p, all, access) ? 'y' : 'n';
		need(write(pipes[1], &c, 1) == 1, "write");
		pause();
	}
	need(read(pipes[0], &c, 1) == 1, "read");
	kill(pid, SIGKILL);
	waitpid(pid, &st, 0);
	ibv_dealloc_pd(pd);
	ibv_close_device(ctx);
	for (int i = 0; i < 100 && pins() != before; i++)
		usleep(50000);
	say(" reg=%c pins_left=%ld huge_left=%ld", c, pins() - before,
	    huge - number("/proc/meminfo", "HugePages_Free:"));
	bad = pins() != before;
}

/* ---------------------------------------------------------------- list */

static int nr, failures;
static const char *filter = "";

static bool begin(const char *dev, const char *fmt, ...)
{
	va_list ap;

	used = 0;
	say("%s.", dev);
	va_start(ap, fmt);
	used += vsnprintf(line + used, sizeof(line) - used, fmt, ap);
	va_end(ap);
	if (!strstr(line, filter))
		return false;
	nr++;
	fflush(stdout);
	return true;
}

static void end(pid_t pid, const char *name)
{
	int st;

	waitpid(pid, &st, 0);
	failures += st != 0;
	printf("%s %d %s\n", st ? "not ok" : "ok", nr, name);
}

#define CASE(dev, call, ...)						\
	do {								\
		char name_[128];					\
		pid_t pid_;						\
									\
		if (!begin(dev, __VA_ARGS__))				\
			break;						\
		strncpy(name_, line, sizeof(name_) - 1);		\
		name_[sizeof(name_) - 1] = 0;				\
		pid_ = fork();						\
		if (!pid_) {						\
			pagemap_fd = open("/proc/self/pagemap", O_RDONLY); \
			mem_fd = open("/proc/self/mem", O_RDONLY);	\
			open_device(dev);				\
			call;						\
			printf("value %s\n", line);			\
			fflush(stdout);					\
			_exit(bad);					\
		}							\
		end(pid_, name_);					\
	} while (0)

static void device(const char *d, bool odp)
{
	static const char * const kinds[] = {
		"4k", "fresh", "thp", "hugetlb", "shmem", "private", "two",
		"readonly", "halfro", "none", "hole", "file", "secret",
	};
	static const struct {
		const char *name;
		int access;
	} rights[] = {
		{ "r", R }, { "rw", W },
	};

	for (unsigned int k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
		for (int a = 0; a < 2; a++) {
			if (!strcmp(kinds[k], "file") && !directory)
				continue;
			CASE(d, use(kinds[k], rights[a].access, 0, 0, odp),
			     "%s.%s", kinds[k], rights[a].name);
			/* secretmem on demand crashes the unpatched kernel */
			if (odp && strcmp(kinds[k], "secret"))
				CASE(d, use(kinds[k], rights[a].access | ODP, 0,
					    0, true),
				     "odp_%s.%s", kinds[k], rights[a].name);
		}
	CASE(d, use("4k", W, 123, 1000, odp), "odd.rw");
	CASE(d, use("4k", W, 4095, LEN - 4097, odp), "two_bytes.rw");
	CASE(d, use("4k", IBV_ACCESS_LOCAL_WRITE, 0, 0, false), "4k.lw");
	CASE(d, use("thp", W, 5 * PAGE, 7 * PAGE, odp), "thp_part.rw");
	CASE(d, use("hugetlb", W, 5 * PAGE, 7 * PAGE, odp), "hugetlb_part.rw");
	CASE(d, use("4k", IBV_ACCESS_REMOTE_WRITE, 0, 0, false), "4k.remote_only");
	CASE(d, use("4k", IBV_ACCESS_HUGETLB | W, 0, 0, false), "4k.hugetlb_flag");
	CASE(d, use("hugetlb", IBV_ACCESS_HUGETLB | W, 0, 0, odp),
	     "hugetlb.hugetlb_flag");
	CASE(d, use("4k", IBV_ACCESS_RELAXED_ORDERING | W, 0, 0, odp),
	     "4k.relaxed");
	if (odp) {
		CASE(d, use("4k", W | ODP, 123, 1000, true), "odp_odd.rw");
		CASE(d, use("thp", W | ODP, 5 * PAGE, 7 * PAGE, true),
		     "odp_thp_part.rw");
		CASE(d, use("hugetlb", W | ODP | IBV_ACCESS_HUGETLB, 0, 0, true),
		     "odp_hugetlb.hugetlb_flag");
	}

	for (int o = 0; o <= (odp ? ODP : 0); o += ODP) {
		const char *w = o ? "odp_refuse" : "refuse";

		CASE(d, refuse(0x10000000, 0, W | o), "%s.zero_length", w);
		CASE(d, refuse(-PAGE, 2 * PAGE, W | o), "%s.wraps", w);
		CASE(d, refuse(-PAGE, PAGE, W | o), "%s.ends_at_2^64", w);
		CASE(d, refuse(1, -1UL, W | o), "%s.longest", w);
		CASE(d, refuse(PAGE, -2 * PAGE, W | o), "%s.ends_below_2^64", w);
		CASE(d, refuse(1UL << 46, 1UL << 46, W | o), "%s.half_of_all", w);
		CASE(d, refuse(1UL << 47, PAGE, W | o), "%s.above_user", w);
		CASE(d, refuse(-1UL << 47, PAGE, W | o), "%s.kernel", w);
		CASE(d, refuse(0x10000, PAGE, W | o), "%s.nothing_there", w);
		CASE(d, refuse(0, PAGE, W | o), "%s.null", w);
		CASE(d, limit(8, 8, W | o), "%s.limit_exact", w);
		CASE(d, limit(8, 9, W | o), "%s.limit_one_over", w);
		CASE(d, limit(8, 7, W | o), "%s.limit_one_below", w);
		CASE(d, limit(0, 1, W | o), "%s.limit_zero", w);
		CASE(d, killed(d, "4k", W | o), "%s.killed_4k", w);
		CASE(d, killed(d, "hugetlb", W | o), "%s.killed_hugetlb", w);
		CASE(d, killed(NULL, "4k", W | o), "%s.killed_not_last", w);
		CASE(d, rereg(W | o, R | o, false), "%s.rereg_less", w);
		CASE(d, rereg(R | o, W | o, false), "%s.rereg_more", w);
		CASE(d, rereg(W | o, 0, true), "%s.rereg_move", w);
		CASE(d, rereg(W | o, W | (o ^ ODP), false), "%s.rereg_odp", w);
	}
	if (!odp)
		return;
	CASE(d, forked(W), "fork.rw");
	CASE(d, forked(W | ODP), "odp_fork.rw");
	for (int f = 0; f <= IBV_ADVISE_MR_FLAG_FLUSH; f++) {
		const char *w = f ? "sync" : "async";

		CASE(d, advise("fresh", W | ODP, IBV_ADVISE_MR_ADVICE_PREFETCH, f),
		     "prefetch.read_%s", w);
		CASE(d, advise("fresh", W | ODP,
			       IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, f),
		     "prefetch.write_%s", w);
		CASE(d, advise("fresh", W | ODP,
			       IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, f),
		     "prefetch.nofault_%s", w);
		CASE(d, advise("4k", R | ODP,
			       IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, f),
		     "prefetch.write_to_r_%s", w);
		CASE(d, advise("none", W | ODP, IBV_ADVISE_MR_ADVICE_PREFETCH, f),
		     "prefetch.none_%s", w);
	}
}

int main(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "t:d:")) != -1) {
		if (opt == 't')
			filter = optarg;
		else if (opt == 'd')
			directory = optarg;
		else
			return 2;
	}
	flags_fd = open("/proc/kpageflags", O_RDONLY);
	printf("TAP version 13\n");
	device("rxe0", true);
	device("siw0", false);
	printf("1..%d\n", nr);
	return failures != 0;
}
