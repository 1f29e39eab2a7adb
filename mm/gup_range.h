/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by mm/gup_range.c (common, pinned) and mm/hmm_*.c (mirrored). */
#ifndef _MM_GUP_RANGE_H
#define _MM_GUP_RANGE_H

#include <linux/bitfield.h>
#include <linux/gup_range.h>
#include <linux/iommu.h>
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
int gup_map_link(struct gup_range_map *map, size_t offset,
		 const struct phys_vec *vecs, unsigned int nr,
		 enum dma_data_direction dir, gfp_t gfp,
		 struct iommu_pages_list *tables);
int gup_map_sync(struct gup_range_map *map, size_t offset, size_t len);
void gup_map_count(long nr_maps, long nr_pages);
bool gup_dev_linear(struct device *dev);

/* For a linear mapping: memory of devices can lie above all RAM. */
static inline bool gup_map_reaches(const struct gup_range_map *map,
				   phys_addr_t phys, size_t len)
{
	return phys + map->dma_offset + (len - 1) <=
	       min_not_zero(dma_get_mask(map->dev), map->dev->bus_dma_limit);
}

/* mm/hmm_unmap.c, with CONFIG_HMM_RANGE_DMA */
void hmm_map_unlink(struct hmm_range_map *map, unsigned long va,
		    unsigned long end, bool keep);
void hmm_map_unmap(struct hmm_range_map *map, unsigned long va,
		   unsigned long end, bool keep);
bool hmm_map_invalidate(struct mmu_interval_notifier *notifier,
			const struct mmu_notifier_range *range,
			unsigned long cur_seq);

#endif /* _MM_GUP_RANGE_H */
