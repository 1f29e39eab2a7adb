// SPDX-License-Identifier: GPL-2.0-only
/*
 * Map a mirrored range for DMA. No reference is held on any page; the MMU
 * interval notifier guards them.
 *
 *   CPU 0: hmm_range_dma_map()		CPU 1: munmap(), reclaim, ...
 *
 *   seq = mmu_interval_read_begin()
 *   fault, look up, make room
 *					invalidate callback
 *   lock(map->lock) ...waits...	  lock(map->lock)
 *					  mmu_interval_set_seq()
 *					  zap, unmap, flush
 *					  unlock(map->lock)
 *   seq changed: this step again
 *
 * The other way round, CPU 0 links and publishes under the lock, CPU 1 waits for
 * it and then takes away what CPU 0 linked. Either way no page is mapped when the
 * callback has returned.
 *
 * A range is mapped in steps. What a step mapped is valid and guarded, whatever
 * becomes of the next one, so the lock is held for a step and no longer, and a
 * failure leaves the steps before it.
 */
#include <linux/hmm.h>
#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/jiffies.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "gup_range.h"
#include "hmm_record.h"
#include "hmm_runs.h"

#include <trace/events/gup_range.h>

/* The runs of a step: a page of them, and a page for those that are missing. */
#define HMM_STEP_RUNS	((unsigned int)(SZ_4K / sizeof(struct phys_vec)))
/* As many as this fit on the stack. */
#define HMM_STEP_FEW	4U

/* A step of one hmm_range_dma_map(). */
struct hmm_step {
	struct hmm_range_map	*map;
	struct hmm_range	*range;
	unsigned long		first;	/* of the range, as asked for */
	unsigned long		last;	/* exclusive */
	unsigned long		start;	/* of the step */
	unsigned long		end;	/* exclusive */
	unsigned long		seq;
	struct hmm_runs		runs;	/* found by the walk */
	struct phys_vec		*gaps;	/* as many; those that are to be linked */
	struct iommu_pages_list	tables;	/* for the IOMMU, used under the lock */
	unsigned int		room;	/* of @runs.vec and of @gaps */
	bool			refill;	/* the tables did not suffice */
	bool			plain;	/* no hole in @runs, and the same rights */
};

static int hmm_step_init(struct hmm_step *step, struct phys_vec *few)
{
	unsigned long pages = (step->last - step->first) >> PAGE_SHIFT;

	step->end = step->first;
	step->room = min(pages, HMM_STEP_RUNS);
	step->runs.vec = few;
	step->runs.max = step->room;
	step->gaps = few + HMM_STEP_FEW;
	INIT_LIST_HEAD(&step->tables.pages);
	if (step->room <= HMM_STEP_FEW)
		return 0;
	step->runs.vec = kmalloc_objs(*step->gaps, step->room);
	step->gaps = kmalloc_objs(*step->gaps, step->room);
	return step->runs.vec && step->gaps ? 0 : -ENOMEM;
}

static void hmm_step_destroy(struct hmm_step *step)
{
	if (!list_empty(&step->tables.pages))
		dma_iova_free_tables(&step->tables);
	if (step->room > HMM_STEP_FEW) {
		kfree(step->runs.vec);
		kfree(step->gaps);
	}
}

/* Memory that the step needs under the lock, where it could not wait for any. */
static int hmm_step_reserve(struct hmm_step *step)
{
	int nr;

	nr = hmm_record_reserve(step->map, step->start, step->end,
				step->runs.vec, step->runs.nr);
	if (nr < 0)
		return nr;
	if (step->refill)
		nr = ((step->end - 1) >> PMD_SHIFT) -
		     (step->start >> PMD_SHIFT) + 1;
	/* Tables of the levels above are there from the second time on. */
	if (!step->map->base.stats.links || step->refill)
		nr += 3;
	/* What an earlier try did not need is still there. */
	nr -= list_count_nodes(&step->tables.pages);
	if (nr <= 0 || !dma_use_iova(&step->map->base.state))
		return 0;
	return dma_iova_alloc_tables(step->map->base.dev, &step->tables, nr,
				     GFP_KERNEL_ACCOUNT);
}

/* Leave out what is after @end. */
static void hmm_step_cut(struct hmm_step *step, unsigned long end)
{
	struct hmm_runs *runs = &step->runs;
	size_t len;

	while (step->end > end) {
		len = min(runs->vec[runs->nr - 1].len & PAGE_MASK,
			  step->end - end);
		runs->vec[runs->nr - 1].len -= len;
		if (runs->vec[runs->nr - 1].len < PAGE_SIZE)
			runs->nr--;
		step->end -= len;
	}
}

/* Fault and look up what comes next, without the lock. */
static int hmm_step_prep(struct hmm_step *step)
{
	size_t granule = max(step->map->base.granule, PAGE_SIZE);
	struct mm_struct *mm = step->map->notifier->mm;
	struct hmm_range range = *step->range;
	unsigned long end;
	int ret;

	range.start = step->end;
	range.end = step->last;
	step->runs.may_write = step->map->may_write;
	if (!mmget_not_zero(mm))
		return -ESRCH;
	ret = hmm_range_fault_runs(&range, &step->runs,
				   msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
	/*
	 * The last one closes the files of the device, and can wait for its page
	 * faults.
	 */
	mmput_async(mm);
	if (ret)
		return ret;
	step->seq = range.notifier_seq;
	step->range->notifier_seq = step->seq;
	step->start = range.start;
	step->end = step->runs.end;
	/* A page of the device as a whole, if it fits. */
	end = ALIGN_DOWN(step->end, granule);
	if (end > step->start)
		hmm_step_cut(step, end);
	ret = hmm_step_reserve(step);
	if (ret)
		step->end = step->start;
	return ret;
}

/* Add a vector, to the last one if both are holes. False if there is no room. */
static bool hmm_step_push(struct hmm_step *step, unsigned int *nr,
			  phys_addr_t paddr, size_t len)
{
	if (*nr && paddr == HMM_RUNS_HOLE &&
	    step->gaps[*nr - 1].paddr == HMM_RUNS_HOLE) {
		step->gaps[*nr - 1].len += len;
		return true;
	}
	if (*nr == step->room)
		return false;
	step->gaps[(*nr)++] = (struct phys_vec) { .paddr = paddr, .len = len };
	return true;
}

/*
 * Of one vector that belongs at @va, take what is not mapped yet; the rest
 * becomes holes. Returns where room ended, or the end of the vector.
 */
static unsigned long hmm_step_gap(struct hmm_step *step, unsigned int *nr,
				  unsigned long va, const struct phys_vec *vec)
{
	unsigned long end = va + (vec->len & PAGE_MASK), at, next;
	bool hole = vec->paddr == HMM_RUNS_HOLE;
	struct hmm_span span;

	for (at = va; at < end; at = next) {
		next = end;
		if (hole || !hmm_record_next(step->map, at, end, &span))
			span.start = end;
		if (hole || span.start <= at) {
			next = hole ? end : min(span.end, end);
			if (!hmm_step_push(step, nr, HMM_RUNS_HOLE, next - at))
				break;
			continue;
		}
		next = span.start;
		if (!hmm_step_push(step, nr, vec->paddr + (at - va),
				   (next - at) | (vec->len & ~PAGE_MASK)))
			break;
	}
	return at;
}

/* Something is mapped in the step. Shortens it if the gaps need too much room. */
static void hmm_step_gaps(struct hmm_step *step)
{
	unsigned long va = step->start, next, end;
	unsigned int i, nr = 0;

	for (i = 0; i < step->runs.nr; i++, va = next) {
		next = va + (step->runs.vec[i].len & PAGE_MASK);
		end = hmm_step_gap(step, &nr, va, &step->runs.vec[i]);
		if (end != next) {
			step->end = end;
			break;
		}
	}
	swap(step->runs.vec, step->gaps);
	step->runs.nr = nr;
	step->plain = false;
}

/*
 * Reclaim waits for the lock, so an allocation under it must not wait for
 * reclaim. If step->tables can be used, these flags are only for what the
 * tables do not suffice for. Elsewhere they are for all page tables.
 */
static gfp_t hmm_map_gfp(struct hmm_range_map *map)
{
	if (dma_use_iova(&map->base.state) && !dma_iova_has_tables(map->base.dev))
		return GFP_ATOMIC | __GFP_NOWARN;
	return GFP_NOWAIT | __GFP_NOWARN;
}

/* What the page at @va is mapped to, which begins a unit. */
static phys_addr_t hmm_map_phys(struct hmm_range_map *map, unsigned long va)
{
	struct hmm_span span = {};

	if (dma_use_iova(&map->base.state))
		return dma_iova_to_phys(map->base.dev, &map->base.state,
					map->base.slack + (va - map->start));
	hmm_record_next(map, va, va + PAGE_SIZE, &span);
	return PFN_PHYS(span.pfn);
}

/* Link a part of a unit for reading again. If that fails, the device faults. */
static void hmm_step_put_back(struct hmm_step *step, unsigned long va,
			      unsigned long end, phys_addr_t paddr)
{
	struct phys_vec vec = { .paddr = paddr, .len = end - va };
	struct hmm_range_map *map = step->map;

	if (va >= end || !hmm_record_reserved(map, va, end, &vec, 1) ||
	    gup_map_link(&map->base, va - map->start, &vec, 1, DMA_TO_DEVICE,
			 hmm_map_gfp(map), &step->tables))
		return;
	hmm_record_add(map, va, end, &vec, 1, false);
	gup_map_sync(&map->base, va - map->start, end - va);
}

/*
 * [va, end) is mapped for reading. Take the units there from the device, so that
 * it can be linked anew, and put back what of them is outside.
 */
static void hmm_step_take(struct hmm_step *step, unsigned long va,
			  unsigned long end)
{
	unsigned long start = hmm_record_unit_start(step->map, va);
	unsigned long stop = hmm_record_unit_end(step->map, end - PAGE_SIZE);
	unsigned long last = hmm_record_unit_start(step->map, end - PAGE_SIZE);
	phys_addr_t front = 0, back = 0;

	if (start < va)
		front = hmm_map_phys(step->map, start);
	if (end < stop)
		back = hmm_map_phys(step->map, last) + (end - last);
	hmm_map_unmap(step->map, start, stop, true);
	hmm_step_put_back(step, start, va, front);
	hmm_step_put_back(step, end, stop, back);
}

/* Make what is mapped of [va, end) writable. */
static void hmm_step_upgrade_part(struct hmm_step *step, unsigned long va,
				  unsigned long end)
{
	struct hmm_range_map *map = step->map;
	struct hmm_span span;

	for (; hmm_record_next(map, va, end, &span); va = span.end) {
		va = max(va, span.start);
		span.end = min(span.end, end);
		if (!span.write && !(map->base.linear &&
				     hmm_record_set_write(map, va, span.end)))
			hmm_step_take(step, va, span.end);
	}
}

/*
 * What is mapped for reading, and is to be written. As much as possible at once,
 * because each part is a flush.
 */
static void hmm_step_upgrade(struct hmm_step *step)
{
	unsigned long va = step->start, next;
	const struct phys_vec *vec = step->runs.vec, *end = vec + step->runs.nr;

	for (; vec < end; va = next) {
		for (next = va; vec < end && vec->paddr != HMM_RUNS_HOLE; vec++)
			next += vec->len & PAGE_MASK;
		if (next > va)
			hmm_step_upgrade_part(step, va, next);
		else
			next += vec++->len & PAGE_MASK;
	}
}

/*
 * The vectors from @i on that are linked with one call: without a hole, and with
 * the same rights. Returns how many there are, up to user address *@end.
 */
static unsigned int hmm_step_slice(struct hmm_step *step, unsigned int i,
				   unsigned long *end, bool *write)
{
	struct phys_vec *vec = step->runs.vec + i, *stop = vec;
	size_t flags = vec->len & HMM_RUN_WRITE;

	*write = flags || step->range->default_flags & HMM_PFN_REQ_WRITE;
	if (step->plain) {
		*end = step->end;
		return step->runs.nr;
	}
	for (; i < step->runs.nr && stop->paddr != HMM_RUNS_HOLE; i++, stop++) {
		if ((stop->len & HMM_RUN_WRITE) != flags)
			break;
		stop->len -= flags;
		*end += stop->len;
	}
	return stop - vec;
}

/* Unlink what this step linked before @stop. No device knows of it yet. */
static void hmm_step_undo(struct hmm_step *step, unsigned long stop)
{
	const struct phys_vec *vec = step->runs.vec;
	unsigned long va = step->start, next;

	for (; va < stop; va = next, vec++) {
		next = va + vec->len;
		if (vec->paddr == HMM_RUNS_HOLE)
			continue;
		while (next < stop && vec[1].paddr != HMM_RUNS_HOLE)
			next += (++vec)->len;
		hmm_map_unlink(step->map, va, next, true);
	}
}

/* Link what is missing. After a failure nothing of this step is linked. */
static int hmm_step_link(struct hmm_step *step)
{
	struct hmm_range_map *map = step->map;
	unsigned long va = step->start, next;
	unsigned int i, nr;
	bool write, linked = false;
	int ret = 0;

	for (i = 0; i < step->runs.nr; i += nr, va = next) {
		struct phys_vec *vec = step->runs.vec + i;

		next = va;
		nr = hmm_step_slice(step, i, &next, &write);
		if (!nr) {
			next += vec->len;
			nr = 1;
			continue;
		}
		ret = gup_map_link(&map->base, va - map->start, vec, nr,
				   write ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE,
				   hmm_map_gfp(map), &step->tables);
		if (ret)
			break;
		hmm_record_add(map, va, next, vec, nr, write);
		linked = true;
	}
	if (!ret && linked)
		ret = gup_map_sync(&map->base, step->start - map->start,
				   step->end - step->start);
	if (ret)
		hmm_step_undo(step, va);
	return ret;
}

/* Under the lock. -EAGAIN: what was found or reserved is not there any more. */
static int hmm_step_commit(struct hmm_step *step)
{
	const struct hmm_range_map_ops *ops = step->map->ops;
	unsigned long flags = step->range->default_flags;
	struct hmm_range_map *map = step->map;
	bool mapped;
	int ret;

	lockdep_assert_held(map->lock);
	if (mmu_interval_read_retry(map->notifier, step->seq))
		return -EAGAIN;
	step->plain = flags & HMM_PFN_REQ_FAULT &&
		      (flags & HMM_PFN_REQ_WRITE || !map->may_write);
	mapped = hmm_record_any(map, step->start, step->end);
	if (mapped && flags & HMM_PFN_REQ_WRITE)
		hmm_step_upgrade(step);
	if (!hmm_record_reserved(map, step->start, step->end, step->runs.vec,
				 step->runs.nr))
		return -EAGAIN;
	if (mapped)
		hmm_step_gaps(step);
	ret = hmm_step_link(step);
	trace_hmm_range_map(map, step->start, step->end, ret);
	if (ret == -ENOMEM && !step->refill) {
		step->refill = true;
		return -EAGAIN;
	}
	step->refill = false;
	if (!ret && ops && ops->publish)
		ret = ops->publish(map, step->start, step->end);
	return ret;
}

/*
 * Is all of the range mapped at this moment, also what an invalidation may have
 * taken since an earlier step? If not, go on there.
 */
static bool hmm_step_is_whole(struct hmm_step *step)
{
	unsigned long flags = step->range->default_flags;

	if (flags & HMM_PFN_REQ_FAULT)
		step->end = hmm_record_first_hole(step->map, step->first,
						  step->last,
						  flags & HMM_PFN_REQ_WRITE);
	return step->end == step->last;
}

/* The first disturbance starts the clock. */
static int hmm_step_disturbed(struct hmm_step *step, unsigned long *deadline)
{
	step->map->base.stats.retries++;
	trace_hmm_range_retry(step->range);
	if (!*deadline)
		*deadline = jiffies + msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	return time_after(jiffies, *deadline) ? -EBUSY : 0;
}

/*
 * All steps. The time of a step begins with its first disturbance, because the
 * steps before it were progress. With @locked the lock is held at the end, and
 * the range is whole. There is as much time again to make it whole.
 */
static int hmm_range_steps(struct hmm_step *step, bool locked)
{
	unsigned long deadline = 0, whole_deadline = 0;
	struct mutex *lock = step->map->lock;
	bool last;
	int ret;

	do {
		ret = hmm_step_prep(step);
		if (ret)
			return ret;
		mutex_lock(lock);
		ret = hmm_step_commit(step);
		last = !ret && step->end == step->last;
		if (last && locked && hmm_step_is_whole(step))
			return 0;
		mutex_unlock(lock);
		if (ret)
			step->end = step->start;
		if (ret == -EAGAIN) {
			/* Less takes less time, so less can come between. */
			step->runs.max = max(step->runs.max / 2, 1U);
			ret = hmm_step_disturbed(step, &deadline);
		} else if (last && locked) {
			ret = hmm_step_disturbed(step, &whole_deadline);
		} else if (!ret) {
			step->runs.max = step->room;
			deadline = 0;
		}
		if (!ret && step->end != step->last &&
		    fatal_signal_pending(current))
			ret = -EINTR;
	} while (!ret && step->end != step->last);
	return ret;
}

/* A huge page that is mapped for reading becomes writable as a whole. */
static void hmm_range_widen(struct hmm_range *range, struct hmm_range_map *map)
{
	if (hmm_record_is_read_only_block(map, range->start)) {
		range->start &= PMD_MASK;
		range->end = max(range->end, range->start + PMD_SIZE);
	}
	if ((range->end - 1) >> PMD_SHIFT != range->start >> PMD_SHIFT &&
	    hmm_record_is_read_only_block(map, range->end - 1))
		range->end = ALIGN(range->end, PMD_SIZE);
}

static int hmm_range_map(struct hmm_range *range, struct hmm_range_map *map,
			 bool locked)
{
	unsigned long granule = max(map->base.granule, PAGE_SIZE);
	struct phys_vec few[2 * HMM_STEP_FEW] __uninitialized;
	struct hmm_step step = { .map = map, .range = range };
	int ret;

	if (!range->notifier)
		range->notifier = map->notifier;
	if (!map->notifier || range->notifier != map->notifier ||
	    range->start >= range->end ||
	    range->start < map->start || range->end > map->end)
		return -EINVAL;
	range->start = ALIGN_DOWN(range->start, granule);
	range->end = ALIGN(range->end, granule);
	if (range->default_flags & HMM_PFN_REQ_WRITE &&
	    range->default_flags & HMM_PFN_REQ_FAULT)
		hmm_range_widen(range, map);
	step.first = range->start;
	step.last = range->end;
	ret = hmm_step_init(&step, few);
	if (!ret)
		ret = hmm_range_steps(&step, locked);
	hmm_step_destroy(&step);
	range->end = step.end;
	return ret;
}

/**
 * hmm_range_dma_map - fault a user range and map it for DMA
 * @range: start, end, and default_flags: normally with %HMM_PFN_REQ_FAULT and, if
 *	the device writes, %HMM_PFN_REQ_WRITE. The notifier becomes that of @map if
 *	it is NULL
 * @map: from hmm_range_map_init() or hmm_range_map_insert()
 *
 * Maps what of the range is not mapped yet, any part of what @map can map, and
 * takes no reference on any page. Needs no hmm_pfns array.
 *
 * Works in steps of at most 256 physical runs. A step is looked up, linked and
 * given to &hmm_range_map_ops.publish, which is called with the lock held that
 * was given at init. An invalidation before that makes the step start again, for
 * %HMM_RANGE_DEFAULT_TIMEOUT ms; one after it takes the pages away again, so on
 * return some may be missing. A device that finds none faults again.
 *
 * Without %HMM_PFN_REQ_WRITE pages are mapped DMA_TO_DEVICE, but for those that are
 * writable and dirty already, if &hmm_range_map.may_write. If a page that is
 * mapped for reading is requested for writing, its unit is first taken from the
 * device (&hmm_range_map_ops.zap): all that was linked together, at most a
 * folio. The rest of the unit is linked again for reading. A huge page becomes
 * writable as a whole. Without an IOMMU nothing has to be taken.
 *
 * Without %HMM_PFN_REQ_FAULT only pages that are present are mapped. With
 * %HMM_PFN_REQ_WRITE alone they also have to be writable and dirty.
 *
 * What is mapped with %HMM_PFN_REQ_WRITE has a dirty page table entry for as long
 * as it is mapped. A driver that writes with the CPU, or a device that does, has
 * nothing to dirty.
 *
 * Start and end of @range are rounded to pages or to the granule, and widened to
 * huge pages that become writable. After a failure the end is how far the call
 * came: the steps before it are mapped and published, and nothing that the failed
 * one linked stays, unless it was publish() that failed. A repeat goes on there.
 * What was mapped before still is, but for pages that were to become writable.
 *
 * Context: process context, may sleep, without mmap_lock and without the lock.
 * Memory for page tables of the IOMMU is charged to the caller.
 *
 * Return: 0 or
 * * -EINVAL - not inside of what @map can map, empty, or the notifier of another
 * * -EPERM - no right to write
 * * -EFAULT - no memory there, no pages behind it, or secret memory
 * * -EHWPOISON - the memory failed
 * * -EREMOTEIO - memory of a device: P2PDMA, or device private memory of the
 *   range's own dev_private_owner (that of others migrates back)
 * * -EOPNOTSUPP - no IOMMU, and DMA addresses are not at a constant distance
 *   from physical ones
 * * -EBUSY - invalidated again and again
 * * -EINTR - a fatal signal
 * * -ESRCH - the process has exited
 * * -ENOMEM - no memory, for IOMMU page tables too
 * * -EIO, others - what the IOMMU driver, dma_map_phys() or publish() said
 */
int hmm_range_dma_map(struct hmm_range *range, struct hmm_range_map *map)
{
	return hmm_range_map(range, map, false);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_map);

/**
 * hmm_range_dma_map_and_lock - map a range, and keep the lock
 * @range: as for hmm_range_dma_map()
 * @map: as for hmm_range_dma_map()
 *
 * As hmm_range_dma_map(), for a driver that publishes by itself. On success **the
 * lock is held** that was given at init, and all of the range is mapped at that
 * moment. What an invalidation took before that is mapped again, for which there
 * are %HMM_RANGE_DEFAULT_TIMEOUT ms as well. The driver drops the lock when it has
 * published. After a failure the lock is not held.
 *
 * Context: as hmm_range_dma_map().
 * Return: as hmm_range_dma_map().
 */
int hmm_range_dma_map_and_lock(struct hmm_range *range,
			       struct hmm_range_map *map)
{
	return hmm_range_map(range, map, true);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_map_and_lock);
