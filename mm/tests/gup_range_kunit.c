// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for user ranges and their DMA mappings. The device is directly
 * mapped: what an IOMMU does is tested with drivers/misc/gup_range_edu.c.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/hmm.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/prandom.h>
#include <linux/sched/mm.h>
#include <linux/sched/user.h>
#include <linux/sizes.h>
#include <linux/swiotlb.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "../gup_range.h"

#define TEST_ORDER	4
#define TEST_PAGES	BIT(TEST_ORDER)
#define TEST_SIZE	(TEST_PAGES << PAGE_SHIFT)
#define TEST_ALL	GENMASK(TEST_PAGES - 1, 0)

/* The first page of a block of mm/hmm_dma.c, and 8 pages before it. */
#define TEST_VA		((unsigned long)SZ_256M)
#define TEST_VA_CROSS	(TEST_VA - 8 * PAGE_SIZE)

#define TEST_READ	HMM_PFN_REQ_FAULT
#define TEST_WRITE	(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE)

struct gup_test {
	struct device		*dev;
	u64			dma_mask;
	/* Physically contiguous, and how they are mapped into user memory. */
	struct page		*pages;
	unsigned int		layout[TEST_PAGES];
	unsigned long		disturb;	/* invalidate at this fault */
	unsigned long		va;
	struct file		*file;
	/* Really pinned and mapped. */
	struct gup_range	range;
	struct gup_range_map	map;
	struct gup_range_map	map2;
	/* Built by hand. */
	struct gup_range	fake;
	struct gup_range_map	fake_map;
	/* Mirrored. */
	struct hmm_range_map	mirror;
	struct mmu_interval_notifier notifier;
	bool			inserted;
	struct mutex		lock;		/* protects @mirror */
	unsigned int		nr_invalidated;
	unsigned int		nr_zapped;
	unsigned long		zapped_start;	/* of the last one */
	unsigned long		zapped_end;
	unsigned int		nr_published;
	unsigned long		published;	/* where the last one ended */
	int			publish_ret;
	bool			folio;		/* @pages are one folio */
};

static int test_init(struct kunit *test, bool folio)
{
	struct gup_test *ctx;
	unsigned int i;

	ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ctx);
	mutex_init(&ctx->lock);
	ctx->disturb = ULONG_MAX;
	for (i = 0; i < TEST_PAGES; i++)
		ctx->layout[i] = i;

	ctx->dev = kunit_device_register(test, "gup_range");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, ctx->dev);
	ctx->dev->dma_mask = &ctx->dma_mask;
	KUNIT_ASSERT_EQ(test, 0,
			dma_set_mask_and_coherent(ctx->dev, DMA_BIT_MASK(64)));
	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());

	ctx->folio = folio;
	ctx->pages = alloc_pages(GFP_KERNEL | __GFP_ZERO |
				 (folio ? __GFP_COMP : 0), TEST_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, ctx->pages);
	if (!folio)
		split_page(ctx->pages, TEST_ORDER);
	test->priv = ctx;
	return 0;
}

static int gup_test_init(struct kunit *test)
{
	return test_init(test, false);
}

/* In another thread, also after a failed assertion. */
static void gup_test_exit(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned int i;

	if (!ctx)
		return;
	if (ctx->mirror.notifier)
		hmm_range_map_destroy(&ctx->mirror);
	if (ctx->inserted)
		mmu_interval_notifier_remove(&ctx->notifier);
	if (ctx->map.range)
		gup_range_dma_unmap(ctx->map.range, &ctx->map);
	if (ctx->map2.range)
		gup_range_dma_unmap(ctx->map2.range, &ctx->map2);
	if (ctx->range.runs.nr)
		gup_range_unpin(&ctx->range);
	gup_seq_free(&ctx->fake.runs);
	gup_seq_free(&ctx->fake_map.dma);
	if (ctx->file)
		fput(ctx->file);
	for (i = 0; i < TEST_PAGES && ctx->pages && !ctx->folio; i++)
		__free_page(ctx->pages + i);
	if (ctx->folio)
		__free_pages(ctx->pages, TEST_ORDER);
}

/* ---- user memory ---- */

static unsigned long test_anon(struct kunit *test, unsigned long nr,
			       unsigned long prot)
{
	unsigned long va;

	va = kunit_vm_mmap(test, NULL, 0, nr << PAGE_SHIFT, prot,
			   MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, va, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(va));
	return va;
}

static void test_disturb(struct gup_test *ctx, struct vm_fault *vmf)
{
	struct mmu_notifier_range range;

	if (vmf->pgoff != ctx->disturb)
		return;
	ctx->disturb = ULONG_MAX;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, vmf->vma->vm_mm,
				ctx->va, ctx->va + TEST_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
}

static vm_fault_t test_fault(struct vm_fault *vmf)
{
	struct gup_test *ctx = vmf->vma->vm_file->private_data;

	if (vmf->pgoff >= TEST_PAGES)
		return VM_FAULT_SIGBUS;
	test_disturb(ctx, vmf);
	vmf->page = ctx->pages + ctx->layout[vmf->pgoff];
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct test_vm_ops = {
	.fault = test_fault,
};

static int test_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &test_vm_ops;
	return 0;
}

static const struct file_operations test_fops = {
	.mmap = test_mmap,
};

/* TEST_PAGES pages of user memory at @va: ctx->pages in order of ctx->layout. */
static void test_file(struct kunit *test, unsigned long va, unsigned long prot)
{
	struct gup_test *ctx = test->priv;
	struct file *file;

	file = anon_inode_getfile("[gup_range]", &test_fops, ctx, O_RDWR);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	ctx->file = file;
	ctx->va = va;
	KUNIT_ASSERT_EQ(test, va,
			kunit_vm_mmap(test, file, va, TEST_SIZE, prot,
				      MAP_SHARED | MAP_FIXED, 0));
}

static void test_set_range(struct gup_range *range, unsigned long start,
			   unsigned long end, unsigned int flags)
{
	*range = (struct gup_range){
		.start = start,
		.end = end,
		.mm = current->mm,
		.flags = flags,
	};
}

static bool test_bounces(struct gup_test *ctx)
{
	return is_swiotlb_force_bounce(ctx->dev);
}

static long test_pins_once(void)
{
	long pins = global_node_page_state(NR_FOLL_PIN_ACQUIRED) -
		    global_node_page_state(NR_FOLL_PIN_RELEASED);
	struct pglist_data *pgdat;
	int cpu;

	for_each_online_pgdat(pgdat) {
		for_each_online_cpu(cpu) {
			struct per_cpu_nodestat *p =
				per_cpu_ptr(pgdat->per_cpu_nodestats, cpu);

			pins += p->vm_node_stat_diff[NR_FOLL_PIN_ACQUIRED];
			pins -= p->vm_node_stat_diff[NR_FOLL_PIN_RELEASED];
		}
	}
	return pins;
}

/* References that FOLL_PIN holds; the differences may be folded meanwhile. */
static long test_pins(void)
{
	long pins, again = test_pins_once();

	do {
		pins = again;
		again = test_pins_once();
	} while (pins != again);
	return pins;
}

/* ---- sequences ---- */

static void test_seq_fill(struct kunit *test, struct gup_range_seq *seq,
			  unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		KUNIT_ASSERT_EQ(test, 0, gup_seq_push(seq, i, nr - i));
}

/* Entry @i, or ~0 if there is none. */
static u64 test_seq_val(const struct gup_range_seq *seq, unsigned long i)
{
	const struct gup_range_block *block = seq->first;

	if (!block && i < seq->nr)
		return seq->one;
	for (; block && i >= block->nr; block = block->next)
		i -= block->nr;
	return block ? block->val[i] : ~0ULL;
}

static void seq_push_many(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *seq = &ctx->fake.runs;
	unsigned long i;

	test_seq_fill(test, seq, GUP_BLOCK_MAX * 2 + 3);
	KUNIT_EXPECT_EQ(test, seq->nr, GUP_BLOCK_MAX * 2 + 3);
	for (i = 0; i < seq->nr; i++)
		KUNIT_EXPECT_EQ(test, test_seq_val(seq, i), i);
	KUNIT_EXPECT_EQ(test, test_seq_val(seq, i), ~0ULL);
}

static void seq_one(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *seq = &ctx->fake.runs;

	KUNIT_EXPECT_EQ(test, 0, gup_seq_push(seq, 7, 100));
	KUNIT_EXPECT_EQ(test, seq->nr, 1);
	KUNIT_EXPECT_EQ(test, test_seq_val(seq, 0), 7);
	KUNIT_EXPECT_EQ(test, gup_seq_bytes(seq), 0);
}

static void seq_bytes_many(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *seq = &ctx->fake.runs;

	/* Small blocks, then full ones, and the last for what is expected. */
	test_seq_fill(test, seq, GUP_BLOCK_MAX * 2 + 3);
	KUNIT_EXPECT_GE(test, gup_seq_bytes(seq),
			(GUP_BLOCK_MAX * 2 + 3) * sizeof(u64));
	KUNIT_EXPECT_LE(test, gup_seq_bytes(seq),
			(GUP_BLOCK_MAX * 2 + 3) * sizeof(u64) * 17 / 16);
}

static void seq_bytes_few(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *seq = &ctx->fake.runs;

	test_seq_fill(test, seq, 3);
	KUNIT_EXPECT_EQ(test, gup_seq_bytes(seq),
			kmalloc_size_roundup(sizeof(struct gup_range_block) +
					     3 * sizeof(u64)));
}

static void seq_expect_too_small(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *seq = &ctx->fake.runs;

	KUNIT_EXPECT_EQ(test, 0, gup_seq_push(seq, 1, 0));
	KUNIT_EXPECT_EQ(test, 0, gup_seq_push(seq, 2, 0));
	KUNIT_EXPECT_EQ(test, seq->nr, 2);
	KUNIT_EXPECT_EQ(test, gup_seq_bytes(seq),
			kmalloc_size_roundup(sizeof(struct gup_range_block) +
					     2 * sizeof(u64)));
}

static void seq_free(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *seq = &ctx->fake.runs;

	test_seq_fill(test, seq, GUP_BLOCK_MAX + 1);
	gup_seq_free(seq);
	KUNIT_EXPECT_EQ(test, seq->nr, 0);
	KUNIT_EXPECT_NULL(test, seq->first);
	KUNIT_EXPECT_NULL(test, seq->last);
	KUNIT_EXPECT_EQ(test, gup_seq_bytes(seq), 0);
}

/* ---- runs ---- */

struct test_run {
	unsigned long	page;	/* of ctx->pages */
	unsigned long	nr;
};

static const struct runs_add_param {
	const char	*desc;
	struct test_run	add[5];
	struct test_run	want[5];
} runs_add_params[] = {
	{ "adjacent", { {0, 1}, {1, 1}, {2, 1} }, { {0, 3} } },
	{ "one", { {7, 1} }, { {7, 1} } },
	{ "gap", { {0, 1}, {2, 1} }, { {0, 1}, {2, 1} } },
	{ "alias", { {3, 1}, {3, 1} }, { {3, 1}, {3, 1} } },
	{ "descending", { {2, 1}, {1, 1}, {0, 1} },
	  { {2, 1}, {1, 1}, {0, 1} } },
	{ "batches", { {0, 4}, {4, 4}, {8, 8} }, { {0, 16} } },
	{ "batches with a gap", { {0, 4}, {5, 3}, {8, 1} },
	  { {0, 4}, {5, 4} } },
	{ "back and on", { {4, 2}, {0, 2}, {2, 2}, {4, 1} },
	  { {4, 2}, {0, 5} } },
};

KUNIT_ARRAY_PARAM_DESC(runs_add, runs_add_params, desc);

static void test_add_runs(struct kunit *test, struct gup_range_seq *runs,
			  const struct test_run *add, unsigned int nr)
{
	struct gup_test *ctx = test->priv;

	for (; nr && add->nr; add++, nr--)
		KUNIT_ASSERT_EQ(test, 0,
				gup_runs_add(runs, page_to_pfn(ctx->pages) +
					     add->page, add->nr, nr));
}

static void runs_add(struct kunit *test)
{
	const struct runs_add_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *runs = &ctx->fake.runs;
	unsigned long pfn = page_to_pfn(ctx->pages);
	unsigned int i;

	test_add_runs(test, runs, p->add, ARRAY_SIZE(p->add));
	for (i = 0; i < ARRAY_SIZE(p->want) && p->want[i].nr; i++) {
		KUNIT_ASSERT_LT(test, i, runs->nr);
		KUNIT_EXPECT_EQ(test, test_seq_val(runs, i),
				gup_run(pfn + p->want[i].page, p->want[i].nr));
	}
	KUNIT_EXPECT_EQ(test, i, runs->nr);
}

/* Three user pages: two contiguous ones, and one elsewhere. */
/* Not over the boundary that no folio crosses. */
static void runs_add_boundary(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seq *runs = &ctx->fake.runs;
	unsigned long max = GUP_RUN_MAX_PAGES;

	KUNIT_ASSERT_EQ(test, 0, gup_runs_add(runs, max - 1, 1, 4));
	KUNIT_ASSERT_EQ(test, 0, gup_runs_add(runs, max, max - 1, 3));
	KUNIT_ASSERT_EQ(test, 0, gup_runs_add(runs, 2 * max - 1, 1, 2));
	KUNIT_ASSERT_EQ(test, 0, gup_runs_add(runs, 2 * max, 1, 1));
	KUNIT_ASSERT_EQ(test, runs->nr, 3);
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 0), gup_run(max - 1, 1));
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 1), gup_run(max, max));
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 2), gup_run(2 * max, 1));
}

static const struct test_run test_three[] = { {0, 2}, {5, 1} };

static void test_fake(struct kunit *test, unsigned long off, unsigned long cut)
{
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->fake, TEST_VA + off,
		       TEST_VA + 3 * PAGE_SIZE - cut, 0);
	test_add_runs(test, &ctx->fake.runs, test_three,
		      ARRAY_SIZE(test_three));
	ctx->fake_map.range = &ctx->fake;
	ctx->fake_map.piece = SIZE_MAX;
}

static const struct run_trim_param {
	const char	*desc;
	unsigned long	off;	/* of the first byte in the first page */
	unsigned long	cut;	/* bytes of the last page that are not in */
} run_trim_params[] = {
	{ "whole pages", 0, 0 },
	{ "start + 1", 1, 0 },
	{ "end - 1", 0, 1 },
	{ "start + 1, end - 1", 1, 1 },
	{ "last byte of the first page", PAGE_SIZE - 1, 0 },
	{ "first byte of the last page", 0, PAGE_SIZE - 1 },
	{ "one byte at both ends", PAGE_SIZE - 1, PAGE_SIZE - 1 },
};

KUNIT_ARRAY_PARAM_DESC(run_trim, run_trim_params, desc);

static void run_trim(struct kunit *test)
{
	const struct run_trim_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	struct gup_range_run run = {};

	test_fake(test, p->off, p->cut);
	KUNIT_ASSERT_TRUE(test, gup_range_run_next(&ctx->fake, &run));
	KUNIT_EXPECT_EQ(test, run.offset, 0);
	KUNIT_EXPECT_EQ(test, run.phys, page_to_phys(ctx->pages) + p->off);
	KUNIT_EXPECT_EQ(test, run.len, 2 * PAGE_SIZE - p->off);
	KUNIT_ASSERT_TRUE(test, gup_range_run_next(&ctx->fake, &run));
	KUNIT_EXPECT_EQ(test, run.offset, 2 * PAGE_SIZE - p->off);
	KUNIT_EXPECT_EQ(test, run.phys, page_to_phys(ctx->pages + 5));
	KUNIT_EXPECT_EQ(test, run.len, PAGE_SIZE - p->cut);
	KUNIT_EXPECT_FALSE(test, gup_range_run_next(&ctx->fake, &run));
}

static void run_sum(struct kunit *test)
{
	const struct run_trim_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	struct gup_range_run run;
	size_t sum = 0;

	test_fake(test, p->off, p->cut);
	gup_range_for_each_run(&ctx->fake, &run) {
		KUNIT_EXPECT_EQ(test, run.offset, sum);
		sum += run.len;
	}
	KUNIT_EXPECT_EQ(test, sum, ctx->fake.end - ctx->fake.start);
}

static void run_one_byte(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_run run = {};

	test_set_range(&ctx->fake, TEST_VA + 77, TEST_VA + 78, 0);
	test_add_runs(test, &ctx->fake.runs, &(struct test_run){3, 1}, 1);
	KUNIT_ASSERT_TRUE(test, gup_range_run_next(&ctx->fake, &run));
	KUNIT_EXPECT_EQ(test, run.phys, page_to_phys(ctx->pages + 3) + 77);
	KUNIT_EXPECT_EQ(test, run.len, 1);
	KUNIT_EXPECT_FALSE(test, gup_range_run_next(&ctx->fake, &run));
}

/* More runs than a block holds; every second page, so that none coalesce. */
static void run_blocks(struct kunit *test)
{
	unsigned long i, nr = GUP_BLOCK_MAX + 2;
	struct gup_test *ctx = test->priv;
	struct gup_range_run run;
	unsigned long seen = 0;

	test_set_range(&ctx->fake, TEST_VA, TEST_VA + (nr << PAGE_SHIFT), 0);
	for (i = 0; i < nr; i++)
		KUNIT_ASSERT_EQ(test, 0, gup_seq_push(&ctx->fake.runs,
						      gup_run(2 * i, 1),
						      nr - i));
	gup_range_for_each_run(&ctx->fake, &run) {
		KUNIT_EXPECT_EQ(test, run.phys, PFN_PHYS(2 * seen));
		KUNIT_EXPECT_EQ(test, run.offset, seen << PAGE_SHIFT);
		seen++;
	}
	KUNIT_EXPECT_EQ(test, seen, nr);
}

static void run_none(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_run run = {};

	test_set_range(&ctx->fake, TEST_VA, TEST_VA + PAGE_SIZE, 0);
	KUNIT_EXPECT_FALSE(test, gup_range_run_next(&ctx->fake, &run));
}

/* ---- segments ---- */

#define TEST_IOVA	((dma_addr_t)SZ_1G)
#define TEST_OFFSET	((dma_addr_t)SZ_1M)

static void test_fake_iova(struct kunit *test, unsigned long off,
			   unsigned long cut)
{
	struct gup_test *ctx = test->priv;

	test_fake(test, off, cut);
	ctx->fake_map.state.addr = TEST_IOVA;
	ctx->fake_map.state.__size = SZ_1M;
	ctx->fake_map.slack = 2 * PAGE_SIZE;
}

static void seg_iova(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct gup_range_seg seg = {};

	test_fake_iova(test, 5, 7);
	KUNIT_ASSERT_TRUE(test, gup_range_map_seg_next(&ctx->fake_map, &seg,
						       SIZE_MAX));
	KUNIT_EXPECT_EQ(test, seg.addr, TEST_IOVA + 2 * PAGE_SIZE + 5);
	KUNIT_EXPECT_EQ(test, seg.len, 3 * PAGE_SIZE - 12);
	KUNIT_EXPECT_EQ(test, seg.offset, 0);
	KUNIT_EXPECT_FALSE(test, gup_range_map_seg_next(&ctx->fake_map, &seg,
							SIZE_MAX));
}

static const struct seg_max_param {
	const char	*desc;
	size_t		max;
} seg_max_params[] = {
	{ "1000", 1000 },
	{ "page - 1", PAGE_SIZE - 1 },
	{ "page", PAGE_SIZE },
	{ "page + 1", PAGE_SIZE + 1 },
	{ "all", 3 * PAGE_SIZE - 12 },
	{ "no limit", SIZE_MAX },
};

KUNIT_ARRAY_PARAM_DESC(seg_max, seg_max_params, desc);

static void seg_iova_max(struct kunit *test)
{
	const struct seg_max_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	struct gup_range_seg seg;
	size_t sum = 0;

	test_fake_iova(test, 5, 7);
	gup_range_map_for_each_seg(&ctx->fake_map, &seg, p->max) {
		KUNIT_EXPECT_EQ(test, seg.offset, sum);
		KUNIT_EXPECT_EQ(test, seg.addr,
				TEST_IOVA + 2 * PAGE_SIZE + 5 + sum);
		KUNIT_EXPECT_EQ(test, seg.len,
				min(p->max, 3 * PAGE_SIZE - 12 - sum));
		sum += seg.len;
	}
	KUNIT_EXPECT_EQ(test, sum, 3 * PAGE_SIZE - 12);
}

/* What test_fake(test, 5, 7) has at @offset, and how far that run goes. */
static phys_addr_t test_fake_phys(struct gup_test *ctx, size_t offset,
				  size_t *left)
{
	size_t first = 2 * PAGE_SIZE - 5;

	if (offset < first) {
		*left = first - offset;
		return page_to_phys(ctx->pages) + 5 + offset;
	}
	*left = 3 * PAGE_SIZE - 12 - offset;
	return page_to_phys(ctx->pages + 5) + offset - first;
}

static void seg_direct_max(struct kunit *test)
{
	const struct seg_max_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	struct gup_range_seg seg;
	size_t sum = 0, left;

	test_fake(test, 5, 7);
	ctx->fake_map.dma_offset = TEST_OFFSET;
	gup_range_map_for_each_seg(&ctx->fake_map, &seg, p->max) {
		KUNIT_EXPECT_EQ(test, seg.offset, sum);
		KUNIT_EXPECT_EQ(test, seg.addr, TEST_OFFSET +
				test_fake_phys(ctx, sum, &left));
		KUNIT_EXPECT_EQ(test, seg.len, min(p->max, left));
		sum += seg.len;
	}
	KUNIT_EXPECT_EQ(test, sum, 3 * PAGE_SIZE - 12);
}

/* Pieces as bounce buffers make them; a segment never crosses one. */
static void seg_pieces(struct kunit *test)
{
	const struct seg_max_param *p = test->param_value;
	size_t nr = 0, piece = PAGE_SIZE / 2, sum = 0, in = 0, left;
	struct gup_test *ctx = test->priv;
	struct gup_range_map *map = &ctx->fake_map;
	struct gup_range_seg seg;

	test_fake(test, 5, 7);
	map->piece = piece;
	/* 3.99 + 1.99 pieces */
	for (nr = 0; nr < 6; nr++)
		KUNIT_ASSERT_EQ(test, 0,
				gup_seq_push(&map->dma, (nr + 1) * SZ_1M,
					     6 - nr));
	nr = 0;
	gup_range_map_for_each_seg(map, &seg, p->max) {
		test_fake_phys(ctx, sum - in, &left);
		left = min(left, piece) - in;
		KUNIT_EXPECT_EQ(test, seg.addr, (nr + 1) * SZ_1M + in);
		KUNIT_EXPECT_EQ(test, seg.len, min(p->max, left));
		sum += seg.len;
		in += seg.len;
		if (seg.len == left) {
			nr++;
			in = 0;
		}
	}
	KUNIT_EXPECT_EQ(test, nr, 6);
	KUNIT_EXPECT_EQ(test, sum, 3 * PAGE_SIZE - 12);
}

static void contig_iova(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	dma_addr_t addr = 0;

	test_fake_iova(test, 5, 7);
	KUNIT_EXPECT_EQ(test, 0, gup_range_map_contig(&ctx->fake_map, &addr));
	KUNIT_EXPECT_EQ(test, addr, TEST_IOVA + 2 * PAGE_SIZE + 5);
}

static void contig_two_runs(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	dma_addr_t addr;

	test_fake(test, 0, 0);
	KUNIT_EXPECT_EQ(test, -ERANGE,
			gup_range_map_contig(&ctx->fake_map, &addr));
}

static void contig_one_run(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	dma_addr_t addr = 0;

	test_fake(test, 9, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, 0, gup_range_map_contig(&ctx->fake_map, &addr));
	KUNIT_EXPECT_EQ(test, addr, page_to_phys(ctx->pages) + 9);
}

static const struct addr_param {
	const char	*desc;
	long		off;	/* from gup_range.start */
	int		ret;
} addr_params[] = {
	{ "before", -1, -EINVAL },
	{ "first byte", 0, 0 },
	{ "last byte of a run", 2 * PAGE_SIZE - 6, 0 },
	{ "first byte of a run", 2 * PAGE_SIZE - 5, 0 },
	{ "last byte", 3 * PAGE_SIZE - 13, 0 },
	{ "end", 3 * PAGE_SIZE - 12, -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(addr, addr_params, desc);

static void addr_direct(struct kunit *test)
{
	const struct addr_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	size_t len = 0, left;
	dma_addr_t addr = 0;

	test_fake(test, 5, 7);
	KUNIT_EXPECT_EQ(test, p->ret,
			gup_range_map_addr(&ctx->fake_map,
					   ctx->fake.start + p->off, &addr,
					   &len));
	if (p->ret)
		return;
	KUNIT_EXPECT_EQ(test, addr, test_fake_phys(ctx, p->off, &left));
	KUNIT_EXPECT_EQ(test, len, left);
}

static void addr_iova(struct kunit *test)
{
	const struct addr_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	dma_addr_t addr = 0;
	size_t len = 0;

	test_fake_iova(test, 5, 7);
	KUNIT_EXPECT_EQ(test, p->ret,
			gup_range_map_addr(&ctx->fake_map,
					   ctx->fake.start + p->off, &addr,
					   &len));
	if (p->ret)
		return;
	KUNIT_EXPECT_EQ(test, addr, TEST_IOVA + 2 * PAGE_SIZE + 5 + p->off);
	KUNIT_EXPECT_EQ(test, len, 3 * PAGE_SIZE - 12 - p->off);
}

static void addr_not_mapped(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	dma_addr_t addr;
	size_t len;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			gup_range_map_addr(&ctx->fake_map, TEST_VA, &addr,
					   &len));
}

#define TEST_PGSZ	((unsigned long)(SZ_4K | SZ_2M | SZ_1G))

static const struct pgsz_param {
	const char	*desc;
	unsigned long	start;
	unsigned long	len;
	dma_addr_t	iova;	/* of the page of @start; 0: two runs */
	unsigned long	pfn[2];
	unsigned long	sizes;
	unsigned long	want;
} pgsz_params[] = {
	{ "1G", SZ_1G, SZ_2G, SZ_2G, {}, TEST_PGSZ, SZ_1G },
	{ "not larger than the range", SZ_1G, SZ_2M, SZ_2G, {}, TEST_PGSZ,
	  SZ_2M },
	{ "smallest that holds it", SZ_1G + SZ_4K, SZ_8K, SZ_2G + SZ_4K, {},
	  TEST_PGSZ, SZ_2M },
	{ "equal", SZ_1G + SZ_4K, SZ_4K, SZ_1G + SZ_4K, {}, TEST_PGSZ, SZ_4K },
	{ "2M", SZ_1G + SZ_2M, SZ_4M, SZ_2G, {}, TEST_PGSZ, SZ_2M },
	{ "2M, unaligned ends", SZ_1G + SZ_2M + 5, SZ_4M, SZ_2G, {}, TEST_PGSZ,
	  SZ_2M },
	{ "4K", SZ_1G + SZ_4K, SZ_4M, SZ_2G, {}, TEST_PGSZ, SZ_4K },
	{ "no 4K", SZ_1G + SZ_4K, SZ_4M, SZ_2G, {}, SZ_2M | SZ_1G, 0 },
	{ "misaligned", SZ_1G, SZ_4M, SZ_2G + SZ_2K, {}, TEST_PGSZ, 0 },
	{ "misaligned, 2K", SZ_1G, SZ_4M, SZ_2G + SZ_2K, {}, SZ_2K | SZ_4K,
	  SZ_2K },
	{ "no sizes", SZ_1G, SZ_4M, SZ_2G, {}, 0, 0 },
	{ "runs of 2M", SZ_1G, SZ_4M, 0, { SZ_2M, SZ_8M }, TEST_PGSZ, SZ_2M },
	{ "runs of 2M, last one short", SZ_1G, SZ_2M + 5, 0, { SZ_2M, SZ_8M },
	  TEST_PGSZ, SZ_2M },
	{ "runs of 2M, off", SZ_1G, SZ_4M, 0, { SZ_2M, SZ_8M + SZ_64K },
	  SZ_64K | SZ_2M, SZ_64K },
	{ "runs of 2M, off, no size", SZ_1G, SZ_4M, 0,
	  { SZ_2M, SZ_8M + SZ_64K }, SZ_2M, 0 },
	{ "run ends off", SZ_1G + SZ_64K, SZ_4M, 0,
	  { SZ_4M + SZ_64K, SZ_8M + SZ_64K }, SZ_64K | SZ_2M, SZ_64K },
};

KUNIT_ARRAY_PARAM_DESC(pgsz, pgsz_params, desc);

static void pgsz(struct kunit *test)
{
	const struct pgsz_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	struct gup_range_map *map = &ctx->fake_map;
	unsigned int i;

	test_set_range(&ctx->fake, p->start, p->start + p->len, 0);
	map->range = &ctx->fake;
	map->piece = SIZE_MAX;
	map->state.addr = p->iova;
	map->state.__size = p->iova ? SZ_1G : 0;
	for (i = 0; i < 2 && !p->iova; i++)
		KUNIT_ASSERT_EQ(test, 0,
				gup_seq_push(&ctx->fake.runs,
					     gup_run(p->pfn[i] >> PAGE_SHIFT,
						     SZ_2M >> PAGE_SHIFT),
					     2 - i));
	KUNIT_EXPECT_EQ(test, p->want, gup_range_map_pgsz(map, p->sizes));
}

/* ---- refusals ---- */

static void init_no_device(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	KUNIT_EXPECT_EQ(test, -EINVAL,
			gup_range_map_init(&ctx->map, NULL, PAGE_SIZE));
}

static void init_no_mask(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->dev->dma_mask = NULL;
	KUNIT_EXPECT_EQ(test, -EINVAL,
			gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE));
}

static const struct granule_param {
	const char	*desc;
	size_t		granule;
	int		ret;
} granule_params[] = {
	{ "0", 0, -EINVAL },
	{ "3", 3, -EINVAL },
	{ "1", 1, 0 },
	{ "page", PAGE_SIZE, 0 },
	{ "2M", SZ_2M, 0 },
	{ "page + 1", PAGE_SIZE + 1, -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(granule, granule_params, desc);

static void init_granule(struct kunit *test)
{
	const struct granule_param *p = test->param_value;
	struct gup_test *ctx = test->priv;

	KUNIT_EXPECT_EQ(test, p->ret,
			gup_range_map_init(&ctx->map, ctx->dev, p->granule));
}

static void map_granule_too_large(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 0);
}

static void map_not_initialised(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 0);
}

static void map_busy(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_EQ(test, -EBUSY,
			gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_EQ(test, ctx->range.nr_maps, 1);
}

/* Runs of kernel pages, which need no pin; 16 pages aligned to 16. */
static const struct meet_param {
	const char	*desc;
	struct test_run	run[3];
	unsigned long	off;	/* pages */
	unsigned long	granule;	/* pages */
	int		ret;
} meet_params[] = {
	{ "congruent", { {0, 4} }, 0, 2, 0 },
	{ "one page off", { {1, 4} }, 0, 2, -ERANGE },
	{ "both one page off", { {1, 4} }, 1, 2, 0 },
	{ "runs of a granule", { {4, 2}, {0, 2} }, 0, 2, 0 },
	{ "run shorter than a granule", { {4, 3}, {1, 1} }, 0, 2, -ERANGE },
	{ "granule of a page", { {3, 1}, {1, 1} }, 0, 1, 0 },
	{ "second run off", { {4, 2}, {1, 2} }, 0, 2, -ERANGE },
	{ "only the first end off", { {1, 1}, {4, 2} }, 1, 2, 0 },
};

KUNIT_ARRAY_PARAM_DESC(meet, meet_params, desc);

static void map_granule(struct kunit *test)
{
	const struct meet_param *p = test->param_value;
	unsigned long nr = p->run[0].nr + p->run[1].nr;
	struct gup_test *ctx = test->priv;

	/* Where bounce buffers lie is theirs to decide. */
	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	test_set_range(&ctx->fake, TEST_VA + p->off * PAGE_SIZE,
		       TEST_VA + (p->off + nr) * PAGE_SIZE, 0);
	test_add_runs(test, &ctx->fake.runs, p->run, ARRAY_SIZE(p->run));
	gup_range_map_init(&ctx->map, ctx->dev, p->granule * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, p->ret,
			gup_range_dma_map(&ctx->fake, &ctx->map));
	KUNIT_EXPECT_EQ(test, ctx->fake.nr_maps, !p->ret);
}

static const struct pin_bad_param {
	const char	*desc;
	unsigned long	start;
	unsigned long	end;
	unsigned int	flags;
	unsigned int	acct;
	bool		no_mm;
	int		ret;
} pin_bad_params[] = {
	{ "empty", TEST_VA, TEST_VA, .ret = -EINVAL },
	{ "start > end", TEST_VA + 1, TEST_VA, .ret = -EINVAL },
	{ "no mm", TEST_VA, TEST_VA + 1, .no_mm = true, .ret = -EINVAL },
	{ "unknown flag", TEST_VA, TEST_VA + 1, .flags = 2, .ret = -EINVAL },
	{ "bad acct", TEST_VA, TEST_VA + 1, .acct = GUP_RANGE_ACCT_USER + 1,
	  .ret = -EINVAL },
	{ "last page", PAGE_MASK - PAGE_SIZE, PAGE_MASK + 1,
	  .ret = -EOVERFLOW },
	{ "last byte", PAGE_MASK - PAGE_SIZE, ULONG_MAX, .ret = -EOVERFLOW },
	{ "hole", TEST_VA, TEST_VA + 1, .ret = -EFAULT },
	{ "hole, charged", TEST_VA, TEST_VA + PAGE_SIZE,
	  .acct = GUP_RANGE_ACCT_PINNED_VM, .ret = -EFAULT },
	{ "kernel", PAGE_MASK - 2 * PAGE_SIZE, PAGE_MASK - PAGE_SIZE,
	  .ret = -EFAULT },
};

KUNIT_ARRAY_PARAM_DESC(pin_bad, pin_bad_params, desc);

static void pin_bad(struct kunit *test)
{
	const struct pin_bad_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	s64 pinned = atomic64_read(&current->mm->pinned_vm);

	test_set_range(&ctx->range, p->start, p->end, p->flags);
	ctx->range.acct = p->acct;
	if (p->no_mm)
		ctx->range.mm = NULL;
	KUNIT_EXPECT_EQ(test, p->ret, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 0);
	KUNIT_EXPECT_EQ(test, pinned, atomic64_read(&current->mm->pinned_vm));
}

/* The same refusals come from gup_range_dma_map(). */
static void map_bad(struct kunit *test)
{
	const struct pin_bad_param *p = test->param_value;
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, p->start, p->end, p->flags);
	ctx->range.acct = p->acct;
	if (p->no_mm)
		ctx->range.mm = NULL;
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, p->ret,
			gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_NULL(test, ctx->map.range);
}

static void pin_kernel_address(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long va = (unsigned long)page_address(ctx->pages);

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	KUNIT_EXPECT_EQ(test, -EFAULT, gup_range_pin(&ctx->range));
}

static void pin_hole_in_the_middle(struct kunit *test)
{
	unsigned long va = test_anon(test, 8, PROT_READ | PROT_WRITE);
	s64 pinned = atomic64_read(&current->mm->pinned_vm);
	struct gup_test *ctx = test->priv;
	long pins = test_pins();

	KUNIT_ASSERT_EQ(test, 0, vm_munmap(va + 5 * PAGE_SIZE, PAGE_SIZE));
	test_set_range(&ctx->range, va, va + 8 * PAGE_SIZE, GUP_RANGE_WRITE);
	ctx->range.acct = GUP_RANGE_ACCT_PINNED_VM;
	KUNIT_EXPECT_EQ(test, -EFAULT, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, pins, test_pins());
	KUNIT_EXPECT_EQ(test, pinned, atomic64_read(&current->mm->pinned_vm));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 0);
}

static void pin_read_only_for_write(struct kunit *test)
{
	unsigned long va = test_anon(test, 1, PROT_READ);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + PAGE_SIZE, GUP_RANGE_WRITE);
	KUNIT_EXPECT_EQ(test, -EFAULT, gup_range_pin(&ctx->range));
}

static void pin_busy(struct kunit *test)
{
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, -EBUSY, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 1);
}

static void pin_exited(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	mmgrab(mm);
	mmput(mm);
	test_set_range(&ctx->range, TEST_VA, TEST_VA + PAGE_SIZE, 0);
	ctx->range.mm = mm;
	KUNIT_EXPECT_EQ(test, -ESRCH, gup_range_pin(&ctx->range));
	ctx->range.mm = NULL;
	mmdrop(mm);
}

/* ---- misuse ---- */

static void warn_unpin_twice(struct kunit *test)
{
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	gup_range_unpin(&ctx->range);
	kunit_warning_suppress(test) {
		gup_range_unpin(&ctx->range);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
}

static void warn_unpin_mapped(struct kunit *test)
{
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	kunit_warning_suppress(test) {
		gup_range_unpin(&ctx->range);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 1);
}

static void warn_unmap_twice(struct kunit *test)
{
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	gup_range_dma_unmap(&ctx->range, &ctx->map);
	kunit_warning_suppress(test) {
		gup_range_dma_unmap(&ctx->range, &ctx->map);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, ctx->range.nr_maps, 0);
}

static void warn_unmap_other_range(struct kunit *test)
{
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	kunit_warning_suppress(test) {
		gup_range_dma_unmap(&ctx->fake, &ctx->map);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_PTR_EQ(test, ctx->map.range, &ctx->range);
}

/* ---- pinned user memory ---- */

static phys_addr_t test_user_phys(unsigned long va)
{
	struct page *page;
	phys_addr_t phys;

	if (get_user_pages_fast(va & PAGE_MASK, 1, 0, &page) != 1)
		return -1;
	phys = page_to_phys(page) + offset_in_page(va);
	put_page(page);
	return phys;
}

static void pin_runs_cover(struct kunit *test)
{
	unsigned long va = test_anon(test, 8, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	struct gup_range_run run;
	size_t off, sum = 0;

	test_set_range(&ctx->range, va + 5, va + 8 * PAGE_SIZE - 7,
		       GUP_RANGE_WRITE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	gup_range_for_each_run(&ctx->range, &run) {
		KUNIT_EXPECT_EQ(test, run.offset, sum);
		for (off = 0; off < run.len; off += PAGE_SIZE)
			KUNIT_EXPECT_EQ(test, run.phys + off,
					test_user_phys(va + 5 + sum + off));
		sum += run.len;
	}
	KUNIT_EXPECT_EQ(test, sum, 8 * PAGE_SIZE - 12);
}

/* More than GUP returns at once. */
static void pin_batches(struct kunit *test)
{
	unsigned long nr = 2 * (PAGE_SIZE / sizeof(struct page *)) + 6;
	unsigned long va = test_anon(test, nr, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	struct gup_range_run run;
	size_t sum = 0;

	test_set_range(&ctx->range, va, va + nr * PAGE_SIZE, GUP_RANGE_WRITE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	gup_range_for_each_run(&ctx->range, &run) {
		KUNIT_EXPECT_EQ(test, run.phys, test_user_phys(va + sum));
		sum += run.len;
	}
	KUNIT_EXPECT_EQ(test, sum, nr * PAGE_SIZE);
}

static void pin_counts(struct kunit *test)
{
	unsigned long va = test_anon(test, 8, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	long pins = test_pins();

	test_set_range(&ctx->range, va, va + 8 * PAGE_SIZE, GUP_RANGE_WRITE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, pins + 8, test_pins());
	gup_range_unpin(&ctx->range);
	KUNIT_EXPECT_EQ(test, pins, test_pins());
}

/* Pages of a file in an order of our own: descending, then an alias. */
static void pin_layout(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long pfn = page_to_pfn(ctx->pages);
	struct gup_range_seq *runs = &ctx->range.runs;

	ctx->layout[0] = 1;
	ctx->layout[1] = 0;
	ctx->layout[3] = 2;
	test_file(test, TEST_VA, PROT_READ | PROT_WRITE);
	test_set_range(&ctx->range, TEST_VA, TEST_VA + TEST_SIZE, 0);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	KUNIT_ASSERT_EQ(test, runs->nr, 5);
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 0), gup_run(pfn + 1, 1));
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 1), gup_run(pfn, 1));
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 2), gup_run(pfn + 2, 1));
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 3), gup_run(pfn + 2, 1));
	KUNIT_EXPECT_EQ(test, test_seq_val(runs, 4), gup_run(pfn + 4, 12));
}

/* From a thread that has no mm. */
static void pin_remote(struct kunit *test)
{
	unsigned long va = test_anon(test, 4, PROT_READ | PROT_WRITE);
	struct mm_struct *mm = current->mm;
	struct gup_test *ctx = test->priv;
	phys_addr_t phys;
	int ret;

	test_set_range(&ctx->range, va, va + 4 * PAGE_SIZE, GUP_RANGE_WRITE);
	kthread_unuse_mm(mm);
	ret = gup_range_pin(&ctx->range);
	kthread_use_mm(mm);
	KUNIT_ASSERT_EQ(test, 0, ret);
	phys = PFN_PHYS(gup_run_pfn(test_seq_val(&ctx->range.runs, 0)));
	KUNIT_EXPECT_EQ(test, phys, test_user_phys(va));
}

static const struct write_param {
	const char	*desc;
	unsigned int	flags;
} write_params[] = {
	{ "read", 0 },
	{ "write", GUP_RANGE_WRITE },
};

KUNIT_ARRAY_PARAM_DESC(write, write_params, desc);

static void unpin_dirties(struct kunit *test)
{
	const struct write_param *p = test->param_value;
	unsigned long va = test_anon(test, 1, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	struct folio *folio;
	bool dirty;
	u64 run;

	KUNIT_ASSERT_EQ(test, 0, put_user(1, (int __user *)va));
	test_set_range(&ctx->range, va, va + PAGE_SIZE, p->flags);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	run = test_seq_val(&ctx->range.runs, 0);
	folio = page_folio(pfn_to_page(gup_run_pfn(run)));
	folio_get(folio);
	folio_clear_dirty(folio);
	gup_range_unpin(&ctx->range);
	dirty = folio_test_dirty(folio);
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, dirty, !!p->flags);
}

static const struct order_param {
	const char	*desc;
	bool		pin;
	bool		reverse;
} order_params[] = {
	{ "auto pin, in order", false, false },
	{ "auto pin, in reverse", false, true },
	{ "pin, in order", true, false },
	{ "pin, in reverse", true, true },
};

KUNIT_ARRAY_PARAM_DESC(order, order_params, desc);

/* Read-only: DMA debugging dislikes to see a page mapped twice for writing. */
static void two_maps(struct kunit *test)
{
	const struct order_param *p = test->param_value;
	unsigned long va = test_anon(test, 4, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	struct gup_range *range = &ctx->range;
	long pins = test_pins();

	test_set_range(range, va, va + 4 * PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	gup_range_map_init(&ctx->map2, ctx->dev, PAGE_SIZE);
	if (p->pin)
		KUNIT_ASSERT_EQ(test, 0, gup_range_pin(range));
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(range, &ctx->map));
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(range, &ctx->map2));
	gup_range_dma_unmap(range, p->reverse ? &ctx->map2 : &ctx->map);
	KUNIT_EXPECT_NE(test, range->runs.nr, 0);
	gup_range_dma_unmap(range, p->reverse ? &ctx->map : &ctx->map2);
	KUNIT_EXPECT_EQ(test, range->runs.nr != 0, p->pin);
	if (p->pin)
		gup_range_unpin(range);
	KUNIT_EXPECT_EQ(test, pins, test_pins());
}

static void map_again(struct kunit *test)
{
	unsigned long va = test_anon(test, 4, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;

	test_set_range(&ctx->range, va, va + 4 * PAGE_SIZE, GUP_RANGE_WRITE);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	gup_range_dma_unmap(&ctx->range, &ctx->map);
	KUNIT_EXPECT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	gup_range_dma_unmap(&ctx->range, &ctx->map);
}

/* The pages are pinned when it turns out that they do not meet the granule. */
static void map_failure_unpins(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long pins = test_pins();

	ctx->layout[0] = 1;
	ctx->layout[1] = 0;
	test_file(test, TEST_VA, PROT_READ | PROT_WRITE);
	test_set_range(&ctx->range, TEST_VA, TEST_VA + TEST_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, -ERANGE,
			gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 0);
	KUNIT_EXPECT_NULL(test, ctx->map.range);
	KUNIT_EXPECT_EQ(test, pins, test_pins());
}

static void map_failure_keeps_pin(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->layout[0] = 1;
	ctx->layout[1] = 0;
	test_file(test, TEST_VA, PROT_READ | PROT_WRITE);
	test_set_range(&ctx->range, TEST_VA, TEST_VA + TEST_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, 2 * PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, -ERANGE,
			gup_range_dma_map(&ctx->range, &ctx->map));
	KUNIT_EXPECT_EQ(test, ctx->range.runs.nr, 3);
}

/* Also with bounce buffers. */
static void map_segs_cover(struct kunit *test)
{
	const struct write_param *p = test->param_value;
	unsigned long va = test_anon(test, 8, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	struct gup_range_seg seg;
	size_t sum = 0;

	test_set_range(&ctx->range, va + 5, va + 8 * PAGE_SIZE - 7, p->flags);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	gup_range_map_for_each_seg(&ctx->map, &seg, PAGE_SIZE) {
		KUNIT_EXPECT_EQ(test, seg.offset, sum);
		KUNIT_EXPECT_LE(test, seg.len, PAGE_SIZE);
		sum += seg.len;
	}
	KUNIT_EXPECT_EQ(test, sum, 8 * PAGE_SIZE - 12);
	KUNIT_EXPECT_FALSE(test, gup_range_map_protected(&ctx->map));
}

static void map_addr_is_phys(struct kunit *test)
{
	unsigned long va = test_anon(test, 8, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	dma_addr_t addr = 0;
	unsigned long i;
	size_t len;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	test_set_range(&ctx->range, va, va + 8 * PAGE_SIZE, GUP_RANGE_WRITE);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	for (i = 0; i < 8; i++) {
		KUNIT_EXPECT_EQ(test, 0,
				gup_range_map_addr(&ctx->map,
						   va + i * PAGE_SIZE + i,
						   &addr, &len));
		KUNIT_EXPECT_EQ(test, addr,
				test_user_phys(va + i * PAGE_SIZE + i));
	}
}

/* The device did nothing, so the contents are what they were. */
static void map_sync(struct kunit *test)
{
	unsigned long va = test_anon(test, 2, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	int val = 0;

	KUNIT_ASSERT_EQ(test, 0, put_user(1, (int __user *)(va + 8)));
	test_set_range(&ctx->range, va + 8, va + 2 * PAGE_SIZE - 8,
		       GUP_RANGE_WRITE);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	gup_range_map_sync_for_cpu(&ctx->map);
	KUNIT_EXPECT_EQ(test, 0, put_user(2, (int __user *)(va + 8)));
	gup_range_map_sync_for_device(&ctx->map);
	gup_range_dma_unmap(&ctx->range, &ctx->map);
	KUNIT_EXPECT_EQ(test, 0, get_user(val, (int __user *)(va + 8)));
	KUNIT_EXPECT_EQ(test, val, 2);
}

static void map_stats(struct kunit *test)
{
	unsigned long va = test_anon(test, 2, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	struct gup_range_map_stats stats;

	test_set_range(&ctx->range, va, va + 2 * PAGE_SIZE, 0);
	gup_range_map_init(&ctx->map, ctx->dev, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0, gup_range_dma_map(&ctx->range, &ctx->map));
	stats = gup_range_map_stats(&ctx->map);
	KUNIT_EXPECT_GE(test, stats.links, ctx->range.runs.nr);
	KUNIT_EXPECT_EQ(test, stats.metadata,
			gup_seq_bytes(&ctx->range.runs) +
			gup_seq_bytes(&ctx->map.dma));
	gup_range_dma_unmap(&ctx->range, &ctx->map);
	KUNIT_EXPECT_EQ(test, gup_range_map_stats(&ctx->map).metadata, 0);
}

static const struct acct_param {
	const char	*desc;
	enum gup_range_acct acct;
} acct_params[] = {
	{ "none", GUP_RANGE_ACCT_NONE },
	{ "pinned_vm", GUP_RANGE_ACCT_PINNED_VM },
	{ "locked_vm", GUP_RANGE_ACCT_LOCKED_VM },
	{ "user", GUP_RANGE_ACCT_USER },
};

KUNIT_ARRAY_PARAM_DESC(acct, acct_params, desc);

static long test_charged(enum gup_range_acct acct)
{
	switch (acct) {
	case GUP_RANGE_ACCT_PINNED_VM:
		return atomic64_read(&current->mm->pinned_vm);
	case GUP_RANGE_ACCT_LOCKED_VM:
		return current->mm->locked_vm;
	case GUP_RANGE_ACCT_USER:
		return atomic_long_read(&current_user()->locked_vm);
	default:
		return 0;
	}
}

/* Unaligned: 4 pages and a bit are 5 to be charged for. Of nobody else. */
static void acct_charge(struct kunit *test)
{
	const struct acct_param *p = test->param_value;
	unsigned long va = test_anon(test, 5, PROT_READ | PROT_WRITE);
	long before[GUP_RANGE_ACCT_USER + 1];
	struct gup_test *ctx = test->priv;
	enum gup_range_acct i;

	for (i = 0; i <= GUP_RANGE_ACCT_USER; i++)
		before[i] = test_charged(i);
	test_set_range(&ctx->range, va + PAGE_SIZE - 1, va + 4 * PAGE_SIZE + 1,
		       GUP_RANGE_WRITE);
	ctx->range.acct = p->acct;
	KUNIT_ASSERT_EQ(test, 0, gup_range_pin(&ctx->range));
	for (i = GUP_RANGE_ACCT_PINNED_VM; i <= GUP_RANGE_ACCT_USER; i++)
		KUNIT_EXPECT_EQ(test, test_charged(i) - before[i],
				i == p->acct ? 5 : 0);
	gup_range_unpin(&ctx->range);
	for (i = 0; i <= GUP_RANGE_ACCT_USER; i++)
		KUNIT_EXPECT_EQ(test, test_charged(i), before[i]);
}

static void acct_failure(struct kunit *test)
{
	const struct acct_param *p = test->param_value;
	unsigned long va = test_anon(test, 4, PROT_READ | PROT_WRITE);
	long before = test_charged(p->acct);
	struct gup_test *ctx = test->priv;

	KUNIT_ASSERT_EQ(test, 0, vm_munmap(va + 3 * PAGE_SIZE, PAGE_SIZE));
	test_set_range(&ctx->range, va, va + 4 * PAGE_SIZE, 0);
	ctx->range.acct = p->acct;
	KUNIT_EXPECT_EQ(test, -EFAULT, gup_range_pin(&ctx->range));
	KUNIT_EXPECT_EQ(test, before, test_charged(p->acct));
}

static struct kunit_case gup_range_cases[] = {
	KUNIT_CASE(seq_push_many),
	KUNIT_CASE(seq_one),
	KUNIT_CASE(seq_bytes_many),
	KUNIT_CASE(seq_bytes_few),
	KUNIT_CASE(seq_expect_too_small),
	KUNIT_CASE(seq_free),
	KUNIT_CASE_PARAM(runs_add, runs_add_gen_params),
	KUNIT_CASE(runs_add_boundary),
	KUNIT_CASE_PARAM(run_trim, run_trim_gen_params),
	KUNIT_CASE_PARAM(run_sum, run_trim_gen_params),
	KUNIT_CASE(run_one_byte),
	KUNIT_CASE(run_blocks),
	KUNIT_CASE(run_none),
	KUNIT_CASE(seg_iova),
	KUNIT_CASE_PARAM(seg_iova_max, seg_max_gen_params),
	KUNIT_CASE_PARAM(seg_direct_max, seg_max_gen_params),
	KUNIT_CASE_PARAM(seg_pieces, seg_max_gen_params),
	KUNIT_CASE(contig_iova),
	KUNIT_CASE(contig_two_runs),
	KUNIT_CASE(contig_one_run),
	KUNIT_CASE_PARAM(addr_direct, addr_gen_params),
	KUNIT_CASE_PARAM(addr_iova, addr_gen_params),
	KUNIT_CASE(addr_not_mapped),
	KUNIT_CASE_PARAM(pgsz, pgsz_gen_params),
	KUNIT_CASE(init_no_device),
	KUNIT_CASE(init_no_mask),
	KUNIT_CASE_PARAM(init_granule, granule_gen_params),
	KUNIT_CASE(map_granule_too_large),
	KUNIT_CASE(map_not_initialised),
	KUNIT_CASE(map_busy),
	KUNIT_CASE_PARAM(map_granule, meet_gen_params),
	KUNIT_CASE_PARAM(pin_bad, pin_bad_gen_params),
	KUNIT_CASE_PARAM(map_bad, pin_bad_gen_params),
	KUNIT_CASE(pin_kernel_address),
	KUNIT_CASE(pin_hole_in_the_middle),
	KUNIT_CASE(pin_read_only_for_write),
	KUNIT_CASE(pin_busy),
	KUNIT_CASE(pin_exited),
	KUNIT_CASE(warn_unpin_twice),
	KUNIT_CASE(warn_unpin_mapped),
	KUNIT_CASE(warn_unmap_twice),
	KUNIT_CASE(warn_unmap_other_range),
	KUNIT_CASE(pin_runs_cover),
	KUNIT_CASE(pin_batches),
	KUNIT_CASE(pin_counts),
	KUNIT_CASE(pin_layout),
	KUNIT_CASE(pin_remote),
	KUNIT_CASE_PARAM(unpin_dirties, write_gen_params),
	KUNIT_CASE_PARAM(two_maps, order_gen_params),
	KUNIT_CASE(map_again),
	KUNIT_CASE(map_failure_unpins),
	KUNIT_CASE(map_failure_keeps_pin),
	KUNIT_CASE_PARAM(map_segs_cover, write_gen_params),
	KUNIT_CASE(map_addr_is_phys),
	KUNIT_CASE(map_sync),
	KUNIT_CASE(map_stats),
	KUNIT_CASE_PARAM(acct_charge, acct_gen_params),
	KUNIT_CASE_PARAM(acct_failure, acct_gen_params),
	{}
};

static struct kunit_suite gup_range_suite = {
	.name = "gup_range",
	.init = gup_test_init,
	.exit = gup_test_exit,
	.test_cases = gup_range_cases,
};

/* ---- mirrored ---- */

static bool hmm_test_invalidate(struct mmu_interval_notifier *notifier,
				const struct mmu_notifier_range *range,
				unsigned long cur_seq)
{
	struct gup_test *ctx = container_of(notifier, struct gup_test, notifier);
	unsigned long start = range->start, end = range->end;

	if (!mmu_notifier_range_blockable(range))
		return false;
	mutex_lock(&ctx->lock);
	mmu_interval_set_seq(notifier, cur_seq);
	hmm_range_dma_unmap(&ctx->mirror, &start, &end);
	ctx->nr_invalidated++;
	mutex_unlock(&ctx->lock);
	return true;
}

static const struct mmu_interval_notifier_ops hmm_test_ops = {
	.invalidate = hmm_test_invalidate,
};

/* One folio, which is a unit where its pages are mapped in their order. */
static int hmm_test_init(struct kunit *test)
{
	return test_init(test, true);
}

static int hmm_test_publish(struct hmm_range_map *map, unsigned long start,
			    unsigned long end)
{
	struct gup_test *ctx = container_of(map, struct gup_test, mirror);

	lockdep_assert_held(&ctx->lock);
	/* One after the other, and all of it mapped. */
	if ((ctx->nr_published && start != ctx->published) || start >= end)
		return -EPROTO;
	ctx->nr_published++;
	ctx->published = end;
	return ctx->publish_ret;
}

static void hmm_test_zap(struct hmm_range_map *map, unsigned long start,
			 unsigned long end)
{
	struct gup_test *ctx = container_of(map, struct gup_test, mirror);

	lockdep_assert_held(&ctx->lock);
	ctx->nr_zapped++;
	ctx->zapped_start = start;
	ctx->zapped_end = end;
}

static const struct hmm_range_map_ops hmm_test_map_ops = {
	.publish	= hmm_test_publish,
	.zap		= hmm_test_zap,
};

static const struct hmm_range_map_ops hmm_test_software_ops = {
	.software	= true,
};

static void hmm_test_insert(struct kunit *test, struct mm_struct *mm,
			    unsigned long va)
{
	struct gup_test *ctx = test->priv;

	KUNIT_ASSERT_EQ(test, 0,
			mmu_interval_notifier_insert(&ctx->notifier, mm, va,
						     TEST_SIZE, &hmm_test_ops));
	ctx->inserted = true;
}

static int hmm_test_map_init(struct gup_test *ctx, size_t granule)
{
	return hmm_range_map_init(&ctx->mirror, ctx->dev, granule, &ctx->notifier,
				  &hmm_test_map_ops, &ctx->lock);
}

static void hmm_test_setup(struct kunit *test, unsigned long va,
			   unsigned long prot)
{
	struct gup_test *ctx = test->priv;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	test_file(test, va, prot);
	hmm_test_insert(test, current->mm, va);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map_init(ctx, PAGE_SIZE));
}

static void hmm_test_range(struct gup_test *ctx, struct hmm_range *range,
			   unsigned long first, unsigned long last,
			   unsigned long flags)
{
	*range = (struct hmm_range){
		.notifier = ctx->inserted ? &ctx->notifier : NULL,
		.start = ctx->va + first * PAGE_SIZE,
		.end = ctx->va + last * PAGE_SIZE,
		.default_flags = flags,
	};
}

/* Pages [first, last); drops the lock. No assertion may fail with it held. */
static int hmm_test_map(struct gup_test *ctx, unsigned long first,
			unsigned long last, unsigned long flags)
{
	struct hmm_range range;
	int ret;

	hmm_test_range(ctx, &range, first, last, flags);
	ctx->nr_published = 0;
	ret = hmm_range_dma_map_and_lock(&range, &ctx->mirror);
	if (!ret)
		mutex_unlock(&ctx->lock);
	return ret;
}

/* Each page by a call of its own, so that it is a unit of its own. */
static void hmm_test_map_singly(struct kunit *test, unsigned long flags)
{
	struct gup_test *ctx = test->priv;
	unsigned long i;

	for (i = 0; i < TEST_PAGES; i++)
		KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, i, i + 1, flags));
}

/* Pages [*first, *last) before and after. */
static void hmm_test_unmap(struct gup_test *ctx, long *first, long *last)
{
	unsigned long start = ctx->va + *first * PAGE_SIZE;
	unsigned long end = ctx->va + *last * PAGE_SIZE;

	mutex_lock(&ctx->lock);
	hmm_range_dma_unmap(&ctx->mirror, &start, &end);
	mutex_unlock(&ctx->lock);
	*first = (long)(start - ctx->va) / (long)PAGE_SIZE;
	*last = (long)(end - ctx->va) / (long)PAGE_SIZE;
}

static int hmm_test_addr(struct gup_test *ctx, unsigned long va,
			 dma_addr_t *addr, size_t *len)
{
	int ret;

	mutex_lock(&ctx->lock);
	ret = hmm_range_map_addr(&ctx->mirror, va, addr, len);
	mutex_unlock(&ctx->lock);
	return ret;
}

/* A bit for each page that is mapped, and to where it has to be. */
static unsigned long hmm_test_mapped(struct gup_test *ctx)
{
	unsigned long i, mapped = 0;
	dma_addr_t addr;
	size_t len;

	for (i = 0; i < TEST_PAGES; i++) {
		struct page *page = ctx->pages + ctx->layout[i];

		if (!hmm_test_addr(ctx, ctx->va + i * PAGE_SIZE, &addr, &len) &&
		    addr == page_to_phys(page))
			mapped |= BIT(i);
	}
	return mapped;
}

/* What hmm_range_for_each_seg() visits; false if it is not what there is. */
static bool hmm_test_segs(struct gup_test *ctx, unsigned long *mapped,
			  unsigned long *writable)
{
	struct hmm_range_seg seg;
	unsigned long i, nr = 0;
	bool good = true;

	*mapped = 0;
	*writable = 0;
	mutex_lock(&ctx->lock);
	hmm_range_for_each_seg(&ctx->mirror, &seg, ctx->va, ctx->va + TEST_SIZE) {
		good &= seg.len && !(seg.len % PAGE_SIZE) && seg.va >= ctx->va &&
			seg.va + seg.len <= ctx->va + TEST_SIZE;
		for (i = 0; good && i < seg.len; i += PAGE_SIZE, nr++) {
			unsigned long page = (seg.va + i - ctx->va) / PAGE_SIZE;
			dma_addr_t addr;
			size_t len;

			good &= !(*mapped & BIT(page)) &&
				!hmm_range_map_addr(&ctx->mirror, seg.va + i, &addr,
						    &len) &&
				addr == seg.addr + i;
			*mapped |= BIT(page);
			if (seg.write)
				*writable |= BIT(page);
		}
	}
	good &= nr == ctx->mirror.nr_mapped &&
		!nr == hmm_range_map_empty(&ctx->mirror);
	mutex_unlock(&ctx->lock);
	return good;
}

static u64 hmm_test_links(struct gup_test *ctx)
{
	return hmm_range_map_stats(&ctx->mirror).links;
}

static void hmm_init_bounce(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_insert(test, current->mm, TEST_VA);
	KUNIT_EXPECT_EQ(test, test_bounces(ctx) ? -EOPNOTSUPP : 0,
			hmm_test_map_init(ctx, PAGE_SIZE));
}

static const struct hmm_granule_param {
	const char	*desc;
	unsigned long	va;
	size_t		granule;
	int		ret;
} hmm_granule_params[] = {
	{ "0", TEST_VA, 0, -EINVAL },
	{ "3", TEST_VA, 3, -EINVAL },
	{ "more than a page", TEST_VA, 2 * PAGE_SIZE, -EOPNOTSUPP },
	{ "more than a page, misaligned", TEST_VA + PAGE_SIZE, 2 * PAGE_SIZE,
	  -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(hmm_granule, hmm_granule_params, desc);

static void hmm_init_granule(struct kunit *test)
{
	const struct hmm_granule_param *p = test->param_value;
	struct gup_test *ctx = test->priv;

	hmm_test_insert(test, current->mm, p->va);
	KUNIT_EXPECT_EQ(test, p->ret, hmm_test_map_init(ctx, p->granule));
	KUNIT_EXPECT_NULL(test, ctx->mirror.notifier);
}

/* A device in software: addresses are physical ones. */
static void hmm_no_device(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	test_file(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_test_insert(test, current->mm, TEST_VA);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_range_map_init(&ctx->mirror, NULL, PAGE_SIZE,
					   &ctx->notifier, NULL, &ctx->lock));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_range_map_init(&ctx->mirror, ctx->dev, PAGE_SIZE,
					   &ctx->notifier,
					   &hmm_test_software_ops, &ctx->lock));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			hmm_range_map_init(&ctx->mirror, NULL, 2 * PAGE_SIZE,
					   &ctx->notifier,
					   &hmm_test_software_ops, &ctx->lock));
	KUNIT_ASSERT_EQ(test, 0,
			hmm_range_map_init(&ctx->mirror, NULL, PAGE_SIZE,
					   &ctx->notifier,
					   &hmm_test_software_ops, &ctx->lock));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 8, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(7, 0));
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, ctx->nr_invalidated, 1);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), 0);
}

static void hmm_init_no_mask(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_insert(test, current->mm, TEST_VA);
	ctx->dev->dma_mask = NULL;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_test_map_init(ctx, PAGE_SIZE));
}

static void hmm_init_limited(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_insert(test, current->mm, TEST_VA);
	ctx->dma_mask = SZ_64K - 1;
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, hmm_test_map_init(ctx, PAGE_SIZE));
}

/* The notifier is not inserted: nothing but its range is looked at. */
static void hmm_init_last_page(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->notifier.interval_tree.start = TEST_VA;
	ctx->notifier.interval_tree.last = ULONG_MAX - 1;
	KUNIT_EXPECT_EQ(test, -EOVERFLOW, hmm_test_map_init(ctx, PAGE_SIZE));
}

static const struct hmm_bad_param {
	const char	*desc;
	long		start;	/* bytes from that of the notifier */
	long		end;
	unsigned long	flags;
	bool		foreign;
} hmm_bad_params[] = {
	{ "foreign notifier", 0, PAGE_SIZE, TEST_READ, true },
	{ "before", -1, PAGE_SIZE, TEST_READ },
	{ "after", 0, TEST_SIZE + 1, TEST_READ },
	{ "outside", TEST_SIZE, TEST_SIZE + PAGE_SIZE, TEST_READ },
	{ "empty", 0, 0, TEST_READ },
	{ "start > end", 1, 0, TEST_READ },
};

KUNIT_ARRAY_PARAM_DESC(hmm_bad, hmm_bad_params, desc);

static void hmm_map_bad(struct kunit *test)
{
	const struct hmm_bad_param *p = test->param_value;
	struct mmu_interval_notifier foreign = {};
	struct gup_test *ctx = test->priv;
	struct hmm_range range;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_test_range(ctx, &range, 0, 0, p->flags);
	range.start = ctx->va + p->start;
	range.end = ctx->va + p->end;
	if (p->foreign)
		range.notifier = &foreign;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_range_dma_map_and_lock(&range, &ctx->mirror));
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&ctx->lock));
}

static void hmm_map_not_initialised(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->va = TEST_VA;
	hmm_test_insert(test, current->mm, TEST_VA);
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_test_map(ctx, 0, 1, TEST_READ));
}

static void hmm_map_read_only(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ);
	KUNIT_EXPECT_EQ(test, -EPERM, hmm_test_map(ctx, 0, 1, TEST_WRITE));
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&ctx->lock));
}

static void hmm_map_hole(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va + 5 * PAGE_SIZE, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_test_map(ctx, 0, 8, TEST_READ));
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&ctx->lock));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), 0);
}

/* What was mapped before the failure still is. */
static void hmm_map_hole_keeps(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va + 5 * PAGE_SIZE, PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 2, TEST_READ));
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_test_map(ctx, 0, 8, TEST_READ));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(1, 0));
}

static void hmm_map_exited(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct mm_struct *mm;
	int ret;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	mm = mm_alloc();
	KUNIT_ASSERT_NOT_NULL(test, mm);
	ctx->va = TEST_VA;
	ret = mmu_interval_notifier_insert(&ctx->notifier, mm, TEST_VA,
					   TEST_SIZE, &hmm_test_ops);
	ctx->inserted = !ret;
	mmput(mm);
	KUNIT_ASSERT_EQ(test, 0, ret);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map_init(ctx, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -ESRCH, hmm_test_map(ctx, 0, 1, TEST_READ));
}

static void hmm_warn_destroy_twice(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_range_map_destroy(&ctx->mirror);
	kunit_warning_suppress(test) {
		hmm_range_map_destroy(&ctx->mirror);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
}

static void hmm_map_returns_locked(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct hmm_range range;
	bool locked;
	int ret;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_test_range(ctx, &range, 0, 1, TEST_READ);
	ret = hmm_range_dma_map_and_lock(&range, &ctx->mirror);
	locked = mutex_is_locked(&ctx->lock);
	if (!ret)
		mutex_unlock(&ctx->lock);
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_TRUE(test, locked);
}

static const struct hmm_layout_param {
	const char	*desc;
	unsigned long	va;
	unsigned long	flags;
	bool		descending;
	u64		links;
} hmm_layout_params[] = {
	{ "read, one run", TEST_VA, TEST_READ, false, 1 },
	{ "write, one run", TEST_VA, TEST_WRITE, false, 1 },
	{ "read, two tables", TEST_VA_CROSS, TEST_READ, false, 2 },
	{ "write, two tables", TEST_VA_CROSS, TEST_WRITE, false, 2 },
	{ "read, descending", TEST_VA, TEST_READ, true, TEST_PAGES },
	{ "write, descending", TEST_VA_CROSS, TEST_WRITE, true, TEST_PAGES },
};

KUNIT_ARRAY_PARAM_DESC(hmm_layout, hmm_layout_params, desc);

static void hmm_map_all(struct kunit *test)
{
	const struct hmm_layout_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	unsigned int i;

	for (i = 0; i < TEST_PAGES && p->descending; i++)
		ctx->layout[i] = TEST_PAGES - 1 - i;
	hmm_test_setup(test, p->va, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, p->flags));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), TEST_ALL);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_PAGES);
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), p->links);
}

static void hmm_map_alias(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->layout[1] = 0;
	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), TEST_ALL);
}

static void hmm_map_rounds(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct hmm_range range;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_test_range(ctx, &range, 1, 2, TEST_READ);
	range.start += 5;
	range.end += 1;
	KUNIT_ASSERT_EQ(test, 0, hmm_range_dma_map_and_lock(&range, &ctx->mirror));
	mutex_unlock(&ctx->lock);
	KUNIT_EXPECT_EQ(test, range.start, ctx->va + PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, range.end, ctx->va + 3 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(2, 1));
}

static void hmm_map_anon(struct kunit *test)
{
	unsigned long i, va = test_anon(test, TEST_PAGES, PROT_READ | PROT_WRITE);
	struct gup_test *ctx = test->priv;
	dma_addr_t addr = 0;
	size_t len;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	ctx->va = va;
	hmm_test_insert(test, current->mm, va);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map_init(ctx, PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	for (i = 0; i < TEST_PAGES; i++) {
		KUNIT_EXPECT_EQ(test, 0,
				hmm_test_addr(ctx, va + i * PAGE_SIZE, &addr,
					      &len));
		KUNIT_EXPECT_EQ(test, addr, test_user_phys(va + i * PAGE_SIZE));
	}
}

static const struct hmm_addr_param {
	const char	*desc;
	long		off;
	int		ret;
	size_t		len;
} hmm_addr_params[] = {
	{ "before the notifier", -1, -EINVAL },
	{ "not mapped yet", 0, -EFAULT },
	{ "before the unit", 4 * PAGE_SIZE - 1, -EFAULT },
	{ "first byte of the unit", 4 * PAGE_SIZE, 0, 4 * PAGE_SIZE },
	{ "inside", 5 * PAGE_SIZE + 7, 0, 3 * PAGE_SIZE - 7 },
	{ "last byte of the unit", 8 * PAGE_SIZE - 1, 0, 1 },
	{ "after the unit", 8 * PAGE_SIZE, -EFAULT },
	{ "last byte of the notifier", TEST_SIZE - 1, -EFAULT },
	{ "after the notifier", TEST_SIZE, -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(hmm_addr, hmm_addr_params, desc);

static void hmm_addr(struct kunit *test)
{
	const struct hmm_addr_param *p = test->param_value;
	struct gup_test *ctx = test->priv;
	dma_addr_t addr = 0;
	size_t len = 0;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 4, 8, TEST_READ));
	KUNIT_EXPECT_EQ(test, p->ret,
			hmm_test_addr(ctx, ctx->va + p->off, &addr, &len));
	if (p->ret)
		return;
	KUNIT_EXPECT_EQ(test, addr, page_to_phys(ctx->pages) + p->off);
	KUNIT_EXPECT_EQ(test, len, p->len);
}

static void hmm_addr_no_table(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	dma_addr_t addr;
	size_t len;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, -EFAULT,
			hmm_test_addr(ctx, ctx->va, &addr, &len));
}

/* Everything was linked by one call per table, or each page by its own. */
static const struct hmm_unmap_param {
	const char	*desc;
	unsigned long	va;
	bool		singly;
	long		first, last;		/* asked for, in pages */
	long		got_first, got_last;	/* reported */
	unsigned long	left;
} hmm_unmap_params[] = {
	{ "one page", TEST_VA, true, 3, 4, 3, 4, TEST_ALL & ~BIT(3) },
	{ "first page", TEST_VA, true, 0, 1, 0, 1, TEST_ALL & ~BIT(0) },
	{ "last page", TEST_VA, true, 15, 16, 15, 16, TEST_ALL & ~BIT(15) },
	{ "across tables", TEST_VA_CROSS, true, 7, 9, 7, 9,
	  TEST_ALL & ~(BIT(7) | BIT(8)) },
	{ "more than the notifier", TEST_VA, true, -4, 64, 0, 16, 0 },
	{ "before the notifier", TEST_VA, true, -4, -2, 0, 0, TEST_ALL },
	{ "after the notifier", TEST_VA, true, 20, 24, 20, 20, TEST_ALL },
	{ "widened to the unit", TEST_VA, false, 5, 6, 0, 16, 0 },
	{ "widened to the first unit", TEST_VA_CROSS, false, 5, 6, 0, 8,
	  GENMASK(15, 8) },
	{ "widened to the second unit", TEST_VA_CROSS, false, 8, 9, 8, 16,
	  GENMASK(7, 0) },
	{ "widened to both units", TEST_VA_CROSS, false, 7, 9, 0, 16, 0 },
};

KUNIT_ARRAY_PARAM_DESC(hmm_unmap, hmm_unmap_params, desc);

static void hmm_unmap(struct kunit *test)
{
	const struct hmm_unmap_param *p = test->param_value;
	long first = p->first, last = p->last;
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, p->va, PROT_READ | PROT_WRITE);
	if (p->singly)
		hmm_test_map_singly(test, TEST_WRITE);
	else
		KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES,
						      TEST_WRITE));
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), p->left);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, hweight_long(p->left));
	/* Where nothing was unmapped the place does not matter. */
	if (p->got_first == p->got_last) {
		KUNIT_EXPECT_EQ(test, first, last);
		return;
	}
	KUNIT_EXPECT_EQ(test, first, p->got_first);
	KUNIT_EXPECT_EQ(test, last, p->got_last);
}

static void hmm_unmap_nothing(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long first = 2, last = 5;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_EXPECT_EQ(test, first, 2);
	KUNIT_EXPECT_EQ(test, last, 5);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, 0);
}

static void hmm_unmap_before_init(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long first = 2, last = 5;

	ctx->va = TEST_VA;
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_EXPECT_EQ(test, first, last);
}

/* A bit for each page whose page table entry is dirty. */
static unsigned long test_dirty_entries(struct gup_test *ctx)
{
	unsigned long i, dirty = 0;
	struct folio_walk fw;

	mmap_read_lock(current->mm);
	for (i = 0; i < TEST_PAGES; i++) {
		unsigned long va = ctx->va + i * PAGE_SIZE;
		struct vm_area_struct *vma = vma_lookup(current->mm, va);

		if (!vma || !folio_walk_start(&fw, vma, va, 0))
			continue;
		if (fw.level == FW_LEVEL_PTE && pte_dirty(fw.pte))
			dirty |= BIT(i);
		folio_walk_end(&fw, vma);
	}
	mmap_read_unlock(current->mm);
	return dirty;
}

/* Entries that are writable and clean, as they are of shared memory. */
static void test_read_all(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	KUNIT_ASSERT_EQ(test, 0, fault_in_readable((void __user *)ctx->va,
						   TEST_PAGES * PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, 0, test_dirty_entries(ctx));
}

static const struct hmm_dirty_param {
	const char	*desc;
	bool		present;
	unsigned long	flags;
	unsigned long	dirty;
} hmm_dirty_params[] = {
	{ "read", true, TEST_READ, 0 },
	{ "write", true, TEST_WRITE, TEST_ALL },
	{ "read what was not there", false, TEST_READ, 0 },
	{ "write what was not there", false, TEST_WRITE, TEST_ALL },
};

KUNIT_ARRAY_PARAM_DESC(hmm_dirty, hmm_dirty_params, desc);

static void hmm_map_dirties(struct kunit *test)
{
	const struct hmm_dirty_param *p = test->param_value;
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	if (p->present)
		test_read_all(test);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, p->flags));
	KUNIT_EXPECT_EQ(test, test_dirty_entries(ctx), p->dirty);
}

/* What is there and clean is not there for writing. */
static void hmm_snapshot_clean(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	test_read_all(test);
	KUNIT_ASSERT_EQ(test, 0, put_user(1, (char __user *)ctx->va));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES,
					      HMM_PFN_REQ_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), BIT(0));
	KUNIT_EXPECT_EQ(test, test_dirty_entries(ctx), BIT(0));
}

/* The entry is dirty, so the folio is left alone. */
static void hmm_unmap_leaves_folio(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long first = 0, last = 1;
	unsigned int i;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	for (i = 0; i < TEST_PAGES; i++)
		folio_clear_dirty(page_folio(ctx->pages + i));
	hmm_test_unmap(ctx, &first, &last);
	for (i = 0; i < TEST_PAGES; i++)
		KUNIT_EXPECT_FALSE(test,
				   folio_test_dirty(page_folio(ctx->pages + i)));
	KUNIT_EXPECT_EQ(test, test_dirty_entries(ctx), TEST_ALL);
}

static void hmm_remap_all(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), 1);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_PAGES);
}

/* Writable is good enough for reading. */
static void hmm_remap_for_read(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), 1);
}

/* Two gaps are two links, though what is between them is mapped. */
static void hmm_remap_missing(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 4, TEST_WRITE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 8, 12, TEST_WRITE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), 4);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), TEST_ALL);
}

static void hmm_remap_after_unmap(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long first = 3, last = 4;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	hmm_test_map_singly(test, TEST_WRITE);
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), TEST_PAGES + 1);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), TEST_ALL);
}

static const struct hmm_upgrade_param {
	const char	*desc;
	unsigned long	va;
	unsigned long	first, last;		/* to be written */
	unsigned long	zap_first, zap_last;
	u64		links;			/* of the upgrade */
} hmm_upgrade_params[] = {
	{ "middle", TEST_VA, 4, 8, 0, 16, 3 },
	{ "start", TEST_VA, 0, 4, 0, 16, 2 },
	{ "end", TEST_VA, 12, 16, 0, 16, 2 },
	{ "all", TEST_VA, 0, 16, 0, 16, 1 },
	{ "of the first table", TEST_VA_CROSS, 2, 3, 0, 8, 3 },
	{ "across tables", TEST_VA_CROSS, 7, 9, 8, 16, 4 },
};

KUNIT_ARRAY_PARAM_DESC(hmm_upgrade, hmm_upgrade_params, desc);

/* The unit is taken from the device, and linked anew in parts. */
static void hmm_upgrade(struct kunit *test)
{
	const struct hmm_upgrade_param *p = test->param_value;
	unsigned long mapped, writable;
	struct gup_test *ctx = test->priv;
	u64 links;

	hmm_test_setup(test, p->va, PROT_READ | PROT_WRITE);
	ctx->mirror.base.linear = false;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_EXPECT_EQ(test, ctx->nr_zapped, 0);
	links = hmm_test_links(ctx);
	ctx->nr_published = 0;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, p->first, p->last,
					      TEST_WRITE));
	KUNIT_EXPECT_NE(test, ctx->nr_zapped, 0);
	KUNIT_EXPECT_EQ(test, ctx->zapped_start,
			ctx->va + p->zap_first * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, ctx->zapped_end,
			ctx->va + p->zap_last * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, ctx->published, ctx->va + p->last * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx) - links, p->links);
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL);
	KUNIT_EXPECT_EQ(test, writable, GENMASK(p->last - 1, p->first));
}

/* Where all is linear nothing is linked anew, and only rights change. */
static void hmm_upgrade_in_place(struct kunit *test)
{
	const struct hmm_upgrade_param *p = test->param_value;
	unsigned long mapped, writable;
	struct gup_test *ctx = test->priv;
	u64 links;

	test_file(test, p->va, PROT_READ | PROT_WRITE);
	hmm_test_insert(test, current->mm, p->va);
	/* A device in software is linear with any configuration. */
	KUNIT_ASSERT_EQ(test, 0,
			hmm_range_map_init(&ctx->mirror, NULL, PAGE_SIZE,
					   &ctx->notifier,
					   &hmm_test_software_ops, &ctx->lock));
	KUNIT_ASSERT_TRUE(test, ctx->mirror.base.linear);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	links = hmm_test_links(ctx);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, p->first, p->last,
					      TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx) - links, 0);
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL);
	KUNIT_EXPECT_EQ(test, writable, GENMASK(p->last - 1, p->first));
}

/* With a device it is the DMA API that says whether all is linear. */
static void hmm_upgrade_of_device(struct kunit *test)
{
	const struct hmm_upgrade_param *p = test->param_value;
	bool linear = !IS_ENABLED(CONFIG_DMA_API_DEBUG) &&
		      !IS_ENABLED(CONFIG_ARCH_HAS_PHYS_TO_DMA);
	unsigned long mapped, writable;
	struct gup_test *ctx = test->priv;
	u64 links;

	hmm_test_setup(test, p->va, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, ctx->mirror.base.linear, linear);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	links = hmm_test_links(ctx);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, p->first, p->last,
					      TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx) - links,
			linear ? 0 : p->links);
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL);
	KUNIT_EXPECT_EQ(test, writable, GENMASK(p->last - 1, p->first));
}

/* The ends of the range lie in two units of one table. */
static void hmm_upgrade_two_units(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	ctx->mirror.base.linear = false;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 4, TEST_READ));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 4, 8, TEST_READ));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 2, 6, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, ctx->nr_zapped, 1);
	KUNIT_EXPECT_EQ(test, ctx->zapped_start, ctx->va);
	KUNIT_EXPECT_EQ(test, ctx->zapped_end, ctx->va + 8 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(7, 0));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), 2 + 3);
}

/* Pages that are contiguous, but each a folio, are taken one by one. */
static void hmm_units_end_with_folios(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long first = 3, last = 4;

	__free_pages(ctx->pages, TEST_ORDER);
	ctx->folio = false;
	ctx->pages = alloc_pages(GFP_KERNEL | __GFP_ZERO, TEST_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, ctx->pages);
	split_page(ctx->pages, TEST_ORDER);
	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), TEST_PAGES);
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_EXPECT_EQ(test, first, 3);
	KUNIT_EXPECT_EQ(test, last, 4);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), TEST_ALL & ~BIT(3));
}

/* What was linked anew is a unit of its own. */
static void hmm_upgrade_units(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	long first = 5, last = 6;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	ctx->mirror.base.linear = false;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 4, 8, TEST_WRITE));
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_EXPECT_EQ(test, first, 4);
	KUNIT_EXPECT_EQ(test, last, 8);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), TEST_ALL & ~GENMASK(7, 4));
}

/* Read faults of what the device may write: no upgrade is needed afterwards. */
static void hmm_may_write(struct kunit *test)
{
	unsigned long mapped, writable;
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	ctx->mirror.base.linear = false;
	ctx->mirror.may_write = true;
	test_read_all(test);
	KUNIT_ASSERT_EQ(test, 0, put_user(1, (char __user *)ctx->va));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL);
	/* The others are clean. */
	KUNIT_EXPECT_EQ(test, writable, BIT(0));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 1, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, ctx->nr_zapped, 0);
}

/* The ready-made callback. */
static void hmm_insert(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	test_file(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0,
			hmm_range_map_insert(&ctx->mirror, ctx->dev, PAGE_SIZE,
					     current->mm, ctx->va, TEST_SIZE,
					     &hmm_test_map_ops, &ctx->lock));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 4, TEST_WRITE));
	ctx->nr_published = 0;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 4, 8, TEST_WRITE));
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va + 5 * PAGE_SIZE, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, ctx->nr_zapped, 1);
	KUNIT_EXPECT_EQ(test, ctx->zapped_start, ctx->va + 4 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, ctx->zapped_end, ctx->va + 8 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(3, 0));
}

static void hmm_insert_refused(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->dev->dma_mask = NULL;
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_range_map_insert(&ctx->mirror, ctx->dev, PAGE_SIZE,
					     current->mm, TEST_VA, TEST_SIZE,
					     &hmm_test_map_ops, &ctx->lock));
	KUNIT_EXPECT_NULL(test, ctx->mirror.notifier);
}

/* An error of the driver ends the call; what is mapped stays. */
static void hmm_publish_fails(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct hmm_range range;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	ctx->publish_ret = -ENOSPC;
	hmm_test_range(ctx, &range, 2, 6, TEST_WRITE);
	KUNIT_EXPECT_EQ(test, -ENOSPC, hmm_range_dma_map(&range, &ctx->mirror));
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&ctx->lock));
	KUNIT_EXPECT_EQ(test, range.end, ctx->va + 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(5, 2));
}

/* Only the entries of pages that were asked for writing are dirtied. */
static void hmm_upgrade_dirties(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_EXPECT_EQ(test, test_dirty_entries(ctx), 0);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 4, 8, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, test_dirty_entries(ctx), GENMASK(7, 4));
}

static const struct hmm_munmap_param {
	const char	*desc;
	bool		singly;
	unsigned long	left;
} hmm_munmap_params[] = {
	{ "pages", true, TEST_ALL & ~GENMASK(7, 4) },
	{ "unit", false, 0 },
};

KUNIT_ARRAY_PARAM_DESC(hmm_munmap, hmm_munmap_params, desc);

static void hmm_munmap(struct kunit *test)
{
	const struct hmm_munmap_param *p = test->param_value;
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	if (p->singly)
		hmm_test_map_singly(test, TEST_WRITE);
	else
		KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES,
						      TEST_WRITE));
	KUNIT_EXPECT_EQ(test, 0,
			vm_munmap(ctx->va + 4 * PAGE_SIZE, 4 * PAGE_SIZE));
	KUNIT_EXPECT_NE(test, ctx->nr_invalidated, 0);
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), p->left);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, hweight_long(p->left));
}

/* The pages that are still there can be mapped again. */
static void hmm_munmap_remap(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_ASSERT_EQ(test, 0,
			vm_munmap(ctx->va + 4 * PAGE_SIZE, 4 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, 0, hmm_test_map(ctx, 0, 4, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_test_map(ctx, 4, 5, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, hmm_test_mapped(ctx), GENMASK(3, 0));
}

static void hmm_stats_metadata(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	size_t one;

	hmm_test_setup(test, TEST_VA_CROSS, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, hmm_range_map_stats(&ctx->mirror).metadata, 0);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, 1, TEST_READ));
	one = hmm_range_map_stats(&ctx->mirror).metadata;
	KUNIT_EXPECT_GT(test, one, 0);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 8, 9, TEST_READ));
	KUNIT_EXPECT_EQ(test, hmm_range_map_stats(&ctx->mirror).metadata, 2 * one);
}

static void hmm_destroy_mapped(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA_CROSS, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	hmm_range_map_destroy(&ctx->mirror);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, 0);
	KUNIT_EXPECT_NULL(test, ctx->mirror.notifier);
}

/* The callback may come between destroy and the removal of the notifier. */
static void hmm_invalidate_destroyed(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	hmm_range_map_destroy(&ctx->mirror);
	KUNIT_EXPECT_EQ(test, 0, vm_munmap(ctx->va, TEST_SIZE));
	KUNIT_EXPECT_NE(test, ctx->nr_invalidated, 0);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, 0);
}

/* ---- many blocks ---- */

/* Three blocks, of which the middle one can be full. */
#define TEST_PMD	(PMD_SIZE / PAGE_SIZE)
#define TEST_MANY	(TEST_PMD + 16)
/* Where a PMD is known at boot only, as on powerpc */
#define TEST_MANY_MAX	(MAX_PTRS_PER_PTE + 16)
#define TEST_MANY_VA	TEST_VA_CROSS

static vm_fault_t test_fault_many(struct vm_fault *vmf)
{
	struct gup_test *ctx = vmf->vma->vm_file->private_data;

	test_disturb(ctx, vmf);
	vmf->page = ctx->pages + ctx->layout[vmf->pgoff % TEST_PAGES];
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct test_many_vm_ops = {
	.fault = test_fault_many,
};

static int test_mmap_many(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &test_many_vm_ops;
	return 0;
}

static const struct file_operations test_many_fops = {
	.mmap = test_mmap_many,
};

/* The pages of ctx->pages again and again, in ascending or descending order. */
static void hmm_test_many(struct kunit *test, bool descending)
{
	struct gup_test *ctx = test->priv;
	unsigned int i;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	for (i = 0; i < TEST_PAGES && descending; i++)
		ctx->layout[i] = TEST_PAGES - 1 - i;
	ctx->file = anon_inode_getfile("[gup_range]", &test_many_fops, ctx,
				       O_RDWR);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, ctx->file);
	ctx->va = TEST_MANY_VA;
	KUNIT_ASSERT_EQ(test, ctx->va,
			kunit_vm_mmap(test, ctx->file, ctx->va,
				      TEST_MANY << PAGE_SHIFT,
				      PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_FIXED, 0));
	KUNIT_ASSERT_EQ(test, 0,
			mmu_interval_notifier_insert(&ctx->notifier, current->mm,
						     ctx->va,
						     TEST_MANY << PAGE_SHIFT,
						     &hmm_test_ops));
	ctx->inserted = true;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map_init(ctx, PAGE_SIZE));
}

/* Is page @i mapped, and to the right place? */
static bool hmm_test_many_mapped(struct kunit *test, unsigned long i)
{
	struct gup_test *ctx = test->priv;
	struct page *page = ctx->pages + ctx->layout[i % TEST_PAGES];
	dma_addr_t addr;
	size_t len;

	if (hmm_test_addr(ctx, ctx->va + i * PAGE_SIZE, &addr, &len))
		return false;
	KUNIT_EXPECT_EQ(test, addr, page_to_phys(page));
	return true;
}

static size_t hmm_test_bytes(struct gup_test *ctx)
{
	return hmm_range_map_stats(&ctx->mirror).metadata;
}

static void hmm_many_units(struct kunit *test)
{
	long first = 9, last = 10, all_first = -1, all_last = TEST_MANY + 1;
	struct gup_test *ctx = test->priv;
	size_t bytes;

	hmm_test_many(test, true);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_MANY, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), TEST_MANY);
	bytes = hmm_test_bytes(ctx);
	hmm_test_unmap(ctx, &first, &last);
	KUNIT_EXPECT_EQ(test, first, 9);
	KUNIT_EXPECT_EQ(test, last, 10);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY - 1);
	KUNIT_EXPECT_FALSE(test, hmm_test_many_mapped(test, 9));
	hmm_test_unmap(ctx, &all_first, &all_last);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, 0);
	/* One of three blocks is all in the range, and is given back. */
	KUNIT_EXPECT_EQ(test, hmm_test_bytes(ctx), bytes / 3 * 2);
}

/* A fault of a later step is disturbed, which takes pages of the first one. */
static void hmm_map_retries(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	ctx->disturb = TEST_PMD + 8;
	hmm_test_many(test, true);
	ctx->mirror.ops = NULL;
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_MANY, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, ctx->nr_invalidated, 1);
	KUNIT_EXPECT_EQ(test, hmm_range_map_stats(&ctx->mirror).retries, 1);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), TEST_MANY + TEST_PAGES);
}

/* Steps are published one after the other. Without the lock at the end. */
static void hmm_map_steps(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct hmm_range range;

	hmm_test_many(test, true);
	hmm_test_range(ctx, &range, 0, TEST_MANY, TEST_WRITE);
	KUNIT_ASSERT_EQ(test, 0, hmm_range_dma_map(&range, &ctx->mirror));
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&ctx->lock));
	KUNIT_EXPECT_GE(test, ctx->nr_published, TEST_MANY / 256);
	KUNIT_EXPECT_EQ(test, ctx->published, range.end);
	KUNIT_EXPECT_EQ(test, range.end, ctx->va + (TEST_MANY << PAGE_SHIFT));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
}

/* A failure leaves what was mapped before it, and says how much that is. */
static void hmm_map_prefix(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	struct hmm_range range;
	unsigned long done;

	hmm_test_many(test, true);
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va + (TEST_MANY - 4) * PAGE_SIZE,
					   PAGE_SIZE));
	hmm_test_range(ctx, &range, 0, TEST_MANY, TEST_WRITE);
	KUNIT_ASSERT_EQ(test, -EFAULT, hmm_range_dma_map(&range, &ctx->mirror));
	done = (range.end - ctx->va) >> PAGE_SHIFT;
	KUNIT_EXPECT_NE(test, done, 0);
	KUNIT_EXPECT_LT(test, done, TEST_MANY - 3);
	KUNIT_EXPECT_EQ(test, ctx->published, range.end);
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, done);
	/* A repeat goes on from there. */
	range.start = range.end;
	range.end = ctx->va + (TEST_MANY - 4) * PAGE_SIZE;
	KUNIT_ASSERT_EQ(test, 0, hmm_range_dma_map(&range, &ctx->mirror));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY - 4);
}

/* A device that faults page by page takes no more memory than any other. */
static void hmm_many_singly(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long i, page;

	hmm_test_many(test, false);
	for (i = 0; i < TEST_MANY; i++) {
		page = i * 37 % TEST_MANY;
		KUNIT_ASSERT_EQ(test, 0,
				hmm_test_map(ctx, page, page + 1, TEST_READ));
		KUNIT_EXPECT_LE(test, hmm_test_bytes(ctx),
				3 * (TEST_PMD * 9 + 64));
	}
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
	for (i = 0; i < TEST_MANY; i++)
		KUNIT_EXPECT_TRUE(test, hmm_test_many_mapped(test, i));
}

/* Every other page is mapped; the rest comes with one call. */
static void hmm_many_gaps(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long i;

	hmm_test_many(test, false);
	for (i = 0; i < TEST_MANY; i += 2)
		KUNIT_ASSERT_EQ(test, 0,
				hmm_test_map(ctx, i, i + 1, TEST_READ));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_MANY, TEST_READ));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
	KUNIT_EXPECT_EQ(test, hmm_test_links(ctx), TEST_MANY);
	for (i = 0; i < TEST_MANY; i++)
		KUNIT_EXPECT_TRUE(test, hmm_test_many_mapped(test, i));
}

/* Single pages out of read-only units of 16 pages become writable. */
static void hmm_many_upgrades(struct kunit *test)
{
	struct gup_test *ctx = test->priv;
	unsigned long i;

	hmm_test_many(test, false);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_MANY, TEST_READ));
	for (i = 0; i < TEST_MANY; i += 5)
		KUNIT_ASSERT_EQ(test, 0,
				hmm_test_map(ctx, i, i + 1, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_MANY, TEST_WRITE));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, TEST_MANY);
	for (i = 0; i < TEST_MANY; i++)
		KUNIT_EXPECT_TRUE(test, hmm_test_many_mapped(test, i));
}

static const struct hmm_random_param {
	const char *name;
	bool relink;
} hmm_random_params[] = {
	{ "as the device needs it" },
	{ "upgrades are linked anew", .relink = true },
};

KUNIT_ARRAY_PARAM_DESC(hmm_random, hmm_random_params, name);

/*
 * What the segments of [*first, *last) are of, in pages; false if their rights
 * are others.
 */
static bool hmm_test_many_segs(struct gup_test *ctx, long *first, long *last,
			       const unsigned long *writable)
{
	unsigned long start = ctx->va + *first * PAGE_SIZE;
	unsigned long end = ctx->va + *last * PAGE_SIZE;
	struct hmm_range_seg seg;
	bool good = true;
	long i;

	mutex_lock(&ctx->lock);
	hmm_range_for_each_seg(&ctx->mirror, &seg, start, end) {
		long from = (seg.va - ctx->va) / PAGE_SIZE;
		long to = from + seg.len / PAGE_SIZE;

		for (i = from; i < to; i++)
			good &= test_bit(i, writable) == seg.write;
		*first = min(*first, from);
		*last = max(*last, to);
	}
	mutex_unlock(&ctx->lock);
	return good;
}

/*
 * Maps and unmaps of any size, against bitmaps of the pages that have to be
 * mapped and writable. An unmap can take more than asked, and then says so; the
 * segments have told it before.
 */
static void hmm_many_random(struct kunit *test)
{
	const struct hmm_random_param *p = test->param_value;
	DECLARE_BITMAP(writable, TEST_MANY_MAX) = {};
	DECLARE_BITMAP(mapped, TEST_MANY_MAX) = {};
	struct gup_test *ctx = test->priv;
	struct rnd_state rnd;
	unsigned long i;
	int round;

	hmm_test_many(test, false);
	if (p->relink)
		ctx->mirror.base.linear = false;
	ctx->mirror.ops = NULL;
	prandom_seed_state(&rnd, 3);
	for (round = 0; round < 200; round++) {
		long first = prandom_u32_state(&rnd) % TEST_MANY;
		long last = first + 1 + prandom_u32_state(&rnd) %
			    (round % 4 ? 40 : TEST_MANY);
		long from, to;

		last = min_t(long, last, TEST_MANY);
		from = first;
		to = last;
		if (round % 3 == 2) {
			KUNIT_EXPECT_TRUE(test, hmm_test_many_segs(ctx, &first,
								   &last,
								   writable));
			hmm_test_unmap(ctx, &from, &to);
			bitmap_clear(mapped, from, to - from);
			bitmap_clear(writable, from, to - from);
		} else {
			KUNIT_ASSERT_EQ(test, 0,
					hmm_test_map(ctx, first, last,
						     round & 1 ? TEST_WRITE :
								 TEST_READ));
			bitmap_set(mapped, first, last - first);
			if (round & 1)
				bitmap_set(writable, first, last - first);
		}
		KUNIT_EXPECT_EQ(test, from, first);
		KUNIT_EXPECT_EQ(test, to, last);
		KUNIT_ASSERT_EQ(test, ctx->mirror.nr_mapped,
				bitmap_weight(mapped, TEST_MANY));
		for (i = 0; i < TEST_MANY; i++)
			KUNIT_ASSERT_EQ(test, test_bit(i, mapped),
					hmm_test_many_mapped(test, i));
	}
}

/* Pages of anonymous memory; a read fault gives the zero page. */
static void hmm_test_touch(struct kunit *test, unsigned long read,
			   unsigned long write)
{
	struct gup_test *ctx = test->priv;
	unsigned long i;

	for (i = 0; i < TEST_PAGES; i++) {
		char __user *p = (char __user *)(ctx->va + i * PAGE_SIZE);

		if (write & BIT(i))
			KUNIT_ASSERT_EQ(test, 0, put_user(1, p));
		else if (read & BIT(i))
			KUNIT_ASSERT_EQ(test, 0, fault_in_readable(p, 1));
	}
}

static void hmm_test_setup_anon(struct kunit *test, unsigned long va)
{
	struct gup_test *ctx = test->priv;

	if (test_bounces(ctx))
		kunit_skip(test, "bounce buffers are forced");
	ctx->va = va;
	KUNIT_ASSERT_EQ(test, va,
			kunit_vm_mmap(test, NULL, va, TEST_SIZE,
				      PROT_READ | PROT_WRITE, MAP_ANONYMOUS |
				      MAP_PRIVATE | MAP_FIXED, 0));
	hmm_test_insert(test, current->mm, va);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map_init(ctx, PAGE_SIZE));
}

#define TEST_ODD	(TEST_ALL / 3)
static const struct hmm_snapshot_param {
	const char	*desc;
	unsigned long	read;
	unsigned long	write;
	unsigned long	flags;
	unsigned long	mapped;
} hmm_snapshot_params[] = {
	{ "nothing there", 0, 0, 0, 0 },
	{ "nothing there to write", 0, 0, HMM_PFN_REQ_WRITE, 0 },
	{ "all there", 0, TEST_ALL, 0, TEST_ALL },
	{ "all there to write", 0, TEST_ALL, HMM_PFN_REQ_WRITE, TEST_ALL },
	{ "all there to read only", TEST_ALL, 0, HMM_PFN_REQ_WRITE, 0 },
	{ "first page", 0, BIT(0), 0, BIT(0) },
	{ "last page", 0, BIT(TEST_PAGES - 1), 0, BIT(TEST_PAGES - 1) },
	{ "every other page", 0, TEST_ODD, 0, TEST_ODD },
	{ "every other page to write", TEST_ALL, TEST_ODD, HMM_PFN_REQ_WRITE,
	  TEST_ODD },
	{ "a gap", 0, TEST_ALL & ~GENMASK(5, 3), 0, TEST_ALL & ~GENMASK(5, 3) },
	{ "one table", 0, GENMASK(TEST_PAGES - 1, 8), 0,
	  GENMASK(TEST_PAGES - 1, 8) },
};

KUNIT_ARRAY_PARAM_DESC(hmm_snapshot, hmm_snapshot_params, desc);

static void hmm_snapshot(struct kunit *test)
{
	const struct hmm_snapshot_param *p = test->param_value;
	unsigned long mapped, writable;
	struct gup_test *ctx = test->priv;

	hmm_test_setup_anon(test, TEST_VA_CROSS);
	hmm_test_touch(test, p->read, p->write);
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, p->flags));
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, p->mapped);
	KUNIT_EXPECT_EQ(test, writable, p->flags ? p->mapped : 0);

	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_WRITE));
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL);
	KUNIT_EXPECT_EQ(test, writable, TEST_ALL);
}

/* Contiguous pages of which one is writable: the others stay as they are. */
static void hmm_snapshot_upgrade(struct kunit *test)
{
	unsigned long mapped, writable, page;
	struct gup_test *ctx = test->priv;

	hmm_test_setup(test, TEST_VA, PROT_READ);
	page = ctx->va + 3 * PAGE_SIZE;
	KUNIT_ASSERT_EQ(test, page,
			vm_mmap(ctx->file, page, PAGE_SIZE,
				PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				3 * PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_ASSERT_EQ(test, 0, put_user(1, (char __user *)page));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, TEST_READ));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES,
					      HMM_PFN_REQ_WRITE));
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL);
	KUNIT_EXPECT_EQ(test, writable, BIT(3));
}

/* What is not there is no error without faults. */
static void hmm_snapshot_no_memory(struct kunit *test)
{
	unsigned long mapped, writable;
	struct gup_test *ctx = test->priv;

	hmm_test_setup_anon(test, TEST_VA_CROSS);
	hmm_test_touch(test, 0, TEST_ALL);
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va + 2 * PAGE_SIZE, PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_PAGES, 0));
	KUNIT_EXPECT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
	KUNIT_EXPECT_EQ(test, mapped, TEST_ALL & ~BIT(2));
}

/* A VMA of several PMDs that cannot be read is a hole as well. */
static void hmm_snapshot_unreadable(struct kunit *test)
{
	struct gup_test *ctx = test->priv;

	hmm_test_many(test, false);
	KUNIT_ASSERT_EQ(test, ctx->va,
			vm_mmap(NULL, ctx->va, TEST_MANY << PAGE_SHIFT, PROT_NONE,
				MAP_ANONYMOUS | MAP_PRIVATE | MAP_FIXED, 0));
	KUNIT_EXPECT_EQ(test, 0, hmm_test_map(ctx, 0, TEST_MANY, 0));
	KUNIT_EXPECT_EQ(test, ctx->mirror.nr_mapped, 0);
	KUNIT_EXPECT_EQ(test, -EFAULT, hmm_test_map(ctx, 0, 1, TEST_READ));
}

/* With and without faults, on top of what is mapped, against a model. */
static void hmm_snapshot_random(struct kunit *test)
{
	static const unsigned long flags[] = {
		0, HMM_PFN_REQ_WRITE, TEST_READ, TEST_WRITE,
	};
	unsigned long there = 0, written = 0, mapped, writable, m, w;
	struct gup_test *ctx = test->priv;
	struct rnd_state rnd;
	int round;

	hmm_test_setup_anon(test, TEST_VA_CROSS);
	prandom_seed_state(&rnd, 4);
	for (round = 0; round < 400; round++) {
		unsigned long read = BIT(prandom_u32_state(&rnd) % TEST_PAGES);
		unsigned long write = BIT(prandom_u32_state(&rnd) % TEST_PAGES);
		unsigned int first = prandom_u32_state(&rnd) % TEST_PAGES;
		unsigned int last = first + 1 +
			prandom_u32_state(&rnd) % (TEST_PAGES - first);
		unsigned long f = flags[prandom_u32_state(&rnd) %
					ARRAY_SIZE(flags)];
		unsigned long in = GENMASK(last - 1, first), want;

		if (round % 32 == 31) {
			long from = first, to = last;

			hmm_test_unmap(ctx, &from, &to);
			KUNIT_ASSERT_EQ(test, 0, vm_munmap(ctx->va, TEST_SIZE));
			KUNIT_ASSERT_EQ(test, ctx->va,
					vm_mmap(NULL, ctx->va, TEST_SIZE,
						PROT_READ | PROT_WRITE,
						MAP_ANONYMOUS | MAP_PRIVATE |
						MAP_FIXED, 0));
			there = 0;
			written = 0;
		}
		if (round % 3 == 0) {
			hmm_test_touch(test, read, write);
			there |= read | write;
			written |= write;
		}
		KUNIT_ASSERT_TRUE(test, hmm_test_segs(ctx, &mapped, &writable));
		KUNIT_ASSERT_EQ(test, 0, mapped & ~there);
		KUNIT_ASSERT_EQ(test, 0, writable & ~written);

		KUNIT_ASSERT_EQ(test, 0, hmm_test_map(ctx, first, last, f));
		if (f & HMM_PFN_REQ_FAULT)
			there |= in;
		if (f == TEST_WRITE)
			written |= in;
		want = f & HMM_PFN_REQ_WRITE ? written : there;
		KUNIT_ASSERT_TRUE(test, hmm_test_segs(ctx, &m, &w));
		KUNIT_ASSERT_EQ(test, m & in, (mapped | want) & in);
		KUNIT_ASSERT_EQ(test, 0, m & ~in & ~mapped);
		KUNIT_ASSERT_EQ(test, w & in,
				(f & HMM_PFN_REQ_WRITE ? writable | written :
							 writable) & in);
	}
}

static struct kunit_case hmm_range_cases[] = {
	KUNIT_CASE(hmm_init_bounce),
	KUNIT_CASE_PARAM(hmm_init_granule, hmm_granule_gen_params),
	KUNIT_CASE(hmm_no_device),
	KUNIT_CASE(hmm_init_no_mask),
	KUNIT_CASE(hmm_init_limited),
	KUNIT_CASE(hmm_init_last_page),
	KUNIT_CASE_PARAM(hmm_map_bad, hmm_bad_gen_params),
	KUNIT_CASE(hmm_map_not_initialised),
	KUNIT_CASE(hmm_map_read_only),
	KUNIT_CASE(hmm_map_hole),
	KUNIT_CASE(hmm_map_hole_keeps),
	KUNIT_CASE(hmm_map_exited),
	KUNIT_CASE(hmm_warn_destroy_twice),
	KUNIT_CASE(hmm_map_returns_locked),
	KUNIT_CASE_PARAM(hmm_map_all, hmm_layout_gen_params),
	KUNIT_CASE(hmm_map_alias),
	KUNIT_CASE(hmm_map_rounds),
	KUNIT_CASE(hmm_map_anon),
	KUNIT_CASE_PARAM(hmm_addr, hmm_addr_gen_params),
	KUNIT_CASE(hmm_addr_no_table),
	KUNIT_CASE_PARAM(hmm_unmap, hmm_unmap_gen_params),
	KUNIT_CASE(hmm_unmap_nothing),
	KUNIT_CASE(hmm_unmap_before_init),
	KUNIT_CASE_PARAM(hmm_map_dirties, hmm_dirty_gen_params),
	KUNIT_CASE(hmm_snapshot_clean),
	KUNIT_CASE(hmm_unmap_leaves_folio),
	KUNIT_CASE(hmm_remap_all),
	KUNIT_CASE(hmm_remap_for_read),
	KUNIT_CASE(hmm_remap_missing),
	KUNIT_CASE(hmm_remap_after_unmap),
	KUNIT_CASE_PARAM(hmm_upgrade, hmm_upgrade_gen_params),
	KUNIT_CASE_PARAM(hmm_upgrade_in_place, hmm_upgrade_gen_params),
	KUNIT_CASE_PARAM(hmm_upgrade_of_device, hmm_upgrade_gen_params),
	KUNIT_CASE(hmm_upgrade_two_units),
	KUNIT_CASE(hmm_upgrade_units),
	KUNIT_CASE(hmm_upgrade_dirties),
	KUNIT_CASE_PARAM(hmm_munmap, hmm_munmap_gen_params),
	KUNIT_CASE(hmm_munmap_remap),
	KUNIT_CASE(hmm_units_end_with_folios),
	KUNIT_CASE(hmm_may_write),
	KUNIT_CASE(hmm_insert),
	KUNIT_CASE(hmm_insert_refused),
	KUNIT_CASE(hmm_publish_fails),
	KUNIT_CASE(hmm_map_retries),
	KUNIT_CASE(hmm_map_steps),
	KUNIT_CASE(hmm_map_prefix),
	KUNIT_CASE(hmm_stats_metadata),
	KUNIT_CASE(hmm_destroy_mapped),
	KUNIT_CASE(hmm_invalidate_destroyed),
	KUNIT_CASE(hmm_many_units),
	KUNIT_CASE(hmm_many_singly),
	KUNIT_CASE(hmm_many_gaps),
	KUNIT_CASE(hmm_many_upgrades),
	KUNIT_CASE_PARAM(hmm_many_random, hmm_random_gen_params),
	KUNIT_CASE_PARAM(hmm_snapshot, hmm_snapshot_gen_params),
	KUNIT_CASE(hmm_snapshot_upgrade),
	KUNIT_CASE(hmm_snapshot_no_memory),
	KUNIT_CASE(hmm_snapshot_unreadable),
	KUNIT_CASE(hmm_snapshot_random),
	{}
};

static struct kunit_suite hmm_range_suite = {
	.name = "hmm_range",
	.init = hmm_test_init,
	.exit = gup_test_exit,
	.test_cases = hmm_range_cases,
};

kunit_test_suites(&gup_range_suite, &hmm_range_suite);

MODULE_DESCRIPTION("Tests for user ranges and their DMA mappings");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
