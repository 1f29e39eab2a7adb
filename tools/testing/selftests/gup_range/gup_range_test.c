// SPDX-License-Identifier: GPL-2.0-only
/*
 * gup_range_dma_map() and hmm_range_dma_map() through a device that really reads
 * and writes: QEMU's edu with drivers/misc/gup_range_edu.c. The IOMMU, if any,
 * is that of the boot. After each test the oracles of oracles_check() hold.
 *
 * The same for RDMA, which sits on top of them: ib_umem (UMEM) and on-demand
 * paging (ODP), if the kernel has them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "../kselftest_harness.h"
#include "../../../../lib/test_hmm_uapi.h"
#include "gup_range_oracles.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif
#ifndef __NR_memfd_secret
#define __NR_memfd_secret 447
#endif
#ifndef __NR_process_mrelease
#define __NR_process_mrelease 448
#endif

#define PINNED		0
#define MIRROR		GUP_RANGE_EDU_MAP_MIRROR
#define RDMA		GUP_RANGE_EDU_MAP_RDMA
#define UMEM		RDMA
#define ODP		(RDMA | MIRROR)
#define WRITE		GUP_RANGE_EDU_MAP_WRITE
#define ONLY		GUP_RANGE_EDU_MAP_ONLY
#define DMA_WRITE	GUP_RANGE_EDU_DMA_WRITE
#define NOFAULT		GUP_RANGE_EDU_DMA_NOFAULT

#define CHUNK		512	/* bytes of one DMA, where the number is free */

/* First byte of ZONE_MOVABLE; 0 if there is none, or nothing in it. */
static uint64_t movable_zone(void)
{
	static char buf[1 << 16];
	char *zone, *p;

	if (read_file("/proc/zoneinfo", buf, sizeof(buf)))
		return 0;
	zone = strstr(buf, "zone  Movable");
	p = zone ? strstr(zone, "present") : NULL;
	if (!p || !strtoul(p + 7, NULL, 10))
		return 0;
	p = strstr(p, "start_pfn:");
	return p ? strtoull(p + 10, NULL, 10) * PAGE : 0;
}

/*
 * Mirrored mode has no moment at which a bounce buffer could be copied, and RDMA
 * knows of none.
 */
static bool refused(unsigned int flags)
{
	return flags & (MIRROR | RDMA) && bounces();
}

static bool rdma_missing(int fd, unsigned int flags)
{
	return flags & RDMA && !edu_rdma(fd);
}

#define REFUSED "mirrored mode and RDMA are refused with swiotlb=force"
#define NO_RDMA "no CONFIG_INFINIBAND_ON_DEMAND_PAGING"
#define UNPROTECTED "no IOMMU stops this device"

/* ---------------------------------------------------- kinds of memory x mode */

FIXTURE(range)
{
	struct oracles o;
	int fd;
	unsigned char *p;
	size_t len;
	unsigned char buf[CHUNK];
	unsigned char back[CHUNK];
};

FIXTURE_VARIANT(range)
{
	unsigned int mode;
	enum mem_kind kind;
};

FIXTURE_VARIANT_ADD(range, pinned_4k) { .mode = PINNED, .kind = MEM_4K };
FIXTURE_VARIANT_ADD(range, mirrored_4k) { .mode = MIRROR, .kind = MEM_4K };
FIXTURE_VARIANT_ADD(range, umem_4k) { .mode = UMEM, .kind = MEM_4K };
FIXTURE_VARIANT_ADD(range, odp_4k) { .mode = ODP, .kind = MEM_4K };
FIXTURE_VARIANT_ADD(range, pinned_thp) { .mode = PINNED, .kind = MEM_THP };
FIXTURE_VARIANT_ADD(range, mirrored_thp) { .mode = MIRROR, .kind = MEM_THP };
FIXTURE_VARIANT_ADD(range, umem_thp) { .mode = UMEM, .kind = MEM_THP };
FIXTURE_VARIANT_ADD(range, odp_thp) { .mode = ODP, .kind = MEM_THP };
FIXTURE_VARIANT_ADD(range, pinned_hugetlb) { .mode = PINNED, .kind = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(range, mirrored_hugetlb) { .mode = MIRROR, .kind = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(range, umem_hugetlb) { .mode = UMEM, .kind = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(range, odp_hugetlb) { .mode = ODP, .kind = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(range, pinned_shmem) { .mode = PINNED, .kind = MEM_SHMEM };
FIXTURE_VARIANT_ADD(range, mirrored_shmem) { .mode = MIRROR, .kind = MEM_SHMEM };
FIXTURE_VARIANT_ADD(range, umem_shmem) { .mode = UMEM, .kind = MEM_SHMEM };
FIXTURE_VARIANT_ADD(range, odp_shmem) { .mode = ODP, .kind = MEM_SHMEM };
FIXTURE_VARIANT_ADD(range, pinned_memfd) { .mode = PINNED, .kind = MEM_MEMFD };
FIXTURE_VARIANT_ADD(range, mirrored_memfd) { .mode = MIRROR, .kind = MEM_MEMFD };
FIXTURE_VARIANT_ADD(range, umem_memfd) { .mode = UMEM, .kind = MEM_MEMFD };
FIXTURE_VARIANT_ADD(range, odp_memfd) { .mode = ODP, .kind = MEM_MEMFD };
FIXTURE_VARIANT_ADD(range, pinned_private_file) { .mode = PINNED, .kind = MEM_PRIVATE_FILE };
FIXTURE_VARIANT_ADD(range, mirrored_private_file) { .mode = MIRROR, .kind = MEM_PRIVATE_FILE };
FIXTURE_VARIANT_ADD(range, umem_private_file) { .mode = UMEM, .kind = MEM_PRIVATE_FILE };
FIXTURE_VARIANT_ADD(range, odp_private_file) { .mode = ODP, .kind = MEM_PRIVATE_FILE };
FIXTURE_VARIANT_ADD(range, pinned_read_only) { .mode = PINNED, .kind = MEM_READONLY };
FIXTURE_VARIANT_ADD(range, mirrored_read_only) { .mode = MIRROR, .kind = MEM_READONLY };
FIXTURE_VARIANT_ADD(range, umem_read_only) { .mode = UMEM, .kind = MEM_READONLY };
FIXTURE_VARIANT_ADD(range, odp_read_only) { .mode = ODP, .kind = MEM_READONLY };
FIXTURE_VARIANT_ADD(range, pinned_mixed) { .mode = PINNED, .kind = MEM_MIXED };
FIXTURE_VARIANT_ADD(range, mirrored_mixed) { .mode = MIRROR, .kind = MEM_MIXED };
FIXTURE_VARIANT_ADD(range, umem_mixed) { .mode = UMEM, .kind = MEM_MIXED };
FIXTURE_VARIANT_ADD(range, odp_mixed) { .mode = ODP, .kind = MEM_MIXED };

FIXTURE_SETUP(range)
{
	size_t i;

	oracles_begin(_metadata, &self->o);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	if (rdma_missing(self->fd, variant->mode))
		SKIP(return, NO_RDMA);
	self->len = mem_len(variant->kind);
	self->p = mem_alloc(variant->kind, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	for (i = 0; i < CHUNK; i++)
		self->buf[i] = ~mem_byte(i) ^ (i >> 3);
}

FIXTURE_TEARDOWN(range)
{
	close(self->fd);
	munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

/* The device reads what the CPU wrote: ends, page boundary, 2 MiB boundary. */
TEST_F(range, device_reads)
{
	size_t at[] = { 1, PAGE - CHUNK / 2, self->len / 2 - CHUNK / 2,
			self->len - CHUNK };
	unsigned int i;
	int h;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	h = edu_map(self->fd, self->p, self->len, variant->mode);
	ASSERT_GT(h, 0);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, edu_dma(self->fd, h, at[i], self->back, CHUNK, 0));
		EXPECT_EQ(0, memcmp(self->back, self->p + at[i], CHUNK));
		if (variant->mode != UMEM)
			continue;
		/* So does RDMA, without the device. */
		memset(self->back, 0, CHUNK);
		EXPECT_EQ(0, edu_dma(self->fd, h, at[i], self->back, CHUNK,
				     GUP_RANGE_EDU_DMA_CPU));
		EXPECT_EQ(0, memcmp(self->back, self->p + at[i], CHUNK));
	}
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

/* Not only where a DMA looks: each page of the range is where its address says. */
TEST_F(range, each_page_has_its_address)
{
	uint64_t *phys = calloc(self->len / PAGE, sizeof(*phys)), addr;
	size_t i;
	int h;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	ASSERT_NE(NULL, phys);
	h = edu_map(self->fd, self->p, self->len, variant->mode);
	ASSERT_GT(h, 0);
	addr = edu_addr(self->fd, h, 0);
	if (edu_protected(self->fd))
		ASSERT_EQ(NULL, iova_phys(addr, self->len, phys));
	for (i = 0; i < self->len; i += PAGE) {
		uint64_t at = edu_addr(self->fd, h, i);

		if (edu_protected(self->fd)) {
			ASSERT_EQ(addr + i, at);
			ASSERT_EQ(mem_phys(self->p + i), phys[i / PAGE])
				TH_LOG("page %zu", i / PAGE);
		} else if (!bounces()) {
			ASSERT_EQ(mem_phys(self->p + i), at)
				TH_LOG("page %zu", i / PAGE);
		}
	}
	/* A part of each page, another one each time, where RDMA reads without the device. */
	for (i = 0; variant->mode == UMEM && i < self->len; i += PAGE) {
		size_t at = i + i / PAGE * CHUNK % PAGE;

		ASSERT_EQ(0, edu_dma(self->fd, h, at, self->back, CHUNK,
				     GUP_RANGE_EDU_DMA_CPU));
		ASSERT_EQ(0, memcmp(self->back, self->p + at, CHUNK));
	}
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	free(phys);
}

/* The CPU reads what the device wrote, and nothing beside it has changed. */
TEST_F(range, device_writes)
{
	size_t at[] = { PAGE - CHUNK / 2, self->len / 2 - CHUNK / 2,
			self->len - CHUNK };
	size_t n, i = 0;
	int h;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);
	if (variant->kind == MEM_READONLY) {
		EXPECT_EQ(variant->mode & MIRROR ? -EPERM : -EFAULT, h);
		return;
	}
	ASSERT_GT(h, 0);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, edu_dma(self->fd, h, at[i], self->buf, CHUNK,
				     DMA_WRITE));
		EXPECT_EQ(0, memcmp(self->buf, self->p + at[i], CHUNK));
	}
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	n = 0;
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(at[i], mem_check(self->p, n, at[i]));
		EXPECT_EQ(0, memcmp(self->buf, self->p + at[i], CHUNK));
		n = at[i] + CHUNK;
	}
}

/* A write through a read-only mapping is stopped and changes nothing. */
TEST_F(range, read_only_map_stops_write)
{
	int h, ret;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	h = edu_map(self->fd, self->p, self->len, variant->mode);
	ASSERT_GT(h, 0);
	ret = edu_dma(self->fd, h, PAGE, self->buf, CHUNK, DMA_WRITE | NOFAULT);
	if (edu_protected(self->fd)) {
		EXPECT_EQ(0, ret);
		self->o.faults_expected = true;
	} else {
		EXPECT_EQ(-EPERM, ret);
	}
	EXPECT_EQ(mem_byte(PAGE), self->p[PAGE]);
	EXPECT_EQ(mem_byte(PAGE + CHUNK - 1), self->p[PAGE + CHUNK - 1]);
	EXPECT_EQ(0, edu_dma(self->fd, h, PAGE, self->back, CHUNK, 0));
	EXPECT_EQ(0, memcmp(self->back, self->p + PAGE, CHUNK));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

/* After unmap the device neither writes nor reads what it could reach. */
TEST_F(range, unmapped_address_is_dead)
{
	unsigned int write = variant->kind == MEM_READONLY ? 0 : WRITE;
	uint64_t addr;
	int h;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	h = edu_map(self->fd, self->p, self->len, variant->mode | write);
	ASSERT_GT(h, 0);
	addr = edu_addr(self->fd, h, PAGE);
	ASSERT_NE(NOT_MAPPED, addr);
	ASSERT_EQ(0, edu_dma(self->fd, h, PAGE, self->back, CHUNK, 0));
	ASSERT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(-ENOENT, edu_unmap(self->fd, h, self->len));
	if (!edu_protected(self->fd)) {
		EXPECT_EQ(-EPERM, edu_dma_raw(self->fd, addr, self->buf, CHUNK,
					      DMA_WRITE));
		return;
	}
	self->o.faults_expected = true;
	EXPECT_EQ(0, edu_dma_raw(self->fd, addr, self->buf, CHUNK, DMA_WRITE));
	EXPECT_EQ(mem_byte(PAGE), self->p[PAGE]);
	memset(self->back, 0, CHUNK);
	EXPECT_EQ(0, edu_dma_raw(self->fd, addr, self->back, CHUNK, 0));
	EXPECT_NE(0, memcmp(self->back, self->p + PAGE, CHUNK));
}

/* First and last byte anywhere; what lies outside is not touched. */
TEST_F(range, unaligned_ends)
{
	size_t off = PAGE - 3, len = self->len - 2 * PAGE + 5;
	int h;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	h = edu_map(self->fd, self->p + off, len, variant->mode |
		    (variant->kind == MEM_READONLY ? 0 : WRITE));
	ASSERT_GT(h, 0);
	ASSERT_EQ(0, edu_dma(self->fd, h, 0, self->back, CHUNK, 0));
	EXPECT_EQ(0, memcmp(self->back, self->p + off, CHUNK));
	ASSERT_EQ(0, edu_dma(self->fd, h, len - 7, self->back, 7, 0));
	EXPECT_EQ(0, memcmp(self->back, self->p + off + len - 7, 7));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, len - 7, self->back, 8, 0));
	/* The CPU goes on using the bytes beside the range. */
	if (variant->kind != MEM_READONLY) {
		self->p[off - 1] = 0x5a;
		self->p[off + len] = 0xa5;
	}
	EXPECT_EQ(0, edu_unmap(self->fd, h, len));
	if (variant->kind != MEM_READONLY) {
		EXPECT_EQ(0x5a, self->p[off - 1]);
		EXPECT_EQ(0xa5, self->p[off + len]);
	}
	EXPECT_EQ(off + len, mem_check(self->p, off, off + len));
}

/* Cost per run, and what the mapping looks like. */
TEST_F(range, cost_and_shape)
{
	struct gup_range_edu_query q = {
		.max_segment = PAGE,
		.pgsz_bitmap = PAGE | HUGE,
	};
	bool prot = edu_protected(self->fd);
	int h;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	h = edu_map(self->fd, self->p, self->len, variant->mode);
	ASSERT_GT(h, 0);
	ASSERT_EQ(0, edu_query(self->fd, h, 0, &q));
	if (variant->mode != UMEM) {
		/* A mirrored range takes some steps if it has to be faulted. */
		EXPECT_LE(prot ? 1 : 0, q.syncs);
		EXPECT_GE(prot ? (variant->mode & MIRROR ? 4 : 1) : 0, q.syncs);
		EXPECT_EQ(0, q.flushes);
		EXPECT_EQ(0, q.retries);
		EXPECT_GE(self->len / PAGE, q.links);
	}
	if (prot)
		EXPECT_EQ(0, (q.addr ^ (uintptr_t)self->p) &
			  ((mem_is_huge(variant->kind) ? HUGE : PAGE) - 1));
	if (mem_is_huge(variant->kind) && !bounces())
		EXPECT_GE(self->len / HUGE, q.links);
	if (!(variant->mode & MIRROR)) {
		EXPECT_EQ(self->len / PAGE, q.segs);
		EXPECT_LE(q.runs, q.links);
		if (prot) {
			EXPECT_EQ(q.addr, q.contig);
			if (variant->mode == PINNED)
				EXPECT_EQ(q.runs, q.links);
			EXPECT_EQ(self->len, q.avail);
			EXPECT_EQ((q.addr ^ (uintptr_t)self->p) & (HUGE - 1) ?
				  PAGE : HUGE, q.pgsz);
		}
		if (!bounces())
			EXPECT_GE(q.runs * 16 + 2 * 4096, q.metadata);
	} else {
		EXPECT_GE((self->len / HUGE + 1) * (prot ? 256 : 4608),
			  q.metadata);
	}
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

/* The same range again and again, two at once, in both orders. */
TEST_F(range, several_mappings)
{
	int a, b, i;

	if (refused(variant->mode))
		SKIP(return, REFUSED);
	for (i = 0; i < 2; i++) {
		a = edu_map(self->fd, self->p, self->len, variant->mode);
		b = edu_map(self->fd, self->p, self->len, variant->mode);
		ASSERT_GT(a, 0);
		ASSERT_GT(b, 0);
		EXPECT_EQ(0, edu_unmap(self->fd, i ? a : b, self->len));
		ASSERT_EQ(0, edu_dma(self->fd, i ? b : a, 0, self->back, CHUNK,
				     0));
		EXPECT_EQ(0, memcmp(self->back, self->p, CHUNK));
		EXPECT_EQ(0, edu_unmap(self->fd, i ? b : a, self->len));
	}
}

/* ------------------------------------------------------------- invalidation */

FIXTURE(mirror)
{
	struct oracles o;
	int fd;
	int h;
	unsigned char *p;
	size_t len;
	unsigned char buf[CHUNK];
};

FIXTURE_VARIANT(mirror)
{
	unsigned int mode;
	enum mem_kind kind;
};

FIXTURE_VARIANT_ADD(mirror, 4k) { .mode = MIRROR, .kind = MEM_4K };
FIXTURE_VARIANT_ADD(mirror, thp) { .mode = MIRROR, .kind = MEM_THP };
FIXTURE_VARIANT_ADD(mirror, hugetlb) { .mode = MIRROR, .kind = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(mirror, shmem) { .mode = MIRROR, .kind = MEM_SHMEM };
FIXTURE_VARIANT_ADD(mirror, odp_4k) { .mode = ODP, .kind = MEM_4K };
FIXTURE_VARIANT_ADD(mirror, odp_thp) { .mode = ODP, .kind = MEM_THP };
FIXTURE_VARIANT_ADD(mirror, odp_hugetlb) { .mode = ODP, .kind = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(mirror, odp_shmem) { .mode = ODP, .kind = MEM_SHMEM };

FIXTURE_SETUP(mirror)
{
	oracles_begin(_metadata, &self->o);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	if (refused(MIRROR))
		SKIP(return, REFUSED);
	if (rdma_missing(self->fd, variant->mode))
		SKIP(return, NO_RDMA);
	self->len = mem_len(variant->kind);
	self->p = mem_alloc(variant->kind, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	memset(self->buf, 0xee, CHUNK);
	self->h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);
	ASSERT_GT(self->h, 0);
}

FIXTURE_TEARDOWN(mirror)
{
	close(self->fd);
	if (self->p)
		munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

/*
 * The page is there for reading only: the IOMMU stops a write. In a region that
 * ODP can write to it is the device page table that does.
 */
static void write_stopped(struct __test_metadata *_metadata,
			  struct _test_data_mirror *self, unsigned int mode,
			  size_t off)
{
	unsigned char was = self->p[off];

	if (mode == ODP) {
		EXPECT_EQ(-EACCES, edu_dma(self->fd, self->h, off, self->buf,
					   CHUNK, DMA_WRITE | NOFAULT));
	} else if (edu_protected(self->fd)) {
		self->o.faults_expected = true;
		EXPECT_EQ(0, edu_dma(self->fd, self->h, off, self->buf, CHUNK,
				     DMA_WRITE | NOFAULT));
	}
	EXPECT_EQ(was, self->p[off]);
	EXPECT_NE(self->buf[0], self->p[off]);
}

/* The page that munmap() freed is out of reach, the others are not. */
TEST_F(mirror, munmap)
{
	size_t cut = mem_is_huge(variant->kind) ? HUGE : PAGE;
	uint64_t addr = edu_addr(self->fd, self->h, cut);

	ASSERT_NE(NOT_MAPPED, addr);
	ASSERT_EQ(0, munmap(self->p + cut, cut));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, cut));
	EXPECT_EQ(-EFAULT, edu_dma(self->fd, self->h, cut, self->buf, CHUNK,
				   DMA_WRITE | NOFAULT));
	EXPECT_EQ(-EFAULT, edu_dma(self->fd, self->h, cut, self->buf, CHUNK,
				   DMA_WRITE));
	EXPECT_EQ(0, edu_dma(self->fd, self->h, 0, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p, self->buf, CHUNK));
}

/* New memory at the same address: an old DMA address does not reach it. */
TEST_F(mirror, reused_address)
{
	size_t cut = mem_is_huge(variant->kind) ? HUGE : PAGE;
	uint64_t addr = edu_addr(self->fd, self->h, 0);

	if (!edu_protected(self->fd))
		SKIP(return, UNPROTECTED);
	ASSERT_EQ(0, edu_dma(self->fd, self->h, 0, self->buf, CHUNK, DMA_WRITE));
	ASSERT_NE(MAP_FAILED, mmap(self->p, cut, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
				   0));
	memset(self->p, 0x33, cut);
	self->o.faults_expected = true;
	EXPECT_EQ(0, edu_dma_raw(self->fd, addr, self->buf, CHUNK, DMA_WRITE));
	EXPECT_EQ(0x33, self->p[0]);
	EXPECT_EQ(0x33, self->p[CHUNK - 1]);
	EXPECT_EQ(0, edu_dma(self->fd, self->h, 0, self->buf, CHUNK, DMA_WRITE));
	EXPECT_EQ(0xee, self->p[0]);
}

TEST_F(mirror, madvise_dontneed)
{
	size_t cut = mem_is_huge(variant->kind) ? HUGE : PAGE;
	int advice = variant->kind == MEM_SHMEM ? MADV_REMOVE : MADV_DONTNEED;

	ASSERT_EQ(0, madvise(self->p + cut, cut, advice));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, cut));
	EXPECT_EQ(0, self->p[cut]);
	/* A device page fault brings in the new page. */
	EXPECT_EQ(0, edu_dma(self->fd, self->h, cut, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p + cut, self->buf, CHUNK));
	EXPECT_EQ(0, self->p[cut + CHUNK]);
}

TEST_F(mirror, mprotect)
{
	size_t cut = mem_is_huge(variant->kind) ? HUGE : PAGE;

	ASSERT_EQ(0, mprotect(self->p + cut, cut, PROT_READ));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, cut));
	EXPECT_EQ(-EPERM, edu_fault(self->fd, self->h, cut, PAGE, true));
	EXPECT_EQ(0, edu_fault(self->fd, self->h, cut, PAGE, false));
	write_stopped(_metadata, self, variant->mode, cut);
	ASSERT_EQ(0, mprotect(self->p + cut, cut, PROT_NONE));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, cut));
	EXPECT_EQ(-EFAULT, edu_fault(self->fd, self->h, cut, PAGE, false));
}

TEST_F(mirror, mremap)
{
	size_t cut = mem_is_huge(variant->kind) ? HUGE : PAGE;
	unsigned char *to = mem_reserve(cut, HUGE);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(to, mremap(self->p + cut, cut, cut,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, cut));
	EXPECT_EQ(-EFAULT, edu_dma(self->fd, self->h, cut, self->buf, CHUNK,
				   DMA_WRITE));
	EXPECT_EQ(mem_byte(cut), to[0]);
	munmap(to, cut);
}

/* In the child: until the parent has closed its ends of @pipe. */
static void wait_for(int *pipe)
{
	char c;

	close(pipe[1]);
	if (read(pipe[0], &c, 1))
		_exit(99);
}

/* The device goes on with the parent's page, whoever writes first. */
TEST_F(mirror, fork_and_cow)
{
	unsigned char back[CHUNK];
	int status, done[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(done));
	pid = fork();
	if (!pid) {
		wait_for(done);
		_exit(self->p[0] == mem_byte(0) ||
		      variant->kind == MEM_SHMEM ? 0 : 1);
	}
	self->p[1] = 0x77;
	ASSERT_EQ(0, edu_dma(self->fd, self->h, 0, back, CHUNK, 0));
	EXPECT_EQ(0, memcmp(self->p, back, CHUNK));
	ASSERT_EQ(0, edu_dma(self->fd, self->h, 0, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p, self->buf, CHUNK));
	close(done[0]);
	close(done[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* Part of what was linked at once: at least the part goes, never less. */
TEST_F(mirror, partial_unmap)
{
	size_t off = self->len / 2 + PAGE, len = 3 * PAGE;
	uintptr_t start, end, va = (uintptr_t)self->p;
	struct gup_range_edu_query q = {};
	size_t i;

	ASSERT_EQ(0, edu_unmap_part(self->fd, self->h, off, len, &start, &end));
	EXPECT_LE(start, va + off);
	EXPECT_GE(end, va + off + len);
	for (i = 0; i < self->len; i += PAGE) {
		bool gone = va + i >= start && va + i < end;

		EXPECT_EQ(gone, edu_addr(self->fd, self->h, i) == NOT_MAPPED);
	}
	ASSERT_EQ(0, edu_query(self->fd, self->h, 0, &q));
	EXPECT_EQ(edu_protected(self->fd) ? 1 : 0, q.flushes);
	/* Nothing mapped there any more: nothing to do. */
	EXPECT_EQ(0, edu_unmap_part(self->fd, self->h, off, len, &start, &end));
	EXPECT_EQ(0, edu_dma(self->fd, self->h, off, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p + off, self->buf, CHUNK));
}

/* Every 4K of 2 MiB in turn is invalidated; the device reads on correctly. */
TEST_F(mirror, each_page_in_turn)
{
	size_t i, span = self->len < HUGE ? self->len : HUGE;
	unsigned char back[64];

	for (i = 0; i < span; i += PAGE) {
		ASSERT_EQ(0, edu_unmap_part(self->fd, self->h, i, PAGE, NULL,
					    NULL));
		ASSERT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, i));
		ASSERT_EQ(0, edu_fault(self->fd, self->h, i, PAGE, true));
		ASSERT_NE(NOT_MAPPED, edu_addr(self->fd, self->h, i));
	}
	ASSERT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, true));
	for (i = 0; i < self->len; i += self->len / 4) {
		ASSERT_EQ(0, edu_dma(self->fd, self->h, i, back, 64, 0));
		EXPECT_EQ(0, memcmp(self->p + i, back, 64));
	}
}

/* Mapped for reading, then asked for writing: the rights grow, once. */
TEST_F(mirror, read_then_write)
{
	struct gup_range_edu_query q = {};
	uint64_t before, after, flushes;
	size_t i;

	ASSERT_EQ(0, edu_unmap(self->fd, self->h, self->len));
	self->h = edu_map(self->fd, self->p, self->len,
			  variant->mode | WRITE | ONLY);
	ASSERT_GT(self->h, 0);
	ASSERT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, false));
	before = edu_addr(self->fd, self->h, PAGE);
	/* On-demand paging maps what is writable and dirty for writing at once. */
	if (variant->mode != ODP)
		write_stopped(_metadata, self, variant->mode, PAGE);
	ASSERT_EQ(0, edu_dma(self->fd, self->h, PAGE, self->buf, CHUNK,
			     DMA_WRITE | (variant->mode == ODP ? NOFAULT : 0)));
	EXPECT_EQ(0, memcmp(self->p + PAGE, self->buf, CHUNK));
	after = edu_addr(self->fd, self->h, PAGE);
	EXPECT_EQ(before, after);
	/* Its neighbours are still mapped, and read-only unless of a huge page. */
	for (i = 0; i < self->len; i += PAGE)
		EXPECT_NE(NOT_MAPPED, edu_addr(self->fd, self->h, i));
	if (variant->mode != ODP && !mem_is_huge(variant->kind))
		write_stopped(_metadata, self, variant->mode, 2 * PAGE);
	/* All of them: a flush for each span, not one for each page. */
	ASSERT_EQ(0, edu_query(self->fd, self->h, 0, &q));
	flushes = q.flushes;
	if (variant->mode == ODP)
		EXPECT_EQ(0, flushes);
	ASSERT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, true));
	ASSERT_EQ(0, edu_query(self->fd, self->h, 0, &q));
	EXPECT_GE(flushes + (variant->mode == ODP ? 0 : 4), q.flushes);
	ASSERT_EQ(0, edu_dma(self->fd, self->h, self->len - CHUNK, self->buf,
			     CHUNK, DMA_WRITE | NOFAULT));
	EXPECT_EQ(0, memcmp(self->p + self->len - CHUNK, self->buf, CHUNK));
}

/* What was linked together goes together, whatever was upgraded of it since. */
TEST_F(mirror, upgrade_then_unmap)
{
	uint64_t start, end;
	size_t i;

	ASSERT_EQ(0, edu_unmap(self->fd, self->h, self->len));
	self->h = edu_map(self->fd, self->p, self->len,
			  variant->mode | WRITE | ONLY);
	ASSERT_GT(self->h, 0);
	ASSERT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, false));
	for (i = PAGE; i < self->len; i += 4 * PAGE)
		ASSERT_EQ(0, edu_fault(self->fd, self->h, i, PAGE, true));
	ASSERT_EQ(0, edu_unmap_part(self->fd, self->h, 2 * PAGE, PAGE, &start,
				    &end));
	EXPECT_LE(start, (uintptr_t)self->p + 2 * PAGE);
	EXPECT_GE(end, (uintptr_t)self->p + 3 * PAGE);
	for (i = 0; i < self->len; i += PAGE) {
		uint64_t va = (uintptr_t)self->p + i;

		EXPECT_EQ(va >= start && va < end,
			  edu_addr(self->fd, self->h, i) == NOT_MAPPED)
			TH_LOG("page %zu of %zu", i / PAGE, self->len / PAGE);
	}
	ASSERT_EQ(0, edu_dma(self->fd, self->h, 0, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p, self->buf, CHUNK));
	ASSERT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, false));
	if (variant->mode != ODP && !mem_is_huge(variant->kind))
		write_stopped(_metadata, self, variant->mode, 8 * PAGE);
}

/*
 * A device with pages of 2 MiB, as IB_ACCESS_HUGETLB. ODP rounds what it is asked
 * for to such pages. An IOMMU makes them of smaller ones.
 */
TEST_F(mirror, device_pages_of_2m)
{
	bool huge = mem_is_huge(variant->kind), prot = edu_protected(self->fd);
	size_t off = variant->mode == ODP ? PAGE : 0, len = 2 * HUGE - 2 * off;
	int h, advice = variant->kind == MEM_SHMEM ? MADV_REMOVE : MADV_DONTNEED;
	unsigned char *p = self->p, *border;

	ASSERT_EQ(0, edu_unmap(self->fd, self->h, self->len));
	if (!huge)
		p = mem_alloc(variant->kind, 2 * HUGE);
	ASSERT_NE(MAP_FAILED, p);
	border = p + HUGE;
	h = edu_map_pages(self->fd, p + off, len, variant->mode | WRITE, HUGE);
	if (!prot && (variant->mode == MIRROR || !huge)) {
		EXPECT_EQ(variant->mode == MIRROR ? -EOPNOTSUPP : -EINVAL, h);
	} else {
		ASSERT_GT(h, 0);
		EXPECT_EQ(0, (edu_addr(self->fd, h, 0) ^ (uintptr_t)(p + off)) &
			  (HUGE - 1));
		ASSERT_EQ(0, edu_dma(self->fd, h, HUGE - off - CHUNK / 2,
				     self->buf, CHUNK, DMA_WRITE));
		EXPECT_EQ(0, memcmp(border - CHUNK / 2, self->buf, CHUNK));
		ASSERT_EQ(0, madvise(border, HUGE, advice));
		EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, h, HUGE - off));
		EXPECT_NE(NOT_MAPPED, edu_addr(self->fd, h, 0));
		ASSERT_EQ(0, edu_dma(self->fd, h, HUGE - off, self->buf, CHUNK,
				     DMA_WRITE));
		EXPECT_EQ(0, memcmp(border, self->buf, CHUNK));
		EXPECT_EQ(0, border[CHUNK]);
		EXPECT_EQ(HUGE - CHUNK / 2, mem_check(p, 0, HUGE));
		EXPECT_EQ(0, edu_unmap(self->fd, h, len));
	}
	if (!huge)
		munmap(p, 2 * HUGE);
}

/* ----------------------------------------------- mirrored, one kind of memory */

FIXTURE(mirror_one)
{
	struct oracles o;
	unsigned int mode;
	int fd;
	int h;
	unsigned char *p;
	size_t len;
	unsigned char buf[CHUNK];
};

FIXTURE_VARIANT(mirror_one)
{
	unsigned int mode;
};

FIXTURE_VARIANT_ADD(mirror_one, mirrored) { .mode = MIRROR };
FIXTURE_VARIANT_ADD(mirror_one, odp) { .mode = ODP };

FIXTURE_SETUP(mirror_one)
{
	oracles_begin(_metadata, &self->o);
	if (refused(MIRROR))
		SKIP(return, REFUSED);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	if (rdma_missing(self->fd, variant->mode))
		SKIP(return, NO_RDMA);
	self->mode = variant->mode;
	memset(self->buf, 0xee, CHUNK);
}

FIXTURE_TEARDOWN(mirror_one)
{
	if (self->fd > 0)
		close(self->fd);
	if (self->p)
		munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

static void mirror_one(struct __test_metadata *_metadata,
		       struct _test_data_mirror_one *self, enum mem_kind kind)
{
	self->len = mem_len(kind);
	self->p = mem_alloc(kind, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	self->h = edu_map(self->fd, self->p, self->len, self->mode | WRITE);
	ASSERT_GT(self->h, 0);
}

/* Each allocation of a call can be made to fail. */
static void may_fail(struct __test_metadata *_metadata)
{
	const char *error = fail_setup();

	ASSERT_EQ(NULL, error)
		TH_LOG("%s cannot be set", error);
}

struct disturber {
	unsigned char *p;
	size_t len;
	atomic_bool stop;
	pthread_t thread;
};

static void *disturber_run(void *arg)
{
	struct disturber *d = arg;

	while (!d->stop) {
		mprotect(d->p, d->len, PROT_READ);
		mprotect(d->p, d->len, PROT_READ | PROT_WRITE);
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Bytes of huge pages in the VMA that begins at @p; -1: no such VMA. */
static long huge_bytes(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[256], start[32];
	bool found = false;
	long kb = -1;

	sprintf(start, "%lx-", (unsigned long)p);
	while (f && fgets(line, sizeof(line), f)) {
		found |= !strncmp(line, start, strlen(start));
		if (found && sscanf(line, "AnonHugePages: %ld", &kb) == 1)
			break;
	}
	if (f)
		fclose(f);
	return kb < 0 ? -1 : kb * 1024;
}

/* A THP is split, or collapsed, under the mapping. */
TEST_F(mirror_one, thp_split_and_collapse)
{
	mirror_one(_metadata, self, MEM_THP);
	ASSERT_EQ((long)self->len, huge_bytes(self->p));
	ASSERT_EQ(0, madvise(self->p + 5 * PAGE, PAGE, MADV_DONTNEED));
	EXPECT_EQ((long)(self->len - HUGE), huge_bytes(self->p));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, 5 * PAGE));
	EXPECT_EQ(0, edu_dma(self->fd, self->h, 6 * PAGE - CHUNK / 2, self->buf,
			     CHUNK, DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p + 6 * PAGE - CHUNK / 2, self->buf, CHUNK));
	ASSERT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, true));
	ASSERT_EQ(0, madvise(self->p, HUGE, MADV_COLLAPSE));
	EXPECT_EQ((long)self->len, huge_bytes(self->p));
	EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, 9 * PAGE));
	EXPECT_NE(NOT_MAPPED, edu_addr(self->fd, self->h, HUGE));
	EXPECT_EQ(0, memcmp(self->p + 6 * PAGE - CHUNK / 2, self->buf, CHUNK));
	EXPECT_EQ(0, edu_dma(self->fd, self->h, 9 * PAGE, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p + 9 * PAGE, self->buf, CHUNK));
	EXPECT_EQ(self->len, mem_check(self->p, 9 * PAGE + CHUNK, self->len));
}

struct writer {
	int fd, h;
	size_t offset, span;
	unsigned int flags;
	atomic_bool stop;
	atomic_int dmas;	/* that were done */
	int errors;
	pthread_t thread;
};

static void *writer_run(void *arg)
{
	struct writer *w = arg;
	unsigned char buf[CHUNK];
	size_t at = 0;
	int ret;

	memset(buf, 0xdd, CHUNK);
	while (!w->stop) {
		ret = edu_dma(w->fd, w->h, w->offset + at, buf, CHUNK, w->flags);
		if (ret && ret != -EFAULT && ret != -EBUSY)
			w->errors++;
		w->dmas += !ret;
		at = (at + PAGE) % w->span;
	}
	return NULL;
}

/* Rounds of a test that runs beside the device, and DMAs that they have to see. */
#define ROUNDS		12
#define MOST_ROUNDS	60
#define DMAS		12

/*
 * The device writes without end while the CPU takes the pages away and uses them
 * for other things: no canary is ever hit.
 */
static void canaries(struct __test_metadata *_metadata,
		     struct _test_data_mirror_one *self, enum mem_kind kind)
{
	size_t span = 8 * PAGE, i;
	struct writer w = {
		.fd = self->fd, .span = span, .flags = DMA_WRITE,
	};
	unsigned char *other;
	int round;

	mirror_one(_metadata, self, kind);
	w.h = self->h;
	self->o.faults_expected = true;
	ASSERT_EQ(0, pthread_create(&w.thread, NULL, writer_run, &w));
	for (round = 0; round < ROUNDS ||
	     (round < MOST_ROUNDS && w.dmas < DMAS); round++) {
		usleep(70000 + round % ROUNDS * 9000);
		madvise(self->p, span, kind == MEM_SHMEM ?
			MADV_REMOVE : MADV_DONTNEED);
		other = mmap(NULL, span, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ASSERT_NE(MAP_FAILED, other);
		memset(other, 0x44, span);
		usleep(110000);
		for (i = 0; i < span; i++)
			if (other[i] != 0x44)
				break;
		EXPECT_EQ(span, i);
		munmap(other, span);
	}
	w.stop = true;
	pthread_join(w.thread, NULL);
	EXPECT_EQ(0, w.errors);
	EXPECT_LE(DMAS, w.dmas);
}

TEST_F_TIMEOUT(mirror_one, canaries_4k, 120)
{
	canaries(_metadata, self, MEM_4K);
}

TEST_F_TIMEOUT(mirror_one, canaries_thp, 120)
{
	canaries(_metadata, self, MEM_THP);
}

TEST_F_TIMEOUT(mirror_one, canaries_shmem, 120)
{
	canaries(_metadata, self, MEM_SHMEM);
}

#define OWN	0x22

struct reader {
	int fd, h;
	atomic_bool stop;
	atomic_int dmas;	/* that were done */
	int errors, foreign;
	pthread_t thread;
};

static void *reader_run(void *arg)
{
	struct reader *r = arg;
	unsigned char buf[CHUNK];
	size_t at = 0;
	int ret, i;

	while (!r->stop) {
		ret = edu_dma(r->fd, r->h, at, buf, CHUNK, 0);
		r->errors += ret && ret != -EBUSY;
		for (i = 0; !ret && i < CHUNK; i++)
			if (buf[i] != OWN && buf[i])
				break;
		r->foreign += !ret && i < CHUNK;
		r->dmas += !ret;
		at = (at + PAGE) % (8 * PAGE);
	}
	return NULL;
}

/*
 * The device reads without end while its pages are freed and used for other
 * things: it sees what was there, or zeroes of a new page, and nothing else.
 */
TEST_F_TIMEOUT(mirror_one, reads_nothing_foreign, 120)
{
	struct reader r = { .fd = self->fd };
	unsigned char *other;
	int round;

	mirror_one(_metadata, self, MEM_4K);
	r.h = self->h;
	self->o.faults_expected = true;
	memset(self->p, OWN, self->len);
	ASSERT_EQ(0, edu_dma(self->fd, self->h, 0, self->buf, CHUNK, 0));
	ASSERT_EQ(0, pthread_create(&r.thread, NULL, reader_run, &r));
	for (round = 0; round < ROUNDS ||
	     (round < MOST_ROUNDS && r.dmas < DMAS); round++) {
		usleep(60000 + round % ROUNDS * 9000);
		/* Freed pages are poisoned, taken ones filled. */
		madvise(self->p, self->len, MADV_DONTNEED);
		other = mmap(NULL, self->len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ASSERT_NE(MAP_FAILED, other);
		memset(other, 0x44, self->len);
		usleep(60000);
		munmap(other, self->len);
		memset(self->p, OWN, self->len);
	}
	r.stop = true;
	pthread_join(r.thread, NULL);
	EXPECT_EQ(0, r.errors);
	EXPECT_EQ(0, r.foreign);
	EXPECT_LE(DMAS, r.dmas);
}

/* One page that whoever touches it waits for; its userfaultfd. */
static int trap_page(void **p)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.mode = UFFDIO_REGISTER_MODE_MISSING,
		.range.len = PAGE,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);

	*p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)*p;
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) ||
	    ioctl(uffd, UFFDIO_REGISTER, &reg))
		_exit(98);
	return uffd;
}

/* Keep the address space of @pid in use, until this process is killed. */
static void hold_mm(pid_t pid)
{
	char path[64];
	void *p;

	trap_page(&p);
	sprintf(path, "/proc/%d/pagemap", pid);
	pread(open(path, O_RDONLY), p, 8, 0);
	_exit(97);
}

/*
 * The process is killed for its memory, but its address space lives on, because
 * somebody is looking at it. So it is the OOM reaper that takes the memory away,
 * and it must not sleep in the notifier.
 */
TEST_F(mirror_one, oom_reaper)
{
	long len = 16 * PAGE;
	int i, status;
	pid_t pid, holder;

	if (!edu_protected(self->fd))
		SKIP(return, "the device would have to be waited for");
	pid = fork();
	if (!pid) {
		write_file("/proc/self/oom_score_adj", "1000");
		if (edu_map(self->fd, mem_alloc(MEM_4K, len), len,
			    variant->mode | WRITE) <= 0)
			_exit(1);
		pause();
		_exit(2);
	}
	for (i = 0; i < 100 && file_number(STATS, "mapped_bytes") != len; i++)
		usleep(100000);
	holder = fork();
	if (!holder)
		hold_mm(pid);
	usleep(200000);
	EXPECT_EQ(len, file_number(STATS, "mapped_bytes"));
	ASSERT_EQ(0, write_file("/proc/sysrq-trigger", "f"));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	for (i = 0; i < 100 && file_number(STATS, "mapped_bytes"); i++)
		usleep(100000);
	EXPECT_EQ(0, file_number(STATS, "mapped_bytes"));
	/* It was the reaper: the address space still has its user. */
	EXPECT_EQ(0, waitpid(holder, &status, WNOHANG));
	kill(holder, SIGKILL);
	ASSERT_EQ(holder, waitpid(holder, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

/* Each allocation of a device page fault and of an upgrade fails in turn. */
TEST_F(mirror_one, fail_each_allocation_of_fault)
{
	int n, h, ret, failed = 0;
	bool unused = false;

	mirror_one(_metadata, self, MEM_4K);
	ASSERT_EQ(0, edu_unmap(self->fd, self->h, self->len));
	/* It keeps the mapping when the allocation of its unmap fails. */
	if (iommu_is("virtio"))
		SKIP(return, "virtio-iommu allocates to unmap");
	may_fail(_metadata);
	for (n = 1; n < 1000 && !unused; n++) {
		h = edu_map(self->fd, self->p, self->len,
			    variant->mode | WRITE | ONLY);
		ASSERT_GT(h, 0);
		ASSERT_EQ(0, edu_fault(self->fd, h, 0, 4 * PAGE, false));
		fail_nth(_metadata, n);
		ret = edu_fault(self->fd, h, PAGE, 6 * PAGE, true);
		unused = fail_nth(_metadata, 0);
		if (ret) {
			EXPECT_TRUE(ret == -ENOMEM || ret == -EFAULT ||
				    ret == -EIO);
			failed++;
			/* EFAULT may be of a result that was not stored. */
			EXPECT_TRUE(ret == -EFAULT || NOT_MAPPED ==
				    edu_addr(self->fd, h, 6 * PAGE));
			unused = false;
		}
		EXPECT_EQ(0, edu_fault(self->fd, h, PAGE, 6 * PAGE, true));
		EXPECT_NE(NOT_MAPPED, edu_addr(self->fd, h, 6 * PAGE));
		EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	}
	EXPECT_LT(0, failed);
	EXPECT_GT(1000, n);
}

/* Times that a fault of @h began anew because of an invalidation. */
static uint64_t retries(int fd, int h)
{
	struct gup_range_edu_query q = {};

	return edu_query(fd, h, 0, &q) ? 0 : q.retries;
}

/* Invalidated without end: it succeeds or says EBUSY, in a bounded time. */
TEST_F_TIMEOUT(mirror_one, endless_invalidation, 120)
{
	struct disturber d = {};
	double start, begin = seconds();
	int i, ret;

	mirror_one(_metadata, self, MEM_4K);
	d.p = self->p;
	d.len = self->len;
	ASSERT_EQ(0, pthread_create(&d.thread, NULL, disturber_run, &d));
	for (i = 0; i < 20 || (!retries(self->fd, self->h) &&
			       seconds() - begin < 60); i++) {
		start = seconds();
		ret = edu_fault(self->fd, self->h, 0, self->len, false);
		EXPECT_TRUE(ret == 0 || ret == -EBUSY);
		EXPECT_GT(15, seconds() - start);
	}
	d.stop = true;
	pthread_join(d.thread, NULL);
	EXPECT_LT(0, retries(self->fd, self->h))
		TH_LOG("none of %d faults was disturbed", i);
	EXPECT_EQ(0, edu_fault(self->fd, self->h, 0, self->len, true));
	EXPECT_EQ(0, edu_unmap(self->fd, self->h, self->len));
}

/* The copy-on-write faults of a call do not make it start again. */
TEST_F(mirror_one, write_after_fork)
{
	int status;
	pid_t pid;

	self->len = 8 * HUGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	self->h = edu_map(self->fd, self->p, self->len, self->mode | WRITE);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ASSERT_GT(self->h, 0);
	EXPECT_GE(1, retries(self->fd, self->h));
	ASSERT_EQ(0, edu_dma(self->fd, self->h, self->len - CHUNK, self->buf,
			     CHUNK, DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p + self->len - CHUNK, self->buf, CHUNK));
	EXPECT_EQ(0, edu_unmap(self->fd, self->h, self->len));
}

static void *dropper_run(void *arg)
{
	struct disturber *d = arg;

	while (!d->stop) {
		madvise(d->p, d->len, MADV_DONTNEED);
		*d->p = 1;
		usleep(1000);
	}
	return NULL;
}

/* A page elsewhere in what can be mapped is dropped all the time. */
TEST_F(mirror_one, disturbed_elsewhere)
{
	struct disturber d = {};
	int i;

	self->len = 8 * HUGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	self->h = edu_map(self->fd, self->p, self->len,
			  self->mode | WRITE | ONLY);
	ASSERT_GT(self->h, 0);
	d.p = self->p + self->len - PAGE;
	d.len = PAGE;
	ASSERT_EQ(0, pthread_create(&d.thread, NULL, dropper_run, &d));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, edu_fault(self->fd, self->h, i * 2 * HUGE,
				       2 * HUGE, true));
	d.stop = true;
	pthread_join(d.thread, NULL);
	for (i = 0; i < 6 * HUGE; i += PAGE)
		EXPECT_NE(NOT_MAPPED, edu_addr(self->fd, self->h, i));
	EXPECT_EQ(0, edu_unmap(self->fd, self->h, self->len));
}

/* Every second page is mapped; all of them go with one flush. */
TEST_F(mirror_one, holes_in_one_flush)
{
	struct gup_range_edu_query q = {};
	uint64_t start, end, flushes;
	size_t i;

	self->len = 2 * HUGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	self->h = edu_map(self->fd, self->p, self->len,
			  self->mode | WRITE | ONLY);
	ASSERT_GT(self->h, 0);
	for (i = 0; i < self->len; i += 2 * PAGE)
		ASSERT_EQ(0, edu_fault(self->fd, self->h, i, PAGE, true));
	ASSERT_EQ(0, edu_query(self->fd, self->h, 0, &q));
	flushes = q.flushes;
	ASSERT_EQ(0, edu_unmap_part(self->fd, self->h, 0, self->len - PAGE,
				    &start, &end));
	for (i = 0; i < self->len; i += PAGE)
		EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->h, i));
	ASSERT_EQ(0, edu_query(self->fd, self->h, 0, &q));
	EXPECT_EQ(flushes + edu_protected(self->fd), q.flushes);
	EXPECT_EQ(0, edu_unmap(self->fd, self->h, self->len));
}

/* ------------------------------------------------------------- pinned memory */

FIXTURE(pinned)
{
	struct oracles o;
	int fd;
	unsigned char *p;
	size_t len;
	unsigned char buf[CHUNK];
};

FIXTURE_SETUP(pinned)
{
	oracles_begin(_metadata, &self->o);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	self->len = 64 * PAGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	memset(self->buf, 0xee, CHUNK);
}

FIXTURE_TEARDOWN(pinned)
{
	close(self->fd);
	munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

/* What does not depend on who pins. */
FIXTURE(held)
{
	struct oracles o;
	int fd;
	unsigned char *p;
	size_t len;
	unsigned char buf[CHUNK];
};

FIXTURE_VARIANT(held)
{
	unsigned int mode;
	unsigned int acct;	/* so that mm->pinned_vm is charged */
};

FIXTURE_VARIANT_ADD(held, pinned) { .mode = PINNED, .acct = ACCT_PINNED_VM };
FIXTURE_VARIANT_ADD(held, umem) { .mode = UMEM };

FIXTURE_SETUP(held)
{
	oracles_begin(_metadata, &self->o);
	if (refused(variant->mode))
		SKIP(return, REFUSED);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	if (rdma_missing(self->fd, variant->mode))
		SKIP(return, NO_RDMA);
	self->len = 64 * PAGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	memset(self->buf, 0xee, CHUNK);
}

FIXTURE_TEARDOWN(held)
{
	if (self->fd > 0)
		close(self->fd);
	if (self->p)
		munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

TEST_F(held, fork_and_cow)
{
	int h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);
	int status, done[2];
	pid_t pid;

	ASSERT_GT(h, 0);
	ASSERT_EQ(0, pipe(done));
	pid = fork();
	if (!pid) {
		/* Pinned pages are copied at fork: the child has its own. */
		wait_for(done);
		_exit(self->p[0] == mem_byte(0) ? 0 : 1);
	}
	self->p[1] = 0x77;
	ASSERT_EQ(0, edu_dma(self->fd, h, 0, self->buf, CHUNK, DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->p, self->buf, CHUNK));
	close(done[0]);
	close(done[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* The pages stay the device's after munmap(), and go with the handle. */
TEST_F(held, survives_munmap)
{
	int h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);
	unsigned char back[CHUNK];

	ASSERT_GT(h, 0);
	ASSERT_EQ(0, munmap(self->p, self->len));
	ASSERT_EQ(0, edu_dma(self->fd, h, PAGE, self->buf, CHUNK, DMA_WRITE));
	ASSERT_EQ(0, edu_dma(self->fd, h, PAGE, back, CHUNK, 0));
	EXPECT_EQ(0, memcmp(self->buf, back, CHUNK));
	EXPECT_EQ((long)self->len, file_number(STATS, "pinned_bytes"));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

TEST_F(held, only_whole)
{
	int h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);

	ASSERT_GT(h, 0);
	EXPECT_EQ(-EINVAL, edu_unmap_part(self->fd, h, PAGE, PAGE, NULL, NULL));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

/* Pin without map: the runs are there, DMA addresses are not. */
TEST_F(pinned, pin_only)
{
	struct gup_range_edu_query q = {};
	int h = edu_map(self->fd, self->p, self->len, WRITE | ONLY);

	ASSERT_GT(h, 0);
	ASSERT_EQ(0, edu_query(self->fd, h, 0, &q));
	EXPECT_LE(1, q.runs);
	EXPECT_GE(64, q.runs);
	EXPECT_EQ(NOT_MAPPED, q.addr);
	EXPECT_EQ(0, q.links);
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, 0, self->buf, CHUNK, 0));
	EXPECT_EQ(0, file_number(STATS, "maps"));
	EXPECT_EQ(1, file_number(STATS, "pins"));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

static long vm_kb(const char *key)
{
	return file_number("/proc/self/status", key);
}

TEST_F(pinned, accounting_none)
{
	int h = edu_map_acct(self->fd, self->p, self->len, 0, ACCT_NONE);

	ASSERT_GT(h, 0);
	EXPECT_EQ(0, vm_kb("VmPin"));
	EXPECT_EQ(0, vm_kb("VmLck"));
}

TEST_F(held, accounting_pinned_vm)
{
	int h = edu_map_acct(self->fd, self->p + 1, self->len - 2,
			     variant->mode, variant->acct);

	ASSERT_GT(h, 0);
	EXPECT_EQ((long)self->len / 1024, vm_kb("VmPin"));
	EXPECT_EQ(0, vm_kb("VmLck"));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len - 2));
	EXPECT_EQ(0, vm_kb("VmPin"));
}

TEST_F(pinned, accounting_locked_vm)
{
	int h = edu_map_acct(self->fd, self->p, self->len, 0, ACCT_LOCKED_VM);

	ASSERT_GT(h, 0);
	EXPECT_EQ(0, vm_kb("VmPin"));
	EXPECT_EQ((long)self->len / 1024, vm_kb("VmLck"));
}

/* At the limit it succeeds, again and again; one page over it does not. */
static void at_the_limit(struct __test_metadata *_metadata, int fd,
			 unsigned char *p, size_t len, unsigned int mode,
			 unsigned int acct)
{
	struct rlimit limit = { len, len }, none = {};
	int h, i, status, fails = 0;
	pid_t pid = fork();

	if (!pid) {
		setrlimit(RLIMIT_MEMLOCK, &limit);
		/* Not root any more: root has CAP_IPC_LOCK. */
		if (setresuid(4711, 4711, 4711))
			_exit(100);
		for (i = 0; i < 3; i++) {
			h = edu_map_acct(fd, p, len, mode, acct);
			fails += h <= 0;
			fails += edu_map_acct(fd, p, PAGE, mode, acct) !=
				 -ENOMEM;
			fails += edu_unmap(fd, h, len) != 0;
			fails += edu_map_acct(fd, p, len + 1, mode, acct) !=
				 -ENOMEM;
		}
		setrlimit(RLIMIT_MEMLOCK, &none);
		fails += edu_map_acct(fd, p, PAGE, mode, acct) !=
			 (mode == UMEM ? -EPERM : -ENOMEM);
		_exit(fails);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(held, limit_pinned_vm)
{
	at_the_limit(_metadata, self->fd, self->p, 16 * PAGE, variant->mode,
		     variant->acct);
}

TEST_F(pinned, limit_locked_vm)
{
	at_the_limit(_metadata, self->fd, self->p, 16 * PAGE, PINNED,
		     ACCT_LOCKED_VM);
}

TEST_F(pinned, limit_user)
{
	at_the_limit(_metadata, self->fd, self->p, 16 * PAGE, PINNED,
		     ACCT_USER);
}

/* Whoever releases: the one who pinned is uncharged. */
TEST_F(held, released_by_another_process)
{
	int fds[2], h, status, fd;
	char c;
	pid_t pid;

	ASSERT_EQ(0, pipe(fds));
	fd = open(EDU_DEV, O_RDWR);
	h = edu_map_acct(fd, self->p, self->len, variant->mode, variant->acct);
	ASSERT_GT(h, 0);
	pid = fork();
	if (!pid) {
		/* Holds the last reference to the file. */
		close(fds[1]);
		c = read(fds[0], &c, 1);
		close(fd);
		_exit(vm_kb("VmPin") != 0);
	}
	close(fd);
	EXPECT_EQ((long)self->len / 1024, vm_kb("VmPin"));
	close(fds[0]);
	close(fds[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, vm_kb("VmPin"));
}

/* A process that dies leaves nothing behind, in any mode. */
TEST_F(pinned, process_exit_cleans)
{
	static const unsigned int modes[] = { PINNED, ONLY, MIRROR, UMEM, ODP };
	unsigned int i;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		int fd = open(EDU_DEV, O_RDWR);

		/* Not the same pages: dma-debug mixes up such mappings. */
		for (i = 0; i < 5; i++)
			if (!refused(modes[i]) && !rdma_missing(fd, modes[i]) &&
			    edu_map(fd, self->p + i * 12 * PAGE, 12 * PAGE,
				    modes[i] | WRITE) <= 0)
				_exit(1);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

/* exec() gives the address space back while the file lives on elsewhere. */
TEST_F(pinned, exec_with_mappings)
{
	static const unsigned int modes[] = { MIRROR, UMEM, ODP };
	int status, i, fd = open(EDU_DEV, O_RDWR);
	size_t len = self->len / 4;
	pid_t pid = fork();

	if (!pid) {
		if (edu_map_acct(fd, self->p, len, WRITE, ACCT_PINNED_VM) <= 0)
			_exit(1);
		for (i = 0; i < 3; i++)
			if (!refused(modes[i]) && !rdma_missing(fd, modes[i]) &&
			    edu_map(fd, self->p + (i + 1) * len, len,
				    modes[i] | WRITE) <= 0)
				_exit(2);
		execl("/bin/busybox", "true", NULL);
		_exit(3);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(refused(UMEM) || rdma_missing(fd, UMEM) ? 1 : 2,
		  file_number(STATS, "pins"));
	close(fd);
}

/* Maps so far that a fatal signal ended. */
static uint64_t interrupted(int fd)
{
	struct gup_range_edu_info info = { .size = sizeof(info) };

	return edu_ioctl(fd, GUP_RANGE_EDU_INFO, &info) ? 0 : info.interrupted;
}

/* A child maps @len bytes, and is killed @us later. */
static void kill_mapping(struct __test_metadata *_metadata, int fd,
			 unsigned int flags, size_t len, unsigned int us)
{
	int status, ready[2];
	pid_t pid;
	void *p;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		p = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(p, len, MADV_NOHUGEPAGE);
		close(ready[0]);
		close(ready[1]);
		edu_map(fd, p, len, flags);
		pause();
		_exit(1);
	}
	close(ready[1]);
	ASSERT_EQ(0, read(ready[0], &c, 1));
	close(ready[0]);
	usleep(us);
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

/* A large one is ended by a signal, and leaves nothing. */
TEST_F_TIMEOUT(held, sigkill_mid_map, 120)
{
	uint64_t before = interrupted(self->fd);
	unsigned int us = 150000;
	int i;

	/* It had not begun, or was done: the kill comes at another time. */
	for (i = 0; i < 16 && interrupted(self->fd) == before; i++) {
		kill_mapping(_metadata, self->fd, variant->mode | WRITE,
			     96UL << 20, us);
		us = us > 20000 ? us / 2 : 300000 - i * 10000;
		close(self->fd);
		self->fd = open(EDU_DEV, O_RDWR);
		EXPECT_EQ(0, file_number(STATS, "pins"));
	}
	EXPECT_LT(before, interrupted(self->fd))
		TH_LOG("none of %d maps was under way when it was killed", i);
}

/* What the device could write is dirty when it is released, nothing else is. */
TEST_F(pinned, dirty)
{
	static const unsigned int modes[] = { PINNED, MIRROR, UMEM, ODP };
	int i, h;

	for (i = 0; i < 4; i++) {
		unsigned int flags = modes[i];
		unsigned char *p;
		uint64_t phys;

		if (refused(flags) || rdma_missing(self->fd, flags))
			continue;
		p = mem_alloc(MEM_4K, 4 * PAGE);
		ASSERT_NE(MAP_FAILED, p);
		/* A fresh page: only its page table entry is dirty. */
		ASSERT_EQ(0, mem_page_flags(p + PAGE) & MEM_DIRTY);
		phys = mem_phys(p + PAGE);
		h = edu_map(self->fd, p, 4 * PAGE, flags);
		ASSERT_GT(h, 0);
		ASSERT_EQ(0, edu_unmap(self->fd, h, 4 * PAGE));
		/* One that was moved to be pinned is dirty by that. */
		if (mem_phys(p + PAGE) == phys)
			EXPECT_EQ(0, mem_page_flags(p + PAGE) & MEM_DIRTY);
		h = edu_map(self->fd, p, 4 * PAGE, flags | WRITE);
		ASSERT_GT(h, 0);
		ASSERT_EQ(0, edu_dma(self->fd, h, PAGE, self->buf, CHUNK,
				     DMA_WRITE));
		ASSERT_EQ(0, edu_unmap(self->fd, h, 4 * PAGE));
		/* What is mirrored for writing has a dirty entry: gup_range_dirty_test.c */
		if (flags == PINNED || flags == UMEM)
			EXPECT_EQ(MEM_DIRTY,
				  mem_page_flags(p + PAGE) & MEM_DIRTY);
		munmap(p, 4 * PAGE);
	}
}

/* A huge page that does not begin the range is one IOMMU leaf all the same. */
TEST_F(held, congruent_in_the_middle)
{
	size_t off = 16 * PAGE, len = 3 * HUGE - off;
	struct gup_range_edu_query q = { .pgsz_bitmap = PAGE | HUGE };
	unsigned char *p = mem_alloc(MEM_THP, 3 * HUGE);
	int h;

	if (!edu_protected(self->fd))
		SKIP(return, UNPROTECTED);
	ASSERT_NE(MAP_FAILED, p);
	h = edu_map(self->fd, p + off, len, variant->mode);
	ASSERT_GT(h, 0);
	ASSERT_EQ(0, edu_query(self->fd, h, 0, &q));
	EXPECT_EQ(0, (q.addr ^ (uintptr_t)(p + off)) & (HUGE - 1));
	EXPECT_EQ(HUGE, q.pgsz);
	EXPECT_EQ(0, edu_unmap(self->fd, h, len));
	munmap(p, 3 * HUGE);
}

/* 1 GiB, or what the guest can spare: mapped at once, read and written. */
static void one_gib(struct __test_metadata *_metadata, int fd,
		    unsigned int mode, unsigned int acct)
{
	size_t len = file_number("/proc/meminfo", "MemAvailable") / 2 * 1024;
	struct gup_range_edu_query q = { .pgsz_bitmap = PAGE | HUGE };
	unsigned char buf[CHUNK], back[CHUNK], *p;
	size_t at[3], i;
	int h;

	len = len > 1UL << 30 ? 1UL << 30 : len & ~(HUGE - 1);
	ASSERT_LE(32 * HUGE, len);
	p = mmap(mem_reserve(len, HUGE), len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	madvise(p, len, MADV_HUGEPAGE);
	h = edu_map_acct(fd, p, len, mode | WRITE, acct);
	ASSERT_GT(h, 0);
	EXPECT_EQ((long)len, file_number(STATS, "mapped_bytes"));
	EXPECT_EQ(mode & MIRROR ? 0 : (long)len / 1024,
		  file_number("/proc/self/status", "VmPin"));
	ASSERT_EQ(0, edu_query(fd, h, 0, &q));
	if (edu_protected(fd) && !(mode & MIRROR))
		EXPECT_EQ((q.addr ^ (uintptr_t)p) & (HUGE - 1) ? PAGE : HUGE,
			  q.pgsz);
	at[0] = 1;
	at[1] = len / 2 - CHUNK / 2;
	at[2] = len - CHUNK;
	for (i = 0; i < 3; i++) {
		memset(p + at[i], 0x51 + i, CHUNK);
		ASSERT_EQ(0, edu_dma(fd, h, at[i], back, CHUNK, 0));
		EXPECT_EQ(0, memcmp(back, p + at[i], CHUNK));
		memset(buf, 0xa1 + i, CHUNK);
		ASSERT_EQ(0, edu_dma(fd, h, at[i], buf, CHUNK, DMA_WRITE));
		EXPECT_EQ(0, memcmp(buf, p + at[i], CHUNK));
	}
	/* Nothing beside what was written. */
	EXPECT_EQ(0, p[0] | p[1 + CHUNK] | p[at[1] - 1] | p[at[1] + CHUNK] |
		     p[at[2] - 1]);
	EXPECT_EQ(0, edu_unmap(fd, h, len));
	munmap(p, len);
}

TEST_F_TIMEOUT(held, one_gib, 180)
{
	if (bounces())
		SKIP(return, "more than the bounce buffers hold");
	one_gib(_metadata, self->fd, variant->mode, variant->acct);
}

TEST_F_TIMEOUT(mirror_one, one_gib, 180)
{
	one_gib(_metadata, self->fd, variant->mode, ACCT_NONE);
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Half of the pages are out of reach: a bounce in the middle of the range. */
TEST_F(pinned, some_pages_bounce)
{
	size_t i, nr = self->len / PAGE, bounced = 0;
	uint64_t phys[64], sorted[64];
	int h;

	if (edu_protected(self->fd) || bounces())
		SKIP(return, "all pages are treated alike");
	for (i = 0; i < nr; i++)
		phys[i] = mem_phys(self->p + i * PAGE);
	memcpy(sorted, phys, sizeof(phys));
	qsort(sorted, nr, sizeof(*sorted), by_value);
	if (sorted[nr / 2] <= UINT32_MAX)
		SKIP(return, "all memory is below 4 GiB");
	ASSERT_EQ(0, edu_mask(self->fd, sorted[nr / 2] - 1));
	h = edu_map(self->fd, self->p, self->len, WRITE);
	ASSERT_GT(h, 0);
	for (i = 0; i < nr; i++) {
		uint64_t addr = edu_addr(self->fd, h, i * PAGE);

		EXPECT_EQ(phys[i] < sorted[nr / 2], addr == phys[i]);
		EXPECT_GT(sorted[nr / 2], addr);
		bounced += addr != phys[i];
	}
	EXPECT_EQ(nr / 2, bounced);
	/* Over the border of a page that bounces and one that does not. */
	for (i = 1; i < nr - 1; i++)
		if (phys[i] < sorted[nr / 2] ? phys[i - 1] >= sorted[nr / 2] :
					       phys[i - 1] < sorted[nr / 2])
			break;
	ASSERT_EQ(0, edu_dma(self->fd, h, i * PAGE - CHUNK / 2, self->buf,
			     CHUNK, DMA_WRITE));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(0, memcmp(self->buf, self->p + i * PAGE - CHUNK / 2, CHUNK));
	EXPECT_EQ(i * PAGE - CHUNK / 2,
		  mem_check(self->p, 0, i * PAGE - CHUNK / 2));
	EXPECT_EQ(self->len, mem_check(self->p, i * PAGE + CHUNK / 2,
				       self->len));
}

/* Exchange the pages at @a and @b, each with what its place is filled with. */
static bool swap_pages(unsigned char *p, size_t a, size_t b)
{
	unsigned char *tmp = mem_reserve(PAGE, PAGE);
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	if (a != b &&
	    (mremap(p + a, PAGE, PAGE, flags, tmp) != tmp ||
	     mremap(p + b, PAGE, PAGE, flags, p + a) != p + a ||
	     mremap(tmp, PAGE, PAGE, flags, p + b) != p + b))
		return false;
	mem_page(p + a, a);
	mem_page(p + b, b);
	return true;
}

/*
 * One page in the middle that bounces: the pages before it say that nothing has to be
 * unmapped, and this one that they were wrong.
 */
TEST_F(pinned, single_page_bounces)
{
	size_t i, far = self->len / 2, at = far - CHUNK / 2, highest = 0;
	unsigned char *p = self->p;
	uint64_t top = 0;
	int h;

	if (edu_protected(self->fd) || bounces())
		SKIP(return, "all pages are treated alike");
	for (i = 0; i < self->len; i += PAGE)
		if (mem_phys(p + i) > mem_phys(p + highest))
			highest = i;
	ASSERT_TRUE(swap_pages(p, highest, far));
	for (i = 0; i < self->len; i += PAGE)
		if (i != far && mem_phys(p + i) > top)
			top = mem_phys(p + i);
	ASSERT_LT(UINT32_MAX, top)
		TH_LOG("all memory is below 4 GiB: nothing can bounce");
	ASSERT_EQ(0, edu_mask(self->fd, top + PAGE - 1));
	h = edu_map(self->fd, p, self->len, WRITE);
	ASSERT_GT(h, 0);
	for (i = 0; i < self->len; i += PAGE)
		EXPECT_EQ(i != far,
			  edu_addr(self->fd, h, i) == mem_phys(p + i));
	EXPECT_LT(self->o.swiotlb, swiotlb_used());
	ASSERT_EQ(0, edu_dma(self->fd, h, at, self->buf, CHUNK, DMA_WRITE));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(0, memcmp(self->buf, p + at, CHUNK));
	EXPECT_EQ(at, mem_check(p, 0, at));
	EXPECT_EQ(self->len, mem_check(p, at + CHUNK, self->len));
}

/* No bounce buffer is free: nothing stays, and it works when there is one. */
TEST_F(pinned, swiotlb_full)
{
	size_t pool = file_long(SWIOTLB "io_tlb_nslabs") * 2048;
	size_t part = pool / 8;
	unsigned char *p;
	int i, n, h[10];

	if (edu_protected(self->fd))
		SKIP(return, "an IOMMU needs no bounce buffers");
	if (!bounces() && mem_phys(self->p) <= UINT32_MAX)
		SKIP(return, "all memory is below 4 GiB");
	ASSERT_EQ(0, edu_mask(self->fd, UINT32_MAX));
	p = mmap(NULL, pool + part, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	madvise(p, pool + part, MADV_NOHUGEPAGE);
	EXPECT_EQ(-EIO, edu_map(self->fd, p, pool + part, WRITE));
	EXPECT_EQ(self->o.swiotlb, swiotlb_used());
	EXPECT_EQ(0, file_number(STATS, "pins"));
	for (n = 0; n < 9; n++) {
		h[n] = edu_map(self->fd, p + n * part, part, WRITE);
		if (h[n] <= 0)
			break;
	}
	EXPECT_LT(3, n);
	EXPECT_EQ(-EIO, h[n]);
	EXPECT_EQ(0, edu_unmap(self->fd, h[1], part));
	h[1] = edu_map(self->fd, p + part, part, WRITE);
	ASSERT_GT(h[1], 0);
	ASSERT_EQ(0, edu_dma(self->fd, h[1], PAGE - 1, self->buf, CHUNK,
			     DMA_WRITE));
	EXPECT_EQ(0, memcmp(self->buf, p + part + PAGE - 1, CHUNK));
	for (i = 0; i < n; i++)
		EXPECT_EQ(0, edu_unmap(self->fd, h[i], part));
	munmap(p, pool + part);
}

/* ------------------------------------------------------- lazy and strict mode */

FIXTURE(race)
{
	struct oracles o;
	int fd;
	unsigned char *p;
};

FIXTURE_SETUP(race)
{
	oracles_begin(_metadata, &self->o);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	self->p = mem_alloc(MEM_4K, 4 * PAGE);
	ASSERT_NE(MAP_FAILED, self->p);
}

FIXTURE_TEARDOWN(race)
{
	close(self->fd);
	munmap(self->p, 4 * PAGE);
	oracles_check(_metadata, &self->o);
}

#define RACES		6	/* that unmapped in time */
#define RACE_TRIES	120
/* Before the flush queue of lazy mode is drained, 10 ms after the unmap */
#define LEAD_MS		9

struct races {
	int tries, in_time, changed;
};

/*
 * 0 or -errno: was the page written after it was unmapped? A guest that had to
 * wait for its host unmaps too late, the more often the shorter the time is that it
 * leaves for it: after two tries in a row there is more of it. Too much would be
 * a race that nobody can lose, as lazy mode has flushed by then.
 */
static int race(int fd, void *p, unsigned int mode, struct races *r)
{
	int ret, late = 0;

	memset(r, 0, sizeof(*r));
	while (r->tries < RACE_TRIES && r->in_time < RACES) {
		struct gup_range_edu_race req = {
			.size = sizeof(req),
			.mode = mode,
			.va = (uintptr_t)p,
			.lead_ms = late < 2 ? 5 : LEAD_MS,
		};

		ret = edu_ioctl(fd, GUP_RANGE_EDU_RACE, &req);
		if (ret)
			return ret;
		late = req.in_time ? 0 : late + 1;
		r->tries++;
		r->in_time += req.in_time;
		r->changed += req.in_time && req.changed;
	}
	return 0;
}

static void enough_races(struct __test_metadata *_metadata, struct races *r)
{
	EXPECT_EQ(RACES, r->in_time)
		TH_LOG("late: %d of %d unmaps came in time, %d ms before the DMA",
		       r->in_time, r->tries, LEAD_MS);
}

/* The lab can see it: dma_unmap_phys() in lazy mode lets a late DMA through. */
TEST_F_TIMEOUT(race, dma_api_lazy_lets_through, 120)
{
	struct races r;

	if (!edu_protected(self->fd))
		SKIP(return, UNPROTECTED);
	self->o.faults_expected = true;
	ASSERT_EQ(0, race(self->fd, self->p, GUP_RANGE_EDU_RACE_DMA_API, &r));
	enough_races(_metadata, &r);
	EXPECT_EQ(iommu_is_lazy(), r.changed > 0)
		TH_LOG("%d of %d late DMAs changed the page", r.changed,
		       r.in_time);
}

static void is_final(struct __test_metadata *_metadata,
		     struct _test_data_race *self, unsigned int mode)
{
	struct races r;

	if (!edu_protected(self->fd))
		SKIP(return, UNPROTECTED);
	self->o.faults_expected = true;
	ASSERT_EQ(0, race(self->fd, self->p, mode, &r));
	EXPECT_EQ(0, r.changed);
	enough_races(_metadata, &r);
}

TEST_F_TIMEOUT(race, pinned_unmap_is_final, 120)
{
	is_final(_metadata, self, GUP_RANGE_EDU_RACE_PINNED);
}

TEST_F_TIMEOUT(race, invalidation_is_final, 120)
{
	is_final(_metadata, self, GUP_RANGE_EDU_RACE_MIRRORED);
}

TEST_F_TIMEOUT(race, umem_release_is_final, 120)
{
	if (rdma_missing(self->fd, UMEM))
		SKIP(return, NO_RDMA);
	is_final(_metadata, self, GUP_RANGE_EDU_RACE_UMEM);
}

TEST_F_TIMEOUT(race, odp_invalidation_is_final, 120)
{
	if (rdma_missing(self->fd, ODP))
		SKIP(return, NO_RDMA);
	is_final(_metadata, self, GUP_RANGE_EDU_RACE_ODP);
}

TEST_F(race, bad_input)
{
	struct gup_range_edu_race req = {
		.size = sizeof(req),
		.va = (uintptr_t)self->p,
	};

	EXPECT_EQ(-EINVAL, edu_ioctl(self->fd, GUP_RANGE_EDU_RACE, &req));
	req.lead_ms = 100;
	EXPECT_EQ(-EINVAL, edu_ioctl(self->fd, GUP_RANGE_EDU_RACE, &req));
	req.lead_ms = 5;
	req.reserved = 1;
	EXPECT_EQ(-EINVAL, edu_ioctl(self->fd, GUP_RANGE_EDU_RACE, &req));
	req.reserved = 0;
	req.mode = GUP_RANGE_EDU_RACE_ODP + 1;
	EXPECT_EQ(-EINVAL, edu_ioctl(self->fd, GUP_RANGE_EDU_RACE, &req));
}

/* ------------------------------------------------------------ the uapi itself */

FIXTURE(input)
{
	struct oracles o;
	int fd;
	unsigned char *p;
	size_t len;
	struct gup_range_edu_map req;
	unsigned char buf[CHUNK];
};

FIXTURE_VARIANT(input)
{
	unsigned int mode;
};

FIXTURE_VARIANT_ADD(input, pinned) { .mode = PINNED };
FIXTURE_VARIANT_ADD(input, mirrored) { .mode = MIRROR };
FIXTURE_VARIANT_ADD(input, umem) { .mode = UMEM };
FIXTURE_VARIANT_ADD(input, odp) { .mode = ODP };

FIXTURE_SETUP(input)
{
	oracles_begin(_metadata, &self->o);
	if (refused(variant->mode))
		SKIP(return, REFUSED);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	if (rdma_missing(self->fd, variant->mode))
		SKIP(return, NO_RDMA);
	self->len = 8 * PAGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	self->req = (struct gup_range_edu_map){
		.size = sizeof(self->req),
		.flags = variant->mode,
		.va = (uintptr_t)self->p,
		.len = self->len,
		.granule = PAGE,
	};
}

FIXTURE_TEARDOWN(input)
{
	if (self->fd > 0)
		close(self->fd);
	if (self->p)
		munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

#define MAP_REQ() edu_ioctl(self->fd, GUP_RANGE_EDU_MAP, &self->req)

TEST_F(input, length_zero)
{
	self->req.len = 0;
	EXPECT_EQ(-EINVAL, MAP_REQ());
}

TEST_F(input, length_wraps)
{
	int wraps = variant->mode == UMEM ? -EINVAL : -EOVERFLOW;

	self->req.len = -self->req.va + 1;
	EXPECT_EQ(wraps, MAP_REQ());
	self->req.len = UINT64_MAX;
	EXPECT_EQ(wraps, MAP_REQ());
}

TEST_F(input, length_bit_63)
{
	static const int wants[] = {
		[PINNED] = -EOVERFLOW, [MIRROR] = -EOVERFLOW,
		[UMEM] = -EINVAL, [ODP] = -ENOMEM,
	};

	/* Does not wrap, but ends far beyond any user address. */
	self->req.len |= 1ULL << 63;
	EXPECT_EQ(wants[variant->mode], MAP_REQ());
}

TEST_F(input, last_page_of_the_address_space)
{
	int wraps = variant->mode == UMEM ? -EINVAL : -EOVERFLOW;

	self->req.va = -PAGE;
	self->req.len = PAGE - 1;
	EXPECT_EQ(wraps, MAP_REQ());
	self->req.len = PAGE;
	EXPECT_EQ(wraps, MAP_REQ());
}

/* Mirrored mappings are kept in blocks, which end at an address. */
TEST_F(input, last_block_of_the_address_space)
{
	bool mirror = variant->mode == MIRROR || variant->mode == ODP;

	self->req.va = -8 * PAGE;
	self->req.len = PAGE;
	EXPECT_EQ(mirror ? -EOVERFLOW : -EFAULT, MAP_REQ());
}

TEST_F(input, kernel_address)
{
	self->req.va = 0xffff888000000000;
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, non_canonical_address)
{
	self->req.va = 0x8000000000000000;
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, tagged_address)
{
	/* No tags without LAM being asked for: just another bad address. */
	self->req.va |= 0x3fULL << 57;
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, null_address)
{
	self->req.va = 0;
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, more_pages_than_uint_max)
{
	int ret;

	self->req.va = PAGE;
	self->req.len = (1ULL << 32) * PAGE + PAGE;
	ret = MAP_REQ();
	/* Too much IOVA space for some IOMMUs; else nothing is mapped there. */
	EXPECT_TRUE(variant->mode == UMEM ? ret == -EINVAL :
					    ret == -EFAULT || ret == -ENOMEM);
}

TEST_F(input, one_byte_off_at_both_ends)
{
	unsigned char *p = self->p + 2 * PAGE;
	int start, end, h, off;

	for (start = -1; start <= 1; start++) {
		for (end = -1; end <= 1; end++) {
			size_t len = 2 * PAGE + end - start;

			h = edu_map(self->fd, p + start, len, variant->mode);
			ASSERT_GT(h, 0);
			EXPECT_EQ(0, edu_dma(self->fd, h, 0, self->buf, 8, 0));
			/*
			 * QEMU's virtio-iommu looks for [address, address + 1]:
			 * of the last byte of a page it may see the next page.
			 */
			off = start < 0 && iommu_is("virtio");
			EXPECT_EQ(0, memcmp(self->buf + off, p + start + off,
					    8 - off));
			EXPECT_EQ(0, edu_dma(self->fd, h, len - 8, self->buf, 8,
					     0));
			EXPECT_EQ(0, memcmp(self->buf, p + start + len - 8, 8));
			EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, len - 7,
						   self->buf, 8, 0));
			EXPECT_EQ(0, edu_unmap(self->fd, h, len));
		}
	}
}

TEST_F(input, unknown_flags)
{
	self->req.flags |= 1 << 4;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	self->req.flags = 1U << 31;
	EXPECT_EQ(-EINVAL, MAP_REQ());
}

TEST_F(input, reserved_fields)
{
	self->req.reserved = 1;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	self->req.reserved = 0;
	self->req.reserved2 = 1;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	self->req.reserved2 = 0;
	self->req.handle = 1;
	EXPECT_EQ(-EINVAL, MAP_REQ());
}

TEST_F(input, unknown_accounting)
{
	self->req.acct = 4;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	/* Only who pins is charged, and RDMA has no choice. */
	self->req.acct = ACCT_USER;
	if (variant->mode != PINNED)
		EXPECT_EQ(-EINVAL, MAP_REQ());
}

TEST_F(input, short_struct)
{
	self->req.size = sizeof(self->req) - 1;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	self->req.size = 0;
	EXPECT_EQ(-EINVAL, MAP_REQ());
}

TEST_F(input, long_struct)
{
	struct {
		struct gup_range_edu_map req;
		uint64_t more;
	} big = { .req = self->req };

	big.req.size = sizeof(big);
	EXPECT_EQ(0, edu_ioctl(self->fd, GUP_RANGE_EDU_MAP, &big));
	EXPECT_EQ(0, edu_unmap(self->fd, big.req.handle, self->len));
	big.req = self->req;
	big.req.size = sizeof(big);
	big.more = 1;
	EXPECT_EQ(-E2BIG, edu_ioctl(self->fd, GUP_RANGE_EDU_MAP, &big));
	big.req.size = 1 << 20;
	EXPECT_EQ(-EINVAL, edu_ioctl(self->fd, GUP_RANGE_EDU_MAP, &big));
}

/* The result cannot be stored: the handle must not exist. */
TEST_F(input, bad_result_pointer)
{
	struct gup_range_edu_map *req = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*req = self->req;
	mprotect(req, PAGE, PROT_READ);
	EXPECT_EQ(-EFAULT, edu_ioctl(self->fd, GUP_RANGE_EDU_MAP, req));
	EXPECT_EQ(-EFAULT, edu_ioctl(self->fd, GUP_RANGE_EDU_MAP, NULL));
	EXPECT_EQ(0, file_number(STATS, "maps"));
	EXPECT_EQ(0, file_number(STATS, "pins"));
	munmap(req, PAGE);
}

TEST_F(input, unknown_ioctl)
{
	EXPECT_EQ(-ENOTTY, edu_ioctl(self->fd, _IO('g', 99), NULL));
}

TEST_F(input, granule)
{
	self->req.granule = 0;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	self->req.granule = 3 * PAGE;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	/* Larger than the range. */
	self->req.granule = 16 * PAGE;
	EXPECT_EQ(-EINVAL, MAP_REQ());
	self->req.granule = 512;
	EXPECT_EQ(variant->mode & RDMA ? -EINVAL : 0, MAP_REQ());
}

/* A device with pages of 16K: contiguous in units of it, or refused. */
TEST_F(input, granule_larger_than_page)
{
	int ret;

	self->req.granule = 4 * PAGE;
	ret = MAP_REQ();
	if (variant->mode & RDMA) {
		EXPECT_EQ(-EINVAL, ret);
	} else if (edu_protected(self->fd)) {
		ASSERT_EQ(0, ret);
		EXPECT_EQ(self->req.va % (4 * PAGE),
			  edu_addr(self->fd, self->req.handle, 0) % (4 * PAGE));
	} else if (variant->mode == MIRROR) {
		EXPECT_EQ(-EOPNOTSUPP, ret);
	} else {
		EXPECT_TRUE(ret == -ERANGE || ret == 0);
	}
}

TEST_F(input, stale_handle)
{
	int h = edu_map(self->fd, self->p, self->len, variant->mode);

	ASSERT_GT(h, 0);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(-ENOENT, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(-ENOENT, edu_dma(self->fd, h, 0, self->buf, 1, 0));
	EXPECT_EQ(-ENOENT, edu_fault(self->fd, h, 0, 1, false));
	EXPECT_EQ(-ENOENT, edu_unmap(self->fd, 0, self->len));
	EXPECT_EQ(-ENOENT, edu_unmap(self->fd, -1, self->len));
}

TEST_F(input, foreign_handle)
{
	int other = open(EDU_DEV, O_RDWR);
	int h = edu_map(self->fd, self->p, self->len, variant->mode);

	ASSERT_GT(h, 0);
	EXPECT_EQ(-ENOENT, edu_unmap(other, h, self->len));
	EXPECT_EQ(-ENOENT, edu_dma(other, h, 0, self->buf, 1, 0));
	close(other);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

TEST_F(input, handle_in_a_forked_child)
{
	int h = edu_map(self->fd, self->p, self->len, variant->mode);
	int status;
	pid_t pid;

	ASSERT_GT(h, 0);
	pid = fork();
	if (!pid)
		_exit(edu_unmap(self->fd, h, self->len) != -EPERM ||
		      edu_dma(self->fd, h, 0, self->buf, 1, 0) != -EPERM);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

TEST_F(input, dma_bounds)
{
	int h = edu_map(self->fd, self->p, self->len, variant->mode);

	ASSERT_GT(h, 0);
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, 0, self->buf, 0, 0));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, 0, self->buf, 2049, 0));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, self->len, self->buf, 1, 0));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, self->len - 1, self->buf, 2, 0));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, SIZE_MAX, self->buf, 2, 0));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, 0, self->buf, 1, 1 << 7));
	EXPECT_EQ(variant->mode == UMEM ? 0 : -EINVAL,
		  edu_dma(self->fd, h, self->len - 1, self->buf, 1,
			  GUP_RANGE_EDU_DMA_CPU));
	EXPECT_EQ(-EINVAL, edu_dma(self->fd, h, self->len - 1, self->buf, 2,
				   GUP_RANGE_EDU_DMA_CPU));
	EXPECT_EQ(-EFAULT, edu_dma(self->fd, h, 0, NULL, 1, DMA_WRITE));
	EXPECT_EQ(-EINVAL, edu_unmap_part(self->fd, h, 1, self->len, NULL,
					  NULL));
	EXPECT_EQ(-EINVAL, edu_unmap_part(self->fd, h, 0, 0, NULL, NULL));
	EXPECT_EQ(-EINVAL, edu_unmap_part(self->fd, h, SIZE_MAX, 2, NULL, NULL));
	EXPECT_EQ(-EINVAL, edu_fault(self->fd, h, self->len, 1, false));
}

struct closer {
	int fd;
	int h;
	int ret;
	unsigned char buf[CHUNK];
};

static void *closer_run(void *arg)
{
	struct closer *c = arg;

	c->ret = edu_dma(c->fd, c->h, 0, c->buf, CHUNK, 0);
	return NULL;
}

/*
 * Close the last descriptor while a DMA is under way. False: it had not begun, or was
 * done, and nothing was shown.
 */
static bool close_under_dma(struct __test_metadata *_metadata, int fd,
			    unsigned int mode, void *p, size_t len,
			    unsigned int us)
{
	struct closer c = { .fd = fd };
	pthread_t thread;
	bool under_way;

	c.h = edu_map(fd, p, len, mode);
	ASSERT_GT(c.h, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, closer_run, &c));
	usleep(us);
	close(fd);
	under_way = file_number(STATS, "mapped_bytes") == (long)len;
	if (pthread_tryjoin_np(thread, NULL) == EBUSY)
		pthread_join(thread, NULL);
	else
		under_way = false;
	EXPECT_TRUE(!under_way || !c.ret);
	EXPECT_TRUE(!under_way || !memcmp(c.buf, p, CHUNK));
	return under_way;
}

/* An operation during close(): the file lives until it has ended. */
TEST_F_TIMEOUT(input, operation_during_close, 60)
{
	bool shown = false;
	int i;

	close(self->fd);
	for (i = 1; i <= 20 && !shown; i++)
		shown = close_under_dma(_metadata, open(EDU_DEV, O_RDWR),
					variant->mode, self->p, self->len,
					i % 4 * 40000 + 10000);
	EXPECT_TRUE(shown)
		TH_LOG("none of %d DMAs was under way when its file was closed",
		       i - 1);
	self->fd = open(EDU_DEV, O_RDWR);
}

static void nothing(int sig)
{
}

/* A wait for the device is ended by a signal; the next one starts clean. */
TEST_F(input, interrupted_dma)
{
	struct itimerval soon = { .it_value.tv_usec = 30000 };
	struct sigaction sa = { .sa_handler = nothing };
	int h = edu_map(self->fd, self->p, self->len, variant->mode);

	ASSERT_GT(h, 0);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	EXPECT_EQ(-EINTR, edu_dma(self->fd, h, 0, self->buf, CHUNK, 0));
	EXPECT_EQ(0, edu_dma(self->fd, h, 0, self->buf, CHUNK, 0));
	EXPECT_EQ(0, memcmp(self->buf, self->p, CHUNK));
}

/* ------------------------------------------------------- memory that is special */

TEST_F(input, hole)
{
	munmap(self->p + 5 * PAGE, PAGE);
	EXPECT_EQ(-EFAULT, MAP_REQ());
	self->req.flags |= WRITE;
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, prot_none)
{
	mprotect(self->p + 5 * PAGE, PAGE, PROT_NONE);
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, guard_page)
{
	ASSERT_EQ(0, madvise(self->p + 5 * PAGE, PAGE, MADV_GUARD_INSTALL));
	EXPECT_EQ(-EFAULT, MAP_REQ());
}

TEST_F(input, read_only_and_write)
{
	mprotect(self->p + 5 * PAGE, PAGE, PROT_READ);
	self->req.flags |= WRITE;
	EXPECT_EQ(variant->mode & MIRROR ? -EPERM : -EFAULT, MAP_REQ());
}

/* A BAR of the device itself: VM_IO and VM_PFNMAP. */
TEST_F(input, pfnmap)
{
	char slot[32], path[128];
	void *bar;
	int fd;

	ASSERT_EQ(0, edu_slot(slot));
	sprintf(path, "/sys/bus/pci/devices/%s/resource0", slot);
	fd = open(path, O_RDWR);
	ASSERT_GE(fd, 0);
	bar = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	ASSERT_NE(MAP_FAILED, bar);
	self->req.va = (uintptr_t)bar;
	self->req.len = PAGE;
	EXPECT_EQ(-EFAULT, MAP_REQ());
	munmap(bar, PAGE);
}

/*
 * secretmem is not in the direct map, but it has pages: what GUP refuses, a
 * mirror would have to refuse by itself.
 */
TEST_F(input, secretmem)
{
	int fd = syscall(__NR_memfd_secret, 0);
	void *p;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 1, PAGE);
	self->req.va = (uintptr_t)p;
	self->req.len = PAGE;
	EXPECT_EQ(-EFAULT, MAP_REQ());
	munmap(p, PAGE);
	close(fd);
}

/* File systems that track dirty pages do not suffer a long-term writer. */
TEST_F(input, file_with_dirty_tracking)
{
	const char *dir = "/tmp/gup_range_fs";
	int fd, h;
	void *p;

	mkdir(dir, 0700);
	if (system("mke2fs /dev/ram0 >/dev/null 2>&1"))
		SKIP(return, "no mke2fs or /dev/ram0");
	if (mount("/dev/ram0", dir, "ext2", 0, NULL))
		SKIP(return, "no ext2 file system");
	fd = open("/tmp/gup_range_fs/file", O_RDWR | O_CREAT, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 4 * PAGE));
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 7, 4 * PAGE);
	h = edu_map(self->fd, p, 4 * PAGE, variant->mode | WRITE);
	if (!(variant->mode & MIRROR)) {
		EXPECT_EQ(-EFAULT, h);
	} else {
		/* Clean and write-protected first, then written by the device. */
		fsync(fd);
		ASSERT_GT(h, 0);
		memset(self->buf, 0x99, CHUNK);
		ASSERT_EQ(0, edu_dma(self->fd, h, 0, self->buf, CHUNK,
				     DMA_WRITE));
		EXPECT_EQ(0, edu_unmap(self->fd, h, 4 * PAGE));
	}
	munmap(p, 4 * PAGE);
	fsync(fd);
	close(fd);
	ASSERT_EQ(0, umount(dir));
	if (variant->mode & MIRROR) {
		/* From the disk: the write was not lost. */
		unsigned char back[CHUNK];

		ASSERT_EQ(0, mount("/dev/ram0", dir, "ext2", 0, NULL));
		fd = open("/tmp/gup_range_fs/file", O_RDONLY);
		ASSERT_EQ(CHUNK, read(fd, back, CHUNK));
		EXPECT_EQ(0, memcmp(self->buf, back, CHUNK));
		close(fd);
		umount(dir);
	}
}

/*
 * A file without page cache: a long-term pin would be in the way of truncate. A
 * mirror is not, and what the device writes is in the file at once.
 */
TEST_F(input, fs_dax)
{
	const char *dir = "/tmp/gup_range_dax", *file = "/tmp/gup_range_dax/file";
	unsigned char back[CHUNK];
	void *p;
	int fd;

	if (access("/dev/pmem0", F_OK))
		SKIP(return, "the guest has no persistent memory");
	mkdir(dir, 0700);
	ASSERT_EQ(0, system("mke2fs -b 4096 /dev/pmem0 >/dev/null 2>&1"));
	ASSERT_EQ(0, mount("/dev/pmem0", dir, "ext4", 0, "dax=always"));
	fd = open(file, O_RDWR | O_CREAT, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 4 * PAGE));
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 7, 4 * PAGE);
	self->req.va = (uintptr_t)p;
	self->req.len = 4 * PAGE;
	if (!(variant->mode & MIRROR)) {
		EXPECT_EQ(-EOPNOTSUPP, MAP_REQ());
		self->req.flags |= WRITE;
		EXPECT_EQ(-EOPNOTSUPP, MAP_REQ());
	} else {
		self->req.flags |= WRITE;
		ASSERT_EQ(0, MAP_REQ());
		memset(self->buf, 0x99, CHUNK);
		ASSERT_EQ(0, edu_dma(self->fd, self->req.handle, PAGE, self->buf,
				     CHUNK, DMA_WRITE));
		ASSERT_EQ(CHUNK, pread(fd, back, CHUNK, PAGE));
		EXPECT_EQ(0, memcmp(self->buf, back, CHUNK));
		/* Blocks can be taken away under the mapping. */
		ASSERT_EQ(0, ftruncate(fd, 2 * PAGE));
		EXPECT_EQ(NOT_MAPPED, edu_addr(self->fd, self->req.handle,
					       2 * PAGE));
		EXPECT_NE(0, edu_dma(self->fd, self->req.handle, 2 * PAGE,
				     self->buf, CHUNK, DMA_WRITE));
	}
	munmap(p, 4 * PAGE);
	close(fd);
	ASSERT_EQ(0, umount(dir));
	if (variant->mode & MIRROR) {
		ASSERT_EQ(0, mount("/dev/pmem0", dir, "ext4", 0, NULL));
		fd = open(file, O_RDONLY);
		EXPECT_EQ(CHUNK, pread(fd, back, CHUNK, PAGE));
		EXPECT_EQ(0, memcmp(self->buf, back, CHUNK));
		close(fd);
		ASSERT_EQ(0, umount(dir));
	}
}

/* Where another PCI device hands out its memory; -1: none does. */
static int p2pmem_open(void)
{
	DIR *dir = opendir("/sys/bus/pci/devices");
	struct dirent *d;
	char path[512];
	int fd = -1;

	while (dir && fd < 0 && (d = readdir(dir))) {
		sprintf(path, "/sys/bus/pci/devices/%s/p2pmem/allocate",
			d->d_name);
		fd = open(path, O_RDWR);
	}
	if (dir)
		closedir(dir);
	return fd;
}

/* Memory of another PCI device, alone and in the middle of ordinary memory. */
TEST_F(input, p2pdma)
{
	int fd = p2pmem_open();
	unsigned char *p;

	if (fd < 0)
		SKIP(return, "the guest has no device with peer memory");
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 0x66, 2 * PAGE);
	self->req.va = (uintptr_t)p;
	self->req.len = 2 * PAGE;
	EXPECT_EQ(-EREMOTEIO, MAP_REQ());
	self->req.flags |= WRITE;
	/* GUP sees first that it is a file with page_mkwrite(). */
	EXPECT_EQ(variant->mode & MIRROR ? -EREMOTEIO : -EFAULT, MAP_REQ());
	self->req.flags &= ~WRITE;
	munmap(p, 2 * PAGE);

	p = mmap(self->p + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, fd, 0);
	ASSERT_EQ(self->p + 5 * PAGE, p);
	self->req.va = (uintptr_t)self->p;
	self->req.len = self->len;
	EXPECT_EQ(-EREMOTEIO, MAP_REQ());
	EXPECT_EQ(0, file_number(STATS, "pinned_bytes"));
	EXPECT_EQ(0, file_number(STATS, "mapped_bytes"));
	close(fd);
}

/* Nobody answers the fault: the map waits, and can be killed. */
static void blocks_and_dies(struct __test_metadata *_metadata, int fd,
			    unsigned int mode, bool wp)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		struct uffdio_api api = { .api = UFFD_API };
		struct uffdio_register reg = {
			.mode = wp ? UFFDIO_REGISTER_MODE_WP :
				     UFFDIO_REGISTER_MODE_MISSING,
			.range.len = PAGE,
		};
		struct uffdio_writeprotect prot = {
			.range.len = PAGE,
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};
		int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
		char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (wp)
			*p = 1;
		reg.range.start = (uintptr_t)p;
		prot.range.start = (uintptr_t)p;
		if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) ||
		    ioctl(uffd, UFFDIO_REGISTER, &reg) ||
		    (wp && ioctl(uffd, UFFDIO_WRITEPROTECT, &prot)))
			_exit(4);
		edu_map(fd, p, PAGE, mode | WRITE);
		_exit(5);
	}
	usleep(300000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(input, userfaultfd_missing)
{
	blocks_and_dies(_metadata, self->fd, variant->mode, false);
}

TEST_F(input, userfaultfd_wp)
{
	blocks_and_dies(_metadata, self->fd, variant->mode, true);
}

TEST_F(input, hwpoison)
{
	struct sigaction sa = { .sa_handler = nothing };
	int ret;

	sigaction(SIGBUS, &sa, NULL);
	ASSERT_EQ(0, madvise(self->p + 5 * PAGE, PAGE, MADV_HWPOISON));
	ret = MAP_REQ();
	EXPECT_TRUE(ret == -EHWPOISON || ret == -EFAULT);
}

/* Memory of another device comes back to where this one can reach it. */
TEST_F(input, device_private)
{
	int dmirror = open("/dev/hmm_dmirror0", O_RDWR);
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)self->p,
		.npages = self->len / PAGE,
	};
	void *mirror = malloc(self->len);
	int h;

	if (dmirror < 0)
		SKIP(return, "no /dev/hmm_dmirror0 (CONFIG_TEST_HMM)");
	cmd.ptr = (uintptr_t)mirror;
	ASSERT_EQ(0, ioctl(dmirror, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd));
	ASSERT_EQ(self->len / PAGE, cmd.cpages);
	h = edu_map(self->fd, self->p, self->len, variant->mode);
	ASSERT_GT(h, 0);
	ASSERT_EQ(0, edu_dma(self->fd, h, PAGE, self->buf, CHUNK, 0));
	EXPECT_EQ(0, memcmp(self->buf, self->p + PAGE, CHUNK));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	close(dmirror);
	free(mirror);
}

/* ------------------------------------------------------------ fault injection */

/* Each allocation of a map fails in turn: nothing stays, the next one works. */
TEST_F(input, fail_each_allocation)
{
	int n, ret, failed = 0;
	bool unused;

	may_fail(_metadata);
	self->req.flags |= WRITE;
	for (n = 1; n < 1000; n++) {
		/* Page tables to fill anew, and pages that are not there yet. */
		madvise(self->p, self->len, MADV_DONTNEED);
		fail_nth(_metadata, n);
		ret = MAP_REQ();
		unused = fail_nth(_metadata, 0);
		if (ret) {
			EXPECT_TRUE(ret == -ENOMEM || ret == -EFAULT ||
				    ret == -EIO);
			failed++;
			ASSERT_EQ(0, file_number(STATS, "pins"));
			ASSERT_EQ(0, file_number(STATS, "maps"));
			ASSERT_EQ(0, file_number(STATS, "mapped_bytes"));
		} else {
			ASSERT_EQ(0, edu_unmap(self->fd, self->req.handle,
					       self->len));
			self->req.handle = 0;
			if (unused)
				break;
		}
	}
	EXPECT_LT(2, failed);
	EXPECT_GT(1000, n);
}

/*
 * The same for memory that is there and takes several IOMMU page tables: what
 * was linked before the failure must go.
 */
TEST_F_TIMEOUT(input, fail_each_table, 180)
{
	/* virtio-iommu has no table, but a request to allocate for each page. */
	size_t len = iommu_is("virtio") ? 64 * PAGE : 5UL << 20;
	unsigned char *p = mem_alloc(MEM_4K, len);
	bool unused = false, prot = edu_protected(self->fd);
	int n, ret, failed = 0;
	long iovas;

	ASSERT_NE(MAP_FAILED, p);
	may_fail(_metadata);
	/* A range of this length leaves nothing in the caches of its IOVA domain. */
	iovas = prot ? iova_objects() : 0;
	ASSERT_LE(0, iovas);
	self->req.va = (uintptr_t)p;
	self->req.len = len;
	for (n = 1; !unused && n < 5000; n++) {
		fail_nth(_metadata, n);
		ret = MAP_REQ();
		unused = fail_nth(_metadata, 0);
		if (ret) {
			failed++;
			EXPECT_TRUE(ret == -ENOMEM || ret == -EFAULT ||
				    ret == -EIO);
		} else {
			ASSERT_EQ(0, edu_unmap(self->fd, self->req.handle, len));
			self->req.handle = 0;
		}
		ASSERT_EQ(0, file_number(STATS, "pins"));
		ASSERT_EQ(0, file_number(STATS, "maps"));
	}
	EXPECT_LT(1, failed);
	EXPECT_TRUE(unused);
	if (prot)
		EXPECT_GE(iovas + iova_noise(), iova_objects());
	munmap(p, len);
}

/* ------------------------------------------------------------------ progress */

struct crowd {
	unsigned char *p;
	size_t len;
	unsigned int mode, seed;
	bool keep;
	int errors;
	pthread_t thread;
};

/* dma-debug knows seven mappings of one page, and warns at the next. */
static bool dma_debug(void)
{
	char disabled[8] = "";

	read_file("/sys/kernel/debug/dma-api/disabled", disabled,
		  sizeof(disabled));
	return disabled[0] == 'N';
}

static void *crowd_run(void *arg)
{
	struct crowd *c = arg;
	int fd = open(EDU_DEV, O_RDWR);
	int i, h;

	for (i = 0; i < 25; i++) {
		size_t off = rand_r(&c->seed) % (c->len - PAGE);
		size_t len = 2 + rand_r(&c->seed) % (c->len - off - 2);

		h = edu_map(fd, c->p + off, len, c->mode | WRITE);
		if (h <= 0) {
			/* Mirrored: disturbed too often, or read-only now. */
			c->errors += !(c->mode & MIRROR) ||
				     (h != -EBUSY && h != -EPERM);
			continue;
		}
		if (c->mode & MIRROR &&
		    edu_unmap_part(fd, h, 0, 1 + len / 3, NULL, NULL))
			c->errors++;
		/* Some are left to close(). */
		if (!(c->keep && rand_r(&c->seed) % 4 == 0) &&
		    edu_unmap(fd, h, len))
			c->errors++;
	}
	close(fd);
	return NULL;
}

/* Sixteen threads on overlapping ranges, while the memory is disturbed. */
TEST_F(input, crowd)
{
	struct disturber d = { .p = self->p, .len = self->len };
	bool few = dma_debug() && !edu_protected(self->fd);
	int i, n = few ? 6 : 16, errors = 0;
	struct crowd c[16];

	/*
	 * Out of ZONE_MOVABLE first. GUP says ENOMEM when it cannot move a page,
	 * also when that is only because another thread has just looked at it.
	 */
	if (!(variant->mode & MIRROR) && movable_zone())
		ASSERT_EQ(0, edu_unmap(self->fd, edu_map(self->fd, self->p,
							 self->len, WRITE),
				       self->len));
	if (variant->mode & MIRROR)
		ASSERT_EQ(0, pthread_create(&d.thread, NULL, disturber_run, &d));
	for (i = 0; i < n; i++) {
		c[i] = (struct crowd){
			.p = self->p, .len = self->len, .mode = variant->mode,
			.seed = i, .keep = !few,
		};
		ASSERT_EQ(0, pthread_create(&c[i].thread, NULL, crowd_run,
					    &c[i]));
	}
	for (i = 0; i < n; i++) {
		pthread_join(c[i].thread, NULL);
		errors += c[i].errors;
	}
	d.stop = true;
	if (variant->mode & MIRROR)
		pthread_join(d.thread, NULL);
	EXPECT_EQ(0, errors);
}

/* Large, scattered, and again: nothing grows. */
TEST_F_TIMEOUT(input, large_and_often, 180)
{
	size_t len = 8UL << 20;
	unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long before = 0, after;
	int i, h;

	ASSERT_NE(MAP_FAILED, p);
	madvise(p, len, MADV_NOHUGEPAGE);
	for (i = 0; i < 6; i++) {
		h = edu_map(self->fd, p, len, variant->mode | WRITE);
		ASSERT_GT(h, 0);
		EXPECT_EQ((long)len, file_number(STATS, "mapped_bytes"));
		ASSERT_EQ(0, edu_unmap(self->fd, h, len));
		after = file_number("/proc/meminfo", "SUnreclaim");
		if (i == 2)
			before = after;
	}
	EXPECT_GT(before + 1024, after);
	munmap(p, len);
}

/* ---------------------------------------- what a device reaches, and where */

FIXTURE(reach)
{
	struct oracles o;
	int fd;
	unsigned char *p;
	size_t len;
	unsigned char buf[CHUNK];
};

FIXTURE_VARIANT(reach)
{
	unsigned int mode;
};

FIXTURE_VARIANT_ADD(reach, pinned) { .mode = PINNED };
FIXTURE_VARIANT_ADD(reach, mirrored) { .mode = MIRROR };
FIXTURE_VARIANT_ADD(reach, umem) { .mode = UMEM };
FIXTURE_VARIANT_ADD(reach, odp) { .mode = ODP };

FIXTURE_SETUP(reach)
{
	oracles_begin(_metadata, &self->o);
	if (refused(variant->mode))
		SKIP(return, REFUSED);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	if (rdma_missing(self->fd, variant->mode))
		SKIP(return, NO_RDMA);
	self->len = 64 * PAGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
	memset(self->buf, 0xee, CHUNK);
}

FIXTURE_TEARDOWN(reach)
{
	if (self->fd > 0)
		close(self->fd);
	if (self->p)
		munmap(self->p, self->len);
	oracles_check(_metadata, &self->o);
}

#define LOW	"all memory is below 4 GiB"

/* The device reads what is at @offset, and writes @buf behind it. */
static void dma_both_ways(struct __test_metadata *_metadata, int fd, int h,
			  unsigned char *p, size_t offset, unsigned char *buf)
{
	unsigned char back[CHUNK];

	ASSERT_EQ(0, edu_dma(fd, h, offset, back, CHUNK, 0));
	EXPECT_EQ(0, memcmp(back, p + offset, CHUNK));
	ASSERT_EQ(0, edu_dma(fd, h, offset + CHUNK, buf, CHUNK, DMA_WRITE));
	EXPECT_EQ(0, memcmp(buf, p + offset + CHUNK, CHUNK));
}

/* 32 address bits: an IOMMU helps, or bounce buffers, or it is refused. */
TEST_F(reach, small_mask)
{
	bool prot = edu_protected(self->fd);
	size_t i;
	int h;

	if (!prot && !bounces() && mem_phys(self->p) <= UINT32_MAX)
		SKIP(return, LOW);
	if (!prot && variant->mode == UMEM)
		SKIP(return, "the DMA API warns: out of reach, and no bouncing");
	ASSERT_EQ(0, edu_mask(self->fd, UINT32_MAX));
	h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);
	if (!prot && variant->mode & MIRROR) {
		EXPECT_EQ(-EOPNOTSUPP, h);
	} else {
		ASSERT_GT(h, 0);
		for (i = 0; i < self->len; i += PAGE)
			EXPECT_GE(UINT32_MAX, edu_addr(self->fd, h, i));
		dma_both_ways(_metadata, self->fd, h, self->p, 7 * PAGE,
			      self->buf);
		if (!prot)
			EXPECT_LT(self->o.swiotlb,
				  swiotlb_used());
		EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
		EXPECT_EQ(7 * PAGE + CHUNK,
			  mem_check(self->p, 0, self->len));
		EXPECT_EQ(self->len, mem_check(self->p, 7 * PAGE + 2 * CHUNK,
					       self->len));
	}
	/* The mask went with the file. */
	close(self->fd);
	self->fd = open(EDU_DEV, O_RDWR);
	h = edu_map(self->fd, self->p, self->len, variant->mode);
	ASSERT_GT(h, 0);
	if (!prot && !bounces())
		EXPECT_EQ(mem_phys(self->p), edu_addr(self->fd, h, 0));
}

/* Map until there is no IOVA any more; how many went in. Nothing is left. */
static int fill_iova(struct __test_metadata *_metadata, int fd, void *p,
		     size_t len, unsigned int flags)
{
	int i, n, h[80];

	for (n = 0; n < 79; n++) {
		h[n] = edu_map(fd, p, len, flags);
		if (h[n] <= 0)
			break;
	}
	EXPECT_LT(7, n);
	EXPECT_EQ(-ENOMEM, h[n]);
	EXPECT_EQ(n, file_number(STATS, "maps"));
	EXPECT_EQ(flags & MIRROR ? 0 : n, file_number(STATS, "pins"));
	/* One goes, one fits. */
	EXPECT_EQ(0, edu_unmap(fd, h[n / 2], len));
	h[n / 2] = edu_map(fd, p, len, flags);
	EXPECT_GT(h[n / 2], 0);
	EXPECT_EQ(-ENOMEM, edu_map(fd, p, len, flags));
	for (i = 0; i < n; i++)
		EXPECT_EQ(0, edu_unmap(fd, h[i], len));
	return n;
}

/*
 * IOVA space runs out: it says so, and is whole again afterwards. A mirrored
 * mapping reserves its IOVA at once and needs no memory for that.
 */
TEST_F_TIMEOUT(reach, iova_exhaustion, 180)
{
	bool mirror = variant->mode & MIRROR;
	size_t len = mirror ? 64UL << 20 : self->len;
	uint64_t mask = mirror ? UINT32_MAX : (4UL << 20) - 1;
	unsigned int flags = variant->mode | (mirror ? ONLY : 0);
	long before, after;
	void *p = self->p;
	int i, n, h;

	if (!edu_protected(self->fd))
		SKIP(return, UNPROTECTED);
	if (mirror)
		p = mmap(mem_reserve(len, HUGE), len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, edu_mask(self->fd, mask));
	n = fill_iova(_metadata, self->fd, p, len, flags);
	before = iova_objects();
	ASSERT_LE(0, before);
	for (i = 0; i < 200; i++) {
		h = edu_map(self->fd, p, len, flags);
		ASSERT_GT(h, 0);
		ASSERT_EQ(0, edu_unmap(self->fd, h, len));
	}
	after = iova_objects();
	EXPECT_GE(before + iova_noise(), after);
	EXPECT_EQ(n, fill_iova(_metadata, self->fd, p, len, flags));
	if (p != self->p)
		munmap(p, len);
}

/* Pages are moved out of ZONE_MOVABLE to be pinned; a mirror follows them. */
TEST_F(reach, movable_zone)
{
	uint64_t movable = movable_zone();
	size_t i, moved = 0;
	int h;

	if (!movable)
		SKIP(return, "the guest has no movable zone");
	for (i = 0; i < self->len; i += PAGE)
		moved += mem_phys(self->p + i) >= movable;
	EXPECT_LT(0, moved);
	h = edu_map(self->fd, self->p, self->len, variant->mode | WRITE);
	ASSERT_GT(h, 0);
	for (i = 0; i < self->len; i += PAGE)
		moved -= mem_phys(self->p + i) >= movable;
	EXPECT_EQ(!(variant->mode & MIRROR), moved > 0);
	for (i = 0; !(variant->mode & MIRROR) && i < self->len; i += PAGE)
		EXPECT_GT(movable, mem_phys(self->p + i));
	EXPECT_EQ(self->len, mem_check(self->p, 0, self->len));
	dma_both_ways(_metadata, self->fd, h, self->p, 3 * PAGE, self->buf);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
}

/* A child maps and unmaps @len bytes again and again, until it is killed. */
static pid_t map_forever(int fd, unsigned int flags, size_t len, bool unmap)
{
	pid_t pid = fork();
	void *p;
	int h;

	if (pid)
		return pid;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(p, len, MADV_NOHUGEPAGE);
	for (;;) {
		h = edu_map(fd, p, len, flags);
		if (h > 0 && unmap)
			edu_unmap(fd, h, len);
		madvise(p, len, MADV_DONTNEED);
	}
}

/* Killed in the middle, and its memory reaped while it may still be at work. */
TEST_F_TIMEOUT(reach, killed_mid_map, 120)
{
	uint64_t before = interrupted(self->fd);
	int i, status, pidfd;
	pid_t pid;

	for (i = 0; i < 6 || (i < 60 && interrupted(self->fd) == before); i++) {
		pid = map_forever(self->fd, variant->mode | WRITE, 4UL << 20,
				  i % 2);
		pidfd = syscall(__NR_pidfd_open, pid, 0);
		ASSERT_GE(pidfd, 0);
		usleep(8000 + i * 9000);
		kill(pid, SIGKILL);
		/* What the OOM reaper does. It may come too late. */
		syscall(__NR_process_mrelease, pidfd, 0);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status));
		close(pidfd);
	}
	EXPECT_LT(before, interrupted(self->fd))
		TH_LOG("none of %d maps was under way when it was killed", i);
	/* Handles of the dead go with the file. */
	close(self->fd);
	self->fd = open(EDU_DEV, O_RDWR);
	EXPECT_EQ(0, file_number(STATS, "maps"));
}

/* ------------------------------------------------------------------- fuzzing */

/*
 * A random walk with a model beside it: what each page of user memory and of
 * each pinned mapping holds, and what each call has to return. The walk is a
 * function of the seed alone, and the model knows of no backend: all agree.
 *
 * Pinned mappings are in the lower half, mirrored ones in the upper, because
 * dma-debug does not like both on one page; and pinned ones do not overlap,
 * because bounce buffers of one page would overwrite each other.
 */
#define FUZZ_PAGES	48
#define FUZZ_STEPS	300
#define FUZZ_DMAS	16	/* at most: they take time */
#define FUZZ_FORKS	4
#define FUZZ_AT		128	/* where in a page its bytes are */
#define FUZZ_LEN	64

struct fuzz_handle {
	int h;			/* 0: free */
	int first, nr;
	unsigned int flags;
	int obj[FUZZ_PAGES];	/* pinned: the page that it holds */
};

struct fuzz {
	int fd;
	unsigned int rdma;	/* RDMA or 0 */
	unsigned int seed;
	unsigned char *p;
	int prot[FUZZ_PAGES];	/* -1: no VMA */
	int obj[FUZZ_PAGES];	/* 0: not touched yet, which reads as zeroes */
	int objs;
	unsigned char byte[FUZZ_STEPS * FUZZ_PAGES];	/* of each obj */
	struct fuzz_handle handle[4];	/* two pinned, two mirrored */
	int dmas, forks;
};

static int fuzz_rand(struct fuzz *f, int below)
{
	return rand_r(&f->seed) / 7 % below;
}

static int fuzz_touch(struct fuzz *f, int page)
{
	if (!f->obj[page])
		f->obj[page] = ++f->objs;
	return f->obj[page];
}

/* What mapping @nr pages has to say; a mirror may find either fault first. */
static bool fuzz_expected(struct fuzz *f, unsigned int flags, int first, int nr,
			  int ret)
{
	bool fault = false, perm = false;
	int i;

	for (i = first; i < first + nr; i++) {
		fault |= f->prot[i] == -1 || f->prot[i] == PROT_NONE;
		perm |= f->prot[i] == PROT_READ && flags & WRITE;
	}
	if (refused(flags))
		return ret == -EOPNOTSUPP;
	if (!(flags & MIRROR))
		return fault || perm ? ret == -EFAULT : ret >= 0;
	return (fault && ret == -EFAULT) || (perm && ret == -EPERM) ||
	       (!fault && !perm && ret >= 0);
}

/* A bounce buffer would overwrite what the CPU writes now. */
static bool fuzz_device_owns(struct fuzz *f, int page)
{
	struct fuzz_handle *h;

	for (h = f->handle; h < f->handle + 2; h++)
		if (bounces() && h->h && h->flags & WRITE && page >= h->first &&
		    page < h->first + h->nr)
			return true;
	return false;
}

static bool fuzz_cpu_sees(struct fuzz *f, int page)
{
	unsigned char want[FUZZ_LEN];

	if (f->prot[page] < PROT_READ)
		return true;
	memset(want, f->byte[f->obj[page]], FUZZ_LEN);
	return !memcmp(f->p + page * PAGE + FUZZ_AT, want, FUZZ_LEN);
}

static void fuzz_cpu_writes(struct fuzz *f, int page, unsigned char byte)
{
	if (f->prot[page] < 0 || !(f->prot[page] & PROT_WRITE) ||
	    fuzz_device_owns(f, page))
		return;
	memset(f->p + page * PAGE + FUZZ_AT, byte, FUZZ_LEN);
	f->byte[fuzz_touch(f, page)] = byte;
}

static bool fuzz_vma(struct fuzz *f, int op, int first, int nr)
{
	static const int prots[] = { PROT_NONE, PROT_READ,
				     PROT_READ | PROT_WRITE };
	int prot = prots[fuzz_rand(f, 3)], i, ret = 0;

	for (i = first; i < first + nr && !ret; i++) {
		void *va = f->p + i * PAGE;

		if (op == 0) {
			f->prot[i] = PROT_READ | PROT_WRITE;
			ret = mmap(va, PAGE, f->prot[i], MAP_PRIVATE |
				   MAP_ANONYMOUS | MAP_FIXED, -1, 0) != va;
		} else if (f->prot[i] == -1) {
			continue;
		} else if (op == 1) {
			f->prot[i] = -1;
			ret = munmap(va, PAGE);
		} else if (op == 2) {
			ret = madvise(va, PAGE, MADV_DONTNEED);
		} else {
			f->prot[i] = prot;
			ret = mprotect(va, PAGE, prot);
			continue;
		}
		f->obj[i] = 0;
	}
	return !ret;
}

static bool fuzz_map(struct fuzz *f, struct fuzz_handle *h, int first, int nr,
		     unsigned int flags)
{
	int i, ret = edu_map(f->fd, f->p + first * PAGE, nr * PAGE, flags);

	if (!fuzz_expected(f, flags, first, nr, ret))
		return false;
	if (ret < 0)
		return true;
	h->h = ret;
	h->first = first;
	h->nr = nr;
	h->flags = flags;
	for (i = 0; i < nr && !(flags & MIRROR); i++)
		h->obj[i] = fuzz_touch(f, first + i);
	return true;
}

static bool fuzz_dma(struct fuzz *f, struct fuzz_handle *h, int page,
		     unsigned char byte)
{
	bool mirror = h->flags & MIRROR, write = h->flags & WRITE && byte & 1;
	unsigned char buf[FUZZ_LEN], want[FUZZ_LEN];
	int va = h->first + page, obj, ret;

	if (f->dmas++ >= FUZZ_DMAS)
		return true;
	memset(buf, byte, FUZZ_LEN);
	ret = edu_dma(f->fd, h->h, page * PAGE + FUZZ_AT, buf, FUZZ_LEN,
		      write ? DMA_WRITE : 0);
	if (mirror && !fuzz_expected(f, MIRROR | (write ? WRITE : 0), va, 1,
				     ret))
		return false;
	if (ret)
		return mirror;
	obj = mirror ? f->obj[va] : h->obj[page];
	if (mirror && write)
		obj = fuzz_touch(f, va);
	if (write)
		f->byte[obj] = byte;
	memset(want, f->byte[obj], FUZZ_LEN);
	return !memcmp(buf, want, FUZZ_LEN);
}

static bool fuzz_handle(struct fuzz *f, int op)
{
	int slot = fuzz_rand(f, 4), first = fuzz_rand(f, 12), ret;
	struct fuzz_handle *h = &f->handle[slot];
	unsigned int flags = f->rdma | (fuzz_rand(f, 3) ? WRITE : 0);
	int nr = 1 + fuzz_rand(f, 12 - first), byte = fuzz_rand(f, 255) + 1;

	if (slot >= 2)
		flags |= MIRROR;
	if (!h->h) {
		first += slot < 2 ? slot * 12 : 24 + (slot - 2) * 6;
		return fuzz_map(f, h, first, nr, flags);
	}
	first %= h->nr;
	nr = 1 + nr % (h->nr - first);
	if (op == 0)
		return fuzz_dma(f, h, first, byte);
	if (op == 1) {
		ret = edu_unmap(f->fd, h->h, h->nr * PAGE);
		h->h = 0;
		return !ret;
	}
	if (slot < 2)
		return true;
	if (op < 4 && nr < h->nr)
		return !edu_unmap_part(f->fd, h->h, first * PAGE, nr * PAGE,
				       NULL, NULL);
	flags = h->flags & (byte & 1 ? ~0U : ~WRITE);
	ret = edu_fault(f->fd, h->h, first * PAGE, nr * PAGE, flags & WRITE);
	return fuzz_expected(f, flags, h->first + first, nr, ret);
}

/* A child shares the pages or has its own; it sees the same and goes. */
static bool fuzz_fork(struct fuzz *f)
{
	int i, status;
	pid_t pid;

	if (f->forks++ >= FUZZ_FORKS)
		return true;
	pid = fork();
	if (!pid) {
		for (i = 0; i < FUZZ_PAGES; i++)
			if (!fuzz_cpu_sees(f, i))
				_exit(1);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && !status;
}

static bool fuzz_step(struct fuzz *f)
{
	int op = fuzz_rand(f, 16), page = fuzz_rand(f, FUZZ_PAGES), nr;

	nr = 1 + fuzz_rand(f, FUZZ_PAGES - page) % 8;
	switch (op) {
	case 0 ... 2:
		for (; nr--; page++)
			fuzz_cpu_writes(f, page, 1 + fuzz_rand(f, 255));
		return true;
	case 3:
		return fuzz_cpu_sees(f, page);
	case 4 ... 7:
		/* As many are mapped as all else together. */
		return fuzz_vma(f, fuzz_rand(f, 2) ? 0 : op - 4, page, nr);
	case 8:
		return fuzz_rand(f, 4) || fuzz_fork(f);
	default:
		return fuzz_handle(f, op - 9);
	}
}

FIXTURE(fuzz)
{
	struct oracles o;
	struct fuzz f;
};

FIXTURE_VARIANT(fuzz)
{
	unsigned int seed;
	unsigned int rdma;
};

FIXTURE_VARIANT_ADD(fuzz, seed_1) { .seed = 1 };
FIXTURE_VARIANT_ADD(fuzz, seed_2) { .seed = 2 };
FIXTURE_VARIANT_ADD(fuzz, seed_3) { .seed = 3 };
FIXTURE_VARIANT_ADD(fuzz, seed_4) { .seed = 4 };
FIXTURE_VARIANT_ADD(fuzz, rdma_1) { .seed = 1, .rdma = RDMA };
FIXTURE_VARIANT_ADD(fuzz, rdma_2) { .seed = 2, .rdma = RDMA };

FIXTURE_SETUP(fuzz)
{
	int i;

	oracles_begin(_metadata, &self->o);
	self->f.fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->f.fd, 0);
	if (refused(variant->rdma))
		SKIP(return, REFUSED);
	if (rdma_missing(self->f.fd, variant->rdma))
		SKIP(return, NO_RDMA);
	self->f.rdma = variant->rdma;
	self->f.seed = variant->seed;
	self->f.p = mem_alloc(MEM_4K, FUZZ_PAGES * PAGE);
	ASSERT_NE(MAP_FAILED, self->f.p);
	for (i = 0; i < FUZZ_PAGES; i++)
		self->f.prot[i] = PROT_READ | PROT_WRITE;
	madvise(self->f.p, FUZZ_PAGES * PAGE, MADV_DONTNEED);
}

FIXTURE_TEARDOWN(fuzz)
{
	close(self->f.fd);
	if (self->f.p)
		munmap(self->f.p, FUZZ_PAGES * PAGE);
	oracles_check(_metadata, &self->o);
}

TEST_F(fuzz, against_a_model)
{
	int step = 0, i;

	while (step < FUZZ_STEPS && fuzz_step(&self->f))
		step++;
	EXPECT_EQ(FUZZ_STEPS, step);
	for (i = 0; i < FUZZ_PAGES; i++)
		EXPECT_TRUE(fuzz_cpu_sees(&self->f, i));
	EXPECT_LT(FUZZ_DMAS / 4, self->f.dmas);
}

/* ----------------------------------------------------------- the device leaves */

static void device_leaves(struct __test_metadata *_metadata, int fd,
			  unsigned int mode, unsigned char *p, size_t len,
			  bool unplug)
{
	unsigned char buf[CHUNK];
	char slot[32], path[128];
	struct iova_balance b;
	int h, i;

	h = edu_map(fd, p, len, mode | WRITE);
	ASSERT_GT(h, 0);
	ASSERT_EQ(0, edu_slot(slot));
	if (unplug) {
		sprintf(path, "/sys/bus/pci/devices/%s/remove", slot);
		ASSERT_EQ(0, write_file(path, "1"));
	} else {
		ASSERT_EQ(0, write_file("/sys/bus/pci/drivers/gup_range_edu/unbind",
					slot));
	}
	/* Revoked, though the file is open and the process lives. */
	EXPECT_EQ(0, file_number(STATS, "pins"));
	EXPECT_EQ(0, file_number(STATS, "maps"));
	EXPECT_EQ(0, file_number(STATS, "mapped_bytes"));
	EXPECT_EQ(-ENODEV, edu_dma(fd, h, 0, buf, CHUNK, 0));
	EXPECT_EQ(-ENODEV, edu_unmap(fd, h, len));
	p[0] = 1;
	ASSERT_EQ(0, unplug ? write_file("/sys/bus/pci/rescan", "1") :
		  write_file("/sys/bus/pci/drivers/gup_range_edu/bind", slot));
	for (i = 0; i < 50 && access(EDU_DEV, F_OK); i++)
		usleep(100000);
	fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(fd, 0);
	h = edu_map(fd, p, len, mode);
	ASSERT_GT(h, 0);
	EXPECT_EQ(0, edu_dma(fd, h, PAGE, buf, CHUNK, 0));
	EXPECT_EQ(0, memcmp(buf, p + PAGE, CHUNK));
	close(fd);
	/* In lazy mode the driver's own buffer gets another IOVA than before. */
	iova_balance(&b);
	EXPECT_EQ(NULL, b.error);
	EXPECT_EQ(0, b.bytes);
	EXPECT_EQ(NULL, trace_start());
}

TEST_F(input, unbind_with_live_mapping)
{
	device_leaves(_metadata, self->fd, variant->mode, self->p, self->len,
		      false);
}

TEST_F(input, unplug_with_live_mapping)
{
	device_leaves(_metadata, self->fd, variant->mode, self->p, self->len,
		      true);
}

/* ------------------------------------------------------------- refused at init */

/* Bouncing devices cannot mirror, and say so at once. */
TEST(mirror_refused_with_bounce_buffers)
{
	unsigned char *p = mem_alloc(MEM_4K, PAGE * 8);
	int fd = open(EDU_DEV, O_RDWR);
	int h;

	ASSERT_GE(fd, 0);
	h = edu_map(fd, p, 8 * PAGE, MIRROR);
	EXPECT_TRUE(bounces() ? h == -EOPNOTSUPP : h > 0);
	if (!rdma_missing(fd, RDMA)) {
		h = edu_map(fd, p, 8 * PAGE, ODP);
		EXPECT_TRUE(bounces() ? h == -EOPNOTSUPP : h > 0);
		h = edu_map(fd, p, 8 * PAGE, UMEM);
		EXPECT_TRUE(bounces() ? h == -EIO : h > 0);
	}
	h = edu_map(fd, p, 8 * PAGE, PINNED);
	EXPECT_LT(0, h);
	close(fd);
	munmap(p, 8 * PAGE);
}

/* ---------------------------------------------------------------- tracepoints */

TEST(tracepoints)
{
	static const char * const events[] = {
		"gup_range_pin", "gup_range_unpin", "gup_range_map",
		"gup_range_unmap", "hmm_range_invalidate",
	};
	unsigned char *p = mem_alloc(MEM_4K, PAGE * 8);
	static char trace[1 << 16];
	int fd = open(EDU_DEV, O_RDWR);
	unsigned int i;
	int h;

	write_file(TRACING "trace", "");
	ASSERT_EQ(0, write_file(TRACING "events/gup_range/enable", "1"));
	h = edu_map(fd, p, 8 * PAGE, PINNED);
	ASSERT_GT(h, 0);
	edu_unmap(fd, h, 8 * PAGE);
	if (!bounces())
		edu_map(fd, p, 8 * PAGE, MIRROR);
	munmap(p, 8 * PAGE);
	close(fd);
	write_file(TRACING "events/gup_range/enable", "0");
	ASSERT_EQ(0, read_file(TRACING "trace", trace, sizeof(trace)));
	for (i = 0; i < (bounces() ? 4 : 5); i++)
		EXPECT_NE(NULL, strstr(trace, events[i]));
}

/* ------------------------------------------------------------------ fault log */

FIXTURE(log)
{
};

FIXTURE_SETUP(log)
{
}

FIXTURE_TEARDOWN(log)
{
}

/* The tests above provoked faults; this IOMMU must have logged one of them. */
TEST_F(log, faults_were_logged)
{
	int fd = open(EDU_DEV, O_RDWR);
	static char line[1024];
	bool seen = false;
	int kmsg;
	ssize_t n;

	if (!edu_protected(fd))
		SKIP(return, UNPROTECTED);
	close(fd);
	if (iommu_is("ivhd"))
		SKIP(return, "QEMU's AMD IOMMU logs no faults");
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	lseek(kmsg, 0, SEEK_SET);
	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 ||
	       (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		line[n] = 0;
		seen |= (strstr(line, "[DMA ") && strstr(line, "fault")) ||
			(strstr(line, "virtio_iommu") &&
			 strstr(line, "page fault"));
	}
	EXPECT_TRUE(seen);
	close(kmsg);
}

TEST_HARNESS_MAIN
