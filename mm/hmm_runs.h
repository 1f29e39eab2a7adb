/* SPDX-License-Identifier: GPL-2.0-only */
/* From mm/hmm.c to mm/hmm_map.c: what a walk found, as physical runs. */
#ifndef _MM_HMM_RUNS_H
#define _MM_HMM_RUNS_H

#include <linux/limits.h>
#include <linux/types.h>

struct hmm_range;

/**
 * struct hmm_runs - physical runs of a part of a range
 * @vec: the runs, one after the other in the order of user addresses; none leaves
 *	a folio or a PMD. The low bits of len are flags: %HMM_RUN_WRITE. paddr is
 *	%HMM_RUNS_HOLE for what was not there, or not writable as it should be
 * @nr: how many there are
 * @max: how many there is room for, not 0
 * @end: user address that the last run ends at
 * @may_write: in: set %HMM_RUN_WRITE where only reading was asked for
 */
struct hmm_runs {
	struct phys_vec *vec;
	unsigned int nr;
	unsigned int max;
	unsigned long end;
	bool may_write;
};

/* The entry is writable and dirty, though only reading was asked for. */
#define HMM_RUN_WRITE	1UL

#define HMM_RUNS_HOLE	PHYS_ADDR_MAX

int hmm_range_fault_runs(struct hmm_range *range, struct hmm_runs *runs,
			 unsigned long timeout);

#endif /* _MM_HMM_RUNS_H */
