// SPDX-License-Identifier: GPL-2.0-only
#include <linux/gup_range.h>
#include <linux/hmm.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/platform_device.h>

#define ex_tlb(ex, ...) __iowrite64_copy((ex)->tlb, (u64[]){ __VA_ARGS__ }, 3)
struct ex {	/* made up; its probe() and who calls ex_*() are left out */
	u64 __iomem *tlb;	/* va, length, address; 0: drop, end its DMA */
	struct device *dev;
	struct gup_range range;		/* pinned */
	struct gup_range_map map;
	struct hmm_range_map mirror;	/* mirrored */
	struct mutex lock;		/* protects mirror, tlb */
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

static int ex_publish(struct hmm_range_map *map, unsigned long va,
		      unsigned long end)
{
	struct ex *ex = container_of(map, struct ex, mirror);
	struct hmm_range_seg seg;

	hmm_range_for_each_seg(map, &seg, va, end)
		ex_tlb(ex, seg.va, seg.len, seg.addr);
	return 0;
}

static void ex_zap(struct hmm_range_map *map, unsigned long va,
		   unsigned long end)
{
	ex_tlb(container_of(map, struct ex, mirror), va, end - va, 0);
}

static const struct hmm_range_map_ops ex_ops = {
	.publish = ex_publish,
	.zap = ex_zap,
};

static int __maybe_unused ex_mirror(struct ex *ex, unsigned long va, size_t len)
{
	return hmm_range_map_insert(&ex->mirror, ex->dev, PAGE_SIZE, current->mm,
				    va, len, &ex_ops, &ex->lock);
}

static int __maybe_unused ex_fault(struct ex *ex, unsigned long va, size_t len)
{
	struct hmm_range range = {
		.start = va, .end = va + len,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE };

	return hmm_range_dma_map(&range, &ex->mirror);
}

static void __maybe_unused ex_unmirror(struct ex *ex)
{
	hmm_range_map_destroy(&ex->mirror);
}

static struct platform_driver ex_driver = { .driver = { .name = "gup_ex" } };
module_platform_driver(ex_driver);
MODULE_DESCRIPTION("Both modes of gup_range");
MODULE_LICENSE("GPL");
