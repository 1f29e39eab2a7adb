// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for pin_user_vecs(): which entries, and which pins, it makes of
 * pages in a given physical order.
 */
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/gup_vecs.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "../internal.h"

/*
 * Physically contiguous: small pages, two compound ones, a small compound one,
 * small pages.
 */
#define TEST_ORDER	5
#define TEST_PAGES	BIT(TEST_ORDER)
#define TEST_A		8
#define TEST_B		16
#define TEST_AB_ORDER	3
#define TEST_AB_PAGES	BIT(TEST_AB_ORDER)
#define TEST_C		24	/* order 1 */

#define TEST_LAYOUT	16
#define TEST_HOLE	0xff

#define TEST_VECS	512
#define TEST_POISON	0xa5

#define TEST_VA		((unsigned long)SZ_256M)
/* What of a layout comes after the third page is in another page table. */
#define TEST_VA_CROSS	(TEST_VA - 3 * PAGE_SIZE)
#define TEST_VA_HUGE	((unsigned long)SZ_512M)

struct vecs_span {
	u8	page;	/* of vecs_test.pages */
	u8	nr;
};

/* User memory: the pages in this order, again and again. */
struct vecs_layout {
	const char		*desc;
	u8			nr;
	u8			page[TEST_LAYOUT];
	struct vecs_span	want[TEST_LAYOUT];
	unsigned int		pins;
};

/* How the pages come into the hands of pin_user_vecs(). */
struct vecs_way {
	unsigned int	flags;
	unsigned long	present;	/* so many are in the page table before */
	bool		remote;		/* from a thread without this mm */
};

static const struct vecs_way way_fast = { FOLL_WRITE, ULONG_MAX };
static const struct vecs_way way_read = { 0, ULONG_MAX };
static const struct vecs_way way_fault = { FOLL_WRITE };
static const struct vecs_way way_half = { FOLL_WRITE, 2 };
static const struct vecs_way way_longterm = { FOLL_WRITE | FOLL_LONGTERM, ULONG_MAX };
static const struct vecs_way way_remote = { FOLL_WRITE, ULONG_MAX, true };

struct vecs_test {
	struct page			*pages;
	const struct vecs_layout	*layout;
	const struct vecs_way		*way;
	vm_fault_t			hole;	/* what a fault there says */
	struct file			*file;
	unsigned long			va;
	size_t				len;
	long				pins;	/* of the system, before */
	struct phys_vec			vecs[TEST_VECS];
	unsigned int			nr;
};

/* The tails lose the reference that split_page() gave to them. */
static void vecs_compound(struct vecs_test *ctx, unsigned int first,
			  unsigned int order)
{
	unsigned int i;

	for (i = 1; i < BIT(order); i++)
		set_page_count(ctx->pages + first + i, 0);
	prep_compound_page(ctx->pages + first, order);
}

static long vecs_stat_once(enum node_stat_item item)
{
	long val = global_node_page_state(item);
	struct pglist_data *pgdat;
	int cpu;

	for_each_online_pgdat(pgdat)
		for_each_online_cpu(cpu)
			val += per_cpu_ptr(pgdat->per_cpu_nodestats,
					   cpu)->vm_node_stat_diff[item];
	return val;
}

/* The differences may be folded meanwhile. */
static long vecs_stat(enum node_stat_item item)
{
	long val, again = vecs_stat_once(item);

	do {
		val = again;
		again = vecs_stat_once(item);
	} while (val != again);
	return val;
}

static long vecs_pins(void)
{
	return vecs_stat(NR_FOLL_PIN_ACQUIRED) -
	       vecs_stat(NR_FOLL_PIN_RELEASED);
}

static int vecs_test_init(struct kunit *test)
{
	struct vecs_test *ctx;

	ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ctx);
	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());

	ctx->hole = VM_FAULT_SIGBUS;
	ctx->way = &way_fast;
	ctx->pages = alloc_pages(GFP_KERNEL | __GFP_ZERO, TEST_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, ctx->pages);
	split_page(ctx->pages, TEST_ORDER);
	vecs_compound(ctx, TEST_A, TEST_AB_ORDER);
	vecs_compound(ctx, TEST_B, TEST_AB_ORDER);
	vecs_compound(ctx, TEST_C, 1);
	ctx->pins = vecs_pins();
	test->priv = ctx;
	return 0;
}

/* In another thread, also after a failed assertion. */
static void vecs_test_exit(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;
	struct folio *folio;
	unsigned int i, nr;

	if (!ctx)
		return;
	unpin_user_vecs(ctx->vecs, ctx->nr, false);
	if (ctx->file)
		fput(ctx->file);
	for (i = 0; i < TEST_PAGES; i += nr) {
		folio = page_folio(ctx->pages + i);
		nr = folio_nr_pages(folio);
		folio_put(folio);
	}
}

/* ---- user memory ---- */

static vm_fault_t vecs_insert(struct vecs_test *ctx, struct vm_area_struct *vma,
			      unsigned long pgoff)
{
	u8 page = ctx->layout->page[pgoff % ctx->layout->nr];

	if (page == TEST_HOLE)
		return ctx->hole;
	return vmf_insert_page(vma, vma->vm_start + pgoff * PAGE_SIZE,
			       ctx->pages + page);
}

static vm_fault_t vecs_fault(struct vm_fault *vmf)
{
	return vecs_insert(vmf->vma->vm_file->private_data, vmf->vma,
			   vmf->pgoff);
}

static const struct vm_operations_struct vecs_vm_ops = {
	.fault = vecs_fault,
};

static int vecs_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct vecs_test *ctx = file->private_data;
	unsigned long i;

	vm_flags_set(vma, VM_MIXEDMAP);
	vma->vm_ops = &vecs_vm_ops;
	for (i = 0; i < min(vma_pages(vma), ctx->way->present); i++)
		if (vecs_insert(ctx, vma, i) & VM_FAULT_OOM)
			return -ENOMEM;
	return 0;
}

static const struct file_operations vecs_fops = {
	.mmap = vecs_mmap,
};

/* @nr pages at @va: as @layout says, present as @way says. */
static void vecs_map(struct kunit *test, const struct vecs_layout *layout,
		     const struct vecs_way *way, unsigned long va,
		     unsigned long nr, unsigned long prot)
{
	struct vecs_test *ctx = test->priv;
	struct file *file;

	ctx->layout = layout;
	ctx->way = way;
	file = anon_inode_getfile("[gup_range_vecs]", &vecs_fops, ctx, O_RDWR);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	ctx->file = file;
	ctx->va = va;
	ctx->len = nr << PAGE_SHIFT;
	KUNIT_ASSERT_EQ(test, va,
			kunit_vm_mmap(test, file, va, ctx->len, prot,
				      MAP_SHARED | MAP_FIXED, 0));
}

static void vecs_map_layout(struct kunit *test,
			    const struct vecs_layout *layout,
			    const struct vecs_way *way)
{
	vecs_map(test, layout, way, TEST_VA, layout->nr,
		 PROT_READ | PROT_WRITE);
}

static void vecs_anon(struct kunit *test, unsigned long va, size_t len,
		      unsigned long prot)
{
	struct vecs_test *ctx = test->priv;

	ctx->va = va;
	ctx->len = len;
	KUNIT_ASSERT_EQ(test, va,
			kunit_vm_mmap(test, NULL, va, len, prot,
				      MAP_ANONYMOUS | MAP_PRIVATE | MAP_FIXED,
				      0));
}

/* ---- the act, and what to expect ---- */

/*
 * Pin @nr pages with room for @max entries, behind those that are there. The
 * output holds other things while it is being made: none beyond its end.
 */
static int vecs_pin(struct kunit *test, unsigned long first, unsigned long nr,
		    unsigned int max)
{
	struct vecs_test *ctx = test->priv;
	struct phys_vec *vecs = ctx->vecs + ctx->nr;
	struct mm_struct *mm = current->mm;
	unsigned int got = max;
	int ret;

	memset(vecs, TEST_POISON, (TEST_VECS - ctx->nr) * sizeof(*vecs));
	if (ctx->way->remote)
		kthread_unuse_mm(mm);
	ret = pin_user_vecs(mm, ctx->va + first * PAGE_SIZE, nr,
			    ctx->way->flags, vecs, &got);
	if (ctx->way->remote)
		kthread_use_mm(mm);
	KUNIT_EXPECT_LE(test, got, max);
	KUNIT_EXPECT_NULL(test, memchr_inv(vecs + max, TEST_POISON,
					   (TEST_VECS - ctx->nr - max) *
					   sizeof(*vecs)));
	ctx->nr += min(got, max);
	return ret;
}

static unsigned long vecs_pages(const struct vecs_test *ctx, unsigned int from)
{
	unsigned long nr = 0;

	for (; from < ctx->nr; from++)
		nr += ctx->vecs[from].len >> PAGE_SHIFT;
	return nr;
}

static unsigned int vecs_folio_pins(struct folio *folio)
{
	if (folio_has_pincount(folio))
		return atomic_read(&folio->_pincount);
	return folio_ref_count(folio) / GUP_PIN_COUNTING_BIAS;
}

/* Each entry has one pin on each folio that it touches. */
static void vecs_expect_folio_pins(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;
	struct folio *folio;
	unsigned int i, j;

	for (i = 0; i < TEST_PAGES; i += folio_nr_pages(folio)) {
		phys_addr_t first = page_to_phys(ctx->pages + i);
		unsigned int want = 0;

		folio = page_folio(ctx->pages + i);
		for (j = 0; j < ctx->nr; j++)
			want += ctx->vecs[j].paddr < first + folio_size(folio) &&
				ctx->vecs[j].paddr + ctx->vecs[j].len > first;
		KUNIT_EXPECT_EQ_MSG(test, want, vecs_folio_pins(folio),
				    "page %u", i);
	}
}

static void vecs_expect(struct kunit *test, const struct vecs_layout *layout)
{
	struct vecs_test *ctx = test->priv;
	unsigned int i;

	for (i = 0; i < TEST_LAYOUT && layout->want[i].nr; i++) {
		const struct vecs_span *want = layout->want + i;

		KUNIT_ASSERT_LT(test, i, ctx->nr);
		KUNIT_EXPECT_EQ_MSG(test, ctx->vecs[i].paddr,
				    page_to_phys(ctx->pages + want->page),
				    "entry %u", i);
		KUNIT_EXPECT_EQ_MSG(test, ctx->vecs[i].len,
				    (size_t)want->nr << PAGE_SHIFT,
				    "entry %u", i);
	}
	KUNIT_EXPECT_EQ(test, i, ctx->nr);
	KUNIT_EXPECT_EQ(test, ctx->pins + layout->pins, vecs_pins());
	vecs_expect_folio_pins(test);
}

/* Release; nothing is left, in user memory neither. */
static void vecs_end(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;
	unsigned int nr = ctx->nr, i;
	struct folio *folio;

	ctx->nr = 0;
	unpin_user_vecs(ctx->vecs, nr, false);
	KUNIT_EXPECT_EQ(test, ctx->pins, vecs_pins());
	vecs_expect_folio_pins(test);
	if (ctx->len)
		KUNIT_EXPECT_EQ(test, 0, vm_munmap(ctx->va, ctx->len));
	for (i = 0; i < TEST_PAGES; i += folio_nr_pages(folio)) {
		folio = page_folio(ctx->pages + i);
		KUNIT_EXPECT_EQ_MSG(test, 1, folio_ref_count(folio), "page %u",
				    i);
	}
}

static void vecs_need_fast(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_HAVE_GUP_FAST) ||
	    !IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL))
		kunit_skip(test, "this architecture has no fast GUP");
}

/* ---- layouts ---- */

static const struct vecs_layout vecs_layouts[] = {
	{ "one page", 1, { 5 }, { {5, 1} }, 1 },
	{ "neighbours", 4, { 0, 1, 2, 3 }, { {0, 4} }, 4 },
	{ "gap", 4, { 0, 1, 3, 4 }, { {0, 2}, {3, 2} }, 4 },
	{ "descending", 4, { 3, 2, 1, 0 },
	  { {3, 1}, {2, 1}, {1, 1}, {0, 1} }, 4 },
	{ "same page twice", 2, { 4, 4 }, { {4, 1}, {4, 1} }, 2 },
	{ "alternating", 5, { 4, 5, 4, 5, 4 }, { {4, 2}, {4, 2}, {4, 1} }, 5 },
	{ "alternating with a gap", 4, { 2, 6, 2, 6 },
	  { {2, 1}, {6, 1}, {2, 1}, {6, 1} }, 4 },
	{ "compound", 8, { 8, 9, 10, 11, 12, 13, 14, 15 }, { {8, 8} }, 1 },
	{ "middle of a compound", 4, { 10, 11, 12, 13 }, { {10, 4} }, 1 },
	{ "tail of a compound", 1, { 15 }, { {15, 1} }, 1 },
	{ "compound, descending", 4, { 15, 14, 13, 12 },
	  { {15, 1}, {14, 1}, {13, 1}, {12, 1} }, 4 },
	{ "compound with a gap", 5, { 8, 9, 11, 12, 13 },
	  { {8, 2}, {11, 3} }, 2 },
	{ "same page of a compound", 3, { 9, 9, 9 },
	  { {9, 1}, {9, 1}, {9, 1} }, 3 },
	{ "compound again and again", 6, { 8, 9, 10, 8, 9, 10 },
	  { {8, 3}, {8, 3} }, 2 },
	{ "end of a compound, its begin", 5, { 14, 15, 8, 9, 10 },
	  { {14, 2}, {8, 3} }, 2 },
	{ "small, then compound", 5, { 6, 7, 8, 9, 10 }, { {6, 5} }, 3 },
	{ "compound, then compound", 5, { 14, 15, 16, 17, 18 },
	  { {14, 5} }, 2 },
	{ "compound, then small", 4, { 24, 25, 26, 27 }, { {24, 4} }, 3 },
	{ "all compounds", 16,
	  { 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 },
	  { {8, 16} }, 2 },
	{ "all sizes", 11, { 7, 8, 9, 22, 23, 24, 25, 26, 27, 0, 1 },
	  { {7, 3}, {22, 6}, {0, 2} }, 2 + 4 + 2 },
	{ "compound and small, alternating", 5, { 8, 0, 9, 1, 10 },
	  { {8, 1}, {0, 1}, {9, 1}, {1, 1}, {10, 1} }, 5 },
	{ "order 1", 2, { 24, 25 }, { {24, 2} }, 1 },
	{ "order 1, descending", 2, { 25, 24 }, { {25, 1}, {24, 1} }, 2 },
};

KUNIT_ARRAY_PARAM_DESC(vecs_layouts, vecs_layouts, desc);

static void vecs_test_layout(struct kunit *test, const struct vecs_way *way,
			     unsigned long va)
{
	const struct vecs_layout *layout = test->param_value;

	vecs_map(test, layout, way, va, layout->nr, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0,
			vecs_pin(test, 0, layout->nr, TEST_LAYOUT));
	vecs_expect(test, layout);
	vecs_end(test);
}

static void layout_fast(struct kunit *test)
{
	vecs_test_layout(test, &way_fast, TEST_VA);
}

static void layout_fast_two_tables(struct kunit *test)
{
	vecs_test_layout(test, &way_fast, TEST_VA_CROSS);
}

static void layout_read(struct kunit *test)
{
	vecs_test_layout(test, &way_read, TEST_VA);
}

static void layout_fault(struct kunit *test)
{
	vecs_test_layout(test, &way_fault, TEST_VA);
}

static void layout_fast_then_fault(struct kunit *test)
{
	vecs_test_layout(test, &way_half, TEST_VA);
}

static void layout_longterm(struct kunit *test)
{
	vecs_test_layout(test, &way_longterm, TEST_VA);
}

static void layout_remote(struct kunit *test)
{
	vecs_test_layout(test, &way_remote, TEST_VA);
}

/*
 * With room for one entry, for two, and so on, until all pages are there: each
 * call returns at least one, and no call knows of the pins of another.
 */
static void vecs_test_pieces(struct kunit *test, const struct vecs_way *way)
{
	const struct vecs_layout *layout = test->param_value;
	struct vecs_test *ctx = test->priv;
	unsigned long done = 0, more, i;
	unsigned int max, from, j;
	size_t off;

	vecs_map_layout(test, layout, way);
	for (max = 1; done < layout->nr; max++) {
		from = ctx->nr;
		KUNIT_ASSERT_EQ(test, 0,
				vecs_pin(test, done, layout->nr - done, max));
		more = vecs_pages(ctx, from);
		KUNIT_ASSERT_GT(test, more, 0);
		done += more;
	}
	KUNIT_EXPECT_EQ(test, done, layout->nr);
	for (i = j = 0; j < ctx->nr; j++)
		for (off = 0; off < ctx->vecs[j].len; off += PAGE_SIZE)
			KUNIT_EXPECT_EQ(test, ctx->vecs[j].paddr + off,
					page_to_phys(ctx->pages +
						     layout->page[i++]));
	vecs_expect_folio_pins(test);
	vecs_end(test);
}

static void pieces_fast(struct kunit *test)
{
	vecs_test_pieces(test, &way_fast);
}

static void pieces_fault(struct kunit *test)
{
	vecs_test_pieces(test, &way_fault);
}

static void pieces_longterm(struct kunit *test)
{
	vecs_test_pieces(test, &way_longterm);
}

static void pieces_remote(struct kunit *test)
{
	vecs_test_pieces(test, &way_remote);
}

/* ---- the output ---- */

static const struct vecs_layout layout_gaps = {
	"every second", 4, { 0, 2, 4, 6 }, { {0, 1}, {2, 1}, {4, 1}, {6, 1} }, 4
};

static const struct vecs_layout layout_compound = {
	"compound", 8, { 8, 9, 10, 11, 12, 13, 14, 15 }, { {8, 8} }, 1
};

static const struct room_param {
	const char	*desc;
	unsigned int	max;
	unsigned int	want;
} room_params[] = {
	{ "one", 1, 1 },
	{ "one less", 3, 3 },
	{ "exact", 4, 4 },
	{ "one more", 5, 4 },
};

KUNIT_ARRAY_PARAM_DESC(room, room_params, desc);

static void vecs_test_room(struct kunit *test, const struct vecs_way *way)
{
	const struct room_param *p = test->param_value;
	struct vecs_test *ctx = test->priv;

	vecs_map_layout(test, &layout_gaps, way);
	KUNIT_EXPECT_EQ(test, 0, vecs_pin(test, 0, 4, p->max));
	KUNIT_EXPECT_EQ(test, ctx->nr, p->want);
	KUNIT_EXPECT_EQ(test, vecs_pages(ctx, 0), p->want);
	vecs_expect_folio_pins(test);
	vecs_end(test);
}

static void room_fast(struct kunit *test)
{
	vecs_test_room(test, &way_fast);
}

static void room_fault(struct kunit *test)
{
	vecs_test_room(test, &way_fault);
}

/* Two calls for the halves of one folio: each has its pin. */
static void second_call_in_the_middle(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;

	vecs_map_layout(test, &layout_compound, &way_fast);
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 0, 4, 1));
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 4, 4, 1));
	KUNIT_EXPECT_EQ(test, ctx->nr, 2);
	KUNIT_EXPECT_EQ(test, ctx->vecs[1].paddr,
			ctx->vecs[0].paddr + ctx->vecs[0].len);
	KUNIT_EXPECT_EQ(test, ctx->pins + 2, vecs_pins());
	vecs_expect_folio_pins(test);
	vecs_end(test);
}

/* Where a folio begins, two entries may be released as one. */
static void release_as_one(struct kunit *test)
{
	static const struct vecs_layout layout = {
		"small, then compound", 4, { 6, 7, 8, 9 }, { {6, 4} }, 3
	};
	struct vecs_test *ctx = test->priv;

	vecs_map_layout(test, &layout, &way_fast);
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 0, 2, 1));
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 2, 2, 1));
	KUNIT_ASSERT_EQ(test, ctx->nr, 2);
	ctx->vecs[0].len += ctx->vecs[1].len;
	ctx->nr = 1;
	vecs_expect(test, &layout);
	vecs_end(test);
}

/* A folio costs one atomic operation and one count, not one for each page. */
static void fast_counts_once(struct kunit *test)
{
	long acquired;

	vecs_need_fast(test);
	vecs_map_layout(test, &layout_compound, &way_fast);
	acquired = vecs_stat(NR_FOLL_PIN_ACQUIRED);
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 0, 8, 1));
	KUNIT_EXPECT_EQ(test, acquired + 1, vecs_stat(NR_FOLL_PIN_ACQUIRED));
	vecs_expect(test, &layout_compound);
	vecs_end(test);
}

/* More tables than one walk with interrupts off takes. */
static void many_tables(struct kunit *test)
{
	unsigned long nr = 6 * PTRS_PER_PTE;
	unsigned int want = min(nr / TEST_AB_PAGES, TEST_VECS), i;
	struct vecs_test *ctx = test->priv;

	vecs_map(test, &layout_compound, &way_fast, TEST_VA_CROSS, nr,
		 PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 0, nr, TEST_VECS));
	KUNIT_EXPECT_EQ(test, ctx->nr, want);
	for (i = 0; i < ctx->nr; i++)
		KUNIT_EXPECT_EQ(test, ctx->vecs[i].len,
				TEST_AB_PAGES << PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, ctx->pins + want, vecs_pins());
	vecs_expect_folio_pins(test);
	vecs_end(test);
}

/* ---- holes and errors ---- */

static const struct hole_param {
	struct vecs_layout	layout;
	vm_fault_t		fault;
	int			ret;
} hole_params[] = {
	{ { "first", 4, { TEST_HOLE, 1, 2, 3 } }, VM_FAULT_SIGBUS, -EFAULT },
	{ { "middle", 4, { 0, 1, TEST_HOLE, 3 }, { {0, 2} }, 2 },
	  VM_FAULT_SIGBUS, -EFAULT },
	{ { "middle, no memory", 4, { 0, 1, TEST_HOLE, 3 }, { {0, 2} }, 2 },
	  VM_FAULT_OOM, -ENOMEM },
	{ { "last", 4, { 5, 0, 2, TEST_HOLE }, { {5, 1}, {0, 1}, {2, 1} }, 3 },
	  VM_FAULT_SIGBUS, -EFAULT },
	{ { "in a compound", 4, { 8, 9, TEST_HOLE, 11 }, { {8, 2} }, 1 },
	  VM_FAULT_SIGBUS, -EFAULT },
};

static void hole_desc(const struct hole_param *p, char *desc)
{
	strscpy(desc, p->layout.desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(hole, hole_params, hole_desc);

static void vecs_test_hole(struct kunit *test, const struct vecs_way *way)
{
	const struct hole_param *p = test->param_value;
	struct vecs_test *ctx = test->priv;

	vecs_map_layout(test, &p->layout, way);
	ctx->hole = p->fault;
	KUNIT_EXPECT_EQ(test, p->ret,
			vecs_pin(test, 0, p->layout.nr, TEST_LAYOUT));
	vecs_expect(test, &p->layout);
	vecs_end(test);
}

static void hole_fast(struct kunit *test)
{
	vecs_test_hole(test, &way_fast);
}

static void hole_fault(struct kunit *test)
{
	vecs_test_hole(test, &way_fault);
}

static void hole_longterm(struct kunit *test)
{
	vecs_test_hole(test, &way_longterm);
}

static void hole_remote(struct kunit *test)
{
	vecs_test_hole(test, &way_remote);
}

/* Full before the hole: it is for the next call to say why. */
static void hole_after_full(struct kunit *test)
{
	static const struct vecs_layout layout = {
		"one, then a hole", 2, { 3, TEST_HOLE }, { {3, 1} }, 1
	};

	vecs_map_layout(test, &layout, &way_fast);
	KUNIT_EXPECT_EQ(test, 0, vecs_pin(test, 0, 2, 1));
	KUNIT_EXPECT_EQ(test, -EFAULT, vecs_pin(test, 1, 1, 1));
	vecs_expect(test, &layout);
	vecs_end(test);
}

static void read_only_for_write(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;

	vecs_map(test, &layout_compound, &way_fast, TEST_VA, 8, PROT_READ);
	KUNIT_EXPECT_EQ(test, -EFAULT, vecs_pin(test, 0, 8, 1));
	KUNIT_EXPECT_EQ(test, ctx->nr, 0);
	vecs_end(test);
}

static void read_only_for_read(struct kunit *test)
{
	vecs_map(test, &layout_compound, &way_read, TEST_VA, 8, PROT_READ);
	KUNIT_EXPECT_EQ(test, 0, vecs_pin(test, 0, 8, 1));
	vecs_expect(test, &layout_compound);
	vecs_end(test);
}

/* More pages than 32 bits count. */
static void nr_pages_64bit(struct kunit *test)
{
	u64 nr = BIT_ULL(32);

	if (nr > ULONG_MAX)
		kunit_skip(test, "the address space is smaller");
	vecs_map_layout(test, &layout_compound, &way_fast);
	KUNIT_EXPECT_EQ(test, -EFAULT, vecs_pin(test, 0, nr, 2));
	vecs_expect(test, &layout_compound);
	vecs_end(test);
}

static const struct bad_param {
	const char	*desc;
	unsigned long	start;
	unsigned long	nr;
	unsigned int	max;
	int		ret;
} bad_params[] = {
	{ "no pages", TEST_VA, 0, 1, 0 },
	{ "no room", TEST_VA, 1, 0, -EINVAL },
	{ "no mapping", TEST_VA, 1, 1, -EFAULT },
	{ "wraps", PAGE_MASK, 2, 1, -EOVERFLOW },
	{ "too many pages", TEST_VA, ULONG_MAX, 1, -EOVERFLOW },
	{ "too many pages, 0 bytes", TEST_VA, 1UL << (BITS_PER_LONG - PAGE_SHIFT),
	  1, -EOVERFLOW },
	{ "kernel", PAGE_MASK - PAGE_SIZE, 1, 1, -EFAULT },
};

KUNIT_ARRAY_PARAM_DESC(bad, bad_params, desc);

static void vecs_test_bad(struct kunit *test, const struct vecs_way *way)
{
	const struct bad_param *p = test->param_value;
	struct vecs_test *ctx = test->priv;

	ctx->way = way;
	ctx->va = p->start;
	KUNIT_EXPECT_EQ(test, p->ret, vecs_pin(test, 0, p->nr, p->max));
	KUNIT_EXPECT_EQ(test, ctx->nr, 0);
	vecs_end(test);
}

static void bad_local(struct kunit *test)
{
	vecs_test_bad(test, &way_fast);
}

static void bad_remote(struct kunit *test)
{
	vecs_test_bad(test, &way_remote);
}

static const struct flags_param {
	const char	*desc;
	unsigned int	flags;
} flags_params[] = {
	{ "FOLL_PIN", FOLL_PIN },
	{ "FOLL_GET", FOLL_GET },
	{ "FOLL_FAST_ONLY", FOLL_FAST_ONLY },
	{ "FOLL_NOWAIT", FOLL_NOWAIT },
	{ "FOLL_ANON", FOLL_ANON },
	{ "FOLL_LONGTERM | FOLL_PCI_P2PDMA", FOLL_LONGTERM | FOLL_PCI_P2PDMA },
};

KUNIT_ARRAY_PARAM_DESC(flags, flags_params, desc);

static void bad_flags(struct kunit *test)
{
	const struct flags_param *p = test->param_value;
	struct vecs_way way = { p->flags, ULONG_MAX };
	struct vecs_test *ctx = test->priv;

	vecs_map_layout(test, &layout_compound, &way);
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, -EINVAL, vecs_pin(test, 0, 8, 1));
	}
	KUNIT_EXPECT_EQ(test, ctx->nr, 0);
	vecs_end(test);
	ctx->way = &way_fast;
}

static void killed(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;
	int ret;

	vecs_map_layout(test, &layout_compound, &way_fast);
	sigaddset(&current->pending.signal, SIGKILL);
	set_thread_flag(TIF_SIGPENDING);
	ret = vecs_pin(test, 0, 8, 1);
	sigdelset(&current->pending.signal, SIGKILL);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_EXPECT_EQ(test, -EINTR, ret);
	KUNIT_EXPECT_EQ(test, ctx->nr, 0);
	vecs_end(test);
}

/* ---- release ---- */

static const struct dirty_param {
	const char	*desc;
	bool		dirty;
} dirty_params[] = {
	{ "clean", false },
	{ "dirty", true },
};

KUNIT_ARRAY_PARAM_DESC(dirty, dirty_params, desc);

static void release_dirties(struct kunit *test)
{
	static const struct vecs_layout layout = {
		"mixed", 5, { 7, 8, 9, 16, 2 }, { {7, 3}, {16, 1}, {2, 1} }, 4
	};
	const struct dirty_param *p = test->param_value;
	struct vecs_test *ctx = test->priv;
	unsigned int nr, i;

	vecs_map_layout(test, &layout, &way_fast);
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, 0, layout.nr, TEST_LAYOUT));
	vecs_expect(test, &layout);
	for (i = 0; i < TEST_PAGES; i++)
		folio_clear_dirty(page_folio(ctx->pages + i));
	nr = ctx->nr;
	ctx->nr = 0;
	unpin_user_vecs(ctx->vecs, nr, p->dirty);
	for (i = 0; i < TEST_PAGES; i++) {
		bool pinned = i == 2 || (i >= 7 && i < TEST_C);

		KUNIT_EXPECT_EQ_MSG(test, p->dirty && pinned,
				    folio_test_dirty(page_folio(ctx->pages + i)),
				    "page %u", i);
	}
	vecs_end(test);
}

static void release_nothing(struct kunit *test)
{
	unpin_user_vecs(NULL, 0, true);
	vecs_end(test);
}

/* ---- anonymous memory ---- */

static const struct zero_param {
	const char	*desc;
	unsigned int	flags;
	unsigned int	pins;
} zero_params[] = {
	{ "read", 0, 0 },
	/* Copied, for later writes of the process to be seen. */
	{ "read, long term", FOLL_LONGTERM, 2 },
	{ "write", FOLL_WRITE, 2 },
};

KUNIT_ARRAY_PARAM_DESC(zero, zero_params, desc);

/* Never written to: faulted in by the first call, present for the second. */
static void zero_page(struct kunit *test)
{
	const struct zero_param *p = test->param_value;
	struct vecs_way way = { p->flags };
	struct vecs_test *ctx = test->priv;
	unsigned int i, round;
	struct page *page;

	vecs_anon(test, TEST_VA, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE);
	ctx->way = &way;
	for (round = 0; round < 2; round++) {
		KUNIT_EXPECT_EQ(test, 0, vecs_pin(test, 0, 2, 2));
		KUNIT_EXPECT_EQ(test, vecs_pages(ctx, 0), 2);
		KUNIT_EXPECT_EQ(test, ctx->pins + p->pins, vecs_pins());
		for (i = 0; i < ctx->nr; i++) {
			page = phys_to_page(ctx->vecs[i].paddr);
			KUNIT_EXPECT_EQ(test, !p->pins, is_zero_page(page));
		}
		unpin_user_vecs(ctx->vecs, ctx->nr, p->flags & FOLL_WRITE);
		ctx->nr = 0;
		KUNIT_EXPECT_EQ(test, ctx->pins, vecs_pins());
	}
	ctx->way = &way_fast;
	vecs_end(test);
}

/* Two huge pages; without @touch nobody wrote to them. */
static void vecs_huge(struct kunit *test, const struct vecs_way *way,
		      bool touch)
{
	struct vecs_test *ctx = test->priv;
	unsigned int i;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ||
	    !IS_ENABLED(CONFIG_ADVISE_SYSCALLS))
		kunit_skip(test, "no transparent huge pages in this kernel");
	ctx->way = way;
	vecs_anon(test, TEST_VA_HUGE, 2 * PMD_SIZE, PROT_READ | PROT_WRITE);
	KUNIT_ASSERT_EQ(test, 0, do_madvise(current->mm, ctx->va, ctx->len,
					    MADV_HUGEPAGE));
	for (i = 0; touch && i < 2; i++)
		KUNIT_ASSERT_EQ(test, 0, put_user(1, (char __user *)ctx->va +
						     i * PMD_SIZE));
}

/* The folio that user memory has at page @idx; the pages hold a reference. */
static struct folio *vecs_user_folio(struct kunit *test, unsigned long idx)
{
	struct vecs_test *ctx = test->priv;
	struct folio *folio;
	struct page *page;

	KUNIT_ASSERT_EQ(test, 1,
			get_user_pages_fast(ctx->va + idx * PAGE_SIZE, 1, 0,
					    &page));
	folio = page_folio(page);
	folio_put(folio);
	if (folio_size(folio) != PMD_SIZE)
		kunit_skip(test, "no huge page was given");
	return folio;
}

static const struct huge_param {
	const char	*desc;
	long		first;	/* pages from the end of the first huge page */
	long		end;
	unsigned int	pins;
} huge_params[] = {
	{ "whole", LONG_MIN, 0, 1 },
	{ "middle", -20, -4, 1 },
	{ "last page", -1, 0, 1 },
	{ "both", LONG_MIN, LONG_MAX, 2 },
	{ "last pages, first pages", -3, 5, 2 },
};

KUNIT_ARRAY_PARAM_DESC(huge, huge_params, desc);

/* One entry for each huge page; one for both, if they are neighbours. */
static void vecs_test_huge(struct kunit *test, const struct vecs_way *way)
{
	const struct huge_param *p = test->param_value;
	struct vecs_test *ctx = test->priv;
	long half = PMD_SIZE >> PAGE_SHIFT;
	unsigned long first = half + max(p->first, -half);
	unsigned long end = half + min(p->end, half);
	struct folio *folio[2];
	bool neighbours;

	vecs_huge(test, way, way->present);
	KUNIT_ASSERT_EQ(test, 0, vecs_pin(test, first, end - first, TEST_VECS));
	folio[0] = vecs_user_folio(test, 0);
	KUNIT_EXPECT_EQ(test, ctx->vecs[0].paddr,
			page_to_phys(folio_page(folio[0], first)));
	KUNIT_EXPECT_EQ(test, 1, vecs_folio_pins(folio[0]));
	neighbours = false;
	if (p->pins == 2) {
		folio[1] = vecs_user_folio(test, half);
		neighbours = folio_pfn(folio[1]) == folio_pfn(folio[0]) + half;
		KUNIT_EXPECT_EQ(test, 1, vecs_folio_pins(folio[1]));
	}
	KUNIT_EXPECT_EQ(test, ctx->nr, p->pins - neighbours);
	KUNIT_EXPECT_EQ(test, vecs_pages(ctx, 0), end - first);
	KUNIT_EXPECT_EQ(test, ctx->pins + p->pins, vecs_pins());
	vecs_end(test);
}

static void huge_fast(struct kunit *test)
{
	vecs_test_huge(test, &way_fast);
}

static void huge_fault(struct kunit *test)
{
	vecs_test_huge(test, &way_fault);
}

static void huge_longterm(struct kunit *test)
{
	vecs_test_huge(test, &way_longterm);
}

static void huge_remote(struct kunit *test)
{
	vecs_test_huge(test, &way_remote);
}

/* A huge page that page table entries map singly, because one is missing. */
static void huge_without_last_page(struct kunit *test)
{
	unsigned long nr = (PMD_SIZE >> PAGE_SHIFT) - 1;
	struct vecs_test *ctx = test->priv;
	struct folio *folio;

	vecs_huge(test, &way_fast, true);
	folio = vecs_user_folio(test, 0);
	KUNIT_ASSERT_EQ(test, 0,
			vm_munmap(ctx->va + nr * PAGE_SIZE, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -EFAULT, vecs_pin(test, 0, nr + 1, TEST_VECS));
	KUNIT_EXPECT_EQ(test, ctx->nr, 1);
	KUNIT_EXPECT_EQ(test, vecs_pages(ctx, 0), nr);
	KUNIT_EXPECT_EQ(test, 1, vecs_folio_pins(folio));
	KUNIT_EXPECT_EQ(test, ctx->pins + 1, vecs_pins());
	vecs_end(test);
}

/* It is pinned as other folios, and what was added is taken away. */
static void huge_zero(struct kunit *test)
{
	struct vecs_test *ctx = test->priv;
	struct folio *folio;
	unsigned int round;
	int refs;

	vecs_huge(test, &way_read, false);
	folio = vecs_user_folio(test, 0);
	if (!is_huge_zero_folio(folio))
		kunit_skip(test, "no huge zero page was given");
	refs = folio_ref_count(folio);
	for (round = 0; round < 2; round++) {
		KUNIT_EXPECT_EQ(test, 0,
				vecs_pin(test, 0, PMD_SIZE >> PAGE_SHIFT,
					 TEST_VECS));
		KUNIT_EXPECT_EQ(test, ctx->nr, 1);
		KUNIT_EXPECT_EQ(test, ctx->vecs[0].len, PMD_SIZE);
		KUNIT_EXPECT_EQ(test, ctx->pins + 1, vecs_pins());
		unpin_user_vecs(ctx->vecs, ctx->nr, false);
		ctx->nr = 0;
		KUNIT_EXPECT_EQ(test, refs, folio_ref_count(folio));
	}
	vecs_end(test);
}

/* ---- fork ---- */

/* While fork() copies page tables, only the slow path may pin. */
static void fork_under_way(struct kunit *test)
{
	seqcount_t *seq = &current->mm->write_protect_seq;
	long acquired;
	int ret;

	vecs_map_layout(test, &layout_compound, &way_fast);
	acquired = vecs_stat(NR_FOLL_PIN_ACQUIRED);
	raw_write_seqcount_begin(seq);
	ret = vecs_pin(test, 0, 8, 8);
	raw_write_seqcount_end(seq);
	KUNIT_ASSERT_EQ(test, 0, ret);
	KUNIT_EXPECT_EQ(test, acquired + 8, vecs_stat(NR_FOLL_PIN_ACQUIRED));
	vecs_expect(test, &layout_compound);
	vecs_end(test);
}

static int vecs_fork_thread(void *arg)
{
	seqcount_t *seq = arg;

	while (!kthread_should_stop()) {
		raw_write_seqcount_begin(seq);
		raw_write_seqcount_end(seq);
		cond_resched();
	}
	return 0;
}

/* What a walk pinned that fork() came across is released, and pinned again. */
static void fork_races(struct kunit *test)
{
	static const struct vecs_layout layout = {
		"mixed", 8, { 0, 1, 5, 8, 9, 10, 16, 9 },
		{ {0, 2}, {5, 1}, {8, 3}, {16, 1}, {9, 1} }, 6
	};
	struct vecs_test *ctx = test->priv;
	struct task_struct *thread;
	unsigned int i, bad = 0;

	vecs_map_layout(test, &layout, &way_fast);
	thread = kthread_run(vecs_fork_thread, &current->mm->write_protect_seq,
			     "vecs_fork");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, thread);
	for (i = 0; i < 1000 && !bad; i++) {
		unpin_user_vecs(ctx->vecs, ctx->nr, false);
		ctx->nr = 0;
		bad = vecs_pin(test, 0, layout.nr, TEST_LAYOUT) ||
		      vecs_pages(ctx, 0) != layout.nr;
	}
	kthread_stop(thread);
	KUNIT_EXPECT_EQ(test, bad, 0);
	vecs_expect(test, &layout);
	vecs_end(test);
}

static struct kunit_case vecs_cases[] = {
	KUNIT_CASE_PARAM(layout_fast, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(layout_fast_two_tables, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(layout_read, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(layout_fault, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(layout_fast_then_fault, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(layout_longterm, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(layout_remote, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(pieces_fast, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(pieces_fault, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(pieces_longterm, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(pieces_remote, vecs_layouts_gen_params),
	KUNIT_CASE_PARAM(room_fast, room_gen_params),
	KUNIT_CASE_PARAM(room_fault, room_gen_params),
	KUNIT_CASE(second_call_in_the_middle),
	KUNIT_CASE(release_as_one),
	KUNIT_CASE(fast_counts_once),
	KUNIT_CASE(many_tables),
	KUNIT_CASE_PARAM(hole_fast, hole_gen_params),
	KUNIT_CASE_PARAM(hole_fault, hole_gen_params),
	KUNIT_CASE_PARAM(hole_longterm, hole_gen_params),
	KUNIT_CASE_PARAM(hole_remote, hole_gen_params),
	KUNIT_CASE(hole_after_full),
	KUNIT_CASE(read_only_for_write),
	KUNIT_CASE(read_only_for_read),
	KUNIT_CASE(nr_pages_64bit),
	KUNIT_CASE_PARAM(bad_local, bad_gen_params),
	KUNIT_CASE_PARAM(bad_remote, bad_gen_params),
	KUNIT_CASE_PARAM(bad_flags, flags_gen_params),
	KUNIT_CASE(killed),
	KUNIT_CASE_PARAM(release_dirties, dirty_gen_params),
	KUNIT_CASE(release_nothing),
	KUNIT_CASE_PARAM(zero_page, zero_gen_params),
	KUNIT_CASE_PARAM(huge_fast, huge_gen_params),
	KUNIT_CASE_PARAM(huge_fault, huge_gen_params),
	KUNIT_CASE_PARAM(huge_longterm, huge_gen_params),
	KUNIT_CASE_PARAM(huge_remote, huge_gen_params),
	KUNIT_CASE(huge_without_last_page),
	KUNIT_CASE(huge_zero),
	KUNIT_CASE(fork_under_way),
	KUNIT_CASE(fork_races),
	{}
};

static struct kunit_suite vecs_suite = {
	.name = "gup_range_vecs",
	.init = vecs_test_init,
	.exit = vecs_test_exit,
	.test_cases = vecs_cases,
};

kunit_test_suite(vecs_suite);

MODULE_DESCRIPTION("Tests for pin_user_vecs()");
MODULE_LICENSE("GPL");
