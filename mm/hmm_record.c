// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is mapped of a mirrored range: for each page that a PMD covers, which is a
 * block here, three bits. Behind an IOMMU that is all, because addresses are
 * linear there; without one, the page frame numbers come on top.
 *
 * A unit is what one link made, at most a block. Neither an IOMMU leaf nor the
 * record of a virtio-iommu mapping nor a dma_map_phys() can be split, so units are
 * unmapped whole. The pages of a unit are those from a "first" bit to the next
 * one, or to a page that is not mapped.
 *
 * The array has for a block
 *
 *   nothing			no room
 *   XA_ZERO_ENTRY		room for one unit that is all of the block
 *   a value			that unit: its page frame number and write bit
 *   struct hmm_block *		anything, also no page
 *
 * Room is made without the lock of the mapping and may sleep. After that adding,
 * erasing and looking up need no memory. The lock protects all but the array
 * itself, which protects itself.
 */
#include <linux/bitmap.h>
#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "gup_range.h"
#include "hmm_record.h"
#include "hmm_runs.h"

#define HMM_BLOCK_PAGES	((unsigned int)(PMD_SIZE >> PAGE_SHIFT))

struct hmm_block {
	DECLARE_BITMAP(mapped, MAX_PTRS_PER_PTE);
	DECLARE_BITMAP(write, MAX_PTRS_PER_PTE);
	DECLARE_BITMAP(first, MAX_PTRS_PER_PTE);
	unsigned long	*pfn;	/* of each page; behind an IOMMU: NULL */
};

static unsigned long hmm_block_index(const struct hmm_range_map *map,
				     unsigned long va)
{
	return (va >> PMD_SHIFT) - (map->start >> PMD_SHIFT);
}

static unsigned int hmm_block_page(unsigned long va)
{
	return (va & ~PMD_MASK) >> PAGE_SHIFT;
}

/* The page that [va, end) ends at in the block of @va. */
static unsigned int hmm_block_last(unsigned long va, unsigned long end)
{
	return (pmd_addr_end(va, end) - (va & PMD_MASK)) >> PAGE_SHIFT;
}

static bool hmm_entry_is_block(const void *entry)
{
	return entry && !xa_is_value(entry) && !xa_is_zero(entry);
}

static void *hmm_entry_value(unsigned long pfn, bool write)
{
	return xa_mk_value(pfn << 1 | write);
}

static unsigned long hmm_value_pfn(const void *entry)
{
	return xa_to_value(entry) >> 1;
}

static bool hmm_value_write(const void *entry)
{
	return xa_to_value(entry) & 1;
}

/* Is @vec all of a block, and its page frame number small enough for a value? */
static bool hmm_vec_is_block(const struct phys_vec *vec)
{
	return (vec->len & PAGE_MASK) == PMD_SIZE &&
	       vec->paddr != HMM_RUNS_HOLE &&
	       !((u64)PHYS_PFN(vec->paddr) >> (BITS_PER_XA_VALUE - 1));
}

/*
 * What the array has for the block of @va. Nearly always this is the block that
 * the last call found. It can be remembered, because a block is freed only with
 * the lock held.
 */
static void *hmm_entry_load(struct hmm_range_map *map, unsigned long va)
{
	unsigned long idx = hmm_block_index(map, va);
	void *entry;

	if (map->last_block && map->last_index == idx)
		return map->last_block;
	entry = xa_load(&map->blocks, idx);
	if (hmm_entry_is_block(entry)) {
		map->last_block = entry;
		map->last_index = idx;
	}
	return entry;
}

static void hmm_bits_set(unsigned long *bits, unsigned int page,
			 unsigned int last)
{
	if (last - page == 1)
		__set_bit(page, bits);
	else
		bitmap_set(bits, page, last - page);
}

static void hmm_bits_clear(unsigned long *bits, unsigned int page,
			   unsigned int last)
{
	if (last - page == 1)
		__clear_bit(page, bits);
	else
		bitmap_clear(bits, page, last - page);
}

static struct hmm_block *hmm_block_alloc(struct hmm_range_map *map)
{
	struct hmm_block *block = kzalloc_obj(*block, GFP_KERNEL_ACCOUNT);

	if (!block || dma_use_iova(&map->base.state))
		return block;
	block->pfn = kmalloc_objs(*block->pfn, HMM_BLOCK_PAGES,
				  GFP_KERNEL_ACCOUNT);
	if (block->pfn)
		return block;
	kfree(block);
	return NULL;
}

static void hmm_block_free(struct hmm_block *block)
{
	if (block)
		kfree(block->pfn);
	kfree(block);
}

void hmm_record_init(struct hmm_range_map *map)
{
	xa_init_flags(&map->blocks, XA_FLAGS_ACCOUNT);
	map->last_block = NULL;
}

/* Nothing may be mapped any more; gives back the room. */
void hmm_record_destroy(struct hmm_range_map *map)
{
	unsigned long idx;
	void *entry;

	xa_for_each(&map->blocks, idx, entry)
		if (hmm_entry_is_block(entry))
			hmm_block_free(entry);
	xa_destroy(&map->blocks);
	map->last_block = NULL;
}

size_t hmm_record_bytes(struct hmm_range_map *map)
{
	unsigned long idx;
	size_t bytes = 0;
	void *entry;

	xa_for_each(&map->blocks, idx, entry) {
		bytes += sizeof(entry);
		if (hmm_entry_is_block(entry))
			bytes += sizeof(struct hmm_block);
		if (hmm_entry_is_block(entry) && !dma_use_iova(&map->base.state))
			bytes += HMM_BLOCK_PAGES * sizeof(long);
	}
	return bytes;
}

/*
 * Make room for a block. Returns 1 if the room is for more than a huge page,
 * else 0. The room can be freed before the lock is taken: see
 * hmm_record_reserved().
 */
static int hmm_block_reserve(struct hmm_range_map *map, unsigned long va,
			     bool whole)
{
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	struct hmm_block *block = NULL;
	void *entry, *have;

	rcu_read_lock();
	do {
		have = xas_load(&xas);
	} while (xas_retry(&xas, have) && !xa_is_zero(have));
	rcu_read_unlock();
	if (have && (whole || !xa_is_zero(have)))
		return 0;
	if (!whole) {
		block = hmm_block_alloc(map);
		if (!block)
			return -ENOMEM;
	}
	entry = whole ? XA_ZERO_ENTRY : block;
	xas_reset(&xas);
	do {
		xas_lock(&xas);
		have = xas_load(&xas);
		if (!have || (!whole && xa_is_zero(have)))
			xas_store(&xas, entry);
		xas_unlock(&xas);
	} while (xas_nomem(&xas, GFP_KERNEL));
	if (xas_error(&xas) || (have && !xa_is_zero(have)))
		hmm_block_free(block);
	return xas_error(&xas) ?: !whole;
}

/* How many of the vectors that end at @end lie in the block at @va. */
static unsigned int hmm_block_vecs(unsigned long va, unsigned long end,
				   const struct phys_vec *vec, unsigned int nr)
{
	unsigned long next = pmd_addr_end(va, end);
	unsigned int i;

	if (next == end)
		return nr;
	for (i = 0; va < next; i++)
		va += vec[i].len & PAGE_MASK;
	return i;
}

/**
 * hmm_record_reserve - make room for vectors
 * @map: the mapping
 * @va: user address of the first one
 * @end: user address after the last one
 * @vec: the vectors; none crosses a PMD
 * @nr: how many
 *
 * Context: may sleep, without the lock of the mapping.
 * Return: for how many blocks that are more than a huge page room was made, or
 * -ENOMEM.
 */
int hmm_record_reserve(struct hmm_range_map *map, unsigned long va,
		       unsigned long end, const struct phys_vec *vec,
		       unsigned int nr)
{
	int ret, new = 0;
	unsigned int n;

	for (; va < end; vec += n, nr -= n, va = pmd_addr_end(va, end)) {
		n = hmm_block_vecs(va, end, vec, nr);
		if (n == 1 && vec->paddr == HMM_RUNS_HOLE)
			continue;
		ret = hmm_block_reserve(map, va, hmm_vec_is_block(vec));
		if (ret < 0)
			return ret;
		new += ret;
	}
	return new;
}

/* Room for one unit that is all of its block; xa_load() does not tell. */
static bool hmm_block_is_reserved(struct hmm_range_map *map, unsigned long va)
{
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	void *entry;

	xas_lock(&xas);
	entry = xas_load(&xas);
	xas_unlock(&xas);
	return entry;
}

/* Is there still the room that hmm_record_reserve() made? With the lock held. */
bool hmm_record_reserved(struct hmm_range_map *map, unsigned long va,
			 unsigned long end, const struct phys_vec *vec,
			 unsigned int nr)
{
	unsigned int n;

	for (; va < end; vec += n, nr -= n, va = pmd_addr_end(va, end)) {
		n = hmm_block_vecs(va, end, vec, nr);
		if (n == 1 && vec->paddr == HMM_RUNS_HOLE)
			continue;
		if (hmm_vec_is_block(vec) ? !hmm_block_is_reserved(map, va) :
					    !hmm_entry_load(map, va))
			return false;
	}
	return true;
}

static void hmm_count(struct hmm_range_map *map, long nr)
{
	map->nr_mapped += nr;
	gup_map_count(0, nr);
}

/* A unit that is all of its block. False if there is room for more. */
static bool hmm_value_add(struct hmm_range_map *map, unsigned long va,
			  const struct phys_vec *vec, bool write)
{
	unsigned long pfn = map->base.state.addr ? 0 : PHYS_PFN(vec->paddr);
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	void *entry;

	xas_lock(&xas);
	entry = xas_load(&xas);
	/* The slot is there, so this does not allocate. */
	if (!hmm_entry_is_block(entry))
		xas_store(&xas, hmm_entry_value(pfn, write));
	xas_unlock(&xas);
	WARN_ON_ONCE(xas_error(&xas));
	return !hmm_entry_is_block(entry);
}

/* Add vectors, which are pages [page, last) of the block. */
static void hmm_block_add(struct hmm_block *block, unsigned int page,
			  unsigned int last, const struct phys_vec *vec,
			  unsigned int nr, bool write)
{
	unsigned int at = page, i, k, pages;

	hmm_bits_set(block->mapped, page, last);
	if (write)
		hmm_bits_set(block->write, page, last);
	if (nr == last - page)
		hmm_bits_set(block->first, page, last);
	if (nr == last - page && !block->pfn)
		return;
	for (i = 0; i < nr; i++, at += pages) {
		pages = vec[i].len >> PAGE_SHIFT;
		__set_bit(at, block->first);
		if (!block->pfn)
			continue;
		block->pfn[at] = PHYS_PFN(vec[i].paddr);
		for (k = 1; k < pages; k++)
			block->pfn[at + k] = block->pfn[at] + k;
	}
}

/**
 * hmm_record_add - note what was linked
 * @map: the mapping; there is room, and nothing is mapped there
 * @va: user address of the first vector
 * @end: user address after the last one
 * @vec: the vectors, each of which is a unit from now on
 * @nr: how many
 * @write: may the device write there?
 *
 * Context: with the lock of the mapping held. Does not allocate.
 */
void hmm_record_add(struct hmm_range_map *map, unsigned long va,
		    unsigned long end, const struct phys_vec *vec,
		    unsigned int nr, bool write)
{
	unsigned long next;
	unsigned int n;

	hmm_count(map, (end - va) >> PAGE_SHIFT);
	for (; va < end; vec += n, nr -= n, va = next) {
		next = pmd_addr_end(va, end);
		n = hmm_block_vecs(va, end, vec, nr);
		if (next - va == PMD_SIZE && n == 1 &&
		    hmm_value_add(map, va, vec, write))
			continue;
		hmm_block_add(hmm_entry_load(map, va), hmm_block_page(va),
			      hmm_block_last(va, next), vec, n, write);
	}
}

/*
 * The device may write to [va, end) from now on, which is mapped and in one block.
 * False if that is a part of a unit that is all of its block.
 */
bool hmm_record_set_write(struct hmm_range_map *map, unsigned long va,
			  unsigned long end)
{
	struct hmm_block *block = hmm_entry_load(map, va);

	if (!xa_is_value(block))
		hmm_bits_set(block->write, hmm_block_page(va),
			     hmm_block_last(va, end));
	else if (end - va == PMD_SIZE)
		xa_store(&map->blocks, hmm_block_index(map, va),
			 hmm_entry_value(hmm_value_pfn(block), true), 0);
	else
		return false;
	return true;
}

/* Is there a unit that is all of its block, and read-only? Needs no lock. */
bool hmm_record_is_read_only_block(struct hmm_range_map *map, unsigned long va)
{
	void *entry = xa_load(&map->blocks, hmm_block_index(map, va));

	return xa_is_value(entry) && !hmm_value_write(entry);
}

/* Returns how many pages of [page, last) were mapped. */
static unsigned int hmm_block_erase(struct hmm_block *block, unsigned int page,
				    unsigned int last)
{
	unsigned int nr = 0, at, end;

	for (at = page; at < last; at = end) {
		at = find_next_bit(block->mapped, last, at);
		end = find_next_zero_bit(block->mapped, last, at);
		nr += end - at;
	}
	hmm_bits_clear(block->mapped, page, last);
	hmm_bits_clear(block->write, page, last);
	hmm_bits_clear(block->first, page, last);
	return nr;
}

/**
 * hmm_record_erase - forget what is mapped
 * @map: the mapping
 * @va: user address; begins a unit or lies in none
 * @end: user address, exclusive; ends a unit or lies in none
 * @keep: keep the room, because something will be added at once. Else that of
 *	blocks that lie in the range as a whole is given back
 *
 * Context: with the lock of the mapping held. Does not allocate.
 */
void hmm_record_erase(struct hmm_range_map *map, unsigned long va,
		      unsigned long end, bool keep)
{
	unsigned long last = hmm_block_index(map, end - 1), pages = 0;
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	unsigned long base = map->start & PMD_MASK, from, to;
	struct hmm_block *block = map->last_block;

	/* A part of one block, as a device that faults single pages has it. */
	if (block && map->last_index == xas.xa_index && last == xas.xa_index &&
	    end - va < PMD_SIZE) {
		pages = hmm_block_erase(block, hmm_block_page(va),
					hmm_block_last(va, end));
		hmm_count(map, -(long)pages);
		return;
	}
	map->last_block = NULL;
	xas_lock(&xas);
	xas_for_each(&xas, block, last) {
		from = max(va, base + (xas.xa_index << PMD_SHIFT));
		to = pmd_addr_end(from, end);
		if (xa_is_value(block)) {
			pages += HMM_BLOCK_PAGES;
			xas_store(&xas, keep ? XA_ZERO_ENTRY : NULL);
		} else if (!xa_is_zero(block)) {
			pages += hmm_block_erase(block, hmm_block_page(from),
						 hmm_block_last(from, end));
			if (to - from != PMD_SIZE || keep)
				continue;
			xas_store(&xas, NULL);
			hmm_block_free(block);
		} else if (to - from == PMD_SIZE && !keep) {
			xas_store(&xas, NULL);
		}
	}
	xas_unlock(&xas);
	hmm_count(map, -(long)pages);
}

/* The first span from page @page on. */
static bool hmm_block_next(const struct hmm_block *block, unsigned long base,
			   unsigned int page, struct hmm_span *span)
{
	unsigned int nr = HMM_BLOCK_PAGES;
	unsigned int first = find_next_bit(block->mapped, nr, page);
	unsigned int last;

	if (first >= nr)
		return false;
	span->write = test_bit(first, block->write);
	if (block->pfn) {
		span->pfn = block->pfn[first];
		for (last = first + 1; last < nr; last++)
			if (!test_bit(last, block->mapped) ||
			    test_bit(last, block->write) != span->write ||
			    block->pfn[last] != span->pfn + (last - first))
				break;
	} else {
		last = find_next_zero_bit(block->mapped, nr, first);
		if (span->write)
			last = find_next_zero_bit(block->write, last, first);
		else
			last = find_next_bit(block->write, last, first);
	}
	span->start = base + ((unsigned long)first << PAGE_SHIFT);
	span->end = base + ((unsigned long)last << PAGE_SHIFT);
	return true;
}

static bool hmm_entry_next(void *entry, unsigned long va, struct hmm_span *span)
{
	unsigned long base = va & PMD_MASK;

	if (!xa_is_value(entry))
		return hmm_block_next(entry, base, hmm_block_page(va), span);
	span->start = va;
	span->end = base + PMD_SIZE;
	span->pfn = hmm_value_pfn(entry) + hmm_block_page(va);
	span->write = hmm_value_write(entry);
	return true;
}

/**
 * hmm_record_next - find the next span that is mapped
 * @map: the mapping
 * @va: user address to begin at, of a page
 * @end: user address that the span has to begin before
 * @span: where to store it; it can begin in the middle of a unit, does not leave
 *	its block, and can end after @end
 *
 * Context: with the lock of the mapping held.
 * Return: false if there is none.
 */
bool hmm_record_next(struct hmm_range_map *map, unsigned long va,
		     unsigned long end, struct hmm_span *span)
{
	unsigned long idx, base = map->start & PMD_MASK;
	void *entry;

	while (va < end) {
		idx = hmm_block_index(map, va);
		/* Mostly it is right here, and looking costs less than searching. */
		entry = hmm_entry_load(map, va);
		if (!entry) {
			entry = xa_find(&map->blocks, &idx,
					hmm_block_index(map, end - 1),
					XA_PRESENT);
			if (!entry)
				return false;
			va = base + (idx << PMD_SHIFT);
		}
		if (hmm_entry_next(entry, va, span))
			return span->start < end;
		va = (va & PMD_MASK) + PMD_SIZE;
	}
	return false;
}

/* Is there a block that is all in [va, end)? */
bool hmm_record_has_room(struct hmm_range_map *map, unsigned long va,
			 unsigned long end)
{
	unsigned long idx, last;

	if (ALIGN(va, PMD_SIZE) + PMD_SIZE > end)
		return false;
	idx = hmm_block_index(map, ALIGN(va, PMD_SIZE));
	last = hmm_block_index(map, end - PMD_SIZE);
	return xa_find(&map->blocks, &idx, last, XA_PRESENT);
}

/* Is any page of [va, end) mapped? */
bool hmm_record_any(struct hmm_range_map *map, unsigned long va,
		    unsigned long end)
{
	struct hmm_block *block = hmm_entry_load(map, va);
	struct hmm_span unused;
	unsigned int last;

	if (!block || xa_is_value(block) || pmd_addr_end(va, end) != end)
		return hmm_record_next(map, va, end, &unused);
	last = hmm_block_last(va, end);
	return find_next_bit(block->mapped, last, hmm_block_page(va)) < last;
}

/**
 * hmm_record_first_hole - find a page that is not mapped as it should be
 * @map: the mapping
 * @va: user address to begin at
 * @end: user address to end at
 * @write: should the device be able to write?
 *
 * Context: with the lock of the mapping held.
 * Return: its user address; @end if there is none.
 */
unsigned long hmm_record_first_hole(struct hmm_range_map *map, unsigned long va,
				    unsigned long end, bool write)
{
	unsigned int page, last, hole;
	struct hmm_block *block;

	for (; va < end; va = pmd_addr_end(va, end)) {
		block = hmm_entry_load(map, va);
		if (!block || (xa_is_value(block) && write &&
			       !hmm_value_write(block)))
			return va;
		if (xa_is_value(block))
			continue;
		page = hmm_block_page(va);
		last = hmm_block_last(va, end);
		hole = find_next_zero_bit(block->mapped, last, page);
		if (write)
			hole = find_next_zero_bit(block->write, hole, page);
		if (hole < last)
			return va + ((unsigned long)(hole - page) << PAGE_SHIFT);
	}
	return end;
}

/* Where the unit begins that the page at @va is of; @va if that is not mapped. */
unsigned long hmm_record_unit_start(struct hmm_range_map *map, unsigned long va)
{
	struct hmm_block *block = hmm_entry_load(map, va);
	unsigned int page = hmm_block_page(va);

	if (xa_is_value(block))
		return va & PMD_MASK;
	if (!block || !test_bit(page, block->mapped))
		return va;
	page = find_last_bit(block->first, page + 1);
	return (va & PMD_MASK) + ((unsigned long)page << PAGE_SHIFT);
}

/* Where it ends; the next page if it is not mapped. */
unsigned long hmm_record_unit_end(struct hmm_range_map *map, unsigned long va)
{
	struct hmm_block *block = hmm_entry_load(map, va);
	unsigned int page = hmm_block_page(va) + 1;

	if (xa_is_value(block))
		return (va & PMD_MASK) + PMD_SIZE;
	if (block && test_bit(page - 1, block->mapped)) {
		unsigned int hole = find_next_zero_bit(block->mapped,
						       HMM_BLOCK_PAGES, page);

		page = find_next_bit(block->first, hole, page);
	}
	return (va & PMD_MASK) + ((unsigned long)page << PAGE_SHIFT);
}

/*
 * Where to stop, from @va on, so that no more than about @max units go at once:
 * at the end of a block.
 */
unsigned long hmm_record_portion(struct hmm_range_map *map, unsigned long va,
				 unsigned long max)
{
	unsigned long last = hmm_block_index(map, map->end - 1), nr = 0;
	XA_STATE(xas, &map->blocks, hmm_block_index(map, va));
	unsigned long base = map->start & PMD_MASK;
	void *entry;

	xas_lock(&xas);
	xas_for_each(&xas, entry, last) {
		va = base + ((xas.xa_index + 1) << PMD_SHIFT);
		nr += hmm_entry_is_block(entry) ? HMM_BLOCK_PAGES : 1;
		if (nr >= max)
			break;
	}
	xas_unlock(&xas);
	return entry ? min(va, map->end) : map->end;
}
