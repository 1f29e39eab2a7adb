/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One path from a user address range to device DMA addresses.
 *
 * A driver describes the range (struct gup_range), keeps one opaque object per
 * device that it is mapped for (struct gup_range_map), and calls
 *
 *   gup_range_dma_map() / gup_range_dma_unmap()	pages are pinned
 *   hmm_range_dma_map() / hmm_range_dma_unmap()	pages are mirrored
 *
 * See Documentation/core-api/gup_range.rst.
 */
#ifndef _LINUX_GUP_RANGE_H
#define _LINUX_GUP_RANGE_H

#include <linux/dma-mapping.h>
#include <linux/mm_types.h>
#include <linux/mmu_notifier.h>
#include <linux/types.h>
#include <linux/xarray.h>

struct device;
struct gup_range_block;
struct hmm_block;
struct hmm_range;
struct hmm_range_map;
struct mutex;
struct user_struct;

/* An append-only sequence of u64, kept in blocks of at most a page. */
struct gup_range_seq {
	struct gup_range_block	*first;
	struct gup_range_block	*last;
	unsigned long		nr;
	u64			one;	/* the only entry needs no block */
};

/**
 * enum gup_range_acct - who is charged for pinned pages
 * @GUP_RANGE_ACCT_NONE: nobody
 * @GUP_RANGE_ACCT_PINNED_VM: &gup_range.mm, in mm->pinned_vm
 * @GUP_RANGE_ACCT_LOCKED_VM: &gup_range.mm, in mm->locked_vm
 * @GUP_RANGE_ACCT_USER: the user that calls, in user->locked_vm
 *
 * Every mode but the first is limited by the RLIMIT_MEMLOCK of the task that
 * pins, unless that task has CAP_IPC_LOCK.
 */
enum gup_range_acct {
	GUP_RANGE_ACCT_NONE,
	GUP_RANGE_ACCT_PINNED_VM,
	GUP_RANGE_ACCT_LOCKED_VM,
	GUP_RANGE_ACCT_USER,
};

/* gup_range.flags: the device writes; without it every mapping is read-only. */
#define GUP_RANGE_WRITE		0x1

/**
 * struct gup_range - a range of user addresses
 * @start: first byte; need not be page aligned
 * @end: first byte after the range; need not be page aligned
 * @mm: address space of @start and @end; the caller of gup_range_pin() or
 *	gup_range_dma_map() holds a reference (mmgrab() is enough)
 * @flags: 0 or %GUP_RANGE_WRITE
 * @acct: who is charged while the pages are pinned
 *
 * The driver zeroes the struct, sets these members and leaves them alone until
 * the range is unpinned. Calls on one range are serialised by the driver.
 */
struct gup_range {
	unsigned long		start;
	unsigned long		end;
	struct mm_struct	*mm;
	unsigned int		flags;
	enum gup_range_acct	acct;
	/* private: */
	unsigned int		nr_maps;
	bool			auto_pin; /* the last unmap unpins */
	struct user_struct	*user;
	struct gup_range_seq	runs;
};

/**
 * struct gup_range_map_stats - what one mapping did and holds
 * @links: runs that were linked or given to dma_map_phys() since init
 * @walks: calls that linked runs in an IOMMU, many at a time
 * @syncs: IOTLB syncs after linking
 * @flushes: unlink calls, each of which flushes the IOTLB once
 * @retries: steps of hmm_range_dma_map() that were thrown away
 * @metadata: bytes of memory that the mapping holds now, its range's included
 */
struct gup_range_map_stats {
	u64	links;
	u64	walks;
	u64	syncs;
	u64	flushes;
	u64	retries;
	size_t	metadata;
};

/**
 * struct gup_range_map - DMA addresses of a range for one device
 *
 * Carries everything from map to unmap. Drivers embed it and use the functions
 * below.
 *
 * @attrs: DMA_ATTR_* of a pinned mapping, may be set after init
 */
struct gup_range_map {
	unsigned long		attrs;
	/* private: */
	struct device		*dev;
	struct dma_iova_state	state;
	size_t			slack;	/* bytes before the first page */
	size_t			granule;
	struct gup_range	*range;	/* pinned: what is mapped */
	size_t			piece;	/* no IOVA: most bytes per address */
	bool			linear;	/* no IOVA: one address tells all of them */
	dma_addr_t		dma_offset; /* no IOVA: address - phys ... */
	struct gup_range_seq	dma;	/* ... or one address per piece */
	struct gup_range_map_stats stats;
};

/**
 * struct hmm_range_map_ops - what a mirrored mapping asks its driver to do
 *
 * Both are called with the lock held that was given at init. start and end are
 * user addresses, multiples of the page size, inside of what the mapping can
 * map; end is exclusive. hmm_range_for_each_seg() tells what is mapped there.
 *
 * @publish: tell the device of [start, end), a part of what hmm_range_dma_map() was
 *	asked for; also where it was mapped before. An error ends
 *	hmm_range_dma_map(), which returns it; with -EAGAIN it looks the part up
 *	again. May be NULL
 * @zap: take [start, end) from the device, because it is about to be unmapped, also
 *	where the device does not know of it. Without an IOMMU (see
 *	gup_range_map_protected()) it returns only when the device is done with it.
 *	With one, the callback of hmm_range_map_insert() may call it where nothing may
 *	block. A driver whose zap() always waits has a notifier of its own
 *	It cannot fail and does not allocate with direct reclaim. May be NULL
 * @software: there is no &struct device, because the device is software that copies
 *	with the CPU. Addresses are physical ones
 */
struct hmm_range_map_ops {
	int (*publish)(struct hmm_range_map *map, unsigned long start,
		       unsigned long end);
	void (*zap)(struct hmm_range_map *map, unsigned long start,
		    unsigned long end);
	bool software;
};

/**
 * struct hmm_range_map - DMA addresses of a mirrored range for one device
 *
 * Drivers embed it and use the functions below.
 *
 * @base: what it has in common with the mapping of a pinned range, for
 *	gup_range_map_protected()
 * @may_write: may be set between init and the first map: the device may write. A
 *	page that is asked for reading, but is writable and dirty, is then mapped
 *	for writing, so that it is not taken away when it is written later
 */
struct hmm_range_map {
	struct gup_range_map	base;
	bool			may_write;
	/* private: @blocks and @nr_mapped are protected by @lock */
	const struct hmm_range_map_ops *ops;
	struct mmu_interval_notifier *notifier;
	struct mutex		*lock;	/* the driver's */
	unsigned long		start;
	unsigned long		end;
	unsigned long		nr_mapped;
	struct xarray		blocks;	/* mm/hmm_record.c */
	struct hmm_block	*last_block;	/* that was looked up, or NULL */
	unsigned long		last_index;
	struct mmu_interval_notifier own; /* hmm_range_map_insert() */
};

/**
 * struct gup_range_run - cursor of gup_range_for_each_run()
 * @phys: physical address of the first byte
 * @len: bytes, all physically contiguous
 * @offset: of the first byte from &gup_range.start
 */
struct gup_range_run {
	phys_addr_t		phys;
	size_t			len;
	size_t			offset;
	/* private: */
	const struct gup_range_block *block;
	unsigned int		idx;
};

/**
 * struct gup_range_seg - cursor of gup_range_map_for_each_seg()
 * @addr: DMA address of the first byte
 * @len: bytes, contiguous for the device
 * @offset: of the first byte from &gup_range.start
 */
struct gup_range_seg {
	dma_addr_t		addr;
	size_t			len;
	size_t			offset;
	/* private: */
	size_t			left;	/* no IOVA: of the current piece */
	size_t			done;	/* no IOVA: pieces of the current run */
	struct gup_range_run	run;
	const struct gup_range_block *block;
	unsigned int		idx;
};

/**
 * struct hmm_range_seg - cursor of hmm_range_for_each_seg()
 * @va: user address of the first byte
 * @len: bytes, contiguous for the device
 * @addr: DMA address of the first byte
 * @write: may the device write there?
 */
struct hmm_range_seg {
	unsigned long		va;
	size_t			len;
	dma_addr_t		addr;
	bool			write;
	/* private: */
	unsigned long		end;
};

int gup_range_pin(struct gup_range *range);
void gup_range_unpin(struct gup_range *range);

int gup_range_map_init(struct gup_range_map *map, struct device *dev,
		       size_t granule);
int gup_range_dma_map(struct gup_range *range, struct gup_range_map *map);
void gup_range_dma_unmap(struct gup_range *range, struct gup_range_map *map);

int hmm_range_map_init(struct hmm_range_map *map, struct device *dev,
		       size_t granule, struct mmu_interval_notifier *notifier,
		       const struct hmm_range_map_ops *ops,
		       struct mutex *lock /* of the driver */);
int hmm_range_map_insert(struct hmm_range_map *map, struct device *dev,
			 size_t granule, struct mm_struct *mm,
			 unsigned long start, unsigned long length,
			 const struct hmm_range_map_ops *ops,
			 struct mutex *lock /* of the driver */);
void hmm_range_map_destroy(struct hmm_range_map *map);
int hmm_range_dma_map(struct hmm_range *range, struct hmm_range_map *map);
int hmm_range_dma_map_and_lock(struct hmm_range *range,
			       struct hmm_range_map *map);
void hmm_range_dma_unmap(struct hmm_range_map *map, unsigned long *start,
			 unsigned long *end);
int hmm_range_map_addr(struct hmm_range_map *map, unsigned long va,
		       dma_addr_t *addr, size_t *len);
bool hmm_range_map_next(struct hmm_range_map *map, struct hmm_range_seg *seg);
struct gup_range_map_stats hmm_range_map_stats(struct hmm_range_map *map);

bool gup_range_run_next(const struct gup_range *range,
			struct gup_range_run *run);
int gup_range_map_addr(const struct gup_range_map *map, unsigned long va,
		       dma_addr_t *addr, size_t *len);
bool gup_range_map_seg_next(const struct gup_range_map *map,
			    struct gup_range_seg *seg, size_t max_segment);
size_t gup_range_map_pgsz(const struct gup_range_map *map,
			  unsigned long pgsz_bitmap);
void gup_range_map_sync_for_cpu(const struct gup_range_map *map);
void gup_range_map_sync_for_device(const struct gup_range_map *map);
struct gup_range_map_stats
gup_range_map_stats(const struct gup_range_map *map);

/**
 * gup_range_for_each_run - walk the physical runs of a pinned range
 * @range: a pinned &struct gup_range
 * @run: the &struct gup_range_run to use
 */
#define gup_range_for_each_run(range, run)				\
	for (*(run) = (struct gup_range_run){};				\
	     gup_range_run_next(range, run);)

/**
 * gup_range_map_for_each_seg - walk the DMA segments of a pinned mapping
 * @map: a mapped &struct gup_range_map
 * @seg: the &struct gup_range_seg to use
 * @max_segment: most bytes of a segment
 */
#define gup_range_map_for_each_seg(map, seg, max_segment)		\
	for (*(seg) = (struct gup_range_seg){};				\
	     gup_range_map_seg_next(map, seg, max_segment);)

/**
 * hmm_range_for_each_seg - walk what is mapped of a mirrored range
 * @map: from hmm_range_map_init()
 * @seg: the &struct hmm_range_seg to use
 * @from: user address
 * @to: user address, exclusive
 *
 * Visits what hmm_range_dma_unmap() of the same part would unmap, in the order
 * of addresses: the first segment can begin before @from and the last one end
 * after @to. To be used with the lock held.
 */
#define hmm_range_for_each_seg(map, seg, from, to)			\
	for (*(seg) = (struct hmm_range_seg){ .va = (from), .end = (to) };	\
	     hmm_range_map_next(map, seg);)

/**
 * hmm_range_map_empty - is nothing mapped?
 * @map: from hmm_range_map_init()
 *
 * Context: with the lock held that was given at init.
 * Return: true if no page is mapped.
 */
static inline bool hmm_range_map_empty(const struct hmm_range_map *map)
{
	return !map->nr_mapped;
}

/**
 * gup_range_map_contig - DMA address of a mapping that is one segment
 * @map: a mapped mapping of a pinned range
 * @addr: where to store the address of the first byte
 *
 * Context: any.
 * Return: 0, or -ERANGE when the device needs more than one segment.
 */
static inline int gup_range_map_contig(const struct gup_range_map *map,
				       dma_addr_t *addr)
{
	size_t len;
	int ret;

	ret = gup_range_map_addr(map, map->range->start, addr, &len);
	if (ret)
		return ret;
	return len == map->range->end - map->range->start ? 0 : -ERANGE;
}

/**
 * gup_range_map_protected - does an IOMMU stop the device after unmap?
 * @map: a mapped mapping, or the base of a mirrored one
 *
 * Without an IOMMU the driver itself stops the device before it unmaps.
 *
 * Context: any.
 * Return: true behind a DMA IOMMU; false otherwise, and while nothing is mapped.
 */
static inline bool gup_range_map_protected(struct gup_range_map *map)
{
	return dma_use_iova(&map->state);
}

#endif /* _LINUX_GUP_RANGE_H */
