/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/* Private to drivers/misc/gup_range_bench* and tools/testing/selftests/gup_range. */
#ifndef _GUP_RANGE_BENCH_UAPI_H
#define _GUP_RANGE_BENCH_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Ways from user memory to DMA addresses. */
enum gup_range_bench_path {
	GUP_RANGE_BENCH_PINNED,	/* gup_range_dma_map() */
	GUP_RANGE_BENCH_MIRRORED,	/* hmm_range_dma_map() */
	GUP_RANGE_BENCH_FAULT,	/* the same, @part bytes at @offset */
	GUP_RANGE_BENCH_INVALIDATE,	/* maps all, times the unmap of @part */
	/* the RDMA core, which goes through the first two */
	GUP_RANGE_BENCH_RDMA_UMEM,
	GUP_RANGE_BENCH_RDMA_ODP,
	GUP_RANGE_BENCH_RDMA_FAULT,	/* @part */
	GUP_RANGE_BENCH_RDMA_INVALIDATE,	/* maps all, times @part */
	/* what drivers do without */
	GUP_RANGE_BENCH_IB_UMEM,
	GUP_RANGE_BENCH_XDP,
	GUP_RANGE_BENCH_ODP,
	GUP_RANGE_BENCH_ODP_FAULT,	/* @part */
	GUP_RANGE_BENCH_ODP_INVALIDATE,	/* maps all, times @part */
	GUP_RANGE_BENCH_GPUSVM,
	/* what these are made of */
	GUP_RANGE_BENCH_PIN,	/* pin_user_pages_fast(), 512 pages */
	GUP_RANGE_BENCH_HMM,	/* hmm_range_fault() */
	GUP_RANGE_BENCH_IOMMU,	/* iommu_map(), page by page */
	GUP_RANGE_BENCH_LINK,	/* dma_iova_link(), page by page */
	GUP_RANGE_BENCH_PATHS
};

/* The device writes, and pages are dirtied as that path does it. */
#define GUP_RANGE_BENCH_WRITE	(1 << 0)
/* Watch what is allocated; costs memory and time, not measured time. */
#define GUP_RANGE_BENCH_MEMORY	(1 << 1)

#define GUP_RANGE_BENCH_UNKNOWN	(~0ULL)

/*
 * The range is mapped and unmapped once to warm up and to watch what is allocated,
 * then @iterations times; the shortest time of each counts.
 */
struct gup_range_bench {
	__u32 path;		/* enum gup_range_bench_path */
	__u32 flags;
	__u32 iterations;
	__u32 reserved;		/* 0, as is what comes out */
	__u64 va;		/* of whole pages, as the next three */
	__u64 len;
	__u64 offset;
	__u64 part;
	__u64 map_ns;		/* out */
	__u64 unmap_ns;		/* out */
	__u64 links;		/* out, of one map: calls that map something */
	__u64 syncs;		/* out: calls that sync the IOTLB after it */
	__u64 flushes;		/* out, of one unmap: IOTLB flushes waited for */
	__u64 metadata;		/* out: bytes allocated while mapped */
	__u64 scratch;		/* out: most bytes more than that meanwhile */
};

#define GUP_RANGE_BENCH_RUN	_IOWR('g', 0x40, struct gup_range_bench)

#endif /* _GUP_RANGE_BENCH_UAPI_H */
