/* SPDX-License-Identifier: GPL-2.0-only */
/* From mm/hmm.c to mm/hmm_dma.c: what a walk found, as physical runs. */
#ifndef _MM_HMM_RUNS_H
#define _MM_HMM_RUNS_H

#include <linux/limits.h>
#include <linux/types.h>

struct hmm_range;

/**
 * struct hmm_runs - physical runs of a part of a range
 * @vec: the runs, one after the other in the order of user addresses; paddr is
 *	%HMM_RUNS_HOLE for what was not there, or not writable as it should be
 * @nr: how many there are
 * @max: how many there is room for, not 0
 * @end: user address that the last run ends at
 */
struct hmm_runs {
	struct phys_vec *vec;
	unsigned int nr;
	unsigned int max;
	unsigned long end;
};

#define HMM_RUNS_HOLE	PHYS_ADDR_MAX

int hmm_range_fault_runs(struct hmm_range *range, struct hmm_runs *runs,
			 unsigned long timeout);

#endif /* _MM_HMM_RUNS_H */
