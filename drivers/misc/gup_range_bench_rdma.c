// SPDX-License-Identifier: GPL-2.0-only
/*
 * The paths of the bench that go through the RDMA core: a memory region as a
 * driver registers it, without the page table of the device.
 */
#include <linux/build_bug.h>
#include <linux/hmm.h>
#include <rdma/ib_umem_odp.h>
#include <rdma/ib_verbs.h>

#include "gup_range_bench.h"

struct bench_ibdev {
	struct ib_device	ibdev;
};

struct bench_rdma {
	struct ib_device		*ibdev;
	struct ib_umem			*umem;
	struct gup_range_map_stats	before;
};

static struct bench_rdma *bench_rdma(struct bench *b)
{
	BUILD_BUG_ON(sizeof(struct bench_rdma) > sizeof(b->ours));
	return (struct bench_rdma *)b->ours;
}

static size_t bench_len(const struct bench *b)
{
	return b->nr << PAGE_SHIFT;
}

static int rdma_access(const struct bench *b)
{
	return b->write ? IB_ACCESS_LOCAL_WRITE : IB_ACCESS_REMOTE_READ;
}

/* Not registered: umems only look at the DMA device. */
static int umem_setup(struct bench *b)
{
	struct bench_ibdev *dev = ib_alloc_device(bench_ibdev, ibdev);

	if (!dev)
		return -ENOMEM;
	dev->ibdev.dma_device = b->dev;
	bench_rdma(b)->ibdev = &dev->ibdev;
	return 0;
}

static void umem_teardown(struct bench *b)
{
	ib_dealloc_device(bench_rdma(b)->ibdev);
}

static int umem_map(struct bench *b)
{
	struct bench_rdma *r = bench_rdma(b);

	r->umem = ib_umem_get_va(r->ibdev, b->start, bench_len(b),
				 rdma_access(b));
	return PTR_ERR_OR_ZERO(r->umem);
}

static void umem_mapped(struct bench *b)
{
	struct gup_range_map_stats now;

	now = gup_range_map_stats(&bench_rdma(b)->umem->map);
	b->links = now.links;
	b->syncs = now.syncs;
	b->flushes = dma_use_iova(&bench_rdma(b)->umem->map.state);
}

static void umem_unmap(struct bench *b)
{
	ib_umem_release(bench_rdma(b)->umem);
}

static struct ib_umem_odp *bench_odp(struct bench *b)
{
	return to_ib_umem_odp(bench_rdma(b)->umem);
}

static bool odp_invalidate(struct mmu_interval_notifier *notifier,
			   const struct mmu_notifier_range *range,
			   unsigned long seq)
{
	struct ib_umem_odp *odp = container_of(notifier, struct ib_umem_odp,
					       notifier);

	if (!mmu_notifier_range_blockable(range))
		return false;
	mutex_lock(&odp->umem_mutex);
	mmu_interval_set_seq(notifier, seq);
	ib_umem_odp_unmap_dma_pages(odp, range->start, range->end);
	mutex_unlock(&odp->umem_mutex);
	return true;
}

static const struct mmu_interval_notifier_ops odp_ops = {
	.invalidate = odp_invalidate,
};

static int odp_setup(struct bench *b)
{
	struct bench_rdma *r = bench_rdma(b);
	struct ib_umem_odp *odp;
	int ret;

	ret = umem_setup(b);
	if (ret)
		return ret;
	odp = ib_umem_odp_get(r->ibdev, b->start, bench_len(b),
			      rdma_access(b) | IB_ACCESS_ON_DEMAND, &odp_ops,
			      NULL);
	if (!IS_ERR(odp)) {
		r->umem = &odp->umem;
		return 0;
	}
	umem_teardown(b);
	return PTR_ERR(odp);
}

static void odp_teardown(struct bench *b)
{
	ib_umem_release(bench_rdma(b)->umem);
	umem_teardown(b);
}

static void odp_before(struct bench *b)
{
	bench_rdma(b)->before = hmm_range_map_stats(&bench_odp(b)->map);
}

/* As pagefault_real_mr() and populate_mtt() of mlx5, but for the MTTs. */
static int odp_map_span(struct bench *b, unsigned long start, unsigned long nr)
{
	unsigned long end = start + (nr << PAGE_SHIFT);
	struct ib_umem_odp *odp = bench_odp(b);
	struct hmm_range_seg seg;
	int ret;

	ret = ib_umem_odp_map_dma_and_lock(odp, start, end - start,
					   b->write ? HMM_PFN_WRITE : 0, true);
	if (ret < 0)
		return ret;
	hmm_range_for_each_seg(&odp->map, &seg, start, end)
		nr -= seg.len >> PAGE_SHIFT;
	mutex_unlock(&odp->umem_mutex);
	return nr ? -EIO : 0;
}

static void odp_unmap_span(struct bench *b, unsigned long start,
			   unsigned long nr)
{
	struct ib_umem_odp *odp = bench_odp(b);

	mutex_lock(&odp->umem_mutex);
	ib_umem_odp_unmap_dma_pages(odp, start, start + (nr << PAGE_SHIFT));
	mutex_unlock(&odp->umem_mutex);
}

static int odp_map(struct bench *b)
{
	return odp_map_span(b, b->start, b->nr);
}

static int odp_map_part(struct bench *b)
{
	return odp_map_span(b, b->part, b->part_nr);
}

static void odp_mapped(struct bench *b)
{
	struct bench_rdma *r = bench_rdma(b);
	struct gup_range_map_stats now = hmm_range_map_stats(&bench_odp(b)->map);

	b->links = now.links - r->before.links;
	b->syncs = now.syncs - r->before.syncs;
	r->before = now;
}

static void odp_unmap(struct bench *b)
{
	odp_unmap_span(b, b->start, b->nr);
}

static void odp_unmap_part(struct bench *b)
{
	odp_unmap_span(b, b->part, b->part_nr);
}

static void odp_after(struct bench *b)
{
	b->flushes = hmm_range_map_stats(&bench_odp(b)->map).flushes -
		     bench_rdma(b)->before.flushes;
}

/* The rest, which was not to be timed. */
static void odp_after_part(struct bench *b)
{
	odp_after(b);
	odp_unmap(b);
}

const struct bench_path gup_range_bench_rdma[GUP_RANGE_BENCH_PATHS] = {
	[GUP_RANGE_BENCH_RDMA_UMEM] = {
		.setup		= umem_setup,
		.teardown	= umem_teardown,
		.map		= umem_map,
		.mapped		= umem_mapped,
		.unmap		= umem_unmap,
	},
	[GUP_RANGE_BENCH_RDMA_ODP] = {
		.setup		= odp_setup,
		.teardown	= odp_teardown,
		.before		= odp_before,
		.map		= odp_map,
		.mapped		= odp_mapped,
		.unmap		= odp_unmap,
		.after		= odp_after,
	},
	[GUP_RANGE_BENCH_RDMA_FAULT] = {
		.setup		= odp_setup,
		.teardown	= odp_teardown,
		.before		= odp_before,
		.map		= odp_map_part,
		.mapped		= odp_mapped,
		.unmap		= odp_unmap_part,
		.after		= odp_after,
	},
	[GUP_RANGE_BENCH_RDMA_INVALIDATE] = {
		.setup		= odp_setup,
		.teardown	= odp_teardown,
		.before		= odp_before,
		.map		= odp_map,
		.mapped		= odp_mapped,
		.unmap		= odp_unmap_part,
		.after		= odp_after_part,
	},
};
