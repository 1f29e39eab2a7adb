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
#include <linux/cleanup.h>
#include <linux/dma-map-ops.h>
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/swiotlb.h>

#include "gup_range.h"
#include "hmm_runs.h"

#include <trace/events/gup_range.h>

/* For a block that is no more than a value in map->blocks. */
struct hmm_single {
	struct hmm_block	block;
	u64			run;
};

struct hmm_block *hmm_block_alloc(unsigned int max, gfp_t gfp)
{
	struct hmm_block *block = kzalloc_obj(*block, gfp);

	if (!block)
		return NULL;
	block->run = kmalloc_objs(*block->run, max, gfp);
	if (!block->run) {
		kfree(block);
		return NULL;
	}
	block->max = max;
	return block;
}

void hmm_block_free(struct hmm_block *block)
{
	kfree(block->run);
	kfree(block);
}

/* @entry: as in map->blocks. */
static void hmm_entry_free(void *entry)
{
	if (entry && !xa_is_value(entry) && !xa_is_zero(entry))
		hmm_block_free(entry);
}

static struct hmm_block *hmm_entry_block(void *entry, struct hmm_single *single)
{
	if (!xa_is_value(entry))
		return entry;
	single->run = xa_to_value(entry);
	single->block = (struct hmm_block) {
		.nr = 1,
		.max = 1,
		.pages = hmm_run_pages(single->run),
		.run = &single->run,
	};
	return &single->block;
}

/* Blocks are counted from the one that the mapping begins in. */
static unsigned long hmm_block_base(const struct gup_range_map *map)
{
	return ALIGN_DOWN(map->start, HMM_BLOCK_SIZE);
}

static unsigned long hmm_block_index(const struct gup_range_map *map,
				     unsigned long va)
{
	return (va - hmm_block_base(map)) / HMM_BLOCK_SIZE;
}

/* The block around @va. One without runs can be there too, or NULL. */
static struct hmm_block *hmm_block(struct gup_range_map *map, unsigned long va,
				   struct hmm_single *single)
{
	return hmm_entry_block(xa_load(&map->blocks, hmm_block_index(map, va)),
			       single);
}

/* The slot is there, so this does not allocate. */
static void hmm_slot_store(struct xa_state *xas, void *entry)
{
	xas_store(xas, entry);
	WARN_ON_ONCE(xas_error(xas));
}

static void hmm_block_store(struct gup_range_map *map, unsigned long va,
			    void *entry)
{
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));

	xas_lock(&xas);
	hmm_slot_store(&xas, entry);
	xas_unlock(&xas);
}

/* Give back what the runs took; the header stays. */
static void hmm_block_clear(struct hmm_block *block)
{
	kfree(block->run);
	*block = (struct hmm_block) {};
}

/* The first run that ends after @page: it holds @page, or there is a gap. */
unsigned int hmm_block_find(const struct hmm_block *block, unsigned long page)
{
	unsigned int lo = 0, hi = block->nr;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (hmm_run_end(block->run[mid]) <= page)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Where the pages that begin with run @i end: at the first gap. */
unsigned long hmm_block_gap(const struct hmm_block *block, unsigned int i)
{
	unsigned long last = hmm_run_end(block->run[block->nr - 1]);

	if (last - hmm_run_first(block->run[0]) == block->pages)
		return last;
	while (i + 1 < block->nr &&
	       hmm_run_first(block->run[i + 1]) == hmm_run_end(block->run[i]))
		i++;
	return hmm_run_end(block->run[i]);
}

/* Replace @del runs from @i on by @add others, which there is room for. */
void hmm_block_splice(struct hmm_block *block, unsigned int i, unsigned int del,
		      const u64 *run, unsigned int add)
{
	unsigned int k;

	for (k = i; k < i + del; k++)
		block->pages -= hmm_run_pages(block->run[k]);
	memmove(block->run + i + add, block->run + i + del,
		(block->nr - i - del) * sizeof(*run));
	for (k = 0; k < add; k++) {
		block->run[i + k] = run[k];
		block->pages += hmm_run_pages(run[k]);
	}
	block->nr += add - del;
}

/* The first block with runs from *@va on, which moves there; NULL if none. */
static struct hmm_block *hmm_next_block(struct gup_range_map *map,
					unsigned long *va, unsigned long end,
					struct hmm_single *single)
{
	unsigned long idx = hmm_block_index(map, *va);
	struct hmm_block *block = hmm_block(map, *va, single);
	void *entry;

	/* Mostly it is right here, and looking costs less than searching. */
	if (block)
		return block;
	entry = xa_find(&map->blocks, &idx, hmm_block_index(map, end - 1),
			XA_PRESENT);
	if (!entry)
		return NULL;
	*va = max(*va, hmm_block_base(map) + idx * HMM_BLOCK_SIZE);
	return hmm_entry_block(entry, single);
}

/* The first gapless span of pages from @page on; false if there is none. */
static bool hmm_block_span(const struct hmm_block *block, unsigned long page,
			   unsigned long *first, unsigned long *last)
{
	unsigned int i = hmm_block_find(block, page);

	if (i == block->nr)
		return false;
	*first = max(page, hmm_run_first(block->run[i]));
	*last = hmm_block_gap(block, i);
	return true;
}

/*
 * The first gapless span of units in [*@start, *@end), which becomes it; false
 * if there is none.
 */
static bool hmm_next_span(struct gup_range_map *map, unsigned long *start,
			  unsigned long *end)
{
	unsigned long va = *start, limit = *end, at, base, first, last;
	struct hmm_single single;
	struct hmm_block *block;
	bool found = false;

	while (va < limit) {
		at = va;
		block = hmm_next_block(map, &at, limit, &single);
		if (!block)
			break;
		base = ALIGN_DOWN(at, HMM_BLOCK_SIZE);
		if (!hmm_block_span(block, (at - base) >> PAGE_SHIFT, &first,
				    &last)) {
			if (found)
				break;
			va = base + HMM_BLOCK_SIZE;
			continue;
		}
		at = base + (first << PAGE_SHIFT);
		if (!found)
			*start = at;
		else if (at != va)
			break;
		found = true;
		va = base + (last << PAGE_SHIFT);
		if (last != HMM_BLOCK_PAGES)
			break;
	}
	*end = min(va, limit);
	return found && *start < limit;
}

/* Where the unit ends that run @i is of. */
static unsigned long hmm_unit_end(const struct hmm_block *block, unsigned int i)
{
	while (i + 1 < block->nr && block->run[i + 1] & HMM_RUN_CONT)
		i++;
	return hmm_run_end(block->run[i]);
}

/* The unit around @va, with its first run; false if there is none. */
static bool hmm_unit(struct gup_range_map *map, unsigned long va,
		     unsigned long *start, unsigned long *end, u64 *run)
{
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	struct hmm_single single;
	struct hmm_block *block = hmm_block(map, va, &single);
	unsigned int i;

	if (!block)
		return false;
	i = hmm_block_find(block, (va - base) >> PAGE_SHIFT);
	if (i == block->nr || hmm_run_va(base, block->run[i]) > va)
		return false;
	*end = base + (hmm_unit_end(block, i) << PAGE_SHIFT);
	while (block->run[i] & HMM_RUN_CONT)
		i--;
	*run = block->run[i];
	*start = hmm_run_va(base, *run);
	return true;
}

/* Forget the units of [va, end), which is in one block and cuts none. */
static void hmm_block_forget(struct gup_range_map *map, unsigned long va,
			     unsigned long end)
{
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	struct hmm_single single;
	struct hmm_block *block;
	unsigned int i = 0, nr;

	xas_lock(&xas);
	block = hmm_entry_block(xas_load(&xas), &single);
	if (!block || xa_is_zero(block))
		goto unlock;
	nr = block->nr;
	if (va != base)
		i = hmm_block_find(block, (va - base) >> PAGE_SHIFT);
	if (end != base + HMM_BLOCK_SIZE)
		nr = hmm_block_find(block, (end - base) >> PAGE_SHIFT);
	if (nr - i < block->nr)
		hmm_block_splice(block, i, nr - i, NULL, 0);
	else if (block == &single.block)
		hmm_slot_store(&xas, XA_ZERO_ENTRY);
	else
		hmm_block_clear(block);
unlock:
	xas_unlock(&xas);
}

static void hmm_forget(struct gup_range_map *map, unsigned long va,
		       unsigned long end)
{
	unsigned long next;

	for (; va < end; va = next) {
		next = min(ALIGN_DOWN(va, HMM_BLOCK_SIZE) + HMM_BLOCK_SIZE, end);
		hmm_block_forget(map, va, next);
	}
}

static enum dma_data_direction hmm_map_dir(const struct gup_range_map *map,
					   bool write)
{
	return write || map->bidir ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
}

static bool hmm_map_unmaps_phys(const struct gup_range_map *map)
{
	return !map->state.addr && !map->linear;
}

/* dma_unmap_phys() for the units from run @i on that begin before @limit. */
static void hmm_unmap_phys(struct gup_range_map *map,
			   const struct hmm_block *block, unsigned int i,
			   unsigned long limit)
{
	for (; i < block->nr && hmm_run_first(block->run[i]) < limit; i++) {
		u64 run = block->run[i];

		if (run & HMM_RUN_CONT)
			continue;
		dma_unmap_phys(map->dev,
			       PFN_PHYS(hmm_run_pfn(run)) + map->dma_offset,
			       (hmm_unit_end(block, i) - hmm_run_first(run)) <<
			       PAGE_SHIFT,
			       hmm_map_dir(map, run & HMM_RUN_WRITE), map->attrs);
	}
}

/* dma_unmap_phys() for the units of [va, end). */
static void hmm_release(struct gup_range_map *map, unsigned long va,
			unsigned long end)
{
	struct hmm_single single;
	struct hmm_block *block;
	unsigned long base;

	for (; va < end; va = base + HMM_BLOCK_SIZE) {
		base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
		block = hmm_block(map, va, &single);
		if (WARN_ON_ONCE(!block))
			return;
		hmm_unmap_phys(map, block,
			       hmm_block_find(block, (va - base) >> PAGE_SHIFT),
			       (end - base) >> PAGE_SHIFT);
		cond_resched();
	}
}

static void hmm_count(struct gup_range_map *map, long nr)
{
	map->nr_mapped += nr;
	gup_map_count(0, nr);
}

/* Unlink the units of [va, end), which has no gap; one flush. */
static void hmm_unlink_span(struct gup_range_map *map, unsigned long va,
			    unsigned long end)
{
	if (dma_use_iova(&map->state))
		gup_map_unlink(map, va - map->start, end - va,
			       DMA_BIDIRECTIONAL, 0);
	if (hmm_map_unmaps_phys(map))
		hmm_release(map, va, end);
	hmm_count(map, -(long)((end - va) >> PAGE_SHIFT));
}

/* Unlink all units in [va, end), which cuts none; a flush per gapless span. */
static void hmm_unlink(struct gup_range_map *map, unsigned long va,
		       unsigned long end)
{
	unsigned long next;

	for (; map->nr_mapped; va = next) {
		next = end;
		if (!hmm_next_span(map, &va, &next))
			break;
		hmm_unlink_span(map, va, next);
		hmm_forget(map, va, next);
		cond_resched();
	}
}

/*
 * No IOMMU. Where map->linear, one call tells the distance for all, and nothing
 * has to be unmapped, as in block/blk-mq-dma.c: gup_dev_linear(). That a bounce
 * buffer changes this later is ruled out by DMA_ATTR_REQUIRE_COHERENT and by
 * what hmm_range_map_init() refuses. On failure nothing of this call stays.
 */
static int hmm_map_phys(struct gup_range_map *map, const struct phys_vec *vec,
			unsigned int nr, enum dma_data_direction dir)
{
	unsigned int i, calls = map->linear ? 1 : nr;
	int ret = 0;

	map->stats.links += nr;
	if (!map->dev)
		return 0;
	for (i = 0; i < calls; i++) {
		dma_addr_t addr = dma_map_phys(map->dev, vec[i].paddr,
					       vec[i].len, dir, map->attrs);

		if (dma_mapping_error(map->dev, addr)) {
			ret = -EIO;
			break;
		}
		if (!map->nr_mapped && !i)
			map->dma_offset = addr - vec[i].paddr;
		if (addr - vec[i].paddr != map->dma_offset) {
			dma_unmap_phys(map->dev, addr, vec[i].len, dir,
				       map->attrs);
			ret = -EOPNOTSUPP;
			break;
		}
	}
	for (; !ret && i < nr; i++)
		if (!gup_map_reaches(map, vec[i].paddr, vec[i].len))
			ret = -EIO;
	if (!ret)
		return 0;
	while (!map->linear && i--)
		dma_unmap_phys(map->dev, vec[i].paddr + map->dma_offset,
			       vec[i].len, dir, map->attrs);
	return ret;
}

/* Link pages from @va on, without a sync; after a failure none of them is. */
static int hmm_link(struct gup_range_map *map, unsigned long va,
		    unsigned long end, const struct phys_vec *vec,
		    unsigned int nr, enum dma_data_direction dir)
{
	int ret;

	/*
	 * Reclaim calls the invalidate callback, which waits for the lock that
	 * is held here: memory for IOMMU page tables must not wait for reclaim.
	 */
	if (dma_use_iova(&map->state))
		ret = gup_map_link_vecs(map, va - map->start, vec, nr, dir,
					GFP_ATOMIC | __GFP_NOWARN);
	else
		ret = hmm_map_phys(map, vec, nr, dir);
	if (!ret)
		hmm_count(map, (end - va) >> PAGE_SHIFT);
	return ret;
}

/*
 * One hmm_range_dma_map(), from prep to post.
 *
 * @found has an entry per block of the range: as in map->blocks, what is to be
 * mapped there. It becomes NULL when it was moved to map->blocks as it is, and
 * XA_ZERO_ENTRY when its memory was used to merge it into what was there.
 */
struct hmm_prep {
	struct gup_range_map	*map;
	struct gup_range	*range;
	unsigned long		first;	/* pages of the range, as asked for */
	unsigned long		last;	/* exclusive */
	unsigned long		nr_runs;
	struct gup_range_seq	found;
	u64			*run;	/* scratch: one block's */
	struct hmm_runs		runs;	/* scratch: of the walk, and then ... */
	unsigned long		va;	/* ... from here on, not linked yet */
	bool			merged;
};

/* Runs that there is room for on the stack. */
#define HMM_PREP_FEW	4

struct hmm_cursor {
	struct gup_range_block	*block;
	unsigned int		idx;
	unsigned long		va;
	unsigned long		next;
};

/* Step to the next entry of prep->found, NULL at the end. */
static u64 *hmm_found_next(struct hmm_prep *prep, struct hmm_cursor *cur)
{
	struct gup_range_seq *found = &prep->found;
	u64 *val;

	if (!cur->idx) {
		cur->block = found->first;
		cur->next = prep->first;
	} else if (cur->block && cur->idx == cur->block->nr) {
		cur->block = cur->block->next;
		cur->idx = 0;
	}
	if (!cur->block && (cur->idx || !found->nr || found->first))
		return NULL;
	cur->va = cur->next;
	cur->next = ALIGN_DOWN(cur->va, HMM_BLOCK_SIZE) + HMM_BLOCK_SIZE;
	cur->next = min(cur->next, prep->last);
	val = cur->block ? &cur->block->val[cur->idx] : &found->one;
	cur->idx++;
	return val;
}

static void *hmm_found_entry(u64 val)
{
	return (void *)(unsigned long)val;
}

/*
 * A batch is what is in map->blocks but not linked yet: the runs.nr runs that
 * begin at prep->va and end at runs.end, without a gap.
 */
static void hmm_batch_drop(struct hmm_prep *prep)
{
	if (prep->runs.nr)
		hmm_forget(prep->map, prep->va, prep->runs.end);
	prep->runs.nr = 0;
}

static int hmm_batch_link(struct hmm_prep *prep)
{
	int ret;

	if (!prep->runs.nr)
		return 0;
	ret = hmm_link(prep->map, prep->va, prep->runs.end, prep->runs.vec,
		       prep->runs.nr,
		       hmm_map_dir(prep->map,
				   prep->range->flags & GUP_RANGE_WRITE));
	if (ret)
		hmm_batch_drop(prep);
	prep->runs.nr = 0;
	return ret;
}

/* Make room for @nr runs at @va, which go into map->blocks after this. */
static int hmm_batch_begin(struct hmm_prep *prep, unsigned long va,
			   unsigned int nr)
{
	struct hmm_runs *runs = &prep->runs;
	int ret;

	if (runs->nr && va == runs->end && runs->nr + nr <= runs->max)
		return 0;
	ret = hmm_batch_link(prep);
	prep->va = va;
	runs->end = va;
	return ret;
}

/* @run: of one block, without a gap */
static void hmm_batch_add(struct hmm_prep *prep, const u64 *run,
			  unsigned int nr)
{
	struct hmm_runs *runs = &prep->runs;
	struct phys_vec *vec = runs->vec + runs->nr;
	unsigned int i;

	for (i = 0; i < nr; i++)
		vec[i] = hmm_run_vec(run[i]);
	runs->nr += nr;
	runs->end += (hmm_run_end(run[nr - 1]) - hmm_run_first(run[0])) <<
		     PAGE_SHIFT;
}

/*
 * Room for @more runs in the block at @va, which is not empty. There is enough
 * of it unless the block has grown since hmm_found_room(). Then it is at most a
 * page, and not charged, since the charge could fail where memory does not.
 */
static struct hmm_block *hmm_merge_room(struct hmm_prep *prep, unsigned long va,
					u64 *found, unsigned int more)
{
	void *entry = xa_load(&prep->map->blocks,
			      hmm_block_index(prep->map, va));
	struct hmm_block *to = hmm_found_entry(*found);
	struct hmm_single single;
	struct hmm_block *have = hmm_entry_block(entry, &single);
	unsigned int max = have->nr + more;

	/* A value is not a block that could be changed. */
	if (max <= have->max && !xa_is_value(entry))
		return entry;
	if (!xa_is_value(to) && !xa_is_zero(to) && max <= to->max)
		*found = (u64)(unsigned long)XA_ZERO_ENTRY;
	else
		to = hmm_block_alloc(max, GFP_ATOMIC | __GFP_NOWARN);
	if (!to)
		return NULL;
	memcpy(to->run, have->run, have->nr * sizeof(*to->run));
	to->nr = have->nr;
	to->pages = have->pages;
	hmm_block_store(prep->map, va, to);
	hmm_entry_free(entry);
	return to;
}

/* Link the read-only runs [i, i + nr) of @block; after a failure none is there. */
static int hmm_merge_put_back(struct gup_range_map *map, unsigned long base,
			      struct hmm_block *block, unsigned int i,
			      unsigned int nr)
{
	unsigned int k;
	int ret;

	for (k = i; k < i + nr; k++) {
		struct phys_vec vec = hmm_run_vec(block->run[k]);
		unsigned long va = hmm_run_va(base, block->run[k]);

		ret = hmm_link(map, va, va + vec.len, &vec, 1, DMA_TO_DEVICE);
		if (ret)
			goto undo;
	}
	return 0;
undo:
	while (k-- > i)
		hmm_unlink_span(map, hmm_run_va(base, block->run[k]), base +
				(hmm_run_end(block->run[k]) << PAGE_SHIFT));
	hmm_block_splice(block, i, nr, NULL, 0);
	return ret;
}

/* Nothing has to be linked anew for writing. */
static bool hmm_upgrades_in_place(const struct gup_range_map *map)
{
	return map->linear || map->bidir;
}

/*
 * The same in place: cut @run and make the part that is in @want writable. At no
 * moment it is not mapped, so the device can go on and an invalidation finds it.
 */
static int hmm_merge_promote(struct hmm_prep *prep, unsigned long va, u64 *found,
			     u64 run, unsigned int i, u64 want)
{
	unsigned long first = hmm_run_first(run), end = hmm_run_end(run);
	unsigned long distance = hmm_run_pfn(run) - first;
	unsigned long from = max(hmm_run_first(want), first);
	unsigned long to = min(hmm_run_end(want), end);
	/* Where all is linear nothing was linked, and nothing is whole. */
	u64 cont = prep->map->linear ? 0 : HMM_RUN_CONT;
	u64 flags = run & HMM_RUN_CONT, new[3];
	unsigned int nr = 0, del = 1;
	struct hmm_block *block;

	block = hmm_merge_room(prep, va, found, (first < from) + (to < end));
	if (!block)
		return -ENOMEM;
	if (first < from) {
		new[nr++] = hmm_run(first + distance, first, from - first, flags);
		flags = cont;
	} else if (flags && block->run[i - 1] & HMM_RUN_WRITE) {
		/* It goes on where an earlier one ended. */
		i--;
		del++;
		from = hmm_run_first(block->run[i]);
		flags = block->run[i] & HMM_RUN_CONT;
	}
	if (to == end && i + del < block->nr &&
	    block->run[i + del] & HMM_RUN_CONT &&
	    block->run[i + del] & HMM_RUN_WRITE) {
		end = hmm_run_end(block->run[i + del++]);
		to = end;
	}
	new[nr++] = hmm_run(from + distance, from, to - from,
			    flags | HMM_RUN_WRITE);
	if (to < end)
		new[nr++] = hmm_run(to + distance, to, end - to, cont);
	hmm_block_splice(block, i, del, new, nr);
	return 0;
}

/*
 * @run, run @i of the block at @va, is read-only, and what of it is in @want has
 * to become writable. Take it out and put back, read-only, what lies outside; the
 * rest is linked as any other gap. The range is widened for the driver's
 * knowledge.
 */
static int hmm_merge_upgrade(struct hmm_prep *prep, unsigned long va,
			     u64 *found, u64 run, unsigned int i, u64 want)
{
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	unsigned long start = hmm_run_va(base, run);
	unsigned long end = base + (hmm_run_end(run) << PAGE_SHIFT);
	unsigned long first = hmm_run_va(base, want);
	unsigned long last = base + (hmm_run_end(want) << PAGE_SHIFT);
	struct hmm_block *block;
	unsigned int nr = 0;
	u64 keep[2];

	if (hmm_upgrades_in_place(prep->map))
		return hmm_merge_promote(prep, va, found, run, i, want);
	/* It becomes more than one only if it sticks out at both ends. */
	block = hmm_merge_room(prep, va, found, start < first && end > last);
	if (!block)
		return -ENOMEM;
	hmm_unlink_span(prep->map, start, end);
	prep->range->start = min(prep->range->start, start);
	prep->range->end = max(prep->range->end, end);

	if (start < first)
		keep[nr++] = hmm_run(hmm_run_pfn(run), hmm_run_first(run),
				     (first - start) >> PAGE_SHIFT, 0);
	if (end > last)
		keep[nr++] = hmm_run(hmm_run_pfn(run) +
				     ((last - start) >> PAGE_SHIFT),
				     (last - base) >> PAGE_SHIFT,
				     (end - last) >> PAGE_SHIFT, 0);
	hmm_block_splice(block, i, 1, keep, nr);
	return hmm_merge_put_back(prep->map, base, block, i, nr);
}

/* The driver missed an invalidation: at @va are not the VMA's pages any more. */
static int hmm_merge_stale(struct hmm_prep *prep, unsigned long va)
{
	unsigned long start = va, end = va;
	u64 run;

	WARN_ON_ONCE(1);
	hmm_unit(prep->map, va, &start, &end, &run);
	hmm_unlink(prep->map, start, end);
	prep->range->start = min(prep->range->start, start);
	prep->range->end = max(prep->range->end, end);
	return -EIO;
}

/* Is run @i read-only, inside of the range, and next to the one before? */
static bool hmm_merge_at_once(const struct hmm_prep *prep, unsigned long base,
			      const struct hmm_block *block, unsigned int i,
			      unsigned int from)
{
	u64 run = block->run[i];

	return !(run & HMM_RUN_WRITE) &&
	       hmm_run_va(base, run) >= prep->first &&
	       base + (hmm_run_end(run) << PAGE_SHIFT) <= prep->last &&
	       (i == from ||
		hmm_run_first(run) == hmm_run_end(block->run[i - 1]));
}

/*
 * All of the block's part of the range becomes writable. Take out the read-only
 * units that lie in it, with one flush for those without a gap between them;
 * they are linked as any other gap. What sticks out is left to
 * hmm_merge_upgrade().
 */
static void hmm_merge_take_out(struct hmm_prep *prep, unsigned long va)
{
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	struct hmm_single single;
	struct hmm_block *block = hmm_block(prep->map, va, &single);
	unsigned int i, n;

	if (block == &single.block || hmm_upgrades_in_place(prep->map))
		return;
	i = hmm_block_find(block, (va - base) >> PAGE_SHIFT);
	while (i < block->nr) {
		for (n = i; n < block->nr; n++)
			if (!hmm_merge_at_once(prep, base, block, n, i))
				break;
		if (n == i) {
			i++;
			continue;
		}
		hmm_unlink_span(prep->map, hmm_run_va(base, block->run[i]), base +
				(hmm_run_end(block->run[n - 1]) << PAGE_SHIFT));
		hmm_block_splice(block, i, n - i, NULL, 0);
	}
}

/* Add what is missing of @run to the block at @va. */
static int hmm_merge_run(struct hmm_prep *prep, unsigned long va, u64 *found,
			 u64 run)
{
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	unsigned long page = hmm_run_first(run), end = hmm_run_end(run), next;
	unsigned long distance = hmm_run_pfn(run) - page;
	struct hmm_single single;
	struct hmm_block *block;
	unsigned int i;
	u64 have, new;
	int ret;

	for (; page < end; page = next) {
		block = hmm_block(prep->map, va, &single);
		i = hmm_block_find(block, page);
		have = i < block->nr ? block->run[i] : 0;
		next = i < block->nr ? min(hmm_run_first(have), end) : end;
		if (next <= page) {
			if (hmm_run_pfn(have) - hmm_run_first(have) != distance)
				return hmm_merge_stale(prep, hmm_run_va(base,
									have));
			next = min(hmm_run_end(have), end);
			if (have & HMM_RUN_WRITE || !(run & HMM_RUN_WRITE))
				continue;
			next = page;
			ret = hmm_merge_upgrade(prep, va, found, have, i, run);
			if (ret)
				return ret;
			continue;
		}
		ret = hmm_batch_begin(prep, base + (page << PAGE_SHIFT), 1);
		if (ret)
			return ret;
		block = hmm_merge_room(prep, va, found, 1);
		if (!block)
			return -ENOMEM;
		new = hmm_run(page + distance, page, next - page,
			      (run & HMM_RUN_WRITE) | HMM_RUN_NEW);
		hmm_block_splice(block, hmm_block_find(block, page), 0, &new, 1);
		hmm_batch_add(prep, &new, 1);
	}
	return 0;
}

/* The block at @va has runs already, or it is @found itself, which has gaps. */
static int hmm_merge_block(struct hmm_prep *prep, unsigned long va, u64 *found,
			   bool gaps)
{
	struct hmm_single single;
	struct hmm_block *block = hmm_entry_block(hmm_found_entry(*found),
						  &single);
	unsigned long end = ALIGN_DOWN(va, HMM_BLOCK_SIZE) + HMM_BLOCK_SIZE;
	unsigned long pages = (min(end, prep->last) - va) >> PAGE_SHIFT;
	unsigned int i, nr = block->nr;
	int ret = 0;

	/* Its memory can become that of the merged block. */
	memcpy(prep->run, block->run, nr * sizeof(*prep->run));
	prep->merged = true;
	if (gaps) {
		hmm_block_splice(block, 0, nr, NULL, 0);
		*found = (u64)(unsigned long)XA_ZERO_ENTRY;
	} else if (prep->range->flags & GUP_RANGE_WRITE && pages == block->pages) {
		hmm_merge_take_out(prep, va);
	}
	for (i = 0; i < nr && !ret; i++)
		ret = hmm_merge_run(prep, va, found, prep->run[i]);
	block = hmm_block(prep->map, va, &single);
	/* An upgrade took the last run, and then failed. */
	if (block && !block->nr)
		hmm_block_clear(block);
	return ret;
}

/* A block without runs, if it is one. */
static bool hmm_entry_is_empty(void *entry)
{
	const struct hmm_block *block = entry;

	return !entry || xa_is_zero(entry) ||
	       (!xa_is_value(entry) && !block->nr);
}

static int hmm_map_block(struct hmm_prep *prep, unsigned long va, u64 *found)
{
	XA_STATE(xas, &prep->map->blocks, hmm_block_index(prep->map, va));
	void *entry = hmm_found_entry(*found), *old;
	struct hmm_single single;
	struct hmm_block *block = hmm_entry_block(entry, &single);
	bool empty, gaps;
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;
	/* Nothing was there, which only happens without faults, as do gaps. */
	if (xa_is_zero(entry))
		return 0;
	gaps = hmm_run_end(block->run[block->nr - 1]) -
	       hmm_run_first(block->run[0]) != block->pages;
	/* Not half of a block: what is not in map->blocks cannot be undone. */
	ret = hmm_batch_begin(prep, hmm_run_va(ALIGN_DOWN(va, HMM_BLOCK_SIZE),
					       block->run[0]), block->nr);
	if (ret)
		return ret;
	xas_lock(&xas);
	old = xas_load(&xas);
	empty = hmm_entry_is_empty(old);
	if (empty)
		hmm_slot_store(&xas, entry);
	xas_unlock(&xas);
	if (empty)
		hmm_entry_free(old);
	if (!empty || gaps)
		return hmm_merge_block(prep, va, found, empty);
	hmm_batch_add(prep, block->run, block->nr);
	*found = 0;
	return 0;
}

/* Take out what this call added to the block at @va. */
static void hmm_undo_block(struct gup_range_map *map, unsigned long va)
{
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE), page = 0;
	struct hmm_single single;
	struct hmm_block *block;
	unsigned int i;
	u64 run;

	while ((block = hmm_block(map, va, &single))) {
		i = hmm_block_find(block, page);
		if (i == block->nr)
			break;
		run = block->run[i];
		page = hmm_run_end(run);
		if (run & HMM_RUN_NEW)
			hmm_unlink(map, hmm_run_va(base, run),
				   base + (page << PAGE_SHIFT));
	}
}

/* Make what this call added to a part of the block at @va ordinary. */
static void hmm_keep_block(struct gup_range_map *map, unsigned long va,
			   unsigned long end)
{
	unsigned long base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	struct hmm_single single;
	struct hmm_block *block = hmm_block(map, va, &single);
	unsigned int i;

	if (!block)
		return;
	i = hmm_block_find(block, (va - base) >> PAGE_SHIFT);
	for (; i < block->nr && hmm_run_va(base, block->run[i]) < end; i++)
		block->run[i] &= ~HMM_RUN_NEW;
	if (IS_ENABLED(CONFIG_64BIT) && block->nr == 1 &&
	    block != &single.block) {
		hmm_block_store(map, va, xa_mk_value(block->run[0]));
		hmm_block_free(block);
	}
}

/*
 * After all is linked, or not. A block that was empty is this call's as a
 * whole. The device never knew of what is undone.
 */
static void hmm_settle(struct hmm_prep *prep, bool undo)
{
	struct hmm_cursor cur = {};
	u64 *found;

	if (!undo && !prep->merged)
		return;
	while ((found = hmm_found_next(prep, &cur))) {
		if (!undo && *found)
			hmm_keep_block(prep->map, cur.va, cur.next);
		else if (undo && *found)
			hmm_undo_block(prep->map, cur.va);
		else if (undo)
			hmm_unlink(prep->map, cur.va, cur.next);
	}
}

/* The mirrored half of gup_range_dma_map(); the runs are those of the prep. */
int hmm_map_runs(struct gup_range *range, struct gup_range_map *map)
{
	struct hmm_prep *prep = range->prep;
	u64 links = map->stats.links, *found;
	struct hmm_cursor cur = {};
	int ret = 0, err;

	if (!prep)
		return -EINVAL;
	lockdep_assert_held(map->lock);
	while (!ret && (found = hmm_found_next(prep, &cur))) {
		ret = hmm_map_block(prep, cur.va, found);
		cond_resched();
	}
	if (!ret)
		ret = hmm_batch_link(prep);
	else
		hmm_batch_drop(prep);
	/* After a failure too: what an upgrade put back is in use. */
	if (dma_use_iova(&map->state) && map->stats.links != links) {
		err = gup_map_sync(map, gup_range_first(range) - map->start,
				   gup_range_nr_pages(range) << PAGE_SHIFT);
		ret = ret ?: err;
	}
	hmm_settle(prep, ret);
	trace_gup_range_map(range, map, ret);
	return ret;
}

size_t hmm_map_bytes(struct gup_range_map *map)
{
	struct hmm_single single;
	struct hmm_block *block;
	unsigned long idx;
	size_t bytes = 0;
	void *entry;

	xa_for_each(&map->blocks, idx, entry) {
		block = hmm_entry_block(entry, &single);
		bytes += block->max * sizeof(*block->run);
		if (block != &single.block)
			bytes += sizeof(*block);
	}
	return bytes;
}

int hmm_map_addr(struct gup_range_map *map, unsigned long va,
		 dma_addr_t *addr, size_t *len)
{
	unsigned long start, end;
	u64 run;

	lockdep_assert_held(map->lock);
	if (va < map->start || va >= map->end)
		return -EINVAL;
	if (!hmm_unit(map, va, &start, &end, &run))
		return -EFAULT;
	if (dma_use_iova(&map->state)) {
		*addr = map->state.addr + map->slack + (va - map->start);
		end = map->end;
		hmm_next_span(map, &start, &end);
	} else {
		*addr = PFN_PHYS(hmm_run_pfn(run)) + map->dma_offset +
			(va - start);
	}
	*len = end - va;
	return 0;
}

/* As dma_go_direct(), for a device that reaches all memory. */
static bool hmm_dev_has_ops(struct device *dev)
{
	if (IS_ENABLED(CONFIG_DMA_OPS_BYPASS) && dev_dma_ops_bypass(dev))
		return false;
	return get_dma_ops(dev);
}

static int hmm_map_init_dev(struct gup_range_map *map, unsigned long start,
			    unsigned long end)
{
	struct device *dev = map->dev;

	if (!dev->dma_mask)
		return -EINVAL;
	if (!dev_is_dma_coherent(dev) || is_swiotlb_force_bounce(dev) ||
	    dma_addressing_limited(dev) || hmm_dev_has_ops(dev))
		return -EOPNOTSUPP;

	map->attrs = DMA_ATTR_REQUIRE_COHERENT;
	return gup_map_alloc_iova(map, start, end - start);
}

/**
 * hmm_range_map_init - prepare a mapping of mirrored ranges for a device
 * @map: the mapping, zeroed before @notifier was inserted
 * @dev: the device that does the DMA; it outlives @map. NULL for a device in
 *	software, which copies with the CPU: its addresses are physical ones
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
 * * -EINVAL - no DMA mask; @granule is no power of two, or the notifier is not
 *   aligned to it
 * * -EOVERFLOW - the notifier covers half of the address space, or some of its
 *   last 512 pages
 * * -EOPNOTSUPP - the device cannot mirror: it is not coherent, does not reach
 *   all memory, bounces, or has DMA operations of its own (there is no moment
 *   at which a copy could be made); granule > PAGE_SIZE without an IOMMU; or
 *   the pages of the IOMMU are larger than those of the CPU
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
	/* Blocks are walked whole: none may end at 0. */
	if (!ALIGN(end, HMM_BLOCK_SIZE))
		return -EOVERFLOW;
	if (!IS_ALIGNED(start | end, granule) && granule > PAGE_SIZE)
		return -EINVAL;
	if (dev) {
		ret = hmm_map_init_dev(&new, start, end);
		if (ret)
			return ret;
	}
	if (!dma_use_iova(&new.state) && granule > PAGE_SIZE)
		return -EOPNOTSUPP;
	new.linear = !dev || (!dma_use_iova(&new.state) && gup_dev_linear(dev));
	new.start = start;
	new.end = end;
	new.notifier = notifier;
	new.lock = lock;

	/* The notifier is live: its callback sees all of it or nothing. */
	mutex_lock(lock);
	*map = new;
	xa_init(&map->blocks);
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
	unsigned long idx;
	void *entry;

	if (WARN_ON_ONCE(!map->notifier))
		return;
	/* The callback may still come, until the notifier is removed. */
	mutex_lock(map->lock);
	hmm_unlink(map, map->start, map->end);
	WARN_ON_ONCE(map->nr_mapped);
	/* What is left in it is headers and reserved slots. */
	xa_for_each(&map->blocks, idx, entry)
		hmm_entry_free(entry);
	xa_destroy(&map->blocks);
	map->notifier = NULL;
	mutex_unlock(map->lock);

	if (dma_use_iova(&map->state))
		dma_iova_free(map->dev, &map->state);
	gup_map_count(-1, 0);
}
EXPORT_SYMBOL_GPL(hmm_range_map_destroy);

/* Forget what was found; what of it was mapped is in map->blocks. */
static void hmm_found_free(struct hmm_prep *prep)
{
	struct hmm_cursor cur = {};
	u64 *found;

	while ((found = hmm_found_next(prep, &cur)))
		hmm_entry_free(hmm_found_entry(*found));
	gup_seq_free(&prep->found);
	prep->nr_runs = 0;
}

static void hmm_prep_free(struct hmm_prep *prep)
{
	hmm_found_free(prep);
	if (prep->runs.max > HMM_PREP_FEW) {
		kfree(prep->runs.vec);
		kfree(prep->run);
	}
}

/*
 * How many runs to have room for when the first @nr of prep->run come to the
 * block at @va. Each of them and each gap between those that are there can be
 * one more, and each can cut one that is there.
 */
static unsigned int hmm_found_room(struct hmm_prep *prep, unsigned long va,
				   unsigned int nr)
{
	struct hmm_single single;
	struct hmm_block *block;
	unsigned int max, i, j;

	guard(mutex)(prep->map->lock);
	block = hmm_block(prep->map, va, &single);
	if (!block || !block->nr)
		return nr;
	i = hmm_block_find(block, hmm_run_first(prep->run[0]));
	j = hmm_block_find(block, hmm_run_end(prep->run[nr - 1]));
	max = min(block->nr + 2 * nr + (j - i) + 3, HMM_BLOCK_PAGES);
	if (max <= block->max)
		return nr;
	/* Those that fault page by page come again soon. */
	max = kmalloc_size_roundup(max * sizeof(u64)) / sizeof(u64);
	return max(max, nr);
}

/* As it is in map->blocks, XA_ZERO_ENTRY too: was it reserved before? */
static void *hmm_slot_load(struct gup_range_map *map, unsigned long va)
{
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	void *entry;

	guard(rcu)();
	while (xa_is_retry(entry = xas_load(&xas)))
		xas_reset(&xas);
	return entry;
}

/* The first @nr of prep->run are all that was found in the block at @va. */
static int hmm_found_add(struct hmm_prep *prep, unsigned long va,
			 unsigned int nr, unsigned int pages)
{
	struct gup_range_map *map = prep->map;
	unsigned long idx = hmm_block_index(map, va);
	const u64 *run = prep->run;
	struct hmm_block *block;
	unsigned int max = nr;
	void *entry = hmm_slot_load(map, va);
	int ret;

	if (!nr) {
		entry = XA_ZERO_ENTRY;
		goto push;
	}
	if (!entry) {
		ret = xa_reserve(&map->blocks, idx, GFP_KERNEL_ACCOUNT);
		if (ret)
			return ret;
	} else if (!xa_is_zero(entry)) {
		max = hmm_found_room(prep, va, nr);
	}
	if (IS_ENABLED(CONFIG_64BIT) && max == 1) {
		entry = xa_mk_value(run[0]);
	} else {
		block = hmm_block_alloc(max, GFP_KERNEL_ACCOUNT);
		if (!block)
			return -ENOMEM;
		memcpy(block->run, run, nr * sizeof(*run));
		block->nr = nr;
		block->pages = pages;
		entry = block;
	}
push:
	ret = gup_seq_push(&prep->found, (u64)(unsigned long)entry,
			   hmm_block_index(map, prep->last - 1) - idx + 1);
	if (ret)
		hmm_entry_free(entry);
	prep->nr_runs += nr;
	return ret;
}

/* Note what the walk reported of [va, end), cut at the ends of blocks. */
static int hmm_found_runs(struct hmm_prep *prep, unsigned long va,
			  unsigned long end)
{
	u64 flags = prep->range->flags & GUP_RANGE_WRITE ? HMM_RUN_WRITE : 0;
	const struct phys_vec *vec = prep->runs.vec;
	unsigned long pfn = 0, left = 0, page, last, pages, gap, next;
	unsigned int nr;
	int ret;

	for (; va < end; va = next) {
		u64 *run = prep->run;

		next = min(ALIGN_DOWN(va, HMM_BLOCK_SIZE) + HMM_BLOCK_SIZE, end);
		page = (va >> PAGE_SHIFT) % HMM_BLOCK_PAGES;
		last = page + ((next - va) >> PAGE_SHIFT);
		gap = 0;
		for (nr = 0; page < last; page += pages) {
			if (!left) {
				pfn = PHYS_PFN(vec->paddr);
				left = vec->len >> PAGE_SHIFT;
				vec++;
			}
			pages = min(left, last - page);
			left -= pages;
			if (unlikely(pfn == PHYS_PFN(HMM_RUNS_HOLE))) {
				gap += pages;
				continue;
			}
			if (!gup_run_has_room(pfn + pages - 1))
				return -EOPNOTSUPP;
			run[nr++] = hmm_run(pfn, page, pages, flags);
			pfn += pages;
		}
		ret = hmm_found_add(prep, va, nr,
				    ((next - va) >> PAGE_SHIFT) - gap);
		if (ret)
			return ret;
	}
	return 0;
}

/* Fault the range and note its runs, as they were at range->notifier_seq. */
static int hmm_range_collect(struct hmm_range *range, struct hmm_prep *prep,
			     unsigned long timeout)
{
	struct hmm_range chunk = *range;
	unsigned long va, end;
	int ret;

	chunk.end = prep->last;
	for (va = prep->first; va < prep->last; va = end) {
		chunk.start = va;
		ret = hmm_range_fault_runs(&chunk, &prep->runs, timeout);
		if (ret)
			return ret;
		/* Blocks as a whole: one has at most as many runs as fit. */
		end = prep->runs.end;
		if (end < prep->last)
			end = ALIGN_DOWN(end, HMM_BLOCK_SIZE);
		ret = hmm_found_runs(prep, va, end);
		if (ret)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (va == prep->first)
			range->notifier_seq = chunk.notifier_seq;
		else if (chunk.notifier_seq != range->notifier_seq)
			break;
		cond_resched();
	}
	return 0;
}

/*
 * One pass over the range: sequence, fault, lock, check. Returns with the lock
 * held, or -EAGAIN when there was an invalidation in between.
 */
static int hmm_range_pass(struct hmm_range *range, struct hmm_prep *prep,
			  unsigned long timeout)
{
	struct gup_range_map *map = prep->map;
	struct mm_struct *mm = range->base.mm;
	int ret;

	if (!mmget_not_zero(mm))
		return -ESRCH;
	ret = hmm_range_collect(range, prep, timeout);
	/*
	 * Not under the lock: the last one invalidates everything. And not here:
	 * it can close the files of the device, and wait for its page faults.
	 */
	mmput_async(mm);
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
 * faulting is progress, however long it takes. Without faults there is none, as
 * each pass is what it takes to look at the page tables.
 */
static int hmm_range_passes(struct hmm_range *range, struct hmm_prep *prep)
{
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	bool fault = range->default_flags & HMM_PFN_REQ_FAULT;
	unsigned long deadline = 0;
	int ret;

	for (;;) {
		ret = hmm_range_pass(range, prep, timeout);
		if (!ret)
			return 0;
		hmm_found_free(prep);
		if (ret != -EAGAIN && (fault || ret != -EBUSY))
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		trace_hmm_range_retry(range);
		if (!deadline)
			deadline = jiffies + timeout;
		else if (fault && time_after_eq(jiffies, deadline))
			return -EBUSY;
	}
}

/*
 * The memory to work with is bounded, whatever the size of the range is. That
 * for a few runs is there.
 */
static int hmm_prep_init(struct hmm_prep *prep, struct gup_range *range)
{
	unsigned int max = min(gup_range_nr_pages(range), HMM_BLOCK_PAGES);

	prep->range = range;
	prep->first = range->start;
	prep->last = range->end;
	prep->runs.max = max;
	if (max <= HMM_PREP_FEW)
		return 0;
	prep->runs.vec = kmalloc_objs(*prep->runs.vec, max);
	prep->run = kmalloc_objs(*prep->run, max);
	return prep->runs.vec && prep->run ? 0 : -ENOMEM;
}

static int hmm_range_dma_prep(struct hmm_range *range,
			      struct gup_range_map *map, struct hmm_prep *prep)
{
	unsigned long granule = max(map->granule, PAGE_SIZE);
	struct gup_range *base = &range->base;
	int ret;

	if (!map->notifier || range->notifier != map->notifier ||
	    range->start >= range->end ||
	    range->start < map->start || range->end > map->end)
		return -EINVAL;

	range->start = ALIGN_DOWN(range->start, granule);
	range->end = ALIGN(range->end, granule);
	base->mm = map->notifier->mm;
	base->flags = range->default_flags & HMM_PFN_REQ_WRITE ?
		      GUP_RANGE_WRITE : 0;
	base->runs = (struct gup_range_seq){};

	ret = hmm_prep_init(prep, base);
	if (!ret)
		ret = hmm_range_passes(range, prep);
	if (ret) {
		hmm_prep_free(prep);
		return ret;
	}
	/* No batch yet; the runs are counted for the tracepoint only. */
	prep->runs.nr = 0;
	base->runs.nr = prep->nr_runs;
	base->prep = prep;
	return 0;
}

static int hmm_range_dma_post(struct hmm_range *range,
			      struct gup_range_map *map, int ret)
{
	hmm_prep_free(range->base.prep);
	range->base.prep = NULL;
	range->base.runs.nr = 0;
	if (ret)
		mutex_unlock(map->lock);
	return ret;
}

/**
 * hmm_range_dma_map - fault a user range and map it for DMA
 * @range: notifier (that of @map), start, end, default_flags: normally with
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
 * Without %HMM_PFN_REQ_WRITE pages are mapped DMA_TO_DEVICE. Where something has
 * to be done for that, a page that was mapped so and is now asked for writing is
 * linked anew, with what was linked together with it; a DMA to it at that moment
 * can fail. With &gup_range_map.bidir none is. Start and end of @range come back
 * as what was touched: rounded to pages or to the granule, and widened by such
 * upgrades.
 *
 * Without %HMM_PFN_REQ_FAULT only what is there is mapped, and with
 * %HMM_PFN_REQ_WRITE alone only what is there, writable and dirty.
 *
 * What is mapped with %HMM_PFN_REQ_WRITE has a dirty page table entry for as long
 * as it is mapped. A driver that writes with the CPU, or a device that does, has
 * nothing to dirty.
 *
 * After a failure the lock is not held and what was mapped before still is, but
 * for pages that were to be upgraded: with the lock taken, gup_range_map_addr()
 * tells which of those between start and end of @range are left. Memory to keep
 * track of what is mapped can stay allocated until hmm_range_map_destroy().
 *
 * Context: process context, may sleep, without mmap_lock and without the lock.
 *
 * Return: 0 or
 * * -EINVAL - not inside of the notifier's range, empty, or another notifier
 * * -EPERM - no right to write
 * * -EFAULT - no memory there, no pages behind it, or secret memory
 * * -EHWPOISON - the memory failed
 * * -EREMOTEIO - memory of a device: P2PDMA, or device private memory of the
 *   range's own dev_private_owner (that of others migrates back)
 * * -EOPNOTSUPP - no IOMMU, and DMA addresses are not at a constant distance
 *   from physical ones; or a page frame number of more than 40 bits
 * * -EBUSY - invalidated again and again; not without %HMM_PFN_REQ_FAULT
 * * -EINTR - a fatal signal
 * * -ESRCH - the process has exited
 * * -ENOMEM - no memory, for IOMMU page tables too
 * * -EIO, others - what the IOMMU driver or dma_map_phys() said
 */
int hmm_range_dma_map(struct hmm_range *range, struct gup_range_map *map)
{
	struct phys_vec few_vecs[HMM_PREP_FEW] __uninitialized;
	u64 few_runs[HMM_PREP_FEW] __uninitialized;
	struct hmm_prep prep = {
		.map = map,
		.runs.vec = few_vecs,
		.run = few_runs,
	};
	int ret;

	ret = hmm_range_dma_prep(range, map, &prep);
	if (ret)
		return ret;
	ret = gup_range_dma_map(&range->base, map);
	return hmm_range_dma_post(range, map, ret);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_map);

/* To the first block with runs from @va on. Where a unit was cut, to all of it. */
static bool hmm_seg_block(struct gup_range_map *map, struct hmm_range_seg *seg,
			  unsigned long va)
{
	struct hmm_single single;
	struct hmm_block *block;
	unsigned int i;

	seg->end = min(seg->end, map->end);
	if (va >= seg->end)
		return false;
	block = hmm_next_block(map, &va, seg->end, &single);
	if (!block)
		return false;
	seg->base = ALIGN_DOWN(va, HMM_BLOCK_SIZE);
	i = hmm_block_find(block, (va - seg->base) >> PAGE_SHIFT);
	while (i < block->nr && block->run[i] & HMM_RUN_CONT)
		i--;
	seg->nr = block->nr - i;
	seg->run = block->run + i;
	if (block == &single.block) {
		seg->one = single.run;
		seg->run = &seg->one;
	}
	return true;
}

/**
 * hmm_range_map_next - step a cursor to the next part that is mapped
 * @map: from hmm_range_map_init()
 * @seg: the cursor, which hmm_range_for_each_seg() sets up
 *
 * Context: with the lock held that was given at init, all the time.
 * Return: true when @seg was filled, false after the last one.
 */
bool hmm_range_map_next(struct gup_range_map *map, struct hmm_range_seg *seg)
{
	bool iova = dma_use_iova(&map->state);
	unsigned long limit, last;
	const u64 *at, *stop;
	u64 run;

	lockdep_assert_held(map->lock);
	if (!seg->run && !hmm_seg_block(map, seg, max(seg->va, map->start)))
		return false;
	while (!seg->nr)
		if (!hmm_seg_block(map, seg, seg->base + HMM_BLOCK_SIZE))
			return false;
	at = seg->run;
	stop = at + seg->nr;
	run = *at++;
	limit = PAGE_ALIGN(seg->end - seg->base) >> PAGE_SHIFT;
	if (hmm_run_first(run) >= limit && !(run & HMM_RUN_CONT))
		return false;
	seg->va = hmm_run_va(seg->base, run);
	seg->write = run & HMM_RUN_WRITE;
	seg->addr = iova ? map->state.addr + map->slack + (seg->va - map->start) :
			   PFN_PHYS(hmm_run_pfn(run)) + map->dma_offset;
	last = hmm_run_end(run);
	for (; iova && at < stop; at++) {
		if (hmm_run_first(*at) != last || (*at ^ run) & HMM_RUN_WRITE ||
		    (last >= limit && !(*at & HMM_RUN_CONT)))
			break;
		last = hmm_run_end(*at);
	}
	seg->len = seg->base + (last << PAGE_SHIFT) - seg->va;
	seg->run = at;
	seg->nr = stop - at;
	return true;
}
EXPORT_SYMBOL_GPL(hmm_range_map_next);

/**
 * hmm_range_dma_unmap - take pages away from the device
 * @map: the mapping
 * @start: user address; what to unmap, and on return what was unmapped
 * @end: user address; the same, exclusive
 *
 * For the invalidate callback, after mmu_interval_set_seq(), and for the driver
 * itself. Any part of the range, mapped or not. What was physically contiguous
 * when it was mapped, at most 512 pages, is unlinked as one, so it may unmap
 * more than asked, never less; the driver invalidates its device page table for
 * all of it. When it returns the IOTLB is flushed, in lazy mode too. Without an
 * IOMMU (see gup_range_map_protected()) it is the driver that stops the device.
 * Nothing has to be dirtied: see %HMM_PFN_WRITE.
 *
 * Context: with the lock held that was given at init. Does not allocate and
 * cannot fail.
 */
void hmm_range_dma_unmap(struct gup_range_map *map, unsigned long *start,
			 unsigned long *end)
{
	unsigned long va, unused;
	u64 run;

	*start = max(*start & PAGE_MASK, map->start);
	*end = *end > map->end ? map->end : PAGE_ALIGN(*end);
	if (*start >= *end) {
		/* Outside, or the callback is earlier than init. */
		*end = *start;
		return;
	}
	lockdep_assert_held(map->lock);
	va = *start;
	hmm_unit(map, va, start, &unused, &run);
	va = *end - PAGE_SIZE;
	hmm_unit(map, va, &unused, end, &run);
	hmm_unlink(map, *start, *end);
	trace_hmm_range_invalidate(map, *start, *end);
}
EXPORT_SYMBOL_GPL(hmm_range_dma_unmap);
