// SPDX-License-Identifier: GPL-2.0-only
/* Take the pages of a mirrored range from a device: mm/hmm_map.c has the order. */
#include <linux/hmm.h>
#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>

#include "gup_range.h"
#include "hmm_record.h"

#include <trace/events/gup_range.h>

/* Units of [va, end), holes in between; one flush. */
static void hmm_unlink_iova(struct hmm_range_map *map, unsigned long va,
			    unsigned long end)
{
	bool sparse = dma_iova_has_tables(map->base.dev);
	struct iommu_iotlb_gather gather;
	struct hmm_span span = { .start = va, .end = end };

	iommu_iotlb_gather_init(&gather);
	for (; va < end; va = span.end) {
		if (!sparse && !hmm_record_next(map, va, end, &span))
			break;
		span.end = min(span.end, end);
		dma_iova_unlink_nosync(map->base.dev, &map->base.state,
				       map->base.slack + (span.start - map->start),
				       span.end - span.start, &gather);
	}
	map->base.stats.flushes++;
	dma_iova_unlink_sync(map->base.dev, &gather);
}

/* dma_unmap_phys() for the units of [va, end). */
static void hmm_unlink_phys(struct hmm_range_map *map, unsigned long va,
			    unsigned long end)
{
	struct hmm_span span;
	unsigned long next;

	for (; hmm_record_next(map, va, end, &span); va = next) {
		next = hmm_record_unit_end(map, span.start);
		dma_unmap_phys(map->base.dev,
			       PFN_PHYS(span.pfn) + map->base.dma_offset,
			       next - span.start,
			       span.write ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE,
			       map->base.attrs);
	}
}

/*
 * Unlink and forget [va, end), which cuts no unit. When this returns the device
 * cannot reach it, if there is an IOMMU.
 */
void hmm_map_unlink(struct hmm_range_map *map, unsigned long va,
		    unsigned long end, bool keep)
{
	if (dma_use_iova(&map->base.state))
		hmm_unlink_iova(map, va, end);
	else if (!map->base.linear)
		hmm_unlink_phys(map, va, end);
	hmm_record_erase(map, va, end, keep);
}

/* The same for what the device may know of. */
void hmm_map_unmap(struct hmm_range_map *map, unsigned long va,
		   unsigned long end, bool keep)
{
	if (map->ops && map->ops->zap)
		map->ops->zap(map, va, end);
	hmm_map_unlink(map, va, end, keep);
}

/**
 * hmm_range_dma_unmap - take pages away from the device
 * @map: the mapping
 * @start: user address; what to unmap, and on return what was unmapped
 * @end: user address; the same, exclusive
 *
 * For an invalidate callback of the driver's own, after mmu_interval_set_seq(),
 * and for the driver itself. Any part of the range, mapped or not. What was linked
 * as one is unlinked as one, at most a folio, so it may unmap more than asked,
 * never less. Calls &hmm_range_map_ops.zap for all of it, if anything of it is
 * mapped. When it returns the IOTLB is flushed, once and in lazy mode too. Without
 * an IOMMU (see gup_range_map_protected()) it is zap() that stops the device.
 * Nothing has to be dirtied: see %HMM_PFN_WRITE.
 *
 * Context: with the lock held that was given at init. Does not allocate and
 * cannot fail.
 */
void hmm_range_dma_unmap(struct hmm_range_map *map, unsigned long *start,
			 unsigned long *end)
{
	*start = max(*start & PAGE_MASK, map->start);
	*end = *end > map->end ? map->end : PAGE_ALIGN(*end);
	if (*start >= *end) {
		/* Outside, or the callback is earlier than init. */
		*end = *start;
		return;
	}
	lockdep_assert_held(map->lock);
	if (!map->notifier)
		return;
	*start = hmm_record_unit_start(map, *start);
	*end = hmm_record_unit_end(map, *end - PAGE_SIZE);
	if (hmm_record_any(map, *start, *end))
		hmm_map_unmap(map, *start, *end, false);
	else if (hmm_record_has_room(map, *start, *end))
		/* Nothing is mapped, but tables and blocks can go. */
		hmm_map_unlink(map, *start, *end, false);
	trace_hmm_range_invalidate(map, *start, *end, 0);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_unmap);

/* The callback of hmm_range_map_insert(). */
bool hmm_map_invalidate(struct mmu_interval_notifier *notifier,
			const struct mmu_notifier_range *range,
			unsigned long cur_seq)
{
	struct hmm_range_map *map = container_of(notifier, struct hmm_range_map,
						 own);
	unsigned long start = range->start, end = range->end;

	if (mmu_notifier_range_blockable(range)) {
		mutex_lock(map->lock);
	} else {
		if (!mutex_trylock(map->lock))
			return false;
		/* Then zap() has to wait for the device. */
		if (map->nr_mapped && !gup_range_map_protected(&map->base)) {
			mutex_unlock(map->lock);
			return false;
		}
	}
	mmu_interval_set_seq(notifier, cur_seq);
	hmm_range_dma_unmap(map, &start, &end);
	mutex_unlock(map->lock);
	return true;
}
