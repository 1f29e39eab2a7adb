// SPDX-License-Identifier: GPL-2.0-only
/* What dma_iova_try_alloc_congruent() asks the IOVA allocator for. */
#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/sizes.h>

#include "dma-iommu.h"

#define GRANULE		SZ_4K
#define CACHED		SZ_128K
#define VTD		(SZ_4K | SZ_2M | SZ_1G)
#define ANY		GENMASK(30, 12)		/* AMD: each power of two */

static const struct leaf_case {
	unsigned long	pgsizes;
	u64		addr;
	size_t		size;
	size_t		leaf;
} leaf_cases[] = {
	{ VTD, SZ_2M, SZ_4K, SZ_4K },
	{ VTD, SZ_2M, SZ_2M - SZ_4K, SZ_4K },
	{ VTD, SZ_2M, SZ_2M, SZ_2M },
	/* As long as a page, and none inside */
	{ VTD, SZ_2M + SZ_4K, SZ_2M, SZ_4K },
	{ VTD, SZ_2M + SZ_4K, SZ_4M - SZ_8K, SZ_4K },
	{ VTD, SZ_2M + SZ_4K, SZ_4M - SZ_4K, SZ_2M },
	{ VTD, SZ_1G, SZ_1G, SZ_1G },
	{ VTD, SZ_1G + SZ_4K, SZ_2G - SZ_4K, SZ_1G },
	{ VTD, SZ_1G + SZ_4K, SZ_2G - SZ_8K, SZ_2M },
	{ VTD & ~SZ_1G, SZ_1G, SZ_2G, SZ_2M },
	{ ANY, SZ_64K, SZ_64K, SZ_64K },
	/* 17 pages with the gap: they are cached as 32 */
	{ ANY, SZ_4K, SZ_64K, SZ_32K },
	{ ANY, SZ_64K + SZ_32K, SZ_64K + SZ_32K, SZ_64K },
	/* 34 pages with a gap for 32 KiB, 30 with one for 16 KiB */
	{ ANY, SZ_32K - SZ_8K, SZ_128K - SZ_16K, SZ_16K },
	{ ANY, SZ_32K - SZ_4K, SZ_128K, SZ_4K },
	{ ANY, SZ_32K - SZ_4K, SZ_128K + SZ_4K, SZ_64K },
	{ ANY & ~SZ_4K, SZ_4K, SZ_4K, 1 },
	{ 0, SZ_1G, SZ_1G, 1 },
	/* The end of the address space */
	{ VTD, -(u64)SZ_2M, SZ_2M, SZ_2M },
};

static void test_leaf(struct kunit *test)
{
	const struct leaf_case *c;
	int i;

	for (i = 0; i < ARRAY_SIZE(leaf_cases); i++) {
		c = &leaf_cases[i];
		KUNIT_EXPECT_EQ_MSG(test, c->leaf,
				    iommu_dma_iova_leaf(c->pgsizes, c->addr,
							c->size, CACHED),
				    "case %d: addr %#llx size %#zx", i, c->addr,
				    c->size);
	}
}

static const struct fit_case {
	u64			addr;
	size_t			size;
	size_t			leaf;
	struct iommu_dma_fit	fit;
} fit_cases[] = {
	/* No larger page, no gap */
	{ SZ_1G + SZ_4K, SZ_4K, SZ_4K, { .size = SZ_4K, .natural = true } },
	{ SZ_1G + SZ_4K, 25 * SZ_4K, SZ_4K, { .size = 25 * SZ_4K, .natural = true } },
	{ SZ_1G + SZ_4K, 33 * SZ_4K, SZ_4K, { .size = 33 * SZ_4K } },
	{ SZ_1G, SZ_2M, SZ_2M, { .size = SZ_2M, .natural = true } },
	/* A gap that makes a power of two of it, and one that does not */
	{ SZ_1G + SZ_1M, SZ_4M - SZ_1M, SZ_2M, { .size = SZ_4M, .natural = true } },
	{ SZ_1G + SZ_4K, SZ_4M, SZ_2M, { .size = SZ_4M + SZ_2M - SZ_4K } },
	{ SZ_1G, SZ_4M + SZ_4K, SZ_2M, { .size = SZ_4M + SZ_2M } },
	{ SZ_1G, 3UL * SZ_1G, SZ_1G, { .size = 4UL * SZ_1G - SZ_4K } },
	/* The pages of the device are larger than the range */
	{ SZ_1G, SZ_64K, SZ_1M, { .size = SZ_1M, .natural = true } },
	{ SZ_1G + SZ_64K, SZ_64K, SZ_1M, { .size = SZ_1M, .natural = true } },
};

static void test_fit(struct kunit *test)
{
	const struct fit_case *c;
	struct iommu_dma_fit fit;
	int i;

	for (i = 0; i < ARRAY_SIZE(fit_cases); i++) {
		c = &fit_cases[i];
		KUNIT_ASSERT_TRUE(test, iommu_dma_iova_fit(&fit, c->addr, c->size,
							   c->leaf, GRANULE, CACHED));
		KUNIT_EXPECT_EQ_MSG(test, c->fit.size, fit.size, "case %d", i);
		KUNIT_EXPECT_EQ_MSG(test, c->fit.natural, fit.natural, "case %d", i);
		KUNIT_EXPECT_EQ_MSG(test, c->leaf, fit.leaf, "case %d", i);
	}
}

/* dma_iova_state has no room for the size, or nothing has. */
static void test_fit_limit(struct kunit *test)
{
	struct iommu_dma_fit fit;

	KUNIT_EXPECT_FALSE(test, iommu_dma_iova_fit(&fit, 0, SIZE_MAX & PAGE_MASK,
						    SZ_4K, GRANULE, CACHED));
	KUNIT_EXPECT_FALSE(test, iommu_dma_iova_fit(&fit, SZ_4K, SIZE_MAX / 2 - SZ_8K,
						    SZ_2M, GRANULE, CACHED));
}

/* Any page-aligned number of up to 2^@bits bytes, small ones as often as others. */
static u64 any_bytes(struct rnd_state *rnd, unsigned int bits)
{
	u64 bytes = (u64)prandom_u32_state(rnd) << 32 | prandom_u32_state(rnd);

	bits = 13 + prandom_u32_state(rnd) % (bits - 12);
	return max(bytes & (BIT_ULL(bits) - 1) & ~(u64)(GRANULE - 1), GRANULE);
}

/* Wherever the allocator puts it: the range is inside, and congruent. */
static void test_fit_at_any_start(struct kunit *test)
{
	struct iommu_dma_fit fit;
	struct rnd_state rnd;
	int i;

	prandom_seed_state(&rnd, 20190319);
	for (i = 0; i < 100000; i++) {
		u64 addr = any_bytes(&rnd, 47), base = any_bytes(&rnd, 47), offset;
		size_t size = any_bytes(&rnd, 41);
		size_t align = prandom_u32_state(&rnd) % 8 ? 1 : SZ_64K, leaf;

		leaf = iommu_dma_iova_leaf(i & 1 ? VTD : ANY, addr, size, CACHED);
		leaf = max(leaf, align);
		KUNIT_ASSERT_TRUE(test, iommu_dma_iova_fit(&fit, addr, size, leaf,
							   GRANULE, CACHED));
		/* A cache gives and takes sizes that are aligned to themselves. */
		if (fit.size <= CACHED)
			KUNIT_ASSERT_TRUE(test, fit.natural);
		if (fit.natural)
			base &= ~(u64)(roundup_pow_of_two(fit.size) - 1);
		offset = (addr - base) & (fit.leaf - 1);
		KUNIT_ASSERT_LE_MSG(test, offset + size, fit.size,
				    "addr %#llx size %#zx leaf %#zx base %#llx",
				    addr, size, leaf, base);
		KUNIT_ASSERT_LT(test, (u64)fit.size, (u64)size + leaf);
	}
}

static struct kunit_case dma_iommu_cases[] = {
	KUNIT_CASE(test_leaf),
	KUNIT_CASE(test_fit),
	KUNIT_CASE(test_fit_limit),
	KUNIT_CASE(test_fit_at_any_start),
	{}
};

static struct kunit_suite dma_iommu_suite = {
	/* Beside those of the IOMMU page tables, which end in _iommu_test */
	.name = "dma_iommu_test",
	.test_cases = dma_iommu_cases,
};

kunit_test_suite(dma_iommu_suite);

MODULE_DESCRIPTION("KUnit tests for IOVA placement");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
