/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tells after a test that it left nothing behind, and what makes allocations
 * fail. Nothing here takes a file that is missing for a good answer;
 * gup_range_probe.c shows of each oracle that it sees what it is there for.
 */
#ifndef _GUP_RANGE_ORACLES_H
#define _GUP_RANGE_ORACLES_H

#include <limits.h>

#include "gup_range_util.h"

#define TRACING		"/sys/kernel/tracing/"
#define STATS		"/sys/kernel/debug/gup_range/stats"
#define SWIOTLB		"/sys/kernel/debug/swiotlb/"

#define ORACLE_FAILED	LONG_MIN

struct oracles {
	long pins;
	long swiotlb;
	bool faults_expected;
};

/* Where maps and unmaps of the IOMMU do not balance; error: it is not known. */
struct iova_balance {
	const char *error;
	unsigned long events;
	uint64_t iova;		/* the first such address */
	int count;		/* maps minus unmaps there; 0: all balance */
	int64_t bytes;		/* the same of all that was mapped */
};

/* FOLL_PIN references that are held, or ORACLE_FAILED. */
long pins_now(void);
/* Slots of bounce buffers in use; -1 where the kernel has no pool. */
long swiotlb_used(void);
/*
 * IOVAs, without what the allocator keeps of freed ones; -1 if unknown. And how many
 * may be those of another cache that this one is merged with.
 */
long iova_objects(void);
long iova_noise(void);
/* From here on iova_balance() looks. NULL, or the file that is at fault. */
const char *trace_start(void);
const char *trace_stop(void);
void iova_balance(struct iova_balance *b);
/*
 * Where the pages of @len bytes from @iova on were last mapped to, 0 for those
 * that were not. NULL, or why it is not known.
 */
const char *iova_phys(uint64_t iova, size_t len, uint64_t *phys);
/*
 * IOMMU faults in the log since the last call, by whichever test of the program, so
 * that none falls between two of them; -1 if it cannot be read.
 */
int iommu_faults(void);

bool boot_has(const char *what);
/* The PCI address of the test device. */
int edu_slot(char *slot);
bool iommu_is(const char *driver);
bool iommu_is_lazy(void);
bool bounces(void);

/* Have allocations that may sleep fail, too. NULL, or the file that is at fault. */
const char *fail_setup(void);
/* As fail_nth() below; -errno. */
int fail_nth_left(int n);

#ifdef __KSELFTEST_HARNESS_H

/* In the setup of a fixture, before anything is mapped. */
static inline void oracles_begin(struct __test_metadata *_metadata,
				 struct oracles *o)
{
	const char *error;

	memset(o, 0, sizeof(*o));
	o->pins = pins_now();
	EXPECT_NE(ORACLE_FAILED, o->pins)
		TH_LOG("no count of pins in /proc/vmstat");
	o->swiotlb = swiotlb_used();
	EXPECT_EQ(0, iommu_faults())
		TH_LOG("IOMMU faults since the test before; -1: no /dev/kmsg");
	error = trace_start();
	EXPECT_EQ(NULL, error)
		TH_LOG("%s cannot be written", error);
}

/* Each IOVA was unmapped as often as it was mapped. */
static inline void expect_balance(struct __test_metadata *_metadata)
{
	struct iova_balance b;

	iova_balance(&b);
	EXPECT_EQ(NULL, b.error)
		TH_LOG("the trace of maps and unmaps: %s", b.error);
	EXPECT_EQ(0, b.count)
		TH_LOG("maps minus unmaps at IOVA 0x%llx, of %lu events",
		       (unsigned long long)b.iova, b.events);
}

/* Everything is as it was before the test. */
static inline void oracles_check(struct __test_metadata *_metadata,
				 struct oracles *o)
{
	const char *error = trace_stop();
	int faults;

	EXPECT_EQ(NULL, error)
		TH_LOG("%s cannot be written", error);
	EXPECT_EQ(0, file_number(STATS, "pins"));
	EXPECT_EQ(0, file_number(STATS, "pinned_bytes"));
	EXPECT_EQ(0, file_number(STATS, "maps"));
	EXPECT_EQ(0, file_number(STATS, "mapped_bytes"));
	EXPECT_EQ(o->pins, pins_now());
	EXPECT_EQ(0, file_number("/proc/self/status", "VmPin"));
	EXPECT_EQ(0, file_number("/proc/self/status", "VmLck"));
	EXPECT_EQ(o->swiotlb, swiotlb_used());
	expect_balance(_metadata);
	/* 1 << 18 says that KUnit has run in this kernel. */
	EXPECT_EQ(0, file_long("/proc/sys/kernel/tainted") & ~(1L << 18));
	if (access("/proc/lockdep_stats", R_OK) == 0)
		EXPECT_EQ(1, file_number("/proc/lockdep_stats",
					 " debug_locks"));
	if (o->faults_expected)
		usleep(50000);
	faults = iommu_faults();
	EXPECT_LE(0, faults)
		TH_LOG("/dev/kmsg cannot be read");
	if (!o->faults_expected)
		EXPECT_EQ(0, faults);
}

/* Have the @n-th allocation from here fail; 0 ends it. True: it was not reached. */
static inline bool fail_nth(struct __test_metadata *_metadata, int n)
{
	int left = fail_nth_left(n);

	EXPECT_LE(0, left)
		TH_LOG("fail-nth of this thread: %s", strerror(-left));
	return left > 0;
}

#endif /* __KSELFTEST_HARNESS_H */

#endif /* _GUP_RANGE_ORACLES_H */
