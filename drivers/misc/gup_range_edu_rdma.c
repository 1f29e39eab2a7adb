// SPDX-License-Identifier: GPL-2.0-only
/*
 * RDMA modes of the test driver: what RDMA drivers call to map user memory,
 * ib_umem (pinned) and ODP (mirrored), for an ib_device whose DMA device is edu.
 */
#include <linux/hmm.h>
#include <rdma/ib_umem_odp.h>
#include <rdma/ib_verbs.h>
#include <rdma/iter.h>

#include "gup_range_edu.h"
#include "gup_range_edu_uapi.h"

struct edu_ibdev {
	struct ib_device	ibdev;
	struct edu		*edu;
};

/* Nobody but this driver knows it: umems need no device that is registered. */
int edu_rdma_init(struct edu *edu)
{
	struct edu_ibdev *dev = ib_alloc_device(edu_ibdev, ibdev);

	if (!dev)
		return -ENOMEM;
	dev->ibdev.dma_device = &edu->pdev->dev;
	dev->edu = edu;
	edu->ibdev = &dev->ibdev;
	return 0;
}

void edu_rdma_destroy(struct edu *edu)
{
	ib_dealloc_device(edu->ibdev);
}

static void edu_odp_zap(struct hmm_range_map *map, unsigned long start,
			unsigned long end)
{
	struct ib_umem_odp *odp = container_of(map, struct ib_umem_odp, map);
	struct edu_ibdev *dev = container_of(odp->umem.ibdev, struct edu_ibdev,
					     ibdev);

	edu_zap(dev->edu, map);
}

static const struct hmm_range_map_ops edu_odp_map_ops = {
	.zap = edu_odp_zap,
};

static bool edu_odp_invalidate(struct mmu_interval_notifier *notifier,
			       const struct mmu_notifier_range *range,
			       unsigned long cur_seq)
{
	struct ib_umem_odp *odp = container_of(notifier, struct ib_umem_odp,
					       notifier);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&odp->umem_mutex);
	else if (!gup_range_map_protected(&odp->map.base) ||
		 !mutex_trylock(&odp->umem_mutex))
		return false;
	mmu_interval_set_seq(notifier, cur_seq);
	ib_umem_odp_unmap_dma_pages(odp, range->start, range->end);
	mutex_unlock(&odp->umem_mutex);
	return true;
}

static const struct mmu_interval_notifier_ops edu_odp_ops = {
	.invalidate = edu_odp_invalidate,
};

/* On success h->lock is held, see ib_umem_odp_map_dma_and_lock(). */
int edu_odp_fault(struct edu_handle *h, unsigned long start, unsigned long end,
		  bool write)
{
	struct ib_umem_odp *odp = to_ib_umem_odp(h->umem);
	size_t page_size = BIT(odp->page_shift);
	int ret;

	ret = ib_umem_odp_map_dma_and_lock(odp, start, end - start,
					   write ? HMM_PFN_WRITE : 0, true);
	if (ret < 0)
		return ret;
	/* What a driver would put into its device page table. */
	WARN_ON(ret * page_size !=
		ALIGN(end, page_size) - ALIGN_DOWN(start, page_size));
	return 0;
}

/*
 * How many bytes the device page table lets the device write from @va on. For a
 * region that is all read-only the IOMMU knows better.
 */
size_t edu_odp_writable(struct edu_handle *h, unsigned long va)
{
	struct ib_umem_odp *odp = to_ib_umem_odp(h->umem);
	struct hmm_range_seg seg;

	if (!odp->umem.writable)
		return SIZE_MAX;
	hmm_range_for_each_seg(&odp->map, &seg, va, va + 1)
		if (va - seg.va < seg.len && seg.write)
			return seg.va + seg.len - va;
	return 0;
}

/* With h->lock held. Start and end return what was unmapped. */
void edu_odp_unmap(struct edu_handle *h, unsigned long *start,
		   unsigned long *end)
{
	struct ib_umem_odp *odp = to_ib_umem_odp(h->umem);
	unsigned long first = *start & PAGE_MASK, last = PAGE_ALIGN(*end);
	struct hmm_range_seg seg;

	/* What a driver would take out of its device page table. */
	hmm_range_for_each_seg(&odp->map, &seg, *start, *end) {
		first = min(first, seg.va);
		last = max(last, seg.va + seg.len);
	}
	ib_umem_odp_unmap_dma_pages(odp, *start, *end);
	*start = first;
	*end = last;
}

static int edu_odp_map(struct edu_handle *h, int access, size_t granule)
{
	size_t len = h->range.end - h->range.start;
	struct ib_umem_odp *odp;
	int ret;

	access |= IB_ACCESS_ON_DEMAND;
	if (granule != PAGE_SIZE)
		access |= IB_ACCESS_HUGETLB;
	odp = ib_umem_odp_get(h->edu->ibdev, h->range.start, len, access,
			      &edu_odp_ops, &edu_odp_map_ops);
	if (IS_ERR(odp))
		return PTR_ERR(odp);
	h->umem = &odp->umem;
	h->mirror = &odp->map;
	h->lock = &odp->umem_mutex;
	if (h->flags & GUP_RANGE_EDU_MAP_ONLY)
		return 0;
	ret = edu_odp_fault(h, h->range.start, h->range.end,
			    h->flags & GUP_RANGE_EDU_MAP_WRITE);
	if (ret)
		ib_umem_odp_release(odp);
	else
		mutex_unlock(h->lock);
	return ret;
}

int edu_rdma_map(struct edu_handle *h, size_t granule)
{
	bool odp = h->flags & GUP_RANGE_EDU_MAP_MIRROR;
	int access = IB_ACCESS_REMOTE_READ;
	struct ib_umem *umem;

	if (!odp && (granule != PAGE_SIZE || h->flags & GUP_RANGE_EDU_MAP_ONLY))
		return -EINVAL;
	if (granule != PAGE_SIZE && granule != PMD_SIZE)
		return -EINVAL;
	if (h->flags & GUP_RANGE_EDU_MAP_WRITE)
		access |= IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_WRITE;
	if (odp)
		return edu_odp_map(h, access, granule);
	umem = ib_umem_get_va(h->edu->ibdev, h->range.start,
			      h->range.end - h->range.start, access);
	if (IS_ERR(umem))
		return PTR_ERR(umem);
	h->umem = umem;
	return 0;
}

void edu_rdma_unmap(struct edu_handle *h)
{
	ib_umem_release(h->umem);
}

static int edu_umem_block_addr(struct edu_handle *h, unsigned long pgsz,
			       unsigned long va, dma_addr_t *addr, size_t *len)
{
	unsigned long at = ALIGN_DOWN(h->range.start, pgsz);
	struct ib_block_iter biter;
	dma_addr_t next = 0;
	bool found = false;

	rdma_umem_for_each_dma_block(h->umem, &biter, pgsz) {
		dma_addr_t block = rdma_block_iter_dma_address(&biter);

		if (!found && va - at < pgsz) {
			*addr = block + (va - at);
			found = true;
		} else if (found && block != next) {
			break;
		}
		next = block + pgsz;
		at += pgsz;
	}
	if (!found)
		return -EFAULT;
	*len = min(at, h->range.end) - va;
	return 0;
}

/* As gup_range_map_addr(): in the largest blocks there are, and in pages. */
int edu_umem_addr(struct edu_handle *h, unsigned long va, dma_addr_t *addr,
		  size_t *len)
{
	unsigned long pgsz = ib_umem_find_best_pgsz(h->umem, PAGE_MASK,
						    h->range.start);
	dma_addr_t page_addr;
	size_t page_len;
	int ret;

	if (WARN_ON(!pgsz))
		return -EFAULT;
	ret = edu_umem_block_addr(h, pgsz, va, addr, len);
	if (!ret)
		ret = edu_umem_block_addr(h, PAGE_SIZE, va, &page_addr,
					  &page_len);
	WARN_ON(!ret && (*addr != page_addr || *len != page_len));
	return ret;
}

int edu_umem_copy(struct edu_handle *h, void *data, size_t offset, size_t len)
{
	return ib_umem_copy_from(data, h->umem, offset, len);
}

void edu_umem_query(struct edu_handle *h, struct gup_range_edu_query *req)
{
	struct ib_umem *umem = h->umem;

	if (ib_umem_is_contiguous(umem))
		req->contig = ib_umem_start_dma_addr(umem);
	req->pgsz = ib_umem_find_best_pgsz(umem, req->pgsz_bitmap,
					   h->range.start);
	req->segs = ib_umem_num_dma_blocks(umem, PAGE_SIZE);
}
