/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by mm/gup_range.c (common, pinned) and mm/hmm_dma.c (mirrored). */
#ifndef _MM_GUP_RANGE_H
#define _MM_GUP_RANGE_H

#include <linux/gup_range.h>
#include <linux/mm.h>

/*
 * A run is one u64: the first pfn in the low 40 bits (no architecture has more
 * than 52 bits of physical address), its pages above. A longer run takes
 * several.
 */
#define GUP_RUN_PFN_BITS	40
#define GUP_RUN_MAX_PAGES	((1UL << (64 - GUP_RUN_PFN_BITS)) - 1)

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
int gup_map_link(struct gup_range_map *map, phys_addr_t phys, size_t offset,
		 size_t len, enum dma_data_direction dir);
int gup_map_sync(struct gup_range_map *map, size_t offset, size_t len);
void gup_map_unlink(struct gup_range_map *map, size_t offset, size_t len,
		    enum dma_data_direction dir, unsigned long attrs);
void gup_map_count(long nr_maps, long nr_pages);

/* mm/hmm_dma.c, with CONFIG_HMM_RANGE_DMA */
int hmm_map_runs(struct gup_range *range, struct gup_range_map *map);
int hmm_map_addr(struct gup_range_map *map, unsigned long va,
		 dma_addr_t *addr, size_t *len);
size_t hmm_map_bytes(struct gup_range_map *map);

static inline bool gup_map_mirrored(const struct gup_range_map *map)
{
	return IS_ENABLED(CONFIG_HMM_RANGE_DMA) && map->notifier;
}

#endif /* _MM_GUP_RANGE_H */
