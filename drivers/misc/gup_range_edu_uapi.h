/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Private to drivers/misc/gup_range_edu*.c and tools/testing/selftests/gup_range.
 *
 * Each struct begins with its size, as the caller knows it; unknown flags and
 * reserved fields that are not zero are refused with EINVAL, a longer struct
 * with anything but zeroes at its end with E2BIG. Handles belong to the open
 * file and to the mm that made them (EPERM for another, ENOENT if unknown).
 * Everything ends with ENODEV once the device is gone.
 */
#ifndef _GUP_RANGE_EDU_UAPI_H
#define _GUP_RANGE_EDU_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define GUP_RANGE_EDU_VERSION	1

/* Most bytes of one DMA; the device has a buffer of 4096 it must not fill. */
#define GUP_RANGE_EDU_DMA_MAX	2048

struct gup_range_edu_info {
	__u32 size;
	__u32 version;
	/* 1: an IOMMU stops the device after unmap, 0: nothing does */
	__u32 protected;
	/* 1: GUP_RANGE_EDU_MAP_RDMA is there */
	__u32 rdma;
	/* maps so far that ended because of a fatal signal */
	__u64 interrupted;
};

#define GUP_RANGE_EDU_MAP_MIRROR	(1 << 0)
#define GUP_RANGE_EDU_MAP_WRITE		(1 << 1)
/* Pinned: do not map. Mirrored: do not fault yet. */
#define GUP_RANGE_EDU_MAP_ONLY		(1 << 2)
/*
 * Through RDMA: pinned as ib_umem, mirrored as ODP. EOPNOTSUPP if the kernel is
 * built without. Errors are those of RDMA, which also checks va and len. A
 * granule of 2 MiB is IB_ACCESS_HUGETLB, for ODP; any other than a page is not.
 */
#define GUP_RANGE_EDU_MAP_RDMA		(1 << 3)

struct gup_range_edu_map {
	__u32 size;
	__u32 flags;
	__u64 va;
	__u64 len;
	__u32 acct;		/* enum gup_range_acct; pinned, not through RDMA */
	__u32 reserved;
	__u64 granule;
	__u32 handle;		/* out */
	__u32 reserved2;
};

/*
 * A pinned range is unmapped whole: offset 0 and the length of the range.
 * The handle goes with the whole range, in both modes.
 */
struct gup_range_edu_unmap {
	__u32 size;
	__u32 handle;
	__u64 offset;
	__u64 len;
	__u64 unmapped_start;	/* out: user addresses */
	__u64 unmapped_end;	/* out */
};

/* Mirrored: fault and map a part, as a device page fault would. */
#define GUP_RANGE_EDU_FAULT_WRITE	(1 << 0)

struct gup_range_edu_fault {
	__u32 size;
	__u32 handle;
	__u64 offset;
	__u64 len;
	__u32 flags;
	__u32 reserved;
	__u64 mapped_start;	/* out: user addresses */
	__u64 mapped_end;	/* out */
};

/* The device writes to memory; without it, it reads from memory. */
#define GUP_RANGE_EDU_DMA_WRITE		(1 << 0)
/* @addr is a DMA address; no handle, no check. Needs an IOMMU. */
#define GUP_RANGE_EDU_DMA_RAW		(1 << 1)
/* Mirrored: do not fault, EFAULT when a byte is not mapped. */
#define GUP_RANGE_EDU_DMA_NOFAULT	(1 << 2)
/* ib_umem: read what the CPU sees of it, ib_umem_copy_from(). No DMA. */
#define GUP_RANGE_EDU_DMA_CPU		(1 << 3)

struct gup_range_edu_dma {
	__u32 size;
	__u32 handle;
	__u64 offset;		/* of the first byte from va */
	__u64 addr;
	__u64 buf;		/* user buffer: data written, or data read */
	__u32 len;
	__u32 flags;
};

struct gup_range_edu_query {
	__u32 size;
	__u32 handle;
	__u64 offset;		/* in: where to ask for addr and avail */
	__u64 max_segment;	/* in: for segs; 0 is no limit */
	__u64 pgsz_bitmap;	/* in: for pgsz */
	__u64 addr;		/* out; ~0 when not mapped */
	__u64 avail;
	__u64 contig;		/* out; ~0 when more than one segment */
	__u64 runs;		/* pinned only, as are segs and pgsz */
	__u64 segs;		/* ib_umem: pages, and no runs */
	__u64 pgsz;
	__u64 links;		/* this one and the others: not of ib_umem */
	__u64 syncs;
	__u64 flushes;
	__u64 retries;
	__u64 metadata;
};

/*
 * The device writes to a page at the moment that it is unmapped: its IOTLB
 * knows the page, the DMA is under way, the unmap returns, the DMA arrives.
 */
#define GUP_RANGE_EDU_RACE_DMA_API	0	/* dma_unmap_phys(), may be lazy */
#define GUP_RANGE_EDU_RACE_PINNED	1
#define GUP_RANGE_EDU_RACE_MIRRORED	2
#define GUP_RANGE_EDU_RACE_UMEM		3
#define GUP_RANGE_EDU_RACE_ODP		4

struct gup_range_edu_race {
	__u32 size;
	__u32 mode;
	__u64 va;		/* of one page */
	__u32 lead_ms;		/* unmap so long before the DMA ends, 1 to 99 */
	__u32 reserved;
	__u32 in_time;		/* out: the unmap returned before the DMA ended */
	__u32 changed;		/* out: the page was written all the same */
};

/*
 * Let the kernel believe that the device reaches no address above @mask, for
 * all files, until this one is closed. EIO when the platform has no use for
 * such a device.
 */
struct gup_range_edu_mask {
	__u32 size;
	__u32 reserved;
	__u64 mask;
};

/* Misbehave, for tests of the test machinery. */
#define GUP_RANGE_EDU_PROVOKE_WARN	0
#define GUP_RANGE_EDU_PROVOKE_LOCKDEP	1
#define GUP_RANGE_EDU_PROVOKE_LEAK	2
#define GUP_RANGE_EDU_PROVOKE_STALE	3
#define GUP_RANGE_EDU_PROVOKE_HANG	4
#define GUP_RANGE_EDU_PROVOKE_UAF	5	/* KASAN */
#define GUP_RANGE_EDU_PROVOKE_ATOMIC	6	/* sleep in atomic context */
#define GUP_RANGE_EDU_PROVOKE_POISON	7	/* write to a freed page */
#define GUP_RANGE_EDU_PROVOKE_DMA_DEBUG	8	/* unmap with other arguments */

struct gup_range_edu_provoke {
	__u32 size;
	__u32 what;
};

#define GUP_RANGE_EDU_INFO	_IOWR('g', 0, struct gup_range_edu_info)
#define GUP_RANGE_EDU_MAP	_IOWR('g', 1, struct gup_range_edu_map)
#define GUP_RANGE_EDU_UNMAP	_IOWR('g', 2, struct gup_range_edu_unmap)
#define GUP_RANGE_EDU_FAULT	_IOWR('g', 3, struct gup_range_edu_fault)
#define GUP_RANGE_EDU_DMA	_IOWR('g', 4, struct gup_range_edu_dma)
#define GUP_RANGE_EDU_QUERY	_IOWR('g', 5, struct gup_range_edu_query)
#define GUP_RANGE_EDU_MASK	_IOWR('g', 9, struct gup_range_edu_mask)
#define GUP_RANGE_EDU_RACE	_IOWR('g', 6, struct gup_range_edu_race)
#define GUP_RANGE_EDU_PROVOKE	_IOWR('g', 7, struct gup_range_edu_provoke)

#endif /* _GUP_RANGE_EDU_UAPI_H */
