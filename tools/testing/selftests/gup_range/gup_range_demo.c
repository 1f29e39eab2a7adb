// SPDX-License-Identifier: GPL-2.0-only
/*
 * A tour: for each mode and kind of memory one line, then an munmap() under a
 * live mirrored mapping. Exits with the number of surprises.
 */
#define _GNU_SOURCE
#include <time.h>

#include "gup_range_util.h"

#define CHUNK	1024

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* The device reads and, if it may, writes; 0 when every byte is right. */
static int verify(int fd, int h, unsigned char *p, size_t len, bool write)
{
	unsigned char buf[CHUNK], seen[CHUNK];
	size_t at = len / 2 - CHUNK / 2;

	if (edu_dma(fd, h, at, seen, CHUNK, 0) || memcmp(seen, p + at, CHUNK))
		return 1;
	if (!write)
		return 0;
	memset(buf, 0xc3, CHUNK);
	if (edu_dma(fd, h, at, buf, CHUNK, GUP_RANGE_EDU_DMA_WRITE))
		return 1;
	return memcmp(buf, p + at, CHUNK) != 0;
}

/* Nothing is mapped there any more: "blocked", "LET THROUGH", or "-". */
static const char *stale(int fd, uint64_t addr, unsigned char *p)
{
	unsigned char old = *p, buf[CHUNK];

	memset(buf, ~old, CHUNK);
	if (!edu_protected(fd))
		return "-";
	edu_dma_raw(fd, addr, buf, CHUNK, GUP_RANGE_EDU_DMA_WRITE);
	return *p == old ? "blocked" : "LET THROUGH";
}

static int show(int fd, unsigned int mode, enum mem_kind kind)
{
	bool write = kind != MEM_READONLY;
	size_t len = mem_len(kind);
	unsigned char *p = mem_alloc(kind, len);
	struct gup_range_edu_query q = {};
	int h, wrong;
	const char *after;
	double start;

	if (p == MAP_FAILED) {
		printf("%-9s %-13s no memory of this kind\n", "", mem_names[kind]);
		return 1;
	}
	start = now_us();
	h = edu_map(fd, p, len, mode | (write ? GUP_RANGE_EDU_MAP_WRITE : 0));
	start = now_us() - start;
	if (h < 0 || edu_query(fd, h, 0, &q)) {
		printf("%-13s cannot be mapped: %s\n", mem_names[kind],
		       strerror(-h));
		return 1;
	}
	wrong = verify(fd, h, p, len, write);
	edu_unmap(fd, h, len);
	after = stale(fd, q.addr, p);
	printf("%-8s %-12s %5zu KiB %4llu runs %4llu links %llu sync %7.0f us",
	       mode ? "mirrored" : "pinned", mem_names[kind], len >> 10,
	       (unsigned long long)(mode ? q.links : q.runs),
	       (unsigned long long)q.links, (unsigned long long)q.syncs, start);
	printf("  DMA %-10s %s, stale access %s\n",
	       write ? "read+write" : "read", wrong ? "WRONG" : "verified",
	       after);
	munmap(p, len);
	return wrong || *after == 'L';
}

static int show_munmap(int fd)
{
	size_t len = 8 * PAGE;
	unsigned char *p = mem_alloc(MEM_4K, len), buf[64], *other;
	int h = edu_map(fd, p, len, GUP_RANGE_EDU_MAP_MIRROR |
			GUP_RANGE_EDU_MAP_WRITE);
	uint64_t addr = edu_addr(fd, h, 2 * PAGE);
	int ret, bad = 0;

	memset(buf, 0x66, sizeof(buf));
	printf("\nA live mirrored mapping: page 2 of %p is at DMA address %#llx.\n",
	       p, (unsigned long long)addr);
	ret = edu_dma(fd, h, 2 * PAGE, buf, sizeof(buf),
		      GUP_RANGE_EDU_DMA_WRITE);
	printf("  the device writes to it:       %s\n",
	       ret || p[2 * PAGE] != 0x66 ? "FAILED" : "the CPU sees it");
	bad += ret || p[2 * PAGE] != 0x66;
	munmap(p + 2 * PAGE, PAGE);
	other = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	printf("  munmap() of that page:         %s\n",
	       edu_addr(fd, h, 2 * PAGE) == NOT_MAPPED ?
	       "unmapped from the device" : "STILL MAPPED");
	bad += edu_addr(fd, h, 2 * PAGE) != NOT_MAPPED;
	if (edu_protected(fd)) {
		edu_dma_raw(fd, addr, buf, sizeof(buf),
			    GUP_RANGE_EDU_DMA_WRITE);
		for (ret = 0; ret < 64 * (int)PAGE; ret++)
			if (other[ret])
				break;
		printf("  the device tries it again:     %s\n",
		       ret == 64 * (int)PAGE ?
		       "stopped by the IOMMU, no memory changed" :
		       "MEMORY CHANGED");
		bad += ret != 64 * (int)PAGE;
	}
	ret = edu_dma(fd, h, 2 * PAGE, buf, sizeof(buf),
		      GUP_RANGE_EDU_DMA_WRITE);
	printf("  and asks for a device fault:   %s\n", strerror(-ret));
	bad += ret != -EFAULT;
	edu_unmap(fd, h, len);
	munmap(other, 64 * PAGE);
	return bad;
}

int main(void)
{
	int fd = open(EDU_DEV, O_RDWR);
	unsigned int kind, bad = 0;

	if (fd < 0) {
		fprintf(stderr, "%s: %s; is the device there, and its driver?\n",
			EDU_DEV, strerror(errno));
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (kind = MEM_4K; kind <= MEM_MIXED; kind++)
		bad += show(fd, 0, kind);
	for (kind = MEM_4K; kind <= MEM_MIXED; kind++)
		bad += show(fd, GUP_RANGE_EDU_MAP_MIRROR, kind);
	bad += show_munmap(fd);
	return bad;
}
