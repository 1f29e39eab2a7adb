// SPDX-License-Identifier: GPL-2.0-only
#include <linux/gup_range.h>
#include <linux/hmm.h>
#include <linux/io.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/platform_device.h>

#define ex_tlb(ex, ...) __iowrite64_copy((ex)->tlb, (u64[]){ __VA_ARGS__ }, 3)
struct ex {	/* made up; its probe() and who calls ex_*() are left out */
	u64 __iomem *tlb;	/* va, length, address; 0: drop, end its DMA */
	struct device *dev;
	struct gup_range range;			/* pinned */
	struct mmu_interval_notifier mni;	/* mirrored */
	struct gup_range_map map;		/* either; not both */
	struct mutex lock;	/* mirrored: protects map, tlb */
};

static int __maybe_unused ex_map(struct ex *ex, unsigned long va, size_t len)
{
	int ret = gup_range_map_init(&ex->map, ex->dev, PAGE_SIZE);
	struct gup_range_seg seg;

	ex->range = (struct gup_range){
		.start = va, .end = va + len, .mm = current->mm,
		.flags = GUP_RANGE_WRITE, .acct = GUP_RANGE_ACCT_PINNED_VM };
	ret = ret ?: gup_range_dma_map(&ex->range, &ex->map);
	if (!ret)
		gup_range_map_for_each_seg(&ex->map, &seg, SZ_1M)
			ex_tlb(ex, va + seg.offset, seg.len, seg.addr);
	return ret;
}

static void __maybe_unused ex_unmap(struct ex *ex)
{
	ex_tlb(ex, 0, U64_MAX, 0);
	gup_range_dma_unmap(&ex->range, &ex->map);
}

static bool ex_inv(struct mmu_interval_notifier *mni,
		   const struct mmu_notifier_range *range, unsigned long seq)
{
	struct ex *ex = container_of(mni, struct ex, mni);
	unsigned long start = range->start, end = range->end;

	if (!mmu_notifier_range_blockable(range))
		return false;
	guard(mutex)(&ex->lock);
	mmu_interval_set_seq(mni, seq);
	if (!gup_range_map_protected(&ex->map))
		ex_tlb(ex, 0, U64_MAX, 0);
	hmm_range_dma_unmap(&ex->map, &start, &end);
	ex_tlb(ex, start, end - start, 0);	/* maybe more than *range */
	return true;
}

static const struct mmu_interval_notifier_ops ex_ops = { .invalidate = ex_inv };

static int __maybe_unused ex_mirror(struct ex *ex, unsigned long va, size_t len)
{
	int ret = mmu_interval_notifier_insert(&ex->mni, current->mm, va, len,
					       &ex_ops);

	if (ret)
		return ret;
	ret = hmm_range_map_init(&ex->map, ex->dev, PAGE_SIZE, &ex->mni,
				 &ex->lock);
	if (ret)
		mmu_interval_notifier_remove(&ex->mni);
	return ret;
}

static int __maybe_unused ex_fault(struct ex *ex, unsigned long va, size_t len)
{
	struct hmm_range range = {
		.notifier = &ex->mni, .start = va, .end = va + len,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE };
	int ret = hmm_range_dma_map(&range, &ex->map);
	dma_addr_t addr;

	if (ret)
		return ret;
	gup_range_map_addr(&ex->map, va, &addr, &len);
	ex_tlb(ex, va, len, addr);	/* beyond len the device asks again */
	mutex_unlock(&ex->lock);
	return 0;
}

static void __maybe_unused ex_unmirror(struct ex *ex)
{
	scoped_guard(mutex, &ex->lock)
		ex_tlb(ex, 0, U64_MAX, 0);
	hmm_range_map_destroy(&ex->map);
	mmu_interval_notifier_remove(&ex->mni);
}

static struct platform_driver ex_driver = { .driver = { .name = "gup_ex" } };
module_platform_driver(ex_driver);
MODULE_DESCRIPTION("Both modes of gup_range");
MODULE_LICENSE("GPL");
