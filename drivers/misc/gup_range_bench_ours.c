// SPDX-License-Identifier: GPL-2.0-only
/* The paths of the bench that go through gup_range. */
#include <linux/build_bug.h>
#include <linux/gup_range.h>
#include <linux/hmm.h>
#include <linux/sched.h>

#include "gup_range_bench.h"

struct ours {
	struct gup_range		range;
	struct gup_range_map		map;
	struct hmm_range_map		mirror;
	struct gup_range_map_stats	before;
};

static struct ours *bench_ours(struct bench *b)
{
	BUILD_BUG_ON(sizeof(struct ours) > sizeof(b->ours));
	return (struct ours *)b->ours;
}

static unsigned long bench_end(const struct bench *b)
{
	return b->start + (b->nr << PAGE_SHIFT);
}

static struct gup_range_map_stats ours_stats(struct ours *o)
{
	return o->mirror.notifier ? hmm_range_map_stats(&o->mirror) :
				    gup_range_map_stats(&o->map);
}

static void ours_stats_map(struct bench *b)
{
	struct ours *o = bench_ours(b);
	struct gup_range_map_stats now = ours_stats(o);

	b->links = now.links - o->before.links;
	b->syncs = now.syncs - o->before.syncs;
	o->before = now;
}

static void ours_stats_unmap(struct bench *b)
{
	struct ours *o = bench_ours(b);
	struct gup_range_map_stats now = ours_stats(o);

	b->flushes = now.flushes - o->before.flushes;
}

static int pinned_setup(struct bench *b)
{
	struct ours *o = bench_ours(b);

	o->range.mm = current->mm;
	o->range.start = b->start;
	o->range.end = bench_end(b);
	o->range.flags = b->write ? GUP_RANGE_WRITE : 0;
	o->range.acct = GUP_RANGE_ACCT_PINNED_VM;
	return gup_range_map_init(&o->map, b->dev, PAGE_SIZE);
}

static void ours_before(struct bench *b)
{
	struct ours *o = bench_ours(b);

	o->before = ours_stats(o);
}

static int pinned_map(struct bench *b)
{
	struct ours *o = bench_ours(b);

	return gup_range_dma_map(&o->range, &o->map);
}

static void pinned_unmap(struct bench *b)
{
	struct ours *o = bench_ours(b);

	gup_range_dma_unmap(&o->range, &o->map);
}

static int mirrored_setup(struct bench *b)
{
	return hmm_range_map_init(&bench_ours(b)->mirror, b->dev, PAGE_SIZE,
				  &b->notifier, NULL, &b->lock);
}

static void mirrored_teardown(struct bench *b)
{
	hmm_range_map_destroy(&bench_ours(b)->mirror);
}

static int mirrored_map_span(struct bench *b, unsigned long start,
			     unsigned long end)
{
	struct ours *o = bench_ours(b);
	struct hmm_range range = {
		.notifier = &b->notifier,
		.start = start,
		.end = end,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (b->write ? HMM_PFN_REQ_WRITE : 0),
	};

	return hmm_range_dma_map(&range, &o->mirror);
}

static void mirrored_unmap_span(struct bench *b, unsigned long start,
				unsigned long end)
{
	struct ours *o = bench_ours(b);

	mutex_lock(&b->lock);
	hmm_range_dma_unmap(&o->mirror, &start, &end);
	mutex_unlock(&b->lock);
}

static void mirrored_invalidate(struct bench *b, unsigned long start,
				unsigned long end)
{
	hmm_range_dma_unmap(&bench_ours(b)->mirror, &start, &end);
}

static int mirrored_map(struct bench *b)
{
	return mirrored_map_span(b, b->start, bench_end(b));
}

static void mirrored_unmap(struct bench *b)
{
	mirrored_unmap_span(b, b->start, bench_end(b));
}

static int fault_map(struct bench *b)
{
	return mirrored_map_span(b, b->part,
				 b->part + (b->part_nr << PAGE_SHIFT));
}

static void fault_unmap(struct bench *b)
{
	mirrored_unmap_span(b, b->part, b->part + (b->part_nr << PAGE_SHIFT));
}

/* The rest, which was not to be timed. */
static void invalidate_after(struct bench *b)
{
	ours_stats_unmap(b);
	mirrored_unmap(b);
}

const struct bench_path gup_range_bench_ours[GUP_RANGE_BENCH_PATHS] = {
	[GUP_RANGE_BENCH_PINNED] = {
		.setup		= pinned_setup,
		.before		= ours_before,
		.map		= pinned_map,
		.mapped		= ours_stats_map,
		.unmap		= pinned_unmap,
		.after		= ours_stats_unmap,
	},
	[GUP_RANGE_BENCH_MIRRORED] = {
		.setup		= mirrored_setup,
		.teardown	= mirrored_teardown,
		.before		= ours_before,
		.map		= mirrored_map,
		.mapped		= ours_stats_map,
		.unmap		= mirrored_unmap,
		.after		= ours_stats_unmap,
		.invalidate	= mirrored_invalidate,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_FAULT] = {
		.setup		= mirrored_setup,
		.teardown	= mirrored_teardown,
		.before		= ours_before,
		.map		= fault_map,
		.mapped		= ours_stats_map,
		.unmap		= fault_unmap,
		.after		= ours_stats_unmap,
		.invalidate	= mirrored_invalidate,
		.mirrored	= true,
	},
	[GUP_RANGE_BENCH_INVALIDATE] = {
		.setup		= mirrored_setup,
		.teardown	= mirrored_teardown,
		.before		= ours_before,
		.map		= mirrored_map,
		.mapped		= ours_stats_map,
		.unmap		= fault_unmap,
		.after		= invalidate_after,
		.invalidate	= mirrored_invalidate,
		.mirrored	= true,
	},
};
