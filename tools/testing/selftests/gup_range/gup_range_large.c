// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ranges of up to 4 TiB in one call. One 1 GiB page is mapped side by side as
 * often as it takes; the last GiB is one 2 MiB page again and again, and ends
 * with small pages that are there only once.
 *
 * Wants an IOMMU with 48 address bits and a free huge page of 1 GiB:
 * hugepagesz=1G hugepages=1 on the kernel command line.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "../kselftest_harness.h"
#include "gup_range_util.h"

#define GIB		(1UL << 30)
#define TRACING		"/sys/kernel/tracing/"
#define STATS		"/sys/kernel/debug/gup_range/stats"
#define CHUNK		512
#define MIRROR		GUP_RANGE_EDU_MAP_MIRROR
#define WRITE		GUP_RANGE_EDU_MAP_WRITE
#define ONLY		GUP_RANGE_EDU_MAP_ONLY

#ifndef MFD_HUGETLB
#define MFD_HUGETLB	4U
#endif

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------- memory */

static int huge_file(unsigned int shift)
{
	int fd = memfd_create("large", MFD_HUGETLB | shift << MAP_HUGE_SHIFT);
	char *p;

	if (fd < 0)
		return -1;
	/* The page itself, or memory of a range without it would be a SIGBUS. */
	p = ftruncate(fd, 1UL << shift) ? MAP_FAILED :
	    mmap(NULL, 1UL << shift, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED) {
		close(fd);
		return -1;
	}
	munmap(p, 1UL << shift);
	return fd;
}

static bool map_at(char *p, size_t len, int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	return mmap(p, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == p;
}

/* @len bytes, whole GiB. */
static char *side_by_side(size_t len, int fd_1g, int fd_2m)
{
	char *p = mem_reserve(len, GIB);
	size_t off;
	bool ok = p != MAP_FAILED;

	for (off = 0; ok && off < len - GIB; off += GIB)
		ok = map_at(p + off, GIB, fd_1g);
	for (; ok && off < len - HUGE; off += HUGE)
		ok = map_at(p + off, HUGE, fd_2m);
	ok = ok && map_at(p + off, HUGE, -1);
	if (!ok)
		return MAP_FAILED;
	madvise(p + off, HUGE, MADV_NOHUGEPAGE);
	mem_fill((unsigned char *)p + off, HUGE);
	return p;
}

/* -------------------------------------------------------------- allocations */

/* What this process allocates, pages as @filter says. */
static void allocations_begin(const char *filter)
{
	char pid[32];

	sprintf(pid, "%d", getpid());
	write_file(TRACING "set_event_pid", pid);
	write_file(TRACING "events/kmem/mm_page_alloc/filter", filter);
	/* The scratch of a walk is 8 KiB, whatever the length. */
	write_file(TRACING "events/kmem/kmalloc/filter", "bytes_req > 8192");
	write_file(TRACING "trace", "");
	write_file(TRACING "events/kmem/mm_page_alloc/enable", "1");
	write_file(TRACING "events/kmem/kmalloc/enable", "1");
}

struct allocations {
	int	pages;		/* of both kinds */
	int	kmallocs;
	char	large[256];	/* one of more than a page, see below */
};

/*
 * Slabs of several pages are no fault: they are tried with __GFP_NORETRY and may
 * be smaller. What is taken from them is seen as kmalloc().
 */
static struct allocations allocations_end(void)
{
	static char text[1 << 22];
	struct allocations a = {};
	char *line, *next;

	write_file(TRACING "events/kmem/mm_page_alloc/enable", "0");
	write_file(TRACING "events/kmem/kmalloc/enable", "0");
	write_file(TRACING "set_event_pid", "");
	read_file(TRACING "trace", text, sizeof(text));
	for (line = text; (next = strchr(line, '\n')); line = next + 1) {
		bool page;

		*next = 0;
		page = strstr(line, " mm_page_alloc: ");
		if (!page && !strstr(line, " kmalloc: "))
			continue;
		a.pages += page;
		a.kmallocs += !page;
		if (!strstr(line, "__GFP_NORETRY") && !strstr(line, "order=0"))
			snprintf(a.large, sizeof(a.large), "%.255s", line);
	}
	return a;
}

/* ------------------------------------------------------------------- fixture */

FIXTURE(large)
{
	int fd;
	int fd_1g;
	int fd_2m;
	unsigned char buf[CHUNK];
	unsigned char back[CHUNK];
};

FIXTURE_VARIANT(large)
{
	unsigned int mode;
};

FIXTURE_VARIANT_ADD(large, pinned) { .mode = 0 };
FIXTURE_VARIANT_ADD(large, mirrored) { .mode = MIRROR };

FIXTURE_SETUP(large)
{
	memset(self->buf, 0xa7, CHUNK);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_LE(0, self->fd);
	if (!edu_protected(self->fd))
		SKIP(return, "no IOMMU in the way");
	self->fd_1g = huge_file(30);
	if (self->fd_1g < 0)
		SKIP(return, "no huge page of 1 GiB is free");
	self->fd_2m = huge_file(21);
	ASSERT_LE(0, self->fd_2m);
}

FIXTURE_TEARDOWN(large)
{
	EXPECT_EQ(0, file_number(STATS, "pinned_bytes"));
	EXPECT_EQ(0, file_number(STATS, "mapped_bytes"));
	EXPECT_EQ(0, file_number(STATS, "maps"));
}

static void check_shape(struct __test_metadata *_metadata, int fd, int h,
			char *p, size_t len, bool mirror)
{
	struct gup_range_edu_query q = { .pgsz_bitmap = PAGE | HUGE | GIB };
	size_t leaves = len / GIB - 1 + GIB / HUGE - 1 + HUGE / PAGE;

	ASSERT_EQ(0, edu_query(fd, h, 0, &q));
	EXPECT_EQ(0, (q.addr ^ (uintptr_t)p) & (GIB - 1));
	EXPECT_EQ(len, q.avail);
	EXPECT_EQ(0, q.flushes);
	if (mirror) {
		/* A mirrored one goes by steps of 256 huge pages, or of 256 others. */
		EXPECT_GE(len / HUGE / 256 + 4, q.syncs);
		EXPECT_GE(len / HUGE * 16 + HUGE / PAGE * 8, q.metadata);
	} else {
		EXPECT_EQ(1, q.syncs);
		EXPECT_EQ(q.addr, q.contig);
		EXPECT_EQ(GIB, q.pgsz);
		EXPECT_GE(leaves, q.links);
		EXPECT_GE(leaves * 8 + 2 * PAGE, q.metadata);
	}
	EXPECT_EQ(q.addr + len - PAGE, edu_addr(fd, h, len - PAGE));
}

/* The far end, which is there once, and the near one. */
static void check_dma(struct __test_metadata *_metadata, int fd, int h, char *p,
		      size_t len, unsigned char *buf, unsigned char *back)
{
	unsigned char *last = (unsigned char *)p + len - HUGE;

	EXPECT_EQ(0, edu_dma(fd, h, len - CHUNK, buf, CHUNK,
			     GUP_RANGE_EDU_DMA_WRITE));
	EXPECT_EQ(0, memcmp(buf, p + len - CHUNK, CHUNK));
	EXPECT_EQ(HUGE - CHUNK, mem_check(last, 0, HUGE - CHUNK));
	memset(p, 0x31, CHUNK);
	EXPECT_EQ(0, edu_dma(fd, h, 0, back, CHUNK, 0));
	EXPECT_EQ(0, memcmp(back, p, CHUNK));
}

/* One GiB goes, and the device cannot have it; those beside it stay. */
static void check_munmap(struct __test_metadata *_metadata, int fd, int h,
			 char *p, size_t len, unsigned char *back)
{
	size_t mid = len / 2 / GIB * GIB;

	ASSERT_EQ(0, munmap(p + mid, GIB));
	EXPECT_EQ(NOT_MAPPED, edu_addr(fd, h, mid));
	EXPECT_EQ(NOT_MAPPED, edu_addr(fd, h, mid + GIB - PAGE));
	EXPECT_EQ(-EFAULT, edu_dma(fd, h, mid, back, CHUNK,
				   GUP_RANGE_EDU_DMA_NOFAULT));
	EXPECT_NE(NOT_MAPPED, edu_addr(fd, h, mid - PAGE));
	EXPECT_NE(NOT_MAPPED, edu_addr(fd, h, mid + GIB));
}

static void one_call(struct __test_metadata *_metadata,
		     struct _test_data_large *self, unsigned int mode,
		     size_t gib)
{
	size_t len = gib * GIB;
	char *p = side_by_side(len, self->fd_1g, self->fd_2m);
	struct allocations a;
	double start, mapped;
	int h;

	ASSERT_NE(MAP_FAILED, p);
	allocations_begin("order > 0");
	start = now();
	h = edu_map(self->fd, p, len, mode | WRITE);
	mapped = now();
	a = allocations_end();
	ASSERT_LT(0, h);
	EXPECT_STREQ("", a.large);
	check_shape(_metadata, self->fd, h, p, len, mode & MIRROR);
	check_dma(_metadata, self->fd, h, p, len, self->buf, self->back);
	if (mode & MIRROR)
		check_munmap(_metadata, self->fd, h, p, len, self->back);
	printf("# %zu GiB %s: map %.0f ms", gib,
	       mode & MIRROR ? "mirrored" : "pinned", (mapped - start) * 1e3);
	start = now();
	EXPECT_EQ(0, edu_unmap(self->fd, h, len));
	printf(", unmap %.0f ms\n", (now() - start) * 1e3);
	munmap(p, len);
}

/* Just less than what one table of the second level holds, and just that. */
TEST_F_TIMEOUT(large, below_512_gib, 120)
{
	one_call(_metadata, self, variant->mode, 511);
}

TEST_F_TIMEOUT(large, of_512_gib, 120)
{
	one_call(_metadata, self, variant->mode, 512);
}

TEST_F_TIMEOUT(large, of_1_tib, 120)
{
	one_call(_metadata, self, variant->mode, 1024);
}

TEST_F_TIMEOUT(large, of_4_tib, 240)
{
	one_call(_metadata, self, variant->mode, 4096);
}

/* The range begins and ends inside of a page: the others are leaves as before. */
TEST_F_TIMEOUT(large, off_by_a_page, 120)
{
	size_t len = 512 * GIB, inner = len - 2 * PAGE;
	char *p = side_by_side(len, self->fd_1g, self->fd_2m);
	struct gup_range_edu_query q = {};
	int h;

	ASSERT_NE(MAP_FAILED, p);
	h = edu_map(self->fd, p + PAGE, inner, variant->mode | WRITE);
	ASSERT_LT(0, h);
	ASSERT_EQ(0, edu_query(self->fd, h, 0, &q));
	EXPECT_EQ(0, (q.addr ^ (uintptr_t)(p + PAGE)) & (GIB - 1));
	EXPECT_EQ(0, edu_dma(self->fd, h, inner - CHUNK, self->buf, CHUNK,
			     GUP_RANGE_EDU_DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->buf, p + PAGE + inner - CHUNK, CHUNK));
	EXPECT_EQ(0, edu_unmap(self->fd, h, inner));
	munmap(p, len);
}

/* ------------------------------------------------------------------- signals */

/* In a child: @state is 1 before the call and 2 after it. */
static void map_and_wait(char *p, size_t len, unsigned int flags,
			 atomic_int *state)
{
	int fd = open(EDU_DEV, O_RDWR);

	*state = 1;
	if (edu_map(fd, p, len, flags) > 0)
		*state = 2;
	for (;;)
		pause();
}

/* Kill the call after @us; how long it lived on, or -1 when it was too late. */
static double kill_after(char *p, size_t len, unsigned int flags,
			 unsigned int us, atomic_int *state)
{
	double start;
	pid_t pid;

	*state = 0;
	pid = fork();
	if (!pid)
		map_and_wait(p, len, flags, state);
	while (!*state)
		usleep(100);
	usleep(us);
	start = now();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return *state == 1 ? now() - start : -1;
}

/*
 * A fatal signal ends the call, and with it all that it had. What the process
 * needs besides is to take down the mappings.
 */
TEST_F_TIMEOUT(large, killed, 240)
{
	static const unsigned int delays[] = { 300000, 30000, 3000, 300 };
	size_t len = 4096 * GIB;
	char *p = side_by_side(len, self->fd_1g, self->fd_2m);
	atomic_int *state = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double whole, took;
	int i, h, early = 0;

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, state);
	whole = now();
	h = edu_map(self->fd, p, len, variant->mode | WRITE);
	whole = now() - whole;
	ASSERT_LT(0, h);
	ASSERT_EQ(0, edu_unmap(self->fd, h, len));

	for (i = 0; i < 4; i++) {
		took = kill_after(p, len, variant->mode | WRITE, delays[i], state);
		EXPECT_EQ(0, file_number(STATS, "pinned_bytes"));
		EXPECT_EQ(0, file_number(STATS, "mapped_bytes"));
		if (took < 0)
			continue;
		early++;
		printf("# killed after %u us of %.0f ms: over in %.0f ms\n",
		       delays[i], whole * 1e3, took * 1e3);
		EXPECT_GT(1.0, took);
	}
	/* A pinned range of so few runs may be faster than any delay. */
	EXPECT_LT(0, early + !(variant->mode & MIRROR));
	munmap(p, len);
}

/* ----------------------------------------------------------------- placement */

static void *nothing_there(size_t len, size_t off)
{
	char *p = mem_reserve(len + off, GIB);

	if (p == MAP_FAILED)
		return p;
	return mmap(p + off, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		    MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/*
 * Three times a quarter of the IOVA space, congruent modulo 1 GiB. With an
 * alignment to the size, which is a little more than a quarter, one would fit.
 */
TEST_F(large, three_quarters)
{
	size_t len = 128 * GIB;
	void *p = nothing_there(len, PAGE);
	int i, h[3];

	if (!(variant->mode & MIRROR))
		SKIP(return, "pinned memory would have to be there");
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, edu_mask(self->fd, 512 * GIB - 1));
	for (i = 0; i < 3; i++) {
		h[i] = edu_map(self->fd, p, len, variant->mode | ONLY);
		ASSERT_LT(0, h[i]);
	}
	EXPECT_EQ(-ENOMEM, edu_map(self->fd, p, len, variant->mode | ONLY));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, edu_unmap(self->fd, h[i], len));
	munmap(p, len);
}

/* That allocations are seen at all. */
TEST_F(large, oracle)
{
	struct allocations a;
	char *p = mem_reserve(HUGE, HUGE);
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(p, mmap(p, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			  MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	madvise(p, HUGE, MADV_HUGEPAGE);
	allocations_begin("order > 0");
	*p = 1;
	fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
	a = allocations_end();
	EXPECT_LT(0, a.pages);
	EXPECT_LT(0, a.kmallocs);
	EXPECT_STRNE("", a.large);
	close(fds[0]);
	close(fds[1]);
	munmap(p, HUGE);
}

TEST_HARNESS_MAIN
