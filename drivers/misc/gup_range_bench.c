// SPDX-License-Identifier: GPL-2.0-only
/*
 * What does it cost to get from user memory to DMA addresses? The ways that
 * drivers go without gup_range, made of the same calls as in the functions that the
 * comments name, and the machinery that times them and ours.
 *
 * The time is the caller's: no other CPU is waited for, and a tick that comes in
 * between counts. In a guest whose clock counts instructions (QEMU: -icount
 * shift=0,sleep=off) a nanosecond is an instruction.
 */
#include <linux/cleanup.h>
#include <linux/hmm.h>
#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <trace/events/kmem.h>

#include "gup_range_bench.h"

/* QEMU's edu, see gup_range_edu.c */
#define BENCH_VENDOR	0x1234
#define BENCH_DEVICE	0x11e8
#define BENCH_DRIVER	"gup_range_edu"

#define BENCH_BATCH	(PAGE_SIZE / sizeof(struct page *))

static unsigned int bench_gup_flags(const struct bench *b)
{
	return FOLL_LONGTERM | (b->write ? FOLL_WRITE : 0);
}

/* Does dma_unmap_*() wait for a flush, or leave it to a timer? */
static bool bench_strict(const struct bench *b)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(b->dev);

	return use_dma_iommu(b->dev) && domain->type != IOMMU_DOMAIN_DMA_FQ;
}

/* ------------------------------------------------------------------ ib_umem */

static int ib_umem_setup(struct bench *b)
{
	/* What RDMA drivers say of their devices, mlx5 for one. */
	dma_set_max_seg_size(b->dev, SZ_2G);
	return 0;
}

static void ib_umem_release(struct bench *b, bool mapped, bool dirty)
{
	struct scatterlist *sg;
	unsigned int i;

	if (mapped)
		dma_unmap_sgtable(b->dev, &b->sgt.sgt, DMA_BIDIRECTIONAL,
				  DMA_ATTR_REQUIRE_COHERENT);
	for_each_sgtable_sg(&b->sgt.sgt, sg, i) {
		unpin_user_page_range_dirty_lock(sg_page(sg),
						 DIV_ROUND_UP(sg->length,
							      PAGE_SIZE),
						 dirty);
		cond_resched();
	}
	sg_free_append_table(&b->sgt);
}

/* __ib_umem_get_va() */
static int ib_umem_map(struct bench *b)
{
	struct page **list __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	unsigned long addr = b->start, left = b->nr, pinned;
	int ret = 0;

	if (!list)
		return -ENOMEM;
	b->sgt = (struct sg_append_table){};
	while (left && ret >= 0) {
		cond_resched();
		ret = pin_user_pages_fast(addr, min(left, BENCH_BATCH),
					  bench_gup_flags(b), list);
		if (ret <= 0)
			break;
		pinned = ret;
		addr += pinned << PAGE_SHIFT;
		left -= pinned;
		ret = sg_alloc_append_table_from_pages(&b->sgt, list, pinned, 0,
						       pinned << PAGE_SHIFT,
						       dma_get_max_seg_size(b->dev),
						       left, GFP_KERNEL);
		if (ret)
			unpin_user_pages(list, pinned);
	}
	if (!ret)
		ret = dma_map_sgtable(b->dev, &b->sgt.sgt, DMA_BIDIRECTIONAL,
				      DMA_ATTR_REQUIRE_COHERENT);
	if (ret)
		ib_umem_release(b, false, false);
	b->links = b->sgt.sgt.orig_nents;
	b->syncs = use_dma_iommu(b->dev);
	return ret;
}

/* __ib_umem_release() */
static void ib_umem_unmap(struct bench *b)
{
	ib_umem_release(b, true, b->write);
	b->flushes = bench_strict(b);
}

/* ------------------------------------------------------------------- AF_XDP */

#define XDP_ATTRS	(DMA_ATTR_SKIP_CPU_SYNC | DMA_ATTR_WEAK_ORDERING)

static void xdp_release(struct bench *b, unsigned long mapped)
{
	unsigned long i;

	for (i = 0; i < mapped; i++)
		dma_unmap_page_attrs(b->dev, b->dma[i], PAGE_SIZE,
				     DMA_BIDIRECTIONAL, XDP_ATTRS);
	kvfree(b->dma);
	kvfree(b->pool);
	unpin_user_pages_dirty_lock(b->pages, b->nr, b->write);
	kvfree(b->pages);
}

/* xdp_umem_pin_pages() */
static int xdp_pin(struct bench *b)
{
	long nr;

	b->pages = kvzalloc_objs(*b->pages, b->nr);
	if (!b->pages)
		return -ENOMEM;
	mmap_read_lock(current->mm);
	nr = pin_user_pages(b->start, b->nr, bench_gup_flags(b), b->pages);
	mmap_read_unlock(current->mm);
	if (nr == b->nr)
		return 0;
	if (nr > 0)
		unpin_user_pages(b->pages, nr);
	kvfree(b->pages);
	return nr < 0 ? nr : -ENOMEM;
}

/* xp_dma_map() and xp_init_dma_info() */
static int xdp_map(struct bench *b)
{
	unsigned long i;
	int ret;

	ret = xdp_pin(b);
	if (ret)
		return ret;
	b->dma = kvzalloc_objs(*b->dma, b->nr);
	b->pool = kvzalloc_objs(*b->pool, b->nr);
	for (i = 0; b->dma && b->pool && i < b->nr; i++) {
		b->dma[i] = dma_map_page_attrs(b->dev, b->pages[i], 0,
					       PAGE_SIZE, DMA_BIDIRECTIONAL,
					       XDP_ATTRS);
		if (dma_mapping_error(b->dev, b->dma[i]))
			break;
	}
	if (i < b->nr) {
		xdp_release(b, i);
		return -ENOMEM;
	}
	memcpy(b->pool, b->dma, b->nr * sizeof(*b->dma));
	b->links = b->nr;
	b->syncs = use_dma_iommu(b->dev) ? b->nr : 0;
	return 0;
}

/* __xp_dma_unmap() and xdp_umem_unpin_pages() */
static void xdp_unmap(struct bench *b)
{
	xdp_release(b, b->nr);
	b->flushes = bench_strict(b) ? b->nr : 0;
}

/* ---------------------------------------------------------------------- HMM */

static bool bench_invalidate(struct mmu_interval_notifier *notifier,
			     const struct mmu_notifier_range *range,
			     unsigned long seq)
{
	struct bench *b = container_of(notifier, struct bench, notifier);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&b->lock);
	else if (!mutex_trylock(&b->lock))
		return false;
	mmu_interval_set_seq(notifier, seq);
	/* The others would have to unmap as well, but nobody starts a DMA. */
	if (b->path->invalidate)
		b->path->invalidate(b, range->start, range->end);
	mutex_unlock(&b->lock);
	return true;
}

static const struct mmu_interval_notifier_ops bench_notifier_ops = {
	.invalidate = bench_invalidate,
};

/* On success the lock is held. */
static int bench_hmm_fault(struct bench *b, unsigned long start,
			   unsigned long nr, unsigned long *pfns)
{
	struct hmm_range range = {
		.notifier = &b->notifier,
		.start = start,
		.end = start + (nr << PAGE_SHIFT),
		.hmm_pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (b->write ? HMM_PFN_REQ_WRITE : 0),
	};
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	int ret;

	for (;;) {
		ret = hmm_range_fault_unlocked_timeout(&range, timeout);
		if (ret)
			return ret;
		mutex_lock(&b->lock);
		if (!mmu_interval_read_retry(&b->notifier, range.notifier_seq))
			return 0;
		mutex_unlock(&b->lock);
	}
}

/*
 * On-demand paging as RDMA did it up to 7.3, in functions that are gone now:
 * hmm_dma_map_alloc(), hmm_dma_map_pfn(), hmm_dma_unmap_pfn(). One entry per page
 * is kept, with flags, and one address where an unmap needs it.
 */
#define ODP_MAPPED	BIT(BITS_PER_LONG - 4)
#define ODP_ATTRS	DMA_ATTR_REQUIRE_COHERENT

/* ib_init_umem_odp() */
static int odp_setup(struct bench *b)
{
	b->pfns = kvzalloc_objs(*b->pfns, b->nr);
	if (!b->pfns)
		return -ENOMEM;
	if (dma_iova_try_alloc(b->dev, &b->state, 0, b->nr << PAGE_SHIFT) ||
	    !dma_need_unmap(b->dev))
		return 0;
	b->dma = kvzalloc_objs(*b->dma, b->nr);
	if (b->dma)
		return 0;
	kvfree(b->pfns);
	return -ENOMEM;
}

static void odp_teardown(struct bench *b)
{
	if (dma_use_iova(&b->state))
		dma_iova_free(b->dev, &b->state);
	kvfree(b->dma);
	kvfree(b->pfns);
}

static void odp_unmap_page(struct bench *b, unsigned long i)
{
	if (dma_use_iova(&b->state))
		dma_iova_unlink(b->dev, &b->state, i << PAGE_SHIFT, PAGE_SIZE,
				DMA_BIDIRECTIONAL, ODP_ATTRS);
	else if (dma_need_unmap(b->dev))
		dma_unmap_phys(b->dev, b->dma[i], PAGE_SIZE, DMA_BIDIRECTIONAL,
			       ODP_ATTRS);
}

/* ib_umem_odp_unmap_dma_pages() */
static void odp_unmap_locked(struct bench *b, unsigned long first,
			     unsigned long nr)
{
	const unsigned long mapped = HMM_PFN_VALID | ODP_MAPPED;
	unsigned long i;

	b->flushes = 0;
	for (i = first; i < first + nr; i++) {
		unsigned long pfn = b->pfns[i];

		if ((pfn & mapped) == mapped) {
			odp_unmap_page(b, i);
			if (b->write && pfn & HMM_PFN_WRITE)
				set_page_dirty(compound_head(hmm_pfn_to_page(pfn)));
			b->flushes++;
		}
		b->pfns[i] &= ~HMM_PFN_FLAGS;
	}
}

static dma_addr_t odp_map_page(struct bench *b, unsigned long i,
			       struct pci_p2pdma_map_state *p2pdma)
{
	phys_addr_t phys = hmm_pfn_to_phys(b->pfns[i]);
	size_t off = i << PAGE_SHIFT;
	dma_addr_t addr;

	if (pci_p2pdma_state(p2pdma, b->dev, hmm_pfn_to_page(b->pfns[i])) !=
	    PCI_P2PDMA_MAP_NONE)
		return DMA_MAPPING_ERROR;
	if (!dma_use_iova(&b->state)) {
		addr = dma_map_phys(b->dev, phys, PAGE_SIZE, DMA_BIDIRECTIONAL,
				    ODP_ATTRS);
		if (dma_mapping_error(b->dev, addr))
			return DMA_MAPPING_ERROR;
		if (dma_need_unmap(b->dev))
			b->dma[i] = addr;
	} else {
		if (dma_iova_link(b->dev, &b->state, phys, off, PAGE_SIZE,
				  DMA_BIDIRECTIONAL, ODP_ATTRS))
			return DMA_MAPPING_ERROR;
		if (dma_iova_sync(b->dev, &b->state, off, PAGE_SIZE)) {
			dma_iova_unlink(b->dev, &b->state, off, PAGE_SIZE,
					DMA_BIDIRECTIONAL, ODP_ATTRS);
			return DMA_MAPPING_ERROR;
		}
		addr = b->state.addr + off;
	}
	b->pfns[i] |= ODP_MAPPED;
	return addr;
}

/* ib_umem_odp_map_dma_and_lock(), and the loop of populate_mtt() in mlx5 */
static int odp_map_span(struct bench *b, unsigned long first, unsigned long nr)
{
	struct pci_p2pdma_map_state p2pdma = {};
	unsigned long i;
	int ret;

	ret = bench_hmm_fault(b, b->start + (first << PAGE_SHIFT), nr,
			      b->pfns + first);
	if (ret)
		return ret;
	for (i = first; i < first + nr; i++) {
		if (odp_map_page(b, i, &p2pdma) == DMA_MAPPING_ERROR) {
			odp_unmap_locked(b, first, nr);
			ret = -EIO;
			break;
		}
	}
	mutex_unlock(&b->lock);
	b->links = nr;
	b->syncs = use_dma_iommu(b->dev) ? nr : 0;
	return ret;
}

static void odp_unmap_span(struct bench *b, unsigned long first,
			   unsigned long nr)
{
	mutex_lock(&b->lock);
	odp_unmap_locked(b, first, nr);
	mutex_unlock(&b->lock);
	if (!use_dma_iommu(b->dev))
		b->flushes = 0;
}

static int odp_map(struct bench *b)
{
	return odp_map_span(b, 0, b->nr);
}

static void odp_unmap(struct bench *b)
{
	odp_unmap_span(b, 0, b->nr);
}

static unsigned long odp_part(const struct bench *b)
{
	return (b->part - b->start) >> PAGE_SHIFT;
}

static int odp_map_part(struct bench *b)
{
	return odp_map_span(b, odp_part(b), b->part_nr);
}

static void odp_unmap_part(struct bench *b)
{
	odp_unmap_span(b, odp_part(b), b->part_nr);
}

/* The rest, which was not to be timed. */
static void odp_after_part(struct bench *b)
{
	u64 flushes = b->flushes;

	odp_unmap(b);
	b->flushes = flushes;
}

/* ------------------------------------------------------------------- gpusvm */

/* struct drm_pagemap_addr: an address, its order and direction in 16 bytes. */
struct gpusvm_addr {
	dma_addr_t	addr;
	u64		order;
};

/* drm_gpusvm_hmm_pfn_to_order() */
static unsigned int gpusvm_order(unsigned long pfn, unsigned long i,
				 unsigned long nr)
{
	unsigned long size = 1UL << hmm_pfn_to_map_order(pfn);

	size -= (pfn & ~HMM_PFN_FLAGS) & (size - 1);
	return ilog2(min(size, nr - i));
}

static int gpusvm_setup(struct bench *b)
{
	b->dma = kvcalloc(b->nr, sizeof(struct gpusvm_addr), GFP_KERNEL);
	return b->dma ? 0 : -ENOMEM;
}

static void gpusvm_teardown(struct bench *b)
{
	kvfree(b->dma);
}

static enum dma_data_direction gpusvm_dir(const struct bench *b)
{
	return b->write ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
}

/* __drm_gpusvm_unmap_pages() of the first @nr pages, @linked bytes */
static void gpusvm_release(struct bench *b, unsigned long nr, size_t linked)
{
	struct gpusvm_addr *addr = (struct gpusvm_addr *)b->dma;
	bool iova = dma_use_iova(&b->state);
	unsigned long i, j;

	if (iova) {
		if (linked)
			dma_iova_unlink(b->dev, &b->state, 0, linked,
					gpusvm_dir(b), 0);
		dma_iova_free(b->dev, &b->state);
	}
	for (i = 0, j = 0; i < nr; i += 1UL << addr[j++].order)
		if (!iova)
			dma_unmap_page(b->dev, addr[j].addr,
				       PAGE_SIZE << addr[j].order,
				       gpusvm_dir(b));
}

static int gpusvm_map_one(struct bench *b, unsigned long pfn,
			  unsigned int order, size_t *linked, dma_addr_t *addr)
{
	size_t len = PAGE_SIZE << order;
	int ret;

	b->links++;
	if (!dma_use_iova(&b->state)) {
		*addr = dma_map_page(b->dev, hmm_pfn_to_page(pfn), 0, len,
				     gpusvm_dir(b));
		return dma_mapping_error(b->dev, *addr);
	}
	ret = dma_iova_link(b->dev, &b->state, hmm_pfn_to_phys(pfn), *linked,
			    len, gpusvm_dir(b), 0);
	if (ret)
		return ret;
	*addr = b->state.addr + *linked;
	*linked += len;
	return 0;
}

/* drm_gpusvm_get_pages() */
static int gpusvm_map(struct bench *b)
{
	struct gpusvm_addr *addr = (struct gpusvm_addr *)b->dma;
	unsigned long *pfns, i, j;
	size_t linked = 0;
	int ret;

	b->links = 0;
	b->state = (struct dma_iova_state){};
	pfns = kvmalloc_array(b->nr, sizeof(*pfns), GFP_KERNEL);
	if (!pfns)
		return -ENOMEM;
	ret = bench_hmm_fault(b, b->start, b->nr, pfns);
	if (ret)
		goto free;
	dma_iova_try_alloc(b->dev, &b->state, 0, b->nr << PAGE_SHIFT);
	for (i = 0, j = 0; i < b->nr; i += 1UL << addr[j++].order) {
		struct page *page = hmm_pfn_to_page(pfns[i]);

		ret = is_zone_device_page(page) ? -EOPNOTSUPP : 0;
		addr[j].order = gpusvm_order(pfns[i], i, b->nr);
		if (!ret)
			ret = gpusvm_map_one(b, pfns[i], addr[j].order,
					     &linked, &addr[j].addr);
		if (ret)
			break;
	}
	b->syncs = dma_use_iova(&b->state);
	if (!ret && dma_use_iova(&b->state))
		ret = dma_iova_sync(b->dev, &b->state, 0, linked);
	if (ret)
		gpusvm_release(b, i, linked);
	mutex_unlock(&b->lock);
free:
	kvfree(pfns);
	return ret;
}

static void gpusvm_unmap(struct bench *b)
{
	mutex_lock(&b->lock);
	b->flushes = dma_use_iova(&b->state);
	gpusvm_release(b, b->nr, b->nr << PAGE_SHIFT);
	mutex_unlock(&b->lock);
}

/* ------------------------------------------------- what they are made of */

static int pin_setup(struct bench *b)
{
	b->pages = kvmalloc_objs(*b->pages, b->nr);
	return b->pages ? 0 : -ENOMEM;
}

static void pin_teardown(struct bench *b)
{
	kvfree(b->pages);
}

static void pin_unmap(struct bench *b)
{
	unsigned long i;

	for (i = 0; i < b->nr; i += BENCH_BATCH)
		unpin_user_pages(b->pages + i, min(b->nr - i, BENCH_BATCH));
}

static int pin_map(struct bench *b)
{
	unsigned long i;
	int nr;

	for (i = 0; i < b->nr; i += nr) {
		nr = pin_user_pages_fast(b->start + (i << PAGE_SHIFT),
					 min(b->nr - i, BENCH_BATCH),
					 bench_gup_flags(b), b->pages + i);
		if (nr <= 0) {
			unpin_user_pages(b->pages, i);
			return nr ?: -EFAULT;
		}
	}
	return 0;
}

static int hmm_setup(struct bench *b)
{
	b->pfns = kvzalloc_objs(*b->pfns, b->nr);
	return b->pfns ? 0 : -ENOMEM;
}

static void hmm_teardown(struct bench *b)
{
	kvfree(b->pfns);
}

static int hmm_map(struct bench *b)
{
	int ret = bench_hmm_fault(b, b->start, b->nr, b->pfns);

	if (!ret)
		mutex_unlock(&b->lock);
	return ret;
}

static void hmm_unmap(struct bench *b)
{
}

/* Pages and an IOVA, for those that map page by page. */
static int link_setup(struct bench *b)
{
	int ret;

	if (!use_dma_iommu(b->dev))
		return -EOPNOTSUPP;
	ret = pin_setup(b);
	if (ret)
		return ret;
	ret = pin_map(b);
	if (ret)
		goto free;
	if (dma_iova_try_alloc(b->dev, &b->state, 0, b->nr << PAGE_SHIFT))
		return 0;
	ret = -ENOMEM;
	pin_unmap(b);
free:
	pin_teardown(b);
	return ret;
}

static void link_teardown(struct bench *b)
{
	dma_iova_free(b->dev, &b->state);
	pin_unmap(b);
	pin_teardown(b);
}

static void link_unmap(struct bench *b)
{
	dma_iova_unlink(b->dev, &b->state, 0, b->nr << PAGE_SHIFT,
			DMA_BIDIRECTIONAL, 0);
	b->flushes = 1;
}

static int link_map(struct bench *b)
{
	unsigned long i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = dma_iova_link(b->dev, &b->state,
				    page_to_phys(b->pages[i]), i << PAGE_SHIFT,
				    PAGE_SIZE, DMA_BIDIRECTIONAL, 0);
	if (!ret)
		ret = dma_iova_sync(b->dev, &b->state, 0, b->nr << PAGE_SHIFT);
	else if (--i)
		dma_iova_unlink(b->dev, &b->state, 0, i << PAGE_SHIFT,
				DMA_BIDIRECTIONAL, 0);
	b->links = b->nr;
	b->syncs = 1;
	return ret;
}

static void iommu_unmap_all(struct bench *b)
{
	iommu_unmap(iommu_get_domain_for_dev(b->dev), b->state.addr,
		    b->nr << PAGE_SHIFT);
	b->flushes = 1;
}

static int iommu_map_all(struct bench *b)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(b->dev);
	unsigned long i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = iommu_map(domain, b->state.addr + (i << PAGE_SHIFT),
				page_to_phys(b->pages[i]), PAGE_SIZE,
				IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE,
				GFP_KERNEL);
	if (ret && --i)
		iommu_unmap(domain, b->state.addr, i << PAGE_SHIFT);
	b->links = b->nr;
	b->syncs = b->nr;
	return ret;
}

static const struct bench_path bench_peers[GUP_RANGE_BENCH_PATHS] = {
	[GUP_RANGE_BENCH_IB_UMEM] = {
		.setup		= ib_umem_setup,
		.map		= ib_umem_map,
		.unmap		= ib_umem_unmap,
	},
	[GUP_RANGE_BENCH_XDP] = {
		.map		= xdp_map,
		.unmap		= xdp_unmap,
	},
	[GUP_RANGE_BENCH_ODP] = {
		.setup		= odp_setup,
		.teardown	= odp_teardown,
		.map		= odp_map,
		.unmap		= odp_unmap,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_ODP_FAULT] = {
		.setup		= odp_setup,
		.teardown	= odp_teardown,
		.map		= odp_map_part,
		.unmap		= odp_unmap_part,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_ODP_INVALIDATE] = {
		.setup		= odp_setup,
		.teardown	= odp_teardown,
		.map		= odp_map,
		.unmap		= odp_unmap_part,
		.after		= odp_after_part,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_GPUSVM] = {
		.setup		= gpusvm_setup,
		.teardown	= gpusvm_teardown,
		.map		= gpusvm_map,
		.unmap		= gpusvm_unmap,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_PIN] = {
		.setup		= pin_setup,
		.teardown	= pin_teardown,
		.map		= pin_map,
		.unmap		= pin_unmap,
	},
	[GUP_RANGE_BENCH_HMM] = {
		.setup		= hmm_setup,
		.teardown	= hmm_teardown,
		.map		= hmm_map,
		.unmap		= hmm_unmap,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_IOMMU] = {
		.setup		= link_setup,
		.teardown	= link_teardown,
		.map		= iommu_map_all,
		.unmap		= iommu_unmap_all,
	},
	[GUP_RANGE_BENCH_LINK] = {
		.setup		= link_setup,
		.teardown	= link_teardown,
		.map		= link_map,
		.unmap		= link_unmap,
	},
};

/* ------------------------------------------------------------------- memory */

/*
 * What the task that is measured allocates, from tracepoints: slab, and pages
 * that are not compound. IOMMU page tables are compound, so are slab's own pages
 * and user page tables; all paths need them alike.
 */
#define MEM_BUCKETS	4096
#define MEM_OBJECTS	65536

struct mem_object {
	struct mem_object	*next;
	const void		*ptr;
	size_t			bytes;
};

struct mem_watch {
	struct task_struct	*task;
	raw_spinlock_t		lock;		/* protects what follows */
	size_t			live;
	size_t			peak;
	bool			overflow;
	struct mem_object	*free;
	struct mem_object	*bucket[MEM_BUCKETS];
	struct mem_object	object[MEM_OBJECTS];
};

/* Where the pointer to the object of @ptr is, or where it would be. */
static struct mem_object **mem_find(struct mem_watch *w, const void *ptr)
{
	struct mem_object **p = &w->bucket[hash_ptr(ptr, ilog2(MEM_BUCKETS))];

	while (*p && (*p)->ptr != ptr)
		p = &(*p)->next;
	return p;
}

static void mem_add(struct mem_watch *w, const void *ptr, size_t bytes)
{
	struct mem_object *obj, **p;

	if (!ptr || current != w->task || !in_task())
		return;
	guard(raw_spinlock_irqsave)(&w->lock);
	p = mem_find(w, ptr);
	/* A large kmalloc() is traced twice. */
	if (*p)
		return;
	obj = w->free;
	if (!obj) {
		w->overflow = true;
		return;
	}
	w->free = obj->next;
	*obj = (struct mem_object){ NULL, ptr, bytes };
	*p = obj;
	w->live += bytes;
	w->peak = max(w->peak, w->live);
}

static void mem_del(struct mem_watch *w, const void *ptr)
{
	struct mem_object *obj, **p;

	guard(raw_spinlock_irqsave)(&w->lock);
	p = mem_find(w, ptr);
	obj = *p;
	if (!obj)
		return;
	w->live -= obj->bytes;
	*p = obj->next;
	obj->next = w->free;
	w->free = obj;
}

static void mem_kmalloc(void *w, unsigned long ip, const void *ptr,
			size_t req, size_t bytes, gfp_t gfp, int node)
{
	mem_add(w, ptr, bytes);
}

static void mem_cache_alloc(void *w, unsigned long ip, const void *ptr,
			    struct kmem_cache *s, gfp_t gfp, int node)
{
	mem_add(w, ptr, kmem_cache_size(s));
}

static void mem_kfree(void *w, unsigned long ip, const void *ptr)
{
	mem_del(w, ptr);
}

static void mem_cache_free(void *w, unsigned long ip, const void *ptr,
			   const struct kmem_cache *s)
{
	mem_del(w, ptr);
}

static void mem_page_alloc(void *w, struct page *page, unsigned int order,
			   gfp_t gfp, int migratetype)
{
	if (!(gfp & __GFP_COMP))
		mem_add(w, page, PAGE_SIZE << order);
}

static void mem_page_free(void *w, struct page *page, unsigned int order)
{
	mem_del(w, page);
}

static void mem_page_free_batched(void *w, struct page *page)
{
	mem_del(w, page);
}

static void mem_watch_end(struct mem_watch *w)
{
	if (!w)
		return;
	unregister_trace_kmalloc(mem_kmalloc, w);
	unregister_trace_kmem_cache_alloc(mem_cache_alloc, w);
	unregister_trace_kfree(mem_kfree, w);
	unregister_trace_kmem_cache_free(mem_cache_free, w);
	unregister_trace_mm_page_alloc(mem_page_alloc, w);
	unregister_trace_mm_page_free(mem_page_free, w);
	unregister_trace_mm_page_free_batched(mem_page_free_batched, w);
	tracepoint_synchronize_unregister();
	vfree(w);
}

static struct mem_watch *mem_watch_begin(void)
{
	struct mem_watch *w = vzalloc(sizeof(*w));
	int i, ret;

	if (!w)
		return ERR_PTR(-ENOMEM);
	w->task = current;
	raw_spin_lock_init(&w->lock);
	for (i = 0; i < MEM_OBJECTS - 1; i++)
		w->object[i].next = &w->object[i + 1];
	w->free = w->object;

	ret = register_trace_kmalloc(mem_kmalloc, w) ?:
	      register_trace_kmem_cache_alloc(mem_cache_alloc, w) ?:
	      register_trace_kfree(mem_kfree, w) ?:
	      register_trace_kmem_cache_free(mem_cache_free, w) ?:
	      register_trace_mm_page_alloc(mem_page_alloc, w) ?:
	      register_trace_mm_page_free(mem_page_free, w) ?:
	      register_trace_mm_page_free_batched(mem_page_free_batched, w);
	if (ret) {
		mem_watch_end(w);
		return ERR_PTR(ret);
	}
	/* What registering allocated is nobody's. */
	w->live = 0;
	w->peak = 0;
	return w;
}

/* --------------------------------------------------------------------- time */

/* What taking the time takes. */
static u64 bench_empty(void)
{
	u64 best = U64_MAX;
	ktime_t start;
	int i;

	for (i = 0; i < 16; i++) {
		start = ktime_get();
		best = min_t(u64, best, ktime_get() - start);
	}
	return best;
}

static u64 bench_since(ktime_t start, u64 empty)
{
	u64 ns = ktime_get() - start;

	return ns > empty ? ns - empty : 0;
}

/* Once there and back. Times are kept if they are the shortest. */
static int bench_once(struct bench *b, struct gup_range_bench *req,
		      struct mem_watch *w)
{
	const struct bench_path *path = b->path;
	u64 empty = bench_empty();
	ktime_t start;
	u64 ns;
	int ret;

	if (path->before)
		path->before(b);
	if (w)
		w->peak = w->live;
	start = ktime_get();
	ret = path->map(b);
	ns = bench_since(start, empty);
	if (ret)
		return ret;
	req->map_ns = min(req->map_ns, ns);
	if (w) {
		req->metadata = w->overflow ? GUP_RANGE_BENCH_UNKNOWN :
					      w->live;
		req->scratch = w->overflow ? GUP_RANGE_BENCH_UNKNOWN :
					     w->peak - w->live;
	}
	if (path->mapped)
		path->mapped(b);

	start = ktime_get();
	path->unmap(b);
	ns = bench_since(start, empty);
	req->unmap_ns = min(req->unmap_ns, ns);
	if (path->after)
		path->after(b);
	return 0;
}

/* The first turn warms up, and is the one that is watched. */
static int bench_first(struct bench *b, struct gup_range_bench *req)
{
	const struct bench_path *path = b->path;
	struct mem_watch *w = NULL;
	int ret = 0;

	req->metadata = GUP_RANGE_BENCH_UNKNOWN;
	req->scratch = GUP_RANGE_BENCH_UNKNOWN;
	if (req->flags & GUP_RANGE_BENCH_MEMORY) {
		w = mem_watch_begin();
		if (IS_ERR(w))
			return PTR_ERR(w);
	}
	if (path->setup)
		ret = path->setup(b);
	if (!ret) {
		ret = bench_once(b, req, w);
		if (ret && path->teardown)
			path->teardown(b);
	}
	mem_watch_end(w);
	return ret;
}

static int bench_turns(struct bench *b, struct gup_range_bench *req)
{
	const struct bench_path *path = b->path;
	int ret;
	u32 i;

	ret = bench_first(b, req);
	if (ret)
		return ret;
	req->map_ns = U64_MAX;
	req->unmap_ns = U64_MAX;
	for (i = 0; i < req->iterations && !ret; i++) {
		ret = fatal_signal_pending(current) ? -EINTR :
		      bench_once(b, req, NULL);
		cond_resched();
	}
	req->links = b->links;
	req->syncs = b->syncs;
	req->flushes = b->flushes;
	if (path->teardown)
		path->teardown(b);
	return ret;
}

static int bench_check(const struct gup_range_bench *req)
{
	const u32 known = GUP_RANGE_BENCH_WRITE |
			  GUP_RANGE_BENCH_MEMORY;

	if (req->path >= GUP_RANGE_BENCH_PATHS || req->flags & ~known ||
	    req->reserved || !req->iterations || !req->len ||
	    !PAGE_ALIGNED(req->va | req->len | req->offset | req->part) ||
	    req->offset > req->len || req->part > req->len - req->offset ||
	    req->map_ns || req->unmap_ns || req->links || req->syncs ||
	    req->flushes || req->metadata || req->scratch)
		return -EINVAL;
	if (req->va + req->len < req->va || req->va + req->len > PAGE_MASK)
		return -EOVERFLOW;
	return 0;
}

static int bench_path(struct device *dev, struct gup_range_bench *req)
{
	const struct bench_path *path;
	struct bench *b __free(kfree) = NULL;
	int ret;

	ret = bench_check(req);
	if (ret)
		return ret;
	path = &bench_peers[req->path];
	if (!path->map)
		path = &gup_range_bench_ours[req->path];
	if (!path->map && IS_ENABLED(CONFIG_GUP_RANGE_BENCH_RDMA))
		path = &gup_range_bench_rdma[req->path];
	if (!path->map)
		return -EOPNOTSUPP;

	b = kzalloc_obj(*b);
	if (!b)
		return -ENOMEM;
	b->path = path;
	b->dev = dev;
	b->start = req->va;
	b->nr = req->len >> PAGE_SHIFT;
	b->part = req->va + req->offset;
	b->part_nr = req->part >> PAGE_SHIFT;
	b->write = req->flags & GUP_RANGE_BENCH_WRITE;
	mutex_init(&b->lock);
	if (path->mirrored) {
		ret = mmu_interval_notifier_insert(&b->notifier, current->mm,
						   req->va, req->len,
						   &bench_notifier_ops);
		if (ret)
			return ret;
	}
	ret = bench_turns(b, req);
	if (path->mirrored)
		mmu_interval_notifier_remove(&b->notifier);
	return ret;
}

/* ------------------------------------------------------------------- device */

/* With its driver, which has set the DMA mask and does not go meanwhile. */
static int bench_device(struct gup_range_bench *req)
{
	struct pci_dev *pdev = pci_get_device(BENCH_VENDOR, BENCH_DEVICE, NULL);
	int ret = -ENODEV;

	if (!pdev)
		return -ENODEV;
	device_lock(&pdev->dev);
	if (pdev->dev.driver && !strcmp(pdev->dev.driver->name, BENCH_DRIVER))
		ret = bench_path(&pdev->dev, req);
	device_unlock(&pdev->dev);
	pci_dev_put(pdev);
	return ret;
}

static long bench_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;
	struct gup_range_bench req;
	int ret;

	if (cmd != GUP_RANGE_BENCH_RUN)
		return -ENOTTY;
	if (copy_from_user(&req, uarg, sizeof(req)))
		return -EFAULT;
	ret = bench_device(&req);
	if (!ret && copy_to_user(uarg, &req, sizeof(req)))
		ret = -EFAULT;
	return ret;
}

static const struct file_operations bench_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= bench_ioctl,
};

static struct miscdevice bench_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "gup_range_bench",
	.fops	= &bench_fops,
	.mode	= 0600,
};

builtin_misc_device(bench_misc);
