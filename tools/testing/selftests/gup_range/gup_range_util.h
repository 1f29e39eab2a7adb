/* SPDX-License-Identifier: GPL-2.0-only */
/* What the gup_range selftests share: the device, memory of each kind, oracles. */
#ifndef _GUP_RANGE_UTIL_H
#define _GUP_RANGE_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../../../drivers/misc/gup_range_edu_uapi.h"

#define EDU_DEV		"/dev/gup_range_edu"
#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define NOT_MAPPED	UINT64_MAX

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* enum gup_range_acct */
enum { ACCT_NONE, ACCT_PINNED_VM, ACCT_LOCKED_VM, ACCT_USER };

/* Each returns 0 or -errno. */
static inline int edu_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? -errno : 0;
}

static inline bool edu_protected(int fd)
{
	struct gup_range_edu_info info = { .size = sizeof(info) };

	return !edu_ioctl(fd, GUP_RANGE_EDU_INFO, &info) && info.protected;
}

/* Is GUP_RANGE_EDU_MAP_RDMA there? */
static inline bool edu_rdma(int fd)
{
	struct gup_range_edu_info info = { .size = sizeof(info) };

	return !edu_ioctl(fd, GUP_RANGE_EDU_INFO, &info) && info.rdma;
}

/* A handle, which is positive, or -errno. */
static inline int edu_map_acct(int fd, void *va, size_t len,
			       unsigned int flags, unsigned int acct)
{
	struct gup_range_edu_map req = {
		.size = sizeof(req),
		.flags = flags,
		.va = (uintptr_t)va,
		.len = len,
		.acct = acct,
		.granule = PAGE,
	};
	int ret = edu_ioctl(fd, GUP_RANGE_EDU_MAP, &req);

	return ret ? ret : (int)req.handle;
}

static inline int edu_map(int fd, void *va, size_t len, unsigned int flags)
{
	return edu_map_acct(fd, va, len, flags, ACCT_NONE);
}

/* For a device with pages of @granule bytes. */
static inline int edu_map_pages(int fd, void *va, size_t len,
				unsigned int flags, size_t granule)
{
	struct gup_range_edu_map req = {
		.size = sizeof(req),
		.flags = flags,
		.va = (uintptr_t)va,
		.len = len,
		.granule = granule,
	};
	int ret = edu_ioctl(fd, GUP_RANGE_EDU_MAP, &req);

	return ret ? ret : (int)req.handle;
}

static inline int edu_unmap_part(int fd, int handle, size_t offset, size_t len,
				 uintptr_t *start, uintptr_t *end)
{
	struct gup_range_edu_unmap req = {
		.size = sizeof(req),
		.handle = handle,
		.offset = offset,
		.len = len,
	};
	int ret = edu_ioctl(fd, GUP_RANGE_EDU_UNMAP, &req);

	if (!ret && start) {
		*start = req.unmapped_start;
		*end = req.unmapped_end;
	}
	return ret;
}

static inline int edu_unmap(int fd, int handle, size_t len)
{
	return edu_unmap_part(fd, handle, 0, len, NULL, NULL);
}

static inline int edu_fault(int fd, int handle, size_t offset, size_t len,
			    bool write)
{
	struct gup_range_edu_fault req = {
		.size = sizeof(req),
		.handle = handle,
		.offset = offset,
		.len = len,
		.flags = write ? GUP_RANGE_EDU_FAULT_WRITE : 0,
	};

	return edu_ioctl(fd, GUP_RANGE_EDU_FAULT, &req);
}

static inline int edu_dma(int fd, int handle, size_t offset, void *buf,
			  size_t len, unsigned int flags)
{
	struct gup_range_edu_dma req = {
		.size = sizeof(req),
		.handle = handle,
		.offset = offset,
		.buf = (uintptr_t)buf,
		.len = len,
		.flags = flags,
	};

	return edu_ioctl(fd, GUP_RANGE_EDU_DMA, &req);
}

static inline int edu_dma_raw(int fd, uint64_t addr, void *buf, size_t len,
			      unsigned int flags)
{
	struct gup_range_edu_dma req = {
		.size = sizeof(req),
		.addr = addr,
		.buf = (uintptr_t)buf,
		.len = len,
		.flags = flags | GUP_RANGE_EDU_DMA_RAW,
	};

	return edu_ioctl(fd, GUP_RANGE_EDU_DMA, &req);
}

static inline int edu_query(int fd, int handle, size_t offset,
			    struct gup_range_edu_query *q)
{
	uint64_t max_segment = q->max_segment, pgsz = q->pgsz_bitmap;

	*q = (struct gup_range_edu_query){
		.size = sizeof(*q),
		.handle = handle,
		.offset = offset,
		.max_segment = max_segment,
		.pgsz_bitmap = pgsz,
	};
	return edu_ioctl(fd, GUP_RANGE_EDU_QUERY, q);
}

/* DMA address of one byte, or NOT_MAPPED. */
static inline uint64_t edu_addr(int fd, int handle, size_t offset)
{
	struct gup_range_edu_query q = {};

	return edu_query(fd, handle, offset, &q) ? NOT_MAPPED : q.addr;
}

/* The device reaches no higher address, until @fd is closed. */
static inline int edu_mask(int fd, uint64_t mask)
{
	struct gup_range_edu_mask req = { .size = sizeof(req), .mask = mask };

	return edu_ioctl(fd, GUP_RANGE_EDU_MASK, &req);
}

/* ------------------------------------------------------------------- memory */

enum mem_kind {
	MEM_4K,		/* anonymous, small pages, touched in a scattered order */
	MEM_THP,
	MEM_HUGETLB,
	MEM_SHMEM,
	MEM_MEMFD,
	MEM_PRIVATE_FILE,
	MEM_READONLY,
	MEM_MIXED,	/* several VMAs, also of other kinds */
};

static const char * const mem_names[] = {
	"4k", "thp", "hugetlb-2m", "shmem", "memfd", "private-file", "read-only",
	"mixed-vmas",
};

static inline bool mem_is_huge(enum mem_kind kind)
{
	return kind == MEM_THP || kind == MEM_HUGETLB;
}

static inline size_t mem_len(enum mem_kind kind)
{
	return mem_is_huge(kind) ? 2 * HUGE : 32 * PAGE;
}

/* Every byte tells where it is; a page repeats after 256 bytes. */
static inline unsigned char mem_byte(size_t offset)
{
	return offset * 131 + (offset >> 12) * 17 + (offset >> 21) * 7 + 1;
}

static inline void mem_page(unsigned char *p, size_t offset)
{
	size_t i;

	for (i = 0; i < 256; i++)
		p[i] = mem_byte(offset + i);
	for (; i < PAGE; i += 256)
		memcpy(p + i, p, 256);
}

static inline void mem_fill(unsigned char *p, size_t len)
{
	size_t i, n = len / PAGE;

	/* An odd stride touches each page once, and not in order. */
	for (i = 0; i < n; i++)
		p[i * 37 % n * PAGE] = 1;
	for (i = 0; i < len; i += PAGE)
		mem_page(p + i, i);
}

/* Where [from, to) is first not as filled; @to if it is. */
static inline size_t mem_check(unsigned char *p, size_t from, size_t to)
{
	unsigned char page[PAGE];

	while (from < to) {
		size_t off = from % PAGE, n = PAGE - off;

		if (n > to - from)
			n = to - from;
		mem_page(page, from - off);
		if (memcmp(p + from, page + off, n)) {
			while (p[from] == page[off]) {
				from++;
				off++;
			}
			return from;
		}
		from += n;
	}
	return to;
}

/* Physical address of the page at @p; 0 if it is not present. */
static inline uint64_t mem_phys(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)p / PAGE * 8) != 8)
		entry = 0;
	close(fd);
	return entry >> 63 ? (entry & ((1ULL << 55) - 1)) * PAGE : 0;
}

#define MEM_DIRTY	(1ULL << 4)	/* KPF_DIRTY: the page, not its entry */

/* The kernel's flags of the page at @p; ~0 if they cannot be had. */
static inline uint64_t mem_page_flags(const void *p)
{
	int fd = open("/proc/kpageflags", O_RDONLY);
	uint64_t flags = ~0ULL;

	if (fd < 0)
		return flags;
	if (pread(fd, &flags, sizeof(flags), mem_phys(p) / PAGE * 8) != 8)
		flags = ~0ULL;
	close(fd);
	return flags;
}

/* An address of @align, with nothing mapped before and behind the @len bytes. */
static inline void *mem_reserve(size_t len, size_t align)
{
	char *p = mmap(NULL, len + 2 * align, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *a;

	if (p == MAP_FAILED)
		return p;
	a = (char *)(((uintptr_t)p + align) & ~(align - 1));
	munmap(p, len + 2 * align);
	return a;
}

static inline int mem_memfd(size_t len)
{
	int fd = memfd_create("gup_range", 0);

	if (fd >= 0 && ftruncate(fd, len)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* @len bytes of @kind, filled, aligned to 2 MiB; MAP_FAILED with errno. */
static inline void *mem_alloc(enum mem_kind kind, size_t len)
{
	int prot = PROT_READ | PROT_WRITE;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	int fd = -1;
	char *at = mem_reserve(len, HUGE), *p;
	size_t quarter = len / 4;

	if (at == MAP_FAILED)
		return at;
	if (kind == MEM_HUGETLB) {
		flags |= MAP_HUGETLB | 21 << MAP_HUGE_SHIFT;
	} else if (kind == MEM_SHMEM) {
		flags = MAP_SHARED | MAP_ANONYMOUS;
	} else if (kind == MEM_MEMFD || kind == MEM_PRIVATE_FILE) {
		flags = kind == MEM_MEMFD ? MAP_SHARED : MAP_PRIVATE;
		fd = mem_memfd(len);
		if (fd < 0)
			return MAP_FAILED;
	}
	p = mmap(at, len, prot, flags | MAP_FIXED_NOREPLACE, fd, 0);
	if (p != MAP_FAILED && kind == MEM_MIXED) {
		mmap(p + quarter, quarter, prot,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		fd = mem_memfd(len);
		mmap(p + 2 * quarter, quarter, prot, MAP_SHARED | MAP_FIXED, fd,
		     0);
	}
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		return p;
	madvise(p, len, kind == MEM_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	mem_fill((unsigned char *)p, len);
	if (kind == MEM_READONLY)
		mprotect(p, len, PROT_READ);
	return p;
}

/* ------------------------------------------------------------------ oracles */

static inline int read_file(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY);
	ssize_t n, done = 0;

	if (fd < 0)
		return -errno;
	while (done < (ssize_t)len - 1) {
		n = read(fd, buf + done, len - 1 - done);
		if (n <= 0)
			break;
		done += n;
	}
	close(fd);
	buf[done] = 0;
	return 0;
}

static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	n = n < 0 ? -errno : 0;
	close(fd);
	return n;
}

/* The number behind @key in a file of "key number" lines; -1 if there is none. */
static inline long file_number(const char *path, const char *key)
{
	static char buf[1 << 16];
	char *p = buf;

	if (read_file(path, buf, sizeof(buf)))
		return -1;
	while ((p = strstr(p, key))) {
		if ((p == buf || p[-1] == '\n') &&
		    strchr(" :\t", p[strlen(key)]))
			return strtol(p + strlen(key) + 1, NULL, 10);
		p += strlen(key);
	}
	return -1;
}

static inline long file_long(const char *path)
{
	char buf[64];

	return read_file(path, buf, sizeof(buf)) ? -1 : strtol(buf, NULL, 10);
}

#endif /* _GUP_RANGE_UTIL_H */
