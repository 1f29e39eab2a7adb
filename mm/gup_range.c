// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a user address range to device DMA addresses: what pinned and mirrored
 * ranges share, and the pinned side. See Documentation/core-api/gup_range.rst.
 *
 * The only list that a range keeps is its physical runs. Behind a DMA IOMMU a
 * mapping adds none: one IOVA is allocated, congruent with the user address
 * modulo the largest IOMMU page that fits, each run is linked with one
 * call, and one sync ends it. Elsewhere each run goes through dma_map_phys().
 */
#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/dma-map-ops.h>
#include <linux/gup_vecs.h>
#include <linux/iommu-dma.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "gup_range.h"

#define CREATE_TRACE_POINTS
#include <trace/events/gup_range.h>

/* Runs that are pinned or linked in one go: all the scratch there is ... */
#define GUP_RANGE_BATCH		(SZ_4K / sizeof(struct phys_vec))
/* ... and on the stack, where fewer will do. */
#define GUP_RANGE_FEW		8U

/*
 * What is outstanding now, for debugfs. One CPU counts up, another down: only the
 * sum says something.
 */
struct gup_range_counts {
	long	pins;
	long	pinned_pages;
	long	maps;
	long	mapped_pages;
};

static DEFINE_PER_CPU(struct gup_range_counts, gup_range_counts);

static void gup_pin_count(long nr_pins, long nr_pages)
{
	this_cpu_add(gup_range_counts.pins, nr_pins);
	this_cpu_add(gup_range_counts.pinned_pages, nr_pages);
}

void gup_map_count(long nr_maps, long nr_pages)
{
	this_cpu_add(gup_range_counts.maps, nr_maps);
	this_cpu_add(gup_range_counts.mapped_pages, nr_pages);
}

static struct gup_range_block *gup_seq_grow(struct gup_range_seq *seq,
					    unsigned long expect)
{
	/* Few runs are common, also of many pages: begin small. */
	u32 max = min3(expect, max(seq->nr, 4UL), GUP_BLOCK_MAX);
	struct gup_range_block *block;

	/* As many as there is room for in what the allocator will give. */
	max = (kmalloc_size_roundup(struct_size(block, val, max)) -
	       sizeof(*block)) / sizeof(u64);
	block = kmalloc_flex(*block, val, max, GFP_KERNEL_ACCOUNT);
	if (!block)
		return NULL;
	block->next = NULL;
	block->nr = 0;
	block->max = max;
	if (seq->last)
		seq->last->next = block;
	else
		seq->first = block;
	seq->last = block;
	return block;
}

/* Append @val; at most @expect entries, this one included, are still to come. */
int gup_seq_push(struct gup_range_seq *seq, u64 val, unsigned long expect)
{
	struct gup_range_block *block = seq->last;

	if (!seq->nr) {
		seq->one = val;
		seq->nr = 1;
		return 0;
	}
	if (!block) {
		block = gup_seq_grow(seq, max(expect, 1UL) + 1);
		if (!block)
			return -ENOMEM;
		block->val[block->nr++] = seq->one;
	} else if (block->nr == block->max) {
		block = gup_seq_grow(seq, max(expect, 1UL));
		if (!block)
			return -ENOMEM;
	}
	block->val[block->nr++] = val;
	seq->nr++;
	return 0;
}

/* No more entries will come: give back the room for them, if memory allows. */
static void gup_seq_trim(struct gup_range_seq *seq)
{
	struct gup_range_block *last = seq->last, **link = &seq->first, *block;

	if (!last || last->nr > last->max - last->max / 4)
		return;
	block = kmalloc_flex(*block, val, last->nr,
			     GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!block)
		return;
	while (*link != last)
		link = &(*link)->next;
	block->next = NULL;
	block->nr = last->nr;
	block->max = last->nr;
	memcpy(block->val, last->val, last->nr * sizeof(u64));
	*link = block;
	seq->last = block;
	kfree(last);
}

/* The last entry, of a sequence that has one. */
static u64 *gup_seq_last(struct gup_range_seq *seq)
{
	return seq->last ? &seq->last->val[seq->last->nr - 1] : &seq->one;
}

void gup_seq_free(struct gup_range_seq *seq)
{
	struct gup_range_block *block, *next;

	for (block = seq->first; block; block = next) {
		next = block->next;
		kfree(block);
	}
	*seq = (struct gup_range_seq){};
}

size_t gup_seq_bytes(const struct gup_range_seq *seq)
{
	const struct gup_range_block *block;
	size_t bytes = 0;

	for (block = seq->first; block; block = block->next)
		bytes += struct_size(block, val, block->max);
	return bytes;
}

/* The entry under the cursor, which moves on; false at the end. */
static bool gup_seq_next(const struct gup_range_seq *seq,
			 const struct gup_range_block **block,
			 unsigned int *idx, u64 *val)
{
	if (!*block && !*idx) {
		*block = seq->first;
		if (!*block) {
			*idx = 1;
			*val = seq->one;
			return seq->nr;
		}
	} else if (*block && *idx == (*block)->nr && (*block)->next) {
		*block = (*block)->next;
		*idx = 0;
	}
	if (!*block || *idx == (*block)->nr)
		return false;
	*val = (*block)->val[(*idx)++];
	return true;
}

/* Does a page at @pfn continue the last run? */
static bool gup_runs_continue(struct gup_range_seq *runs, unsigned long pfn)
{
	u64 last = *gup_seq_last(runs);

	return runs->nr && pfn % GUP_RUN_MAX_PAGES &&
	       gup_run_pfn(last) + gup_run_pages(last) == pfn;
}

/*
 * Append @nr pages, to the last run where they continue it. They do not cross a
 * multiple of GUP_RUN_MAX_PAGES.
 */
int gup_runs_add(struct gup_range_seq *runs, unsigned long pfn,
		 unsigned long nr, unsigned long expect)
{
	if (!gup_runs_continue(runs, pfn))
		return gup_seq_push(runs, gup_run(pfn, nr), expect);
	*gup_seq_last(runs) += gup_run(0, nr);
	return 0;
}

/* A cursor that copies runs to vectors, and what they add up to. */
struct gup_runs_iter {
	const struct gup_range_block	*block;
	unsigned int			idx;
	size_t				len;
};

static unsigned int gup_runs_vecs(const struct gup_range_seq *runs,
				  struct gup_runs_iter *iter,
				  struct phys_vec *vecs, unsigned int max)
{
	unsigned int nr;
	u64 run;

	iter->len = 0;
	for (nr = 0; nr < max; nr++) {
		if (!gup_seq_next(runs, &iter->block, &iter->idx, &run))
			break;
		vecs[nr].paddr = PFN_PHYS(gup_run_pfn(run));
		vecs[nr].len = gup_run_pages(run) << PAGE_SHIFT;
		iter->len += vecs[nr].len;
	}
	return nr;
}

/**
 * gup_range_run_next - step a cursor to the next physical run
 * @range: a pinned range
 * @run: the cursor; zeroed before the first call
 *
 * The first and the last run are trimmed to the bytes of the range.
 *
 * Context: any; the range stays pinned meanwhile.
 * Return: true when @run was filled, false after the last run.
 */
bool gup_range_run_next(const struct gup_range *range,
			struct gup_range_run *run)
{
	size_t total = range->end - range->start;
	u64 val;

	run->offset += run->len;
	if (!gup_seq_next(&range->runs, &run->block, &run->idx, &val))
		return false;
	run->phys = PFN_PHYS(gup_run_pfn(val));
	run->len = gup_run_pages(val) << PAGE_SHIFT;
	if (!run->offset) {
		run->phys += offset_in_page(range->start);
		run->len -= offset_in_page(range->start);
	}
	run->len = min(run->len, total - run->offset);
	return true;
}
EXPORT_SYMBOL_GPL(gup_range_run_next);

static int gup_range_charge_user(struct gup_range *range, unsigned long nr)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct user_struct *user = get_uid(current_user());
	long old = atomic_long_read(&user->locked_vm);

	do {
		if (old + nr > limit && !capable(CAP_IPC_LOCK)) {
			free_uid(user);
			return -ENOMEM;
		}
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &old, old + nr));
	range->user = user;
	return 0;
}

static int gup_range_charge_pinned(struct gup_range *range, unsigned long nr)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	if (atomic64_add_return(nr, &range->mm->pinned_vm) > limit &&
	    !capable(CAP_IPC_LOCK)) {
		atomic64_sub(nr, &range->mm->pinned_vm);
		return -ENOMEM;
	}
	return 0;
}

/* Takes the reference on the mm that gup_range_uncharge() drops. */
static int gup_range_charge(struct gup_range *range)
{
	unsigned long nr = gup_range_nr_pages(range);
	int ret = 0;

	switch (range->acct) {
	case GUP_RANGE_ACCT_NONE:
		break;
	case GUP_RANGE_ACCT_PINNED_VM:
		ret = gup_range_charge_pinned(range, nr);
		break;
	case GUP_RANGE_ACCT_LOCKED_VM:
		ret = account_locked_vm(range->mm, nr, true);
		break;
	case GUP_RANGE_ACCT_USER:
		ret = gup_range_charge_user(range, nr);
		break;
	}
	if (!ret)
		mmgrab(range->mm);
	return ret;
}

static void gup_range_uncharge(struct gup_range *range)
{
	unsigned long nr = gup_range_nr_pages(range);

	switch (range->acct) {
	case GUP_RANGE_ACCT_NONE:
		break;
	case GUP_RANGE_ACCT_PINNED_VM:
		atomic64_sub(nr, &range->mm->pinned_vm);
		break;
	case GUP_RANGE_ACCT_LOCKED_VM:
		account_locked_vm(range->mm, nr, false);
		break;
	case GUP_RANGE_ACCT_USER:
		atomic_long_sub(nr, &range->user->locked_vm);
		free_uid(range->user);
		range->user = NULL;
		break;
	}
	mmdrop(range->mm);
}

static int gup_range_check(const struct gup_range *range)
{
	if (!range->mm || range->start >= range->end ||
	    range->flags & ~GUP_RANGE_WRITE ||
	    range->acct > GUP_RANGE_ACCT_USER)
		return -EINVAL;
	/* The end of the last page is not an address. */
	if (range->end > PAGE_MASK)
		return -EOVERFLOW;
	return 0;
}

/*
 * No IOMMU, and a constant distance of the addresses. Where map->linear, one call
 * tells it for all, and nothing has to be unmapped, as in block/blk-mq-dma.c:
 * gup_dev_linear(). That a bounce buffer changes this later is ruled out by
 * DMA_ATTR_REQUIRE_COHERENT and by what hmm_range_map_init() refuses. On failure
 * nothing of this call stays.
 */
static int gup_map_link_phys(struct gup_range_map *map,
			     const struct phys_vec *vec, unsigned int nr,
			     enum dma_data_direction dir)
{
	unsigned int i, calls = map->linear ? 1 : nr;
	bool first = !map->stats.links;
	phys_addr_t last = 0;
	int ret = 0;

	for (i = 0; map->dev && i < calls; i++) {
		dma_addr_t addr = dma_map_phys(map->dev, vec[i].paddr,
					       vec[i].len, dir, map->attrs);

		if (dma_mapping_error(map->dev, addr)) {
			ret = -EIO;
			break;
		}
		if (first && !i)
			map->dma_offset = addr - vec[i].paddr;
		if (addr - vec[i].paddr != map->dma_offset) {
			dma_unmap_phys(map->dev, addr, vec[i].len, dir,
				       map->attrs);
			ret = -EOPNOTSUPP;
			break;
		}
	}
	/* Those of a linear mapping that no call was made for. */
	for (; !ret && map->dev && i < nr; i++)
		last = max(last, vec[i].paddr + (vec[i].len - 1));
	if (last && !gup_map_reaches(map, last, 1))
		ret = -EIO;
	if (!ret) {
		map->stats.links += nr;
		return 0;
	}
	while (!map->linear && i--)
		dma_unmap_phys(map->dev, vec[i].paddr + map->dma_offset,
			       vec[i].len, dir, map->attrs);
	return ret;
}

/* Link whole pages, without a sync; after a failure none of them is. */
int gup_map_link(struct gup_range_map *map, size_t offset,
		 const struct phys_vec *vecs, unsigned int nr,
		 enum dma_data_direction dir, gfp_t gfp,
		 struct iommu_pages_list *tables)
{
	if (!dma_use_iova(&map->state))
		return gup_map_link_phys(map, vecs, nr, dir);
	map->stats.links += nr;
	map->stats.walks++;
	if (tables && list_empty(&tables->pages))
		tables = NULL;
	return dma_iova_link_vecs(map->dev, &map->state, map->slack + offset,
				  vecs, nr, dir, map->attrs, gfp, tables);
}

int gup_map_sync(struct gup_range_map *map, size_t offset, size_t len)
{
	if (!dma_use_iova(&map->state))
		return 0;
	map->stats.syncs++;
	return dma_iova_sync(map->dev, &map->state, map->slack + offset, len);
}

static void gup_map_unlink(struct gup_range_map *map, size_t offset, size_t len,
			   enum dma_data_direction dir, unsigned long attrs)
{
	map->stats.flushes++;
	dma_iova_unlink(map->dev, &map->state, map->slack + offset, len, dir,
			map->attrs | attrs);
}

static int gup_range_pin_batch(struct gup_range *range, unsigned long addr,
			       unsigned long nr_pages, struct phys_vec *vecs,
			       unsigned int *nr)
{
	unsigned int gup_flags = FOLL_LONGTERM;
	int ret;

	if (range->flags & GUP_RANGE_WRITE)
		gup_flags |= FOLL_WRITE;
	if (range->mm == current->mm)
		return pin_user_vecs(range->mm, addr, nr_pages, gup_flags, vecs,
				     nr);

	if (!mmget_not_zero(range->mm)) {
		*nr = 0;
		return -ESRCH;
	}
	ret = pin_user_vecs(range->mm, addr, nr_pages, gup_flags, vecs, nr);
	mmput(range->mm);
	return ret;
}

/* Append a vector in runs that do not cross a multiple of GUP_RUN_MAX_PAGES. */
static int gup_range_add_vec(struct gup_range *range, struct phys_vec vec,
			     unsigned long expect)
{
	unsigned long pfn, nr;
	int ret;

	while (vec.len) {
		pfn = PHYS_PFN(vec.paddr);
		nr = min(vec.len >> PAGE_SHIFT,
			 GUP_RUN_MAX_PAGES - pfn % GUP_RUN_MAX_PAGES);
		ret = gup_runs_add(&range->runs, pfn, nr, expect);
		if (ret) {
			unpin_user_vecs(&vec, 1, false);
			return ret;
		}
		vec.paddr += nr << PAGE_SHIFT;
		vec.len -= nr << PAGE_SHIFT;
	}
	return 0;
}

/*
 * A run has one pin on each folio: where the first vector of a batch goes on in
 * the folio that the batch before ended with, one is too many.
 */
static void gup_range_unpin_common(struct gup_range *range,
				   const struct phys_vec *vec)
{
	struct page *page = phys_to_page(vec->paddr);
	struct folio *folio = page_folio(page);

	if (folio_page_idx(folio, page) &&
	    gup_runs_continue(&range->runs, PHYS_PFN(vec->paddr)))
		unpin_folio(folio);
}

static bool gup_runs_have_room(const struct phys_vec *vecs, unsigned int nr)
{
	while (nr--) {
		if (!gup_run_has_room(PHYS_PFN(vecs[nr].paddr + vecs[nr].len - 1)))
			return false;
	}
	return true;
}

/* Take over pinned vectors, or unpin them. Returns the pages that they have. */
static long gup_range_add_vecs(struct gup_range *range, struct phys_vec *vecs,
			       unsigned int nr, unsigned long expect)
{
	struct gup_range_seq *runs = &range->runs;
	unsigned long total = 0;
	unsigned int i;
	int ret;

	if (!gup_runs_have_room(vecs, nr)) {
		unpin_user_vecs(vecs, nr, false);
		return -EOPNOTSUPP;
	}
	if (nr)
		gup_range_unpin_common(range, vecs);
	for (i = 0; i < nr; i++) {
		unsigned long pfn = PHYS_PFN(vecs[i].paddr);
		unsigned long pages = vecs[i].len >> PAGE_SHIFT;

		/* But for the first none continues a run: GUP has seen to it. */
		if (likely(i && runs->last && runs->last->nr < runs->last->max &&
			   pfn % GUP_RUN_MAX_PAGES + pages <= GUP_RUN_MAX_PAGES)) {
			runs->last->val[runs->last->nr++] = gup_run(pfn, pages);
			runs->nr++;
		} else {
			ret = gup_range_add_vec(range, vecs[i], expect - total);
			if (ret) {
				unpin_user_vecs(vecs + i + 1, nr - i - 1, false);
				return ret;
			}
		}
		total += pages;
	}
	return total;
}

static struct phys_vec *gup_scratch_get(struct phys_vec *few, unsigned int nr)
{
	return nr <= GUP_RANGE_FEW ? few : kmalloc_objs(*few, nr);
}

static void gup_scratch_put(struct phys_vec *few, struct phys_vec *vecs)
{
	if (vecs != few)
		kfree(vecs);
}

/* With @map, link each batch as it comes; @linked counts the bytes. */
static int gup_range_pin_batches(struct gup_range *range,
				 struct gup_range_map *map, size_t *linked,
				 struct phys_vec *vecs, unsigned int batch)
{
	unsigned long addr = gup_range_first(range);
	unsigned long left = gup_range_nr_pages(range);
	unsigned int nr;
	int ret = 0, err;
	long pages;

	while (left && !ret) {
		if (fatal_signal_pending(current))
			return -EINTR;
		nr = batch;
		ret = gup_range_pin_batch(range, addr, left, vecs, &nr);
		pages = gup_range_add_vecs(range, vecs, nr, left);
		if (pages < 0)
			return pages;
		if (map && nr) {
			err = gup_map_link(map, *linked, vecs, nr,
					   gup_range_dir(range),
					   GFP_KERNEL_ACCOUNT, NULL);
			if (err)
				return err;
			*linked += pages << PAGE_SHIFT;
		}
		addr += pages << PAGE_SHIFT;
		left -= pages;
		cond_resched();
	}
	return ret;
}

static int gup_range_pin_pages(struct gup_range *range,
			       struct gup_range_map *map, size_t *linked)
{
	unsigned int batch = min(gup_range_nr_pages(range), GUP_RANGE_BATCH);
	struct phys_vec few[GUP_RANGE_FEW] __uninitialized, *vecs;
	int ret;

	vecs = gup_scratch_get(few, batch);
	if (!vecs)
		return -ENOMEM;
	ret = gup_range_pin_batches(range, map, linked, vecs, batch);
	gup_scratch_put(few, vecs);
	return ret;
}

static void gup_range_unpin_pages(struct gup_range *range, bool dirty)
{
	struct phys_vec vecs[GUP_RANGE_FEW * 2] __uninitialized;
	struct gup_runs_iter iter = {};
	unsigned int nr;

	while ((nr = gup_runs_vecs(&range->runs, &iter, vecs, ARRAY_SIZE(vecs)))) {
		unpin_user_vecs(vecs, nr, dirty);
		cond_resched();
	}
	gup_seq_free(&range->runs);
}

/*
 * Charge and pin. With @map, which has an IOVA, link as well. After a failure
 * nothing is held, and nothing linked.
 */
static int gup_range_take(struct gup_range *range, struct gup_range_map *map)
{
	size_t linked = 0;
	int ret;

	ret = gup_range_charge(range);
	if (ret)
		return ret;
	ret = gup_range_pin_pages(range, map, &linked);
	if (!ret && map)
		ret = gup_map_sync(map, 0, linked);
	trace_gup_range_pin(range, ret);
	if (!ret) {
		gup_seq_trim(&range->runs);
		gup_pin_count(1, gup_range_nr_pages(range));
		return 0;
	}
	/* The device had no address yet: the CPU's view is the right one. */
	if (linked)
		gup_map_unlink(map, 0, linked, gup_range_dir(range),
			       DMA_ATTR_SKIP_CPU_SYNC);
	gup_range_unpin_pages(range, false);
	gup_range_uncharge(range);
	return ret;
}

/**
 * gup_range_pin - pin the pages of a user range, without mapping them
 * @range: the range, see &struct gup_range
 *
 * Pins with FOLL_LONGTERM (Documentation/core-api/pin_user_pages.rst, case 2)
 * in batches of bounded size and keeps the physical runs, 8 bytes each. Drivers
 * that only map call gup_range_dma_map() alone; this is for those that need
 * physical addresses, or several mappings of one pin.
 *
 * Context: process context, may sleep. Takes mmap_lock of @range->mm: for
 * reading, and with %GUP_RANGE_ACCT_LOCKED_VM for writing.
 *
 * On success the range holds its pages, its charge and a reference on the mm
 * struct until gup_range_unpin(), which any process may call. After a failure
 * it holds nothing.
 *
 * Return: 0 or
 * * -EINVAL - empty range, no mm, unknown flag or accounting mode
 * * -EOVERFLOW - the range reaches into the last page of the address space
 * * -EBUSY - the range is pinned already
 * * -ENOMEM - RLIMIT_MEMLOCK or memory
 * * -EINTR - a fatal signal
 * * -ESRCH - @range->mm is not the caller's and has exited
 * * -EFAULT, -EHWPOISON, -EOPNOTSUPP (fs-dax), -EREMOTEIO (P2PDMA) and others -
 *   what GUP said of the first page that could not be pinned
 * * -EOPNOTSUPP - a page frame number of more than 40 bits
 */
int gup_range_pin(struct gup_range *range)
{
	int ret;

	ret = gup_range_check(range);
	if (ret)
		return ret;
	if (range->runs.nr)
		return -EBUSY;

	return gup_range_take(range, NULL);
}
EXPORT_SYMBOL_GPL(gup_range_pin);

static void gup_range_release(struct gup_range *range, bool dirty)
{
	trace_gup_range_unpin(range, 0);
	gup_pin_count(-1, -gup_range_nr_pages(range));
	gup_range_unpin_pages(range, dirty);
	gup_range_uncharge(range);
	range->auto_pin = false;
}

/**
 * gup_range_unpin - undo gup_range_pin()
 * @range: a pinned range without mappings
 *
 * Dirties each folio of a %GUP_RANGE_WRITE range. Called twice, or while a
 * mapping exists, it warns and does nothing.
 *
 * Context: process context, may sleep (folio lock). Does not allocate and
 * cannot fail. Takes mmap_lock for writing with %GUP_RANGE_ACCT_LOCKED_VM.
 */
void gup_range_unpin(struct gup_range *range)
{
	if (WARN_ON_ONCE(!range->runs.nr || range->nr_maps))
		return;

	gup_range_release(range, range->flags & GUP_RANGE_WRITE);
}
EXPORT_SYMBOL_GPL(gup_range_unpin);

int gup_map_init(struct gup_range_map *map, struct device *dev, size_t granule)
{
	memset(map, 0, sizeof(*map));
	if (!is_power_of_2(granule))
		return -EINVAL;
	map->dev = dev;
	map->granule = granule;
	return 0;
}

/**
 * gup_range_map_init - prepare a mapping of pinned ranges for a device
 * @map: the mapping
 * @dev: the device that does the DMA; it outlives @map
 * @granule: bytes; the page size of the device, a power of two. Addresses are
 *	contiguous in units of it: PAGE_SIZE or less is always possible
 *
 * Takes nothing that would have to be given back. A mapping can be used again
 * after gup_range_dma_unmap().
 *
 * Context: any.
 * Return: 0, or -EINVAL: no device, no DMA mask, or not a power of two. Then @map
 * is not to be used.
 */
int gup_range_map_init(struct gup_range_map *map, struct device *dev,
		       size_t granule)
{
	if (!dev || !dev->dma_mask)
		return -EINVAL;
	return gup_map_init(map, dev, granule);
}
EXPORT_SYMBOL_GPL(gup_range_map_init);

/* One IOVA for [start, start + len), which begins map->slack bytes into it. */
int gup_map_alloc_iova(struct gup_range_map *map, unsigned long start,
		       size_t len)
{
	bool iommu = use_dma_iommu(map->dev);

	/* Its pages would hold others besides ours. */
	if (iommu && dma_get_merge_boundary(map->dev) >= PAGE_SIZE)
		return -EOPNOTSUPP;
	/* struct dma_iova_state keeps a flag in the top bit of the size. */
	if ((ssize_t)len < 0)
		return -EOVERFLOW;
	/*
	 * If there is none, dma_map_phys() would still find single IOVAs, but
	 * unmaps them lazily: the device could reach a page that is not pinned
	 * any more.
	 */
	if (!dma_iova_try_alloc_congruent(map->dev, &map->state, start, len,
					  map->granule, &map->slack) && iommu)
		return -ENOMEM;
	return 0;
}

/* Link all runs; @done comes back as the bytes that are. */
static int gup_map_link_runs(struct gup_range *range, struct gup_range_map *map,
			     struct phys_vec *vecs, unsigned int batch,
			     size_t *done)
{
	enum dma_data_direction dir = gup_range_dir(range);
	struct gup_runs_iter iter = {};
	unsigned int nr;
	int ret;

	while ((nr = gup_runs_vecs(&range->runs, &iter, vecs, batch))) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = gup_map_link(map, *done, vecs, nr, dir,
				   GFP_KERNEL_ACCOUNT, NULL);
		if (ret)
			return ret;
		*done += iter.len;
		cond_resched();
	}
	return 0;
}

/* Of a range that is pinned already. */
static int gup_map_iova(struct gup_range *range, struct gup_range_map *map)
{
	unsigned int batch = min(range->runs.nr, GUP_RANGE_BATCH);
	struct phys_vec few[GUP_RANGE_FEW] __uninitialized, *vecs;
	size_t done = 0;
	int ret = -ENOMEM;

	vecs = gup_scratch_get(few, batch);
	if (vecs) {
		ret = gup_map_link_runs(range, map, vecs, batch, &done);
		gup_scratch_put(few, vecs);
	}
	if (!ret)
		ret = gup_map_sync(map, 0, done);
	if (ret && done)
		gup_map_unlink(map, 0, done, gup_range_dir(range),
			       DMA_ATTR_SKIP_CPU_SYNC);
	return ret;
}

/* Undo the first @nr pieces of gup_map_phys(). */
static void gup_unmap_phys(struct gup_range *range, struct gup_range_map *map,
			   unsigned long nr, unsigned long attrs)
{
	enum dma_data_direction dir = gup_range_dir(range);
	struct gup_range_seg seg;

	if (map->dma.nr) {
		gup_range_map_for_each_seg(map, &seg, SIZE_MAX) {
			if (!nr--)
				break;
			dma_unmap_phys(map->dev, seg.addr, seg.len, dir,
				       map->attrs | attrs);
		}
	}
	gup_seq_free(&map->dma);
}

/*
 * Every page of the device lies inside one segment, at the same offset. Only the
 * outer ends of the range may be off.
 */
static bool gup_map_meets_granule(const struct gup_range_map *map)
{
	size_t total = map->range->end - map->range->start;
	struct gup_range_seg seg;

	if (map->granule <= PAGE_SIZE)
		return true;
	gup_range_map_for_each_seg(map, &seg, SIZE_MAX) {
		unsigned long va = map->range->start + seg.offset;

		if ((va ^ seg.addr) & (map->granule - 1))
			return false;
		if (seg.offset + seg.len < total &&
		    (va + seg.len) & (map->granule - 1))
			return false;
	}
	return true;
}

/* -EAGAIN: the addresses have to be stored, start again with @store. */
static int gup_map_one(struct gup_range *range, struct gup_range_map *map,
		       phys_addr_t phys, size_t len, bool store,
		       unsigned long *nr)
{
	enum dma_data_direction dir = gup_range_dir(range);
	dma_addr_t addr;
	int ret = 0;

	addr = dma_map_phys(map->dev, phys, len, dir, map->attrs);
	if (dma_mapping_error(map->dev, addr))
		return -EIO;
	if (!*nr)
		map->dma_offset = addr - phys;
	if (store)
		ret = gup_seq_push(&map->dma, addr,
				   range->runs.nr > *nr ? range->runs.nr - *nr : 1);
	else if (addr - phys != map->dma_offset || dma_need_unmap(map->dev))
		ret = -EAGAIN;
	if (ret)
		dma_unmap_phys(map->dev, addr, len, dir,
			       map->attrs | DMA_ATTR_SKIP_CPU_SYNC);
	else
		++*nr;
	return ret;
}

/* The last byte of the run that is highest in memory. */
static phys_addr_t gup_runs_last(const struct gup_range_seq *runs)
{
	const struct gup_range_block *block = NULL;
	unsigned long end = 0;
	unsigned int idx = 0;
	u64 run;

	while (gup_seq_next(runs, &block, &idx, &run))
		end = max(end, gup_run_pfn(run) + gup_run_pages(run));
	return PFN_PHYS(end) - 1;
}

/*
 * Do all pages have their DMA address at one distance from the physical one, so
 * that a single dma_map_phys() tells the address of all of them? It says itself
 * that there is nothing to unmap (see dma_need_unmap()), and what is in reach
 * (see gup_map_reaches()) does not bounce.
 */
bool gup_dev_linear(struct device *dev)
{
	return !dma_need_unmap(dev) && !dev->dma_range_map &&
	       !IS_ENABLED(CONFIG_ARCH_HAS_PHYS_TO_DMA) &&
	       !dma_addressing_limited(dev);
}

/*
 * No IOVA. Bytes outside the range are left out: a bounce buffer would write
 * their old contents back. Where dma_need_unmap() says no, addresses follow
 * from the physical ones and are not stored; a first bounce changes its mind,
 * also in the middle of this range.
 */
static int gup_map_phys(struct gup_range *range, struct gup_range_map *map)
{
	bool linear = range->runs.nr > 1 && gup_dev_linear(map->dev);
	bool store = dma_need_unmap(map->dev);
	struct gup_range_run run;
	unsigned long nr;
	size_t off, len;
	int ret;

	map->piece = dma_max_mapping_size(map->dev);
again:
	nr = 0;
	gup_range_for_each_run(range, &run) {
		ret = -EINTR;
		if (fatal_signal_pending(current))
			goto undo;
		for (off = 0; off < run.len; off += len) {
			len = min(run.len - off, map->piece);
			ret = gup_map_one(range, map, run.phys + off, len,
					  store, &nr);
			if (ret)
				goto undo;
		}
		if (linear) {
			ret = -EAGAIN;
			if (!gup_map_reaches(map, gup_runs_last(&range->runs), 1))
				goto undo;
			break;
		}
		cond_resched();
	}
	ret = gup_map_meets_granule(map) ? 0 : -ERANGE;
	if (!ret) {
		map->stats.links += linear ? range->runs.nr : nr;
		return 0;
	}
undo:
	gup_unmap_phys(range, map, nr, DMA_ATTR_SKIP_CPU_SYNC);
	if (ret != -EAGAIN)
		return ret;
	store = true;
	linear = false;
	goto again;
}

/*
 * The IOVA first, so that each batch of pages is linked when it was pinned, whole
 * pages: an IOMMU knows nothing smaller. Without one, the rules depend on all of
 * the runs: gup_map_phys().
 */
static int gup_map_pinned(struct gup_range *range, struct gup_range_map *map)
{
	unsigned long nr = gup_range_nr_pages(range);
	bool iova, pin = !range->runs.nr;
	int ret;

	ret = gup_map_alloc_iova(map, gup_range_first(range), nr << PAGE_SHIFT);
	if (ret)
		return ret;
	map->range = range;
	iova = dma_use_iova(&map->state);
	if (pin)
		ret = gup_range_take(range, iova ? map : NULL);
	if (!ret && !iova)
		ret = gup_map_phys(range, map);
	else if (!ret && !pin)
		ret = gup_map_iova(range, map);
	trace_gup_range_map(range, map, ret);
	if (!ret) {
		range->auto_pin |= pin;
		range->nr_maps++;
		gup_map_count(1, nr);
		return 0;
	}
	if (iova)
		dma_iova_free(map->dev, &map->state);
	map->state = (struct dma_iova_state){};
	map->range = NULL;
	/* No device wrote to it. */
	if (pin && range->runs.nr)
		gup_range_release(range, false);
	return ret;
}

/**
 * gup_range_dma_map - map a user range for DMA
 * @range: the range, see &struct gup_range
 * @map: from gup_range_map_init(), not in use
 *
 * Pins @range first unless gup_range_pin() did. Behind a DMA IOMMU the mapping
 * is one segment; otherwise it is one per run, or several where bounce buffers
 * limit their length (then use gup_range_map_sync_for_cpu() and _for_device()).
 * Without %GUP_RANGE_WRITE the device gets DMA_TO_DEVICE. Behind an IOMMU access
 * has the granularity of pages: the device reaches the rest of the first and of
 * the last page as well, also an untrusted device.
 *
 * Context: as gup_range_pin().
 *
 * @range and @map stay where they are until gup_range_dma_unmap(). After a
 * failure nothing is mapped, and nothing pinned that was not before.
 *
 * Return: 0, what gup_range_pin() returns (but for -EBUSY), or
 * * -EINVAL - @map is not initialised, or its granule is larger than a page and
 *   than the range
 * * -EBUSY - @map is in use
 * * -EOVERFLOW - half of the address space
 * * -ERANGE - no IOMMU, and the addresses do not meet the granule
 * * -EOPNOTSUPP - the pages of the IOMMU are larger than those of the CPU; or
 *   %DMA_ATTR_REQUIRE_COHERENT, which the device is not
 * * -ENOMEM - no IOVA space for all of the range, also if there is no memory
 *   at its addresses; no memory for IOMMU page tables or for addresses
 * * -EIO - dma_map_phys() refused: out of reach, or no bounce buffer was free
 * * others - what the IOMMU driver said
 */
int gup_range_dma_map(struct gup_range *range, struct gup_range_map *map)
{
	int ret;

	if (!map->dev)
		return -EINVAL;
	if (map->range)
		return -EBUSY;
	ret = gup_range_check(range);
	if (ret)
		return ret;
	if (map->granule > PAGE_SIZE &&
	    map->granule > range->end - range->start)
		return -EINVAL;
	if (map->attrs & DMA_ATTR_REQUIRE_COHERENT &&
	    !dev_is_dma_coherent(map->dev))
		return -EOPNOTSUPP;

	return gup_map_pinned(range, map);
}
EXPORT_SYMBOL_GPL(gup_range_dma_map);

/**
 * gup_range_dma_unmap - undo gup_range_dma_map()
 * @range: the range
 * @map: its mapping
 *
 * Unmaps, flushes the IOTLB (in lazy mode too) and then, with the last mapping
 * of a range that gup_range_dma_map() pinned, unpins as gup_range_unpin() does.
 * Called twice it warns and does nothing.
 *
 * Context: as gup_range_unpin(). Cannot fail.
 */
void gup_range_dma_unmap(struct gup_range *range, struct gup_range_map *map)
{
	unsigned long nr;

	if (WARN_ON_ONCE(!map->range || map->range != range))
		return;
	nr = gup_range_nr_pages(range);
	if (dma_use_iova(&map->state)) {
		gup_map_unlink(map, 0, nr << PAGE_SHIFT, gup_range_dir(range),
			       0);
		dma_iova_free(map->dev, &map->state);
	} else {
		gup_unmap_phys(range, map, ULONG_MAX, 0);
	}
	trace_gup_range_unmap(range, map, 0);
	map->state = (struct dma_iova_state){};
	map->range = NULL;
	gup_map_count(-1, -nr);
	if (!--range->nr_maps && range->auto_pin)
		gup_range_unpin(range);
}
EXPORT_SYMBOL_GPL(gup_range_dma_unmap);

/**
 * gup_range_map_addr - DMA address of one byte
 * @map: a mapped mapping
 * @va: user address inside its range
 * @addr: where to store the DMA address
 * @len: where to store how many bytes from there are contiguous for the device
 *
 * Takes constant time behind an IOMMU, otherwise time in the number of runs before
 * @va. For mirrored ranges there is hmm_range_map_addr().
 *
 * Context: any; the range stays mapped meanwhile.
 * Return: 0, or -EINVAL when @va is outside of the range or @map is not mapped.
 */
int gup_range_map_addr(const struct gup_range_map *map, unsigned long va,
		       dma_addr_t *addr, size_t *len)
{
	struct gup_range_seg seg;
	size_t off;

	if (!map->range || va < map->range->start || va >= map->range->end)
		return -EINVAL;
	off = va - map->range->start;
	gup_range_map_for_each_seg(map, &seg, SIZE_MAX) {
		if (off < seg.offset + seg.len) {
			*addr = seg.addr + (off - seg.offset);
			*len = seg.offset + seg.len - off;
			return 0;
		}
	}
	return -EINVAL;
}
EXPORT_SYMBOL_GPL(gup_range_map_addr);

/* One piece of gup_map_phys(): the address and how much it is good for. */
static bool gup_map_piece_next(const struct gup_range_map *map,
			       struct gup_range_seg *seg)
{
	struct gup_range_run *run = &seg->run;
	u64 addr;

	if (seg->done == run->len) {
		if (!gup_range_run_next(map->range, run))
			return false;
		seg->done = 0;
	}
	if (!map->dma.nr)
		addr = run->phys + seg->done + map->dma_offset;
	else if (!gup_seq_next(&map->dma, &seg->block, &seg->idx, &addr))
		return false;
	seg->addr = addr;
	seg->left = min(run->len - seg->done, map->piece);
	seg->done += seg->left;
	return true;
}

/**
 * gup_range_map_seg_next - step a cursor to the next DMA segment
 * @map: a mapped mapping of a pinned range
 * @seg: the cursor; zeroed before the first call
 * @max_segment: most bytes of a segment, not 0
 *
 * Context: any; the range stays mapped meanwhile.
 * Return: true when @seg was filled, false after the last segment.
 */
bool gup_range_map_seg_next(const struct gup_range_map *map,
			    struct gup_range_seg *seg, size_t max_segment)
{
	const struct gup_range *range = map->range;
	dma_addr_t next = seg->addr + seg->len;

	seg->offset += seg->len;
	if (seg->offset == range->end - range->start)
		return false;
	if (map->state.addr) {
		if (!seg->offset)
			next = map->state.addr + map->slack +
			       offset_in_page(range->start);
		seg->left = range->end - range->start - seg->offset;
	} else if (!seg->left) {
		if (!gup_map_piece_next(map, seg))
			return false;
		next = seg->addr;
	}
	seg->addr = next;
	seg->len = min(seg->left, max_segment);
	seg->left -= seg->len;
	return true;
}
EXPORT_SYMBOL_GPL(gup_range_map_seg_next);

/**
 * gup_range_map_pgsz - largest page size that a device can use for a mapping
 * @map: a mapped mapping of a pinned range
 * @pgsz_bitmap: page sizes that the device has; bit n is 1 << n bytes
 *
 * The size fits when each of its pages that holds a byte of the range is
 * contiguous for the device, and user and DMA address are equal modulo it. None
 * larger is returned than the smallest that holds the whole range.
 *
 * Context: any; takes time in the number of segments.
 * Return: bytes, or 0 when none of the sizes fits.
 */
size_t gup_range_map_pgsz(const struct gup_range_map *map,
			  unsigned long pgsz_bitmap)
{
	size_t total = map->range->end - map->range->start;
	unsigned long start = map->range->start, larger;
	struct gup_range_seg seg;
	u64 mask = 0;

	larger = pgsz_bitmap &
		 ~(BIT_ULL(bits_per(start ^ (map->range->end - 1))) - 1);
	if (larger)
		pgsz_bitmap &= GENMASK(__ffs(larger), 0);

	gup_range_map_for_each_seg(map, &seg, SIZE_MAX) {
		mask |= (map->range->start + seg.offset) ^ seg.addr;
		if (seg.offset + seg.len < total)
			mask |= seg.addr + seg.len;
	}
	if (mask)
		pgsz_bitmap &= GENMASK_ULL(__ffs64(mask), 0);
	return pgsz_bitmap ? 1UL << __fls(pgsz_bitmap) : 0;
}
EXPORT_SYMBOL_GPL(gup_range_map_pgsz);

static void gup_map_sync_all(const struct gup_range_map *map,
			     void (*sync)(struct device *dev, dma_addr_t addr,
					  size_t size,
					  enum dma_data_direction dir))
{
	enum dma_data_direction dir = gup_range_dir(map->range);
	struct gup_range_run run;
	struct gup_range_seg seg;

	if (!map->state.addr) {
		gup_range_map_for_each_seg(map, &seg, SIZE_MAX)
			sync(map->dev, seg.addr, seg.len, dir);
		return;
	}
	if (dev_is_dma_coherent(map->dev))
		return;
	/* The caches want physically contiguous spans. */
	gup_range_for_each_run(map->range, &run)
		sync(map->dev, map->state.addr + map->slack +
		     offset_in_page(map->range->start) + run.offset, run.len,
		     dir);
}

/**
 * gup_range_map_sync_for_cpu - make what the device wrote visible
 * @map: a mapped mapping of a pinned range
 *
 * For bounce buffers and devices that are not coherent, as
 * dma_sync_single_for_cpu() (Documentation/core-api/dma-api.rst); else free.
 *
 * Context: any; the range stays mapped meanwhile.
 */
void gup_range_map_sync_for_cpu(const struct gup_range_map *map)
{
	gup_map_sync_all(map, dma_sync_single_for_cpu);
}
EXPORT_SYMBOL_GPL(gup_range_map_sync_for_cpu);

/**
 * gup_range_map_sync_for_device - make what the CPU wrote visible to the device
 * @map: a mapped mapping of a pinned range
 *
 * The other direction of gup_range_map_sync_for_cpu().
 *
 * Context: any; the range stays mapped meanwhile.
 */
void gup_range_map_sync_for_device(const struct gup_range_map *map)
{
	gup_map_sync_all(map, dma_sync_single_for_device);
}
EXPORT_SYMBOL_GPL(gup_range_map_sync_for_device);

/**
 * gup_range_map_stats - counters of one mapping
 * @map: an initialised mapping
 *
 * Context: any; the driver serialises against map and unmap.
 * Return: the counters, see &struct gup_range_map_stats.
 */
struct gup_range_map_stats gup_range_map_stats(const struct gup_range_map *map)
{
	struct gup_range_map_stats stats = map->stats;

	if (map->range)
		stats.metadata = gup_seq_bytes(&map->range->runs) +
				 gup_seq_bytes(&map->dma);
	return stats;
}
EXPORT_SYMBOL_GPL(gup_range_map_stats);

static int gup_range_stats_show(struct seq_file *m, void *unused)
{
	struct gup_range_counts sum = {};
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		const struct gup_range_counts *c = per_cpu_ptr(&gup_range_counts,
							       cpu);

		sum.pins += READ_ONCE(c->pins);
		sum.pinned_pages += READ_ONCE(c->pinned_pages);
		sum.maps += READ_ONCE(c->maps);
		sum.mapped_pages += READ_ONCE(c->mapped_pages);
	}
	seq_printf(m, "pins %ld\npinned_bytes %ld\nmaps %ld\nmapped_bytes %ld\n",
		   sum.pins, sum.pinned_pages << PAGE_SHIFT, sum.maps,
		   sum.mapped_pages << PAGE_SHIFT);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(gup_range_stats);

static int __init gup_range_debugfs_init(void)
{
	struct dentry *dir = debugfs_create_dir("gup_range", NULL);

	debugfs_create_file("stats", 0400, dir, NULL, &gup_range_stats_fops);
	return 0;
}
late_initcall(gup_range_debugfs_init);
