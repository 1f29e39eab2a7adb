/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by mm/gup_range.c (common, pinned) and mm/hmm_dma.c (mirrored). */
#ifndef _MM_GUP_RANGE_H
#define _MM_GUP_RANGE_H

#include <linux/bitfield.h>
#include <linux/gup_range.h>
#include <linux/mm.h>

/* A run is one u64: the first pfn in the low 40 bits, its pages above. */
#define GUP_RUN_PFN_BITS	40
/* No run crosses a multiple of this, so that none ends inside a folio. */
#define GUP_RUN_MAX_PAGES	(1UL << (63 - GUP_RUN_PFN_BITS))

#ifdef MAX_POSSIBLE_PHYSMEM_BITS
#define GUP_PHYSMEM_BITS	MAX_POSSIBLE_PHYSMEM_BITS
#elif defined(MAX_PHYSMEM_BITS)
#define GUP_PHYSMEM_BITS	MAX_PHYSMEM_BITS
#else
#define GUP_PHYSMEM_BITS	64
#endif

/*
 * Does a run have room for this pfn? Known at compile time where physical
 * addresses have at most 52 bits: not on riscv64, and not on all of s390.
 */
static inline bool gup_run_has_room(u64 pfn)
{
	return GUP_PHYSMEM_BITS - PAGE_SHIFT <= GUP_RUN_PFN_BITS ||
	       !(pfn >> GUP_RUN_PFN_BITS);
}

static inline u64 gup_run(unsigned long pfn, unsigned long nr)
{
	return (u64)nr << GUP_RUN_PFN_BITS | pfn;
}

static inline unsigned long gup_run_pfn(u64 run)
{
	return run & ((1ULL << GUP_RUN_PFN_BITS) - 1);
}

static inline unsigned long gup_run_pages(u64 run)
{
	return run >> GUP_RUN_PFN_BITS;
}

/* A block is at most a page, so that no length of range needs a high order. */
struct gup_range_block {
	struct gup_range_block	*next;
	u32			nr;
	u32			max;
	u64			val[] __counted_by(max);
};

#define GUP_BLOCK_MAX	((4096 - sizeof(struct gup_range_block)) / sizeof(u64))

int gup_seq_push(struct gup_range_seq *seq, u64 val, unsigned long expect);
int gup_runs_add(struct gup_range_seq *runs, unsigned long pfn,
		 unsigned long nr, unsigned long expect);
void gup_seq_free(struct gup_range_seq *seq);
size_t gup_seq_bytes(const struct gup_range_seq *seq);

static inline unsigned long gup_range_first(const struct gup_range *range)
{
	return range->start & PAGE_MASK;
}

static inline unsigned long gup_range_nr_pages(const struct gup_range *range)
{
	return ((range->end - 1) >> PAGE_SHIFT) - (range->start >> PAGE_SHIFT) + 1;
}

static inline enum dma_data_direction gup_range_dir(const struct gup_range *range)
{
	return range->flags & GUP_RANGE_WRITE ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
}

int gup_map_init(struct gup_range_map *map, struct device *dev, size_t granule);
int gup_map_alloc_iova(struct gup_range_map *map, unsigned long start,
		       size_t len);
int gup_map_link_vecs(struct gup_range_map *map, size_t offset,
		      const struct phys_vec *vecs, unsigned int nr,
		      enum dma_data_direction dir, gfp_t gfp);
int gup_map_sync(struct gup_range_map *map, size_t offset, size_t len);
void gup_map_unlink(struct gup_range_map *map, size_t offset, size_t len,
		    enum dma_data_direction dir, unsigned long attrs);
void gup_map_count(long nr_maps, long nr_pages);
bool gup_dev_linear(struct device *dev);

/* For a linear mapping: memory of devices can lie above all RAM. */
static inline bool gup_map_reaches(const struct gup_range_map *map,
				   phys_addr_t phys, size_t len)
{
	return phys + map->dma_offset + (len - 1) <=
	       min_not_zero(dma_get_mask(map->dev), map->dev->bus_dma_limit);
}

/* mm/hmm_dma.c, with CONFIG_HMM_RANGE_DMA */

/*
 * What is mapped is kept as runs, per block of HMM_BLOCK_PAGES pages. A run is
 * a unit: what one link made; or, where an upgrade cut it in place, its first part,
 * and HMM_RUN_CONT marks the others. Neither an IOMMU leaf nor the record of a
 * virtio-iommu mapping nor a dma_map_phys() can be split, so units are unlinked
 * whole; that none leaves its block bounds what an invalidation can widen to.
 *
 * map->blocks has for a block
 *
 *   nothing			never asked for
 *   XA_ZERO_ENTRY		empty, but storing into it does not allocate
 *   a value			its only run
 *   struct hmm_block *		any number of runs, none after an unmap
 *
 * Memory is allocated before the lock is taken, also for what an upgrade splits,
 * and unmapping needs none. The slots are freed with the mapping.
 */
#define HMM_BLOCK_PAGES		512UL
#define HMM_BLOCK_SIZE		(HMM_BLOCK_PAGES << PAGE_SHIFT)

#define HMM_RUN_PFN		GENMASK_ULL(39, 0)
#define HMM_RUN_FIRST		GENMASK_ULL(48, 40)	/* page in the block */
#define HMM_RUN_MORE		GENMASK_ULL(57, 49)	/* pages - 1 */
#define HMM_RUN_WRITE		BIT_ULL(58)
#define HMM_RUN_NEW		BIT_ULL(59)	/* added by this call */
#define HMM_RUN_CONT		BIT_ULL(60)	/* one unit with the run before */

static inline u64 hmm_run(unsigned long pfn, unsigned long first,
			  unsigned long nr, u64 flags)
{
	/* Not FIELD_PREP(), which masks what fits: this is per page. */
	return flags | (u64)(nr - 1) << __bf_shf(HMM_RUN_MORE) |
	       (u64)first << __bf_shf(HMM_RUN_FIRST) | pfn;
}

static inline unsigned long hmm_run_pfn(u64 run)
{
	return run & HMM_RUN_PFN;
}

static inline unsigned long hmm_run_first(u64 run)
{
	return FIELD_GET(HMM_RUN_FIRST, run);
}

static inline unsigned long hmm_run_pages(u64 run)
{
	return FIELD_GET(HMM_RUN_MORE, run) + 1;
}

static inline unsigned long hmm_run_end(u64 run)
{
	return hmm_run_first(run) + hmm_run_pages(run);
}

static inline struct phys_vec hmm_run_vec(u64 run)
{
	return (struct phys_vec) {
		.paddr = PFN_PHYS(hmm_run_pfn(run)),
		.len = hmm_run_pages(run) << PAGE_SHIFT,
	};
}

static inline unsigned long hmm_run_va(unsigned long base, u64 run)
{
	return base + (hmm_run_first(run) << PAGE_SHIFT);
}

/* Sorted runs that do not overlap. The header is apart, to keep a full one even. */
struct hmm_block {
	u16	nr;
	u16	max;	/* room in @run */
	u16	pages;	/* of all runs */
	u64	*run;
};

struct hmm_block *hmm_block_alloc(unsigned int max, gfp_t gfp);
void hmm_block_free(struct hmm_block *block);
unsigned int hmm_block_find(const struct hmm_block *block, unsigned long page);
unsigned long hmm_block_gap(const struct hmm_block *block, unsigned int i);
void hmm_block_splice(struct hmm_block *block, unsigned int i, unsigned int del,
		      const u64 *run, unsigned int add);

int hmm_map_runs(struct gup_range *range, struct gup_range_map *map);
int hmm_map_addr(struct gup_range_map *map, unsigned long va,
		 dma_addr_t *addr, size_t *len);
size_t hmm_map_bytes(struct gup_range_map *map);

static inline bool gup_map_mirrored(const struct gup_range_map *map)
{
	return IS_ENABLED(CONFIG_HMM_RANGE_DMA) && map->notifier;
}

#endif /* _MM_GUP_RANGE_H */
