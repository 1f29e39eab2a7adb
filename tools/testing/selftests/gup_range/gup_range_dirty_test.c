// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device writes survives reclaim, also where the page table entry was
 * writable but clean when the page was mapped. Half of the memory is the
 * control: nobody writes it, so reclaim has to drop it.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "../kselftest_harness.h"
#include "gup_range_util.h"

#define PINNED		0
#define MIRROR		GUP_RANGE_EDU_MAP_MIRROR
#define UMEM		GUP_RANGE_EDU_MAP_RDMA
#define ODP		(GUP_RANGE_EDU_MAP_RDMA | MIRROR)
#define WRITE		GUP_RANGE_EDU_MAP_WRITE
#define ONLY		GUP_RANGE_EDU_MAP_ONLY
#define DMA_WRITE	GUP_RANGE_EDU_DMA_WRITE

#define PAGES		4	/* that the device writes, of 4 KiB or of 2 MiB */
#define CHUNK		512	/* bytes of one DMA */
#define AT		8	/* where in a page */
#define BEFORE		0x11
#define KPF_THP		(1ULL << 22)

enum clean {
	SHMEM,			/* only read so far */
	FREE,			/* after MADV_FREE */
	FREE_THP,
};

struct memory {
	int fd;			/* of the device that writes to it */
	unsigned char *p;
	size_t page, half;
	unsigned char data[CHUNK];
};

FIXTURE(dirty)
{
	struct memory m;
};

FIXTURE_VARIANT(dirty)
{
	unsigned int mode;
	enum clean kind;
};

FIXTURE_VARIANT_ADD(dirty, mirrored_shmem) { .mode = MIRROR, .kind = SHMEM };
FIXTURE_VARIANT_ADD(dirty, mirrored_free) { .mode = MIRROR, .kind = FREE };
FIXTURE_VARIANT_ADD(dirty, mirrored_free_thp) { .mode = MIRROR, .kind = FREE_THP };
FIXTURE_VARIANT_ADD(dirty, odp_shmem) { .mode = ODP, .kind = SHMEM };
FIXTURE_VARIANT_ADD(dirty, odp_free) { .mode = ODP, .kind = FREE };
FIXTURE_VARIANT_ADD(dirty, odp_free_thp) { .mode = ODP, .kind = FREE_THP };
FIXTURE_VARIANT_ADD(dirty, pinned_shmem) { .mode = PINNED, .kind = SHMEM };
FIXTURE_VARIANT_ADD(dirty, pinned_free) { .mode = PINNED, .kind = FREE };
FIXTURE_VARIANT_ADD(dirty, pinned_free_thp) { .mode = PINNED, .kind = FREE_THP };
FIXTURE_VARIANT_ADD(dirty, umem_shmem) { .mode = UMEM, .kind = SHMEM };
FIXTURE_VARIANT_ADD(dirty, umem_free) { .mode = UMEM, .kind = FREE };

static bool bounces(void)
{
	static char cmdline[4096];

	read_file("/proc/cmdline", cmdline, sizeof(cmdline));
	return strstr(cmdline, "swiotlb=force") || strstr(cmdline, ",force");
}

/* A folio in the LRU batch of another CPU is not reclaimed. */
static void one_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* How many pages of 4 KiB are in memory. */
static size_t resident(unsigned char *p, size_t len)
{
	size_t i, n = len / PAGE, nr = 0;
	unsigned char vec[n];

	if (mincore(p, len, vec))
		return n;
	for (i = 0; i < n; i++)
		nr += vec[i] & 1;
	return nr;
}

static size_t reclaim(unsigned char *p, size_t len)
{
	for (int i = 0; i < 10 && resident(p, len); i++)
		madvise(p, len, MADV_PAGEOUT);
	return resident(p, len);
}

static void touch(unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len; i += PAGE)
		asm volatile("" : : "r" (p[i]));
}

static bool is_thp(const void *p)
{
	uint64_t flags = mem_page_flags(p);

	return flags != ~0ULL && flags & KPF_THP;
}

FIXTURE_SETUP(dirty)
{
	int type = variant->kind == SHMEM ? MAP_SHARED : MAP_PRIVATE;
	bool huge = variant->kind == FREE_THP;
	struct memory *m = &self->m;
	size_t len;

	one_cpu();
	memset(m->data, 0xa5, CHUNK);
	m->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(m->fd, 0);
	if (variant->mode & UMEM && !edu_rdma(m->fd))
		SKIP(return, "no CONFIG_INFINIBAND_ON_DEMAND_PAGING");
	if (variant->mode != PINNED && bounces())
		SKIP(return, "swiotlb=force refuses mirrored mode and RDMA");
	m->page = huge ? HUGE : PAGE;
	m->half = PAGES * m->page;
	len = 2 * m->half;
	m->p = mmap(mem_reserve(len, HUGE), len, PROT_READ | PROT_WRITE,
		    type | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)m->p);
	madvise(m->p, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);

	if (variant->kind != SHMEM)
		memset(m->p, BEFORE, len);
	if (huge && (!is_thp(m->p) || !is_thp(m->p + len - HUGE)))
		SKIP(return, "no transparent huge pages");
	if (variant->kind == FREE || huge) {
		ASSERT_EQ(0, madvise(m->p, len, MADV_FREE));
		return;
	}
	touch(m->p, len);
}

FIXTURE_TEARDOWN(dirty)
{
	struct memory *m = &self->m;

	if (m->p && m->p != MAP_FAILED)
		munmap(m->p, 2 * m->half);
	close(m->fd);
}

static int map(struct memory *m, unsigned int flags)
{
	return edu_map(m->fd, m->p, m->half, flags);
}

static void device_writes(struct __test_metadata *_metadata, struct memory *m,
			  int h)
{
	for (size_t i = 0; i < m->half; i += m->page)
		ASSERT_EQ(0, edu_dma(m->fd, h, i + AT, m->data, CHUNK,
				     DMA_WRITE));
}

/* After MADV_FREE the rest of a page may be as it was, or zero. */
static void survives(struct __test_metadata *_metadata, struct memory *m)
{
	size_t lost = 0;

	reclaim(m->p, m->half);
	if (reclaim(m->p + m->half, m->half))
		SKIP(return, "clean pages are not reclaimed here");
	for (size_t i = 0; i < m->half; i += m->page)
		lost += !!memcmp(m->p + i + AT, m->data, CHUNK);
	EXPECT_EQ(0, lost) {
		TH_LOG("%zu of %d pages lost what the device wrote", lost,
		       PAGES);
	}
}

TEST_F(dirty, reclaim_after_unmap)
{
	struct memory *m = &self->m;
	int h = map(m, variant->mode | WRITE);

	ASSERT_GT(h, 0);
	device_writes(_metadata, m, h);
	ASSERT_EQ(0, edu_unmap(m->fd, h, m->half));
	survives(_metadata, m);
}

/* Mirrored pages are taken away from the device; pinned ones stay until later. */
TEST_F(dirty, reclaim_while_mapped)
{
	struct memory *m = &self->m;
	int h = map(m, variant->mode | WRITE);

	ASSERT_GT(h, 0);
	device_writes(_metadata, m, h);
	survives(_metadata, m);
	EXPECT_EQ(0, edu_unmap(m->fd, h, m->half));
	survives(_metadata, m);
}

/* Mirrored: an upgrade of what is mapped for reading. */
TEST_F(dirty, write_after_read)
{
	struct memory *m = &self->m;
	bool mirrored = variant->mode & MIRROR;
	unsigned char back[CHUNK];
	int h = map(m, variant->mode | (mirrored ? WRITE | ONLY : 0));

	ASSERT_GT(h, 0);
	if (mirrored)
		ASSERT_EQ(0, edu_fault(m->fd, h, 0, m->half, false));
	ASSERT_EQ(0, edu_dma(m->fd, h, AT, back, CHUNK, 0));
	if (!mirrored) {
		ASSERT_EQ(0, edu_unmap(m->fd, h, m->half));
		h = map(m, variant->mode | WRITE);
		ASSERT_GT(h, 0);
	}
	device_writes(_metadata, m, h);
	EXPECT_EQ(0, edu_unmap(m->fd, h, m->half));
	survives(_metadata, m);
}

TEST_HARNESS_MAIN
