// SPDX-License-Identifier: GPL-2.0-only
/* Mappings of mirrored ranges: their life, and what drivers read of them. */
#include <linux/dma-map-ops.h>
#include <linux/hmm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/swiotlb.h>

#include "gup_range.h"
#include "hmm_record.h"

/* About so many units are unmapped at once while the lock is held. */
#define HMM_DESTROY_UNITS	2048

/* As dma_go_direct(), for a device that reaches all memory. */
static bool hmm_dev_has_ops(struct device *dev)
{
	if (IS_ENABLED(CONFIG_DMA_OPS_BYPASS) && dev_dma_ops_bypass(dev))
		return false;
	return get_dma_ops(dev);
}

static int hmm_map_init_dev(struct hmm_range_map *map)
{
	struct device *dev = map->base.dev;

	if (!dev->dma_mask)
		return -EINVAL;
	if (!dev_is_dma_coherent(dev) || is_swiotlb_force_bounce(dev) ||
	    dma_addressing_limited(dev) || hmm_dev_has_ops(dev))
		return -EOPNOTSUPP;

	map->base.attrs = DMA_ATTR_REQUIRE_COHERENT;
	return gup_map_alloc_iova(&map->base, map->start, map->end - map->start);
}

/* All but what makes it live. */
static int hmm_map_setup(struct hmm_range_map *map, struct device *dev,
			 size_t granule, unsigned long start, unsigned long end)
{
	int ret;

	ret = gup_map_init(&map->base, dev, granule);
	if (ret)
		return ret;
	/* Blocks are walked whole: none may end at 0. */
	if (!ALIGN(end, PMD_SIZE))
		return -EOVERFLOW;
	if (!IS_ALIGNED(start | end, granule) && granule > PAGE_SIZE)
		return -EINVAL;
	map->start = start;
	map->end = end;
	if (dev) {
		ret = hmm_map_init_dev(map);
		if (ret)
			return ret;
	}
	if (!dma_use_iova(&map->base.state) && granule > PAGE_SIZE)
		return -EOPNOTSUPP;
	map->base.linear = !dev || (!dma_use_iova(&map->base.state) &&
			       gup_dev_linear(dev));
	return 0;
}

/**
 * hmm_range_map_init - prepare a mapping of mirrored ranges for a device
 * @map: the mapping, zeroed before @notifier was inserted
 * @dev: the device that does the DMA; it outlives @map. NULL with
 *	&hmm_range_map_ops.software, and only then
 * @granule: bytes; the page size of the device, a power of two. More than
 *	PAGE_SIZE needs a DMA IOMMU and a notifier aligned to it
 * @notifier: inserted by the driver; what @map can map is the pages that it
 *	covers. Its invalidate callback takes @lock, calls
 *	mmu_interval_set_seq() and then hmm_range_dma_unmap()
 * @ops: what to call, or NULL for nothing
 * @lock: the driver's lock, see hmm_range_dma_map()
 *
 * For drivers with a callback of their own; see hmm_range_map_insert() for the
 * others. Reserves the IOVA of the whole notifier when @dev is behind a DMA IOMMU.
 *
 * Context: process context, may sleep. Takes @lock.
 *
 * On success @map is to be given to hmm_range_map_destroy(), before @notifier
 * is removed. After a failure nothing is held and @map is untouched.
 *
 * Return: 0 or
 * * -EINVAL - no device, or no DMA mask; @granule is no power of two, or the
 *   notifier is not aligned to it
 * * -EOVERFLOW - the notifier covers half of the address space, or some of its
 *   last PMD
 * * -EOPNOTSUPP - the device cannot mirror: it is not coherent, does not reach
 *   all memory, bounces, or has DMA operations of its own (there is no moment
 *   at which a copy could be made); granule > PAGE_SIZE without an IOMMU; or
 *   the pages of the IOMMU are larger than those of the CPU
 * * -ENOMEM - no IOVA space
 */
int hmm_range_map_init(struct hmm_range_map *map, struct device *dev,
		       size_t granule, struct mmu_interval_notifier *notifier,
		       const struct hmm_range_map_ops *ops, struct mutex *lock)
{
	unsigned long start = notifier->interval_tree.start & PAGE_MASK;
	unsigned long end = (notifier->interval_tree.last | ~PAGE_MASK) + 1;
	struct hmm_range_map new = {};
	int ret;

	if (!dev != (ops && ops->software))
		return -EINVAL;
	ret = hmm_map_setup(&new, dev, granule, start, end);
	if (ret)
		return ret;

	/* The notifier is live: its callback sees all of it or nothing. */
	mutex_lock(lock);
	map->base = new.base;
	map->start = new.start;
	map->end = new.end;
	map->ops = ops;
	map->lock = lock;
	map->nr_mapped = 0;
	hmm_record_init(map);
	map->notifier = notifier;
	mutex_unlock(lock);
	gup_map_count(1, 0);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_range_map_init);

static const struct mmu_interval_notifier_ops hmm_map_notifier_ops = {
	.invalidate	= hmm_map_invalidate,
};

/**
 * hmm_range_map_insert - prepare a mapping, with a notifier of its own
 * @map: the mapping
 * @dev: as for hmm_range_map_init()
 * @granule: as for hmm_range_map_init()
 * @mm: the address space; the caller holds a reference on its users
 * @start: user address; what @map can map, a multiple of the page size
 * @length: bytes, a multiple of the page size
 * @ops: what to call, or NULL for nothing
 * @lock: the driver's lock, see hmm_range_dma_map(); the notifier takes it
 *
 * As hmm_range_map_init(), with an invalidate callback that zaps and unmaps. It
 * refuses calls that may not block where the device has to be waited for.
 * hmm_range_map_destroy() removes the notifier.
 *
 * Context: process context, may sleep, without mmap_lock. Takes @lock.
 *
 * Return: as hmm_range_map_init() and mmu_interval_notifier_insert().
 */
int hmm_range_map_insert(struct hmm_range_map *map, struct device *dev,
			 size_t granule, struct mm_struct *mm,
			 unsigned long start, unsigned long length,
			 const struct hmm_range_map_ops *ops,
			 struct mutex *lock)
{
	int ret;

	memset(map, 0, sizeof(*map));
	map->lock = lock;
	ret = mmu_interval_notifier_insert(&map->own, mm, start, length,
					   &hmm_map_notifier_ops);
	if (ret)
		return ret;
	ret = hmm_range_map_init(map, dev, granule, &map->own, ops, lock);
	if (ret)
		mmu_interval_notifier_remove(&map->own);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_range_map_insert);

/**
 * hmm_range_map_destroy - undo hmm_range_map_init() or hmm_range_map_insert()
 * @map: the mapping; everything is unmapped if it is not yet
 *
 * Called after the last hmm_range_dma_map(). A notifier of the driver's own
 * guards what is mapped, so it is removed later. Until then its callback may
 * call hmm_range_dma_unmap(), which has nothing to do. A second call warns and
 * does nothing.
 *
 * Context: process context, may sleep. Takes and drops the lock that was given
 * at init once for each part. Does not allocate and cannot fail.
 */
void hmm_range_map_destroy(struct hmm_range_map *map)
{
	struct mmu_interval_notifier *notifier = map->notifier;
	unsigned long va, end;

	if (WARN_ON_ONCE(!notifier))
		return;
	for (va = map->start; va < map->end; ) {
		mutex_lock(map->lock);
		end = hmm_record_portion(map, va, HMM_DESTROY_UNITS);
		hmm_range_dma_unmap(map, &va, &end);
		mutex_unlock(map->lock);
		va = end;
		cond_resched();
	}
	/* The callback may still come, until the notifier is removed. */
	mutex_lock(map->lock);
	WARN_ON_ONCE(map->nr_mapped);
	hmm_record_destroy(map);
	map->notifier = NULL;
	mutex_unlock(map->lock);

	if (notifier == &map->own)
		mmu_interval_notifier_remove(notifier);
	if (dma_use_iova(&map->base.state))
		dma_iova_free(map->base.dev, &map->base.state);
	map->base.state = (struct dma_iova_state) {};
	gup_map_count(-1, 0);
}
EXPORT_SYMBOL_GPL(hmm_range_map_destroy);

static dma_addr_t hmm_span_addr(const struct hmm_range_map *map,
				const struct hmm_span *span)
{
	if (map->base.state.addr)
		return map->base.state.addr + map->base.slack +
		       (span->start - map->start);
	return PFN_PHYS(span->pfn) + map->base.dma_offset;
}

/**
 * hmm_range_map_addr - DMA address of one byte
 * @map: from hmm_range_map_init()
 * @va: user address
 * @addr: where to store the DMA address
 * @len: where to store how many bytes from there are contiguous for the device
 *
 * Finding the address takes constant time; @len, behind an IOMMU, takes time in
 * the number of PMDs up to the next page that is not mapped.
 *
 * Context: with the lock held that was given at init.
 * Return: 0, -EINVAL when @va is outside of what @map can map, or -EFAULT when
 * the page is not mapped.
 */
int hmm_range_map_addr(struct hmm_range_map *map, unsigned long va,
		       dma_addr_t *addr, size_t *len)
{
	unsigned long page = va & PAGE_MASK, end;
	struct hmm_span span;

	lockdep_assert_held(map->lock);
	if (va < map->start || va >= map->end)
		return -EINVAL;
	if (!hmm_record_next(map, page, page + PAGE_SIZE, &span))
		return -EFAULT;
	*addr = hmm_span_addr(map, &span) + (va - page);
	end = span.end;
	while (dma_use_iova(&map->base.state) && end < map->end &&
	       hmm_record_next(map, end, map->end, &span) && span.start == end)
		end = span.end;
	*len = end - va;
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_range_map_addr);

/**
 * hmm_range_map_next - step a cursor to the next part that is mapped
 * @map: from hmm_range_map_init()
 * @seg: the cursor, which hmm_range_for_each_seg() sets up
 *
 * Context: with the lock held that was given at init, all the time.
 * Return: true when @seg was filled, false after the last one.
 */
bool hmm_range_map_next(struct hmm_range_map *map, struct hmm_range_seg *seg)
{
	unsigned long va = seg->va + seg->len;
	struct hmm_span span;

	lockdep_assert_held(map->lock);
	if (!seg->len) {
		va = max(va & PAGE_MASK, map->start);
		seg->end = min(PAGE_ALIGN(seg->end), map->end);
		if (va >= seg->end)
			return false;
		va = hmm_record_unit_start(map, va);
		seg->end = hmm_record_unit_end(map, seg->end - PAGE_SIZE);
	}
	if (!hmm_record_next(map, va, seg->end, &span))
		return false;
	seg->va = span.start;
	seg->len = min(span.end, seg->end) - span.start;
	seg->addr = hmm_span_addr(map, &span);
	seg->write = span.write;
	return true;
}
EXPORT_SYMBOL_GPL(hmm_range_map_next);

/**
 * hmm_range_map_stats - counters of one mapping
 * @map: an initialised mapping
 *
 * Context: any; the driver serialises against map and unmap.
 * Return: the counters, see &struct gup_range_map_stats.
 */
struct gup_range_map_stats hmm_range_map_stats(struct hmm_range_map *map)
{
	struct gup_range_map_stats stats = map->base.stats;

	if (map->notifier)
		stats.metadata = hmm_record_bytes(map);
	return stats;
}
EXPORT_SYMBOL_GPL(hmm_range_map_stats);
