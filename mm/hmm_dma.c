// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a user address range to device DMA addresses: the mirrored side. No
 * reference is held on any page; the MMU interval notifier guards them.
 *
 *   CPU 0: hmm_range_dma_map()		CPU 1: munmap(), reclaim, ...
 *
 *   seq = mmu_interval_read_begin()
 *   fault, note the runs
 *					invalidate callback
 *   lock(map->lock) ...waits...	  lock(map->lock)
 *					  mmu_interval_set_seq()
 *					  hmm_range_dma_unmap()
 *					  unlock(map->lock)
 *   seq changed: forget the runs,
 *   start again
 *
 * The other way round, CPU 0 links under the lock, CPU 1 waits for it and then
 * unlinks what CPU 0 linked. Either way no page is mapped when the callback has
 * returned.
 */
#include <linux/bitfield.h>
#include <linux/cleanup.h>
#include <linux/dma-map-ops.h>
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/memremap.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/secretmem.h>
#include <linux/slab.h>
#include <linux/swiotlb.h>

#include "gup_range.h"

#include <trace/events/gup_range.h>

/*
 * What is mapped is kept in tables of one entry per page, found by address.
 * Tables are allocated before the lock is taken and freed with the mapping, so
 * that neither unmapping nor splitting allocates.
 *
 * A unit is what one call linked, inside one table. Neither an IOMMU leaf nor
 * the record of a virtio-iommu mapping nor a dma_map_phys() can be split, so
 * units are unlinked whole. The first entry of a unit knows its length, the
 * others how far they are from it.
 */
#define HMM_TABLE_PAGES		512UL
#define HMM_TABLE_SIZE		(HMM_TABLE_PAGES << PAGE_SHIFT)

struct hmm_dma_table {
	u64 entry[HMM_TABLE_PAGES];
};

#define HMM_ENTRY_PFN		GENMASK_ULL(39, 0)
#define HMM_ENTRY_BACK		GENMASK_ULL(48, 40)
#define HMM_ENTRY_MORE		GENMASK_ULL(57, 49)	/* first: length - 1 */
#define HMM_ENTRY_NEW		BIT_ULL(61)	/* linked by this call */
#define HMM_ENTRY_WRITE		BIT_ULL(62)
#define HMM_ENTRY_MAPPED	BIT_ULL(63)

/* The entry of @va and, in @nr, those that follow in its table; or NULL. */
static u64 *hmm_entry(struct gup_range_map *map, unsigned long va,
		      unsigned long *nr)
{
	unsigned long idx = (va >> PAGE_SHIFT) % HMM_TABLE_PAGES;
	struct hmm_dma_table *table;

	*nr = HMM_TABLE_PAGES - idx;
	table = xa_load(&map->tables, va / HMM_TABLE_SIZE);
	return table ? &table->entry[idx] : NULL;
}

/* Bounds of the unit around *@e, the entry of @va; false if there is none. */
static bool hmm_unit(u64 *e, unsigned long va, unsigned long *start,
		     unsigned long *end)
{
	unsigned long back;

	if (!e || !(*e & HMM_ENTRY_MAPPED))
		return false;
	back = FIELD_GET(HMM_ENTRY_BACK, *e);
	e -= back;
	*start = va - (back << PAGE_SHIFT);
	*end = *start + ((FIELD_GET(HMM_ENTRY_MORE, *e) + 1) << PAGE_SHIFT);
	return true;
}

/* Where the units that begin at @va without a gap end, @end at the latest. */
static unsigned long hmm_units_end(struct gup_range_map *map,
				   unsigned long va, unsigned long end)
{
	unsigned long nr, start;

	while (va < end && hmm_unit(hmm_entry(map, va, &nr), va, &start, &va))
		;
	return va;
}

static void hmm_dirty(unsigned long pfn, unsigned long nr)
{
	unsigned long end = pfn + nr;

	while (pfn < end) {
		struct page *page = pfn_to_page(pfn);
		struct folio *folio = page_folio(page);

		/*
		 * Not under the folio lock, which the invalidation may be
		 * called with. The page table entry is not gone before the
		 * callback returns, so the mapping stays.
		 */
		folio_mark_dirty(folio);
		pfn += folio_nr_pages(folio) - folio_page_idx(folio, page);
	}
}

/* After the flush: mark dirty and forget the units of [va, end). */
static void hmm_forget(struct gup_range_map *map, unsigned long va,
		       unsigned long end, bool dirty)
{
	unsigned long nr, start, next;
	u64 *e, first;

	for (; va < end; va = next) {
		e = hmm_entry(map, va, &nr);
		if (WARN_ON_ONCE(!hmm_unit(e, va, &start, &next)))
			return;
		first = *e;
		nr = (next - va) >> PAGE_SHIFT;
		if (!dma_use_iova(&map->state))
			dma_unmap_phys(map->dev,
				       PFN_PHYS(first & HMM_ENTRY_PFN) +
				       map->dma_offset, next - va,
				       first & HMM_ENTRY_WRITE ?
				       DMA_BIDIRECTIONAL : DMA_TO_DEVICE,
				       map->attrs);
		if (dirty && first & HMM_ENTRY_WRITE)
			hmm_dirty(first & HMM_ENTRY_PFN, nr);
		memset(e, 0, nr * sizeof(*e));
		map->nr_mapped -= nr;
		gup_map_count(0, -nr);
	}
}

/* The first address from @va on that has a table; @end if there is none. */
static unsigned long hmm_next_table(struct gup_range_map *map,
				    unsigned long va, unsigned long end)
{
	unsigned long idx = va / HMM_TABLE_SIZE;

	if (!xa_find(&map->tables, &idx, (end - 1) / HMM_TABLE_SIZE,
		     XA_PRESENT))
		return end;
	return max(va, idx * HMM_TABLE_SIZE);
}

/* Unlink all units in [va, end), which cuts none; a flush per gapless span. */
static void hmm_unlink(struct gup_range_map *map, unsigned long va,
		       unsigned long end, bool dirty)
{
	unsigned long nr, next;
	u64 *e;

	while (va < end && map->nr_mapped) {
		va = hmm_next_table(map, va, end);
		if (va == end)
			break;
		e = hmm_entry(map, va, &nr);
		for (; nr && !(*e & HMM_ENTRY_MAPPED); nr--, e++)
			va += PAGE_SIZE;
		next = hmm_units_end(map, va, end);
		if (va < end && next > va) {
			if (dma_use_iova(&map->state))
				gup_map_unlink(map, va - map->start, next - va,
					       DMA_BIDIRECTIONAL, 0);
			hmm_forget(map, va, next, dirty);
			va = next;
		}
		cond_resched();
	}
}

/* Link @nr pages at @va, which do not leave their table, as one unit. */
static int hmm_link(struct gup_range_map *map, unsigned long va,
		    unsigned long pfn, unsigned long nr, bool write, u64 flags)
{
	enum dma_data_direction dir = write ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
	phys_addr_t phys = PFN_PHYS(pfn);
	size_t len = nr << PAGE_SHIFT;
	unsigned long i, room;
	dma_addr_t addr;
	u64 *e;
	int ret;

	if (dma_use_iova(&map->state)) {
		ret = gup_map_link(map, phys, va - map->start, len, dir);
		if (ret)
			return ret;
	} else {
		map->stats.links++;
		addr = dma_map_phys(map->dev, phys, len, dir, map->attrs);
		if (dma_mapping_error(map->dev, addr))
			return -EIO;
		if (!map->nr_mapped)
			map->dma_offset = addr - phys;
		if (addr - phys != map->dma_offset) {
			dma_unmap_phys(map->dev, addr, len, dir, map->attrs);
			return -EOPNOTSUPP;
		}
	}

	e = hmm_entry(map, va, &room);
	flags |= HMM_ENTRY_MAPPED | (write ? HMM_ENTRY_WRITE : 0);
	for (i = 0; i < nr; i++)
		e[i] = flags | FIELD_PREP(HMM_ENTRY_BACK, i) | (pfn + i);
	e[0] |= FIELD_PREP(HMM_ENTRY_MORE, nr - 1);
	map->nr_mapped += nr;
	gup_map_count(0, nr);
	return 0;
}

/*
 * A unit around @va that is read-only and has to become writable. Take it out
 * and put back, read-only, what lies outside of the range; the rest is linked
 * by the caller. The range is widened to the unit for the driver's knowledge.
 */
static int hmm_upgrade(struct gup_range *range, struct gup_range_map *map,
		       unsigned long start, unsigned long end)
{
	unsigned long first = gup_range_first(range);
	unsigned long last = PAGE_ALIGN(range->end);
	unsigned long nr, pfn;
	int ret = 0;

	pfn = *hmm_entry(map, start, &nr) & HMM_ENTRY_PFN;
	hmm_unlink(map, start, end, true);
	if (start < first)
		ret = hmm_link(map, start, pfn, (first - start) >> PAGE_SHIFT,
			       false, 0);
	if (!ret && end > last)
		ret = hmm_link(map, last, pfn + ((last - start) >> PAGE_SHIFT),
			       (end - last) >> PAGE_SHIFT, false, 0);
	if (ret)
		hmm_unlink(map, start, end, true);
	return ret;
}

/*
 * What hmm_range_fault() reports but a device must not reach: memory of another
 * device, and secret memory. Under the lock and with a valid sequence the pages
 * are still mapped, so that their folios can be looked at.
 */
static int hmm_check(unsigned long pfn, unsigned long nr)
{
	unsigned long end = pfn + nr;

	while (pfn < end) {
		struct page *page = pfn_to_page(pfn);
		struct folio *folio = page_folio(page);
		struct address_space *mapping = folio_mapping(folio);

		if (is_pci_p2pdma_page(page) || is_device_private_page(page))
			return -EREMOTEIO;
		if (mapping && secretmem_mapping(mapping))
			return -EFAULT;
		pfn += folio_nr_pages(folio) - folio_page_idx(folio, page);
	}
	return 0;
}

/* One run, or what of it lies in one table. */
static int hmm_map_run(struct gup_range *range, struct gup_range_map *map,
		       unsigned long va, unsigned long pfn, unsigned long nr)
{
	bool write = range->flags & GUP_RANGE_WRITE;
	unsigned long end = va + (nr << PAGE_SHIFT);
	unsigned long room, u_start, u_end, next;
	u64 *e;
	int ret;

	ret = hmm_check(pfn, nr);
	if (ret)
		return ret;
	for (; va < end; va = next) {
		e = hmm_entry(map, va, &room);
		if (hmm_unit(e, va, &u_start, &u_end)) {
			/* A missed invalidation: the page is not the VMA's. */
			if (WARN_ON_ONCE((*e & HMM_ENTRY_PFN) != pfn))
				return -EIO;
			next = min(u_end, end);
			if (!write || *e & HMM_ENTRY_WRITE) {
				pfn += (next - va) >> PAGE_SHIFT;
				continue;
			}
			ret = hmm_upgrade(range, map, u_start, u_end);
			range->start = min(range->start, u_start);
			range->end = max(range->end, u_end);
			if (ret)
				return ret;
		}
		for (nr = 1; va + (nr << PAGE_SHIFT) < end; nr++)
			if (e[nr] & HMM_ENTRY_MAPPED)
				break;
		next = va + (nr << PAGE_SHIFT);
		ret = hmm_link(map, va, pfn, nr, write, HMM_ENTRY_NEW);
		if (ret)
			return ret;
		pfn += nr;
	}
	return 0;
}

/* Units that this call linked: take them out again, or make them ordinary. */
static void hmm_settle(struct gup_range_map *map, unsigned long va,
		       unsigned long end, bool undo)
{
	unsigned long nr, start, next;
	u64 *e;

	for (; va < end; va = next) {
		e = hmm_entry(map, va, &nr);
		next = va + PAGE_SIZE;
		if (!hmm_unit(e, va, &start, &next) || !(*e & HMM_ENTRY_NEW))
			continue;
		if (undo) {
			/* The device never knew of it: nothing to dirty. */
			hmm_unlink(map, va, next, false);
		} else {
			for (nr = 0; nr < (next - va) >> PAGE_SHIFT; nr++)
				e[nr] &= ~HMM_ENTRY_NEW;
		}
	}
}

/* The mirrored half of gup_range_dma_map(); the runs are those of the prep. */
int hmm_map_runs(struct gup_range *range, struct gup_range_map *map)
{
	unsigned long first = gup_range_first(range);
	unsigned long last = PAGE_ALIGN(range->end);
	const struct gup_range_block *block;
	unsigned long va = first;
	u64 links = map->stats.links;
	unsigned int i;
	int ret = 0, err;

	if (!range->mirrored)
		return -EINVAL;
	lockdep_assert_held(map->lock);
	for (block = range->runs.first; block && !ret; block = block->next) {
		for (i = 0; i < block->nr && !ret; i++) {
			unsigned long pfn = gup_run_pfn(block->val[i]);
			unsigned long nr = gup_run_pages(block->val[i]);

			while (nr && !ret) {
				unsigned long n = min(nr, HMM_TABLE_PAGES -
					(va >> PAGE_SHIFT) % HMM_TABLE_PAGES);

				cond_resched();
				ret = fatal_signal_pending(current) ? -EINTR :
				      hmm_map_run(range, map, va, pfn, n);
				pfn += n;
				nr -= n;
				va += n << PAGE_SHIFT;
			}
		}
	}
	/* After a failure too: what an upgrade put back is in use. */
	if (dma_use_iova(&map->state) && map->stats.links != links) {
		err = gup_map_sync(map, gup_range_first(range) - map->start,
				   gup_range_nr_pages(range) << PAGE_SHIFT);
		ret = ret ?: err;
	}
	hmm_settle(map, first, last, ret);
	trace_gup_range_map(range, map, ret);
	return ret;
}

size_t hmm_map_bytes(struct gup_range_map *map)
{
	struct hmm_dma_table *table;
	unsigned long idx;
	size_t bytes = 0;

	xa_for_each(&map->tables, idx, table)
		bytes += sizeof(*table);
	return bytes;
}

int hmm_map_addr(struct gup_range_map *map, unsigned long va,
		 dma_addr_t *addr, size_t *len)
{
	unsigned long nr, start, end, page = va & PAGE_MASK;
	u64 *e;

	lockdep_assert_held(map->lock);
	if (va < map->start || va >= map->end)
		return -EINVAL;
	e = hmm_entry(map, page, &nr);
	if (!hmm_unit(e, page, &start, &end))
		return -EFAULT;
	if (dma_use_iova(&map->state)) {
		*addr = map->state.addr + map->slack + (va - map->start);
		*len = hmm_units_end(map, start, map->end) - va;
	} else {
		*addr = PFN_PHYS(*e & HMM_ENTRY_PFN) + map->dma_offset +
			offset_in_page(va);
		*len = end - va;
	}
	return 0;
}

/**
 * hmm_range_map_init - prepare a mapping of mirrored ranges for a device
 * @map: the mapping, zeroed before @notifier was inserted
 * @dev: the device that does the DMA; it outlives @map
 * @granule: bytes; the page size of the device, a power of two. More than
 *	PAGE_SIZE needs a DMA IOMMU and a notifier aligned to it
 * @notifier: inserted by the driver; what @map can map is the pages that it
 *	covers. Its invalidate callback takes @lock, calls
 *	mmu_interval_set_seq() and then hmm_range_dma_unmap()
 * @lock: the driver's lock, see hmm_range_dma_map()
 *
 * Reserves the IOVA of the whole notifier when @dev is behind a DMA IOMMU.
 *
 * Context: process context, may sleep. Takes @lock.
 *
 * On success @map is to be given to hmm_range_map_destroy(), before @notifier
 * is removed. After a failure nothing is held and @map is untouched.
 *
 * Return: 0 or
 * * -EINVAL - no device or DMA mask, or bad granule
 * * -EOVERFLOW - the notifier covers half of the address space, or its last
 *   page
 * * -EOPNOTSUPP - the device cannot mirror: it is not coherent, does not reach
 *   all memory, bounces, or has DMA operations of its own (there is no moment
 *   at which a copy could be made); or granule > PAGE_SIZE without an IOMMU
 * * -ENOMEM - no IOVA space
 */
int hmm_range_map_init(struct gup_range_map *map, struct device *dev,
		       size_t granule, struct mmu_interval_notifier *notifier,
		       struct mutex *lock)
{
	unsigned long start = notifier->interval_tree.start & PAGE_MASK;
	unsigned long end = (notifier->interval_tree.last | ~PAGE_MASK) + 1;
	struct gup_range_map new;
	int ret;

	ret = gup_map_init(&new, dev, granule);
	if (ret)
		return ret;
	if (!end)
		return -EOVERFLOW;
	if (!IS_ALIGNED(start | end, granule) && granule > PAGE_SIZE)
		return -EINVAL;
	if (!dev_is_dma_coherent(dev) || is_swiotlb_force_bounce(dev) ||
	    dma_addressing_limited(dev) || get_dma_ops(dev))
		return -EOPNOTSUPP;

	new.attrs = DMA_ATTR_REQUIRE_COHERENT;
	ret = gup_map_alloc_iova(&new, start, end - start);
	if (ret)
		return ret;
	if (!dma_use_iova(&new.state) && granule > PAGE_SIZE)
		return -EOPNOTSUPP;
	new.start = start;
	new.end = end;
	new.notifier = notifier;
	new.lock = lock;

	/* The notifier is live: its callback sees all of it or nothing. */
	mutex_lock(lock);
	*map = new;
	xa_init(&map->tables);
	mutex_unlock(lock);
	gup_map_count(1, 0);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_range_map_init);

/**
 * hmm_range_map_destroy - undo hmm_range_map_init()
 * @map: the mapping; everything is unmapped if it is not yet
 *
 * To be called before the notifier is removed, because what is mapped is
 * guarded by it, and after the last hmm_range_dma_map(). The callback may go on
 * calling hmm_range_dma_unmap(), which then has nothing to do. Called twice it
 * warns and does nothing.
 *
 * Context: process context; takes the lock that was given at init. Does not
 * allocate and cannot fail.
 */
void hmm_range_map_destroy(struct gup_range_map *map)
{
	struct hmm_dma_table *table;
	unsigned long idx;

	if (WARN_ON_ONCE(!map->notifier))
		return;
	/* The callback may still come, until the notifier is removed. */
	mutex_lock(map->lock);
	hmm_unlink(map, map->start, map->end, true);
	WARN_ON_ONCE(map->nr_mapped);
	xa_for_each(&map->tables, idx, table)
		kfree(table);
	xa_destroy(&map->tables);
	map->notifier = NULL;
	mutex_unlock(map->lock);

	if (dma_use_iova(&map->state))
		dma_iova_free(map->dev, &map->state);
	gup_map_count(-1, 0);
}
EXPORT_SYMBOL_GPL(hmm_range_map_destroy);

static int hmm_alloc_table(struct gup_range_map *map, unsigned long va)
{
	unsigned long idx = va / HMM_TABLE_SIZE;
	struct hmm_dma_table *table;
	void *old;

	if (xa_load(&map->tables, idx))
		return 0;
	table = kzalloc_obj(*table, GFP_KERNEL_ACCOUNT);
	if (!table)
		return -ENOMEM;
	old = xa_cmpxchg(&map->tables, idx, NULL, table, GFP_KERNEL_ACCOUNT);
	if (old)
		kfree(table);
	return xa_err(old);
}

/* Fault [va, end), at most a table's worth, and note its runs. */
static int hmm_collect_chunk(struct hmm_range *chunk,
			     struct gup_range_seq *runs,
			     unsigned long timeout, unsigned long expect)
{
	unsigned long nr = (chunk->end - chunk->start) >> PAGE_SHIFT;
	unsigned long i, pfn;
	int ret;

	memset(chunk->hmm_pfns, 0, nr * sizeof(*chunk->hmm_pfns));
	ret = hmm_range_fault_unlocked_timeout(chunk, timeout);
	if (ret)
		return ret;
	for (i = 0; i < nr; i++) {
		pfn = chunk->hmm_pfns[i] & ~HMM_PFN_FLAGS;
		ret = gup_runs_add(runs, pfn, 1, expect - i);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Fault the range and note its runs, as they were at range->notifier_seq. Tables
 * are made only for memory that is there.
 */
static int hmm_range_collect(struct hmm_range *range,
			     struct gup_range_map *map, unsigned long *pfns,
			     unsigned long timeout)
{
	unsigned long va = gup_range_first(&range->base);
	unsigned long end = PAGE_ALIGN(range->end);
	struct hmm_range chunk = *range;
	bool first = true;
	int ret;

	chunk.hmm_pfns = pfns;
	chunk.pfn_flags_mask = 0;
	for (; va < end; va = chunk.end) {
		chunk.start = va;
		chunk.end = min(ALIGN(va + 1, HMM_TABLE_SIZE), end);
		ret = hmm_collect_chunk(&chunk, &range->base.runs, timeout,
					(end - va) >> PAGE_SHIFT);
		if (!ret)
			ret = hmm_alloc_table(map, va);
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		if (ret)
			return ret;
		if (first)
			range->notifier_seq = chunk.notifier_seq;
		else if (chunk.notifier_seq != range->notifier_seq)
			break;
		first = false;
		cond_resched();
	}
	return 0;
}

/*
 * One pass over the range: sequence, fault, lock, check. Returns with the lock
 * held, or -EAGAIN when there was an invalidation in between.
 */
static int hmm_range_pass(struct hmm_range *range, struct gup_range_map *map,
			  unsigned long *pfns, unsigned long timeout)
{
	struct mm_struct *mm = range->base.mm;
	int ret;

	if (!mmget_not_zero(mm))
		return -ESRCH;
	ret = hmm_range_collect(range, map, pfns, timeout);
	/* Not under the lock: the last one invalidates everything. */
	mmput(mm);
	if (ret)
		return ret;

	mutex_lock(map->lock);
	if (!mmu_interval_read_retry(range->notifier, range->notifier_seq))
		return 0;
	map->stats.retries++;
	mutex_unlock(map->lock);
	return -EAGAIN;
}

/*
 * Passes until one is not disturbed. The time runs from the first disturbance:
 * faulting is progress, however long it takes.
 */
static int hmm_range_passes(struct hmm_range *range, struct gup_range_map *map,
			    unsigned long *pfns)
{
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	unsigned long deadline = 0;
	int ret;

	for (;;) {
		ret = hmm_range_pass(range, map, pfns, timeout);
		if (!ret)
			return 0;
		gup_seq_free(&range->base.runs);
		if (ret != -EAGAIN)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		trace_hmm_range_retry(range);
		if (!deadline)
			deadline = jiffies + timeout;
		else if (time_after_eq(jiffies, deadline))
			return -EBUSY;
	}
}

static int hmm_range_dma_prep(struct hmm_range *range,
			      struct gup_range_map *map)
{
	unsigned long granule = max(map->granule, PAGE_SIZE);
	struct gup_range *base = &range->base;

	unsigned long *pfns __free(kfree) = NULL;

	if (!map->notifier || range->notifier != map->notifier ||
	    !(range->default_flags & HMM_PFN_REQ_FAULT) ||
	    range->start >= range->end ||
	    range->start < map->start || range->end > map->end)
		return -EINVAL;

	range->start = ALIGN_DOWN(range->start, granule);
	range->end = ALIGN(range->end, granule);
	base->mm = map->notifier->mm;
	base->flags = range->default_flags & HMM_PFN_REQ_WRITE ?
		      GUP_RANGE_WRITE : 0;
	base->mirrored = true;
	base->runs = (struct gup_range_seq){};

	pfns = kmalloc_objs(*pfns, min(gup_range_nr_pages(base),
				       HMM_TABLE_PAGES));
	if (!pfns)
		return -ENOMEM;
	return hmm_range_passes(range, map, pfns);
}

static int hmm_range_dma_post(struct hmm_range *range,
			      struct gup_range_map *map, int ret)
{
	gup_seq_free(&range->base.runs);
	range->base.mirrored = false;
	if (ret)
		mutex_unlock(map->lock);
	return ret;
}

/**
 * hmm_range_dma_map - fault a user range and map it for DMA
 * @range: notifier (that of @map), start, end, default_flags with
 *	%HMM_PFN_REQ_FAULT and, if the device writes, %HMM_PFN_REQ_WRITE
 * @map: from hmm_range_map_init()
 *
 * Maps what of the range is not mapped yet, any part of the notifier's range,
 * and takes no reference on any page. Needs no hmm_pfns array. Invalidations
 * that come in between are retried, for %HMM_RANGE_DEFAULT_TIMEOUT ms after the
 * first one.
 *
 * On success it **returns with the lock held** that was given to
 * hmm_range_map_init(), so that the driver publishes the addresses (see
 * gup_range_map_addr()) to its device before an invalidation can run; then the
 * driver drops the lock.
 *
 * Without %HMM_PFN_REQ_WRITE pages are mapped DMA_TO_DEVICE. A page that was
 * mapped so and is now asked for writing is linked anew, with what was linked
 * together with it; a DMA to it at that moment can fail. Start and end of
 * @range come back as what was touched: rounded to pages or to the granule, and
 * widened by such upgrades.
 *
 * After a failure the lock is not held and what was mapped before still is, but
 * for pages that were to be upgraded: with the lock taken, gup_range_map_addr()
 * tells which of those between start and end of @range are left.
 *
 * Context: process context, may sleep, without mmap_lock and without the lock.
 *
 * Return: 0 or
 * * -EINVAL - not inside of the notifier's range, empty, another notifier, or
 *   no %HMM_PFN_REQ_FAULT
 * * -EPERM, -EFAULT, -EHWPOISON - as hmm_range_fault(): no right to write, no
 *   memory there, or memory that has no pages
 * * -EREMOTEIO - memory of a device: P2PDMA, or device private memory of the
 *   range's own dev_private_owner (that of others migrates back)
 * * -EOPNOTSUPP - no IOMMU, and DMA addresses are not at a constant distance
 *   from physical ones
 * * -EBUSY - invalidated again and again
 * * -EINTR - a fatal signal
 * * -ESRCH - the process has exited
 * * -ENOMEM - no memory, for IOMMU page tables too
 * * -EIO, others - what the IOMMU driver or dma_map_phys() said
 */
int hmm_range_dma_map(struct hmm_range *range, struct gup_range_map *map)
{
	int ret;

	ret = hmm_range_dma_prep(range, map);
	if (ret)
		return ret;
	ret = gup_range_dma_map(&range->base, map);
	return hmm_range_dma_post(range, map, ret);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_map);

/**
 * hmm_range_dma_unmap - take pages away from the device
 * @map: the mapping
 * @start: user address; what to unmap, and on return what was unmapped
 * @end: user address; the same, exclusive
 *
 * For the invalidate callback, after mmu_interval_set_seq(), and for the driver
 * itself. Any part of the range, mapped or not. What was linked by one call,
 * at most 512 pages, is unlinked as one, so it may unmap more than asked, never
 * less; the driver invalidates its device page table for all of it. When it
 * returns the IOTLB is flushed, in lazy mode too, and pages the device could
 * write are dirty. Without an IOMMU (see gup_range_map_protected()) it is the
 * driver that stops the device.
 *
 * Context: with the lock held that was given at init. Does not allocate and
 * cannot fail.
 */
void hmm_range_dma_unmap(struct gup_range_map *map, unsigned long *start,
			 unsigned long *end)
{
	unsigned long nr, va, unused;

	*start = max(*start & PAGE_MASK, map->start);
	*end = *end > map->end ? map->end : PAGE_ALIGN(*end);
	if (*start >= *end) {
		/* Outside, or the callback is earlier than init. */
		*end = *start;
		return;
	}
	lockdep_assert_held(map->lock);
	va = *start;
	hmm_unit(hmm_entry(map, va, &nr), va, start, &unused);
	va = *end - PAGE_SIZE;
	hmm_unit(hmm_entry(map, va, &nr), va, &unused, end);
	hmm_unlink(map, *start, *end, true);
	trace_hmm_range_invalidate(map, *start, *end);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_unmap);
